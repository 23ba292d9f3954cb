"""Compiled files: loading and evaluating them.

A compiled file holds one function from edges to energies per atom and edge gradients, as a
TorchScript archive (``*.tdn.pth``) or as machine code (``*.tdn.pt2``, `.aotinductor`), plus
``metadata.json`` and ``reference.json``. The latter holds a small structure with its energies,
forces and virial: whoever loads the file computes them again and refuses the file when they differ,
so that wrong versions and broken builds become an error instead of wrong physics. `tdn_export`
writes these files; nothing here needs it. The contract is docs/compiled_file.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdn import ops as _ops
from tdn.graph import Graph
from tdn.network import potential
from tdn.system.devices import select_device
from tdn.system.errors import TDNError
from tdn.system.printable import printable

from . import aotinductor, torchscript
from .compiled_file import AOTINDUCTOR, backend_of, is_compiled_file, read_extra_files
from .pair_list import pair_list

__all__ = [
    "CompiledModel",
    "check_reference",
    "is_compiled_file",
    "load_compiled",
    "read_extra_files",
]

UNITS = {"energy": "eV per atom", "forces": "eV/angstrom", "virial": "eV"}


@dataclass
class CompiledModel:
    """A loaded compiled file.

    Attributes
    ----------
    module : (species, edge_index, edge_vec, num_local) -> (atom_energy, edge_gradient), or
        (atom_energy, forces) where ``metadata["forces"]`` is ``direct``
    metadata : contents of ``metadata.json``
    reference : contents of ``reference.json``
    device : where it computes
    path : the file; a pickle holds its absolute name, and loads it again
    """

    module: Callable[..., tuple[Tensor, Tensor]]
    metadata: dict[str, Any]
    reference: dict[str, Any]
    device: torch.device
    path: Path

    def __reduce__(self) -> tuple[Callable[..., CompiledModel], tuple[str, str]]:
        return load_compiled, (str(self.path.absolute()), str(self.device))

    @property
    def r_max(self) -> float:
        """Cutoff radius in angstrom."""
        return float(self.metadata["r_max"])

    @property
    def atomic_numbers(self) -> list[int]:
        """Atomic number of each species."""
        return list(self.metadata["atomic_numbers"])

    @property
    def direct_forces(self) -> bool:
        """Whether forces are an output of their own, no gradient of the energy."""
        return self.metadata.get("forces") == "direct"

    @property
    def num_members(self) -> int:
        """Number of networks in the file; more than one in a committee."""
        return int(self.metadata.get("committee", 1))

    def evaluate_edges(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, num_local: int
    ) -> tuple[Tensor, Tensor]:
        """Run the compiled function as it is; a committee gives means over its members.

        Parameters
        ----------
        species : int64 [n_all]
        edge_index : int64 [2, E], sorted by center
        edge_vec : float64 [E, 3], angstrom
        num_local : number of atoms that have an energy

        Returns
        -------
        atom_energy : float64 [num_local], eV
        edge_gradient : float64 [E, 3], eV/angstrom; with direct forces those, float64
            [num_local, 3]
        """
        return self._run(self.module, species, edge_index, edge_vec, num_local)

    def evaluate_members(
        self, species: Tensor, edge_index: Tensor, edge_vec: Tensor, num_local: int
    ) -> tuple[Tensor, Tensor]:
        """The results of every member of a committee, of shapes [n, ...]; otherwise n is one.

        Parameters and results are those of `evaluate_edges`.
        """
        if self.num_members == 1:
            found = self.evaluate_edges(species, edge_index, edge_vec, num_local)
            return found[0].unsqueeze(0), found[1].unsqueeze(0)
        members = self.module.forward_members  # type: ignore[attr-defined]
        return self._run(members, species, edge_index, edge_vec, num_local)

    @property
    def takes_positions(self) -> bool:
        """Whether the function from positions is in the file and can run here."""
        there = hasattr(self.module, "from_positions")
        return there and _ops.has_kernels("pair_forward", self.device.type)

    def evaluate_positions(self, graph: Graph, members: bool = False) -> tuple[Tensor, ...]:
        """Energies, forces, virial, and virials per atom by the function from positions.

        Parameters
        ----------
        graph : edges beyond the cutoff do no harm
        members : the results of every member of a committee, with a first dimension n

        Returns
        -------
        tuple
            See `tdn.inference.positions.PositionNetwork.forward`.
        """
        name = "members_from_positions" if members else "from_positions"
        dtype = getattr(torch, self.metadata["dtype"])
        with torchscript.plain_execution():
            workspace = torch.empty(0, dtype=dtype, device=self.device)
            return getattr(self.module, name)(*pair_list(graph), True, workspace)

    def _run(
        self,
        function: Callable[..., tuple[Tensor, Tensor]],
        species: Tensor,
        edge_index: Tensor,
        edge_vec: Tensor,
        num_local: int,
    ) -> tuple[Tensor, Tensor]:
        # tensors made in inference mode cannot take part in the gradient
        with torch.inference_mode(False), torchscript.plain_execution():
            species, edge_index, edge_vec = (
                x.clone() if x.is_inference() else x for x in (species, edge_index, edge_vec)
            )
            return function(species, edge_index, edge_vec, num_local)

    @property
    def _starts_from_positions(self) -> bool:
        """On a GPU, where sums over edges are atomic operations, without a fixed order."""
        return self.device.type == "cuda" and self.takes_positions

    def results_from_positions(
        self, graph: Graph, members: bool = False
    ) -> list[dict[str, Tensor]]:
        """What `__call__` gives, by the function from positions.

        Parameters
        ----------
        members : one entry for every member of a committee, else one of their means
        """
        found = self.evaluate_positions(graph, members)
        results = []
        for member in zip(*found, strict=True) if members else [found]:
            atom_energy, forces, _, atom_virial, _ = member
            sums = atom_energy.new_zeros(graph.num_graphs, 10)
            # a sum over the atoms of each structure in a fixed order
            rows = torch.cat([atom_energy.unsqueeze(1), atom_virial.flatten(1)], 1)
            for k, part in enumerate(rows.split(graph.atoms_per_graph.tolist())):
                sums[k] = part.sum(0)
            virial = sums[:, 1:].view(-1, 3, 3)
            results.append(
                {
                    "energy": sums[:, 0],
                    "atom_energy": atom_energy,
                    "forces": forces,
                    "virial": 0.5 * (virial + virial.transpose(1, 2)),
                }
            )
        return results

    def member_results(self, graph: Graph) -> list[dict[str, Tensor]]:
        """What `__call__` gives, for every member of a committee by itself."""
        if self._starts_from_positions:
            return self.results_from_positions(graph, members=self.num_members > 1)
        edge_vec = graph.edge_vec
        found = self.evaluate_members(graph.species, graph.edge_index, edge_vec, graph.num_atoms)
        return [self._results(graph, edge_vec, *member) for member in zip(*found, strict=True)]

    def __call__(self, graph: Graph) -> dict[str, Tensor]:
        """Evaluate a graph; the same quantities as `tdn.network.potential.Potential` gives.

        Returns
        -------
        dict
            ``energy``, ``atom_energy``, ``forces`` and ``virial`` as from
            `tdn.network.potential.assemble`, all float64. A committee gives means, and with them
            ``energy_std`` [B] eV, the standard deviation of the energy over its n members, and
            ``forces_std`` [N] eV/angstrom, sqrt(sum over members |f_i - mean f_i|^2 / n).
        """
        if self.num_members == 1 and self._starts_from_positions:
            return self.results_from_positions(graph)[0]
        edge_vec = graph.edge_vec
        if self.num_members == 1:
            found = self.evaluate_edges(graph.species, graph.edge_index, edge_vec, graph.num_atoms)
            return self._results(graph, edge_vec, *found)
        return over_members(self.member_results(graph))

    def _results(self, graph: Graph, edge_vec: Tensor, *found: Tensor) -> dict[str, Tensor]:
        return potential.assemble(
            *found,
            graph.edge_index,
            edge_vec,
            graph.batch,
            graph.num_graphs,
            direct_forces=self.direct_forces,
        )

    def reference_deviations(self) -> dict[str, float]:
        """Largest deviation from the stored reference in ``energy`` (eV per atom), ``forces``
        (eV/angstrom) and, without direct forces, ``virial`` (eV)."""
        stored = self.reference
        double = {"dtype": torch.float64, "device": self.device}
        edge_index = torch.tensor(stored["edge_index"], dtype=torch.int64, device=self.device)
        edge_index = edge_index.view(2, -1)
        edge_vec = torch.tensor(stored["edge_vec"], **double).view(-1, 3)
        species = torch.tensor(stored["species"], dtype=torch.int64, device=self.device)
        found = self.evaluate_edges(species, edge_index, edge_vec, int(stored["num_local"]))
        batch = torch.zeros_like(species)
        direct = self.direct_forces
        results = potential.assemble(*found, edge_index, edge_vec, batch, 1, direct_forces=direct)
        compared = [{"energy": results["atom_energy"], "forces": results["forces"]}]
        if not direct:
            compared[0]["virial"] = results["virial"][0]
        if self.takes_positions:
            graph = Graph(
                species=species,
                positions=torch.tensor(stored["positions"], **double).view(-1, 3),
                edge_index=edge_index,
                edge_shift=torch.zeros_like(edge_vec),
                batch=batch,
                cell=torch.zeros(1, 3, 3, **double),
                pbc=torch.zeros(1, 3, dtype=torch.bool, device=self.device),
            )
            energy, forces, virial = self.evaluate_positions(graph)[:3]
            compared.append({"energy": energy, "forces": forces, "virial": virial})
        expected = {"energy": stored["atom_energy"], **stored}
        return {
            name: max(
                largest(found[name] - torch.tensor(expected[name], **double)) for found in compared
            )
            for name in compared[0]
        }


def over_members(members: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Means over the results of several networks, with ``energy_std`` and ``forces_std``."""
    stacked = {name: torch.stack([m[name] for m in members]) for name in members[0]}
    results = {name: values.mean(dim=0) for name, values in stacked.items()}
    results["energy_std"] = stacked["energy"].std(dim=0, correction=0)
    variance = (stacked["forces"] - results["forces"]).square().sum(dim=2).mean(dim=0)
    results["forces_std"] = variance.sqrt()
    return results


