"""The compiled convolution and density against their definition, with first derivatives."""

import numpy as np
import pytest
import torch
from convolution_problems import (
    AXES,
    R_MAX,
    SHAPES,
    STRETCH,
    TOLERANCE,
    assert_all_close,
    assert_close,
    call,
    derivatives,
    make_problem,
)
from e3nn.o3 import spherical_harmonics
from threads import same_bits_on_threads

from tdn import ops

pytestmark = pytest.mark.usefixtures("compiled")

OPERATORS = ["convolution", "density"]


def naive(name, problem):
    """The definition, edge by edge in NumPy."""
    x, table = problem.x.detach().numpy(), problem.table.numpy()
    input1, input2, output = (
        getattr(problem, key).numpy() for key in ("input1", "input2", "output")
    )
    intervals, degrees, channels = table.shape[2], table.shape[4], x.shape[2]
    components = degrees**2 if name == "density" else len(input2)
    degree = np.sqrt(np.arange(components)).astype(int)
    species, edges = problem.species.tolist(), problem.edges
    rows = components if name == "density" else len(output)
    result = np.zeros((len(edges.centre_ptr) - 1, rows, channels))
    for i, j, vector in zip(
        edges.centre.tolist(), edges.neighbour.tolist(), problem.edge_vec.detach(), strict=True
    ):
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
        if name == "density":
            result[i] += sh[:, None] * w
        else:
            coupling = np.einsum("dr,d,dc->rc", input2, sh, w)
            result[i] += output @ (coupling * (input1.T @ x[j]))
    return torch.from_numpy(result)


@pytest.mark.parametrize("kind", ["compiled", "reference", "tensor"])
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shape", [*SHAPES[:5], SHAPES[9], SHAPES[12]], ids=str)
def test_agrees_with_loops(name, shape, kind):
    problem = make_problem(**shape)
    with torch.no_grad():
        assert_close(call(name, problem, kind), naive(name, problem))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_derivatives_agree_with_reference(shape, name, dtype):
    problem = make_problem(dtype=dtype, **shape)
    found = derivatives(name, problem)
    assert found[0].dtype == dtype and found[-1].dtype == torch.float64
    expected = derivatives(name, problem.to(torch.float64), "reference")
    assert_all_close(found, expected, dtype)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shape", [SHAPES[k] for k in (0, 4, 9, 12, 14, 19, 22)], ids=str)
def test_tensor_operations_of_other_devices(shape, name):
    problem = make_problem(**shape)
    expected = derivatives(name, problem, "reference")
    assert_all_close(derivatives(name, problem, "tensor"), expected)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_edges_along_axes(name, dtype):
    """Tangents are built differently on both sides of the z axis, and harmonics have poles on y."""
    tilts = torch.tensor([[0.0, 0, 0], [1e-9, -1e-9, 2e-9], [-1e-4, 2e-4, 1e-4]])
    directions = (AXES[:, None] + tilts.double()).reshape(-1, 3)
    for l_max, shared in [(1, False), (3, False), (3, True), (6, False)]:
        problem = make_problem(l_max, shared=shared, num_edges=len(directions), dtype=dtype)
        lengths = torch.linspace(0.5, 3.9, len(directions), dtype=torch.float64)
        problem.edge_vec = (lengths[:, None] * directions).requires_grad_()
        found = derivatives(name, problem)
        expected = derivatives(name, problem.to(torch.float64), "reference")
        assert_all_close(found, expected, dtype)
        # no edge may hide behind a larger one
        difference = (found[-1] - expected[-1]).norm(dim=1)
        assert (difference <= 30 * TOLERANCE[dtype] * expected[-1].norm(dim=1)).all()


@pytest.mark.parametrize("name", OPERATORS)
def test_edges_beyond_the_cutoff_count_for_nothing(name):
    """Exactly: as if they were not in the list, wherever in a batch they stand."""
    problem = make_problem(num_edges=200, num_centres=2)
    lengths = problem.edge_vec.detach().norm(dim=1, keepdim=True)
    far = torch.arange(200) % 3 == 0
    far[30:70] = True  # whole batches
    # at r_max exactly, one rounding beyond, and far away
    beyond = torch.tensor([R_MAX, np.nextafter(R_MAX, 9), 7.0, 1e6]).repeat(50)
    axes = AXES[torch.arange(200) % 6]
    vectors = (problem.edge_vec.detach() / lengths) * lengths.clamp(max=3.99)
    vectors = torch.where(far[:, None], axes * beyond[:, None], vectors)
    problem.edge_vec = vectors.requires_grad_()
    found = derivatives(name, problem)
    assert (found[-1][far] == 0).all()
    assert (found[-1][~far] != 0).any(dim=1).all()
    edges = problem.edges
    kept = torch.stack([edges.centre, edges.neighbour])[:, ~far]
    problem.edges = ops.sort_edges(kept, 2, 9)
    problem.edge_vec = vectors.detach()[~far].requires_grad_()
    without = derivatives(name, problem)
    assert_all_close([*found[:-1], found[-1][~far]], without)


