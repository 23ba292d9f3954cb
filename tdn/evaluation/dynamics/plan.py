"""What a run of molecular dynamics does, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import ase
import numpy as np

from tdn.evaluation.stability import trouble

# ps, of thermostat and barostat
THERMOSTAT, BAROSTAT = 0.1, 0.5
# fs, by the lightest atom: (mass in u below which, time step)
TIMESTEPS = ((2.1, 0.5), (13.0, 1.0))
LONGEST_TIMESTEP = 2.0


@dataclass(frozen=True)
class Segment:
    """A stretch of a run.

    Attributes
    ----------
    kind : what samples of it are called; None: no samples
    start, end : temperatures in K, with a ramp between them
    steps : how many
    """

    kind: str | None
    start: float
    end: float
    steps: int


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes
    ----------
    name : of its folder
    atoms : where it starts
    segments : one after the other
    timestep : fs
    every : steps between samples
    pressure : GPa, None for constant volume
    seed : of velocities and thermostat
    limit : eV/angstrom; the run ends where the deviation of a committee is larger
    """

    name: str
    atoms: ase.Atoms
    segments: tuple[Segment, ...]
    timestep: float
    every: int
    pressure: float | None = None
    seed: int = 1
    limit: float | None = None

    @property
    def steps(self) -> int:
        """Of all segments."""
        return sum(segment.steps for segment in self.segments)


@dataclass(frozen=True)
class Sample:
    """A structure of a run.

    Attributes
    ----------
    kind : of its segment
    deviation : largest of its atoms, eV/angstrom; NaN without a committee
    energy, forces : eV, eV/angstrom [N, 3]; None where the program does not tell
    """

    atoms: ase.Atoms
    kind: str
    deviation: float
    energy: float | None = None
    forces: np.ndarray | None = None


@dataclass
class Trajectory:
    """Samples of a run in their order.

    Attributes
    ----------
    broken : why it ended early, or None
    seconds : that it took, per step and atom in ``seconds_per_atom_step`` where known
    """

    plan: Plan
    samples: list[Sample] = field(default_factory=list)
    broken: str | None = None
    seconds_per_atom_step: float | None = None

    def keep_sane(self) -> None:
        """Drop everything from the first sample on in which atoms are too close to each other."""
        no_bonds = np.zeros((0, 2), int), np.zeros(0)
        for index, sample in enumerate(self.samples):
            problem = trouble(sample.atoms, no_bonds, 1.0, 1.0)
            if problem is not None:
                del self.samples[index:]
                self.broken = self.broken or problem
                return


def sensible_timestep(atoms: ase.Atoms) -> float:
    """A time step in fs for the lightest atom."""
    lightest = float(atoms.get_masses().min())
    return next((step for mass, step in TIMESTEPS if lightest < mass), LONGEST_TIMESTEP)
