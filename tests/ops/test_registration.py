"""What PyTorch knows of the operators: schemas, and the checks of ``torch.library.opcheck``."""

import pytest
import torch
from torch.library import opcheck

from tdn.ops.loading import KERNELS_ONLY, SCHEMAS

from .bounds import ForceProblem
from .cases import make
from .problems import GATE_SCALE, pattern

pytestmark = pytest.mark.usefixtures("compiled")

tdn = torch.ops.tdn
ALL = SCHEMAS | KERNELS_ONLY
MESSAGE = {"rank": 2, "channels": 3, "num_centers": 4, "num_nodes": 4, "num_edges": 6}


@pytest.mark.parametrize("name", ALL)
def test_schema_is_that_of_the_library(name):
    """Python writes them for the reference operators, C++ for the compiled ones."""
    written = torch._C.parse_schema(f"tdn::{name}{ALL[name]}")
    assert str(written) == str(getattr(tdn, name).default._schema)


@pytest.mark.slow
def test_opcheck_of_messages():
    problem = make("cp_message", **MESSAGE)
    edges = problem.edges
    opcheck(tdn.sort_edges, (torch.stack([edges.center, edges.neighbor]), 4, 4))
    opcheck(tdn.cp_message, problem.flat)
    u, b, w = problem.variables
    g = pattern(problem.call().detach()).requires_grad_()
    opcheck(tdn.exchange, (u, u.shape[0]))
    opcheck(tdn.exchange_reverse, (u, u.shape[0]))
    opcheck(tdn.cp_message_transposed, (g, b, w, *edges))
    for needed in ((True, True), (True, False), (False, True)):
        opcheck(tdn.cp_message_edges, (g, u, b, w, *edges, *needed))
        opcheck(tdn.cp_message_adjoint, (g, u, b, w, *edges, *needed))
    constant = [x.detach() for x in (g, u, b, w)]
    v_u, v_b, v_w = ForceProblem.of(problem).directions
    for directions in ((v_u, v_b, v_w), (None, v_b, None), (v_u, None, v_w)):
        for needed in ((True, True, True, True), (True, False, True, False)):
            opcheck(tdn.cp_message_second, (*directions, *constant, *edges, *needed))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("l_max", [2, 7])
def test_opcheck_of_scalar_message(l_max):
    problem = make("scalar_message", l_max=l_max)
    x, harmonics, w = problem.variables
    edges = problem.edges
    opcheck(tdn.cp_message, problem.flat)
    if l_max > 6:
        return
    g = pattern(problem.call().detach()).requires_grad_()
    opcheck(tdn.cp_message_transposed, (g, harmonics, w, *edges))
    opcheck(tdn.cp_message_edges, (g, x, harmonics, w, *edges, True, True))
    opcheck(tdn.cp_message_adjoint, (g, x, harmonics, w, *edges, True, True))
    opcheck(tdn.cp_message_adjoint, (g, x, harmonics, w, *edges, False, True))
    inputs = [t.detach() for t in (g, x, harmonics, w)]
    needed = (True, True, False, True)
    opcheck(tdn.cp_message_second, (inputs[1], None, inputs[3], *inputs, *edges, *needed))


@pytest.mark.slow
def test_opcheck_of_edges():
    problem = make("radial", widths=[3, 2, 2, 3], num_edges=5, num_pairs=2)
    constant = problem.vary().flat
    w = tdn.radial_slope(*constant)[0]
    opcheck(tdn.radial, problem.flat)
    opcheck(tdn.radial_slope, constant)
    opcheck(tdn.radial_adjoint, (w, w, *constant))
    opcheck(tdn.radial_adjoint, (None, w, *constant))
    opcheck(tdn.row_dot, (w, w))
    opcheck(tdn.row_dot_adjoint, (w[:, 0], w, w, True, False))
    problem = make("edge_geometry", num_edges=9)
    (vectors,) = problem.variables
    r, harmonics = (x.detach().requires_grad_() for x in problem.call())
    opcheck(tdn.edge_geometry, (vectors, 2, torch.float32))
    opcheck(tdn.edge_geometry_adjoint, (r, harmonics, vectors, 2))
    opcheck(tdn.edge_geometry_adjoint, (None, harmonics, vectors, 2))
    v, y = vectors.detach(), harmonics.detach()
    for need in (True, False):
        opcheck(tdn.edge_geometry_second, (v, None, y, v, 2, torch.float64, need))


@pytest.mark.slow
def test_opcheck_of_nodes():
    problem = make("node_product", l_max=1, rank=3, channels=2, num_nodes=3)
    opcheck(tdn.node_product, problem.flat)
    constant = problem.vary().flat
    g = pattern(problem.call().detach())
    for need in (True, False):
        # gradients of weights cannot be differentiated again
        opcheck(tdn.node_product_adjoint, (g.requires_grad_(not need), *constant, need))
        opcheck(tdn.node_product_second, (constant[0], g.detach(), *constant, need))
    problem = make("degree_linear", num_nodes=3, channels=2, channels_out=3)
    opcheck(tdn.degree_linear, problem.flat)
    opcheck(tdn.degree_linear_weight, (problem["x"], torch.ones_like(problem["x"])))
    opcheck(tdn.component_linear, make("component_linear").flat)
    problem = make("gate", num_nodes=3, channels=2)
    opcheck(tdn.gate, problem.flat)
    opcheck(tdn.gate_with_scalars, problem.flat)
    x, (v, w) = problem["x"], (t.detach() for t in problem.variables)
    for need in (True, False):
        opcheck(tdn.gate_adjoint, (v, x if not need else v, w, GATE_SCALE, need))
        opcheck(tdn.gate_second, (v, v, v, w, GATE_SCALE, need))


@pytest.mark.parametrize("name", ["convolution", "density"])
def test_opcheck_of_inference(name):
    problem = make(name, l_max=1, rank=3, channels=2, num_edges=9)
    opcheck(getattr(tdn, name), problem.flat)
    constant = problem.vary().flat
    g = pattern(problem.call().detach())
    for need in ((True,), (False,)) if name == "convolution" else ((),):
        opcheck(getattr(tdn, f"{name}_adjoint"), (g, *constant, *need))
