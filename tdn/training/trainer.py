"""The loop: steps of the optimiser, validation, best model, interruption and resumption."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import DTYPES, model_to_dict, save_model
from ..config import Config, config_to_dict
from ..data import Dataset, statistics_tensors
from ..data.loader import GraphLoader
from ..devices import select_device
from ..errors import TDNError
from ..evaluation import Errors, Evaluation, errors, evaluate
from ..graph import collate
from ..model import ConvolutionModel, build_model
from ..network import set_dtype
from ..normalization import normalize_activations
from ..potential import Potential
from ..version import __version__
from .display import Display
from .ema import WeightAverage
from .interrupt import StopRequest
from .log import Log
from .loss import Loss
from .schedule import Schedule
from .state import Progress, load_state, restore_rng, save_state

# seconds between writes of last.pt and model.pt at the ends of epochs
SAVE_INTERVAL = 10.0
# batches in a row with a non-finite loss before the last good weights come back, and how often
# they come back before the run gives up
MAX_SKIPPED = 3
MAX_RESTORES = 5
# training frames that set the norms of a new network
NORMALIZE_FRAMES = 16


def matrices_and_rest(model: torch.nn.Module) -> tuple[list, list]:
    """Parameters with and without weight decay: decay is meant for matrices alone."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]


def _cloned(state: Any) -> Any:
    """A copy of nested dictionaries and lists of tensors (faster than `copy.deepcopy`)."""
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _cloned(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_cloned(value) for value in state]
    return state


