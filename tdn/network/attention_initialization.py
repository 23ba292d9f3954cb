"""Initial weights of the released code of arXiv 2507.01131, for ``constants: released``.

Everywhere else weights start from a normal distribution that keeps unit variance.
"""

import math

import torch
from torch import Tensor, nn

# elements of the one-hot vectors that the released embedding takes
RELEASED_ELEMENTS = 80


def uniform(parameter: Tensor, bound: float) -> None:
    """Draw from [-bound, bound]."""
    nn.init.uniform_(parameter, -bound, bound)


@torch.no_grad()
def draw_released_weights(model: nn.Module) -> None:
    """Draw the weights of an attention network as the released code does.

    Every linear map is uniform within 1 / sqrt(inputs), with a bias of zero; so are the radial
    network's last weights and offset. Rows of the embedding are uniform within one (its map of
    one-hot vectors is multiplied by the root of their length) plus a bias that all elements share.
    The vectors that make logits are drawn after Glorot. Layer norms, Gaussians, and hidden layers
    of the radial network start the same way in either case.

    Parameters
    ----------
    model : `tdn.network.attention_model.AttentionModel`; its parameters change in place
    """
    for name, parameter in model.named_parameters():
        last = name.rpartition(".")[2]
        if name == "embedding":
            uniform(parameter, 1.0)
            shared = torch.empty_like(parameter[0])
            uniform(shared, 1 / math.sqrt(RELEASED_ELEMENTS))
            parameter.add_(shared)
        elif last == "logit_weight":
            uniform(parameter, math.sqrt(6 / sum(parameter.shape)))
        elif last in ("gate", "mixing", "logit_mixing"):
            uniform(parameter, 1 / math.sqrt(parameter.size(0)))
        elif last == "weight" and "hidden" not in name and "norm" not in name:
            # [inputs, outputs], or [inputs] of the heads that give one number
            uniform(parameter, 1 / math.sqrt(parameter.size(0)))
