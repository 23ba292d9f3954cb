"""The operators for inference inside TorchScript, torch.compile and torch.export."""

import io

import pytest
import torch
from convolution_problems import R_MAX, STRETCH, assert_all_close, derivatives, make_problem
from torch import Tensor

from tdn import ops

pytestmark = pytest.mark.usefixtures("compiled")


class Layer(torch.nn.Module):
    """A user of the operators, with constants as buffers."""

    table: Tensor
    input1: Tensor
    input2: Tensor
    output: Tensor
    weight: Tensor

    def __init__(self, problem):
        super().__init__()
        for key in ("table", "input1", "input2", "output"):
            self.register_buffer(key, getattr(problem, key).detach().clone())
        generator = torch.Generator().manual_seed(5)
        channels = problem.x.shape[2]
        weight = torch.randn(3, channels, channels, generator=generator, dtype=torch.float64)
        self.register_buffer("weight", weight)
        self.channels = channels
        self.r_max = R_MAX
        self.stretch = STRETCH

    def forward(self, x: Tensor, edge_vec: Tensor, species: Tensor, edge_index: Tensor, local: int):
        edges = ops.sort_edges(edge_index, local, x.size(0))
        a = ops.density(
            edge_vec, species, self.table, self.r_max, self.stretch, self.channels, edges
        )
        m = ops.convolution(
            x,
            edge_vec,
            species,
            self.table,
            self.r_max,
            self.stretch,
            self.input1,
            self.input2,
            self.output,
            edges,
        )
        return ops.degree_linear(a * m, self.weight).sin()


def layer_arguments(problem):
    edge_index = torch.stack([problem.edges.centre, problem.edges.neighbour])
    return problem.x, problem.edge_vec, problem.species, edge_index, 7


def test_torchscript_round_trip():
    problem = make_problem()
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Layer(problem)), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    arguments = layer_arguments(problem)
    eager = Layer(problem)(*arguments)
    expected = torch.autograd.grad(eager, arguments[:2], problem.g)
    for _ in range(3):  # the executor optimises after the first runs
        found = loaded(*arguments)
        assert torch.equal(found, eager)
        gradients = torch.autograd.grad(found, arguments[:2], problem.g)
        assert all(torch.equal(x, y) for x, y in zip(gradients, expected, strict=True))


def test_compile_without_graph_break():
    layer = Layer(make_problem())
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for seed in range(2):
        problem = make_problem(seed=seed, num_edges=60 + seed)
        arguments = layer_arguments(problem)
        found, expected = compiled(*arguments), layer(*arguments)
        assert torch.equal(found, expected)
        gradients = torch.autograd.grad(found, arguments[:2], problem.g)
        wanted = torch.autograd.grad(expected, arguments[:2], problem.g)
        assert_all_close(gradients, wanted)


def test_export():
    problem = make_problem()
    layer = Layer(problem)
    arguments = tuple(x.detach() if isinstance(x, Tensor) else x for x in layer_arguments(problem))
    program = torch.export.export(layer, arguments)
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"tdn.convolution.default", "tdn.density.default"} <= names
    assert torch.equal(program.module()(*arguments), layer(*arguments))


@pytest.mark.parametrize("name", ["convolution", "density"])
def test_meta_tensors(name):
    problem = make_problem()
    shapes = [x.shape for x in derivatives(name, problem)]
    for key, value in vars(problem).items():
        if isinstance(value, Tensor):
            setattr(problem, key, value.detach().to("meta"))
    problem.edges = ops.Edges(*(x.to("meta") for x in problem.edges))
    problem.x.requires_grad_()
    problem.edge_vec.requires_grad_()
    found = derivatives(name, problem)
    assert [x.shape for x in found] == shapes
    assert all(x.device.type == "meta" for x in found)
