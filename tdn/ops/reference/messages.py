"""The operators in plain PyTorch: the definition that the compiled kernels are tested against.

All functions are differentiable to any order and can be scripted.
"""

import torch
from torch import Tensor

from tdn.ops.sorted_edges import Edges


def edge_pointers(
    edge_index: Tensor, num_centres: int, num_nodes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """``centre_ptr``, ``transpose`` and ``neighbour_ptr`` of :class:`Edges`.

    Raises
    ------
    ValueError
        If ``edge_index`` is not an int64 tensor [2, E], if its first row is not sorted, or if an
        index is out of range.
    """
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.dtype != torch.int64:
        raise ValueError(
            f"sort_edges: edge_index must be an int64 tensor [2, E], found shape "
            f"{list(edge_index.shape)} and {edge_index.dtype}"
        )
    if num_centres < 0 or num_nodes < 0:
        raise ValueError(
            f"sort_edges: num_centres and num_nodes must not be negative, found {num_centres} "
            f"and {num_nodes}"
        )
    centre, neighbour = edge_index[0], edge_index[1]
    if centre.numel() > 0:
        if bool((centre[1:] < centre[:-1]).any()):
            raise ValueError(
                "sort_edges: edge_index[0] (centres) must be non-decreasing; sort the edges by "
                "centre first"
            )
        if int(centre[0]) < 0 or int(centre[-1]) >= num_centres:
            raise ValueError(
                f"sort_edges: centres must lie in 0..{num_centres - 1}, found "
                f"{int(centre[0])}..{int(centre[-1])}"
            )
        if int(neighbour.min()) < 0 or int(neighbour.max()) >= num_nodes:
            raise ValueError(
                f"sort_edges: neighbours must lie in 0..{num_nodes - 1}, found "
                f"{int(neighbour.min())}..{int(neighbour.max())}"
            )
    transpose = torch.argsort(neighbour, dim=0, stable=True)
    zero = torch.zeros([1], dtype=torch.int64, device=edge_index.device)
    centre_ptr = torch.cat([zero, torch.bincount(centre, minlength=num_centres).cumsum(0)])
    neighbour_ptr = torch.cat([zero, torch.bincount(neighbour, minlength=num_nodes).cumsum(0)])
    return centre_ptr, transpose, neighbour_ptr


def sort_edges(edge_index: Tensor, num_centres: int, num_nodes: int) -> Edges:
    """See :func:`tdn.ops.sort_edges`."""
    centre_ptr, transpose, neighbour_ptr = edge_pointers(edge_index, num_centres, num_nodes)
    return Edges(edge_index[0], edge_index[1], centre_ptr, transpose, neighbour_ptr)


def cp_message(u: Tensor, b: Tensor, w: Tensor, edges: Edges) -> Tensor:
    """See :func:`tdn.ops.cp_message`."""
    if b.dim() == 2:
        return scalar_message(u, b, w, edges)
    if (
        u.dim() != 3
        or b.dim() != 3
        or w.dim() != 3
        or b.size(0) != edges.neighbour.size(0)
        or w.size(0) != edges.neighbour.size(0)
        or b.size(1) != w.size(1)
        or b.size(2) != u.size(1)
        or w.size(2) != u.size(2)
        or u.size(0) != edges.neighbour_ptr.size(0) - 1
    ):
        raise ValueError(
            f"cp_message: expected u [num_nodes, R, C], b [E, L, R], w [E, L, C] for "
            f"{edges.neighbour.size(0)} edges and {edges.neighbour_ptr.size(0) - 1} nodes, found "
            f"u {list(u.shape)}, b {list(b.shape)}, w {list(w.shape)}"
        )
    coupling = torch.bmm(b.transpose(1, 2), w)  # [E, R, C]
    message = coupling * u.index_select(0, edges.neighbour)  # [E, R, C]
    a = u.new_zeros([edges.centre_ptr.size(0) - 1, u.size(1), u.size(2)])
    return a.index_add(0, edges.centre, message)


def scalar_message(x: Tensor, harmonics: Tensor, w: Tensor, edges: Edges) -> Tensor:
    """See :func:`tdn.ops.scalar_message`."""
    degrees = int(harmonics.size(1) ** 0.5 + 0.5)  # TorchScript rounds to a float
    if (
        x.dim() != 3
        or x.size(1) != 1
        or w.dim() != 3
        or x.size(0) != edges.neighbour_ptr.size(0) - 1
        or harmonics.size(0) != edges.neighbour.size(0)
        or w.size(0) != edges.neighbour.size(0)
        or w.size(2) != x.size(2)
        or degrees * degrees != harmonics.size(1)
        or w.size(1) not in [1, degrees]
    ):
        raise ValueError(
            f"scalar_message: expected x [num_nodes, 1, C], harmonics [E, D], w [E, L, C] for "
            f"{edges.neighbour.size(0)} edges and {edges.neighbour_ptr.size(0) - 1} nodes, found "
            f"x {list(x.shape)}, harmonics {list(harmonics.shape)}, w {list(w.shape)}"
        )
    if w.size(1) == degrees:
        sizes = 2 * torch.arange(degrees, device=w.device) + 1
        w = torch.repeat_interleave(w, sizes, dim=1)  # [E, D, C]
    message = harmonics.unsqueeze(2) * w * x.index_select(0, edges.neighbour)
    a = x.new_zeros([edges.centre_ptr.size(0) - 1, harmonics.size(1), x.size(2)])
    return a.index_add(0, edges.centre, message)


def exchange(x: Tensor, num_all: int) -> Tensor:
    """See :func:`tdn.ops.exchange`; without a transport it is the identity."""
    if x.size(0) != num_all:
        raise ValueError(
            f"exchange: no transport is set, so num_all must be the number of rows {x.size(0)}, "
            f"found {num_all}"
        )
    return x.clone()