def largest(values: Tensor) -> float:
    """Largest magnitude; infinity if anything is not a number."""
    value = values.abs().max().item() if values.numel() else 0.0
    return value if value == value else float("inf")


@torch.inference_mode(False)
def load_compiled(
    path: str | Path, device: torch.device | str = "cpu", check: bool = True
) -> CompiledModel:
    """Load a compiled file.

    Parameters
    ----------
    path : file that tdn-export wrote
    device : auto, cpu, cuda or cuda:N; auto is a GPU if there is one, or the device for which an
        AOTInductor file was compiled
    check : compute the stored reference and compare

    Raises
    ------
    TDNError
        If the file is not a usable compiled file, or its network computes something else here
        than where it was written.
    """
    metadata, reference = read_extra_files(path)
    if str(device) == "auto":
        target = metadata.get("target")  # AOTInductor files have one
        device = target["device"] if isinstance(target, dict) else device
    device = select_device(str(device))
    try:
        if backend_of(path) == AOTINDUCTOR:
            module = aotinductor.load(path, metadata, device)
        else:
            module = torchscript.load(path, device)
    except RuntimeError as error:
        written = printable(metadata.get("torch_version", "an unknown version"))
        reason = _reason(error)
        if "Unknown builtin op: tdn::" in str(error):
            reason = (
                "it calls an operator of TDN that is not here; run `tdn-ops build`, or install "
                f"tdn {printable(metadata.get('tdn_version', '(unknown)'))} or newer"
            )
        raise TDNError(
            f"{path} cannot be loaded by PyTorch {torch.__version__} (it was written with "
            f"{written}): {reason}"
        ) from None
    model = CompiledModel(module, metadata, reference, device, Path(path))
    if model.num_members > 1 and not hasattr(module, "forward_members"):
        raise TDNError(f"{path}: its metadata describes a committee, but its network is none")
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
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TDNError(f"{path}: its reference cannot be computed: {_reason(error)}") from None
    for name, value in deviations.items():
        if not value <= tolerance[name]:
            raise TDNError(
                f"{path} computes something else here than where it was written: its reference "
                f"{name} differs by {value:.2g} {UNITS[name]} (tolerance {tolerance[name]:.2g}); "
                "build the operators again (`tdn-ops build`) or export the checkpoint again"
            )
    return deviations


def _reason(error: Exception) -> str:
    """The last line of an error of PyTorch, which is the one that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[-1], 200) if lines else type(error).__name__
