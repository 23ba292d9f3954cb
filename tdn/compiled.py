"""Compiled files ``*.tdn.pth``: checking, loading and evaluating them.

A compiled file is a TorchScript archive (a zip file) with one function from edges to energies per
atom and edge gradients, plus ``metadata.json`` and ``reference.json``. The latter holds a small
structure with its energies, forces and virial: whoever loads the file computes them again and
refuses the file when they differ, so that wrong versions and broken builds become an error instead
of wrong physics. `tdn_export` writes these files; nothing here needs it.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import ops as _ops  # noqa: F401  registers the operators that the archive calls
from . import torchscript
from .errors import TDNError
from .graph import Graph
from .potential import assemble_forces, assemble_virial

FORMAT = "tdn-compiled"
FORMAT_VERSION = 1
SUFFIX = ".tdn.pth"
MAX_JSON_BYTES = 16 * 2**20

# what a reader relies on, with the types that JSON gives
REQUIRED_METADATA = {
    "r_max": (int, float),
    "num_layers": int,
    "species": list,
    "atomic_numbers": list,
    "dtype": str,
    "units": dict,
}
REQUIRED_REFERENCE = (
    "species",
    "edge_index",
    "edge_vec",
    "num_local",
    "atom_energy",
    "forces",
    "virial",
    "tolerance",
)


@dataclass
class CompiledModel:
    """A loaded compiled file.

    Attributes
    ----------
    module : (species, edge_index, edge_vec, num_local) -> (atom_energy, edge_gradient)
    metadata : contents of ``metadata.json``
    reference : contents of ``reference.json``
    device : where it computes
    """

    module: torch.nn.Module
    metadata: dict[str, Any]
    reference: dict[str, Any]
    device: torch.device

    @property
    def r_max(self) -> float:
        """Cutoff radius in angstrom."""
        return float(self.metadata["r_max"])

    @property
    def atomic_numbers(self) -> list[int]:
        """Atomic number of each species."""
        return list(self.metadata["atomic_numbers"])

    def evaluate_edges(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, num_local: int
    ) -> tuple[Tensor, Tensor]:
        """Run the compiled function as it is.

        Parameters
        ----------
        species : int64 [n_all]
        edge_index : int64 [2, E], sorted by centre
        edge_vec : float64 [E, 3], angstrom
        num_local : number of atoms that have an energy

        Returns
        -------
        atom_energy : float64 [num_local], eV
        edge_gradient : float64 [E, 3], eV/angstrom
        """
        # tensors made in inference mode cannot take part in the gradient
        with torch.inference_mode(False), torchscript.plain_execution():
            species, edge_index, edge_vec = (
                x.clone() if x.is_inference() else x for x in (species, edge_index, edge_vec)
            )
            return self.module(species, edge_index, edge_vec, num_local)

    def __call__(self, graph: Graph) -> dict[str, Tensor]:
        """Evaluate a graph; the same quantities as `tdn.potential.Potential` gives.

        Returns
        -------
        dict
            ``energy`` [B] eV, ``atom_energy`` [N] eV, ``forces`` [N, 3] eV/angstrom, ``virial``
            [B, 3, 3] eV, ``stress`` [B, 3, 3] eV/angstrom^3; all float64.
        """
        edge_vec = graph.edge_vec
        atom_energy, gradient = self.evaluate_edges(
            graph.species, graph.edge_index, edge_vec, graph.num_atoms
        )
        edge_graph = graph.batch[graph.edge_index[0]]
        virial = assemble_virial(gradient, edge_vec, edge_graph, graph.num_graphs)
        volume = torch.where(graph.volume > 0, graph.volume, torch.nan)
        energy = atom_energy.new_zeros(graph.num_graphs)
        return {
            "energy": energy.index_add(0, graph.batch, atom_energy),
            "atom_energy": atom_energy,
            "forces": assemble_forces(gradient, graph.edge_index, graph.num_atoms),
            "virial": virial,
            "stress": -virial / volume.view(-1, 1, 1),
        }

    def reference_deviations(self) -> dict[str, float]:
        """Largest deviation from the stored reference in ``energy`` (eV per atom), ``forces``
        (eV/angstrom) and ``virial`` (eV)."""
        stored = self.reference
        double = {"dtype": torch.float64, "device": self.device}
        edge_index = torch.tensor(stored["edge_index"], dtype=torch.int64, device=self.device)
        edge_index = edge_index.view(2, -1)
        edge_vec = torch.tensor(stored["edge_vec"], **double).view(-1, 3)
        species = torch.tensor(stored["species"], dtype=torch.int64, device=self.device)
        num_local = int(stored["num_local"])
        energy, gradient = self.evaluate_edges(species, edge_index, edge_vec, num_local)
        zero = edge_index.new_zeros(edge_vec.shape[0])
        found = {
            "energy": energy,
            "forces": assemble_forces(gradient, edge_index, num_local),
            "virial": assemble_virial(gradient, edge_vec, zero, 1)[0],
        }
        keys = {"energy": "atom_energy", "forces": "forces", "virial": "virial"}
        return {
            name: _largest(value - torch.tensor(stored[keys[name]], **double))
            for name, value in found.items()
        }


def _largest(difference: Tensor) -> float:
    """Largest magnitude; infinity if anything is not a number."""
    value = difference.abs().max().item() if difference.numel() else 0.0
    return value if value == value else float("inf")


def is_compiled_file(path: str | Path) -> bool:
    """Whether ``path`` is a compiled file by its contents, or, without readable ones, its name."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(n.endswith(("/constants.pkl", "/metadata.json")) for n in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return Path(path).name.endswith(SUFFIX)


