"""Command ``tdn-train``: train a network from frames, or go on with one."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tdn.config import Config
from tdn.config.yaml_file import defaults_yaml, load_config
from tdn.system.command import add_version, run_main
from tdn.system.errors import TDNError, UsageError
from tdn.system.printable import printable

from .run.folder import check_run_dir, prepare_run_dir

if TYPE_CHECKING:
    from tdn.system.ranks import Ranks

    from .trainer import Trainer

EPILOG = """\
Everything is written to train.run_dir: model.pt (best weights so far, for tdn-eval, tdn-export and
the ASE calculator), last.pt (the whole state of the run), log.csv, config.yaml, at the end
errors.json, learning_curve.png and parity.png, and a README.txt that explains them.

Run the same command again to continue an interrupted run: it goes on from last.pt exactly where it
stopped (Ctrl-C finishes the batch and writes last.pt). train.max_epochs may be raised.

examples:
  tdn-train water.yaml
  tdn-train water.yaml train.max_epochs=50 model.num_channels=32 train.run_dir=small
  tdn-train --defaults > config.yaml
  tdn-train --init water.xyz -o water.yaml
  tdn-train --import-released tdn_best_model.pth -o model.pt
  torchrun --nproc-per-node 2 -m tdn.training water.yaml      (two processes, or two GPUs)
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="tdn-train",
        description="Train a potential on frames with energies and forces.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version(result)
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
        "--import-released",
        metavar="FILE",
        help="turn weights of the released code of arXiv 2507.01131 into a checkpoint (-o), exit; "
        "model.r_max, model.avg_num_atoms and model.avg_num_neighbors may be given",
    )
    result.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="with --init: write the configuration to this file; with --import-released: the "
        "checkpoint",
    )
    return result


