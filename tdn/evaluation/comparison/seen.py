"""What training frames contain, and by that what the student has not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list

from tdn.data.frames import Frame
from tdn.data.vacuum import is_bulk

from .section import Section

# angstrom, within which shortest distances are looked for
REACH = 6.0


def seen_section(
    frames: Sequence[Frame], temperatures: Sequence[float] = (), solid: Sequence[str] = ()
) -> Section:
    """Kinds of frames, densities, shortest distances, largest forces; and what lies beyond.

    Parameters
    ----------
    frames : that the student was trained on
    temperatures : of the dynamics that found them, K
    solid : runs that should have melted and did not
    """
    frames = [frame for frame in frames if len(frame.atoms) > 1]
    section = Section("What the student has seen", columns=["", "in the training frames"])
    if not frames:
        section.text = "All training frames are of single atoms."
        return section
    kinds = Counter(frame.config_type or "frames" for frame in frames)
    section.rows.append(["frames", ", ".join(f"{n} {c}" for n, c in sorted(kinds.items()))])
    sizes = sorted({len(frame.atoms) for frame in frames})
    section.rows.append(["atoms", f"{sizes[0]} to {sizes[-1]}"])
    bulk = [f for f in frames if is_bulk(f.atoms) and "surface" not in (f.config_type or "")]
    volumes = [f.atoms.get_volume() / len(f.atoms) for f in bulk]
    if bulk:
        section.rows.append(["volume (Å³ per atom)", f"{min(volumes):.2f} to {max(volumes):.2f}"])
        section.values["volume_A3_per_atom"] = [min(volumes), max(volumes)]
    symbols = sorted({s for f in frames for s in f.atoms.symbols}, key=atomic_numbers.get)
    shortest = shortest_distances(frames)
    missing = []
    for pair in combinations_with_replacement(symbols, 2):
        name = "-".join(pair)
        if pair in shortest:
            section.rows.append([f"shortest {name} (Å)", f"{shortest[pair]:.2f}"])
        else:
            missing.append(name)
    section.values |= {
        "kinds": dict(kinds),
        "shortest_A": {"-".join(pair): d for pair, d in shortest.items()},
        "pairs_never_seen": missing,
    }
    largest = [np.linalg.norm(f.forces, axis=1).max() for f in frames if f.forces is not None]
    if largest:
        section.rows.append(["largest force (eV/Å)", f"{max(largest):.2f}"])
        section.values["largest_force_eV_per_A"] = float(max(largest))
    lacks = [f"elements other than {', '.join(symbols)}", "shorter distances than these"]
    if missing:
        lacks.append(f"pairs {', '.join(missing)} within {REACH:g} Å")
    if temperatures:
        low, high = min(temperatures), max(temperatures)
        lacks.append(f"temperatures beyond {low:g} to {high:g} K")
    if bulk:
        lacks.append("other densities")
    lacks += [
        f"no {name}"
        for name, words in (
            ("surfaces", ("surface",)),
            ("vacancies", ("vacancy",)),
            ("melts", ("melt",)),
        )
        if bulk and not any(word in kind for kind in kinds for word in words)
    ]
    if solid:
        lacks.append(f"melts (these runs stayed solid: {', '.join(solid)})")
        section.values["stayed_solid"] = list(solid)
    section.text = (
        "It is not tested, and may be wrong without a warning, for: " + "; ".join(lacks) + "."
    )
    return section


def shortest_distances(frames: Sequence[Frame]) -> dict[tuple[str, str], float]:
    """The shortest distance of each pair of elements within `REACH`, in angstrom."""
    found: dict[tuple[str, str], float] = {}
    for frame in frames:
        atoms = frame.atoms
        i, j, d = neighbor_list("ijd", atoms, REACH)
        symbols = np.array(atoms.get_chemical_symbols())
        for a, b in combinations_with_replacement(sorted(set(symbols), key=atomic_numbers.get), 2):
            chosen = d[(symbols[i] == a) & (symbols[j] == b)]
            if len(chosen):
                found[a, b] = min(found.get((a, b), np.inf), float(chosen.min()))
    return found
