"""A compiled file describes the CP matrices of its network, whatever factors the package ships."""

from __future__ import annotations

import pytest
import torch
from structures import random_model

from tdn.network.base import Network, set_dtype
from tdn.network.checkpoint import save_model
from tdn_export import export_model
from tdn_export.description import build_metadata

pytestmark = pytest.mark.usefixtures("plain")


def change_products(model: Network, change) -> None:
    """Replace the CP matrices (output, input1, input2) of every product but those with scalars."""
    for module in model.modules():
        if hasattr(module, "input1") and len(module.input1) > 1:
            names = ("output", "input1", "input2")
            for name, value in zip(names, change(*(getattr(module, n) for n in names))):
                setattr(module, name, value)


def perturbed(output, input1, input2):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(input1.shape, generator=generator, dtype=torch.float64)
    return output, input1 * (1 + 1e-3 * noise), input2


def split_column(output, input1, input2):
    """One rank-one term as two halves, and the terms in another order: exact, of rank one more."""
    halves = torch.cat([output[:, :1] / 2, output[:, :1] / 2, output[:, 1:]], dim=1)
    doubled = [torch.cat([x[:, :1], x], dim=1) for x in (input1, input2)]
    return [x.flip(1) for x in (halves, *doubled)]


@pytest.mark.parametrize("name", ["default", "attention"])
def test_approximate_matrices_are_described_and_no_symmetry_is_asked_of_them(tmp_path, name):
    model = random_model(name)
    change_products(model, perturbed)
    save_model(tmp_path / "model.pt", model, {})
    report = export_model(tmp_path / "model.pt")
    for key in ("cp_error", "equivariance_error"):
        assert 1e-5 < report.metadata[key] < 1e-1
    bounds = {d.name: d.bound for d in report.deviations}
    largest = {d.name: d.largest for d in report.deviations}
    for symmetry in ("rotation", "inversion"):
        assert bounds[symmetry] is None
    assert largest["rotation"] > 1e-6
    assert bounds["two copies of a cell"] is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name, rank", [("default", 17), ("l3", 32), ("attention_l2", 17)])
def test_other_exact_matrices_are_described_as_exact(name, rank, dtype):
    model = random_model(name)
    metadata = build_metadata(set_dtype(random_model(name), dtype), dtype, {})
    assert metadata["cp_rank"] == rank
    change_products(model, split_column)
    other = build_metadata(set_dtype(model, dtype), dtype, {})
    assert other["cp_rank"] == rank + 1
    for found in (metadata, other):  # of the matrices before they are rounded to float32
        assert found["cp_error"] < 1e-13 and found["equivariance_error"] < 1e-11


def test_other_path_coefficients_are_a_gauge():
    """What leads to one degree of the output may be larger: still an exact coupling tensor."""

    def scaled(output, input1, input2):
        factor = torch.ones(len(output), 1, dtype=output.dtype)
        factor[1:4] = 1.7
        return factor * output, input1, input2

    model = random_model("default")
    change_products(model, scaled)
    assert build_metadata(model, torch.float64, {})["cp_error"] < 1e-13
