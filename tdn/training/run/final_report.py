"""The end of a run: tables of errors and figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tdn.data import Dataset
from tdn.data.dataset.theory_levels import head_slices
from tdn.evaluation.errors import Evaluation, error_tables, errors, format_rows, tables_to_json
from tdn.network.checkpoint import read_checkpoint, write_checkpoint
from tdn.system.atomic_files import write_json

from .csv_log import read_log

LABELS = {"train": "training", "valid": "validation", "test": "test"}


def final_report(
    run_dir: Path, dataset: Dataset, evaluations: dict[str, Evaluation], write: bool = True
) -> str:
    """The errors of the best model as text; also in figures, ``errors.json`` and ``model.pt``.

    Parameters
    ----------
    run_dir : folder of the run
    evaluations : subset -> evaluation by the best model
    write : write files; one rank does
    """
    tables, rows = {}, {}
    for name, evaluation in evaluations.items():
        types = [frame.config_type for frame in getattr(dataset, name).report.frames]
        tables[name] = error_tables(evaluation, types, dataset.model_config.species)
        rows[LABELS[name]] = tables[name]["all"]
        for level, table in _by_theory_level(dataset, name, evaluation).items():
            rows[f"{LABELS[name]}, {level}"] = table
            tables[name].setdefault("heads", {})[level] = table
    if write:
        values = {name: tables_to_json(table) for name, table in tables.items()}
        content = read_checkpoint(run_dir / "model.pt")
        content["metadata"]["errors"] = {name: value["all"] for name, value in values.items()}
        write_checkpoint(run_dir / "model.pt", content)
        write_json(run_dir / "errors.json", values)
        write_figures(run_dir, evaluations)
    return format_rows(rows)


def _by_theory_level(dataset: Dataset, name: str, evaluation: Evaluation) -> dict[str, dict]:
    """Errors of the frames of each level of theory; empty with one level."""
    found = {}
    for level, frames in zip(dataset.heads, head_slices(dataset, name), strict=False):
        mask = np.zeros(len(evaluation.num_atoms), bool)
        mask[frames.start : frames.stop] = True
        found[level] = errors(evaluation, mask)
    return found


def write_figures(run_dir: Path, evaluations: dict[str, Evaluation]) -> None:
    """``learning_curve.png`` and ``parity.png``."""
    # matplotlib takes a second to import
    from tdn.evaluation.figures import parity

    from .learning_curve import learning_curve

    if (run_dir / "log.csv").is_file():
        learning_curve(run_dir / "learning_curve.png", read_log(run_dir / "log.csv"))
    labelled = {
        LABELS[name]: evaluation
        for name, evaluation in evaluations.items()
        if any(error is not None for error in errors(evaluation).values())
    }
    training = labelled.pop("training")
    parity(run_dir / "parity.png", labelled or {"training": training})
