"""The compiled convolution and density: definition, edges of all kinds, constants, mistakes."""

import math
import re

import numpy as np
import pytest
import torch
from e3nn.o3 import spherical_harmonics

from tdn import ops
from tdn.inference.radial_table import TABLE_BLOCK
from tdn.ops.build import SOURCE_DIR

from .cases import CONVOLUTION_SHAPES as SHAPES
from .cases import make
from .closeness import DTYPES, TOLERANCE, assert_all_close, assert_close
from .problems import AXES, R_MAX, STRETCH, convolution, derivatives, pattern
from .test_messages import edges_with

pytestmark = pytest.mark.usefixtures("compiled")

OPERATORS = ["convolution", "density"]


def naive(problem):
    """The definition, edge by edge in NumPy."""
    numbers = {
        name: x.detach().numpy() for name, x in problem.arguments.items() if torch.is_tensor(x)
    }
    table, species, edges = numbers["table"], numbers["species"], problem.edges
    is_density = problem.operator == "density"
    channels = problem["num_channels"] if is_density else numbers["x"].shape[2]
    intervals, degrees = table.shape[2], table.shape[4]
    components = degrees**2 if is_density else len(numbers["input2"])
    degree = [math.isqrt(k) for k in range(components)]
    rows = components if is_density else len(numbers["output"])
    result = np.zeros((len(edges.center_ptr) - 1, rows, channels))
    vectors = problem["edge_vec"].detach()
    for i, j, vector in zip(edges.center.tolist(), edges.neighbor.tolist(), vectors, strict=True):
        r = float(vector.norm())
        if r >= R_MAX:
            continue
        sh = spherical_harmonics(range(degree[-1] + 1), vector, True, "component").numpy()
        position = intervals * (1 + STRETCH) * (r / R_MAX) / (r / R_MAX + STRETCH)
        k = int(position)
        coefficients = table[species[i], species[j], k]  # [blocks, L, order + 1, 16]
        s = 2 * (position - k) - 1
        w = sum(coefficients[:, :, n] * s**n for n in range(coefficients.shape[2]))
        w = w.transpose(1, 0, 2).reshape(degrees, -1)[:, :channels]
        w = w[degree] if degrees > 1 else w[[0] * components]  # [D, C]
        if is_density:
            result[i] += sh[:, None] * w
        else:
            coupling = np.einsum("dr,d,dc->rc", numbers["input2"], sh, w)
            result[i] += numbers["output"] @ (coupling * (numbers["input1"].T @ numbers["x"][j]))
    return torch.from_numpy(result)


@pytest.mark.parametrize("kind", ["compiled", "reference", "tensor"])
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shape", [*SHAPES[:5], SHAPES[9], SHAPES[12]], ids=str)
def test_agrees_with_loops(name, shape, kind):
    problem = make(name, **shape)
    with torch.no_grad():
        assert_close(problem.call(kind), naive(problem))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_edges_along_axes(name, dtype):
    """Tangents are built differently on both sides of the z axis, and harmonics have poles on y."""
    tilts = torch.tensor([[0.0, 0, 0], [1e-9, -1e-9, 2e-9], [-1e-4, 2e-4, 1e-4]])
    directions = (AXES[:, None] + tilts.double()).reshape(-1, 3)
    lengths = torch.linspace(0.5, 3.9, len(directions), dtype=torch.float64)
    vectors = (lengths[:, None] * directions).requires_grad_()
    for l_max, shared in [(1, False), (3, False), (3, True), (6, False)]:
        problem = make(name, l_max=l_max, shared=shared, num_edges=len(directions), dtype=dtype)
        problem = problem.but(edge_vec=vectors)
        found = derivatives(problem)
        expected = derivatives(problem.of_type(torch.float64), "reference")
        assert_all_close(found, expected, dtype)
        # no edge may hide behind a larger one
        difference = (found[-1] - expected[-1]).norm(dim=1)
        assert (difference <= 30 * TOLERANCE[dtype] * expected[-1].norm(dim=1)).all()


@pytest.mark.parametrize("kind", ["compiled", "reference"])
@pytest.mark.parametrize("name", OPERATORS)
def test_atoms_at_the_same_place_give_no_number(name, kind):
    """There is no direction between them; a finite result would go on unnoticed."""
    problem = make(name, num_edges=12, num_centers=3)
    vectors = problem["edge_vec"].detach().clone()
    vectors[0] = 0
    with torch.no_grad():
        rows = problem.but(edge_vec=vectors).call(kind).flatten(1).isfinite().all(dim=1)
    center = problem.edges.center[0]
    assert not rows[center] and rows[torch.arange(3) != center].all()


@pytest.mark.parametrize("name", OPERATORS)
def test_edges_beyond_the_cutoff_count_for_nothing(name):
    """Exactly: as if they were not in the list, wherever in a batch they stand."""
    problem = make(name, num_edges=200, num_centers=2)
    vectors = problem["edge_vec"].detach()
    lengths = vectors.norm(dim=1, keepdim=True)
    far = torch.arange(200) % 3 == 0
    far[30:70] = True  # whole batches
    # at r_max exactly, one rounding beyond, and far away
    beyond = torch.tensor([R_MAX, np.nextafter(R_MAX, 9), 7.0, 1e6]).repeat(50)
    axes = AXES[torch.arange(200) % 6]
    vectors = (vectors / lengths) * lengths.clamp(max=3.99)
    vectors = torch.where(far[:, None], axes * beyond[:, None], vectors)
    problem = problem.but(edge_vec=vectors.requires_grad_())
    found = derivatives(problem)
    assert (found[-1][far] == 0).all()
    assert (found[-1][~far] != 0).any(dim=1).all()
    kept = torch.stack([problem.edges.center, problem.edges.neighbor])[:, ~far]
    without = derivatives(
        problem.but(
            edges=ops.sort_edges(kept, 2, 9), edge_vec=vectors.detach()[~far].requires_grad_()
        )
    )
    assert_all_close([*found[:-1], found[-1][~far]], without)


