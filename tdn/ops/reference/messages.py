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


def exchange(x: Tensor, num_all: int) -> Tensor:
    """See :func:`tdn.ops.exchange`; without a transport it is the identity."""
    if x.size(0) != num_all:
        raise ValueError(
            f"exchange: no transport is set, so num_all must be the number of rows {x.size(0)}, "
            f"found {num_all}"
        )
    return x.clone()
