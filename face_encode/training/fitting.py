"""Training that judges each epoch and resumes from a checkpoint.

After each epoch the network is judged on people that it does not train on. The best epoch is
kept, the untouched network counting as epoch 0; the learning rate falls when the score no longer
rises, and then the training ends. Everything that the next epoch depends on is written to one
checkpoint file, atomically, so that a run that was killed ends in the same network as one that
was not.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from face_encode.errors import ModelFileError, TrainingError
from face_encode.files import replacing
from face_encode.training.recipe import check_ranges


@dataclass(frozen=True)
class Schedule:
    """When to lower the learning rate, and when to stop.

    Attributes:
        epochs: The most epochs.
        learning_rate: The first epoch's learning rate.
        patience: Epochs without improvement until the learning rate falls; after twice as many
            the training stops.
        factor: Factor by which the learning rate falls.
        least_gain: By how much the score must rise above epoch 0 for an epoch to be kept.
        cosine: Whether the learning rate falls to 0 by a cosine over all epochs instead, and
            none is left out: for trainings too short to wait for a plateau.
        span: Begin and end of the part of a longer training that this one is, within 0..1: the
            cosine's part.
        warm_up: Share of its learning rate that the first epoch has.
        hours: Train for this time instead of a number of epochs; needs the cosine.
        keep_last: Whether the last epoch is kept instead of the best: where the learning rate
            falls to 0 anyway, an earlier epoch that was judged better was lucky.
    """

    epochs: int = 30
    learning_rate: float = 3e-4
    patience: int = 3
    factor: float = 0.3
    least_gain: float = 0.0
    cosine: bool = False
    span: tuple[float, float] = (0.0, 1.0)
    warm_up: float = 1.0
    hours: float | None = None
    keep_last: bool = False

    def __post_init__(self) -> None:
        check_ranges(self)

    def next_rate(self, rate: float, progress: Progress) -> float:
        """The learning rate behind an epoch of this rate."""
        if self.cosine:
            begin, end = self.span
            place = begin + (end - begin) * self._share(progress)
            warm_up = self.warm_up if progress.epoch == 0 else 1.0
            return warm_up * self.learning_rate * (1 + math.cos(math.pi * place)) / 2
        waited = progress.waited
        return rate * self.factor if waited and waited % self.patience == 0 else rate

    def is_over(self, progress: Progress) -> bool:
        """Whether the training ends with this epoch."""
        is_stuck = not self.cosine and progress.waited >= 2 * self.patience
        return is_stuck or self._share(progress) >= 1

    def _share(self, progress: Progress) -> float:
        if self.hours is None:
            return min(1.0, progress.epoch / self.epochs)
        return min(1.0, progress.hours / self.hours)


@dataclass
class Progress:
    """The state of a run, as its checkpoint holds it.

    Attributes:
        rows: One line of the log for each epoch, epoch 0 being the untouched network.
        best_epoch: The epoch whose weights are kept.
        best_score: Score of the best epoch.
        waited: Epochs since the score last rose.
        hours: Time trained for.
        finished: Whether the training came to its end.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -math.inf
    waited: int = 0
    hours: float = 0.0
    finished: bool = False

    @property
    def epoch(self) -> int:
        """The number of the last epoch."""
        return len(self.rows) - 1


