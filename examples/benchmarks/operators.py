"""Time of the operators: compiled, as TorchScript and eager, beside what the machine could do.

    python examples/benchmarks/operators.py --atoms 1000 --neighbours 40 -o operators.png
    python examples/benchmarks/operators.py --device cuda

First `cp_message` on random edges. ``copy`` is the time a plain copy takes to move the bytes that
the operator has to read and write at least (inputs and results once each; a copy reads half of them
and writes half), ``arithmetic`` that of its additions and multiplications at the rate of a
matrix product; neither can be beaten. Then the operators of a compiled network on a copper crystal,
and the others of training (`training_operators`).
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from measure import (
    Table,
    add_device,
    best_times,
    chosen_device,
    figure,
    grouped_bars,
    keep_memory,
    machine,
    parser,
    positive,
    require_compiled,
)
from models import NETWORKS, build_random
from systems import system
from torch import Tensor, nn
from training_operators import compare_training_operators

from tdn import ops
from tdn.graph import graph_from_atoms
from tdn.inference.network import inference_network
from tdn.ops import Edges, reference
from tdn.system.command import run_main
from tdn_export.script import script

MATRIX = 1536  # size of the matrices that show the rate of arithmetic


class ReferenceMessage(nn.Module):
    """The reference of `tdn.ops.cp_message` as a module, for TorchScript."""

    def forward(self, u: Tensor, b: Tensor, w: Tensor, edges: Edges) -> Tensor:
        return reference.cp_message(u, b, w, edges)


@dataclass
class Problem:
    """Inputs of `cp_message` and the work they are."""

    u: Tensor  # [N, R, C]
    b: Tensor  # [E, L, R]
    w: Tensor  # [E, L, C]
    edges: Edges

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.u, self.b, self.w

    def bytes(self) -> dict[str, float]:
        """What has to be moved, inputs and results once each."""
        size = self.u.element_size()
        inputs = size * sum(x.numel() for x in self.inputs)
        output = size * self.u.numel()  # as many centres as nodes
        forward = inputs + output
        first = forward + (inputs + output) + inputs  # inputs and g in, gradients out
        # the gradients of the gradients with respect to u, b, w and g: as much in and out again
        second = first + 2 * (inputs + output) + inputs
        return dict(zip(CASES, (forward, first, second)))

    def operations(self) -> dict[str, float]:
        """Additions and multiplications, counting what the formula shares between terms once."""
        edges, degrees, _ = self.w.shape
        elements = edges * self.u.size(1) * self.u.size(2)
        forward = elements * (2 * degrees + 2)
        # gradients: the coupling again and times g, the product g u, and its sums for b and w
        first = forward + elements * (2 * degrees + 2 + 1 + 4 * degrees)
        return dict(zip(CASES, (forward, first)))


CASES = ("forward", "+ backward", "+ double backward")


def make_problem(arguments: argparse.Namespace) -> Problem:
    """Random edges; neighbours in memory are neighbours in space, as LAMMPS sorts its atoms."""
    torch.manual_seed(0)
    n, e = arguments.atoms, arguments.atoms * arguments.neighbours
    device = arguments.device
    centre = torch.arange(n).repeat_interleave(arguments.neighbours)
    neighbour = (centre + torch.randint(-100, 101, (e,))) % n
    edge_index = torch.stack([centre, neighbour]).to(device)
    shapes = (
        (n, arguments.rank, arguments.channels),
        (e, arguments.degrees, arguments.rank),
        (e, arguments.degrees, arguments.channels),
    )
    inputs = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
    return Problem(*inputs, ops.sort_edges(edge_index, n, n))


def message_cases(
    function: Callable[..., Tensor], problem: Problem
) -> dict[str, Callable[[], object]]:
    """Forward, with first derivatives, and with the second derivatives that force losses need."""
    cotangent = torch.randn_like(problem.u)
    cotangents = [torch.randn_like(x) for x in problem.inputs]

    def forward() -> None:
        with torch.no_grad():
            function(*problem.inputs, problem.edges)

    def backward(create_graph: bool = False) -> tuple[Tensor, ...]:
        a = function(*problem.inputs, problem.edges)
        return torch.autograd.grad(a, problem.inputs, cotangent, create_graph=create_graph)

    def double_backward() -> tuple[Tensor, ...]:
        leaf = cotangent.requires_grad_(True)
        a = function(*problem.inputs, problem.edges)
        gradients = torch.autograd.grad(a, problem.inputs, leaf, create_graph=True)
        return torch.autograd.grad(gradients, (*problem.inputs, leaf), cotangents)

    return dict(zip(CASES, (forward, backward, double_backward)))


def compare_messages(problem: Problem, repeats: int, path) -> None:
    """The table of `cp_message`."""
    routes = {
        "fused": ops.cp_message,
        "TorchScript": script(ReferenceMessage()),
        "eager": reference.cp_message,
    }
    cases = {name: message_cases(function, problem) for name, function in routes.items()}
    moved, operations = problem.bytes(), problem.operations()
    device = problem.u.device
    a, b = (torch.randn(MATRIX, MATRIX, device=device) for _ in range(2))
    table = Table(
        {"cp_message (ms)": 18, "fused": 9, "TorchScript": 9, "eager": 9, "eager/fused": 9}
        | {"copy": 8, "fused/copy": 8, "MB": 6, "arithmetic": 8, "GFlop": 6}
    )
    bars: dict[str, list[float | None]] = {name: [] for name in [*routes, "copy", "arithmetic"]}
    rates = []
    for case in CASES:
        # half of the bytes, in numbers of four
        source = torch.ones(int(moved[case]) // 8, device=device)
        target = torch.zeros_like(source)
        times = best_times(
            {name: functions[case] for name, functions in cases.items()}
            | {"copy": lambda s=source, t=target: t.copy_(s), "mm": lambda: torch.mm(a, b)},
            repeats,
            device=device,
        )
        rate = 2 * MATRIX**3 / times["mm"]
        rates.append((moved[case] / times["copy"], rate))
        arithmetic = operations[case] / rate if case in operations else None
        found = [times["fused"], times["TorchScript"], times["eager"]]
        for name, value in zip(bars, [*found, times["copy"], arithmetic]):
            bars[name].append(None if value is None else value * 1e3)
        table.row(
            case,
            *(1e3 * t for t in found),
            times["eager"] / times["fused"],
            1e3 * times["copy"],
            times["fused"] / times["copy"],
            moved[case] / 1e6,
            None if arithmetic is None else 1e3 * arithmetic,
            None if arithmetic is None else operations[case] / 1e9,
        )
    copy, product = (max(values) for values in zip(*rates))
    print(
        f"copy {copy / 1e9:.1f} GB/s (read and written), matrix product {product / 1e9:.0f} GFlop/s"
    )
    with figure(path) as axes:
        if axes is not None:
            grouped_bars(axes, list(CASES), bars)
            axes.set_yscale("log")
            axes.set_ylabel("milliseconds")
            shape = list(problem.u.shape)
            axes.set_title(f"cp_message, u {shape}, {len(problem.b)} edges", fontsize=9)


def network_operators(
    name: str, num_atoms: int, device: torch.device
) -> dict[str, tuple[Callable[..., Tensor], list[Tensor], list]]:
    """Function, differentiable inputs and further arguments of the operators in a network."""
    model = build_random(NETWORKS[name], "copper")
    network = inference_network(model, torch.float32).to(device)
    graph = graph_from_atoms(system("copper", num_atoms), model.atomic_numbers, model.r_max)
    graph = graph.to(device)
    edges = ops.sort_edges(graph.edge_index, num_atoms, num_atoms)
    first, later = network.first, network.layers[0]
    vectors = graph.edge_vec.detach().requires_grad_(True)
    shape = num_atoms, len(later.input1), later.mix.size(2)
    features = torch.randn(shape, dtype=torch.float32, device=device, requires_grad=True)
    product = first.product
    weights = [getattr(product, n) for n in ("linear", "left", "right", "weight")]
    factors = [product.input1, product.input2, product.output]
    radial = [model.r_max, first.stretch]

    def convolution(x: Tensor, edge_vec: Tensor) -> Tensor:
        return ops.convolution(
            x, edge_vec, graph.species, later.table, *radial,
            later.input1, later.input2, later.output, edges,
        )  # fmt: skip

    def density(edge_vec: Tensor) -> Tensor:
        return ops.density(edge_vec, graph.species, first.table, *radial, first.num_channels, edges)

    def node_product(m: Tensor) -> Tensor:
        return ops.node_product(m, graph.species, *weights, *factors)

    return {
        f"convolution, {graph.num_edges} edges": (convolution, [features, vectors]),
        f"density, {graph.num_edges} edges": (density, [vectors]),
        f"node_product, {num_atoms} atoms": (node_product, [features]),
    }


def compare_network_operators(
    name: str, num_atoms: int, repeats: int, device: torch.device
) -> None:
    """The table of the operators for inference."""
    table = Table({f"{name} network, copper (ms)": 32, "fused": 9, "eager": 9, "eager/fused": 9})
    for title, (function, inputs) in network_operators(name, num_atoms, device).items():
        cotangent = torch.randn_like(function(*inputs).detach())

        def forward(function=function, inputs=inputs) -> None:
            with torch.no_grad():
                function(*inputs)

        def backward(function=function, inputs=inputs, cotangent=cotangent) -> None:
            torch.autograd.grad(function(*inputs), inputs, cotangent)

        def slow(run: Callable[[], None]) -> None:
            with ops.use_reference():
                run()

        for suffix, run in (("", forward), (" + backward", backward)):
            routes = {"fused": run, "eager": lambda run=run: slow(run)}
            times = best_times(routes, repeats, device=device)
            fused, eager = times["fused"], times["eager"]
            table.row(title + suffix, 1e3 * fused, 1e3 * eager, eager / fused)


def _main() -> int:
    command = parser(__doc__)
    command.add_argument("--atoms", type=positive, default=1000, help="a multiple of 4")
    command.add_argument("--neighbours", type=positive, default=40)
    command.add_argument("--rank", type=positive, default=17)
    command.add_argument("--channels", type=positive, default=64)
    command.add_argument("--degrees", type=positive, default=3)
    command.add_argument("--repeats", type=positive, default=10)
    add_device(command)
    arguments = command.parse_args()
    if arguments.quick:
        arguments.atoms, arguments.repeats = 32, 2
    require_compiled()
    arguments.device = chosen_device(arguments)
    print(machine(arguments.device))
    print(
        f"cp_message: {arguments.atoms} atoms, {arguments.atoms * arguments.neighbours} edges, "
        f"rank {arguments.rank}, {arguments.channels} channels, {arguments.degrees} degrees, "
        "float32\n"
    )
    name = "small" if arguments.quick else "default"
    for kept in (False, True):
        if kept:
            keep_memory()
            print("\nThe same where the process keeps memory that it frees (mallopt):\n")
        output = None if kept else arguments.output
        compare_messages(make_problem(arguments), arguments.repeats, output)
        print()
        compare_network_operators(name, arguments.atoms, arguments.repeats, arguments.device)
        print()
        compare_training_operators(name, arguments.atoms, arguments.repeats, arguments.device)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "operators.py"))
