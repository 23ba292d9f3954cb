"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for weights that are matrices.

Adam scales each weight by the size of its own gradients, which helps where single weights are the
directions of large and small curvature. For a matrix that mixes channels, with gradients G, those
directions are rather the eigenvectors of the means of G G^T and G^T G: SOAP (Vyas et al., arXiv
2409.11321) runs Adam in that basis and renews it every few steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# moments of gradients, and averages of G G^T and G^T G, over some twenty steps
DECAY = 0.95
# steps between renewals of the bases
RENEWAL = 10
# directions whose gradients are smaller than this part of the mean are noise of rounding, as those
# that no atom has a part in; they move less than the others
EPSILON = 1e-5
# a matrix with few gradients so far has directions without any: this part of the mean eigenvalue,
# more for the first weights than for the last, decides on a basis there, not rounding
RIDGE = 1e-5


def _with_ridge(gram: Tensor) -> Tensor:
    """Symmetric matrices [B, n, n] with a little on the diagonal."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    weights = torch.linspace(1, 0.5, gram.size(-1), dtype=gram.dtype, device=gram.device)
    return gram + torch.diag_embed(RIDGE * diagonal.mean(dim=-1, keepdim=True) * weights)


def _eigenvectors(gram: Tensor) -> Tensor:
    """Of symmetric matrices [B, n, n], in columns, the largest eigenvalue first."""
    return torch.linalg.eigh(_with_ridge(gram))[1].flip(-1).contiguous()


def _renewed(basis: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    """One step of the power iteration, and the order of the old vectors by their eigenvalues.

    Parameters
    ----------
    basis : [B, n, n], eigenvectors in columns, roughly
    gram : [B, n, n], symmetric
    """
    image = _with_ridge(gram) @ basis
    values = (basis * image).sum(dim=-2)  # [B, n]
    order = values.argsort(dim=-1, descending=True)
    image = image.gather(-1, order.unsqueeze(-2).expand_as(image))
    return torch.linalg.qr(image)[0], order


class Soap(torch.optim.Optimizer):
    """SOAP for many small matrices that lie in one array; those of equal shape are one batch.

    The first gradient only gives the bases.

    Parameters
    ----------
    flat : all weights in one array, with its gradient
    blocks : where in ``flat`` the matrices start, and their shapes [..., n, m]
    lr : learning rate; updates are of its size, as those of Adam
    weight_decay : decoupled, as that of AdamW
    """

    def __init__(
        self,
        flat: Tensor,
        blocks: Sequence[tuple[int, torch.Size]],
        lr: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__([flat], {"lr": lr, "weight_decay": weight_decay})
        self._by_shape: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for start, shape in blocks:
            if shape.numel():  # a layer that gives scalars only has no gates
                place = (start, start + shape.numel())
                self._by_shape.setdefault((shape[-2], shape[-1]), []).append(place)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update from the gradient."""
        (group,) = self.param_groups
        (flat,) = group["params"]
        state = self.state[flat]
        # a tensor, as in other optimizers: states hold tensors
        state["step"] = state.get("step", torch.zeros((), dtype=torch.float32)) + 1
        number = int(state["step"])
        flat.mul_(1 - group["lr"] * group["weight_decay"])
        for (n, m), places in self._by_shape.items():
            gradient = torch.cat([flat.grad[start:end].view(-1, n, m) for start, end in places])
            name = f"{n}x{m}"
            if number == 1:
                state[name] = self._start(gradient)
                continue
            update = self._update(state[name], gradient, number - 1).flatten()
            sizes = [end - start for start, end in places]
            for (start, end), part in zip(places, update.split(sizes), strict=True):
                flat[start:end].sub_(part, alpha=group["lr"])

    @staticmethod
    def _start(gradient: Tensor) -> dict[str, Tensor]:
        """Bases from the first gradient [B, n, m], and moments of zero."""
        left, right = gradient @ gradient.mT, gradient.mT @ gradient
        return {
            "exp_avg": torch.zeros_like(gradient),
            "exp_avg_sq": torch.zeros_like(gradient),
            "left": (1 - DECAY) * left,
            "right": (1 - DECAY) * right,
            "left_basis": _eigenvectors(left),
            "right_basis": _eigenvectors(right),
        }

    @staticmethod
    def _update(state: dict[str, Tensor], gradient: Tensor, number: int) -> Tensor:
        """The step of Adam number ``number`` in the bases, in the weights' own basis again."""
        left, right = state["left_basis"], state["right_basis"]
        rotated = left.mT @ gradient @ right
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(gradient, 1 - DECAY)
        square.lerp_(rotated.square(), 1 - DECAY)
        correction = 1 - DECAY**number
        size = (square / correction).sqrt()
        floor = EPSILON * (square.mean(dim=(-2, -1), keepdim=True) / correction).sqrt()
        # gradients of exactly zero would give 0 / 0
        floor.clamp_(min=torch.finfo(floor.dtype).tiny)
        update = left @ (left.mT @ (mean / correction) @ right / (size + floor)) @ right.mT
        state["left"].lerp_(gradient @ gradient.mT, 1 - DECAY)
        state["right"].lerp_(gradient.mT @ gradient, 1 - DECAY)
        if number % RENEWAL == 1:
            state["left_basis"], order = _renewed(left, state["left"])
            square = square.gather(-2, order.unsqueeze(-1).expand_as(square))
            state["right_basis"], order = _renewed(right, state["right"])
            state["exp_avg_sq"] = square.gather(-1, order.unsqueeze(-2).expand_as(square))
        return update