def main(argv: list[str] | None = None) -> int:
    """Entry point, also of every process that torchrun starts."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        # importing torch takes seconds: mistakes in the configuration come before that
        return run_main(lambda: _main(argv, None), "tdn-train")
    from tdn.system.ranks import run_on_ranks

    return run_on_ranks(lambda ranks: _main(argv, ranks), "tdn-train")


def _main(argv: list[str] | None, ranks: Ranks | None) -> int:
    arguments = parser().parse_intermixed_args(argv)
    if arguments.defaults:
        print(defaults_yaml())
        return 0
    if arguments.init is not None:
        if arguments.import_released is not None:
            raise UsageError("--init and --import-released exclude each other; give one of them")
        if arguments.config is not None:
            raise UsageError(
                f"--init and a configuration ({arguments.config}): expected one of them"
            )
        return _init(arguments.init, arguments.output)
    if arguments.import_released is not None:
        given = [arguments.config, *arguments.overrides] if arguments.config else []
        return _import_released(arguments.import_released, arguments.output, given)
    if arguments.output is not None:
        raise UsageError(
            "--output is for --init and --import-released; a run writes to train.run_dir"
        )
    if arguments.config is None:
        raise UsageError(
            "no configuration file given: tdn-train config.yaml (tdn-train --defaults prints one)"
        )
    config = load_config(arguments.config, arguments.overrides)
    run_dir = Path(config.train.run_dir)
    check_run_dir(run_dir, arguments.restart)

    from tdn.data.dataset.theory_levels import (
        load_training_data,  # torch takes seconds to import: mistakes above come first
    )
    from tdn.system.ranks import Ranks

    from .run.display import Display
    from .run.final_report import final_report
    from .run.tensorboard import check_tensorboard
    from .start.finetuning import adopt_network
    from .trainer import Trainer

    ranks = ranks or Ranks()
    ranks.device(config.train.device, "train.device")
    if config.train.tensorboard:
        check_tensorboard()
    resuming = (run_dir / "last.pt").exists() and not arguments.restart
    if ranks.any(resuming) and ranks.any(not resuming):
        raise TDNError(
            f"{run_dir / 'last.pt'} is there for some ranks only; put train.run_dir on a file "
            "system that all machines share"
        )
    config = adopt_network(config, run_dir / "last.pt" if resuming else None)
    display = Display(quiet=not ranks.main, silent=not ranks.main)
    dataset = load_training_data(config)
    for line in dataset.summary():
        print(printable(line, None))
    for line in dataset.warnings:
        display.warn(line)
    if not len(dataset.valid):
        display.warn("no validation frames: model.pt holds the newest weights, not the best")
    trainer = Trainer(config, dataset, display, ranks, resuming)
    print(
        f"network: {trainer.num_parameters} parameters, {config.train.dtype}, on {trainer.device}"
        + (f" and {ranks.size} ranks" if ranks.size > 1 else "")
        + f"; {trainer.steps_per_epoch} {_steps_of(config)} per epoch"
    )
    if arguments.dry_run:
        print(f"dry run: everything is fine, nothing was written to {run_dir}")
        return 0
    sys.stdout.flush()
    if ranks.main:
        prepare_run_dir(run_dir, trainer.config, arguments.restart)
    ranks.barrier()
    if resuming:
        _say_where(trainer)
    if not trainer.fit():
        done = trainer.progress
        print(
            f"stopped in epoch {done.epoch + 1} of {trainer.last_epoch}; the state is in "
            f"{trainer.last_file}. Run the same command again to go on"
            + (f"; {trainer.model_file} holds the best model so far" if done.best_epoch else "")
        )
        return 130
    if not trainer.model_file.exists():
        raise TDNError(
            f"training ended without a finite loss and no {trainer.model_file} was written; "
            "lower train.learning_rate"
        )
    table = final_report(run_dir, dataset, trainer.evaluate_best(), write=ranks.main)
    ranks.barrier()
    print(f"\nerrors of {trainer.model_file} (epoch {trainer.progress.best_epoch})\n{table}")
    head = f" --head {dataset.heads[0]}" if dataset.heads else ""
    print(f"\nnext: tdn-export {trainer.model_file}{head}")
    return 0


def _init(frames: str, output: str | None) -> int:
    """Print or write a configuration that fits a file of frames."""
    from tdn.system.atomic_files import atomic_write, check_writable

    if output is not None:
        check_writable(output)
        if Path(output).exists():
            raise TDNError(f"{output} exists already; choose another name or remove it")
    from tdn.data.survey.initial_config import initial_config

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


def _import_released(source: str, output: str | None, given: list[str]) -> int:
    """Write a checkpoint of the network whose weights the released code stored."""
    from tdn.system.atomic_files import check_writable

    if output is None:
        raise UsageError("--import-released needs -o FILE, e.g. -o model.pt")
    constants: dict[str, float] = {}
    for text in given:
        key, _, value = text.partition("=")
        known = ("model.r_max", "model.avg_num_atoms", "model.avg_num_neighbors")
        if key not in known:
            raise UsageError(f"{text!r} with --import-released: expected {', '.join(known)}=value")
        try:
            constants[key.removeprefix("model.")] = float(value)
        except ValueError:
            raise UsageError(f"{text!r}: expected a number after =") from None
    check_writable(output)
    if Path(output).exists():
        raise TDNError(f"{output} exists already; choose another name or remove it")

    from tdn.network.checkpoint import save_model
    from tdn.published import load_released, read_released

    model = load_released(read_released(source), **constants)
    save_model(output, model, {"imported_from": "released code of arXiv 2507.01131"})
    config = model.config
    print(
        f"{output} written: l_max {config.l_max}, {config.num_channels} channels, "
        f"{config.num_layers} blocks, {len(config.species)} elements, r_max {config.r_max:g} A, "
        "direct forces, no E0"
    )
    return 0


def _steps_of(config: Config) -> str:
    count = config.train.accumulate
    return "batches" if count == 1 else f"steps of {count} batches"


def _say_where(trainer: Trainer) -> None:
    done, last = trainer.progress, trainer.last_epoch
    if done.epoch >= last:
        print(
            f"this run is finished ({done.epoch} epochs): figures and tables are written again. "
            + (
                "It ended early (train.patience) and does not go on; use --restart"
                if done.cooling_from
                else "Raise train.max_epochs to go on, or use --restart"
            )
        )
    else:
        print(f"going on from {trainer.last_file}: epoch {done.epoch + 1} of {last}")
