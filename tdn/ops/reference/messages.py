"""Reference of `tdn.ops.messages` in plain PyTorch."""

import torch
from torch import Tensor

from tdn.ops.sorted_edges import Edges


def cp_message(u: Tensor, b: Tensor, w: Tensor, edges: Edges) -> Tensor:
    """See :func:`tdn.ops.cp_message`."""
    if b.dim() == 2:
        return scalar_message(u, b, w, edges)
    if (
        u.dim() != 3
        or b.dim() != 3
        or w.dim() != 3
        or b.size(0) != edges.neighbor.size(0)
        or w.size(0) != edges.neighbor.size(0)
        or b.size(1) != w.size(1)
        or b.size(2) != u.size(1)
        or w.size(2) != u.size(2)
        or u.size(0) != edges.neighbor_ptr.size(0) - 1
    ):
        raise ValueError(
            f"cp_message: expected u [num_nodes, R, C], b [E, L, R], w [E, L, C] for "
            f"{edges.neighbor.size(0)} edges and {edges.neighbor_ptr.size(0) - 1} nodes, found "
            f"u {list(u.shape)}, b {list(b.shape)}, w {list(w.shape)}"
        )
    coupling = torch.bmm(b.transpose(1, 2), w)  # [E, R, C]
    message = coupling * u.index_select(0, edges.neighbor)  # [E, R, C]
    a = u.new_zeros([edges.center_ptr.size(0) - 1, u.size(1), u.size(2)])
    return a.index_add(0, edges.center, message)


def scalar_message(x: Tensor, harmonics: Tensor, w: Tensor, edges: Edges) -> Tensor:
    """See :func:`tdn.ops.scalar_message`."""
    degrees = int(harmonics.size(1) ** 0.5 + 0.5)  # TorchScript rounds to a float
    if (
        x.dim() != 3
        or x.size(1) != 1
        or w.dim() != 3
        or x.size(0) != edges.neighbor_ptr.size(0) - 1
        or harmonics.size(0) != edges.neighbor.size(0)
        or w.size(0) != edges.neighbor.size(0)
        or w.size(2) != x.size(2)
        or degrees * degrees != harmonics.size(1)
        or w.size(1) not in [1, degrees]
    ):
        raise ValueError(
            f"scalar_message: expected x [num_nodes, 1, C], harmonics [E, D], w [E, L, C] for "
            f"{edges.neighbor.size(0)} edges and {edges.neighbor_ptr.size(0) - 1} nodes, found "
            f"x {list(x.shape)}, harmonics {list(harmonics.shape)}, w {list(w.shape)}"
        )
    if w.size(1) == degrees:
        sizes = 2 * torch.arange(degrees, device=w.device) + 1
        w = torch.repeat_interleave(w, sizes, dim=1)  # [E, D, C]
    message = harmonics.unsqueeze(2) * w * x.index_select(0, edges.neighbor)
    a = x.new_zeros([edges.center_ptr.size(0) - 1, harmonics.size(1), x.size(2)])
    return a.index_add(0, edges.center, message)


def edge_product(
    source: Tensor, target: Tensor, matrix: Tensor, w: Tensor, edges: Edges
) -> tuple[Tensor, Tensor]:
    """See :func:`tdn.ops.edge_product`."""
    num_edges = edges.neighbor.size(0)
    if (
        source.dim() != 3
        or target.dim() != 3
        or matrix.dim() != 3
        or w.dim() != 2
        or matrix.size(0) != num_edges
        or w.size(0) != num_edges
        or matrix.size(1) != matrix.size(2)
        or source.size(0) != edges.neighbor_ptr.size(0) - 1
        or target.size(0) != edges.center_ptr.size(0) - 1
        or source.size(1) != matrix.size(1)
        or source.size(2) != w.size(1)
        or target.size(1) != matrix.size(1)
        or target.size(2) != w.size(1)
    ):
        raise ValueError(
            f"edge_product: expected source [num_nodes, D, C], target [num_centers, D, C], matrix "
            f"[E, D, D], w [E, C] for {num_edges} edges, {edges.neighbor_ptr.size(0) - 1} nodes "
            f"and {edges.center_ptr.size(0) - 1} centers, found {list(source.shape)}, "
            f"{list(target.shape)}, {list(matrix.shape)}, {list(w.shape)}"
        )
    x = source.index_select(0, edges.neighbor) + target.index_select(0, edges.center)
    z = torch.bmm(matrix, x) * w.unsqueeze(1)
    return z[:, 0], z[:, 1:]


def edge_message(
    scalars: Tensor, rest: Tensor, matrix: Tensor, w: Tensor, center: Tensor, center_ptr: Tensor
) -> Tensor:
    """See :func:`tdn.ops.edge_message`, which takes the last two as part of the edges."""
    if (
        scalars.dim() != 2
        or rest.dim() != 3
        or matrix.dim() != 3
        or w.dim() != 3
        or matrix.size(0) != center.size(0)
        or matrix.size(1) != matrix.size(2)
        or scalars.size(0) != center.size(0)
        or rest.size(0) != center.size(0)
        or rest.size(1) != matrix.size(1) - 1
        or rest.size(2) != scalars.size(1)
        or w.size(0) != center.size(0)
        or w.size(1) not in [1, 2]
        or w.size(2) != scalars.size(1)
    ):
        raise ValueError(
            f"edge_message: expected scalars [E, C], rest [E, D - 1, C], matrix [E, D, D], w "
            f"[E, 1 or 2, C] for {center.size(0)} edges, found {list(scalars.shape)}, "
            f"{list(rest.shape)}, {list(matrix.shape)}, {list(w.shape)}"
        )
    x = torch.cat([(scalars * w[:, 0]).unsqueeze(1), rest * w[:, -1:]], dim=1)
    message = torch.bmm(matrix, x)
    y = message.new_zeros([center_ptr.size(0) - 1, message.size(1), message.size(2)])
    return y.index_add(0, center, message)


def exchange(x: Tensor, num_all: int) -> Tensor:
    """See :func:`tdn.ops.exchange`; without a transport it is the identity."""
    if x.size(0) != num_all:
        raise ValueError(
            f"exchange: no transport is set, so num_all must be the number of rows {x.size(0)}, "
            f"found {num_all}"
        )
    return x.clone()
