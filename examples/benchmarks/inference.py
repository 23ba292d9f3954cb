"""Energy and forces of liquid water in Python: microseconds per atom, by network and system size.

python examples/benchmarks/inference.py
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import ase.io
import torch

from tdn.config import ModelConfig
from tdn.graph import graph_from_atoms
from tdn.model import build_model
from tdn.network import set_dtype
from tdn.potential import Potential

WATER = Path(__file__).parents[1] / "water" / "water.xyz.gz"
NETWORKS = {
    "l1, 32 channels, correlation 2": ModelConfig(l_max=1, num_channels=32, correlation=2),
    "l2, 32 channels, correlation 3": ModelConfig(l_max=2, num_channels=32),
    "l2, 64 channels, correlation 3": ModelConfig(l_max=2, num_channels=64),
    "l3, 64 channels, correlation 3": ModelConfig(l_max=3, num_channels=64),
}


def microseconds_per_atom(model: torch.nn.Module, atoms: ase.Atoms, repeats: int) -> float:
    """Shortest of some evaluations of energy, forces and virial, without the neighbour list."""
    graph = graph_from_atoms(atoms, model.atomic_numbers, model.r_max)
    potential = Potential(model)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        potential(graph)
        times.append(time.perf_counter() - start)
    return min(times[1:]) / len(atoms) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    frames = ase.io.read(WATER, ":")
    box = next(f for f in frames if f.info["config_type"] == "n32_d1.00_T300")
    systems = [box * (2, 1, 1), box * (4, 2, 2)]
    print(
        f"water, 5 angstrom, float32, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(f"{'network':34s}{'parameters':>12s}" + "".join(f"{len(s):>8d} atoms" for s in systems))
    for name, config in NETWORKS.items():
        fields = {**vars(config), "species": ("H", "O"), "avg_num_neighbors": 52.0}
        model = set_dtype(build_model(ModelConfig(**fields), seed=0), torch.float32)
        model.requires_grad_(False)
        times = [microseconds_per_atom(model, atoms, arguments.repeats) for atoms in systems]
        count = sum(p.numel() for p in model.parameters())
        print(f"{name:34s}{count:>12d}" + "".join(f"{t:14.0f}" for t in times), flush=True)
    print("(microseconds per atom for energy, forces and virial)")


if __name__ == "__main__":
    main()
