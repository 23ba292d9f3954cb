"""Where the time of one step goes: the operators of a compiled network under PyTorch's profiler.

    python examples/benchmarks/profile_step.py -o profile_step.png

The profiler sees the network alone; what LAMMPS adds (neighbour lists, communication, integration)
stands in the table of lammps_md.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from measure import (
    Table,
    best_times,
    figure,
    files,
    machine,
    parser,
    positive,
    require_compiled,
)
from models import NETWORKS, compiled_file, describe
from systems import system
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tdn.graph import graph_from_atoms
from tdn.inference.compiled_model import CompiledModel, load_compiled
from tdn.inference.pair_list import pair_list
from tdn.inference.torchscript import plain_execution
from tdn.system.command import run_main

# operators by name; each is one pass over the pairs with everything at the nodes behind it
GROUPS = {
    "layers but the last": ("tdn::pair_forward",),
    "last layer, its adjoint at nodes": ("tdn::pair_last",),
    "adjoint of pairs, and below": ("tdn::pair_backward",),
    "checks, sums": ("tdn::pair_sums", "aten::sum"),
}
REST = "rest"
SKIN = 1.0  # angstrom, of the list of pairs, as in lammps_md.py


def evaluate(model: CompiledModel, pairs: tuple[Tensor, ...], workspace: Tensor) -> None:
    """What LAMMPS calls in every step."""
    with plain_execution():
        model.module.from_positions(*pairs, False, workspace)


def grouped(evaluation: Callable[[], None], repeats: int) -> tuple[dict[str, float], dict]:
    """Mean seconds of an evaluation by `GROUPS`, and the rest by operator."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for _ in range(repeats):
            evaluation()
    # operators of the rest by name
    others: dict[str, float] = {}
    group_of = {operator: group for group, names in GROUPS.items() for operator in names}
    times = dict.fromkeys([*GROUPS, REST], 0.0)
    for event in profiler.key_averages():
        seconds = event.self_cpu_time_total / 1e6 / repeats
        times[group_of.get(event.key, REST)] += seconds
        if event.key not in group_of:
            others[event.key] = seconds
    return times, others


def _main() -> int:
    command = parser(__doc__)
    command.add_argument("--network", choices=list(NETWORKS), default="default")
    command.add_argument("--material", choices=("water", "copper"), default="water")
    command.add_argument("--atoms", type=positive, default=1536)
    command.add_argument("--repeats", type=positive, default=10)
    arguments = command.parse_args()
    if arguments.quick:
        arguments.network, arguments.atoms, arguments.repeats = "small", 96, 2
    require_compiled()
    print(machine())
    print(
        f"{describe(arguments.network)}; {arguments.material}, {arguments.atoms} atoms, float32\n"
    )
    with files(arguments.files) as folder:
        model = load_compiled(compiled_file(arguments.network, arguments.material, folder))
    atoms = system(arguments.material, arguments.atoms)
    pairs = pair_list(graph_from_atoms(atoms, model.atomic_numbers, model.r_max + SKIN))
    step = partial(evaluate, model, pairs, torch.empty(0, dtype=torch.float32))
    plain = best_times({"step": step}, arguments.repeats)["step"]
    times, others = grouped(step, arguments.repeats)
    total = sum(times.values())
    table = Table({"": 32, "us per atom": 11, "percent": 7})
    scale = 1e6 / len(atoms)
    for name, value in times.items():
        table.row(name, scale * value, 100 * value / total)
    table.row("total", scale * total, 100.0)
    largest = sorted(others, key=others.get, reverse=True)[:5]
    print("most of the rest: " + ", ".join(f"{n} {scale * others[n]:.2g}" for n in largest))
    print(f"\nwithout the profiler, best: {scale * plain:.3g} microseconds per atom")
    with figure(arguments.output, height=3.6) as axes:
        if axes is not None:
            bars = axes.barh(list(times), [scale * value for value in times.values()])
            labels = [f"{100 * value / total:.0f} %" for value in times.values()]
            axes.bar_label(bars, labels, fontsize=8, padding=2)
            axes.invert_yaxis()
            axes.set_xlabel("microseconds per atom and step")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "profile_step.py"))
