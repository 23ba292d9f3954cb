"""ASE calculator for checkpoints and compiled files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from tdn.graph import graph_from_atoms
from tdn.network.checkpoint import load_model
from tdn.network.potential import Potential, stress_of_virial
from tdn.system.devices import select_device
from tdn.system.errors import TDNError, UsageError

from .compiled_model import is_compiled_file, load_compiled

# what every calculator of ASE takes; it would keep any other name as a parameter, unused
ASE_OPTIONS = ("restart", "ignore_bad_restart_file", "label", "atoms", "directory")


class TDNCalculator(Calculator):
    """Energies, forces and stress of a trained network.

    Parameters
    ----------
    model : path of a checkpoint (``model.pt``) or of a compiled file (``model.tdn.pth``,
        ``model.tdn.pt2``)
    device : auto, cpu, cuda or cuda:N
    dtype : float32 or float64; None keeps that of the file. A compiled file has only its own.
    head : level of theory, for the checkpoint of a network trained on several

    Attributes
    ----------
    metadata : dict
        What the file says about itself.
    r_max : float
        Cutoff radius in angstrom.
    atomic_numbers : list of int
        The elements that the network knows.

    Raises
    ------
    TDNError
        If the file cannot be used, or, when calculating, if an element is unknown or the energy
        is no number.

    Notes
    -----
    Units are those of ASE: eV, eV/angstrom, eV/angstrom^3 (Voigt order xx, yy, zz, yz, xz, xy;
    positive stress pulls the cell together). Without a periodic 3D cell there is no stress, and
    networks with direct forces have none at all.

    It can be made and used inside ``torch.inference_mode()``, and be pickled for other processes
    (spawn, joblib, dask), which load a compiled file again from where it is.

    The file of a committee gives means over its n networks. ``results`` then also has
    ``energy_std`` (eV), the standard deviation of the energy, and ``forces_std`` (eV/angstrom, one
    number per atom), sqrt(sum over networks |f_i - mean f_i|^2 / n). Where the file stores factors
    (``tdn-export --calibrate``) there are ``energy_error`` and ``forces_error`` as well: the same
    times the factor, the errors to expect (root mean square, of a force's length).

    Examples
    --------
    >>> atoms.calc = TDNCalculator("model.tdn.pth")  # doctest: +SKIP
    >>> atoms.get_potential_energy()  # doctest: +SKIP
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]

    @torch.inference_mode(False)
    def __init__(
        self,
        model: str | Path,
        device: str = "auto",
        dtype: str | None = None,
        head: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(model, (str, os.PathLike)):
            raise UsageError(f"model is {model!r}, expected the path of a file")
        unknown = [name for name in kwargs if name not in ASE_OPTIONS]
        if unknown:
            raise UsageError(
                f"unknown option '{unknown[0]}'; TDNCalculator has model, device, dtype and head"
            )
        super().__init__(**kwargs)
        if dtype not in (None, "float32", "float64"):
            raise UsageError(f"dtype is {dtype!r}, expected float32 or float64")
        self.device = select_device(device)
        if is_compiled_file(model):
            if head is not None:
                raise UsageError(f"head is {head!r}, but a compiled file holds one head alone")
            self.potential = load_compiled(model, device)
            self.device = self.potential.device
            self.direct_forces = self.potential.direct_forces
            self.metadata = self.potential.metadata
            self.r_max = self.potential.r_max
            self.atomic_numbers = self.potential.atomic_numbers
            if dtype is not None and dtype != self.metadata["dtype"]:
                raise TDNError(
                    f"{model} is compiled in {self.metadata['dtype']}, asked for is {dtype}; "
                    f"compile it again with `tdn-export --dtype {dtype}`"
                )
        else:
            network, self.metadata = load_model(model, self.device, dtype, head)
            self.potential = Potential(network)
            self.direct_forces = network.direct_forces
            self.r_max = network.r_max
            self.atomic_numbers = network.atomic_numbers
        if self.direct_forces:
            self.implemented_properties = [p for p in self.implemented_properties if p != "stress"]

    def get_property(
        self, name: str, atoms: ase.Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """As in ASE; says why there is no stress where there is none."""
        if name == "stress":
            self._check_stress()
        return super().get_property(name, atoms, allow_calculation)

    def _check_stress(self) -> None:
        if self.direct_forces:
            raise PropertyNotImplementedError(
                "this network predicts forces directly (model.forces = direct) and has no stress"
            )

    @torch.inference_mode(False)
    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: list[str] | tuple[str, ...] = ("energy",),
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill ``self.results``; called by ASE.

        Raises
        ------
        TDNError
            If the network does not know an element, or energy or forces are no numbers.
        PropertyNotImplementedError
            If the stress is asked for without a periodic cell of three vectors.
        """
        super().calculate(atoms, properties, system_changes)
        has_volume = self.atoms.cell.rank == 3 and bool(self.atoms.pbc.any())
        if "stress" in properties:
            self._check_stress()
        if "stress" in properties and not has_volume:
            raise PropertyNotImplementedError(
                "stress needs a periodic cell with three lattice vectors; this structure has none"
            )
        graph = graph_from_atoms(self.atoms, self.atomic_numbers, self.r_max).to(self.device)
        found = self.potential(graph)
        energy, forces = found["energy"].item(), found["forces"].cpu().numpy()
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise TDNError(
                "energy or forces are NaN or infinite; check the structure for atoms at the same "
                "place and for a cell without volume"
            )
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": found["atom_energy"].cpu().numpy(),
            "forces": forces,
        }
        if has_volume and not self.direct_forces:
            stress = stress_of_virial(found["virial"], graph.volume)[0]
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress.cpu().numpy())
        if "forces_std" in found:
            self.results["energy_std"] = found["energy_std"].item()
            self.results["forces_std"] = found["forces_std"].cpu().numpy()
            for name, factor in (self.metadata.get("deviation_factors") or {}).items():
                self.results[f"{name}_error"] = factor * self.results[f"{name}_std"]
