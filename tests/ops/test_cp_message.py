"""The compiled cp_message against its definition, with first and second derivatives."""

import os
import subprocess
import sys

import pytest
import torch
from threads import same_bits_on_threads

from tdn import ops
from tdn.ops import reference

pytestmark = pytest.mark.usefixtures("compiled")

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}

# Ranks and channels that are odd, smaller, equal to and larger than any vector, many degrees.
SHAPES = [
    {},
    {"rank": 1, "channels": 1, "degrees": 1},
    {"rank": 17, "channels": 64, "degrees": 3, "num_edges": 30},
    {"rank": 5, "channels": 31, "degrees": 5},
    {"rank": 4, "channels": 7, "degrees": 6},
    {"rank": 3, "channels": 48, "degrees": 13},
    {"rank": 6, "channels": 16, "degrees": 0},
    {"num_edges": 0},
    {"num_edges": 1},
    {"num_centres": 1, "num_nodes": 1, "num_edges": 3},
    {"num_centres": 30, "num_nodes": 4},
    {"num_centres": 3, "num_nodes": 30},
    {"num_centres": 0, "num_nodes": 5, "num_edges": 0},
    {"num_centres": 0, "num_nodes": 0, "num_edges": 0},
    {"rank": 32, "channels": 16, "num_centres": 200, "num_nodes": 150, "num_edges": 3000},
]


def naive(u, b, w, edges):
    """The definition, one number at a time."""
    num_centres, rank, channels = len(edges.centre_ptr) - 1, u.shape[1], u.shape[2]
    a = [[[0.0] * channels for _ in range(rank)] for _ in range(num_centres)]
    u, b, w = u.tolist(), b.tolist(), w.tolist()
    for e, (i, j) in enumerate(zip(edges.centre.tolist(), edges.neighbour.tolist(), strict=True)):
        for r in range(rank):
            for c in range(channels):
                coupling = sum(b[e][l][r] * w[e][l][c] for l in range(len(b[e])))
                a[i][r][c] += coupling * u[j][r][c]
    return torch.tensor(a, dtype=torch.float64).reshape(num_centres, rank, channels)


def assert_close(found, expected, dtype):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == dtype
    if found.numel():
        scale = expected.abs().max().clamp(min=1e-30)
        assert (found - expected).abs().max() <= TOLERANCE[dtype] * scale


def derivatives(function, problem):
    """The value, its gradients, and gradients of a random function of the gradients."""
    variables = (*problem.inputs, problem.g)
    a = function(*problem.inputs, problem.edges)
    first = torch.autograd.grad(a, problem.inputs, problem.g, create_graph=True)
    generator = torch.Generator().manual_seed(7)
    total = a.new_zeros(())
    for x in first:
        total = total + (torch.randn(x.shape, generator=generator, dtype=x.dtype) * x).sum()
    second = torch.autograd.grad(total, variables, materialize_grads=True)
    return [a, *first, *second]


@pytest.mark.parametrize("shape", SHAPES[:11], ids=str)
def test_agrees_with_loops(make_problem, shape):
    problem = make_problem(**shape)
    with torch.no_grad():
        found = ops.cp_message(*problem.inputs, problem.edges)
        assert_close(found, naive(*problem.inputs, problem.edges), torch.float64)
        also = reference.cp_message(*problem.inputs, problem.edges)
        assert_close(also, naive(*problem.inputs, problem.edges), torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_derivatives_agree_with_reference(make_problem, shape, dtype):
    problem = make_problem(dtype=dtype, **shape)
    found = derivatives(ops.cp_message, problem)
    expected = derivatives(reference.cp_message, problem)
    for x, y in zip(found, expected, strict=True):
        assert_close(x, y, dtype)


def test_isolated_atoms_get_zero(make_problem):
    problem = make_problem(num_centres=30, num_edges=5)
    a = ops.cp_message(*problem.inputs, problem.edges)
    alone = torch.bincount(problem.edges.centre, minlength=30) == 0
    assert alone.sum() >= 25
    assert (a[alone] == 0).all()
    assert (a[~alone] != 0).all()


def test_non_contiguous_inputs(make_problem):
    problem = make_problem()
    strided = [x.detach().transpose(0, 2).contiguous().transpose(0, 2) for x in problem.inputs]
    assert not any(x.is_contiguous() for x in strided)
    strided = [x.requires_grad_() for x in strided]
    g = problem.g.detach().transpose(0, 2).contiguous().transpose(0, 2)
    found = torch.autograd.grad(ops.cp_message(*strided, problem.edges), strided, g)
    expected = torch.autograd.grad(
        ops.cp_message(*problem.inputs, problem.edges), problem.inputs, g
    )
    for x, y in zip(found, expected, strict=True):
        assert torch.equal(x, y)


def test_expanded_cotangent(make_problem):
    problem = make_problem()
    found = torch.autograd.grad(
        ops.cp_message(*problem.inputs, problem.edges).sum(), problem.inputs
    )
    expected = torch.autograd.grad(
        reference.cp_message(*problem.inputs, problem.edges).sum(), problem.inputs
    )
    for x, y in zip(found, expected, strict=True):
        assert_close(x, y, torch.float64)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)], ids=str)
