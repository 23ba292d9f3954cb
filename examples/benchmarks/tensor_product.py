"""Time, memory and equivariance error of one equivariant product, at equal function.

Two functions, each with parity paths and with all paths of SO(3):

- ``message``: m_i = sum_j w_ij * M(x_j, Y(r_ij)), C channels, e3nn's mode uvu with one weight per
  channel and edge for all paths. ``e3nn uvu`` gets that weight for every path.
- ``connected``: z_ij = sum_p W_p M_p(x_j, Y(r_ij)), a C x C matrix for each path and all edges, as
  ``e3nn.o3.FullyConnectedTensorProduct`` has them; no sum over neighbors.

Routes of both are in `tensor_product_routes`.

    python examples/benchmarks/tensor_product.py --edges 2000 --l-max 4 -o tensor_product.png
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from e3nn import o3
from measure import machine
from tensor_product_routes import (
    Problem,
    Route,
    connected,
    e3nn_connected,
    e3nn_uvu,
    matrix_in_pytorch,
    matrix_per_edge,
    rank_space_on_edges,
    rank_space_on_nodes,
)
from torch import Tensor

from tdn.cp import load_factors, paper_rank, shipped_ranks
from tdn.cp.equivariance import wigner_d
from tdn.ops import sort_edges

# for fewer paths e3nn takes minutes at the highest degrees
LARGEST = {"parity": 6, "all": 4}


@dataclass
class Row:
    """One line of the table."""

    paths: str
    l_max: int
    route: str
    rank: int
    forward: float  # s
    backward: float  # s, forward and backward together
    memory: float  # MiB
    error: float  # of the function
    equivariance: float


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Shortest of several runs."""
    best, spent = float("inf"), 0.0
    function()
    while spent < 0.3:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
        spent += time.perf_counter() - began
    return best


def _status(key: str) -> float:
    """A memory field of this process, MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")


def peak_memory(function: Callable[[], object], device: torch.device) -> float:
    """Memory on top of the inputs, MiB: allocated on a GPU, resident on a CPU (Linux only)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # freed blocks of earlier routes
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _status("VmRSS")
    except (OSError, AttributeError):
        return float("nan")
    function()
    return _status("VmHWM") - before


def equivariance(route: Route, x: Tensor, y: Tensor, w: Tensor, l_max: int) -> float:
    """||f(Rx, RY) - R f(x, Y)|| / ||f(x, Y)|| for one rotation, in the dtype of the inputs."""
    d = torch.as_tensor(wigner_d(l_max, torch.tensor([0.4, -1.1, 0.7]).numpy())).to(x)
    expected = d @ route(x, y, w)
    return ((route(d @ x, y @ d.t(), w) - expected).norm() / expected.norm()).item()


