"""The loop: steps of the optimizer, validation, best model, interruption and resumption."""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
import time
from pathlib import Path
from typing import Any

import torch

from tdn.config import Config, config_to_dict
from tdn.data import Dataset
from tdn.data.dataset.loader import GraphLoader
from tdn.evaluation.errors import Errors, Evaluation, errors
from tdn.graph import Graph
from tdn.network.checkpoint import DTYPES, model_to_dict, read_checkpoint, save_model
from tdn.network.potential import Potential
from tdn.network.theory_levels import load_weights
from tdn.system.ranks import Ranks

from .batching import Batches
from .best_network import BestNetwork
from .loss import RAMP_START, Loss
from .optimizer.build import build_optimizer, column_splits, parameter_groups
from .optimizer.flat_parameters import FlatParameters
from .optimizer.schedule import Schedule, lower_on_plateau
from .optimizer.weight_average import WeightAverage
from .patience import Patience, last_epoch, schedule_epoch
from .recovery import MAX_SKIPPED, Recovery
from .run.csv_log import Log
from .run.display import Display
from .run.interrupt import StopRequest
from .run.metadata import SUBSETS, training_metadata
from .run.resume import Progress, load_state, save_state
from .run.tensorboard import TensorBoard
from .start.compilation import compiled_networks
from .start.initial_network import initial_model
from .theory_levels import evaluate_subset, shares_of_levels


