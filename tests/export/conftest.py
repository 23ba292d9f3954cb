"""Exports of small networks, each made once."""

from __future__ import annotations

import dataclasses
import functools
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from shared_files import MACHINE_CODE, SharedFiles
from structures import STRUCTURES, random_model

from tdn.graph import collate, graph_from_atoms
from tdn.inference.torchscript import plain_execution
from tdn.network.base import set_dtype
from tdn.network.checkpoint import DTYPES, save_model
from tdn.network.convolution_model import ConvolutionModel
from tdn.network.initial_norms import normalize_activations
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


@pytest.fixture
def plain() -> Iterator[None]:
    """Without the executor that compiles e3nn's code anew for every structure: tests are short."""
    with plain_execution():
        yield


@pytest.fixture(scope="session")
def export(shared_files: SharedFiles) -> Callable[..., Export]:
    """Make (or remember) the export of a configuration in a precision, with or without tables."""

    @functools.cache
    def get(name: str = "default", dtype: str = "float64", fused: bool = True) -> Export:
        with torch.random.fork_rng():
            model = set_dtype(scaled_model(name), DTYPES[dtype])

        def make(folder: Path) -> None:
            folder.mkdir(exist_ok=True)
            save_model(folder / "model.pt", model, {"epochs": 3, "valid_mae": float("nan")})
            report = export_model(folder / "model.pt", fused=fused)
            (folder / "report.pkl").write_bytes(pickle.dumps(report))

        folder = shared_files.get(f"{name}-{dtype}-{fused}", make)
        report = pickle.loads((folder / "report.pkl").read_bytes())
        report = dataclasses.replace(report, path=folder / "model.tdn.pth")
        return Export(model, folder / "model.pt", report)

    return get


@pytest.fixture(scope="session")
def machine_code(compiler, shared_files) -> Path:
    """``random_model("l3", **MACHINE_CODE)`` by AOTInductor, which takes half a minute."""
    return shared_files.export("l3", backend="aotinductor", **MACHINE_CODE)
