"""Many small structures at once, through torch-sim, against one after the other.

    python examples/benchmarks/batches.py

64 crystals of copper of 4 and 8 atoms, whose neighbor lists are built in every step. "ASE" is
`TDNCalculator`, "one by one" and "batch" the model of torch-sim (`tdn.torch_sim`).
"""

from __future__ import annotations

import sys

import numpy as np
from ase.build import bulk
from measure import Table, add_device, best_times, chosen_device, files, machine, parser, positive
from models import FUSED, compiled_file, describe

from tdn import TDNCalculator
from tdn.system.command import run_main
from tdn.system.errors import UsageError


def _main() -> int:
    command = parser(__doc__)
    command.add_argument("--repeats", type=positive, default=5)
    add_device(command)
    arguments = command.parse_args()
    try:
        import torch_sim

        from tdn.torch_sim import TDNModel
    except ImportError as error:
        raise UsageError('needs torch-sim; run: pip install "tdn-potential[torch-sim]"') from error
    device = chosen_device(arguments)
    rng = np.random.default_rng(0)
    crystals = [bulk("Cu", cubic=True) * (1, 1, 1 + n % 2) for n in range(64)]
    for atoms in crystals:
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
    if arguments.quick:
        crystals = crystals[:4]
    print(machine(device))
    network = "small"
    print(describe(network))
    atoms_in_all = sum(map(len, crystals))
    print(f"\n{len(crystals)} crystals, {atoms_in_all} atoms; microseconds per atom\n")
    with files(arguments.files) as folder:
        path = compiled_file(network, "copper", folder, FUSED)
        model = TDNModel(path, str(device))
        calculator = TDNCalculator(path, str(device))

        def state(some: list) -> torch_sim.SimState:
            return torch_sim.io.atoms_to_state(some, model.device, model.dtype)

        single = [state([atoms]) for atoms in crystals]
        together = state(crystals)

        def ase_calculator() -> None:
            for atoms in crystals:
                calculator.calculate(atoms, ["energy", "forces", "stress"])

        functions = {
            "ASE": ase_calculator,
            "one by one": lambda: [model(one) for one in single],
            "batch": lambda: model(together),
        }
        times = best_times(functions, arguments.repeats, device=device)
    table = Table({"": 12, "time": 10, "batch is": 12})
    for name, seconds in times.items():
        ratio = f"{seconds / times['batch']:.1f}x faster" if name != "batch" else ""
        table.row(name, 1e6 * seconds / atoms_in_all, ratio)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "batches.py"))
