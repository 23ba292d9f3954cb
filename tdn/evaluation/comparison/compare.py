"""All sections about a pair of calculators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import ase
from ase.calculators.calculator import Calculator

from tdn.data.frames import Frame
from tdn.evaluation.dynamics.plan import Trajectory

from .crystal import elastic_constants, equation_of_state, relaxed_by_both
from .dynamics import Case, compare_dynamics
from .held_out import calibration_section, error_section, predict
from .phonons import phonon_frequencies
from .section import Pair, Section, guarded
from .seen import seen_section
from .speed import speed_section
from .vacancy import vacancy_energy

# frames of each of the reference's runs that errors are taken of
REFERENCE_FRAMES = 20


@dataclass
class Subjects:
    """What two calculators are compared in.

    Attributes
    ----------
    crystals : name -> unit cell of a crystal, periodic in three directions
    frames : held-out frames with the reference's labels
    cases : dynamics
    atoms : structure whose time is measured
    model : compiled file of the student for LAMMPS
    committee : calculator with deviations, if the student is none
    exact : the student in double precision, for differences of forces and stresses
    training : frames that the student was trained on
    temperatures : of the dynamics that found them, K
    solid : runs that should have melted and did not, in words
    threads : of LAMMPS
    """

    crystals: dict[str, ase.Atoms] = field(default_factory=dict)
    frames: Sequence[Frame] = ()
    cases: Sequence[Case] = ()
    atoms: ase.Atoms | None = None
    model: Path | None = None
    committee: Calculator | None = None
    exact: Calculator | None = None
    training: Sequence[Frame] = ()
    temperatures: Sequence[float] = ()
    solid: Sequence[str] = ()
    threads: int = 1


def compare(
    pair: Pair, subjects: Subjects, watch: Callable[[str], None] = lambda title: None
) -> list[Section]:
    """Compare; a part that one of them cannot do becomes a line that says so.

    Frames of the reference's own dynamics are held-out frames as well.

    Parameters
    ----------
    watch : called with what comes next
    """
    frames = list(subjects.frames)
    dynamics = []
    for case in subjects.cases:
        watch(f"dynamics: {case.name}")

        def run(case: Case = case) -> Section:
            section, trajectory = compare_dynamics(pair, case)
            frames.extend(reference_frames(trajectory))
            return section

        dynamics.append(guarded(f"Dynamics: {case.name}", run))
    sections = []
    if frames:
        watch("held-out frames")
        found = guarded(
            "Held-out frames", lambda: predict(pair.student, frames, subjects.committee)
        )
        if isinstance(found, Section):
            sections.append(found)
        else:
            sections.append(guarded("Held-out frames", lambda: error_section(found)))
            if found.spread is not None:
                sections.append(guarded("Calibration", lambda: calibration_section(found)))
    exact = replace(pair, student=subjects.exact or pair.student)
    for name, atoms in subjects.crystals.items():
        sections += _crystal(exact, name, atoms, watch)
    sections += dynamics
    if subjects.atoms is not None:
        watch("speed")
        atoms, model, threads = subjects.atoms, subjects.model, subjects.threads
        sections.append(guarded("Speed", lambda: speed_section(pair, atoms, model, threads)))
    if subjects.training:
        sections.append(
            guarded(
                "What the student has seen",
                lambda: seen_section(subjects.training, subjects.temperatures, subjects.solid),
            )
        )
    return sections


def reference_frames(trajectory: Trajectory) -> list[Frame]:
    """Some frames of the reference's own dynamics with its energies and forces."""
    samples = trajectory.samples[:: max(1, len(trajectory.samples) // REFERENCE_FRAMES)]
    return [
        Frame(
            atoms=sample.atoms,
            number=index + 1,
            source=trajectory.plan.name,
            energy=sample.energy,
            forces=sample.forces,
            config_type=f"reference's dynamics, {sample.kind}",
        )
        for index, sample in enumerate(samples)
    ]


def _crystal(
    pair: Pair, name: str, atoms: ase.Atoms, watch: Callable[[str], None]
) -> list[Section]:
    """What is known about a crystal at 0 K."""
    watch(f"relaxing {name}")
    # once for all sections: a search that fails may have taken long
    found = guarded(f"Crystal: {name}", lambda: relaxed_by_both(pair, atoms))
    if isinstance(found, Section):
        return [found]
    sections = []
    for title, make in (
        ("Equation of state", lambda: equation_of_state(pair, found)),
        ("Elastic constants", lambda: elastic_constants(pair, atoms, found)),
        ("Vacancies", lambda: vacancy_energy(pair, found)),
        ("Phonons", lambda: phonon_frequencies(pair, found)),
    ):
        watch(f"{title.lower()} of {name}")
        section = guarded(title, make)
        section.title = f"{title}: {name}"
        sections.append(section)
    return sections