def read_extra_files(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check a compiled file and read what stands beside the network, without running anything.

    Returns
    -------
    metadata, reference : contents of ``metadata.json`` and ``reference.json``

    Raises
    ------
    TDNError
        If the file is missing, cut short, of another kind, damaged, or of a newer format.
    """
    path = Path(path)
    again = "write it again with `tdn-export model.pt`"
    if path.is_dir():
        raise TDNError(f"{path} is a folder; expected a compiled file (*{SUFFIX})")
    if not path.exists():
        raise TDNError(f"compiled file {path} not found; `tdn-export model.pt` writes one")
    try:
        with zipfile.ZipFile(path) as archive:
            names = {n.partition("/")[2] for n in archive.namelist()}
            if not {"data.pkl", "version"} <= names:
                raise TDNError(f"{path} is a foreign zip file, not a compiled file of TDN; {again}")
            if "constants.pkl" not in names:
                raise TDNError(
                    f"{path} is a checkpoint, not a compiled file; run `tdn-export {path}` first"
                )
            if not {"extra/metadata.json", "extra/reference.json"} <= names:
                raise TDNError(
                    f"{path} is a TorchScript file of another program (it has no metadata of TDN); "
                    + again
                )
            if (damaged := archive.testzip()) is not None:
                raise TDNError(f"{path} is damaged: its part {damaged} fails the checksum; {again}")
            metadata, reference = (
                _read_json(archive, path, name) for name in ("metadata.json", "reference.json")
            )
    except zlib.error:
        raise TDNError(f"{path} is damaged: a part of it cannot be unpacked; {again}") from None
    except PermissionError:
        raise TDNError(f"{path} cannot be read: no permission") from None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError):
        raise TDNError(
            f"{path} is not a compiled file of TDN, or it is cut short; {again}"
        ) from None
    _check_metadata(path, metadata)
    missing = [name for name in REQUIRED_REFERENCE if name not in reference]
    if missing:
        raise TDNError(f"{path}: reference.json lacks '{missing[0]}'; {again}")
    return metadata, reference


def _read_json(archive: zipfile.ZipFile, path: Path, name: str) -> dict[str, Any]:
    member = next(i for i in archive.infolist() if i.filename.endswith(f"/extra/{name}"))
    if member.file_size > MAX_JSON_BYTES:
        raise TDNError(
            f"{path}: {name} has {member.file_size} bytes, expected at most {MAX_JSON_BYTES}; "
            "the file was not written by tdn-export"
        )
    try:
        content = json.loads(archive.read(member))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise TDNError(f"{path}: {name} is not valid JSON; write it again with tdn-export")
    return content


def _check_metadata(path: Path, metadata: dict[str, Any]) -> None:
    if metadata.get("format") != FORMAT:
        raise TDNError(
            f"{path}: format is {metadata.get('format')!r}, expected '{FORMAT}'; "
            "write it with tdn-export"
        )
    version = metadata.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise TDNError(
            f"{path} has format version {version}, this tdn reads up to {FORMAT_VERSION}; "
            f"install tdn {metadata.get('tdn_version', '(unknown)')} or newer"
        )
    for name, kind in REQUIRED_METADATA.items():
        value = metadata.get(name)
        if not isinstance(value, kind):
            raise TDNError(
                f"{path}: metadata '{name}' is {value!r}; write it again with tdn-export"
            )
    if len(metadata["species"]) != len(metadata["atomic_numbers"]):
        raise TDNError(
            f"{path}: metadata names {len(metadata['species'])} species but has "
            f"{len(metadata['atomic_numbers'])} atomic numbers"
        )
    units = {"energy": "eV", "length": "angstrom"}
    if metadata["units"] != units:
        raise TDNError(f"{path}: units are {metadata['units']}, expected {units}")


def load_compiled(
    path: str | Path, device: torch.device | str = "cpu", check: bool = True
) -> CompiledModel:
    """Load a compiled file.

    Parameters
    ----------
    path : file that tdn-export wrote
    device : cpu, cuda or cuda:N
    check : compute the stored reference and compare

    Raises
    ------
    TDNError
        If the file is not a usable compiled file, or its network computes something else here
        than where it was written.
    """
    metadata, reference = read_extra_files(path)
    device = torch.device(device)
    try:
        module = torchscript.load(path, device)
    except RuntimeError as error:
        raise TDNError(
            f"{path} cannot be loaded by PyTorch {torch.__version__} (it was written with "
            f"{metadata.get('torch_version', 'an unknown version')}): {_reason(error)}"
        ) from None
    model = CompiledModel(module, metadata, reference, device)
    if check:
        check_reference(model, path)
    return model


def check_reference(model: CompiledModel, path: str | Path) -> dict[str, float]:
    """Compare a loaded model with the reference inside its file; return the deviations.

    Raises
    ------
    TDNError
        If any deviation exceeds the tolerance that the file states.
    """
    try:
        deviations = model.reference_deviations()
        tolerance = {name: float(model.reference["tolerance"][name]) for name in deviations}
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise TDNError(f"{path}: its reference cannot be computed: {_reason(error)}") from None
    units = {"energy": "eV per atom", "forces": "eV/angstrom", "virial": "eV"}
    for name, value in deviations.items():
        if not value <= tolerance[name]:
            raise TDNError(
                f"{path} computes something else here than where it was written: its reference "
                f"{name} differs by {value:.2g} {units[name]} (tolerance {tolerance[name]:.2g}); "
                "build the operators again (`tdn-ops build`) or export the checkpoint again"
            )
    return deviations


def _reason(error: Exception) -> str:
    """The last line of an error of PyTorch, which is the one that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
