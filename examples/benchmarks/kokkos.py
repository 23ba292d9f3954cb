"""Time per step of pair_style tdn/kk beside that of tdn, in one LAMMPS with KOKKOS on the CPU.

    python examples/benchmarks/kokkos.py ~/.cache/tdn/lammps-kokkos

The folder is the source tree of that LAMMPS with its build in it, as ``make test-kokkos`` leaves
it. Both styles take turns, so that their ratio stays fair.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lammps_runs import run_dynamics
from measure import Table, figure, files, grouped_bars, machine, parser, positive, require_compiled
from models import FUSED, compiled_file, describe

from tdn.system.command import run_main
from tdn.system.errors import TDNError
from tdn.system.paths import library_dir

NETWORKS = ("default", "small", "nano")


def _main() -> int:
    command = parser(__doc__)
    command.add_argument("tree", type=Path, help="LAMMPS with KOKKOS, as make test-kokkos makes it")
    command.add_argument("--atoms", type=positive, default=1536, help="of water (default 1536)")
    command.add_argument("--threads", type=positive, default=2, help="of the rank (default 2)")
    command.add_argument("--steps", type=positive, default=40, help="of a run (default 40)")
    command.add_argument("--turns", type=positive, default=3, help="runs; the best counts")
    command.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    arguments = command.parse_args()
    require_compiled()
    program, plugins = arguments.tree / "build" / "lmp", library_dir() / "lammps-kokkos"
    if not program.is_file():
        raise TDNError(f"there is no {program}; run: make test-kokkos LAMMPS_SOURCE=FOLDER")
    if not plugins.is_dir():
        raise TDNError(
            f"the plugin is not built; run: tdn-lammps build --lammps-source {arguments.tree} "
            f"--kokkos --output {plugins}"
        )
    styles = {"tdn": (), "tdn/kk": ("-k", "on", "t", str(arguments.threads), "-sf", "kk")}
    environment = {"LAMMPS_PLUGIN_PATH": str(plugins), "OMP_WAIT_POLICY": "passive"}
    atoms, steps, turns = arguments.atoms, arguments.steps, arguments.turns
    networks = arguments.networks
    if arguments.quick:
        atoms, steps, turns, networks = 96, 2, 1, ("small",)
    print(machine())
    print(f"\nmicroseconds per atom and step, best of {turns}; {atoms} atoms of water\n")
    table = Table({"network": 10} | dict.fromkeys(styles, 8) | {"ratio": 8})
    times: dict[str, list[float | None]] = {style: [] for style in styles}
    with files(arguments.files) as folder:
        for name in networks:
            print(describe(name))
            model = compiled_file(name, "water", folder, FUSED)
            best = dict.fromkeys(styles, float("inf"))
            for _ in range(turns):
                for style, words in styles.items():
                    loop = run_dynamics(
                        folder,
                        model,
                        "water",
                        atoms,
                        steps=steps,
                        runs=1,
                        threads=arguments.threads,
                        environment=environment,
                        program=program,
                        arguments=words,
                    )
                    best[style] = min(best[style], loop.total)
            for style, time in best.items():
                times[style].append(time)
            table.row(name, *best.values(), best["tdn/kk"] / best["tdn"])
    with figure(arguments.output, width=5.0) as axes:
        if axes is not None:
            grouped_bars(axes, list(networks), times)
            axes.set_ylabel("microseconds per atom and step in LAMMPS")
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "kokkos.py"))
