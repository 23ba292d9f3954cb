"""Several processes that work on one job, started by ``torchrun``: the ranks of a run.

Sums over ranks are written out instead of wrapping the network in torch's
`DistributedDataParallel`. Forces are derivatives, so a step differentiates twice and then only with
respect to the weights (``backward(inputs=...)``); the hooks of that wrapper fire during such passes
as well, it averages over ranks where the loss needs a sum, and it waits forever for a rank that has
no frame of a batch. One sum of one flat buffer has none of these troubles and a fixed order.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .command import run_main
from .devices import select_device
from .errors import TDNError, UsageError

# how long a rank waits for another one, which may be reading data or writing figures meanwhile
TIMEOUT = datetime.timedelta(hours=2)


@dataclass(frozen=True)
class Ranks:
    """This process among those of its job; one alone by default.

    Attributes
    ----------
    rank, size : number of this process, from zero, and of all
    local_rank, local_size : the same on this machine
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes and prints."""
        return self.rank == 0

    def share(self, items: Sequence) -> list:
        """Every ``size``-th item, beginning with that of this rank."""
        return list(items[self.rank :: self.size])

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all ranks, in place; the same bits on every rank."""
        if self.size > 1:
            _collective(dist.all_reduce, values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return bool(self.sum(torch.tensor(float(flag))) > 0) if self.size > 1 else flag

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the values of rank 0, in place."""
        if self.size > 1:
            for tensor in tensors:
                values = tensor.detach().contiguous()
                _collective(dist.broadcast, values, src=0)
                tensor.detach().copy_(values)

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.any(False)

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter], terms: Tensor) -> Tensor:
        """Sum gradients in place; a rank without a frame takes part with zeros.

        Parameters
        ----------
        parameters : with gradients
        terms : float64 [K], numbers to be summed on the way

        Returns
        -------
        float64 [K], the sums of ``terms``
        """
        if self.size == 1:
            return terms
        # float64, so that the sum of float32 gradients is rounded once, whatever its order
        flat = torch.cat([terms, *(p.grad.flatten().to(torch.float64) for p in parameters)])
        self.sum(flat)
        start = len(terms)
        for parameter in parameters:
            count = parameter.numel()
            parameter.grad.copy_(flat[start : start + count].view_as(parameter))
            start += count
        return flat[: len(terms)]

    def device(self, name: str, option: str) -> torch.device:
        """The device of this rank; on GPUs each rank takes one of its own.

        Raises
        ------
        UsageError
            If one GPU is named for several ranks, or a machine has fewer GPUs than ranks.
        """
        device = select_device(name, option)
        if self.size == 1 or device.type != "cuda":
            return device
        if device.index is not None:
            raise UsageError(
                f"{option} = '{name}' names one GPU for {self.size} ranks; use auto or cuda"
            )
        if self.local_size > torch.cuda.device_count():
            raise UsageError(
                f"{self.local_size} ranks on a machine with {torch.cuda.device_count()} GPUs; "
                f"start as many ranks as GPUs, or set {option}=cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)


def _collective(function: Callable, *args: Any, **options: Any) -> None:
    try:
        function(*args, **options)
    except RuntimeError as error:  # what a closed connection gives differs between backends
        reason = " ".join(str(error).split())[:150]
        raise TDNError(
            "the connection to another rank is lost: it has ended (see its message; without one it "
            "was killed, perhaps for lack of memory). Run the same command again to go on "
            f"({reason})"
        ) from None


def run_on_ranks(func: Callable[[Ranks], int | None], prog: str) -> int:
    """`tdn.system.command.run_main` for a command that the ranks of ``torchrun`` run together.

    Rank 0 prints. The first rank to fail reports the error, and its exit code ends the others
    (``torchrun`` sees to that).

    Parameters
    ----------
    func : the command, given the ranks
    prog : name of the command
    """
    environment = {k: int(os.environ.get(k, "0")) for k in ("LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    store, rank, size = next(dist.rendezvous("env://", timeout=TIMEOUT))
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        # on one machine a restart by torchrun meets the store of the ranks that have ended; on
        # several each restart has a store of its own, and counts of restarts may differ
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(f"attempt-{attempt}", store)
    # Functions of this module take the process group as a default argument. Torch imports it by
    # itself at some time; if that is after the group was made, they keep the group's threads alive
    # into the end of the interpreter, where one that is late aborts the process.
    importlib.import_module("torch.distributed.nn")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    ranks = Ranks(rank, size, environment["LOCAL_RANK"], environment["LOCAL_WORLD_SIZE"] or size)

    def guarded() -> int | None:
        try:
            return func(ranks)
        except BaseException:
            if store.add("tdn-failed", 1) > 1:  # another rank has reported already
                return 1
            raise

    with contextlib.ExitStack() as stack:
        if not ranks.main:
            silence = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(silence))
            warnings.showwarning = lambda *args, **options: None
        code = run_main(guarded, prog)
        sys.stderr.flush()
    if code in (0, 130):  # all ranks have come to their end together
        dist.destroy_process_group()
    return code
