"""Time of an epoch of training: compiled operators against the reference, in one process.

    python examples/benchmarks/training.py
    python examples/benchmarks/training.py --device cuda

Force-matching on molecules of acetylacetone where that data set is found (``--data``), else on the
demo's boxes of water, with `tdn.training.trainer.Trainer` as tdn-train uses it: batches of 5,
default network. Of several epochs in a row the shortest counts; writing files at the end of a run
does not. An epoch ends with reading its mean losses, so a GPU has finished by then. Then how far
apart the weights end after one epoch of float64 with either, and, to compare, with the compiled
operators from initial weights that differ in the last bit: training amplifies rounding, by orders
of magnitude that depend on the learning rate.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from measure import (
    Table,
    add_device,
    chosen_device,
    figure,
    grouped_bars,
    machine,
    parser,
    positive,
    require_compiled,
)

from tdn import ops
from tdn.config import Config, DataConfig, ModelConfig, TrainConfig
from tdn.data import Dataset, load_dataset
from tdn.system.command import run_main
from tdn.system.errors import UsageError
from tdn.training.run.csv_log import read_log
from tdn.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
# where a copy of the data set is looked for, beside or inside the repository
ACAC = (ROOT / "data" / "acac", ROOT.parent / "shared" / "data" / "acac")
WATER = ROOT / "examples" / "water" / "water.xyz.gz"
ROUTES = ("fused", "reference")
EPOCHS = 3
TOLERANCE = 1e-6  # relative, of the weights after one epoch in float64


def find_data(folder: Path | None) -> DataConfig:
    """Training frames without validation: an epoch is training alone."""
    if folder is not None and not (folder / "train_300K.xyz").is_file():
        raise UsageError(f"--data {folder}: expected train_300K.xyz and isolated_atoms.xyz in it")
    for place in [folder] if folder else ACAC:
        if (place / "train_300K.xyz").is_file():
            print("data: acetylacetone at 300 K, 15 atoms per frame")
            return DataConfig(
                train=str(place / "train_300K.xyz"),
                isolated_atoms=str(place / "isolated_atoms.xyz"),
                valid_fraction=0.0,
            )
    print("data: water of the demo, for want of acetylacetone (give its folder with --data)")
    return DataConfig(train=str(WATER), valid_fraction=0.0)


def shortened(dataset: Dataset, frames: int | None) -> Dataset:
    """The same data set with the first training frames only."""
    train = dataset.train
    kept = replace(train, frames=train.frames[:frames], graphs=train.graphs[:frames])
    return replace(dataset, train=kept)


def nudge(trainer: Trainer) -> None:
    """Change every weight by about its last bit."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in trainer.flat.tensors:
            signs = torch.randint(0, 2, weights.shape, generator=generator) * 2 - 1
            weights.mul_(1 + signs.to(weights) * torch.finfo(weights.dtype).eps)


def train(
    config: Config, dataset: Dataset, route: str, dtype: str, epochs: int, nudged: bool = False
) -> tuple[float, dict]:
    """Train from the same weights; seconds of the shortest epoch, and the weights at the end."""
    with TemporaryDirectory() as folder:
        settings = replace(config.train, run_dir=folder, dtype=dtype, max_epochs=epochs)
        trainer = Trainer(replace(config, train=settings), dataset)
        if nudged:
            nudge(trainer)
        with ops.use_reference() if route == "reference" else nullcontext():
            trainer.fit()
        ends = [0.0, *(float(row["seconds"]) for row in read_log(Path(folder) / "log.csv"))]
    weights = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    return min(end - start for start, end in zip(ends, ends[1:], strict=False)), weights


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest |a - b| / |b| of a parameter, with the norms of whole parameters."""
    return max(float((a[name] - b[name]).norm() / b[name].norm()) for name in b if b[name].numel())


def _main() -> int:
    command = parser(__doc__)
    command.add_argument("--data", type=Path, help="folder with train_300K.xyz of acetylacetone")
    command.add_argument("--repeats", type=positive, default=2)
    command.add_argument("--frames", type=positive, help="use the first training frames only")
    add_device(command)
    arguments: argparse.Namespace = command.parse_args()
    model = ModelConfig()
    if arguments.quick:
        arguments.frames, arguments.repeats = 10, 1
        model = ModelConfig(l_max=1, num_channels=8)
    require_compiled()
    device = chosen_device(arguments)
    print(machine(device))
    config = Config(
        model=model,
        data=find_data(arguments.data),
        # the operators are compared; what SOAP adds to a step is the same for both
        train=TrainConfig(
            max_epochs=1,
            batch_size=5,
            device=str(device),
            optimizer="adamw",
            learning_rate=0.01,
        ),
    )
    dataset = shortened(load_dataset(config), arguments.frames)
    print(
        f"{len(dataset.train)} frames, batches of {config.train.batch_size}; l_max {model.l_max}, "
        f"{model.num_channels} channels, {model.num_layers} layers\n"
    )
    table = Table({"one epoch": 22, "fused (s)": 9, "reference (s)": 13, "ratio": 6})
    best = dict.fromkeys(ROUTES, float("inf"))
    for _ in range(arguments.repeats):
        for route in ROUTES:
            best[route] = min(best[route], train(config, dataset, route, "float32", EPOCHS)[0])
    table.row("float32", *best.values(), best["reference"] / best["fused"])
    double = {route: train(config, dataset, route, "float64", 1) for route in ROUTES}
    seconds = {route: train(config, dataset, route, "float64", EPOCHS)[0] for route in ROUTES}
    table.row("float64", *seconds.values(), seconds["reference"] / seconds["fused"])
    drift = difference(double["fused"][1], double["reference"][1])
    _, neighbour = train(config, dataset, "fused", "float64", 1, nudged=True)
    print(f"\nrelative difference of the weights after the epoch, float64: {drift:.1e}")
    print(
        "the same, fused, of initial weights that differ in the last bit: "
        f"{difference(neighbour, double['fused'][1]):.1e}"
    )
    with figure(arguments.output, width=5) as axes:
        if axes is not None:
            series = {route: [best[route], seconds[route]] for route in ROUTES}
            grouped_bars(axes, ["float32", "float64"], series)
            axes.set_ylabel("seconds per epoch")
    if drift > TOLERANCE:
        print(f"error: expected at most {TOLERANCE:g}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_main(_main, "training.py"))
