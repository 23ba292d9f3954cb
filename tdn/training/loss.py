"""The loss: errors of energies per atom, forces and virials per atom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tdn.config import TrainConfig
from tdn.evaluation.errors import Evaluation
from tdn.graph import Graph
from tdn.network.potential import virial_of_stress
from tdn.system.errors import UsageError

# part of a run after which the weight of the energy moves towards that of the end
RAMP_START = 0.5


def penalty(name: str, delta: float) -> Callable[[Tensor], Tensor]:
    """The function rho of the mean square error s = e^2 over a label's components.

    ``mse``: e^2. ``mae``: |e|. ``huber``: e^2 up to delta, then delta (2 |e| - delta), so that
    small errors count as in ``mse`` and outliers do not dominate. ``molecule`` (arXiv 2507.01131):
    |e|, and the forces of a frame, not of an atom, are one error (see `_molecule_rms`).
    """

    def mse(s: Tensor) -> Tensor:
        return s

    def mae(s: Tensor) -> Tensor:
        positive = s > 0
        # the slope of a square root at zero is infinite; that of |e| is taken as zero
        return torch.where(positive, torch.where(positive, s, torch.ones_like(s)).sqrt(), s)

    def huber(s: Tensor) -> Tensor:
        return torch.where(s <= delta**2, s, delta * (2 * s.clamp(min=delta**2).sqrt() - delta))

    functions = {"mse": mse, "mae": mae, "huber": huber, "molecule": mae}
    if name not in functions:
        raise UsageError(f"train.loss = {name!r}: expected one of {', '.join(functions)}")
    return functions[name]


def _labelled(label: Tensor) -> Tensor:
    """Which rows of [M, K] have a label."""
    return torch.isfinite(label).all(dim=1)


def _masked_sum(
    predicted: Tensor, label: Tensor, weight: Tensor, rho: Callable[[Tensor], Tensor]
) -> Tensor:
    """Sum of weight times rho over the rows of [M, K] that have a label.

    Only a missing label excuses a row: a prediction that is NaN makes the sum NaN.
    """
    known = _labelled(label)
    error = torch.where(known[:, None], predicted - label, torch.zeros_like(label))
    square = error.square().mean(dim=1)
    return (weight * torch.where(known, rho(square), square)).sum()


def _frame_of_atom(num_atoms: Tensor, total: int) -> Tensor:
    """Index of the frame of each atom, int64 [N]."""
    frames = torch.arange(len(num_atoms), device=num_atoms.device)
    return frames.repeat_interleave(num_atoms.long(), output_size=total)


def _molecule_rms(predicted: Tensor, label: Tensor, frame: Tensor, weight: Tensor) -> Tensor:
    """Sum over frames of weight times the RMS of force errors (vector norms) over its atoms.

    Atoms without a label take no part. A prediction that is NaN makes the sum NaN.
    """
    known = _labelled(label)
    error = torch.where(known[:, None], predicted - label, torch.zeros_like(label))
    count = torch.zeros_like(weight).index_add(0, frame, known.to(weight))
    square = torch.zeros_like(weight).index_add(0, frame, error.square().sum(dim=1))
    square = square / count.clamp(min=1)
    return (weight * torch.where(square == 0, square, square.clamp(min=1e-30).sqrt())).sum()


@dataclass(frozen=True)
class Targets:
    """What predictions are compared with; NaN where there is no label.

    Attributes
    ----------
    energy : [B], eV
    forces : [N, 3], eV/angstrom
    virial : [B, 3, 3], eV
    num_atoms : [B], atoms of each structure
    weight : [B], of each structure in the loss; None: one each
    """

    energy: Tensor
    forces: Tensor
    virial: Tensor
    num_atoms: Tensor
    weight: Tensor | None = None

    @classmethod
    def of_graph(cls, graph: Graph, with_virial: bool = True) -> Targets:
        """The labels of frames, which have a stress in place of the virial.

        Parameters
        ----------
        with_virial : without it virials are NaN, which saves the volumes of the cells
        """
        if with_virial:
            virial = virial_of_stress(graph.stress, graph.volume)
        else:
            virial = torch.full_like(graph.cell, torch.nan)
        return cls(graph.energy, graph.forces, virial, graph.atoms_per_graph, graph.weight)

    @classmethod
    def of_evaluation(cls, evaluation: Evaluation) -> Targets:
        """The same of an evaluation."""
        labels = evaluation.reference
        arrays = (labels.energy, labels.forces, labels.virial, evaluation.num_atoms)
        weight = evaluation.weight
        return cls(
            *map(torch.from_numpy, arrays),
            weight=None if weight is None else torch.from_numpy(weight),
        )

    def counts(self) -> Tensor:
        """How many frames or atoms have each label, float64 [3]."""
        rows = (self.energy[:, None], self.forces, self.virial.flatten(1))
        return torch.stack([_labelled(label).sum() for label in rows]).to(torch.float64)

    def frames_with_forces(self) -> Tensor:
        """How many frames have a force on some atom, float64."""
        frame = _frame_of_atom(self.num_atoms, len(self.forces))
        known = torch.zeros_like(self.energy).index_add(
            0, frame, _labelled(self.forces).to(self.energy)
        )
        return (known > 0).sum().to(torch.float64)


@dataclass(frozen=True)
class Loss:
    """Weighted sum of three terms; labels that are NaN take no part.

    The error of a force is the norm of its vector over sqrt(3), that of a virial its Frobenius norm
    over 3 (root mean squares of components), so the loss is invariant under rotations whatever the
    penalty. Energies and virials are taken per atom, in eV. Penalties of a frame are multiplied by
    its weight. With ``molecule`` the forces of a frame are one error, the root mean square of their
    vectors' norms, and the mean is over frames.

    Parameters
    ----------
    energy_weight, forces_weight, stress_weight : weights of the terms; at the end of a run, which
        validation judges by throughout
    function : mse, huber, mae or molecule
    delta : where Huber's turns linear, in eV and eV/angstrom
    initial_energy_weight : that of the first half of a run (see `at`); None: the same
    """

    energy_weight: float = 1.0
    forces_weight: float = 10.0
    stress_weight: float = 1.0
    function: str = "huber"
    delta: float = 0.1
    initial_energy_weight: float | None = None

    @classmethod
    def from_config(cls, config: TrainConfig) -> Loss:
        final = config.final_energy_weight
        return cls(
            config.energy_weight if final is None else final,
            config.forces_weight,
            config.stress_weight,
            config.loss,
            config.huber_delta,
            None if final is None else config.energy_weight,
        )

    def at(self, progress: float) -> Loss:
        """The loss of a step: the weight of the energy grows geometrically in the second half.

        Forces carry most of what there is to learn; energies, one number per frame, disturb them
        at a large learning rate and gain from a large weight once it is small.

        Parameters
        ----------
        progress : finished part of the run, from 0 to 1
        """
        if self.initial_energy_weight is None:
            return self
        share = min(1.0, max(0.0, progress - RAMP_START) / (1 - RAMP_START))
        ratio = self.energy_weight / self.initial_energy_weight
        return replace(self, energy_weight=self.initial_energy_weight * ratio**share)

    def sums(self, prediction: dict[str, Tensor], graph: Graph) -> Tensor:
        """Sums of the penalties over frames (energy, virial) and atoms (forces), float64 [3].

        Parts of a batch, on other ranks or after one another, add up; see `counts` for the means.

        Parameters
        ----------
        prediction : what `tdn.network.potential.Potential` returns
        graph : with reference values
        """
        return self._sums(prediction, Targets.of_graph(graph, self.stress_weight > 0))

    def _sums(self, prediction: dict[str, Tensor], targets: Targets) -> Tensor:
        rho = penalty(self.function, self.delta)
        count = targets.num_atoms
        atoms = count.to(torch.float64)[:, None]
        weight = torch.ones_like(atoms[:, 0]) if targets.weight is None else targets.weight
        energy = _masked_sum(
            prediction["energy"][:, None] / atoms, targets.energy[:, None] / atoms, weight, rho
        )
        frame = _frame_of_atom(count, len(targets.forces))
        if self.function == "molecule":
            forces = _molecule_rms(prediction["forces"], targets.forces, frame, weight)
        else:
            forces = _masked_sum(prediction["forces"], targets.forces, weight[frame], rho)
        if self.stress_weight == 0:  # some networks have no virial
            return torch.stack([energy, forces, torch.zeros_like(energy)])
        virial = _masked_sum(
            prediction["virial"].flatten(1) / atoms,
            targets.virial.flatten(1) / atoms,
            weight,
            rho,
        )
        return torch.stack([energy, forces, virial])

    def counts(self, graph: Graph) -> Tensor:
        """How many frames or atoms have each label, float64 [3]."""
        return self._counts(Targets.of_graph(graph, self.stress_weight > 0))

    def _counts(self, targets: Targets) -> Tensor:
        counts = targets.counts()
        if self.function == "molecule":
            counts[1] = targets.frames_with_forces()
        return counts

    def terms(self, prediction: dict[str, Tensor], graph: Graph) -> Tensor:
        """Unweighted terms for energy, forces and virial, float64 [3]; zero without labels."""
        return self.sums(prediction, graph) / self.counts(graph).clamp(min=1)

    def of_evaluation(self, evaluation: Evaluation) -> float:
        """The loss over all frames of an evaluation."""
        predicted = vars(evaluation.predicted)
        prediction = {name: torch.from_numpy(values) for name, values in predicted.items()}
        targets = Targets.of_evaluation(evaluation)
        sums = self._sums(prediction, targets)
        return float(self.weighted(sums / self._counts(targets).clamp(min=1)))

    def weighted(self, terms: Tensor) -> Tensor:
        """The loss from its terms."""
        weights = (self.energy_weight, self.forces_weight, self.stress_weight)
        return (terms * terms.new_tensor(weights)).sum()
