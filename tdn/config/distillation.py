"""Configuration of ``tdn-distill``: sections, defaults, checks, YAML."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tdn.system.errors import UsageError
from tdn.system.printable import printable

from .fields import nearest_key, option, section_from_dict
from .schema import ModelConfig, TrainConfig
from .yaml_file import apply_override, read_yaml, sections_yaml

# seconds of the units of a time
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class TeacherConfig:
    """The calculator that labels structures."""

    calculator: str = option("", "ASE calculator as module:Name")
    arguments: dict[str, Any] | None = option(None, "arguments of its constructor")
    python: str | None = option(
        None, "interpreter of the environment that has it; null: this environment"
    )
    workers: int | str = option(1, "processes that label at the same time, or dask")
    scheduler: str | None = option(None, "workers: dask: address of the scheduler, tcp://host:8786")
    threads: int = option(1, "threads of each process", minimum=1)
    isolated_atoms: bool = option(True, "ask it for energies E0 of isolated atoms")


@dataclass(frozen=True)
class SeedsConfig:
    """Structures to start from, and what is made of them; each number is per structure."""

    structures: str | tuple[str, ...] = option((), "files in any format that ASE reads")
    atoms: int = option(64, "supercells have at least this many atoms", minimum=1)
    rattles: int = option(16, "with random displacements", minimum=0)
    rattle: float = option(0.25, "largest deviation of displacements (RMS), angstrom", minimum=0)
    strains: int = option(12, "with another volume", minimum=0)
    strain: float = option(0.06, "largest change of lengths", minimum=0, maximum=0.5)
    shears: int = option(8, "with a random symmetric strain", minimum=0)
    shear: float = option(0.05, "largest component of it", minimum=0, maximum=0.5)
    elastic: int = option(
        16, "crystals with atoms at rest and small strains, for elastic constants", minimum=0
    )
    vacancies: int = option(4, "without one atom", minimum=0)
    surfaces: int = option(3, "cut along a face of the cell, with vacuum between", minimum=0)
    vacuum: float = option(8.0, "width of the vacuum, angstrom", minimum=0.1)
    exchanges: int = option(2, "with two atoms of different elements exchanged", minimum=0)
    disordered: int = option(
        8, "without order, as far apart as in a melt; only with rounds.melt", minimum=0
    )
    contacts: int = option(4, "with pairs of atoms pushed together", minimum=0)
    substitutions: dict[str, str] | None = option(None, "elements that replace others, {Na: K}")
    replaced: int = option(4, "with some atoms replaced in this way", minimum=0)
    seed: int = option(0, "of all random numbers", minimum=0, maximum=2**31)


@dataclass(frozen=True)
class RoundsConfig:
    """Train, explore, select, label: how often, where, how far."""

    max_rounds: int = option(8, "rounds at most", minimum=1)
    committee: int = option(3, "networks of the committee", minimum=2)
    steps: int = option(1500, "steps of the optimizer in a round", minimum=1)
    final_steps: int = option(8000, "steps of the last training", minimum=1)
    frames: int = option(100, "frames to label in a round, at most", minimum=1)
    temperatures: tuple[float, ...] = option((300.0, 600.0, 900.0), "of the dynamics, K")
    pressures: tuple[float, ...] = option((), "GPa; empty: constant volume")
    melt: float | None = option(
        None, "K: also melt there, hold at the highest temperature, quench to the lowest"
    )
    engine: str = option("lammps", "what moves the atoms", choices=("lammps", "ase"))
    md_steps: int = option(3000, "steps of each run", minimum=20)
    timestep: float | None = option(
        None, "fs; null: 0.5 with hydrogen, 1 with other light atoms, else 2", minimum=0.01
    )
    lower: float | None = option(
        None,
        "deviation (eV/angstrom, largest of a frame) from which a frame is labeled; null: where "
        "the expected error is 0.06 of the RMS force",
        minimum=0.0,
    )
    upper: float | None = option(
        None, "deviation beyond which a frame is left out; null: 1.2 of the RMS force", minimum=0.0
    )
    stop_share: float = option(
        0.02, "stop when a smaller share of the frames is above lower", minimum=0.0, maximum=1.0
    )
    target_forces: float | None = option(
        None, "stop when the RMSE of validation forces is below this, meV/angstrom", minimum=0.0
    )
    max_labels: int | None = option(
        None,
        "labels for training and validation at most; the report's held-out frames come on top",
        minimum=1,
    )


@dataclass(frozen=True)
class StudentConfig:
    """The network: keys of tdn-train."""

    model: dict[str, Any] | None = option(None, "keys of tdn-train's section model")
    train: dict[str, Any] | None = option(None, "keys of tdn-train's section train")


@dataclass(frozen=True)
class ReportConfig:
    """What the result is compared in."""

    heldout: int = option(8, "held-out frames of each run of the student", minimum=1)
    teacher_steps: int | None = option(
        None,
        "steps of the teacher's own dynamics at each temperature; 0: none; null: 600, or as many "
        "as a fast teacher does in 30 s, up to 10 ps",
        minimum=0,
    )
    temperatures: tuple[float, ...] = option((), "K, of these dynamics; empty: lowest and highest")
    crystals: bool = option(
        True, "equation of state, elastic constants, vacancies and phonons of small cells"
    )


@dataclass(frozen=True)
class RunConfig:
    """Where and for how long."""

    folder: str = option("distilled", "folder for everything that a run writes")
    budget: str | None = option(None, "time for all of it, such as 30min or 2h")
    jobs: int | None = option(
        None, "trainings and dynamics at the same time; null: as many as cores", minimum=1
    )


@dataclass(frozen=True)
class DistillConfig:
    """A whole configuration file."""

    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    rounds: RoundsConfig = field(default_factory=RoundsConfig)
    student: StudentConfig = field(default_factory=StudentConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    run: RunConfig = field(default_factory=RunConfig)


SECTIONS = {
    "teacher": TeacherConfig,
    "seeds": SeedsConfig,
    "rounds": RoundsConfig,
    "student": StudentConfig,
    "report": ReportConfig,
    "run": RunConfig,
}
# keys of tdn-train that the rounds decide
OWN_KEYS = ("run_dir", "init_from", "max_epochs", "seed")


def load_distill_config(path: str | Path, overrides: Sequence[str] = ()) -> DistillConfig:
    """Read a YAML file and apply ``section.key=value`` overrides.

    Paths in the file are relative to its folder, those in overrides to the current one.

    Raises
    ------
    UsageError
        If anything in it is not understood.
    """
    path = Path(path)
    values = read_yaml(path, SECTIONS)
    _join_paths(values, path.parent)
    for override in overrides:
        apply_override(values, override)
    return distill_config_from_dict(values)


def _join_paths(values: dict[str, Any], folder: Path) -> None:
    if values.get("run") is None:
        values["run"] = {}
    if isinstance(values["run"], dict):
        name = values["run"].get("folder", RunConfig.folder)
        if isinstance(name, str):
            values["run"]["folder"] = str(folder / Path(name).expanduser())
    seeds = values.get("seeds")
    if isinstance(seeds, dict) and "structures" in seeds:
        names = seeds["structures"]
        names = [names] if isinstance(names, str) else names
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            seeds["structures"] = [str(folder / Path(name).expanduser()) for name in names]


def distill_config_from_dict(values: dict[str, Any]) -> DistillConfig:
    """Build a configuration from nested dictionaries, with every check.

    Raises
    ------
    UsageError
        With the key, what was found and what was expected.
    """
    for name in values:
        if name not in SECTIONS:
            raise UsageError(
                f"unknown section '{printable(name)}'; {nearest_key(str(name), list(SECTIONS))}"
            )
    config = DistillConfig(
        **{n: section_from_dict(c, values.get(n), n) for n, c in SECTIONS.items()}
    )
    _check(config)
    return config


def _check(config: DistillConfig) -> None:
    teacher, rounds = config.teacher, config.rounds
    if not teacher.calculator:
        raise UsageError(
            "teacher.calculator is not set; expected module:Name of an ASE calculator, such as "
            "sevenn.calculator:SevenNetCalculator"
        )
    if isinstance(teacher.workers, str) and teacher.workers != "dask":
        raise UsageError(f"teacher.workers = {teacher.workers!r}: expected a number or dask")
    if isinstance(teacher.workers, int) and teacher.workers < 1:
        raise UsageError(f"teacher.workers = {teacher.workers}: expected at least 1")
    if teacher.scheduler is not None and teacher.workers != "dask":
        raise UsageError("teacher.scheduler needs teacher.workers: dask")
    if not config.seeds.structures:
        raise UsageError("seeds.structures is empty; name a file with a structure")
    if not rounds.temperatures or min(rounds.temperatures) <= 0:
        raise UsageError("rounds.temperatures: expected one or more temperatures above 0 K")
    if rounds.melt is not None and not rounds.melt > 0:
        raise UsageError(
            f"rounds.melt = {rounds.melt:g}: expected a temperature above 0 K, or null"
        )
    if rounds.lower is not None and rounds.upper is not None and rounds.upper <= rounds.lower:
        raise UsageError(
            f"rounds.upper = {rounds.upper:g} is not above rounds.lower = {rounds.lower:g}"
        )
    other = [t for t in config.report.temperatures if t not in rounds.temperatures]
    if other:
        raise UsageError(
            f"report.temperatures: {other[0]:g} K is none of rounds.temperatures "
            f"({', '.join(f'{t:g}' for t in rounds.temperatures)})"
        )
    for name, cls in (("model", ModelConfig), ("train", TrainConfig)):
        section = getattr(config.student, name) or {}
        section_from_dict(cls, section, f"student.{name}")
        for key in OWN_KEYS:
            if name == "train" and key in section:
                raise UsageError(f"student.train.{key} is decided by the rounds; remove it")
    seconds_of(config.run.budget)


def seconds_of(text: str | None) -> float | None:
    """``90s``, ``30min``, ``1.5h`` or ``1d`` in seconds.

    Raises
    ------
    UsageError
        For anything else.
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(s|min|h|d)\s*", text)
    if found is None or float(found[1]) <= 0:
        raise UsageError(f"budget {text!r}: expected a time such as 90s, 30min, 2h or 1d")
    return float(found[1]) * UNITS[found[2]]


def distill_defaults_yaml() -> str:
    """All keys with their defaults and their help as comments."""
    return sections_yaml(SECTIONS)


def distill_config_to_dict(config: DistillConfig) -> dict[str, Any]:
    """Plain values, as `distill_config_from_dict` takes them."""
    return dataclasses.asdict(config)
