"""Exports of small networks, each made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from structures import STRUCTURES, random_model

from tdn.checkpoint import DTYPES, save_model
from tdn.graph import collate, graph_from_atoms
from tdn.model import ConvolutionModel
from tdn.network import set_dtype
from tdn.normalization import normalize_activations
from tdn_export import ExportReport, export_model


class Export(NamedTuple):
    """A network, its checkpoint and its compiled file."""

    model: ConvolutionModel
    checkpoint: Path
    report: ExportReport

    @property
    def path(self) -> Path:
        return self.report.path


def scaled_model(name: str) -> ConvolutionModel:
    """A random network whose activations are of order one, as those of trained networks."""
    model = random_model(name)
    graphs = [graph_from_atoms(make(), model.atomic_numbers, 4.0) for make in STRUCTURES.values()]
    normalize_activations(model, collate(graphs))
    return model


@pytest.fixture(scope="session")
def export(tmp_path_factory) -> Callable[[str, str], Export]:
    """Make (or remember) the export of a configuration in a precision."""
    made: dict[tuple[str, str], Export] = {}

    def get(name: str = "default", dtype: str = "float64") -> Export:
        if (name, dtype) not in made:
            folder = tmp_path_factory.mktemp(f"{name}-{dtype}")
            with torch.random.fork_rng():
                model = set_dtype(scaled_model(name), DTYPES[dtype])
                save_model(folder / "model.pt", model, {"epochs": 3, "valid_mae": float("nan")})
                report = export_model(folder / "model.pt")
            made[name, dtype] = Export(model, folder / "model.pt", report)
        return made[name, dtype]

    return get