class Trainer:
    """One run in one folder.

    Parameters
    ----------
    config : the whole configuration
    dataset : from `tdn.data.load_dataset`
    display : where progress is shown
    ranks : the processes that share the work; each of them makes a trainer of the same arguments
    resume : go on from ``last.pt``, which every rank reads

    Raises
    ------
    TDNError
        If ``last.pt`` is damaged or belongs to another configuration or other data.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        display: Display | None = None,
        ranks: Ranks | None = None,
        resume: bool = False,
    ) -> None:
        settings = config.train
        # with species and neighbors filled in: what the copy in the run's folder says
        self.config = dataclasses.replace(config, model=dataset.model_config)
        self.dataset = dataset
        self.display = display or Display(quiet=True)
        self.ranks = ranks or Ranks()
        self.run_dir = Path(settings.run_dir)
        self.device = self.ranks.device(settings.device, "train.device")
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        torch.set_float32_matmul_precision(settings.matmul_precision)
        torch.manual_seed(settings.seed)
        content: dict[str, Any] = {}
        if resume:
            content = load_state(self.last_file, config_to_dict(self.config), dataset.fingerprint)
        self.model, notes = initial_model(
            self.config, dataset, DTYPES[settings.dtype], content.get("model")
        )
        for note in notes:
            self.display.warn(note)
        self.model.to(self.device)
        self.ranks.broadcast(self.model.state_dict().values())
        # forces that are no gradient come without a virial
        direct = self.model.direct_forces
        if direct or not dataset.train.may_have_stress:
            self.loss = Loss.from_config(dataclasses.replace(settings, stress_weight=0.0))
        else:
            self.loss = Loss.from_config(settings)
        networks = self.model.networks
        if settings.compile:
            networks, notes = compiled_networks(networks, dataset.train, self.loss, self.ranks)
            for note in notes:
                self.display.warn(note)
        self.potentials = [Potential(network) for network in networks]
        groups = parameter_groups(self.model, settings.optimizer)
        self.parameters = [parameter for group in groups for parameter in group]
        self.flat = FlatParameters(groups)
        self.optimizer = build_optimizer(settings, self.flat, groups, column_splits(self.model))
        self.average = WeightAverage(self.flat.tensors, settings.ema_decay)
        self.loader = GraphLoader(dataset.train.graphs, config.data.num_workers)
        self.batches = Batches.from_config(settings, dataset.train)
        self.steps_per_epoch = self.batches.steps_per_epoch
        self.schedule = Schedule.from_config(settings, self.steps_per_epoch)
        self.progress = Progress()
        self.recovery = Recovery(self.model, self.optimizer, self.average, settings.max_loss_jump)
        self.patience = Patience(
            self.flat.tensors, self.average, settings.patience, settings.max_epochs
        )
        self.best = BestNetwork(self.model, len(dataset.valid) > 0)
        self._saved = self._clock = time.monotonic()
        if resume:
            self._resume(content)

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def last_epoch(self) -> int:
        """Epochs of the run: ``train.max_epochs``, or less where it cools down early."""
        return last_epoch(self.progress, self.config.train.max_epochs)

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
        settings, progress = self.config.train, self.progress
        self._saved = time.monotonic()
        self._clock = self._saved - progress.seconds
        logs = []
        if self.ranks.main:
            logs.append(Log(self.run_dir / "log.csv", progress.epoch))
            if settings.tensorboard:
                logs.append(TensorBoard(self.run_dir / "tensorboard", progress.step))
        # what exists lasts until the end: the garbage collector need not look through it again and
        # again, which takes a twentieth of the time
        gc.freeze()
        with StopRequest() as stop:
            self.display.start(self.last_epoch, self.steps_per_epoch, progress)
            try:
                while progress.epoch < self.last_epoch:
                    if not self._epoch(stop):
                        self.save()
                        return False
                    self._end_of_epoch(logs)
                self.save()
            finally:
                gc.unfreeze()
                self.display.close()
                for log in logs:
                    log.close()
        return True

    def plan_epoch(self) -> list[list[list[int]]]:
        """Frames of all steps of this epoch; graphs of those that are left are on their way."""
        self.dataset.train.start_epoch(self.progress.epoch)
        # frames of a streaming set, and so their numbers of edges, are others in each epoch
        self.batches = Batches.from_config(self.config.train, self.dataset.train)
        steps = self.batches.steps(self.progress.epoch)
        left = steps[self.progress.batch :]
        shares = (shares_of_levels(step, self.dataset, self.ranks) for step in left)
        self.loader.plan(chosen for share in shares for _, chosen in share)
        return steps

    def _epoch(self, stop: StopRequest) -> bool:
        """The steps of an epoch that are left; False when a signal asks to stop."""
        self.model.train()
        steps = self.plan_epoch()
        while self.progress.batch < len(steps):
            self._step(steps[self.progress.batch], len(steps))
            self.display.step()
            if self.ranks.any(stop.requested):
                return False
            if self.progress.batch < len(steps):  # at its end the epoch is validated first
                self._save_now_and_then()
        return True

    def _step(self, batches: list[list[int]], steps: int | None = None) -> None:
        """One step of the optimizer; nothing is changed if loss or gradient are not finite.

        Parameters
        ----------
        batches : frames of each batch whose gradients are summed
        steps : number of steps of this epoch
        """
        progress, settings = self.progress, self.config.train
        # packed epochs differ in length: the schedule counts in those of nominal length
        nominal = self.steps_per_epoch
        epoch = schedule_epoch(
            progress, progress.epoch + progress.batch / (steps or nominal), settings.max_epochs
        )
        rate = self.schedule(epoch * nominal) * progress.rate_factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.config.model.attention_dropout > 0:
            # from the step's number, so that a run that goes on draws the same
            torch.manual_seed((settings.seed + 1_000_003 * progress.step + self.ranks.rank) % 2**63)
        shares = shares_of_levels(batches, self.dataset, self.ranks)
        parts = [(level, self.loader.get(chosen)) for level, chosen in shares]
        counts = sum((self.loss.counts(g) for _, g in parts), torch.zeros(3, dtype=torch.float64))
        counts = self.ranks.sum(counts).clamp(min=1).to(self.device)
        loss = self.loss.at(epoch / settings.max_epochs)
        self.flat.zero_grad()
        terms = torch.zeros_like(counts)
        for level, graph in parts:
            graph = graph.to(self.device)
            # shares of the mean over the whole step, so that loss and gradients add up
            part = loss.sums(self._predict(level, graph), graph) / counts
            # only the weights: the graph of the forces leads to the positions as well
            loss.weighted(part).backward(inputs=self.parameters)
            terms += part.detach()
        terms = self.ranks.sum_gradients(self.flat.tensors, terms)
        limit = settings.clip_norm if settings.clip_norm > 0 else math.inf
        norm = self.flat.clip_grad_norm(limit)
        progress.batch += 1
        progress.step += 1
        values = torch.cat(
            [loss.weighted(terms)[None], terms, norm.detach().to(terms)[None]]
        ).tolist()
        if not all(math.isfinite(value) for value in values):
            self._bad_batch([frame for batch in batches for frame in batch])
            return
        progress.skipped = 0
        self.optimizer.step()
        self.average.update()
        for number, value in enumerate([*values[:4], 1.0]):
            progress.sums[number] += value

    def _predict(self, level: int, graph: Graph) -> dict[str, torch.Tensor]:
        return self.potentials[level](graph, training=True, virial=self.loss.stress_weight > 0)

    def _end_of_epoch(self, logs: list[Log | TensorBoard]) -> None:
        progress, settings = self.progress, self.config.train
        means = progress.end_epoch()
        last = progress.epoch == self.last_epoch
        names = ("train_loss", "train_energy_loss", "train_forces_loss", "train_stress_loss")
        row: dict[str, float | None] = {
            "epoch": progress.epoch,
            "step": progress.step,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **dict(zip(names, means, strict=True)),
        }
        found: dict[str, Errors | None] = {}
        if last or progress.epoch % settings.valid_interval == 0:
            with self.average.applied():
                found, metric, at_start = self._validate(row, means[0])
            self._judge(metric)
            if len(self.dataset.valid) and (text := self.patience.watch(at_start, progress)):
                self.recovery.keep()
                self.display.warn(text)
                self.display.end_early(self.last_epoch)
        progress.seconds = time.monotonic() - self._clock
        row["seconds"] = progress.seconds
        for log in logs:
            log.append(row)
        self.display.epoch(progress, row, found)
        self._save_now_and_then(last or progress.epoch == 1)  # a model to look at soon

    def _validate(
        self, row: dict[str, float | None], train_loss: float
    ) -> tuple[dict[str, Errors | None], float, float]:
        """Errors and loss of the averaged weights, which are in the model now; keeps the best.

        The best is the best with the weights of the terms at the end of the run. The losses that
        are returned have those of this epoch, for `_judge`: energies that do not count yet may vary
        as they like; and of the first one, for `Patience`: epochs compare.
        """
        progress = self.progress
        found: dict[str, Errors | None] = {}
        metric = present = at_start = train_loss
        total = self.config.train.max_epochs
        share = schedule_epoch(progress, progress.epoch, total) / total
        if len(self.dataset.valid):
            evaluation = self.evaluate("valid")
            found = errors(evaluation)
            metric = self.loss.of_evaluation(evaluation)
            of_now = self.loss.at(share)
            present = metric if of_now is self.loss else of_now.of_evaluation(evaluation)
            at_start = self.loss.at(0.0).of_evaluation(evaluation)
            row["valid_loss"] = metric
            for name, error in found.items():
                if error is not None:
                    row[f"valid_{name}_mae"], row[f"valid_{name}_rmse"] = error.mae, error.rmse
        if self.best.wants(metric, progress, falling=share > RAMP_START):
            progress.seconds = time.monotonic() - self._clock
            metadata = training_metadata(
                self.config.train, self.dataset, self.model, progress, self.ranks.size, found
            )
            self.best.take(self.model, metadata)
        return found, present, at_start

    def evaluate(self, name: str, model: torch.nn.Module | None = None) -> Evaluation:
        """Evaluate a subset with the weights as they are, or with another model; on all ranks."""
        size, model = self.config.train.valid_batch_size, model or self.model
        return evaluate_subset(self.dataset, name, model, size, self.device, self.ranks)

    def evaluate_best(self) -> dict[str, Evaluation]:
        """Evaluate all subsets with the network in ``model.pt``; on all ranks."""
        model = copy.deepcopy(self.model)
        load_weights(model, read_checkpoint(self.model_file))
        names = [name for name in SUBSETS if len(getattr(self.dataset, name))]
        found = {name: self.evaluate(name, model) for name in names}
        self.ranks.barrier()  # all have read the file: it may be written now
        return found

    # --- trouble ---------------------------------------------------------------------------------

    def _judge(self, metric: float) -> None:
        """Take the averaged weights as good, or notice that they have blown up."""
        progress = self.progress
        # without validation frames the loss is that of the weights on their way, not of the average
        settled = len(self.dataset.valid) and progress.epoch > self.config.train.warmup_epochs
        if not math.isfinite(metric):
            self._restore(f"the loss after epoch {progress.epoch} is not finite")
        elif settled and self.recovery.jumped(metric, progress):
            self.display.warn(self.recovery.restore_after_jump(progress, metric))
        else:
            progress.good_metric = metric
            self.recovery.keep()
            if self.config.train.schedule == "plateau":
                lower_on_plateau(progress, metric, self.config.train)

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
        self.display.warn(self.recovery.restore(self.progress, reason, self.model_file))

    # --- files -----------------------------------------------------------------------------------

    def _save_now_and_then(self, now: bool = False) -> None:
        # the clock of rank 0 decides, and nobody waits for it
        waited = time.monotonic() - self._saved >= self.config.train.save_interval
        if self.ranks.main and (now or waited):
            self._write()

    def save(self) -> None:
        """Write ``last.pt``, and ``model.pt`` if there is a better one than in the file."""
        if self.ranks.main:
            self._write()
        self.ranks.barrier()  # nobody ends, and brings the others down, before it is written

    def _write(self) -> None:
        self.progress.seconds = time.monotonic() - self._clock
        tensors = {
            "model": model_to_dict(self.model),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "good": self.recovery.good,
            "patience": self.patience.state_dict(),
        }
        config = config_to_dict(self.config)
        fingerprint = self.dataset.fingerprint
        save_state(self.last_file, self.progress, config, fingerprint, tensors, self._write_best)
        self._saved = time.monotonic()

    def _write_best(self) -> None:
        if self.best.metadata is not None:
            save_model(self.model_file, self.best.model, self.best.metadata)
            self.best.metadata = None

    def _resume(self, content: dict[str, Any]) -> None:
        """Everything but the network, from the content of ``last.pt``."""
        self.optimizer.load_state_dict(content["optimizer"])
        self.average.load_state_dict(content["average"])
        self.progress = Progress(**content["progress"])
        self._clock = time.monotonic() - self.progress.seconds
        self.recovery.good = content["good"]
        self.patience.load_state_dict(content.get("patience", {"best": []}))
