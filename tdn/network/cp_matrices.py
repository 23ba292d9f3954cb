"""The factor matrices of a CP decomposition in a network."""

import numpy as np
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
