"""Time, memory and equivariance error of one equivariant message, by four routes.

All routes compute the same function, m_i = sum_j w_ij * M(x_j, Y(r_ij)), with C channels, parity
paths and one radial weight per channel:

- ``CP per edge``: the factors act on every edge, as in arXiv 2507.01131. With exact factors, and
  with the published approximate ones (rank 7 L^2, all paths) where they ship.
- ``CP per node``: the factors act on nodes, edges only multiply and add (``tdn.ops.cp_message``).
- ``dense``: the coupling tensor contracted with Y gives one D x D matrix per edge.
- ``e3nn``: ``e3nn.o3.TensorProduct`` with the same instructions.

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
from torch import Tensor

from tdn.cp import CPFactors, load_factors, paper_rank, shipped_ranks
from tdn.cp.equivariance import wigner_d
from tdn.cp.tensor_product import from_components, to_components, uniform_irreps
from tdn.ops import Edges, cp_message, sort_edges

Route = Callable[[Tensor, Tensor, Tensor], Tensor]  # x [N, D, C], Y [E, D], w [E, C] -> [N, D, C]


@dataclass
class Row:
    """One line of the table."""

    l_max: int
    route: str
    rank: int
    forward: float  # s
    backward: float  # s, forward and backward together
    memory: float  # MiB
    error: float


def per_edge(factors: CPFactors, edges: Edges, num_nodes: int, like: Tensor) -> Route:
    """CP product on every edge."""
    a, b, c = (torch.as_tensor(f).to(like) for f in
               (factors.input1, factors.input2, factors.output))  # fmt: skip

    def route(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        u = a.t() @ x[edges.neighbor]  # [E, R, C]
        message = c @ (u * (y @ b).unsqueeze(-1) * w.unsqueeze(1))  # [E, D, C]
        return x.new_zeros(num_nodes, *message.shape[1:]).index_add(0, edges.center, message)

    return route


def per_node(factors: CPFactors, edges: Edges, like: Tensor) -> Route:
    """CP product with the factors hoisted out of the edges."""
    a, b, c = (torch.as_tensor(f).to(like) for f in
               (factors.input1, factors.input2, factors.output))  # fmt: skip

    def route(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return c @ cp_message(a.t() @ x, (y @ b).unsqueeze(1), w.unsqueeze(1), edges)

    return route


def dense(factors: CPFactors, edges: Edges, num_nodes: int, like: Tensor) -> Route:
    """One D x D matrix per edge."""
    coupling = torch.as_tensor(factors.target()).to(like)

    def route(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        matrix = torch.einsum("kij,ej->eki", coupling, y)
        message = matrix @ x[edges.neighbor] * w.unsqueeze(1)
        return x.new_zeros(num_nodes, *message.shape[1:]).index_add(0, edges.center, message)

    return route


def e3nn_product(
    factors: CPFactors, edges: Edges, num_nodes: int, channels: int, like: Tensor
) -> Route:
    """e3nn's tensor product, uvu, with the same path coefficients."""
    irreps = uniform_irreps(factors.l_max, channels)
    harmonics = uniform_irreps(factors.l_max, 1)
    instructions = [(*path, "uvu", True) for path in factors.coupling_paths]
    product = o3.TensorProduct(
        irreps, harmonics, irreps, instructions, shared_weights=False, internal_weights=False
    ).to(like)
    c = torch.as_tensor(factors.path_coefficients).to(like)

    def route(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        weight = (w.unsqueeze(1) * c[:, None]).flatten(1)
        message = product(from_components(x, irreps)[edges.neighbor], y, weight)
        total = message.new_zeros(num_nodes, message.shape[1])
        return to_components(total.index_add(0, edges.center, message), irreps)

    return route


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


def benchmark(l_max: int, arguments: argparse.Namespace) -> list[Row]:
    """All routes at one degree."""
    device = torch.device(arguments.device)
    num_nodes = max(arguments.edges // arguments.neighbours, 1)
    channels = arguments.channels
    generator = torch.Generator().manual_seed(0)
    centre = torch.arange(arguments.edges) % num_nodes
    neighbour = torch.randint(num_nodes, (arguments.edges,), generator=generator)
    edge_index = torch.stack([centre.sort().values, neighbour]).to(device)
    edges = sort_edges(edge_index, num_nodes, num_nodes)
    dim = (l_max + 1) ** 2
    x = torch.randn(num_nodes, dim, channels, generator=generator).to(device)
    vectors = torch.randn(arguments.edges, 3, generator=generator)
    y = o3.spherical_harmonics(list(range(l_max + 1)), vectors, True, normalization="component").to(
        device
    )
    w = torch.randn(arguments.edges, channels, generator=generator).to(device)

    exact = load_factors(l_max, rank=None if ("parity", l_max) in shipped_ranks() else 214)
    routes: dict[str, tuple[int, Route]] = {}
    if l_max <= 4:
        rank = paper_rank("7L^2", l_max)
        published = load_factors(l_max, "all", rank, free_coefficients=False)
        routes["CP per edge, published"] = (rank, per_edge(published, edges, num_nodes, x))
    routes["CP per edge, exact"] = (exact.rank, per_edge(exact, edges, num_nodes, x))
    routes["CP per node, exact"] = (exact.rank, per_node(exact, edges, x))
    routes["dense"] = (0, dense(exact, edges, num_nodes, x))
    routes["e3nn"] = (0, e3nn_product(exact, edges, num_nodes, channels, x))

    rows = []
    reference = routes["dense"][1](x, y, w)
    for name, (rank, route) in routes.items():
        if "published" not in name:
            torch.testing.assert_close(route(x, y, w), reference, rtol=1e-3, atol=1e-3)
        leaves = [t.clone().requires_grad_() for t in (x, y, w)]

        def both(route: Route = route, leaves: list[Tensor] = leaves) -> None:
            torch.autograd.grad(route(*leaves).square().sum(), leaves)

        def forward(route: Route = route) -> Tensor:
            return route(x, y, w)

        rows.append(
            Row(
                l_max,
                name,
                rank,
                seconds(forward, device),
                seconds(both, device),
                peak_memory(both, device),
                equivariance(route, x, y, w, l_max),
            )
        )
    return rows


def figure(rows: list[Row], path: Path, title: str) -> None:
    """Time and memory against l_max, one line per route."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(13, 4))
    panels = (
        ("backward", "time, forward + backward (ms)", 1e3),
        ("memory", "peak memory (MiB)", 1),
        ("error", "equivariance error (float32)", 1),
    )
    for axis, (field, label, factor) in zip(axes, panels, strict=True):
        for name in dict.fromkeys(row.route for row in rows):
            points = [row for row in rows if row.route == name]
            axis.semilogy(
                [row.l_max for row in points],
                [factor * getattr(row, field) for row in points],
                "o-",
                label=name,
            )
        axis.set_xlabel("l_max")
        axis.set_ylabel(label)
    axes[0].legend(fontsize=8)
    fig.suptitle(title)
    fig.tight_layout()
    fig.savefig(path, dpi=150)


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edges", type=int, default=4000)
    parser.add_argument("--neighbours", type=int, default=40, help="edges per node")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--l-max", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-o", "--output", type=Path, default=Path("tensor_product.png"))
    arguments = parser.parse_args()
    largest = 6
    if not 1 <= arguments.l_max <= largest:
        parser.error(f"--l-max is {arguments.l_max}, expected 1 to {largest}")
    rows: list[Row] = []
    print(machine() + "\n")
    header = ("l_max", "route", "rank", "fwd (ms)", "fwd+bwd (ms)", "MiB", "equivariance")
    print("{:>5}  {:<23} {:>5} {:>10} {:>13} {:>9} {:>13}".format(*header))
    for l_max in range(1, arguments.l_max + 1):
        for row in benchmark(l_max, arguments):
            rows.append(row)
            print(
                f"{row.l_max:>5}  {row.route:<23} {row.rank or '-':>5} {1e3 * row.forward:>10.2f} "
                f"{1e3 * row.backward:>13.2f} {row.memory:>9.1f} {row.error:>13.1e}",
                flush=True,
            )
    title = f"{arguments.edges} edges, {arguments.channels} channels, {arguments.device}"
    figure(rows, arguments.output, title)
    print(f"figure: {arguments.output}")


if __name__ == "__main__":
    main()
