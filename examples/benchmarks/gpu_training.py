"""Epochs of training on a GPU against two threads of the processor, float32.

    python examples/benchmarks/gpu_training.py --data FOLDER
    python examples/benchmarks/gpu_training.py --device cpu --quick

Acetylacetone (where its folder is given or found), the water of the demo with its network, and the
published attention network (preset paper) on molecules of the first, else on that water; each on
its first frames, the same for both. The shortest of some epochs counts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from gpu_report import Budget, Report, gpu_parser
from measure import chosen_device, machine, require_compiled
from training import ACAC, WATER, shortened, train

from tdn.config import Config, DataConfig, ModelConfig, TrainConfig, model_config_from_dict
from tdn.data import load_dataset
from tdn.system.command import run_main
from tdn.system.errors import UsageError

THREADS = 2  # of the processor that a GPU is compared with


@dataclass(frozen=True)
class Case:
    """What is trained: network, frames of an epoch, of the comparison on the processor, batch."""

    name: str
    model: ModelConfig
    data: DataConfig
    frames: int
    slow_frames: int
    batch_size: int


def cases(folder: Path | None) -> list[Case]:
    """What there are data for."""
    water = DataConfig(train=str(WATER), valid_fraction=0.0)
    paper = model_config_from_dict({"preset": "paper"})
    demo = ModelConfig(num_channels=32)
    places = [folder] if folder is not None else list(ACAC)
    place = next((p for p in places if (p / "train_300K.xyz").is_file()), None)
    if folder is not None and place is None:
        raise UsageError(f"--data {folder}: expected train_300K.xyz and isolated_atoms.xyz in it")
    if place is None:
        return [
            Case("water, demo", demo, water, 200, 40, 2),
            Case("water, paper", paper, water, 16, 2, 2),
        ]
    molecules = DataConfig(
        train=str(place / "train_300K.xyz"),
        isolated_atoms=str(place / "isolated_atoms.xyz"),
        valid_fraction=0.0,
    )
    return [
        Case("acetylacetone, default", ModelConfig(), molecules, 500, 100, 5),
        Case("water, demo", demo, water, 200, 40, 2),
        Case("acetylacetone, paper", paper, molecules, 100, 5, 5),
    ]


def milliseconds(case: Case, device: str, frames: int, epochs: int) -> float:
    """Time of an epoch per frame."""
    settings = TrainConfig(
        batch_size=case.batch_size, device=device, optimizer="adamw", learning_rate=0.001
    )
    config = Config(model=case.model, data=case.data, train=settings)
    dataset = shortened(load_dataset(config), frames)
    return 1e3 * train(config, dataset, "fused", "float32", epochs)[0] / len(dataset.train)


def _main() -> int:
    command = gpu_parser(__doc__, 40.0)
    command.add_argument("--data", type=Path, help="folder with train_300K.xyz of acetylacetone")
    arguments = command.parse_args()
    require_compiled()
    device = chosen_device(arguments)
    print(machine(device), flush=True)
    report, budget = Report(arguments.json), Budget(arguments.seconds)
    for case in cases(arguments.data):
        if arguments.quick:
            small = replace(case.model, num_channels=8, num_layers=1, radial_hidden=(8,))
            case = replace(case, model=small, frames=2, slow_frames=2)
        if budget.left < 0:
            report.add(case.name, None, "ms per frame", note="no time left")
            continue
        there = milliseconds(case, str(device), case.frames, 3)
        note = f"batches of {case.batch_size}"
        report.add(f"{case.name}, {device.type}", there, "ms per frame", note=note)
        before = torch.get_num_threads()
        torch.set_num_threads(THREADS)
        here = milliseconds(case, "cpu", case.slow_frames, 2)
        torch.set_num_threads(before)
        report.add(f"{case.name}, {THREADS} threads", here, "ms per frame")
        report.add(f"{case.name}, ratio", here / there, "times faster")
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(run_main(_main, "gpu_training.py"))
