"""The equivariant convolution with its CP factors hoisted out of the edges.

The coupling tensor M[k, i, j] = sum_r output[k, r] input1[i, r] input2[j, r] turns a message into

    u_j[r, c] = sum_k input1[k, r] x_j[k, c]                          per node
    a_i[r, c] = sum_j ( sum_l b_ij[l, r] w_ij[l, c] ) u_j[r, c]       per edge
    m_i[k, c] = norm[k] sum_r output[k, r] a_i[r, c]                  per node

with b_ij[l, r] = sum_m input2[(l, m), r] Y_lm(r_ij) and the radial weights w_ij. The norm starts as
1 / sqrt(mean number of neighbors) and is then measured (see `tdn.network.initial_norms`).
"""

import math

import torch
from torch import Tensor, nn

from tdn.ops import Edges, component_linear, cp_message, scalar_message

from .cp_matrices import CPMatrices
from .layers import degree_of_component, num_components


class CPConvolution(nn.Module):
    """Messages from neighbors to centers.

    Parameters
    ----------
    factors : the CP matrices; ``input1`` acts on node features, ``input2`` on spherical harmonics;
        those of `CPMatrices.of_scalars` are not needed to compute anything
    l_max : highest degree of the spherical harmonics
    shared_radial : one radial function for all degrees instead of one each
    avg_num_neighbors : mean number of neighbors, for normalization
    """

    degree_mask: Tensor
    norm: Tensor

    def __init__(
        self, factors: CPMatrices, l_max: int, shared_radial: bool, avg_num_neighbors: float
    ) -> None:
        super().__init__()
        self.factors = factors
        self.scalars = factors.input1.size(0) == 1
        if shared_radial:
            mask = torch.ones(num_components(l_max), 1)
        else:
            mask = nn.functional.one_hot(degree_of_component(l_max)).to(torch.get_default_dtype())
        self.register_buffer("degree_mask", mask.unsqueeze(-1), persistent=False)  # [D, L, 1]
        norm = torch.full((num_components(l_max), 1), 1 / math.sqrt(avg_num_neighbors))
        self.register_buffer("norm", norm)

    def forward(self, x: Tensor, sh: Tensor, w: Tensor, edges: Edges) -> Tensor:
        """[n_all, D_in, C], [E, D], [E, L, C] -> [n_centers, D_out, C]."""
        if self.scalars:
            return self.norm * scalar_message(x, sh, w, edges)
        u = component_linear(x, self.factors.input1.t())  # [n_all, R, C]
        # one matrix product for all degrees: each row of input2 counts for its own degree alone
        by_degree = self.degree_mask * self.factors.input2.unsqueeze(1)  # [D, L, R]
        b = (sh @ by_degree.flatten(1)).view(-1, by_degree.size(1), by_degree.size(2))  # [E, L, R]
        a = cp_message(u, b, w, edges)  # [n_centers, R, C]
        return component_linear(a, self.factors.output * self.norm)
