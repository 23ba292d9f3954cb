"""The folder of a run: may it be used, what is in it, and a text that says so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import yaml

from tdn.config import Config, config_to_dict
from tdn.config.yaml_file import change_paths
from tdn.system.atomic_files import atomic_write
from tdn.system.errors import TDNError
from tdn.system.version import __version__

# what a run writes, and what each file is; --restart removes them
RUN_FILES = {
    "README.txt": "this text",
    "config.yaml": "all settings of the run, also those left at their defaults; tdn-train takes it",
    "model.pt": "the best weights so far (lowest validation loss; while the learning rate falls "
    "the newest ones within a tenth of it), averaged over the last steps; for tdn-eval, "
    "tdn-export and the ASE calculator",
    "last.pt": "the whole state of the run: the same command goes on from it. Safe to delete when "
    "the run is finished",
    "log.csv": "one row per epoch: losses, validation errors (meV/atom, meV/angstrom, "
    "meV/angstrom^3), seconds",
    "errors.json": "errors of model.pt on all sets, per element and configuration type",
    "learning_curve.png": "losses and validation errors over the epochs (at the end)",
    "parity.png": "predicted against reference values (at the end)",
    "tensorboard": "the log for TensorBoard, if train.tensorboard is true: tensorboard --logdir .",
}


def check_run_dir(run_dir: Path, restart: bool) -> None:
    """Refuse a folder that cannot be written, or that holds a model which would be lost.

    Raises
    ------
    TDNError
        With what is in the way.
    """
    parent = run_dir
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise TDNError(f"train.run_dir {run_dir}: {parent} is a file; choose another folder")
    if not os.access(parent, os.W_OK):
        raise TDNError(f"train.run_dir {run_dir}: no permission to write in {parent}")
    if not restart and (run_dir / "model.pt").exists() and not (run_dir / "last.pt").exists():
        raise TDNError(
            f"{run_dir} holds a model.pt but no last.pt to go on from; choose another "
            "train.run_dir, or replace the model with --restart"
        )


def prepare_run_dir(run_dir: Path, config: Config, restart: bool) -> None:
    """Create the folder; write the configuration with all its values and the README.

    Parameters
    ----------
    config : with species and everything else that the data decide filled in
    restart : remove what an earlier run left

    Raises
    ------
    TDNError
        If the folder cannot be written.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if restart:
            for name in RUN_FILES:
                path = run_dir / name
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise TDNError(f"train.run_dir {run_dir} cannot be used: {error.strerror}") from None
    with atomic_write(run_dir / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(absolute_paths(config), sort_keys=False))
    with atomic_write(run_dir / "README.txt") as temporary:
        temporary.write_text(_readme(config))


def _readme(config: Config) -> str:
    width = max(map(len, RUN_FILES))
    lines = [f"A training run of TDN {__version__}.", ""]
    lines += [f"{name:<{width}}  {text}" for name, text in RUN_FILES.items()]
    head = f" --head {next(iter(config.data.heads))}" if config.data.heads else ""
    lines += [
        "",
        "In this folder:",
        "  tdn-train config.yaml                        go on, or write tables and figures again",
        "  tdn-train config.yaml train.max_epochs=N     go on beyond the last epoch",
        f"  tdn-eval errors model.pt test.xyz{head}",
        f"  tdn-export model.pt{head}                          model.tdn.pth for LAMMPS",
    ]
    return "\n".join(lines) + "\n"


def absolute_paths(config: Config) -> dict:
    """The configuration with absolute paths, so that its copy elsewhere means the same."""
    values = config_to_dict(config)
    change_paths(values, Path.absolute)
    return values
