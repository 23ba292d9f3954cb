"""Products with one matrix per edge: against their definition, derivatives, what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch.library import opcheck

from tdn.ops import edge_message, edge_product, sort_edges, use_reference

tdn = torch.ops.tdn
# relative to sums of some D numbers of order one
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}


def problem(components, channels, dtype=torch.float64, num_edges=13, centers=5, nodes=7):
    """Edges with a center without any, and random tensors."""
    generator = torch.Generator().manual_seed(components + channels)
    index = torch.stack(
        [
            torch.randint(centers - 1, (num_edges,), generator=generator).sort().values,
            torch.randint(nodes, (num_edges,), generator=generator),
        ]
    )
    edges = sort_edges(index, centers, nodes)

    def normal(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    product = (
        normal(nodes, components, channels),
        normal(centers, components, channels),
        normal(num_edges, components, components),
        normal(num_edges, channels),
    )
    message = [
        (
            normal(num_edges, channels),
            normal(num_edges, components - 1, channels),
            normal(num_edges, components, components),
            normal(num_edges, groups, channels),
        )
        for groups in (1, 2)
    ]
    return edges, product, message


def outputs_and_gradients(function, variables):
    """Values, and gradients of a sum of cubes, which depend on the values."""
    out = function(*variables)
    out = out if isinstance(out, tuple) else (out,)
    total = sum((x**3).sum() for x in out)
    return [x.detach() for x in (*out, *torch.autograd.grad(total, variables))]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("channels", [1, 3, 20, 64, 100])
@pytest.mark.parametrize("components", [1, 4, 9, 16, 25, 81])
def test_kernels_against_the_definition(components, channels, dtype):
    edges, product, message = problem(components, channels, dtype)
    calls = [(lambda *v: edge_product(*v, edges), product)]
    calls += [(lambda *v: edge_message(*v, edges), variables) for variables in message]
    for function, variables in calls:
        found = outputs_and_gradients(function, variables)
        with use_reference():
            expected = outputs_and_gradients(function, variables)
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape
            if b.numel():
                worst, scale = (x.detach().abs().max().item() for x in (a - b, b))
                assert worst <= TOLERANCE[dtype] * scale


def test_definition_in_loops():
    edges, (source, target, matrix, w), message = problem(4, 3)
    with use_reference():
        scalars, rest = edge_product(source, target, matrix, w, edges)
        sums = [edge_message(*variables, edges) for variables in message]
    for e, (i, j) in enumerate(zip(edges.center.tolist(), edges.neighbor.tolist(), strict=True)):
        z = matrix[e] @ (source[j] + target[i]) * w[e]
        assert torch.allclose(z[0], scalars[e], rtol=1e-13)
        assert torch.allclose(z[1:], rest[e], rtol=1e-12, atol=1e-13)
    for (scalars, rest, matrix, w), found in zip(message, sums, strict=True):
        expected = torch.zeros_like(found)
        for e, i in enumerate(edges.center.tolist()):
            x = torch.cat([scalars[e, None] * w[e, :1], rest[e] * w[e, -1:]])
            expected[i] += matrix[e] @ x
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("components", [1, 4])
def test_derivatives(components, reference):
    """First and second ones; the operators are linear in each argument, so third ones follow."""
    edges, product, message = problem(components, 2, num_edges=5, centers=3, nodes=3)

    def check(function, variables):
        assert torch.autograd.gradcheck(function, variables)
        assert torch.autograd.gradgradcheck(function, variables)

    if reference:
        with use_reference():
            check(lambda *v: edge_product(*v, edges), product)
        return
    check(lambda *v: edge_product(*v, edges), product)
    for variables in message:
        check(lambda *v: edge_message(*v, edges), variables)


@pytest.mark.usefixtures("compiled")
def test_third_derivative():
    edges, product, message = problem(4, 2, num_edges=4, centers=3, nodes=3)
    calls = [(lambda *v: edge_product(*v, edges)[1], product)]
    calls += [(lambda *v: edge_message(*v, edges), message[1])]

    def third(function, variables):
        value = (function(*variables) ** 3).sum()
        for _ in range(2):
            gradients = torch.autograd.grad(value, variables, create_graph=True)
            value = sum((g * (0.1 + k)).sum() for k, g in enumerate(gradients))
        return torch.autograd.grad(value, variables)

    for function, variables in calls:
        found = third(function, variables)
        with use_reference():
            expected = third(function, variables)
        for a, b in zip(found, expected, strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
def test_opcheck():
    edges, product, message = problem(4, 3)
    opcheck(tdn.edge_product, (*product, *edges))
    g_scalars, g_rest = (g.detach().requires_grad_() for g in edge_product(*product, edges))
    for needed in ((True, True, True), (True, False, True), (False, True, False)):
        opcheck(tdn.edge_product_adjoint, (g_scalars, g_rest, *product, *edges, *needed))
    for variables in message:
        arguments = (*variables, edges.center, edges.center_ptr)
        opcheck(tdn.edge_message, arguments)
        g = edge_message(*variables, edges).detach().requires_grad_()
        for needed in ((True, True, True), (True, False, True), (False, True, False)):
            opcheck(tdn.edge_message_adjoint, (g, *arguments, *needed))


@pytest.mark.usefixtures("compiled")
def test_same_bits_for_any_number_of_threads():
    edges, product, message = problem(9, 64, torch.float32, num_edges=4000, centers=300, nodes=300)
    found = []
    threads = torch.get_num_threads()
    for count in (1, 4):
        torch.set_num_threads(count)
        try:
            results = outputs_and_gradients(lambda *v: edge_product(*v, edges), product)
            results += outputs_and_gradients(lambda *v: edge_message(*v, edges), message[1])
        finally:
            torch.set_num_threads(threads)
        found.append(results)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_no_edges():
    edges = sort_edges(torch.zeros(2, 0, dtype=torch.int64), 2, 3)
    normal = torch.randn
    scalars, rest = edge_product(
        normal(3, 4, 5), normal(2, 4, 5), normal(0, 4, 4), normal(0, 5), edges
    )
    assert scalars.shape == (0, 5) and rest.shape == (0, 3, 5)
    y = edge_message(scalars, rest, normal(0, 4, 4), normal(0, 2, 5), edges)
    assert torch.equal(y, torch.zeros(2, 4, 5))


@pytest.mark.parametrize("reference", [False, True])
def test_what_does_not_fit_is_refused(reference):
    edges, (source, target, matrix, w), message = problem(4, 3)
    scalars, rest, k, weights = message[0]

    def refused(function, *arguments):
        with pytest.raises((ValueError, RuntimeError), match=r"expected|must"):
            function(*arguments, edges)

    def all_of_them():
        refused(edge_product, source[:-1], target, matrix, w)
        refused(edge_product, source, target[:, :3], matrix, w)
        refused(edge_product, source, target, matrix[:, :3], w)
        refused(edge_product, source, target, matrix, w[:, :2])
        refused(edge_message, scalars, rest[:, :2], k, weights)
        refused(edge_message, scalars[:-1], rest, k, weights)
        refused(edge_message, scalars, rest, k, weights.expand(-1, 3, -1))
        refused(edge_message, scalars, rest, k[:-1], weights)

    if reference:
        with use_reference():
            all_of_them()
    else:
        all_of_them()
