"""Comparison of a compiled file with the network it came from, and its symmetries."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import ase
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from tdn.graph import Graph, graph_from_atoms
from tdn.inference.compiled_model import CompiledModel, largest
from tdn.inference.radial_table import ACCEPTED
from tdn.inference.torchscript import plain_execution
from tdn.network.base import Network, set_dtype
from tdn.network.potential import Potential
from tdn.system.errors import TDNError

from .reference import compared_quantities, mean_isolated_energies
from .structures import random_cluster, standard_structures, tiny_cell
from .tolerances import (
    BOUND,
    EXACT_FACTORS,
    OWN_ROUNDING,
    SYMMETRY_BOUND,
    TABLE_AMPLIFICATION,
    ratio,
)


@dataclass(frozen=True)
class Deviation:
    """Relative deviations on one structure; ``bound`` is None where they are only reported."""

    name: str
    atoms: int
    energy: float
    forces: float
    virial: float
    bound: float | None

    @property
    def largest(self) -> float:
        """The largest of the three; infinity if one is not a number."""
        values = (self.energy, self.forces, self.virial)
        return max(values) if all(v == v for v in values) else float("inf")

    @property
    def passed(self) -> bool:
        """Whether it lies within the bound."""
        return self.bound is None or self.largest <= self.bound


class _Scale:
    """Sizes that deviations are measured against.

    Energies are those of interaction (without the E0, which would hide any error), forces are
    compared with the largest gradient of an edge (atoms on symmetric sites have none) or, if they
    are direct, with the largest force.
    """

    def __init__(self, compiled: CompiledModel, atomic_energies: Tensor, graph: Graph) -> None:
        atom_energy, gradient_or_forces = compiled.evaluate_edges(
            graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms
        )
        offset = atomic_energies.to(atom_energy.device)[graph.species]
        self.energy = largest(atom_energy - offset)
        self.forces = largest(gradient_or_forces)
        self.virial = 0.0
        if not compiled.direct_forces:
            outer = graph.edge_vec.unsqueeze(2) * gradient_or_forces.unsqueeze(1)
            self.virial = largest(outer)
        # adding E0 rounds in float64 at the size of the E0
        self.energy_rounding = 4 * torch.finfo(torch.float64).eps * largest(offset)

    def deviation(self, name: str, difference: dict[str, Tensor], bound: float | None) -> Deviation:
        """Relative deviations from differences in ``atom_energy``, ``forces`` and ``virial``."""
        energy = max(0.0, largest(difference["atom_energy"]) - self.energy_rounding)
        return Deviation(
            name,
            difference["forces"].shape[0],
            ratio(energy, self.energy),
            ratio(largest(difference["forces"]), self.forces),
            ratio(largest(difference["virial"]), self.virial) if "virial" in difference else 0.0,
            bound,
        )


def _difference(
    a: dict[str, Tensor], b: dict[str, Tensor], names: tuple[str, ...]
) -> dict[str, Tensor]:
    return {name: a[name] - b[name] for name in names}


def _from_positions(compiled: CompiledModel, graph: Graph) -> list[dict[str, Tensor]]:
    """What the function from positions gives, and for a committee the results of its members."""
    names = ("atom_energy", "forces", "virial")
    results = [dict(zip(names, compiled.evaluate_positions(graph)))]
    if compiled.num_members > 1:
        members = zip(*compiled.evaluate_positions(graph, members=True)[:3], strict=True)
        results += [dict(zip(names, member)) for member in members]
    for result in results:
        result["virial"] = result["virial"].unsqueeze(0)  # of one structure
    return results


def compare(
    networks: list[Network],
    compiled: CompiledModel,
    structures: dict[str, ase.Atoms],
    bound: float | None = None,
) -> list[Deviation]:
    """Compare compiled and eager energies, forces and virials on named structures.

    Of a committee every member is compared, and the mean.

    Parameters
    ----------
    networks : eager networks, same precision and device as ``compiled``; one per member
    bound : allowed relative deviation; default: rounding. Where terms of a network cancel, so that
        it rounds more than that in float32, a multiple of its own rounding is allowed.
    """
    bound = BOUND[compiled.metadata["dtype"]] if bound is None else bound
    atomic_energies = mean_isolated_energies(networks)
    names = compared_quantities(networks[0])
    eager = [Potential(network) for network in networks]
    deviations = []
    for name, atoms in structures.items():
        graph = graph_from_atoms(atoms, compiled.atomic_numbers, compiled.r_max)
        graph = graph.to(compiled.device)
        with plain_execution():  # e3nn runs compiled code as well
            expected = [potential(graph) for potential in eager]
        found = [compiled(graph)]
        if len(eager) > 1:
            mean = {n: torch.stack([e[n] for e in expected]).mean(dim=0) for n in names}
            expected.insert(0, mean)
            found += compiled.member_results(graph)
        scale = _Scale(compiled, atomic_energies, graph)
        if compiled.takes_positions:
            found += _from_positions(compiled, graph)
            expected *= 2
        compared = [
            scale.deviation(name, _difference(f, e, names), bound)
            for f, e in zip(found, expected, strict=True)
        ]
        worst = max(compared, key=lambda d: d.largest)
        if not worst.passed and compiled.metadata["dtype"] == "float32":
            rounding = OWN_ROUNDING * _rounding(networks, graph, scale, names)
            worst = replace(worst, bound=max(bound, rounding))
        deviations.append(worst)
    return deviations


def _rounding(
    networks: list[Network], graph: Graph, scale: _Scale, names: tuple[str, ...]
) -> float:
    """How far networks in float32 are from themselves in float64: terms may cancel."""
    worst = 0.0
    for network in networks:
        precise = set_dtype(copy.deepcopy(network), torch.float64)
        with plain_execution():
            results = [Potential(one)(graph) for one in (network, precise)]
        difference = _difference(*results, names)
        worst = max(worst, scale.deviation("rounding", difference, None).largest)
    return worst


def check_symmetries(networks: list[Network], compiled: CompiledModel) -> list[Deviation]:
    """Rotation, inversion and extensivity of a compiled file.

    With approximate CP factors, or with paths of SO(3) for the inversion, the symmetry does not
    hold exactly by choice: then the deviation is reported without a bound.
    """
    atomic_numbers, r_max = compiled.atomic_numbers, compiled.r_max
    dtype = compiled.metadata["dtype"]
    bound = SYMMETRY_BOUND[dtype]
    # factors that reproduce an equivariant tensor are as equivariant as they are exact
    errors = (compiled.metadata["cp_error"], compiled.metadata["equivariance_error"])
    exact = min(errors) < EXACT_FACTORS
    atomic_energies = mean_isolated_energies(networks)
    names = compared_quantities(networks[0])

    def evaluate(atoms: ase.Atoms) -> tuple[Graph, dict[str, Tensor]]:
        graph = graph_from_atoms(atoms, atomic_numbers, r_max).to(compiled.device)
        return graph, compiled(graph)

    cluster = random_cluster(atomic_numbers, max(16, len(atomic_numbers)), r_max, seed=3)
    graph, result = evaluate(cluster)
    scale = _Scale(compiled, atomic_energies, graph)
    rotation = Rotation.from_rotvec([0.7, -1.3, 2.1]).as_matrix()
    deviations = []
    for name, matrix, holds in (
        ("rotation", rotation, exact),
        ("inversion", -np.eye(3), exact and compiled.metadata["paths"] == "parity"),
    ):
        moved = cluster.copy()
        moved.positions = cluster.positions @ matrix.T
        turned = evaluate(moved)[1]
        back = torch.tensor(matrix, device=compiled.device)
        turned["forces"] = turned["forces"] @ back
        turned["virial"] = back.T @ turned["virial"] @ back
        difference = _difference(turned, result, names)
        deviations.append(scale.deviation(name, difference, bound if holds else None))

    cell = tiny_cell(atomic_numbers, r_max)
    graph, result = evaluate(cell)
    copies = evaluate(cell.repeat((2, 1, 1)))[1]
    expected = {
        "atom_energy": result["atom_energy"].repeat(2),
        "forces": result["forces"].repeat(2, 1),
        "virial": 2 * result["virial"],
    }
    difference = _difference(copies, expected, names)
    scale = _Scale(compiled, atomic_energies, graph)
    deviations.append(scale.deviation("two copies of a cell", difference, bound))
    return deviations


def verify(
    networks: list[Network],
    compiled: CompiledModel,
    frames: list[ase.Atoms] | None = None,
    originals: list[Network] | None = None,
) -> list[Deviation]:
    """Every check of an export.

    Parameters
    ----------
    networks : eager networks, same precision and device as ``compiled``; one per member
    frames : further structures to compare
    originals : the networks before functions of the distance became tables, if they did

    Raises
    ------
    TDNError
        If a deviation exceeds its bound; the message names the worst.
    """
    structures = standard_structures(compiled.atomic_numbers, compiled.r_max)
    structures |= {f"frame {i}": atoms for i, atoms in enumerate(frames or [])}
    deviations = compare(networks, compiled, structures) + check_symmetries(networks, compiled)
    if originals is not None:
        bound = SYMMETRY_BOUND[compiled.metadata["dtype"]]
        # beyond this the error stands at distances where no atoms are
        counted = min(
            compiled.metadata["radial_table_error"],
            ACCEPTED[getattr(torch, compiled.metadata["dtype"])],
        )
        bound += TABLE_AMPLIFICATION * counted
        structures = {f"{name}, without tables": atoms for name, atoms in structures.items()}
        deviations += compare(originals, compiled, structures, bound)
    failed = [d for d in deviations if not d.passed]
    if failed:
        worst = max(failed, key=lambda d: d.largest)
        raise TDNError(
            f"the compiled network fails the check '{worst.name}': relative deviation in energy "
            f"{worst.energy:.1e}, forces {worst.forces:.1e}, virial {worst.virial:.1e}, allowed "
            f"{worst.bound:.1e}; no file was written"
        )
    return deviations
