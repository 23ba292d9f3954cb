"""Edges in the order in which the operators walk them."""

from typing import NamedTuple

from torch import Tensor


class Edges(NamedTuple):
    """Edges of a graph, sorted by center, with what is needed to walk them from both ends.

    Built by :func:`tdn.ops.sort_edges`; all tensors are int64.

    Attributes
    ----------
    center : Tensor [E]
        Receiving atom of each edge, non-decreasing.
    neighbor : Tensor [E]
        Sending atom of each edge.
    center_ptr : Tensor [num_centers + 1]
        Edges of center ``i`` are ``center_ptr[i]`` to ``center_ptr[i + 1]``.
    by_neighbor : Tensor [E]
        Stable permutation that sorts the edges by neighbor.
    neighbor_ptr : Tensor [num_nodes + 1]
        Edges with neighbor ``j`` are ``by_neighbor[neighbor_ptr[j]:neighbor_ptr[j + 1]]``.
    """

    center: Tensor
    neighbor: Tensor
    center_ptr: Tensor
    by_neighbor: Tensor
    neighbor_ptr: Tensor
