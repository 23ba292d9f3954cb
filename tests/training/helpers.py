"""Small synthetic data and configurations, made in the test's own folder."""

from __future__ import annotations

import os
from pathlib import Path

import ase
import ase.io
import numpy as np
import torch
import yaml
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from tdn.config.yaml_file import load_config
from tdn.data.dataset.theory_levels import load_training_data
from tdn.system.errors import TDNError
from tdn.training.cli import main
from tdn.training.run.display import Display
from tdn.training.start.finetuning import adopt_network
from tdn.training.trainer import Trainer

E0 = {"H": -13.6, "O": -2041.0}
TINY = {"l_max": 1, "num_channels": 4, "num_layers": 2, "correlation": 2, "r_max": 3.0}


def labelled(atoms: ase.Atoms, e0: dict[str, float] | None = None) -> ase.Atoms:
    """Lennard-Jones labels plus E0."""
    work = atoms.copy()
    work.calc = LennardJones(sigma=1.0, epsilon=0.2, rc=3.0, smooth=True)
    offset = sum((e0 or E0)[s] for s in atoms.get_chemical_symbols())
    results = {"energy": work.get_potential_energy() + offset, "forces": work.get_forces()}
    if atoms.pbc.all():
        results["stress"] = work.get_stress()
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def water_like(seed: int, pbc: bool = False, molecules: int = 1) -> ase.Atoms:
    """Jittered H2O molecules."""
    rng = np.random.default_rng(seed)
    shape = np.array([[0.0, 0.0, 0.0], [1.1, 0.0, 0.0], [-0.2, 1.1, 0.0]])
    positions = np.concatenate([shape + np.array([0.0, 0.0, 1.6 * m]) for m in range(molecules)])
    positions += 0.06 * rng.normal(size=positions.shape)
    cell = [3.6, 3.7, 1.6 * molecules + 2.0] if pbc else None
    return ase.Atoms("OHH" * molecules, positions=positions + 0.5, cell=cell, pbc=pbc)


def write_frames(path: Path, count: int = 8, pbc: bool = False, molecules: int = 1) -> list:
    """A file of labelled frames."""
    frames = [labelled(water_like(seed, pbc, molecules)) for seed in range(count)]
    ase.io.write(path, frames)
    return frames


def write_config(folder: Path, **changes: dict) -> Path:
    """A configuration for a very small network on ``train.xyz`` in the same folder."""
    values = {
        "model": dict(TINY),
        "data": {"train": "train.xyz", "valid_fraction": 0.25},
        "train": {
            "max_epochs": 3,
            "batch_size": 2,
            "dtype": "float64",
            "device": "cpu",
            "num_threads": 1,
        },
    }
    for section, keys in changes.items():
        values[section].update(keys)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


class Recorder(Display):
    """Shows nothing and keeps warnings."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def trainer_of(config: Path, *overrides: str, resume: bool = False) -> Trainer:
    """A trainer of a configuration file, with the folder of its run."""
    values = adopt_network(load_config(config, overrides))
    Path(values.train.run_dir).mkdir(exist_ok=True)
    return Trainer(values, load_training_data(values), Recorder(), resume=resume)


def assert_same(one: dict, other: dict) -> None:
    """Equal tensors under equal names, bit by bit."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def main_failing_on_one_rank(arguments: list[str]) -> int:
    """``tdn-train`` whose second rank fails in its second step; for a process of its own."""
    step = Trainer._step

    def changed(trainer: Trainer, *rest: object) -> None:
        if os.environ["RANK"] == "1" and trainer.progress.step == 1:
            raise TDNError("only rank 1 fails")
        step(trainer, *rest)

    Trainer._step = changed
    return main(arguments)
