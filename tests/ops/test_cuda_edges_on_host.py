"""edge_product and edge_message for a GPU, compiled as host code, against those of the CPU.

See ``test_cuda_kernels_on_host.py`` for what this can show.
"""

from itertools import product as all_of

import pytest
import torch

from .test_edge_matrix import TOLERANCE, problem, tdn

pytestmark = pytest.mark.slow  # what it needs takes ten seconds to compile

NO_LIMIT = 2**31 - 1
NEEDED = list(all_of((True, False), repeat=3))


@pytest.fixture(scope="module")
def on_host(compiled, compile_torch_library):
    compile_torch_library("edge_matrix_on_host.cpp")
    return torch.ops.tdn_edges_on_host


@pytest.fixture(params=[None, 2], ids=["grid covers all", "grid of 2 blocks"])
def kernels(request, on_host):
    on_host.set_max_blocks(request.param or NO_LIMIT)
    yield on_host
    on_host.set_max_blocks(NO_LIMIT)


def assert_same(found, expected, dtype) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        if b.numel():
            assert (a - b).abs().max() <= TOLERANCE[dtype] * b.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("channels", [1, 3, 20, 64])
@pytest.mark.parametrize("components", [1, 4, 9, 16, 25])
def test_agree_with_cpu(kernels, components, channels, dtype):
    edges, product, message = problem(components, channels, dtype)
    g = tdn.edge_product(*product, *edges)
    assert_same(kernels.edge_product(*product, *edges), g, dtype)
    for needed in NEEDED:
        expected = tdn.edge_product_adjoint(*g, *product, *edges, *needed)
        assert_same(kernels.edge_product_adjoint(*g, *product, *edges, *needed), expected, dtype)
    for variables in message:
        arguments = (*variables, edges.center, edges.center_ptr)
        y = tdn.edge_message(*arguments)
        assert_same([kernels.edge_message(*arguments)], [y], dtype)
        for needed in NEEDED:
            expected = tdn.edge_message_adjoint(y, *arguments, *needed)
            assert_same(kernels.edge_message_adjoint(y, *arguments, *needed), expected, dtype)


@torch.no_grad()
def test_no_edges(kernels):
    edges, product, message = problem(4, 8, num_edges=0)
    scalars, rest = kernels.edge_product(*product, *edges)
    assert scalars.shape == (0, 8) and rest.shape == (0, 3, 8)
    adjoint = kernels.edge_product_adjoint(scalars, rest, *product, *edges, True, True, True)
    assert [x.shape for x in adjoint] == [x.shape for x in product]
    assert not any(x.any() for x in adjoint)
    arguments = (*message[1], edges.center, edges.center_ptr)
    assert torch.equal(kernels.edge_message(*arguments), torch.zeros(5, 4, 8).double())


@torch.no_grad()
@pytest.mark.parametrize("change", [{"neighbor": 9}, {"center": 9}, {"center": -9}])
def test_indices_out_of_range_end_the_kernel(on_host, change):
    edges, product, _ = problem(4, 8)
    ((name, shift),) = change.items()
    edges = edges._replace(**{name: getattr(edges, name) + shift})
    with pytest.raises((IndexError, RuntimeError), match="out of range"):
        on_host.edge_product(*product, *edges)
