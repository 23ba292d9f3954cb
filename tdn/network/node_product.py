"""Products of a node's messages with themselves."""

import torch
from torch import Tensor, nn

from tdn.ops import node_product

from .cp_matrices import CPMatrices
from .layers import DegreeScale, num_components


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
        factors: CPMatrices,
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
            kept = l_max_out if order == correlation else l_max
            self.left.append(DegreeScale(num_species, num_channels, l_max, 1.0, 0.5))
            self.right.append(DegreeScale(num_species, num_channels, l_max, 1.0, 0.5))
            self.weight.append(DegreeScale(num_species, num_channels, l_max_out, 0.0, 0.5))
            self.products.append(factors.up_to(kept))

    def forward(self, m: Tensor, species: Tensor) -> Tensor:  # [N, D, C] -> [N, D_out, C]
        matrices = []  # a loop, which TorchScript unrolls also where there are none
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
            torch.stack([scale.weight for scale in self.left]),
            torch.stack([scale.weight for scale in self.right]),
            torch.stack([scale.weight for scale in self.weight]) * by_degree,
            matrices[0],
            matrices[1],
            output,
        )
