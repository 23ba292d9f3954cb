"""Machine code in LAMMPS: a file *.tdn.pt2 gives what the TorchScript file *.tdn.pth gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from structures import random_model

from tdn import TDNError, aotinductor, ops
from tdn.checkpoint import save_model
from tdn_export import export_model

from .conftest import Structure
from .test_closed_form import TILTED, random_structure
from .test_parallel import assert_same, slab

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ops.is_compiled(), reason="needs the compiled operators"),
]


@pytest.fixture(scope="module", params=["l1", "attention"])
def name(request: pytest.FixtureRequest, models: Path) -> str:
    """A network of several layers in float64, in both kinds of files."""
    try:
        aotinductor.check_tools()
    except TDNError as error:
        pytest.skip(str(error))
    path = models / f"{request.param}.pt"
    save_model(path, random_model(request.param), {})
    for backend in ("torchscript", "aotinductor"):
        export_model(path, backend=backend)
    return request.param


def structures() -> list[Structure]:
    """Many atoms, few, one, none on some ranks; a single edge of an atom to its own image."""
    return [
        random_structure(3, 60, np.diag([12.0, 9.5, 10.0])),
        random_structure(6, 25, TILTED),
        random_structure(4, 3, np.diag([2.6, 3.1, 3.9])),
        random_structure(1, 9, None),
        random_structure(1, 1, None),
        random_structure(2, 2, np.diag([30.0, 30.0, 30.0])),
        slab(),
    ]


@pytest.mark.parametrize(
    ("ranks", "style"), [(1, "tdn"), (1, "tdn comm exchange"), (2, "tdn"), (3, "tdn"), (4, "tdn")]
)
def test_same_as_torchscript(measure: Callable, name: str, ranks: int, style: str) -> None:
    want = measure(structures(), f"{name}.tdn.pth")
    found = measure(structures(), f"{name}.tdn.pt2", ranks=ranks, style=style)
    for a, b in zip(want, found, strict=True):
        assert_same(b, a)
