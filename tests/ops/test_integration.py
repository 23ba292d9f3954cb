"""The operators inside TorchScript, torch.compile, torch.export and make_fx, and without C++."""

import io

import pytest
import torch
from fresh_python import run_python
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from tdn import ops
from tdn.network.radial import RadialNetwork
from tdn.ops import (
    component_linear,
    convolution,
    cp_message,
    degree_linear,
    density,
    edge_geometry,
    exchange,
    scalar_message,
    sort_edges,
)

from . import problems
from .closeness import assert_all_close, assert_equal
from .problems import Random

pytestmark = pytest.mark.usefixtures("compiled")

NUM_CENTERS, NUM_NODES, CHANNELS = 7, 9, 5


class Messages(nn.Module):
    """A user of the operators that every network calls."""

    operators = ("sort_edges", "cp_message", "exchange")

    def forward(self, edge_index: Tensor, edge_vec: Tensor, x: Tensor, num_local: int) -> Tensor:
        edges = sort_edges(edge_index, num_local, x.size(0))
        b = torch.stack([edge_vec, edge_vec.square()], 1)  # [E, 2, 3]
        w = edge_vec[:, :2].unsqueeze(2).cos().expand(-1, -1, x.size(2))
        u = exchange(x, x.size(0)).expand(-1, 3, -1)
        return cp_message(u, b, w, edges).sin()


class Inference(nn.Module):
    """A user of the operators for inference, with constants as buffers."""

    operators = ("convolution", "density")
    table: Tensor
    input1: Tensor
    input2: Tensor
    output: Tensor
    weight: Tensor
    species: Tensor

    def __init__(self) -> None:
        super().__init__()
        problem = problems.convolution(channels=CHANNELS, rows_in=1, rows_out=9)
        for key in ("table", "input1", "input2", "output", "species"):
            self.register_buffer(key, problem[key])
        self.register_buffer("weight", Random(torch.float64, 5).normal(3, CHANNELS, CHANNELS))
        self.r_max, self.stretch = problems.R_MAX, problems.STRETCH

    def forward(self, edge_index: Tensor, edge_vec: Tensor, x: Tensor, num_local: int) -> Tensor:
        edges = sort_edges(edge_index, num_local, x.size(0))
        a = density(edge_vec, self.species, self.table, self.r_max, self.stretch, x.size(2), edges)
        m = convolution(
            x,
            edge_vec,
            self.species,
            self.table,
            self.r_max,
            self.stretch,
            self.input1,
            self.input2,
            self.output,
            edges,
        )
        return degree_linear(a * m, self.weight).sin()


