"""The factor matrices of a CP decomposition in a network."""

import torch
from torch import Tensor, nn

from tdn.cp import CPFactors

from .layers import num_components


class CPMatrices(nn.Module):
    """The three factor matrices of a CP decomposition as buffers, each [D, R].

    They travel inside checkpoints: weights belong to the factors they were trained with, and a
    later release may ship others of the same rank.
    """

    input1: Tensor
    input2: Tensor
    output: Tensor

    def __init__(self, input1: Tensor, input2: Tensor, output: Tensor) -> None:
        super().__init__()
        for name, matrix in (("input1", input1), ("input2", input2), ("output", output)):
            self.register_buffer(name, matrix.to(torch.float64, copy=True))

    @classmethod
    def from_factors(cls, factors: CPFactors) -> "CPMatrices":
        """Shipped factors, or those of the solver."""
        return cls(*map(torch.from_numpy, (factors.input1, factors.input2, factors.output)))

    @classmethod
    def empty(cls, l_max: int, rank: int) -> "CPMatrices":
        """Zeros, in the place of the matrices of a state that will be loaded."""
        return cls(*torch.zeros(3, num_components(l_max), rank))

    @classmethod
    def of_scalars(cls, l_max: int) -> "CPMatrices":
        """Exact factors of the product of scalars with spherical harmonics: rank D, m = w Y x."""
        identity = torch.eye(num_components(l_max))
        return cls(torch.ones(1, len(identity)), identity, identity)

    def matrices(self, harmonics: Tensor) -> Tensor:
        """The coupling tensor contracted with harmonics, [E, D] -> [E, D, D].

        Row k and column i of an edge hold what component i of the features gives to component k of
        the product. Made once, they serve all channels and layers, each of them at D^2
        multiplications per edge and channel instead of 2 D R in rank space. That pays from a few
        channels on: making them takes D^3.
        """
        size = self.input1.size(0)
        coupling = torch.einsum("kr,ir,jr->jki", self.output, self.input1, self.input2)
        return (harmonics @ coupling.flatten(1)).view(-1, self.output.size(0), size)

    def up_to(self, l_max_out: int) -> "CPMatrices":
        """A copy with the output components up to a degree."""
        return CPMatrices(self.input1, self.input2, self.output[: num_components(l_max_out)])
