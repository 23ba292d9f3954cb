"""A network as a model of torch-sim, which runs many structures at once.

Needs the package ``torch-sim-atomistic`` (``pip install "tdn-potential[torch-sim]"``).
"""

from __future__ import annotations

from pathlib import Path

import ase
import numpy as np
import torch
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from .graph import Graph, collate, graph_from_atoms
from .inference.calculator import TDNCalculator
from .network.potential import stress_of_virial
from .system.errors import TDNError


class TDNModel(ModelInterface):
    """Energies, forces and stresses of all structures of a torch-sim state.

    Parameters
    ----------
    model, device, dtype, head : as of `tdn.TDNCalculator`: a checkpoint or a compiled file
    compute_stress : whether to return stresses; needs a periodic cell, and forces that are
        gradients of the energy

    Attributes
    ----------
    dtype : torch.float64
        Of positions, cells and results. The network computes in its own precision.

    Raises
    ------
    TDNError
        If the file cannot be used, an element is unknown, or stresses are asked for where there are
        none.

    Notes
    -----
    Units are eV, eV/angstrom and eV/angstrom^3, signs those of ASE, which are those of torch-sim.

    Examples
    --------
    >>> import torch_sim  # doctest: +SKIP
    >>> model = TDNModel("model.tdn.pth")  # doctest: +SKIP
    >>> torch_sim.static(crystals, model)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Path,
        device: str = "auto",
        dtype: str | None = None,
        head: str | None = None,
        *,
        compute_stress: bool = True,
    ) -> None:
        super().__init__()
        self.calculator = TDNCalculator(model, device, dtype, head)
        self._device = torch.device(self.calculator.device)
        self._dtype = torch.float64
        self._compute_forces = True
        self._compute_stress = False
        if compute_stress and not self.calculator.direct_forces:
            self.compute_stress = True

    @property
    def compute_stress(self) -> bool:
        """Whether stresses are returned."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, value: bool) -> None:
        if value and self.calculator.direct_forces:
            raise NotImplementedError("a network with direct forces has no stress")
        self._compute_stress = value

    @torch.inference_mode(False)
    def forward(
        self, state: SimState | dict[str, torch.Tensor], **_: object
    ) -> dict[str, torch.Tensor]:
        """Evaluate all structures of a state.

        Returns
        -------
        dict
            ``energy`` [B] eV, ``energies`` [N] eV, ``forces`` [N, 3] eV/angstrom and, unless
            switched off, ``stress`` [B, 3, 3] eV/angstrom^3. Committees add ``energy_std`` [B] and
            ``forces_std`` [N].
        """
        if not isinstance(state, SimState):
            state = SimState(**state, masses=torch.ones_like(state["positions"][:, 0]))
        graph = self.graph(state).to(self._device)
        with torch.enable_grad():
            found = self.calculator.potential(graph)
        virial = found.pop("virial")
        found["energies"] = found.pop("atom_energy")
        if self._compute_stress:
            if not bool((graph.volume > 0).all()):
                raise TDNError(
                    "stress needs cells with three lattice vectors; take compute_stress=False"
                )
            found["stress"] = stress_of_virial(virial, graph.volume)
        return {name: value.detach().to(self._dtype) for name, value in found.items()}

    def graph(self, state: SimState) -> Graph:
        """All structures of a state side by side, with their neighbor lists, on the CPU."""
        owner = state.system_idx.cpu().numpy()
        positions = state.positions.detach().double().cpu().numpy()
        cells = state.row_vector_cell.detach().double().cpu().numpy()
        numbers = state.atomic_numbers.cpu().numpy()
        pbc = np.broadcast_to(np.asarray(torch.as_tensor(state.pbc).cpu()), 3)
        structures = [
            ase.Atoms(numbers[owner == k], positions[owner == k], cell=cell, pbc=pbc)
            for k, cell in enumerate(cells)
        ]
        known, r_max = self.calculator.atomic_numbers, self.calculator.r_max
        return collate(graph_from_atoms(atoms, known, r_max) for atoms in structures)
