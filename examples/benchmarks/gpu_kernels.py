"""Kernels of a step on a GPU: time of each, beside a device copy and a large matrix product.

    python examples/benchmarks/gpu_kernels.py
    python examples/benchmarks/gpu_kernels.py --device cpu --quick

First what the card can do: bytes per second of a copy (read and written) and operations per second
of matrix products, TF32 off. Then the operators that take most of a step, alone, with the bytes
that they cannot avoid (inputs and results once each) and the operations of their formula (couplings
and sums; tables of radial functions and harmonics not counted): the share is that of the larger of
the two times in the measured one. Then a whole evaluation under PyTorch's profiler, by kernel.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_report import Budget, Report, card, gpu_parser
from measure import best_times, chosen_device, files, machine, require_compiled
from models import NETWORKS, compiled_file
from operators import network_operators
from systems import system
from torch.profiler import ProfilerActivity, profile

from tdn.cp import load_factors
from tdn.graph import graph_from_atoms
from tdn.inference.compiled_model import CompiledModel, load_compiled
from tdn.inference.pair_list import pair_list
from tdn.inference.torchscript import plain_execution
from tdn.system.command import run_main

PROFILED = ("default", "nano", "small", "large")
SKIN = 0.5  # angstrom, of the list of pairs
LISTED = 12  # kernels of a network, the longest first


def limits(report: Report, device: torch.device, quick: bool) -> tuple[float, float]:
    """Bytes and float32 operations per second of the device."""
    count, size = (2**22, 512) if quick else (2**28, 8192)
    source = torch.randn(count, device=device)
    target = torch.empty_like(source)
    seconds = best_times({"copy": lambda: target.copy_(source)}, 10, device=device)["copy"]
    copied = 2 * source.nbytes / seconds
    report.add("device copy", copied / 1e9, "GB/s read and written")
    torch.backends.cuda.matmul.allow_tf32 = False
    rates = {}
    for dtype in (torch.float32, torch.float64):
        a = torch.randn(size, size, device=device, dtype=dtype)
        seconds = best_times({"mm": lambda a=a: a @ a}, 5, device=device)["mm"]
        rates[dtype] = 2 * size**3 / seconds
        name = str(dtype).removeprefix("torch.")
        report.add(f"matrix product of {name}", rates[dtype] / 1e12, "TFlop/s")
    if device.type == "cuda":
        report.add("clock right after it", card("clocks.sm"), "MHz")
    return copied, rates[torch.float32]


def work_of(title: str, backward: bool, num_atoms: int, num_edges: int) -> tuple[float, float]:
    """Least bytes and operations of an operator of the default network."""
    config = NETWORKS["default"]
    degrees, channels, factors = config.l_max + 1, config.num_channels, load_factors(config.l_max)
    components, rank = factors.input1.shape
    features = 4 * num_atoms * components * channels
    edges = num_edges * (3 * 8 + 8)  # vector and neighbor
    mixing = 2.0 * num_atoms * components * rank * channels  # a factor applied to features
    if title.startswith("density"):
        moved, work = features + edges, num_edges * 2.0 * components * channels
    elif title.startswith("convolution"):
        per_edge = 2.0 * components * rank + rank * channels * (2 * degrees + 2)
        moved, work = 2 * features + edges, num_edges * per_edge + 2 * mixing
    else:
        orders = config.correlation - 1
        moved, work = 2 * features, orders * (3 * mixing + num_atoms * rank * channels)
    if not backward:
        return moved, work
    # forward again, and twice that for the gradients of both factors of every product
    return 2 * moved + (num_edges * 24 if "edges" in title else 0), 3 * work


def single_operators(
    report: Report, num_atoms: int, device: torch.device, copied: float, rate: float
) -> None:
    """Operators alone, on copper."""
    for title, (function, inputs) in network_operators("default", num_atoms, device).items():
        cotangent = torch.randn_like(function(*inputs).detach())
        num_edges = int(re.search(r"(\d+) edges", title)[1]) if "edges" in title else 0

        def forward(function=function, inputs=inputs) -> None:
            with torch.no_grad():
                function(*inputs)

        def both(function=function, inputs=inputs, cotangent=cotangent) -> None:
            torch.autograd.grad(function(*inputs), inputs, cotangent)

        runs: dict[str, Callable[[], None]] = {"": forward, " + gradients": both}
        for suffix, seconds in best_times(runs, 5, device=device).items():
            moved, work = work_of(title, bool(suffix), num_atoms, num_edges)
            share = max(moved / copied, work / rate) / seconds
            note = f"{moved / seconds / 1e9:.0f} GB/s, {work / seconds / 1e12:.2f} TFlop/s, "
            report.add(title + suffix, 1e3 * seconds, "ms", note=note + f"{100 * share:.0f} %")


def step_of(model: CompiledModel, num_atoms: int) -> tuple[str, Callable[[], object]]:
    """From what a step on water starts, and the step."""
    atoms = system("water", num_atoms)
    reach = model.r_max + (SKIN if model.takes_positions else 0.0)
    graph = graph_from_atoms(atoms, model.atomic_numbers, reach).to(model.device)
    if not model.takes_positions:
        edges = graph.species, graph.edge_index, graph.edge_vec, graph.num_atoms
        return "edges", lambda: model.evaluate_edges(*edges)
    pairs = pair_list(graph)
    dtype = getattr(torch, model.metadata["dtype"])
    workspace = torch.empty(0, dtype=dtype, device=model.device)

    def step() -> object:
        with plain_execution():
            return model.module.from_positions(*pairs, False, workspace)

    return "positions", step


def kernels(report: Report, name: str, num_atoms: int, device: torch.device, folder: Path) -> None:
    """Time of each kernel in an evaluation of a compiled file, on water."""
    model = load_compiled(compiled_file(name, "water", folder), device)
    start, step = step_of(model, num_atoms)
    plain = best_times({"step": step}, 5, device=device)["step"]
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    repeats = 3
    with profile(activities=activities, acc_events=True) as profiler:
        for _ in range(repeats):
            step()
        if on_gpu:
            torch.cuda.synchronize(device)
    scale = 1 / repeats / num_atoms
    times = {}
    for event in profiler.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        # on a GPU the operators that start kernels are listed as well, with their kernels' time
        if spent > 0 and (not on_gpu or event.device_type == torch.autograd.DeviceType.CUDA):
            times[event.key] = (spent * scale, event.count // repeats)
    report.add(
        f"{name}, water {num_atoms}: a step from {start}", 1e6 * plain / num_atoms, "us per atom"
    )
    total = sum(spent for spent, _ in times.values())
    report.add(f"{name}: all kernels", total, "us per atom")
    for key in sorted(times, key=times.get, reverse=True)[:LISTED]:
        spent, count = times[key]
        report.add(f"{name}: {short(key)}", spent, "us per atom", note=f"{count} calls")
    if on_gpu:
        used = torch.cuda.max_memory_allocated(device) / num_atoms / 1e3
        report.add(f"{name}: memory of a step", used, "kB per atom")
        torch.cuda.reset_peak_memory_stats(device)


def short(kernel: str) -> str:
    """A kernel's name without what surrounds it: functor and template arguments of TDN's own."""
    inner = re.search(r"run_\w+<(.*)>\(", kernel)
    name = inner[1] if inner else kernel.partition("(")[0].removeprefix("void ")
    return name.replace("tdn::cuda::", "").replace("(anonymous namespace)::", "")[:40]


def _main() -> int:
    command = gpu_parser(__doc__, 40.0)
    command.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=PROFILED)
    arguments = command.parse_args()
    require_compiled()
    device = chosen_device(arguments)
    print(machine(device), flush=True)
    copper, water = (256, 96) if arguments.quick else (97_556, 98_304)
    names = arguments.networks[1:2] if arguments.quick else arguments.networks
    report, budget = Report(arguments.json), Budget(arguments.seconds)
    copied, rate = limits(report, device, arguments.quick)
    single_operators(report, copper, device, copied, rate)
    with files(arguments.files) as folder:
        for name in names:
            if budget.left < 0:
                report.add(f"{name}, water", None, "us per atom", note="no time left")
                continue
            kernels(report, name, water, device, folder)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(run_main(_main, "gpu_kernels.py"))
