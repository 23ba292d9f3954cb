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

from tdn.system.errors import TDNError

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

    The first gradient only gives the bases. The mean gradient is kept in the bases, as everything
    is linear in it, and turned when they are renewed: this saves products of matrices, which are
    most of what a step costs.

    Parameters
    ----------
    flat : all weights in one array, with its gradient
    blocks : where in ``flat`` the matrices start, and their shapes [..., n, m]
    lr : learning rate; updates are of its size, as those of Adam
    weight_decay : decoupled, as that of AdamW
    splits : for each block in how many maps of equal width its columns fall, [n, k, m / k]; one
        for all by default
    """

    def __init__(
        self,
        flat: Tensor,
        blocks: Sequence[tuple[int, torch.Size]],
        lr: float,
        weight_decay: float = 0.0,
        splits: Sequence[int] | None = None,
    ) -> None:
        super().__init__([flat], {"lr": lr, "weight_decay": weight_decay})
        # by shape: where matrices start and end, and how they lie there, [B, n, k, m]
        self._by_shape: dict[tuple[int, int], list[tuple[int, int, tuple[int, ...]]]] = {}
        for (start, shape), split in zip(blocks, splits or [1] * len(blocks), strict=True):
            if shape.numel():  # a layer that gives scalars only has no gates
                n, m = shape[-2], shape[-1] // split
                place = (start, start + shape.numel(), (-1, n, split, m))
                self._by_shape.setdefault((n, m), []).append(place)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update from the gradient."""
        (group,) = self.param_groups
        (flat,) = group["params"]
        state = self.state[flat]
        # a tensor, as in other optimizers: states hold tensors
        state["step"] = state.get("step", torch.zeros((), dtype=torch.float32)) + 1
        number = int(state["step"])
        if group["weight_decay"] > 0:
            flat.mul_(1 - group["lr"] * group["weight_decay"])
        for (n, m), places in self._by_shape.items():
            parts = [flat.grad[start:end].view(lie).transpose(1, 2) for start, end, lie in places]
            gradient = torch.cat([part.reshape(-1, n, m) for part in parts])
            name = f"{n}x{m}"
            if number == 1:
                state[name] = self._start(gradient)
                continue
            update = self._update(state[name], gradient, number - 1)
            sizes = [(end - start) // (n * m) for start, end, _ in places]
            for (start, end, lie), part in zip(places, update.split(sizes), strict=True):
                _, _, split, _ = lie
                part = part.view(-1, split, n, m).transpose(1, 2)
                flat[start:end].view(lie).sub_(part, alpha=group["lr"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of ``state_dict``.

        Raises
        ------
        TDNError
            If the state is that of another version of this optimizer.
        """
        stored = next(iter(state_dict["state"].values()), {})
        names = {f"{n}x{m}" for n, m in self._by_shape}
        if stored and not (
            names | {"step"} == set(stored) and all("mean" in stored[name] for name in names)
        ):
            raise TDNError(
                "the state of the optimizer was written by another version of tdn; start over with "
                "--restart, or from its weights with train.init_from"
            )
        super().load_state_dict(state_dict)

    @staticmethod
    def _start(gradient: Tensor) -> dict[str, Tensor]:
        """Bases from the first gradient [B, n, m], and moments of zero."""
        left, right = gradient @ gradient.mT, gradient.mT @ gradient
        return {
            "mean": torch.zeros_like(gradient),
            "square": torch.zeros_like(gradient),
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
        mean, square = state["mean"], state["square"]
        mean.lerp_(rotated, 1 - DECAY)
        square.lerp_(rotated.square_(), 1 - DECAY)
        correction = 1 - DECAY**number
        size = (square / correction).sqrt_()
        floor = EPSILON * (square.mean(dim=(-2, -1), keepdim=True) / correction).sqrt_()
        # gradients of exactly zero would give 0 / 0
        floor.clamp_(min=torch.finfo(floor.dtype).tiny)
        update = left @ (mean / size.add_(floor).mul_(correction)) @ right.mT
        state["left"].lerp_(gradient @ gradient.mT, 1 - DECAY)
        state["right"].lerp_(gradient.mT @ gradient, 1 - DECAY)
        if number % RENEWAL == 1:
            new_left, order = _renewed(left, state["left"])
            square = square.gather(-2, order.unsqueeze(-1).expand_as(square))
            new_right, order = _renewed(right, state["right"])
            state["square"] = square.gather(-1, order.unsqueeze(-2).expand_as(square))
            state["mean"] = (new_left.mT @ left) @ mean @ (right.mT @ new_right)
            state["left_basis"], state["right_basis"] = new_left, new_right
        return update
