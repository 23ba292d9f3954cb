"""Routes of an equivariant product, whose costs `tensor_product` compares.

Routes of a message, all but the last with exact factors, so that they compute the same:

- ``rank space, edges``: to rank space and back on every edge.
- ``rank space, nodes``: factors act on nodes, edges only multiply and add (``tdn.ops.cp_message``):
  what the convolution network does.
- ``matrix per edge``: the coupling contracted with Y, once for all channels, then
  ``tdn.ops.edge_message``: what the attention network does, which makes the matrices once for all
  layers (here they are made each time). ``matrix, PyTorch`` is the same by batched matrix products:
  the order of the released code of arXiv 2507.01131.
- ``e3nn uvu``.
- ``released rank``: the matrix per edge from approximate factors of rank 7 L^2, all paths only.
  That is another function: the column ``error`` says by how much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from e3nn import o3
from torch import Tensor

from tdn.cp import CPFactors
from tdn.cp.tensor_product import CPTensorProduct, from_components, to_components, uniform_irreps
from tdn.ops import Edges, cp_message, edge_message

# x [N, D, C], Y [E, D], w (of edges [E, C], or of paths [P, C, C]) -> features
Route = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class Problem:
    """Inputs of all routes.

    Attributes
    ----------
    x : [N, D, C]; y : harmonics, [E, D]; w : [E, C]
    """

    factors: CPFactors
    edges: Edges
    x: Tensor
    y: Tensor
    w: Tensor

    @property
    def nodes(self) -> int:
        return len(self.x)

    @property
    def channels(self) -> int:
        return self.x.shape[2]

    def matrices(self, factors: CPFactors | None = None) -> list[Tensor]:
        """Factors ``[input1, input2, output]`` in the type of the inputs."""
        chosen = factors or self.factors
        return [torch.as_tensor(f).to(self.x) for f in
                (chosen.input1, chosen.input2, chosen.output)]  # fmt: skip

    def add_up(self, message: Tensor) -> Tensor:
        """Sum over the neighbors of each node."""
        total = message.new_zeros(self.nodes, *message.shape[1:])
        return total.index_add(0, self.edges.center, message)


def rank_space_on_edges(p: Problem) -> Route:
    a, b, c = p.matrices()

    def route(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        u = a.t() @ x[p.edges.neighbor]  # [E, R, C]
        return p.add_up(c @ (u * (y @ b).unsqueeze(-1) * w.unsqueeze(1)))

    return route


def rank_space_on_nodes(p: Problem) -> Route:
    a, b, c = p.matrices()

    def route(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return c @ cp_message(a.t() @ x, (y @ b).unsqueeze(1), w.unsqueeze(1), p.edges)

    return route


def matrix_per_edge(p: Problem, factors: CPFactors | None = None) -> Route:
    a, b, c = p.matrices(factors)
    coupling = torch.einsum("kr,ir,jr->jki", c, a, b)

    def route(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        matrix = (y @ coupling.flatten(1)).unflatten(1, coupling.shape[1:])
        # two tensors, as the networks keep features of edges
        scalars, rest = x[:, 0].contiguous(), x[:, 1:].contiguous()
        features = scalars[p.edges.neighbor], rest[p.edges.neighbor]
        return edge_message(*features, matrix, w.unsqueeze(1), p.edges)

    return route


def matrix_in_pytorch(p: Problem) -> Route:
    a, b, c = p.matrices()
    coupling = torch.einsum("kr,ir,jr->jki", c, a, b)

    def route(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        matrix = (y @ coupling.flatten(1)).unflatten(1, coupling.shape[1:])
        return p.add_up(torch.bmm(matrix, x[p.edges.neighbor]) * w.unsqueeze(1))

    return route


def e3nn_uvu(p: Problem) -> Route:
    """e3nn's product with the path coefficients of the factors in its weights."""
    irreps = uniform_irreps(p.factors.l_max, p.channels, p.factors.paths)
    harmonics = uniform_irreps(p.factors.l_max, 1, p.factors.paths)
    instructions = [(*path, "uvu", True) for path in p.factors.coupling_paths]
    product = o3.TensorProduct(
        irreps, harmonics, irreps, instructions, shared_weights=False, internal_weights=False
    ).to(p.x)
    c = torch.as_tensor(p.factors.path_coefficients).to(p.x)

    def route(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        weight = (w.unsqueeze(1) * c[:, None]).flatten(1)
        message = product(from_components(x, irreps)[p.edges.neighbor], y, weight)
        return to_components(p.add_up(message), irreps)

    return route


def connected(p: Problem) -> Route:
    """`CPTensorProduct` in mode uvw with a weight matrix for each path."""
    irreps = [uniform_irreps(p.factors.l_max, n, p.factors.paths) for n in (p.channels, 1)]
    product = CPTensorProduct(
        *irreps, irreps[0], "uvw", paths=p.factors.paths, rank=p.factors.rank,
        shared_path_weights=False,
    ).to(p.x)  # fmt: skip

    def route(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return product(x[p.edges.neighbor], y.unsqueeze(2), w.unsqueeze(2))

    return route


def e3nn_connected(p: Problem) -> Route:
    irreps = uniform_irreps(p.factors.l_max, p.channels, p.factors.paths)
    harmonics = uniform_irreps(p.factors.l_max, 1, p.factors.paths)
    product = o3.FullyConnectedTensorProduct(
        irreps, harmonics, irreps, shared_weights=True, internal_weights=False
    ).to(p.x)

    def route(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        flat = product(from_components(x, irreps)[p.edges.neighbor], y, w.flatten())
        return to_components(flat, irreps)

    return route
