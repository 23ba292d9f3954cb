"""The loss: errors of energies per atom, forces and virials per atom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import TrainConfig
from ..errors import UsageError
from ..graph import Graph

TERMS = ("energy", "forces", "stress")


def penalty(name: str, delta: float) -> Callable[[Tensor], Tensor]:
    """The function rho of the mean square error s = e^2 over a label's components.

    ``mse``: e^2. ``mae``: |e|. ``huber``: e^2 up to delta, then delta (2 |e| - delta), so that
    small errors count as in ``mse`` and outliers do not dominate.
    """

    def mse(s: Tensor) -> Tensor:
        return s

    def mae(s: Tensor) -> Tensor:
        positive = s > 0
        # the slope of a square root at zero is infinite; that of |e| is taken as zero
        return torch.where(positive, torch.where(positive, s, torch.ones_like(s)).sqrt(), s)

    def huber(s: Tensor) -> Tensor:
        return torch.where(s <= delta**2, s, delta * (2 * s.clamp(min=delta**2).sqrt() - delta))

    functions = {"mse": mse, "mae": mae, "huber": huber}
    if name not in functions:
        raise UsageError(f"train.loss = {name!r}: expected one of {', '.join(functions)}")
    return functions[name]


def _masked_mean(predicted: Tensor, label: Tensor, rho: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean of rho over the rows of [M, K] that have a label; zero if there are none.

    Only a missing label excuses a row: a prediction that is NaN makes the mean NaN.
    """
    known = torch.isfinite(label).all(dim=1)
    error = torch.where(known[:, None], predicted - label, torch.zeros_like(label))
    square = error.square().mean(dim=1)
    return torch.where(known, rho(square), square).sum() / known.sum().clamp(min=1)


@dataclass(frozen=True)
class Loss:
    """Weighted sum of three terms; labels that are NaN take no part.

    The error of a force is the norm of its vector over sqrt(3), that of a virial its Frobenius norm
    over 3 (root mean squares of components), so the loss is invariant under rotations whatever the
    penalty. Energies and virials are taken per atom, in eV.

    Parameters
    ----------
    energy_weight, forces_weight, stress_weight : weights of the terms
    function : mse, huber or mae
    delta : where Huber's turns linear, in eV and eV/angstrom
    """

    energy_weight: float = 1.0
    forces_weight: float = 10.0
    stress_weight: float = 1.0
    function: str = "huber"
    delta: float = 0.1

    @classmethod
    def from_config(cls, config: TrainConfig) -> Loss:
        return cls(
            config.energy_weight,
            config.forces_weight,
            config.stress_weight,
            config.loss,
            config.huber_delta,
        )

    def terms(self, prediction: dict[str, Tensor], graph: Graph) -> Tensor:
        """Unweighted terms for energy, forces and virial, float64 [3].

        Parameters
        ----------
        prediction : what `tdn.potential.Potential` returns
        graph : with reference values
        """
        rho = penalty(self.function, self.delta)
        atoms = graph.atoms_per_graph.to(torch.float64)[:, None]
        energy = _masked_mean(
            prediction["energy"][:, None] / atoms, graph.energy[:, None] / atoms, rho
        )
        forces = _masked_mean(prediction["forces"], graph.forces, rho)
        if self.stress_weight == 0:  # some networks have no virial
            return torch.stack([energy, forces, torch.zeros_like(energy)])
        virial = -graph.stress * graph.volume[:, None, None]
        stress = _masked_mean(
            prediction["virial"].flatten(1) / atoms, virial.flatten(1) / atoms, rho
        )
        return torch.stack([energy, forces, stress])

    def weighted(self, terms: Tensor) -> Tensor:
        """The loss from its terms."""
        weights = (self.energy_weight, self.forces_weight, self.stress_weight)
        return (terms * terms.new_tensor(weights)).sum()
