"""Random problems of the node operators, shared by their tests."""

import torch
from convolution_problems import TOLERANCE, assert_all_close
from torch import Tensor

from tdn import ops
from tdn.ops import reference

# Components with kernels of their own (4, 9, 16) and others, channels around the widths of vectors,
# products that keep all degrees or the scalar alone, no product at all.
SHAPES = [
    {},
    {"l_max": 0, "rank": 1, "channels": 1, "num_species": 1},
    {"l_max": 1, "rank": 6, "channels": 3, "orders": 1},
    {"l_max": 1, "rank": 7, "channels": 17, "l_max_out": 0, "num_species": 3},
    {"l_max": 2, "rank": 18, "channels": 33, "l_max_out": 1},
    {"l_max": 2, "rank": 17, "channels": 64, "orders": 0},
    {"l_max": 3, "rank": 32, "channels": 16, "l_max_out": 0},
    {"l_max": 3, "rank": 1, "channels": 5, "orders": 3},
    {"l_max": 4, "rank": 17, "channels": 17},
    {"l_max": 6, "rank": 6, "channels": 3, "l_max_out": 2},
    {"num_nodes": 0},
    {"num_nodes": 1},
]


def make_node_problem(
    l_max: int = 2,
    l_max_out: int | None = None,
    rank: int = 6,
    channels: int = 8,
    orders: int = 2,
    num_species: int = 2,
    num_nodes: int = 7,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[list[Tensor], Tensor]:
    """Arguments of node_product, and a cotangent."""
    generator = torch.Generator().manual_seed(seed)
    degrees, components = l_max + 1, (l_max + 1) ** 2
    degrees_out = degrees if l_max_out is None else l_max_out + 1

    def randn(*shape: int) -> Tensor:
        # float32 values are float64 values as well, so that one problem serves for both
        return torch.randn(shape, generator=generator).to(dtype)

    arguments = [
        randn(num_nodes, components, channels).requires_grad_(),
        torch.randint(num_species, (num_nodes,), generator=generator),
        randn(num_species, degrees_out, channels),
        randn(orders, num_species, degrees, channels),
        randn(orders, num_species, degrees, channels),
        randn(orders, num_species, degrees_out, channels),
        *(randn(components, rank) for _ in range(3)),
    ]
    return arguments, randn(num_nodes, degrees_out**2, channels)


def node_product(arguments: list[Tensor], kind: str = "compiled") -> Tensor:
    """Run the operator: ``compiled``, ``reference``, or ``tensor`` (devices without kernels)."""
    if kind == "tensor":
        key = torch._C.DispatchKey.CompositeExplicitAutograd
        return torch.ops.tdn.node_product.default._op_dk(key, *arguments)
    module = ops if kind == "compiled" else reference
    return module.node_product(*arguments)


def node_derivatives(arguments: list[Tensor], g: Tensor, kind: str = "compiled") -> list[Tensor]:
    """The value and its gradient with respect to m."""
    value = node_product(arguments, kind)
    return [value, *torch.autograd.grad(value, arguments[0], g)]


def in_float64(tensors: list[Tensor]) -> list[Tensor]:
    """The same numbers, the first of which can be differentiated."""
    changed = [x.detach().double() if x.is_floating_point() else x for x in tensors]
    changed[0].requires_grad_()
    return changed


def check_shapes() -> None:
    """Compare every problem of `SHAPES` with the reference, in both types."""
    for dtype in TOLERANCE:
        for shape in SHAPES:
            arguments, g = make_node_problem(dtype=dtype, **shape)
            expected = node_derivatives(in_float64(arguments), g.double(), "reference")
            assert_all_close(node_derivatives(arguments, g), expected, dtype)
