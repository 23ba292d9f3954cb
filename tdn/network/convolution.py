"""The equivariant convolution with its CP factors hoisted out of the edges, and node products.

The coupling tensor M[k, i, j] = sum_r output[k, r] input1[i, r] input2[j, r] turns a message into

    u_j[r, c] = sum_k input1[k, r] x_j[k, c]                          per node
    a_i[r, c] = sum_j ( sum_l b_ij[l, r] w_ij[l, c] ) u_j[r, c]       per edge
    m_i[k, c] = norm[k] sum_r output[k, r] a_i[r, c]                  per node

with b_ij[l, r] = sum_m input2[(l, m), r] Y_lm(r_ij) and the radial weights w_ij. The norm starts as
1 / sqrt(mean number of neighbours) and is then measured (see `tdn.network.initial_norms`).
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from tdn.cp import CPFactors
from tdn.ops import Edges, component_linear, cp_message, node_product, scalar_message

from .layers import DegreeScale, degree_of_component, num_components


class CPMatrices(nn.Module):
    """The three factor matrices of a CP decomposition as buffers, each [D, R].

    They travel inside checkpoints: weights belong to the factors they were trained with, and a
    later release may ship others of the same rank.
    """

    input1: Tensor
    input2: Tensor
    output: Tensor

    def __init__(self, input1: np.ndarray, input2: np.ndarray, output: np.ndarray) -> None:
        super().__init__()
        for name, matrix in (("input1", input1), ("input2", input2), ("output", output)):
            self.register_buffer(name, torch.tensor(matrix, dtype=torch.float64))

    @classmethod
    def from_factors(cls, factors: CPFactors, l_max_out: int | None = None) -> "CPMatrices":
        """Take shipped factors, keeping the output components up to degree ``l_max_out``."""
        output = factors.output
        if l_max_out is not None:
            output = output[: num_components(l_max_out)]
        return cls(factors.input1, factors.input2, output)


def scalar_convolution_factors(l_max: int) -> CPMatrices:
    """Exact factors of the product of scalars with spherical harmonics: rank D, m = w Y x."""
    identity = np.eye(num_components(l_max))
    return CPMatrices(np.ones((1, len(identity))), identity, identity)


class CPConvolution(nn.Module):
    """Messages from neighbours to centres.

    Parameters
    ----------
    factors : the CP matrices; ``input1`` acts on node features, ``input2`` on spherical harmonics;
        those of `scalar_convolution_factors` are not needed to compute anything
    l_max : highest degree of the spherical harmonics
    shared_radial : one radial function for all degrees instead of one each
    avg_num_neighbors : mean number of neighbours, for normalisation
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
        """[n_all, D_in, C], [E, D], [E, L, C] -> [n_centres, D_out, C]."""
        if self.scalars:
            return self.norm * scalar_message(x, sh, w, edges)
        u = component_linear(x, self.factors.input1.t())  # [n_all, R, C]
        # one matrix product for all degrees: each row of input2 counts for its own degree alone
        by_degree = self.degree_mask * self.factors.input2.unsqueeze(1)  # [D, L, R]
        b = (sh @ by_degree.flatten(1)).view(-1, by_degree.size(1), by_degree.size(2))  # [E, L, R]
        a = cp_message(u, b, w, edges)  # [n_centres, R, C]
        return component_linear(a, self.factors.output * self.norm)


class NodeProduct(nn.Module):
    """Many-body features: products of a node's messages up to order ``correlation``.

    Channel by channel, y = g1 m + g2 (m x m) + g3 ((m x m) x m) + ..., where x is the CP product.
    Weights per species, degree and channel sit on every input and output, which gives each coupling
    path (l1, l2, l3) the weight a_l1 b_l2 g_l3. The result is multiplied by ``norm`` (measured, see
    `tdn.network.initial_norms`).

    Parameters
    ----------
    l_max, l_max_out : highest degree of the input and of the output
    """

    norm: Tensor
    first_component: Tensor

    def __init__(
        self,
        num_species: int,
        num_channels: int,
        l_max: int,
        l_max_out: int,
        correlation: int,
        factors: CPFactors,
    ) -> None:
        super().__init__()
        self.components_out = num_components(l_max_out)
        self.register_buffer("norm", torch.ones(self.components_out, 1))
        first = torch.tensor([l * l for l in range(l_max_out + 1)])
        self.register_buffer("first_component", first, persistent=False)
        self.linear = DegreeScale(num_species, num_channels, l_max_out, 0.0, 1.0)
        self.left = nn.ModuleList()
        self.right = nn.ModuleList()
        self.weight = nn.ModuleList()
        self.products = nn.ModuleList()
        for order in range(2, correlation + 1):
            last = order == correlation
            kept = l_max_out if last else None
            self.left.append(DegreeScale(num_species, num_channels, l_max, 1.0, 0.5))
            self.right.append(DegreeScale(num_species, num_channels, l_max, 1.0, 0.5))
            self.weight.append(DegreeScale(num_species, num_channels, l_max_out, 0.0, 0.5))
            self.products.append(CPMatrices.from_factors(factors, kept))

    def forward(self, m: Tensor, species: Tensor) -> Tensor:  # [N, D, C] -> [N, D_out, C]
        left, right, weight, matrices = [], [], [], []  # loops: TorchScript unrolls them
        for scale in self.left:
            left.append(scale.weight)
        for scale in self.right:
            right.append(scale.weight)
        for scale in self.weight:
            weight.append(scale.weight)
        for factors in self.products:
            matrices.extend([factors.input1, factors.input2, factors.output])
        if len(matrices) == 0:
            return self.linear(m[:, : self.components_out], species) * self.norm
        # the factors are the same for all orders, but the last lack outputs that nobody needs
        output = nn.functional.pad(matrices[2], [0, 0, 0, m.size(1) - matrices[2].size(0)])
        by_degree = self.norm[self.first_component]  # norms are equal within a degree
        return node_product(
            m,
            species,
            self.linear.weight * by_degree,
            torch.stack(left),
            torch.stack(right),
            torch.stack(weight) * by_degree,
            matrices[0],
            matrices[1],
            output,
        )
