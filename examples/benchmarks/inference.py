"""Energies, forces and virial in Python: microseconds per atom, by network, system and route.

    python examples/benchmarks/inference.py -o inference.png
    python examples/benchmarks/inference.py --device cuda

The routes: ``reference``, all operators in plain PyTorch (small system only); ``cp_message``, the
network as it is trained, with the compiled message operator; ``fused``, rewritten for inference
(`tdn.inference.network`); ``compiled``, the file that tdn-export writes. Neighbor lists are not
counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from measure import (
    Table,
    add_device,
    best_times,
    chosen_device,
    figure,
    files,
    grouped_bars,
    machine,
    parser,
    positive,
    require_compiled,
)
from models import AOTINDUCTOR, NETWORKS, compiled_file, describe, network
from systems import system

from tdn import ops
from tdn.graph import Graph, graph_from_atoms
from tdn.inference.compiled_model import CompiledModel, load_compiled
from tdn.inference.network import inference_network
from tdn.network.potential import Potential
from tdn.system.command import run_main
from tdn.system.errors import UsageError

SYSTEMS = [("water", 192), ("water", 1536), ("copper", 4000)]
REFERENCE_ATOMS = 192  # the reference needs kilobytes per edge
ROUTES = ("reference", "cp_message", "fused", "compiled")


def routes(
    model: torch.nn.Module, fused: torch.nn.Module, compiled: CompiledModel, graph: Graph
) -> dict[str, Callable[[], object]]:
    """What is timed for one structure."""
    trained, rewritten = Potential(model), Potential(fused)

    def reference() -> None:
        with ops.use_reference():
            trained(graph)

    functions = {
        "reference": reference,
        "cp_message": lambda: trained(graph),
        "fused": lambda: rewritten(graph),
        "compiled": lambda: compiled(graph),
    }
    if graph.num_atoms > REFERENCE_ATOMS:
        del functions["reference"]
    return functions


def _main() -> int:
    command = parser(__doc__)
    command.add_argument("--repeats", type=positive, default=5)
    command.add_argument(
        "--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME"
    )
    command.add_argument(
        "--aotinductor",
        action="store_true",
        help="also the default network compiled by AOTInductor, on water (takes minutes)",
    )
    add_device(command)
    arguments = command.parse_args()
    systems = SYSTEMS
    if arguments.quick:
        systems, arguments.networks, arguments.repeats = [("water", 96)], ["small"], 2
    require_compiled()
    device = chosen_device(arguments)
    if arguments.aotinductor and device.type != "cpu":
        raise UsageError(
            f"--aotinductor compiles for the processor; leave it out with --device {device}"
        )
    print(machine(device))
    for name in arguments.networks:
        print(describe(name))
    print("\nfloat32, microseconds per atom\n")
    columns = [*ROUTES, *(["aotinductor"] if arguments.aotinductor else [])]
    table = Table(
        {"network, system": 26, "parameters": 10}
        | {name: 10 for name in columns}
        | {"reference/compiled": 10}
    )
    found: dict[tuple[str, str, int], dict[str, float]] = {}
    with files(arguments.files) as folder:
        for name in arguments.networks:
            for material, num_atoms in systems:
                model = network(name, material, folder)
                fused = inference_network(model, torch.float32).to(device)
                compiled = load_compiled(compiled_file(name, material, folder), device)
                atoms = system(material, num_atoms)
                graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max).to(device)
                model = model.to(device)
                functions = routes(model, fused, compiled, graph)
                if arguments.aotinductor and (name, material) == ("default", "water"):
                    machine_code = load_compiled(compiled_file(name, material, folder, AOTINDUCTOR))
                    functions["aotinductor"] = lambda m=machine_code, g=graph: m(g)
                times = best_times(functions, arguments.repeats, device=device)
                per_atom = {key: 1e6 * value / num_atoms for key, value in times.items()}
                found[name, material, num_atoms] = per_atom
                ratio = per_atom.get("reference", float("nan")) / per_atom["compiled"]
                table.row(
                    f"{name}, {material} {num_atoms}",
                    sum(p.numel() for p in model.parameters()),
                    *(per_atom.get(column) for column in columns),
                    ratio if "reference" in per_atom else None,
                )
    with figure(arguments.output) as axes:
        if axes is not None:
            series = {
                f"{material} {num_atoms}": [
                    found[name, material, num_atoms]["compiled"] for name in arguments.networks
                ]
                for material, num_atoms in systems
            }
            grouped_bars(axes, arguments.networks, series)
            axes.set_ylabel("microseconds per atom, compiled file")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "inference.py"))
