"""Command ``tdn-train``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..cli import run_main
from ..config import PATH_KEYS, Config, config_to_dict, defaults_yaml, load_config
from ..errors import TDNError, UsageError

EPILOG = """\
Everything is written to train.run_dir: model.pt (best weights so far, for tdn-eval, tdn-export and
the ASE calculator), last.pt (the whole state of the run), log.csv, config.yaml, and at the end
errors.json, learning_curve.png and parity.png.

Run the same command again to continue an interrupted run: it goes on from last.pt exactly where it
stopped (Ctrl-C finishes the batch and writes last.pt). train.max_epochs may be raised.

examples:
  tdn-train water.yaml
  tdn-train water.yaml train.max_epochs=50 model.num_channels=32 train.run_dir=small
  tdn-train --defaults > config.yaml
  tdn-train --init water.xyz -o water.yaml
"""

# what a run writes; --restart removes it
RUN_FILES = (
    "last.pt",
    "model.pt",
    "log.csv",
    "config.yaml",
    "errors.json",
    "learning_curve.png",
    "parity.png",
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="tdn-train",
        description="Train a potential on frames with energies and forces.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("config", nargs="?", help="YAML file with sections model, data and train")
    result.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="replace values of the file"
    )
    result.add_argument(
        "--restart", action="store_true", help="discard the run in train.run_dir and start over"
    )
    result.add_argument(
        "--dry-run", action="store_true", help="check configuration, data and model; train nothing"
    )
    result.add_argument(
        "--defaults", action="store_true", help="print all keys with their defaults and exit"
    )
    result.add_argument(
        "--init", metavar="FRAMES", help="print a configuration that fits a file of frames and exit"
    )
    result.add_argument(
        "-o", "--output", metavar="FILE", help="with --init: write the configuration to this file"
    )
    return result


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    return run_main(lambda: _main(argv), "tdn-train")


def _main(argv: list[str] | None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    if arguments.defaults:
        print(defaults_yaml())
        return 0
    if arguments.init is not None:
        if arguments.config is not None:
            raise UsageError(
                f"--init and a configuration ({arguments.config}): expected one of them"
            )
        return _init(arguments.init, arguments.output)
    if arguments.output is not None:
        raise UsageError("--output is for --init; a run writes to train.run_dir")
    if arguments.config is None:
        raise UsageError(
            "no configuration file given: tdn-train config.yaml (tdn-train --defaults prints one)"
        )
    config = load_config(arguments.config, arguments.overrides)
    run_dir = Path(config.train.run_dir)
    _check_run_dir(run_dir, arguments.restart)

    from ..data import load_dataset  # torch takes seconds to import: mistakes above come at once
    from ..devices import select_device
    from .display import Display
    from .report import final_report
    from .trainer import Trainer

    select_device(config.train.device, "train.device")
    display = Display()
    dataset = load_dataset(config)
    for line in dataset.summary():
        print(line)
    for line in dataset.warnings:
        display.warn(line)
    if not len(dataset.valid):
        display.warn("no validation frames: model.pt holds the newest weights, not the best")
    trainer = Trainer(config, dataset, display)
    print(
        f"network: {trainer.num_parameters} parameters, {config.train.dtype}, on {trainer.device}; "
        f"{trainer.steps_per_epoch} batches per epoch"
    )
    resuming = trainer.last_file.exists() and not arguments.restart
    if resuming:
        trainer.resume()
    if arguments.dry_run:
        print(f"dry run: everything is fine, nothing was written to {run_dir}")
        return 0
    sys.stdout.flush()
    _prepare(run_dir, config, arguments.restart)
    if resuming:
        _say_where(trainer)
    if not trainer.fit():
        done = trainer.progress
        print(
            f"stopped in epoch {done.epoch + 1} of {config.train.max_epochs}; the state is in "
            f"{trainer.last_file}. Run the same command again to go on"
            + (f"; {trainer.model_file} holds the best model so far" if done.best_epoch else "")
        )
        return 130
    if not trainer.model_file.exists():
        raise TDNError(
            f"training ended without a finite loss and no {trainer.model_file} was written; "
            "lower train.learning_rate"
        )
    table = final_report(trainer)
    print(f"\nerrors of {trainer.model_file} (epoch {trainer.progress.best_epoch})\n{table}")
    print(f"\nnext: tdn-export {trainer.model_file}")
    return 0


def _init(frames: str, output: str | None) -> int:
    """Print or write a configuration that fits a file of frames."""
    from ..files import atomic_write, check_writable

    if output is not None:
        check_writable(output)
        if Path(output).exists():
            raise TDNError(f"{output} exists already; choose another name or remove it")
    from ..data.initial_config import initial_config

    text = initial_config(frames, Path(output).parent if output else ".")
    if output is None:
        print(text, end="")
        return 0
    with atomic_write(output) as temporary:
        temporary.write_text(text)
    marked = text.count("ATTENTION")
    look = f"read what it says after ATTENTION ({marked} times), then" if marked else "next:"
    print(f"{output} written; {look} tdn-train {output}")
    return 0


def _say_where(trainer) -> None:
    done, last = trainer.progress, trainer.config.train.max_epochs
    if done.epoch >= last:
        print(
            f"this run is finished ({done.epoch} epochs): figures and tables are written again. "
            "Raise train.max_epochs to go on, or use --restart"
        )
    else:
        print(f"going on from {trainer.last_file}: epoch {done.epoch + 1} of {last}")


def _check_run_dir(run_dir: Path, restart: bool) -> None:
    """Refuse a folder that cannot be written, or that holds a model which would be lost."""
    if run_dir.exists() and not run_dir.is_dir():
        raise TDNError(f"train.run_dir {run_dir} is a file; choose another folder")
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


def _prepare(run_dir: Path, config: Config, restart: bool) -> None:
    """Create the folder and write the configuration with all its defaults."""
    import yaml

    from ..files import atomic_write

    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if restart:
            for name in RUN_FILES:
                (run_dir / name).unlink(missing_ok=True)
    except OSError as error:
        raise TDNError(f"train.run_dir {run_dir} cannot be used: {error.strerror}") from None
    with atomic_write(run_dir / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(absolute_paths(config), sort_keys=False))


def absolute_paths(config: Config) -> dict:
    """The configuration with absolute paths, so that its copy elsewhere means the same."""
    values = config_to_dict(config)
    for section, key in PATH_KEYS:
        if values[section][key] is not None:
            values[section][key] = str(Path(values[section][key]).absolute())
    return values