class Training(nn.Module):
    """A user of the operators of training, from edge vectors to features."""

    operators = ("cp_message", "edge_geometry")
    matrix: Tensor

    def __init__(self, l_max: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.l_max = l_max
        self.radial = RadialNetwork(5.0, 6, 8, (16,), l_max + 1, CHANNELS, 2).double()
        self.register_buffer("matrix", torch.randn(4, (l_max + 1) ** 2).double())

    def forward(self, edge_index: Tensor, edge_vec: Tensor, x: Tensor, num_local: int) -> Tensor:
        edges = sort_edges(edge_index, num_local, x.size(0))
        r, harmonics = edge_geometry(edge_vec, self.l_max, torch.float64)
        w = self.radial.weights_at(r, torch.zeros_like(edges.center))
        a = scalar_message(x, harmonics, w, edges)
        return component_linear(a, self.matrix).sin()


class ManyDegrees(Training):
    """Harmonics beyond those with kernels of their own."""

    def __init__(self) -> None:
        super().__init__(7)


LAYERS = [Messages, Inference, Training, ManyDegrees]


def make_arguments(num_edges: int = 40) -> tuple[Tensor, Tensor, Tensor, int]:
    """Arguments of all layers; another number of edges gives other numbers."""
    some = Random(torch.float64, num_edges)
    edges = some.edges(NUM_CENTERS, NUM_NODES, num_edges)
    vectors = problems.edge_geometry(num_edges=num_edges, seed=num_edges)["edge_vec"]
    edge_index = torch.stack([edges.center, edges.neighbor])
    return edge_index, vectors, some.variable(NUM_NODES, 1, CHANNELS), NUM_CENTERS


def force(layer, edge_index, edge_vec, x):
    edge_vec = edge_vec.detach().requires_grad_()
    energy = layer(edge_index, edge_vec, x, NUM_CENTERS).sum()
    return list(torch.autograd.grad(energy, [edge_vec, x]))


def training(layer, edge_index, edge_vec, x):
    """Gradients of a loss on energy and forces."""
    edge_vec = edge_vec.detach().requires_grad_()
    energy = layer(edge_index, edge_vec, x, NUM_CENTERS).sum()
    (gradient,) = torch.autograd.grad(energy, edge_vec, create_graph=True)
    loss = gradient.square().sum() + energy
    return list(torch.autograd.grad(loss, [x, *layer.parameters()]))


def curvature(layer, edge_index, edge_vec, x):
    """A row of the Hessian by positions."""
    edge_vec = edge_vec.detach().requires_grad_()
    energy = layer(edge_index, edge_vec, x, NUM_CENTERS).sum()
    (gradient,) = torch.autograd.grad(energy, edge_vec, create_graph=True)
    return list(torch.autograd.grad(gradient.square().sum(), edge_vec))


@pytest.mark.parametrize("function", [force, training, curvature])
@pytest.mark.parametrize("num_edges", [40, 1, 0])
def test_agrees_with_reference(function, num_edges):
    layer = Training()
    arguments = make_arguments(num_edges)[:3]
    found = function(layer, *arguments)
    with ops.use_reference():
        expected = function(layer, *arguments)
    assert_all_close(found, expected)


def test_gradgradcheck_by_positions():
    layer = Training(1)
    edge_index, edge_vec, x, _ = make_arguments(9)

    def energy(edge_vec):
        return layer(edge_index, edge_vec, x.detach(), NUM_CENTERS).sum()

    assert torch.autograd.gradcheck(energy, edge_vec)
    assert torch.autograd.gradgradcheck(energy, edge_vec)
    hessian = torch.autograd.functional.hessian(energy, edge_vec.detach()).view(27, 27)
    torch.testing.assert_close(hessian, hessian.t(), rtol=0, atol=1e-12)
    with ops.use_reference():
        expected = torch.autograd.functional.hessian(energy, edge_vec.detach()).view(27, 27)
    assert_all_close([hessian], [expected])


@pytest.mark.parametrize("kind", LAYERS)
def test_torchscript_round_trip(kind):
    layer = kind()
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(layer), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    for num_edges in (40, 41, 1, 0):
        arguments = make_arguments(num_edges)
        for _ in range(3):  # the executor optimizes after the first runs
            assert torch.equal(loaded(*arguments), layer(*arguments))
            assert_equal(force(loaded, *arguments[:3]), force(layer, *arguments[:3]))
            if kind is not Inference:
                assert_all_close(training(loaded, *arguments[:3]), training(layer, *arguments[:3]))


@pytest.mark.parametrize("kind", [Messages, Inference, Training])
def test_compile_without_graph_break(kind):
    layer = kind()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for num_edges in (40, 47):
        arguments = make_arguments(num_edges)
        inputs = [*arguments[1:3], *layer.parameters()]
        found, expected = compiled(*arguments), layer(*arguments)
        assert torch.equal(found, expected)
        assert_all_close(
            torch.autograd.grad(found.sum(), inputs), torch.autograd.grad(expected.sum(), inputs)
        )


@pytest.mark.parametrize("kind", LAYERS)
def test_export_for_any_number_of_edges(kind):
    layer = kind()
    edge_index, edge_vec, x, num_local = make_arguments()
    edges = torch.export.Dim("edges")
    program = torch.export.export(
        layer,
        (edge_index, edge_vec.detach(), x.detach(), num_local),
        dynamic_shapes={
            "edge_index": {1: edges},
            "edge_vec": {0: edges},
            "x": None,
            "num_local": None,
        },
    )
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {f"tdn.{name}.default" for name in kind.operators} <= names
    other = make_arguments(55)
    assert torch.equal(program.module()(*other), layer(*other))


@pytest.mark.parametrize("mode", ["real", "symbolic"])
@pytest.mark.parametrize("function", [force, training, curvature])
def test_traced_derivatives(function, mode):
    """As the exporter traces forces; with symbols the program serves any number of edges."""
    layer = Training()

    def call(edge_index, edge_vec, x):
        return function(layer, edge_index, edge_vec, x)

    traced = make_fx(call, tracing_mode=mode, _allow_non_fake_inputs=True)(*make_arguments()[:3])
    for num_edges in (40, 55) if mode == "symbolic" else (40,):
        arguments = make_arguments(num_edges)[:3]
        assert_all_close(traced(*arguments), call(*arguments))


@pytest.mark.parametrize("kind", LAYERS)
def test_meta_tensors(kind):
    layer = kind()
    expected = layer(*make_arguments())
    layer = layer.to("meta")
    arguments = [x.to("meta") if isinstance(x, Tensor) else x for x in make_arguments()]
    inputs = [arguments[1].detach().requires_grad_(), *layer.parameters()]
    y = layer(arguments[0], inputs[0], *arguments[2:])
    assert y.is_meta and y.shape == expected.shape
    assert [x.shape for x in torch.autograd.grad(y.sum(), inputs)] == [x.shape for x in inputs]


@pytest.mark.slow
def test_without_the_compiled_library(tmp_path):
    """In a process with TDN_OPS=reference: the same energies and gradients, scripted and not."""
    script = f"""
import torch
from ops.test_integration import Training, make_arguments, training
from tdn import ops
layer = Training()
arguments = make_arguments()
found = [layer(*arguments).detach(), *training(layer, *arguments[:3])]
scripted = torch.jit.script(layer)
found += [scripted(*arguments).detach(), *training(scripted, *arguments[:3])]
torch.save(found, {str(tmp_path / "out.pt")!r})
x = torch.ones(1)
print(ops.is_compiled(), ops.library_path(), ops.exchange(x, 1).item())
"""
    result = run_python(script, TDN_OPS="reference")
    assert result.stdout.split() == ["False", "None", "1.0"]
    assert "tdn-ops build" not in result.stderr  # it was asked for
    layer, arguments = Training(), make_arguments()
    expected = [layer(*arguments).detach(), *training(layer, *arguments[:3])]
    assert_all_close(torch.load(tmp_path / "out.pt", weights_only=True), [*expected, *expected])


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["generic", "avx2", "avx512"])
def test_every_instruction_set(capability):
    """The problems of the other tests, with these instructions only, in a process of their own."""
    if capability == torch.ops.tdn.cpu_capability():
        return  # those of all other tests
    script = """
import torch
from ops.cases import check_all
print(torch.ops.tdn.cpu_capability())
check_all()
"""
    result = run_python(script, TDN_CPU_CAPABILITY=capability)
    if result.stdout.strip() != capability:
        pytest.skip(f"this processor has no {capability}")
