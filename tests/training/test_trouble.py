"""Losses that are not finite."""

import pytest
import torch
from training.helpers import write_config, write_frames

from tdn.config import load_config
from tdn.data import load_dataset
from tdn.errors import TDNError
from tdn.training.display import Display
from tdn.training.recovery import MAX_RESTORES, MAX_SKIPPED
from tdn.training.trainer import Trainer


class Recorder(Display):
    """Keeps warnings."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def trainer(tmp_path):
    write_frames(tmp_path / "train.xyz")
    config = load_config(write_config(tmp_path))
    (tmp_path / "run").mkdir()
    return Trainer(config, load_dataset(config), Recorder())


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def spoil(trainer: Trainer, calls: set[int] | None) -> None:
    """Make the training loss NaN in some calls (all for None)."""
    potential = trainer.potentials[0]
    original, count = potential.forward, 0

    def forward(graph, training=False):
        nonlocal count
        result = original(graph, training)
        if training:
            count += 1
            if calls is None or count in calls:
                result["energy"] = result["energy"] * torch.nan
        return result

    potential.forward = forward


def test_a_bad_batch_is_left_out(trainer):
    """It changes neither weights nor optimiser, and is named."""
    spoil(trainer, {2})
    batches = trainer.batches.steps(0)
    trainer._step(batches[0])
    before = weights(trainer)
    trainer._step(batches[1])
    assert torch.equal(weights(trainer), before)
    assert "batch left out" in trainer.display.warnings[0]
    number = trainer.dataset.train.frames[batches[1][0][0]].number
    assert f"frames {number}" in trainer.display.warnings[0]
    trainer._step(batches[2])
    assert not torch.equal(weights(trainer), before)
    assert trainer.progress.skipped == 0


def test_several_bad_batches_bring_good_weights_back(trainer):
    spoil(trainer, set(range(5, 5 + MAX_SKIPPED)))
    assert trainer.fit()
    assert trainer.progress.rate_factor == 0.5 and trainer.progress.restores == 1
    assert torch.isfinite(weights(trainer)).all()
    assert "brought back" in trainer.display.warnings[-1]


def test_a_hopeless_run_stops_with_one_line(trainer):
    spoil(trainer, None)
    with pytest.raises(TDNError, match=f"brought back {MAX_RESTORES} times in vain") as caught:
        for _ in range(MAX_SKIPPED * (MAX_RESTORES + 1)):
            trainer._step([[0, 1]])
    assert "\n" not in str(caught.value)
    assert torch.isfinite(weights(trainer)).all()


def test_weight_decay_on_matrices_only(trainer):
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            assert (parameter.ndim >= 2) == (group["weight_decay"] > 0)
    count = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
    assert count == len(list(trainer.model.parameters()))