@pytest.mark.parametrize("name", OPERATORS)
def test_isolated_atoms_get_zero(name):
    problem = make_problem(num_centres=30, num_nodes=30, num_edges=8)
    found = derivatives(name, problem)
    alone = torch.bincount(problem.edges.centre, minlength=30) == 0
    assert alone.sum() >= 22 and (found[0][alone] == 0).all()
    if name == "convolution":
        unseen = torch.bincount(problem.edges.neighbour, minlength=30) == 0
        assert unseen.sum() >= 22 and (found[1][unseen] == 0).all()
        assert (found[1][~unseen] != 0).any()


def test_only_some_inputs_need_gradients():
    problem = make_problem()
    both = derivatives("convolution", problem)
    for k in range(2):
        alone = make_problem()
        (alone.edge_vec, alone.x)[k].requires_grad_(False)
        value = call("convolution", alone)
        (gradient,) = torch.autograd.grad(value, (alone.x, alone.edge_vec)[k], alone.g)
        assert torch.equal(gradient, both[1 + k])


@pytest.mark.parametrize("name", OPERATORS)
def test_strided_inputs_and_expanded_cotangents(name):
    problem = make_problem(channels=17)
    expected = derivatives(name, problem)
    expanded = torch.autograd.grad(call(name, problem).sum(), problem.variables(name))
    for key in ("x", "edge_vec", "table", "input1", "input2", "output", "g", "g_density"):
        value = getattr(problem, key).detach()
        strided = value.transpose(0, -1).contiguous().transpose(0, -1)
        assert not strided.is_contiguous()
        setattr(problem, key, strided)
    problem.x.requires_grad_()
    problem.edge_vec.requires_grad_()
    assert all(torch.equal(x, y) for x, y in zip(derivatives(name, problem), expected, strict=True))
    ones = torch.ones_like(problem.cotangent(name))
    wanted = torch.autograd.grad(call(name, problem, "reference"), problem.variables(name), ones)
    assert_all_close(expanded, wanted)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_same_bits_for_any_number_of_threads(name, dtype):
    problem = make_problem(
        rank=7, channels=20, num_centres=301, num_nodes=350, num_edges=9000, dtype=dtype
    )
    same_bits_on_threads(lambda: derivatives(name, problem))


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shared", [False, True])
def test_gradcheck(name, shared):
    shape = {"l_max": 2, "rank": 3, "channels": 3, "num_centres": 3, "num_nodes": 4}
    problem = make_problem(shared=shared, num_edges=10, **shape)

    def function(*variables):
        problem.edge_vec = variables[-1]
        if name == "convolution":
            problem.x = variables[0]
        return call(name, problem)

    # steps of 1e-6 angstrom stay within an interval of this table and on one side of the cutoff
    assert torch.autograd.gradcheck(function, problem.variables(name))


@pytest.mark.parametrize("name", OPERATORS)
def test_second_derivatives_are_refused(name):
    problem = make_problem()
    value = call(name, problem)
    with pytest.raises(RuntimeError, match=f"{name} has first derivatives only"):
        torch.autograd.grad(value.sum(), problem.variables(name), create_graph=True)


@pytest.mark.parametrize(
    ("name", "key"),
    [("density", "table")] + [("convolution", k) for k in ("table", "input1", "input2", "output")],
)
def test_gradients_of_constants_are_refused(name, key):
    problem = make_problem()
    getattr(problem, key).requires_grad_()
    with pytest.raises(RuntimeError, match=f"{name} has derivatives for .*edge_vec only"):
        call(name, problem)


def _edges(problem, **changes):
    return {"edges": problem.edges._replace(**changes)}


