"""The error of radial tables in energies and forces, apart from rounding."""

from __future__ import annotations

import pytest
import torch
from structures import CONVOLUTION, TRAINED_MODEL, random_model

from tdn.inference import radial_table as tabulation
from tdn.inference.network import inference_network
from tdn.network.checkpoint import load_model, save_model
from tdn.system.errors import TDNError
from tdn_export import export_model, inspect, table_error
from tdn_export.table_error import TablesTooCoarse


def table_errors(model, dtype: torch.dtype) -> dict[str, float]:
    """What the tables of a precision change."""
    return table_error.table_errors(model, inference_network(model, torch.float64, dtype), dtype)


@pytest.mark.parametrize("name", [*CONVOLUTION, "trained"])
def test_a_tenth_of_what_a_file_may_deviate(name):
    model = load_model(TRAINED_MODEL)[0] if name == "trained" else random_model(name)
    single, double = (table_errors(model, dtype) for dtype in (torch.float32, torch.float64))
    for error in ("table_energy_error", "table_forces_error"):
        # rounding of float64 is 1e-16 to 1e-14: both are seen, and one is finer than the other
        assert 1e-14 < single[error] <= 1e-6
        assert double[error] <= min(1e-11, 1e-2 * single[error])


@pytest.mark.slow
def test_errors_follow_the_tables(monkeypatch, tmp_path):
    model = random_model("default")
    fine = table_errors(model, torch.float32)
    monkeypatch.setitem(tabulation.TOLERANCE, torch.float32, 1e-4)
    monkeypatch.setitem(tabulation.ACCEPTED, torch.float32, 1e-4)
    with pytest.raises(TDNError, match=r"change (energy|forces) by .* allowed 1e-06; no file"):
        table_errors(model, torch.float32)
    save_model(tmp_path / "model.pt", model, {})
    with pytest.raises(TDNError, match="--no-fused"):
        export_model(tmp_path / "model.pt", dtype="float32")
    assert not list(tmp_path.glob("*.tdn.pth*"))
    monkeypatch.undo()
    report = export_model(tmp_path / "model.pt", dtype="float32")
    metadata = inspect(report.path)
    assert {name: metadata[name] for name in fine} == pytest.approx(fine, rel=1e-3)


def test_what_cannot_be_tabulated():
    """Activations with steep steps where atoms are: no polynomials follow them."""
    model = random_model("l3")
    model.layers[0].radial.pair_scale *= 1e3
    for weight in model.layers[0].radial.weights:
        weight *= 1e3
    with pytest.raises(TablesTooCoarse, match="--no-fused"):
        table_errors(model, torch.float32)


@pytest.mark.slow
def test_finer_tables_where_they_matter_more(monkeypatch, tmp_path):
    """Where the effect in forces is too large, export takes finer tables instead of giving up."""
    monkeypatch.setitem(tabulation.TOLERANCE, torch.float32, 2e-6)
    monkeypatch.setitem(tabulation.ACCEPTED, torch.float32, 2e-6)
    model = random_model("default")
    with pytest.raises(TablesTooCoarse):
        table_errors(model, torch.float32)
    save_model(tmp_path / "model.pt", model, {})
    lines = []
    metadata = export_model(tmp_path / "model.pt", dtype="float32", progress=lines.append).metadata
    assert metadata["radial_table_error"] < 2e-6 / 10
    assert metadata["table_energy_error"] <= 1e-6 and metadata["table_forces_error"] <= 1e-6
    assert any("finer" in line for line in lines)


def test_nothing_to_say_without_tables(tmp_path):
    save_model(tmp_path / "model.pt", random_model("scalars"), {})
    metadata = export_model(tmp_path / "model.pt", fused=False).metadata
    assert metadata["table_energy_error"] is None and metadata["table_forces_error"] is None
