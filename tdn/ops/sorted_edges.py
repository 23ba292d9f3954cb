"""Edges in the order in which the operators walk them."""

from typing import NamedTuple

from torch import Tensor


class Edges(NamedTuple):
    """Edges of a graph, sorted by centre, with what is needed to walk them from both ends.

    Built by :func:`tdn.ops.sort_edges`; all tensors are int64.

    Attributes
    ----------
    centre : Tensor [E]
        Receiving atom of each edge, non-decreasing.
    neighbour : Tensor [E]
        Sending atom of each edge.
    centre_ptr : Tensor [num_centres + 1]
        Edges of centre ``i`` are ``centre_ptr[i]`` to ``centre_ptr[i + 1]``.
    transpose : Tensor [E]
        Stable permutation that sorts the edges by neighbour.
    neighbour_ptr : Tensor [num_nodes + 1]
        Edges with neighbour ``j`` are ``transpose[neighbour_ptr[j]:neighbour_ptr[j + 1]]``.
    """

    centre: Tensor
    neighbour: Tensor
    centre_ptr: Tensor
    transpose: Tensor
    neighbour_ptr: Tensor