COMMON_MISTAKES = [
    (lambda p: {"edge_vec": p.edge_vec[:-1]}, "edge_vec must be float64"),
    (lambda p: {"edge_vec": p.edge_vec[:, :2]}, "edge_vec must be float64"),
    (lambda p: {"edge_vec": p.edge_vec.float()}, "edge_vec must be float64"),
    (lambda p: {"species": p.species[:-1]}, "species must be int64"),
    (lambda p: {"species": p.species.int()}, "species must be int64"),
    (lambda p: {"species": p.species + 1}, "species must lie in 0..1, found 2"),
    (lambda p: {"species": p.species - 1}, "species must lie in 0..1, found -1"),
    (lambda p: {"table": p.table[:1]}, "the table must be"),
    (lambda p: {"table": p.table[0]}, "the table must be"),
    (lambda p: {"table": p.table[..., :8]}, "the table must be"),
    (lambda p: {"table": p.table[:, :, :0]}, "the table must be"),
    (lambda p: {"table": p.table.repeat(1, 1, 1, 2, 1, 1, 1)}, "the table must be"),
    (lambda p: _edges(p, neighbour=p.edges.neighbour + 5), "out of range"),
    (lambda p: _edges(p, neighbour=p.edges.neighbour - 9), "out of range"),
    (lambda p: _edges(p, centre=p.edges.centre + 5), "out of range"),
    (lambda p: _edges(p, transpose=p.edges.transpose + 1), "out of range"),
    (lambda p: _edges(p, centre_ptr=p.edges.centre_ptr + 1), "out of range"),
    (lambda p: _edges(p, centre_ptr=p.edges.centre_ptr.flip(0)), "out of range"),
    (lambda p: _edges(p, neighbour_ptr=p.edges.neighbour_ptr * 2), "out of range"),
]
MISTAKES = [
    *[(name, *mistake) for name in OPERATORS for mistake in COMMON_MISTAKES],
    ("convolution", lambda p: {"x": p.x[:-1]}, "expected x"),
    ("convolution", lambda p: {"x": p.x[:, :-1]}, "expected x"),
    ("convolution", lambda p: {"x": p.x[0]}, "expected x"),
    ("convolution", lambda p: {"x": p.x.float()}, "must agree, found Float"),
    ("convolution", lambda p: {"output": p.output.float()}, "must agree, found Float"),
    ("convolution", lambda p: {"input1": p.input1[:, :-1]}, "expected x"),
    ("convolution", lambda p: {"output": p.output[:, :-1]}, "expected x"),
    ("convolution", lambda p: {"input2": p.input2[:-1]}, "do not fit together"),
    ("convolution", lambda p: {"input2": p.input2[:4]}, "do not fit together"),
    ("convolution", lambda p: {"table": p.table[:, :, :, :, :2]}, "do not fit together"),
    ("density", lambda p: {"table": p.table.repeat(1, 1, 1, 1, 5, 1, 1)}, "at most 12 degrees"),
]


@pytest.mark.parametrize(("name", "change", "message"), MISTAKES)
def test_wrong_inputs_are_named(name, change, message):
    problem = make_problem()
    for key, value in change(problem).items():
        setattr(problem, key, value)
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        call(name, problem)


@pytest.mark.parametrize("name", OPERATORS)
def test_more_centres_than_nodes_are_refused(name):
    """Species of the centres stand among those of the nodes."""
    problem = make_problem()
    edge_index = torch.stack([torch.tensor([20]), torch.tensor([0])])
    problem.edges = ops.sort_edges(edge_index, 21, 9)
    problem.edge_vec = torch.ones(1, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"{name}: .*21 centres"):
        call(name, problem)


@pytest.mark.parametrize("name", OPERATORS)
def test_half_precision_is_refused(name):
    problem = make_problem().to(torch.float16)
    with pytest.raises(RuntimeError, match="not implemented for 'Half'"):
        call(name, problem)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_broken_coordinates_do_no_harm(name, value):
    """Not a number gives not a number, on this atom alone; infinitely far is beyond the cutoff."""
    problem = make_problem()
    expected = call(name, problem).detach()
    with torch.no_grad():
        problem.edge_vec[3] = value
    found = derivatives(name, problem)
    broken = int(problem.edges.centre[3])
    others = torch.arange(7) != broken
    assert torch.equal(found[0][others], expected[others])
    assert torch.isfinite(found[0][broken]).all() == (value == np.inf)
    assert torch.isfinite(found[-1][3]).all() == (value == np.inf)