class Trainer:
    """One run in one folder.

    Parameters
    ----------
    config : the whole configuration
    dataset : from `tdn.data.load_dataset`
    display : where progress is shown
    """

    def __init__(self, config: Config, dataset: Dataset, display: Display | None = None) -> None:
        settings = config.train
        self.config = config
        self.dataset = dataset
        self.display = display or Display(quiet=True)
        self.run_dir = Path(settings.run_dir)
        self.device = select_device(settings.device, "train.device")
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        torch.manual_seed(settings.seed)
        self.model: ConvolutionModel = build_model(dataset.model, seed=settings.seed)
        self.model.set_statistics(*statistics_tensors(dataset))
        normalize_activations(self.model, collate(dataset.train.graphs[:NORMALIZE_FRAMES]))
        set_dtype(self.model, DTYPES[settings.dtype]).to(self.device)
        self.potential = Potential(self.model)
        direct = getattr(self.model, "direct_forces", False)
        # forces that are no gradient come without a virial
        self.loss = Loss.from_config(
            dataclasses.replace(settings, stress_weight=0.0) if direct else settings
        )
        decayed, rest = matrices_and_rest(self.model)
        self.parameters = decayed + rest
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": rest, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            fused=True,
        )
        self.average = WeightAverage(self.model, settings.ema_decay)
        self.loader = GraphLoader(dataset.train.graphs, config.data.num_workers)
        self.steps_per_epoch = math.ceil(len(dataset.train) / settings.batch_size)
        self.schedule = Schedule.from_config(settings, self.steps_per_epoch)
        self.progress = Progress()
        self._good = self._snapshot()
        self._best_model = copy.deepcopy(self.model)
        self._best_metadata: dict[str, Any] | None = None  # None: nothing new since it was written
        self._saved = 0.0
        self._clock = time.monotonic()

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters)

    @property
    def last_file(self) -> Path:
        return self.run_dir / "last.pt"

    @property
    def model_file(self) -> Path:
        return self.run_dir / "model.pt"

    # --- the loop --------------------------------------------------------------------------------

    def fit(self) -> bool:
        """Train until the last epoch; False if a signal ended it before (``last.pt`` is written).

        Raises
        ------
        TDNError
            If the loss stays non-finite, or a file cannot be written.
        """
        self._clock = time.monotonic() - self.progress.seconds
        log = Log(self.run_dir / "log.csv", self.progress.epoch)
        with StopRequest() as stop:
            self.display.start(self.config.train.max_epochs, self.steps_per_epoch, self.progress)
            try:
                while self.progress.epoch < self.config.train.max_epochs:
                    if not self._epoch(stop):
                        self.save()
                        return False
                    self._end_of_epoch(log)
                self.save()
            finally:
                self.display.close()
        return True

    def _epoch(self, stop: StopRequest) -> bool:
        """The batches of an epoch that are left; False when a signal asks to stop."""
        self.model.train()
        self.dataset.train.start_epoch(self.progress.epoch)
        self.loader.plan(self._batches())
        for indices in self._batches():
            self._step(indices)
            self.display.step()
            if stop.requested:
                return False
        return True

    def _batches(self) -> Iterator[list[int]]:
        """Indices of the frames; the order depends on seed and epoch alone."""
        seed, size = self.config.train.seed, self.config.train.batch_size
        generator = torch.Generator().manual_seed(seed * 1_000_003 + self.progress.epoch)
        order = torch.randperm(len(self.dataset.train), generator=generator).tolist()
        for start in range(self.progress.batch * size, len(order), size):
            yield order[start : start + size]

    def _step(self, indices: list[int]) -> None:
        """One step of the optimiser; nothing is changed if loss or gradient are not finite."""
        progress, limit = self.progress, self.config.train.clip_norm
        rate = self.schedule(progress.step) * progress.rate_factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.loader.get(indices).to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.loss.terms(self.potential(batch, training=True), batch)
        loss = self.loss.weighted(terms)
        # only the weights: the graph of the forces leads to the positions as well
        loss.backward(inputs=self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(
            self.parameters, limit if limit > 0 else math.inf, foreach=True
        )
        progress.batch += 1
        progress.step += 1
        values = torch.cat([loss.detach()[None], terms.detach(), norm.detach()[None]]).tolist()
        if not all(math.isfinite(value) for value in values):
            self._bad_batch(indices)
            return
        progress.skipped = 0
        self.optimizer.step()
        self.average.update()
        for position, value in enumerate([*values[:4], 1.0]):
            progress.sums[position] += value

    def _end_of_epoch(self, log: Log) -> None:
        progress, settings = self.progress, self.config.train
        rate = self.optimizer.param_groups[0]["lr"]
        count = max(1.0, progress.sums[4])
        means = [value / count for value in progress.sums[:4]]
        progress.epoch += 1
        progress.batch, progress.sums = 0, [0.0] * 5
        last = progress.epoch == settings.max_epochs
        row: dict[str, float | None] = {
            "epoch": progress.epoch,
            "step": progress.step,
            "learning_rate": rate,
            **dict(
                zip(
                    ("train_loss", "train_energy_loss", "train_forces_loss", "train_stress_loss"),
                    means,
                    strict=True,
                )
            ),
        }
        found: dict[str, Errors | None] = {}
        if last or progress.epoch % settings.valid_interval == 0:
            with self.average.applied():
                found, metric = self._validate(row, means[0])
            if math.isfinite(metric):
                self._good = self._snapshot()
            else:
                self._restore(f"the loss after epoch {progress.epoch} is not finite")
        progress.seconds = time.monotonic() - self._clock
        row["seconds"] = progress.seconds
        log.append(row)
        self.display.epoch(progress, row, found)
        if time.monotonic() - self._saved > SAVE_INTERVAL or last:
            self.save()

    def _validate(
        self, row: dict[str, float | None], train_loss: float
    ) -> tuple[dict[str, Errors | None], float]:
        """Errors and loss of the averaged weights, which are in the model now; keeps the best."""
        progress = self.progress
        found: dict[str, Errors | None] = {}
        metric = train_loss
        if len(self.dataset.valid):
            evaluation = self.evaluate("valid")
            found = errors(evaluation)
            metric = self._loss_of(evaluation)
            row["valid_loss"] = metric
            for name, error in found.items():
                if error is not None:
                    row[f"valid_{name}_mae"], row[f"valid_{name}_rmse"] = error.mae, error.rmse
        # without validation frames the newest average is the one to keep
        if metric < progress.best or (not len(self.dataset.valid) and math.isfinite(metric)):
            progress.best, progress.best_epoch = metric, progress.epoch
            self._best_model.load_state_dict(self.model.state_dict())
            self._best_metadata = self.metadata({"valid": found})
        return found, metric

    def evaluate(self, name: str, model: ConvolutionModel | None = None) -> Evaluation:
        """Evaluate a subset with the weights as they are, or with another model."""
        potential = self.potential if model is None else Potential(model.to(self.device))
        potential.eval()
        graphs = getattr(self.dataset, name).report.graphs
        return evaluate(
            potential, graphs, self.config.train.valid_batch_size, self.device, progress=False
        )

    def _loss_of(self, evaluation: Evaluation) -> float:
        """The loss over all validation frames at once."""
        graph = collate(self.dataset.valid.graphs)
        predicted = evaluation.predicted
        virial = -torch.from_numpy(predicted.stress) * graph.volume[:, None, None]
        prediction = {
            "energy": torch.from_numpy(predicted.energy),
            "forces": torch.from_numpy(predicted.forces),
            "virial": virial,
        }
        return float(self.loss.weighted(self.loss.terms(prediction, graph)))

    # --- trouble ---------------------------------------------------------------------------------

    def _bad_batch(self, indices: list[int]) -> None:
        """Leave a batch out; after several in a row bring the last good weights back."""
        self.progress.skipped += 1
        numbers = ", ".join(str(self.dataset.train.frames[i].number) for i in indices[:8])
        text = f"non-finite loss or gradient in the batch with frames {numbers}"
        if self.progress.skipped >= MAX_SKIPPED:
            self._restore(f"{text} ({self.progress.skipped} batches in a row)")
        else:
            self.display.warn(f"{text}: batch left out")

    def _restore(self, reason: str) -> None:
        """Bring the last good weights back and halve the learning rate."""
        progress = self.progress
        progress.skipped = 0
        progress.restores += 1
        if progress.restores > MAX_RESTORES:
            raise TDNError(
                f"{reason}; the last good weights were brought back {MAX_RESTORES} times in vain. "
                "Lower train.learning_rate or train.clip_norm, or use train.dtype=float64; "
                f"the best model so far is {self.model_file}"
            )
        progress.rate_factor *= 0.5
        self._load_snapshot(self._good)
        self.display.warn(
            f"{reason}: last good weights brought back, learning rate times "
            f"{progress.rate_factor:g} from here"
        )

    def _snapshot(self) -> dict[str, Any]:
        """Copies of weights, optimiser and average."""
        return {
            "weights": {n: t.detach().clone() for n, t in self.model.state_dict().items()},
            "optimizer": _cloned(self.optimizer.state_dict()),
            "average": self.average.state_dict(),
        }

    def _load_snapshot(self, snapshot: dict[str, Any]) -> None:
        self.model.load_state_dict(snapshot["weights"])
        self.optimizer.load_state_dict(_cloned(snapshot["optimizer"]))
        self.average.load_state_dict(snapshot["average"])

    # --- files -----------------------------------------------------------------------------------

    def save(self) -> None:
        """Write ``last.pt``, and ``model.pt`` if there is a better one than in the file."""
        if self._best_metadata is not None:
            save_model(self.model_file, self._best_model, self._best_metadata)
            self._best_metadata = None
        self.progress.seconds = time.monotonic() - self._clock
        tensors = {
            "model": model_to_dict(self.model),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
        }
        config = config_to_dict(self.config)
        save_state(self.last_file, self.progress, config, self.dataset.fingerprint, tensors)
        self._saved = time.monotonic()

    def resume(self) -> None:
        """Go on from ``last.pt``.

        Raises
        ------
        TDNError
            If it is damaged or belongs to another configuration or other data.
        """
        content = load_state(self.last_file, config_to_dict(self.config), self.dataset.fingerprint)
        self.model.load_state_dict(content["model"]["state"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.average.load_state_dict(content["average"])
        self.progress = Progress(**content["progress"])
        restore_rng(content)
        self._clock = time.monotonic() - self.progress.seconds
        self._good = self._snapshot()

    def metadata(self, found: dict[str, dict[str, Errors | None]]) -> dict[str, Any]:
        """What a checkpoint says about its training, in plain values."""
        settings = config_to_dict(self.config.train)
        settings.pop("run_dir")
        return {
            "tdn_version": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "seconds": round(time.monotonic() - self._clock, 1),
            "num_parameters": self.num_parameters,
            "frames": {
                "train": self.dataset.train.total,
                "valid": len(self.dataset.valid),
                "test": len(self.dataset.test),
            },
            "data_fingerprint": self.dataset.fingerprint,
            "atomic_energies": dict(self.dataset.atomic_energies.values),
            "atomic_energies_from": dict(self.dataset.atomic_energies.origin),
            "errors": {
                subset: {n: dataclasses.asdict(e) for n, e in row.items() if e is not None}
                for subset, row in found.items()
            },
            "train": settings,
        }