def problem(l_max: int, paths: str, arguments: argparse.Namespace) -> Problem:
    """Random features, directions and weights."""
    device = torch.device(arguments.device)
    num_nodes = max(arguments.edges // arguments.neighbours, 1)
    generator = torch.Generator().manual_seed(0)
    center = torch.arange(arguments.edges) % num_nodes
    neighbor = torch.randint(num_nodes, (arguments.edges,), generator=generator)
    edge_index = torch.stack([center.sort().values, neighbor]).to(device)
    vectors = torch.randn(arguments.edges, 3, generator=generator)
    y = o3.spherical_harmonics(list(range(l_max + 1)), vectors, True, normalization="component")
    dim = (l_max + 1) ** 2
    return Problem(
        load_factors(l_max, paths, None if (paths, l_max) in shipped_ranks() else 214),
        sort_edges(edge_index, num_nodes, num_nodes),
        torch.randn(num_nodes, dim, arguments.channels, generator=generator).to(device),
        y.to(device),
        torch.randn(arguments.edges, arguments.channels, generator=generator).to(device),
    )


def benchmark(l_max: int, paths: str, arguments: argparse.Namespace) -> list[Row]:
    """All routes at one degree; those of one function are held against the first of them."""
    p = problem(l_max, paths, arguments)
    messages: dict[str, tuple[int, Route]] = {
        "message: rank space, edges": (p.factors.rank, rank_space_on_edges(p)),
        "message: rank space, nodes": (p.factors.rank, rank_space_on_nodes(p)),
        "message: matrix per edge": (p.factors.rank, matrix_per_edge(p)),
        "message: matrix, PyTorch": (p.factors.rank, matrix_in_pytorch(p)),
        "message: e3nn uvu": (0, e3nn_uvu(p)),
    }
    if paths == "all":
        rank = paper_rank("7L^2", l_max)
        released = load_factors(l_max, "all", rank, free_coefficients=False)
        messages["message: released rank"] = (rank, matrix_per_edge(p, released))
    rows = compare(p, messages, p.w, arguments)
    if l_max <= 4:
        count = len(p.factors.coupling_paths)
        generator = torch.Generator().manual_seed(1)
        w = torch.randn(count, p.channels, p.channels, generator=generator).to(p.x)
        rows += compare(
            p,
            {
                "connected: CPTensorProduct": (p.factors.rank, connected(p)),
                "connected: e3nn": (0, e3nn_connected(p)),
            },
            w,
            arguments,
        )
    return rows


def compare(
    p: Problem, routes: dict[str, tuple[int, Route]], w: Tensor, arguments: argparse.Namespace
) -> list[Row]:
    """Measure routes of one function."""
    device = torch.device(arguments.device)
    rows = []
    reference = next(iter(routes.values()))[1](p.x, p.y, w)
    for name, (rank, route) in routes.items():
        error = float((route(p.x, p.y, w) - reference).norm() / reference.norm())
        if "released" not in name and error > 1e-3:
            raise RuntimeError(f"{name} computes another function: difference {error:.1e}")
        leaves = [t.clone().requires_grad_() for t in (p.x, p.y, w)]

        def both(route: Route = route, leaves: list[Tensor] = leaves) -> None:
            torch.autograd.grad(route(*leaves).square().sum(), leaves)

        def forward(route: Route = route) -> Tensor:
            return route(p.x, p.y, w)

        rows.append(
            Row(
                p.factors.paths,
                p.factors.l_max,
                name,
                rank,
                seconds(forward, device),
                seconds(both, device),
                peak_memory(both, device),
                error,
                equivariance(route, p.x, p.y, w, p.factors.l_max),
            )
        )
    return rows


def figure(rows: list[Row], path: Path, title: str) -> None:
    """Time and memory of a message against l_max, one line per route; solid for parity paths."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(13, 4))
    panels = (
        ("forward", "time, forward (ms)", 1e3),
        ("backward", "time, forward + backward (ms)", 1e3),
        ("memory", "peak memory (MiB)", 1),
    )
    names = [n for n in dict.fromkeys(row.route for row in rows) if n.startswith("message")]
    for axis, (field, label, factor) in zip(axes, panels, strict=True):
        for number, name in enumerate(names):
            for paths, style in (("parity", "o-"), ("all", "s--")):
                points = [row for row in rows if (row.route, row.paths) == (name, paths)]
                axis.semilogy(
                    [row.l_max for row in points],
                    [factor * getattr(row, field) for row in points],
                    style,
                    color=f"C{number}",
                    label=f"{name.partition(': ')[2]}, {paths}" if points else None,
                )
        axis.set_xlabel("l_max")
        axis.set_ylabel(label)
    axes[0].legend(fontsize=6)
    fig.suptitle(title)
    fig.tight_layout()
    fig.savefig(path, dpi=150)


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", type=int, default=4000)
    parser.add_argument("--neighbours", type=int, default=40, help="edges per node")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--l-max", type=int, default=6, help="all paths: at most 4")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--output", type=Path, default=Path("tensor_product.png"))
    arguments = parser.parse_args()
    if not 1 <= arguments.l_max <= LARGEST["parity"]:
        parser.error(f"--l-max is {arguments.l_max}, expected 1 to {LARGEST['parity']}")
    rows: list[Row] = []
    title = (
        f"{arguments.edges} edges, {arguments.neighbours} of a node, {arguments.channels} "
        f"channels, float32, {arguments.device}, {torch.get_num_threads()} threads"
    )
    print(f"{machine()}\n{title}\n")
    header = (
        "paths",
        "l_max",
        "route",
        "rank",
        "fwd (ms)",
        "fwd+bwd (ms)",
        "MiB",
        "error",
        "equi.",
    )
    print("{:<6} {:>5}  {:<26} {:>4} {:>9} {:>12} {:>8} {:>8} {:>8}".format(*header))
    for paths, largest in LARGEST.items():
        for l_max in range(1, min(arguments.l_max, largest) + 1):
            for row in benchmark(l_max, paths, arguments):
                rows.append(row)
                print(
                    f"{row.paths:<6} {row.l_max:>5}  {row.route:<26} {row.rank or '-':>4} "
                    f"{1e3 * row.forward:>9.2f} {1e3 * row.backward:>12.2f} {row.memory:>8.1f} "
                    f"{row.error:>8.1e} {row.equivariance:>8.1e}",
                    flush=True,
                )
    figure(rows, arguments.output, title)
    print(f"figure: {arguments.output}")


if __name__ == "__main__":
    main()
