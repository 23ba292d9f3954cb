"""A commented configuration for given structures: where ``tdn-distill --init`` starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import ase
import numpy as np
import yaml
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from tdn.data import read_frames
from tdn.evaluation.dynamics.plan import sensible_timestep
from tdn.evaluation.stability import BOND

from .seeds import supercell

# K
MATTER = (300.0, 900.0, 1500.0)
MOLECULES = (200.0, 350.0, 500.0)
MELT = 2000.0
# mean neighbors within the cutoff
CUTOFFS = (4.5, 5.0, 5.5, 6.0)
FEW_NEIGHBORS = 20


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
        If a structure cannot be read or the teacher is not understood.
    """
    from tdn.evaluation.teachers.source import parse_calculator

    found = [frame.atoms for name in structures for frame in read_frames(name)]
    source = None if teacher is None else parse_calculator(teacher, python)
    molecular = any(is_molecular(atoms) for atoms in found)
    bulk = all(atoms.pbc.all() for atoms in found)
    temperatures = MOLECULES if molecular else MATTER
    cutoff = _cutoff(found)
    names = [os.path.relpath(name, beside) for name in structures]
    cells = [supercell(atoms, 64) for atoms in found]
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
        "",
        "rounds:",
        "  # " + _why(molecular, bulk),
        f"  temperatures: {_yaml([float(t) for t in temperatures])}",
        f"  melt: {_yaml(None if molecular or not bulk else MELT)}",
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
        "",
        "run:",
        f"  folder: {_yaml(folder)}",
        "  budget: null  # 30min plans rounds and steps by what they take",
    ]
    return "\n".join(lines) + "\n"


def is_molecular(atoms: ase.Atoms) -> bool:
    """Whether it has hydrogen, or falls into molecules: it would not survive high temperatures."""
    return 1 in atoms.numbers or not atoms.pbc.any() or _has_small_molecules(atoms)


def _has_small_molecules(atoms: ase.Atoms) -> bool:
    """Whether bonded groups are finite and small, of nonmetals only."""
    nonmetals = {1, 6, 7, 8, 9, 15, 16, 17, 34, 35, 53}
    if not set(atoms.numbers.tolist()) <= nonmetals:
        return False
    work = supercell(atoms, 100)
    radii = covalent_radii[work.numbers]
    i, j, d = neighbor_list("ijd", work, 2 * BOND * radii.max())
    bonded = d < BOND * (radii[i] + radii[j])
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(bonded.sum()), (i[bonded], j[bonded])), shape=(len(work),) * 2)
    count, _ = connected_components(graph)
    return count > 1


def _why(molecular: bool, bulk: bool) -> str:
    if molecular:
        return "molecules: temperatures at which they stay whole; K"
    if bulk:
        return "solid and melt; K"
    return "K"


def _cutoff(structures: Sequence[ase.Atoms]) -> float:
    """The smallest of some cutoffs that has enough neighbors in all structures."""
    for cutoff in CUTOFFS:
        counts = [len(neighbor_list("i", atoms, cutoff)) / len(atoms) for atoms in structures]
        if min(counts) >= FEW_NEIGHBORS:
            return cutoff
    return CUTOFFS[-1] if any(atoms.pbc.any() for atoms in structures) else 5.0


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