def test_only_some_inputs_need_gradients(make_problem, wanted):
    problem = make_problem()
    inputs = [x.detach().requires_grad_(k in wanted) for k, x in enumerate(problem.inputs)]
    variables = [inputs[k] for k in wanted]

    def run(function):
        first = torch.autograd.grad(
            function(*inputs, problem.edges), variables, problem.g, create_graph=True
        )
        total = sum((x**2).sum() for x in first)
        return [
            *first,
            *torch.autograd.grad(total, [*variables, problem.g], materialize_grads=True),
        ]

    for x, y in zip(run(ops.cp_message), run(reference.cp_message), strict=True):
        assert_close(x, y, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_same_bits_for_any_number_of_threads(make_problem, dtype):
    problem = make_problem(
        num_centres=301, num_nodes=250, num_edges=9000, rank=7, channels=20, dtype=dtype
    )
    same_bits_on_threads(lambda: derivatives(ops.cp_message, problem))


@pytest.mark.parametrize("capability", ["generic", "avx2", "avx512"])
def test_every_instruction_set(make_problem, tmp_path, capability):
    problem = make_problem(rank=9, channels=29, degrees=7)
    inputs = [*problem.inputs, problem.g]
    torch.save([x.detach() for x in inputs] + list(problem.edges), tmp_path / "in.pt")
    script = f"""
import torch
from tdn import ops
u, b, w, g, *edges = torch.load({str(tmp_path / "in.pt")!r}, weights_only=True)
inputs = [x.requires_grad_() for x in (u, b, w)]
a = ops.cp_message(*inputs, ops.Edges(*edges))
torch.save([a.detach(), *torch.autograd.grad(a, inputs, g)], {str(tmp_path / "out.pt")!r})
print(torch.ops.tdn.cpu_capability())
"""
    environment = {**os.environ, "TDN_CPU_CAPABILITY": capability}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    if result.stdout.strip() != capability:
        pytest.skip(f"this processor has no {capability}")
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    a = reference.cp_message(*problem.inputs, problem.edges)
    expected = [a, *torch.autograd.grad(a, problem.inputs, problem.g)]
    for x, y in zip(found, expected, strict=True):
        assert_close(x, y, torch.float64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"u": p.u[:-1]}, "u must be"),
        (lambda p: {"u": p.u[:, :-1]}, "u must be"),
        (lambda p: {"b": p.b[:-1]}, "b must be"),
        (lambda p: {"b": p.b[:, :-1]}, "w must be"),
        (lambda p: {"w": p.w[..., :-1]}, "u must be"),
        (lambda p: {"w": p.w.float()}, "w is Float"),
        (lambda p: {"u": p.u.float(), "b": p.b.float()}, "w is Double"),
        (lambda p: {"u": p.u[0]}, "u must be"),
        (lambda p: {"edges": p.edges._replace(neighbour=p.edges.neighbour + 5)}, "out of range"),
        (lambda p: {"edges": p.edges._replace(centre=p.edges.centre - 9)}, "out of range"),
        (lambda p: {"edges": p.edges._replace(transpose=p.edges.transpose + 1)}, "out of range"),
        (lambda p: {"edges": p.edges._replace(centre_ptr=p.edges.centre_ptr + 1)}, "out of range"),
        (lambda p: {"edges": p.edges._replace(neighbour=p.edges.neighbour.int())}, "int64"),
    ],
)
def test_wrong_inputs_are_named(make_problem, change, message):
    problem = make_problem()
    arguments = {"u": problem.u, "b": problem.b, "w": problem.w, "edges": problem.edges}
    with pytest.raises(ValueError, match=message):
        ops.cp_message(**{**arguments, **change(problem)})


def test_half_precision_is_refused(make_problem):
    problem = make_problem()
    with pytest.raises(RuntimeError, match="not implemented for 'Half'"):
        ops.cp_message(*(x.half() for x in problem.inputs), problem.edges)