def test_gradients_are_the_same_one_by_one():
    problem = convolution()
    both = torch.autograd.grad(problem.call(), problem.variables, pattern(problem.call()))
    for name, expected in zip(("x", "edge_vec"), both, strict=True):
        alone = problem.vary(name)
        value = alone.call()
        (gradient,) = torch.autograd.grad(value, alone.variables, pattern(value))
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize(
    ("name", "key"),
    [("density", "table")] + [("convolution", k) for k in ("table", "input1", "input2", "output")],
)
def test_gradients_of_constants_are_refused(name, key):
    problem = make(name).vary(key)
    with pytest.raises(RuntimeError, match=f"{name} has derivatives for .*edge_vec only"):
        problem.call()


COMMON_MISTAKES = [
    (lambda p: {"edge_vec": p["edge_vec"][:-1]}, "edge_vec must be float64"),
    (lambda p: {"edge_vec": p["edge_vec"][:, :2]}, "edge_vec must be float64"),
    (lambda p: {"edge_vec": p["edge_vec"].float()}, "edge_vec must be float64"),
    (lambda p: {"species": p["species"][:-1]}, "species must be int64"),
    (lambda p: {"species": p["species"].int()}, "species must be int64"),
    (lambda p: {"species": p["species"] + 1}, "species must lie in 0..1, found 2"),
    (lambda p: {"species": p["species"] - 1}, "species must lie in 0..1, found -1"),
    (lambda p: {"table": p["table"][:1]}, "the table must be"),
    (lambda p: {"table": p["table"][0]}, "the table must be"),
    (lambda p: {"table": p["table"][..., :8]}, "the table must be"),
    (lambda p: {"table": p["table"][:, :, :0]}, "the table must be"),
    (lambda p: {"table": p["table"].repeat(1, 1, 1, 2, 1, 1, 1)}, "the table must be"),
    (edges_with(neighbor=lambda x: x + 5), "out of range"),
    (edges_with(neighbor=lambda x: x - 9), "out of range"),
    (edges_with(center=lambda x: x + 5), "out of range"),
    (edges_with(by_neighbor=lambda x: x + 1), "out of range"),
    (edges_with(center_ptr=lambda x: x + 1), "out of range"),
    (edges_with(center_ptr=lambda x: x.flip(0)), "out of range"),
    (edges_with(neighbor_ptr=lambda x: x * 2), "out of range"),
]
MISTAKES = [
    *[(name, *mistake) for name in OPERATORS for mistake in COMMON_MISTAKES],
    ("convolution", lambda p: {"x": p["x"][:-1]}, "expected x"),
    ("convolution", lambda p: {"x": p["x"][:, :-1]}, "expected x"),
    ("convolution", lambda p: {"x": p["x"][0]}, "expected x"),
    ("convolution", lambda p: {"x": p["x"].float()}, "must agree, found Float"),
    ("convolution", lambda p: {"output": p["output"].float()}, "must agree, found Float"),
    ("convolution", lambda p: {"input1": p["input1"][:, :-1]}, "expected x"),
    ("convolution", lambda p: {"output": p["output"][:, :-1]}, "expected x"),
    ("convolution", lambda p: {"input2": p["input2"][:-1]}, "do not fit together"),
    ("convolution", lambda p: {"input2": p["input2"][:4]}, "do not fit together"),
    ("convolution", lambda p: {"table": p["table"][:, :, :, :, :2]}, "do not fit together"),
    ("density", lambda p: {"table": p["table"].repeat(1, 1, 1, 1, 5, 1, 1)}, "at most 12 degrees"),
]


@pytest.mark.parametrize(("name", "change", "message"), MISTAKES)
def test_wrong_inputs_are_named(name, change, message):
    problem = make(name)
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        problem.but(**change(problem)).call()


@pytest.mark.parametrize("name", OPERATORS)
def test_more_centers_than_nodes_are_refused(name):
    """Species of the centers stand among those of the nodes."""
    edges = ops.sort_edges(torch.tensor([[20], [0]]), 21, 9)
    vectors = torch.ones(1, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"{name}: .*21 centers"):
        make(name).but(edges=edges, edge_vec=vectors).call()


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_broken_coordinates_do_no_harm(name, value):
    """Not a number gives not a number, on this atom alone; infinitely far is beyond the cutoff."""
    problem = make(name)
    expected = problem.call().detach()
    with torch.no_grad():
        problem["edge_vec"][3] = value
    found = derivatives(problem)
    broken = int(problem.edges.center[3])
    others = torch.arange(7) != broken
    assert torch.equal(found[0][others], expected[others])
    assert torch.isfinite(found[0][broken]).all() == (value == np.inf)
    assert torch.isfinite(found[-1][3]).all() == (value == np.inf)


def test_channels_of_a_table_stand_together_as_the_kernels_read_them():
    """The number is written in Python and in C++."""
    text = (SOURCE_DIR / "convolution" / "convolution_kernels.h").read_text()
    assert re.search(r"table_block = (\d+);", text)[1] == str(TABLE_BLOCK)
