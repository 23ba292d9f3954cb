"""Time of the message operator: compiled against the pure-torch reference, in one run.

python examples/benchmarks/operators.py --atoms 1000 --neighbours 40
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from tdn import ops


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Shortest of some runs in milliseconds: what the machine can do when left alone."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def cases(inputs: tuple, edges: ops.Edges) -> dict[str, Callable[[], object]]:
    """Forward, with first derivatives, and with the second derivatives that force losses need."""

    def backward(create_graph: bool = False) -> tuple[torch.Tensor, ...]:
        a = ops.cp_message(*inputs, edges)
        return torch.autograd.grad(a.square().sum(), inputs, create_graph=create_graph)

    def double_backward() -> None:
        sum(g.square().sum() for g in backward(True)).backward()

    def forward() -> None:
        with torch.no_grad():
            ops.cp_message(*inputs, edges)

    return {"forward": forward, "forward + backward": backward, "+ second": double_backward}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, default=1000)
    parser.add_argument("--neighbours", type=int, default=40)
    parser.add_argument("--rank", type=int, default=17)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--degrees", type=int, default=3)
    arguments = parser.parse_args()
    n, e = arguments.atoms, arguments.atoms * arguments.neighbours
    torch.manual_seed(0)
    centre = torch.arange(n).repeat_interleave(arguments.neighbours)
    # neighbours in memory are neighbours in space, as LAMMPS sorts its atoms
    neighbour = (centre + torch.randint(-100, 101, (e,))) % n
    edges = ops.sort_edges(torch.stack([centre, neighbour]), n, n)
    inputs = tuple(
        torch.randn(shape, requires_grad=True)
        for shape in (
            (n, arguments.rank, arguments.channels),
            (e, arguments.degrees, arguments.rank),
            (e, arguments.degrees, arguments.channels),
        )
    )
    compiled = "compiled" if ops.is_compiled() else "reference (no compiled library)"
    print(
        f"cp_message: {n} atoms, {e} edges, rank {arguments.rank}, {arguments.channels} channels, "
        f"{arguments.degrees} degrees, float32, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}"
    )
    print(f"{'':20s}{compiled:>14s}{'reference':>14s}{'ratio':>8s}   (milliseconds)")
    for name, function in cases(inputs, edges).items():
        fast = best_time(function, 5)
        with ops.use_reference():
            slow = best_time(function, 2)
        print(f"{name:20s}{fast:14.1f}{slow:14.1f}{slow / fast:8.1f}")


if __name__ == "__main__":
    main()
