"""The operators inside autograd checks, TorchScript, torch.compile and torch.export."""

import io

import pytest
import torch
from torch import Tensor

from tdn import ops

pytestmark = pytest.mark.usefixtures("compiled")

SMALL = {"num_centres": 3, "num_nodes": 4, "num_edges": 6, "rank": 2, "channels": 3, "degrees": 2}


class Layer(torch.nn.Module):
    """A scripted user of all three operators."""

    def forward(self, edge_index: Tensor, u: Tensor, b: Tensor, w: Tensor, num_local: int):
        edges = ops.sort_edges(edge_index, num_local, u.size(0))
        a = ops.cp_message(ops.exchange(u, u.size(0)), b, w, edges)
        return a.sin()


def test_gradcheck(make_problem):
    problem = make_problem(**SMALL)

    def function(u, b, w):
        return ops.cp_message(u, b, w, problem.edges)

    assert torch.autograd.gradcheck(function, problem.inputs)
    assert torch.autograd.gradgradcheck(function, problem.inputs)


@pytest.mark.parametrize(("need_b", "need_w"), [(True, True), (True, False), (False, True)])
def test_gradgradcheck_of_backward(make_problem, need_b, need_w):
    problem = make_problem(**SMALL)

    def transposed(g, b, w):
        return torch.ops.tdn.cp_message_transposed(g, b, w, *problem.edges)

    def edges(g, u, b, w):
        both = torch.ops.tdn.cp_message_edges(g, u, b, w, *problem.edges, need_b, need_w)
        return tuple(x for x, needed in zip(both, (need_b, need_w), strict=True) if needed)

    assert torch.autograd.gradgradcheck(transposed, (problem.g, problem.b, problem.w))
    variables = (problem.g, *problem.inputs)
    assert torch.autograd.gradcheck(edges, variables)
    assert torch.autograd.gradgradcheck(edges, variables)


def test_opcheck(make_problem):
    problem = make_problem()
    u, b, w, g, edges = *problem.inputs, problem.g, problem.edges
    edge_index = torch.stack([edges.centre, edges.neighbour])
    tdn = torch.ops.tdn
    torch.library.opcheck(tdn.cp_message, (u, b, w, *edges))
    torch.library.opcheck(tdn.cp_message_transposed, (g, b, w, *edges))
    torch.library.opcheck(tdn.cp_message_edges, (g, u, b, w, *edges, True, True))
    torch.library.opcheck(tdn.cp_message_edges, (g, u, b, w, *edges, False, True))
    torch.library.opcheck(tdn.sort_edges, (edge_index, 7, 9))
    torch.library.opcheck(tdn.exchange, (u, u.shape[0]))
    torch.library.opcheck(tdn.exchange_reverse, (u, u.shape[0]))


def test_torchscript_round_trip(make_problem):
    problem = make_problem()
    edge_index = torch.stack([problem.edges.centre, problem.edges.neighbour])
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Layer()), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    eager = Layer()(edge_index, *problem.inputs, 7)
    expected = torch.autograd.grad(eager, problem.inputs, problem.g)
    for _ in range(3):  # the executor optimises after the first runs
        found = loaded(edge_index, *problem.inputs, 7)
        assert torch.equal(found, eager)
        gradients = torch.autograd.grad(found, problem.inputs, problem.g)
        assert all(torch.equal(x, y) for x, y in zip(gradients, expected, strict=True))


def test_compile_without_graph_break(make_problem):
    problem = make_problem()
    edge_index = torch.stack([problem.edges.centre, problem.edges.neighbour])
    layer = torch.compile(Layer(), fullgraph=True, backend="aot_eager", dynamic=True)
    for seed in range(2):
        problem = make_problem(seed=seed, num_edges=40 + seed)
        edge_index = torch.stack([problem.edges.centre, problem.edges.neighbour])
        found = layer(edge_index, *problem.inputs, 7)
        expected = Layer()(edge_index, *problem.inputs, 7)
        assert torch.equal(found, expected)
        gradients = torch.autograd.grad(found, problem.inputs, problem.g)
        reference = torch.autograd.grad(expected, problem.inputs, problem.g)
        for x, y in zip(gradients, reference, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


def test_export(make_problem):
    problem = make_problem()
    edge_index = torch.stack([problem.edges.centre, problem.edges.neighbour])
    arguments = (edge_index, *(x.detach() for x in problem.inputs), 7)
    program = torch.export.export(Layer(), arguments)
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"tdn.sort_edges.default", "tdn.cp_message.default", "tdn.exchange.default"} <= names
    assert torch.equal(program.module()(*arguments), Layer()(*arguments))


def test_meta_tensors(make_problem):
    problem = make_problem()
    edges = ops.Edges(*(x.to("meta") for x in problem.edges))
    inputs = [x.detach().to("meta").requires_grad_() for x in problem.inputs]
    a = ops.cp_message(*inputs, edges)
    assert a.device.type == "meta"
    assert a.shape == problem.g.shape
    gradients = torch.autograd.grad(a.sum(), inputs)
    assert [x.shape for x in gradients] == [x.shape for x in inputs]


def test_use_reference(make_problem):
    problem = make_problem()
    compiled = ops.cp_message(*problem.inputs, problem.edges)
    with ops.use_reference():
        plain = ops.cp_message(*problem.inputs, problem.edges)
    assert plain.grad_fn.name().startswith("IndexAdd")
    assert not compiled.grad_fn.name().startswith("IndexAdd")
    torch.testing.assert_close(plain, compiled, rtol=1e-12, atol=1e-12)