Judge = Callable[[], dict[str, float]]
"""Measures the network as it is now; ``score`` decides, and the rest is logged."""


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Judges each epoch, keeps the best, lowers the learning rate, writes log and checkpoint.

    The checkpoint is ``name.npz`` in the folder, the log ``name.csv``. The run's key stands for
    everything that the run depends on: a checkpoint with another key is not gone on with, but kept
    beside as ``name.former-1.npz``, for when its run is asked for again. ``say`` takes one line
    about that, and about each epoch.
    """

    def __init__(
        self,
        judge: Judge,
        schedule: Schedule,
        folder: Path,
        name: str,
        run_key: str,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self.judge = judge
        self.schedule = schedule
        self.path = folder / f"{name}.npz"
        self.run_key = run_key
        self.say = say
        self.progress = Progress()
        self.best_weights: list[npt.NDArray[Any]] = []
        self._clock = time.monotonic()

    def begin(self, model: keras.Model) -> None:
        """Bring a compiled model to where the checkpoint left it, or judge it as epoch 0."""
        model.optimizer.build(model.trainable_variables)
        self.set_model(model)
        self._clock = time.monotonic()
        if self._resume(self.path):
            return
        for former in self.path.parent.glob(f"{self.path.stem}.former-*.npz"):
            if self._resume(former):
                self._set_aside()
                os.replace(former, self.path)
                self._write_log()
                return
        self._judge_epoch(0, {})

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop before a loss that is not finite spoils the checkpoint."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingError(
                "the loss is no longer a number; a lower learning rate helps most often. "
                f"Received: loss {loss} in batch {batch + 1}, behind epoch "
                f"{self.progress.epoch}"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Judge, decide, write."""
        self._judge_epoch(epoch + 1, dict(logs or {}))

    def restore_best(self) -> None:
        """Give the model the weights of the best epoch."""
        for variable, value in zip(self.model.variables, self.best_weights, strict=True):
            variable.assign(value)

    def _state(self) -> list[Any]:
        """Every variable that the next step depends on, in a fixed order."""
        return [*self.model.variables, *self.model.optimizer.variables]

    def _resume(self, path: Path) -> bool:
        """Take up a checkpoint; False where it is none of this run."""
        variables, kept = self._state(), range(len(self.model.variables))
        try:
            # Opened here: numpy leaves a file that is none of its own open.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                state = json.loads(str(stored["state"]))
                if state.pop("run_key") != self.run_key:
                    return False
                values = [stored[f"value{index}"] for index in range(len(variables))]
                best = [stored[f"best{index}"] for index in kept]
        # A checkpoint is never half written. Where one is damaged otherwise, starting again is
        # right: nothing but time is lost.
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return False
        expected = [tuple(each.shape) for each in (*variables, *self.model.variables)]
        if [value.shape for value in (*values, *best)] != expected:
            return False
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.progress = Progress(**state)
        # The plan may have been changed in between.
        self.progress.finished = self.schedule.is_over(self.progress)
        if self.schedule.cosine:
            rate = float(self.model.optimizer.learning_rate)
            self.model.optimizer.learning_rate = self.schedule.next_rate(rate, self.progress)
        self.best_weights = best
        return True

    def _judge_epoch(self, epoch: int, logs: dict[str, float]) -> None:
        optimizer, progress = self.model.optimizer, self.progress
        before, self._clock = self._clock, time.monotonic()
        progress.hours += (self._clock - before) / 3600
        rate = float(optimizer.learning_rate)
        judged = self.judge()
        row = {"epoch": epoch, "learning_rate": rate, **logs, **judged}
        progress.rows.append({name: float(value) for name, value in row.items()})
        bar = progress.best_score + (self.schedule.least_gain if progress.best_epoch == 0 else 0)
        if epoch == 0 or judged["score"] > bar:
            progress.best_epoch, progress.best_score, progress.waited = epoch, judged["score"], 0
            self.best_weights = [variable.numpy() for variable in self.model.variables]
        else:
            progress.waited += 1
        next_rate = self.schedule.next_rate(rate, progress)
        # An optimizer with a schedule of its own refuses to be set.
        if next_rate != rate:
            optimizer.learning_rate = next_rate
        progress.finished = self.schedule.is_over(progress)
        self.model.stop_training = progress.finished
        self._write()
        loss = f", loss {row['loss']:.4f}" if "loss" in row else ""
        if epoch == 0:
            loss = " (untouched)"
        self.say(f"epoch {epoch}{loss}, score {judged['score']:.4f}")

    def _write_log(self) -> None:
        rows = self.progress.rows
        with (
            replacing(self.path.with_suffix(".csv"), ModelFileError, shared=True) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as log,
        ):
            writer = csv.DictWriter(log, list(dict.fromkeys(name for row in rows for name in row)))
            writer.writeheader()
            writer.writerows(rows)

    def _write(self) -> None:
        self._write_log()
        arrays = {f"value{index}": variable.numpy() for index, variable in enumerate(self._state())}
        arrays |= {f"best{index}": value for index, value in enumerate(self.best_weights)}
        state = json.dumps({"run_key": self.run_key, **asdict(self.progress)})
        with replacing(self.path, ModelFileError, shared=True) as temporary:
            np.savez(temporary, allow_pickle=False, state=np.array(state), **arrays)
            if self.progress.epoch == 0:
                self._set_aside()

    def _set_aside(self) -> None:
        """Keep a checkpoint that could not be gone on with: it may hold the work of hours."""
        formers = (self.path.with_suffix(f".former-{n}.npz") for n in itertools.count(1))
        former = next(path for path in formers if not path.exists())
        with suppress(FileNotFoundError):
            os.replace(self.path, former)
            self.say(
                f"{self.path.name} is of other settings, photos or networks, or damaged: it is "
                f"{former.name} now"
            )


def fit_judged(
    model: keras.Model,
    batches: keras.utils.PyDataset,
    checkpoint: Checkpoint,
    *,
    solve: Callable[[], None] | None = None,
) -> Progress:
    """Train a compiled model, resuming from its checkpoint if there is one.

    The model ends with the weights of its best epoch, or of its last, as the schedule says.

    Args:
        model: Compiled; its optimizer's learning rate is the schedule's.
        batches: Training data, with an ``epoch`` that its batches depend on.
        checkpoint: Judges and writes.
        solve: Sets some of the weights without gradients; counts as the first epoch.

    Raises:
        TrainingError: The loss is no longer a number.
        ModelFileError: The log or the checkpoint cannot be written.
    """
    checkpoint.begin(model)
    progress = checkpoint.progress
    if solve is not None and len(progress.rows) == 1:
        solve()
        checkpoint.on_epoch_end(0)
    if not progress.finished:
        batches.epoch = progress.epoch
        model.fit(
            batches,
            initial_epoch=batches.epoch,
            # By the clock, the checkpoint stops the training.
            epochs=checkpoint.schedule.epochs if checkpoint.schedule.hours is None else sys.maxsize,
            # The batches are shuffled by their own seed.
            shuffle=False,
            callbacks=[checkpoint],
            verbose=0,
        )
    if not checkpoint.schedule.keep_last:
        checkpoint.restore_best()
    return progress


def without_xla() -> bool | Literal["auto"]:
    """The value of ``jit_compile`` that leaves XLA out on TensorFlow.

    XLA does without oneDNN, which makes convolutions slower on a CPU.
    """
    return False if keras.backend.backend() == "tensorflow" else "auto"


def has_gpu() -> bool:
    """Whether Keras' backend has another device than the processor."""
    return any(not name.lower().startswith("cpu") for name in keras.distribution.list_devices())
