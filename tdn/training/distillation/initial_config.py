"""A commented configuration for given structures: where ``tdn-distill --init`` starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import ase
import numpy as np
import yaml
from ase.neighborlist import neighbor_list

from tdn.data import read_frames
from tdn.data.supercell import supercell
from tdn.data.vacuum import is_bulk
from tdn.evaluation.dynamics.plan import sensible_timestep
from tdn.system.errors import TDNError

from .matter import is_molecular, melting_point

# K
MATTER = (300.0, 900.0, 1500.0)
MOLECULES = (200.0, 350.0, 500.0)
MELT = 2000.0
# largest displacements of seeds (RMS), of the shortest distance: about where crystals melt (rule of
# Lindemann); more would break the bonds of molecules
RATTLE = 0.09
# of the melting point: solid, hot solid, liquid, and where it melts at once
NOBLE, NOBLE_MELT = (0.3, 0.7, 1.1), 1.8
# mean neighbors within the cutoff
CUTOFFS = (4.5, 5.0, 5.5, 6.0)
FEW_NEIGHBORS = 20
# what may be added to it, so that no shell of neighbors is between these shares of it
LONGER, INNER, OUTER = (0.0, 0.25, 0.5), 0.92, 1.02


def initial_config(
    structures: Sequence[str],
    teacher: str | None,
    python: str | None,
    folder: str,
    beside: Path,
) -> str:
    """YAML text, to be written in the folder ``beside``.

    Parameters
    ----------
    structures : files
    teacher : ``module:Name {arguments}``; None leaves a line to fill in
    python : of the teacher
    folder : of the run, relative to ``beside``

    Raises
    ------
    TDNError
        If a structure cannot be read or is a single atom, or the teacher is not understood.
    """
    from tdn.evaluation.teachers.source import parse_calculator

    found = [frame.atoms for name in structures for frame in read_frames(name)]
    cells = [supercell(atoms, 64) for atoms in found]
    if any(len(atoms) < 2 for atoms in cells):
        raise TDNError(
            f"{', '.join(structures)}: a single atom has no neighbors; expected structures of two "
            "or more"
        )
    source = None if teacher is None else parse_calculator(teacher, python)
    molecular = any(is_molecular(atoms) for atoms in found)
    bulk = all(is_bulk(atoms) for atoms in found)
    temperatures, melt = _temperatures(found, molecular)
    cutoff = _cutoff(found)
    names = [os.path.relpath(name, beside) for name in structures]
    calculator = "" if source is None else source.path
    lines = [
        f"# Written by: tdn-distill --init {' '.join(Path(n).name for n in structures)}",
        "# All keys and their meaning: tdn-distill --defaults",
        "",
        "teacher:",
        f"  calculator: {_yaml(calculator)}"
        + ("" if calculator else "  # module:Name of an ASE calculator; fill this in"),
        f"  arguments: {_yaml(source.arguments if source else {})}",
        f"  python: {_yaml(python)}  # interpreter of its own environment, null: this one",
        "  workers: 1  # labels at the same time",
        "",
        "seeds:",
        f"  structures: {_yaml(names)}",
        f"  atoms: 64  # supercells of {', '.join(sorted({str(len(c)) for c in cells}))} atoms",
        f"  rattle: {RATTLE * min(map(_shortest_distance, cells)):.2g}  # displacements, angstrom",
        "",
        "rounds:",
        "  # " + _why(molecular, bulk),
        f"  temperatures: {_yaml([float(t) for t in temperatures])}",
        f"  melt: {_yaml(melt if bulk else None)}",
        f"  pressures: {_yaml([0.0] if bulk else [])}  # GPa; []: constant volume",
        f"  timestep: {min(map(sensible_timestep, found)):g}  # fs",
        "  max_rounds: 8",
        "  frames: 100  # labels of a round at most",
        "",
        "student:",
        "  model:",
        f"    r_max: {cutoff:g}",
        "    l_max: 2",
        "    num_channels: 32",
        "    correlation: 3",
        "    gate: false",
        "    radial_hidden: [64]",
        "    radial_smoothness: 1",
        "  train:",
        "    batch_size: 4",
        "    learning_rate: 0.01",
        "    final_energy_weight: 10",
        *(["    stress_weight: 10  # elastic constants"] if bulk else []),
        "",
        "run:",
        f"  folder: {_yaml(folder)}",
        "  budget: null  # 30min plans rounds and steps by what they take",
    ]
    return "\n".join(lines) + "\n"


def _why(molecular: bool, bulk: bool) -> str:
    if molecular:
        return "molecules: temperatures at which they stay whole; K"
    if bulk:
        return "solid and melt; K"
    return "K"


def _temperatures(
    structures: Sequence[ase.Atoms], molecular: bool
) -> tuple[tuple[float, ...], float | None]:
    """Of the dynamics, and the one at which it melts; K."""
    if molecular:
        return MOLECULES, None
    points = [melting_point(atoms) for atoms in structures]
    if None in points:
        return MATTER, MELT
    return tuple(round(share * min(points)) for share in NOBLE), round(NOBLE_MELT * max(points))


def _shortest_distance(atoms: ase.Atoms) -> float:
    distances = atoms.get_all_distances(mic=True)
    return float(distances[~np.eye(len(atoms), dtype=bool)].min())


def _cutoff(structures: Sequence[ase.Atoms]) -> float:
    """The smallest that has enough neighbors in all structures, somewhat longer for crystals.

    Messages of atoms next to the cutoff vanish: a whole shell of neighbors there is not seen, and
    is seen where a strain or the temperature moves it inwards. So the cutoff is lengthened until
    fewer than half as many neighbors as without order are about it.
    """
    cutoff = next((c for c in CUTOFFS if min(_neighbors(structures, c)) >= FEW_NEIGHBORS), None)
    if cutoff is None:
        return CUTOFFS[-1] if any(atoms.pbc.any() for atoms in structures) else 5.0
    few = 0.5 * (1 - (INNER / OUTER) ** 3)
    for longer in (cutoff + more for more in LONGER):
        inner = np.array(_neighbors(structures, INNER * longer))
        if max(1 - inner / _neighbors(structures, OUTER * longer)) < few:
            return longer
    return cutoff


def _neighbors(structures: Sequence[ase.Atoms], cutoff: float) -> list[float]:
    """Mean numbers of neighbors."""
    return [len(neighbor_list("i", atoms, cutoff)) / len(atoms) for atoms in structures]


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
