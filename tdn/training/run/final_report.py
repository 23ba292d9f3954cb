"""What stands at the end of a run: tables of errors and figures."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np

from tdn.data.dataset.theory_levels import head_slices
from tdn.evaluation.errors import Evaluation, error_tables, errors, format_rows, tables_to_json
from tdn.network.checkpoint import read_checkpoint, write_checkpoint
from tdn.network.theory_levels import load_weights
from tdn.system.atomic_files import atomic_write
from tdn.training.trainer import Trainer

from .csv_log import read_log


def final_report(trainer: Trainer) -> str:
    """Evaluate the best model on all sets, write figures and ``errors.json``; the table as text.

    The errors also go into the metadata of ``model.pt``. All ranks take part in the evaluation, the
    first one writes.
    """
    content = read_checkpoint(trainer.model_file)
    model = copy.deepcopy(trainer.model)
    load_weights(model, content)
    evaluations: dict[str, Evaluation] = {
        name: trainer.evaluate(name, model)
        for name in ("train", "valid", "test")
        if len(getattr(trainer.dataset, name))
    }
    symbols = trainer.dataset.model_config.species
    tables, rows = {}, {}
    for name, evaluation in evaluations.items():
        types = [frame.config_type for frame in getattr(trainer.dataset, name).report.frames]
        tables[name] = error_tables(evaluation, types, symbols)
        label = {"train": "training", "valid": "validation"}.get(name, name)
        rows[label] = tables[name]["all"]
        for head, table in _by_head(trainer, name, evaluation).items():
            rows[f"{label}, {head}"] = table
            tables[name].setdefault("heads", {})[head] = table
    values = {name: tables_to_json(table) for name, table in tables.items()}
    trainer.ranks.barrier()  # all have read the file that is written now
    if trainer.ranks.main:
        content["metadata"]["errors"] = {name: value["all"] for name, value in values.items()}
        write_checkpoint(trainer.model_file, content)
        write_json(trainer.run_dir / "errors.json", values)
        write_figures(trainer.run_dir, evaluations)
    trainer.ranks.barrier()
    return format_rows(rows)


def _by_head(trainer: Trainer, name: str, evaluation: Evaluation) -> dict[str, dict]:
    """Errors of the frames of each head; empty without heads."""
    found = {}
    heads = getattr(trainer.dataset, "heads", ())
    for head, frames in zip(heads, head_slices(trainer.dataset, name), strict=False):
        mask = np.zeros(len(evaluation.num_atoms), bool)
        mask[frames.start : frames.stop] = True
        found[head] = errors(evaluation, mask)
    return found


def write_json(path: Path, values: dict) -> None:
    """Write plain values as indented JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def write_figures(run_dir: Path, evaluations: dict[str, Evaluation]) -> None:
    """``learning_curve.png`` and ``parity.png``."""
    from . import learning_curve as plots  # matplotlib takes a second to import

    learning = run_dir / "log.csv"
    if learning.is_file():
        plots.learning_curve(run_dir / "learning_curve.png", read_log(learning))
    named = {"valid": "validation", "test": "test"}
    shown = {named[n]: e for n, e in evaluations.items() if n in named}
    shown = {n: e for n, e in shown.items() if any(v is not None for v in errors(e).values())}
    plots.parity(run_dir / "parity.png", shown or {"training": evaluations["train"]})
