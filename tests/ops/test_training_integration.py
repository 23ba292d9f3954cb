"""The operators of training in TorchScript, torch.compile, export, make_fx, and without C++."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from convolution_problems import assert_all_close
from edge_problems import (
    make_component_problem,
    make_radial_problem,
    make_scalar_problem,
    make_vectors,
)
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from tdn import ops
from tdn.network.radial import RadialNetwork
from tdn.ops import component_linear, edge_geometry, scalar_message, sort_edges

pytestmark = pytest.mark.usefixtures("compiled")


class Layer(nn.Module):
    """A scripted user of all of them, from edge vectors to features."""

    matrix: Tensor

    def __init__(self, l_max: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.l_max = l_max
        self.radial = RadialNetwork(5.0, 6, 8, (16,), l_max + 1, 5, 2).double()
        self.register_buffer("matrix", torch.randn(4, (l_max + 1) ** 2).double())

    def forward(self, edge_index: Tensor, edge_vec: Tensor, x: Tensor, num_local: int) -> Tensor:
        edges = sort_edges(edge_index, num_local, x.size(0))
        r, harmonics = edge_geometry(edge_vec, self.l_max, torch.float64)
        w = self.radial.weights_at(r, torch.zeros_like(edges.centre))
        a = scalar_message(x, harmonics, w, edges)
        return component_linear(a, self.matrix).sin()


def make_arguments(num_edges: int = 40) -> tuple[Tensor, Tensor, Tensor, int]:
    """Arguments of Layer; another number of edges gives other numbers."""
    x, _, _, edges = make_scalar_problem(num_edges=num_edges, channels=5, seed=num_edges)
    edge_index = torch.stack([edges.centre, edges.neighbour])
    return edge_index, make_vectors(num_edges, num_edges), x, 7


def force(layer, edge_index, edge_vec, x):
    edge_vec = edge_vec.detach().requires_grad_()
    energy = layer(edge_index, edge_vec, x, 7).sum()
    return list(torch.autograd.grad(energy, edge_vec))


def training(layer, edge_index, edge_vec, x):
    """Gradients of a loss on energy and forces."""
    edge_vec = edge_vec.detach().requires_grad_()
    energy = layer(edge_index, edge_vec, x, 7).sum()
    (gradient,) = torch.autograd.grad(energy, edge_vec, create_graph=True)
    loss = gradient.square().sum() + energy
    return list(torch.autograd.grad(loss, [x, *layer.parameters()]))


def curvature(layer, edge_index, edge_vec, x):
    """A row of the Hessian by positions."""
    edge_vec = edge_vec.detach().requires_grad_()
    energy = layer(edge_index, edge_vec, x, 7).sum()
    (gradient,) = torch.autograd.grad(energy, edge_vec, create_graph=True)
    return list(torch.autograd.grad(gradient.square().sum(), edge_vec))


@pytest.mark.parametrize("function", [force, training, curvature])
@pytest.mark.parametrize("num_edges", [40, 1, 0])
def test_agrees_with_reference(function, num_edges):
    layer = Layer()
    arguments = make_arguments(num_edges)[:3]
    found = function(layer, *arguments)
    with ops.use_reference():
        expected = function(layer, *arguments)
    assert_all_close(found, expected)


def test_gradgradcheck_by_positions():
    layer = Layer(1)
    edge_index, edge_vec, x, _ = make_arguments(9)

    def energy(edge_vec):
        return layer(edge_index, edge_vec, x.detach(), 7).sum()

    assert torch.autograd.gradcheck(energy, edge_vec)
    assert torch.autograd.gradgradcheck(energy, edge_vec)
    hessian = torch.autograd.functional.hessian(energy, edge_vec.detach()).view(27, 27)
    torch.testing.assert_close(hessian, hessian.t(), rtol=0, atol=1e-12)
    with ops.use_reference():
        expected = torch.autograd.functional.hessian(energy, edge_vec.detach()).view(27, 27)
    assert_all_close([hessian], [expected])


def test_opcheck():
    tdn, check = torch.ops.tdn, torch.library.opcheck
    arguments = make_radial_problem([3, 2, 2, 3], num_edges=5, num_pairs=2)
    constant = [x.detach() if isinstance(x, Tensor) else x for x in arguments]
    w = tdn.radial_slope(*constant)[0]
    check(tdn.network.radial, arguments)
    check(tdn.radial_slope, constant)
    check(tdn.radial_adjoint, (w, w, *constant))
    check(tdn.radial_adjoint, (None, w, *constant))
    check(tdn.row_dot, (w, w))
    check(tdn.row_dot_adjoint, (w[:, 0], w, w, True, False))
    vectors = make_vectors(9)
    r, harmonics = (
        x.detach().requires_grad_() for x in tdn.edge_geometry(vectors, 2, torch.float64)
    )
    check(tdn.edge_geometry, (vectors, 2, torch.float32))
    check(tdn.edge_geometry_adjoint, (r, harmonics, vectors, 2))
    check(tdn.edge_geometry_adjoint, (None, harmonics, vectors, 2))
    v, y = vectors.detach(), harmonics.detach()
    for need in (True, False):
        check(tdn.edge_geometry_second, (v, None, y, v, 2, torch.float64, need))
    check(tdn.component_linear, make_component_problem())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("l_max", [2, 7])
def test_opcheck_of_scalar_message(l_max):
    tdn, check = torch.ops.tdn, torch.library.opcheck
    x, harmonics, w, edges = make_scalar_problem(l_max=l_max)
    check(tdn.cp_message, (x, harmonics, w, *edges))
    if l_max > 6:
        return
    g = torch.randn(7, 9, 8, dtype=torch.float64, requires_grad=True)
    check(tdn.cp_message_transposed, (g, harmonics, w, *edges))
    check(tdn.cp_message_edges, (g, x, harmonics, w, *edges, True, True))
    check(tdn.cp_message_adjoint, (g, x, harmonics, w, *edges, True, True))
    check(tdn.cp_message_adjoint, (g, x, harmonics, w, *edges, False, True))
    inputs = [t.detach() for t in (g, x, harmonics, w)]
    needed = (True, True, False, True)
    check(tdn.cp_message_second, (inputs[1], None, inputs[3], *inputs, *edges, *needed))


def test_torchscript_round_trip():
    layer = Layer()
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(layer), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    for num_edges in (40, 41, 1, 0):
        arguments = make_arguments(num_edges)
        for _ in range(3):  # the executor optimises after the first runs
            assert torch.equal(loaded(*arguments), layer(*arguments))
            assert_all_close(force(loaded, *arguments[:3]), force(layer, *arguments[:3]))
            assert_all_close(training(loaded, *arguments[:3]), training(layer, *arguments[:3]))


def test_compile_without_graph_break():
    layer = Layer()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for num_edges in (40, 47):
        arguments = make_arguments(num_edges)
        inputs = [*arguments[1:3], *layer.parameters()]
        assert_all_close(
            torch.autograd.grad(compiled(*arguments).sum(), inputs),
            torch.autograd.grad(layer(*arguments).sum(), inputs),
        )


@pytest.mark.parametrize("l_max", [2, 7])
def test_export_for_any_number_of_edges(l_max):
    layer = Layer(l_max)
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
    assert {"tdn.cp_message.default", "tdn.edge_geometry.default"} <= names
    other = make_arguments(55)
    assert torch.equal(program.module()(*other), layer(*other))


@pytest.mark.parametrize("mode", ["real", "symbolic"])
@pytest.mark.parametrize("function", [force, training, curvature])
def test_traced_derivatives(function, mode):
    """As the exporter traces forces; with symbols the program serves any number of edges."""
    layer = Layer()

    def call(edge_index, edge_vec, x):
        return function(layer, edge_index, edge_vec, x)

    traced = make_fx(call, tracing_mode=mode, _allow_non_fake_inputs=True)(*make_arguments()[:3])
    for num_edges in (40, 55) if mode == "symbolic" else (40,):
        arguments = make_arguments(num_edges)[:3]
        assert_all_close(traced(*arguments), call(*arguments))


def test_meta_tensors():
    layer = Layer().to("meta")
    arguments = [x.to("meta") if isinstance(x, Tensor) else x for x in make_arguments()]
    inputs = [arguments[1].requires_grad_(), *layer.parameters()]
    y = layer(*arguments)
    assert y.shape == (7, 4, 5)
    assert [x.shape for x in torch.autograd.grad(y.sum(), inputs)] == [x.shape for x in inputs]


def test_without_the_compiled_library(tmp_path):
    """In a process with TDN_OPS=reference: the same energies and gradients, scripted and not."""
    script = f"""
import sys, warnings
import torch
warnings.simplefilter("ignore")
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_training_integration import Layer, make_arguments, training
from tdn import ops
layer = Layer()
arguments = make_arguments()
found = [layer(*arguments).detach(), *training(layer, *arguments[:3])]
scripted = torch.jit.script(layer)
found += [scripted(*arguments).detach(), *training(scripted, *arguments[:3])]
torch.save(found, {str(tmp_path / "out.pt")!r})
print(ops.is_compiled())
"""
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "TDN_OPS": "reference", "PYTHONPATH": path}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "False"
    layer, arguments = Layer(), make_arguments()
    expected = [layer(*arguments).detach(), *training(layer, *arguments[:3])]
    assert_all_close(torch.load(tmp_path / "out.pt", weights_only=True), [*expected, *expected])
