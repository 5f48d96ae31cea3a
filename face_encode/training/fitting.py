"""Training that is watched, and that goes on where it was interrupted.

After each epoch the network is judged on people that it does not train on. The best epoch is
kept, the untouched beginning counting as epoch 0; the learning rate falls when nothing improves
any more, and then the training ends. Everything that the next epoch depends on is written to one
checkpoint file, atomically, so that a run that was killed ends in the same network as one that
was not.
"""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from face_encode.errors import ModelFileError, TrainingError
from face_encode.files import replacing

Weights = list[npt.NDArray[Any]]


@dataclass(frozen=True)
class Schedule:
    """When to slow down and when to stop.

    Attributes:
        epochs: The most epochs.
        learning_rate: To begin with.
        patience: Epochs without improvement until the learning rate falls; after twice as many
            the training stops.
        factor: What the learning rate is multiplied by then.
        least_gain: By how much the score must rise above epoch 0 for an epoch to be kept.
        cosine: Whether the learning rate falls to 0 by a cosine over all epochs instead, and
            none is left out: for so few epochs that waiting for a plateau would waste them.
        keep_last: Whether the last epoch is kept, however it was judged: where the learning rate
            falls to 0 anyway, an earlier epoch that was judged better was lucky.
    """

    epochs: int = 30
    learning_rate: float = 3e-4
    patience: int = 3
    factor: float = 0.3
    least_gain: float = 0.0
    cosine: bool = False
    keep_last: bool = False

    def rate_behind(self, epoch: int, rate: float, waited: int) -> float:
        """The learning rate of the next epoch.

        Args:
            epoch: How many are done.
            rate: The last one's.
            waited: Epochs since the score last rose.
        """
        if self.cosine:
            return self.learning_rate * (1 + math.cos(math.pi * epoch / self.epochs)) / 2
        return rate * self.factor if waited and waited % self.patience == 0 else rate

    def ends_behind(self, epoch: int, waited: int) -> bool:
        """Whether that many epochs are enough."""
        return epoch >= self.epochs or (not self.cosine and waited >= 2 * self.patience)


@dataclass
class Progress:
    """What is known of a run so far; all of it goes into the checkpoint.

    Attributes:
        rows: One line of the log for each epoch, epoch 0 being the untouched beginning.
        best_epoch: The epoch whose weights are kept.
        best_score: Its score.
        waited: Epochs since the score last rose.
        finished: Whether the training came to its end.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = -math.inf
    waited: int = 0
    finished: bool = False


Judge = Callable[[], dict[str, float]]
"""Measures the network as it is now; ``score`` decides, and the rest is logged."""


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Judges each epoch, keeps the best, lowers the learning rate, writes the checkpoint."""

    def __init__(
        self,
        judge: Judge,
        schedule: Schedule,
        checkpoint: Path,
        log: Path,
        run_key: str,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Say how to judge, and where to write.

        Args:
            judge: Measures the network on people it does not train on.
            schedule: When to slow down and stop.
            checkpoint: The ``.npz`` file to write after each epoch.
            log: The CSV file to write after each epoch.
            run_key: What the run depends on; a checkpoint of another key is not taken up.
            say: Told of each epoch, in a line.
        """
        super().__init__()
        self.judge = judge
        self.schedule = schedule
        self.checkpoint = checkpoint
        self.log = log
        self.run_key = run_key
        self.say = say
        self.progress = Progress()
        self.best_weights: Weights = []

    def resume(self, model: keras.Model) -> bool:
        """Bring a compiled model to where the checkpoint left it; False where there is none."""
        model.optimizer.build(model.trainable_variables)
        try:
            with np.load(self.checkpoint, allow_pickle=False) as stored:
                state = json.loads(str(stored["state"]))
                if state.pop("run_key") != self.run_key:
                    return False
                count = len(_state_of(model))
                values = [stored[f"value{index}"] for index in range(count)]
                best = [stored[f"best{index}"] for index in range(len(model.variables))]
        # A checkpoint cannot be half written; whatever else is wrong with it, beginning anew is
        # right, since nothing but time is lost.
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
            return False
        for variable, value in zip(_state_of(model), values, strict=True):
            variable.assign(value)
        self.progress = Progress(**state)
        self.best_weights = best
        return True

    def begin(self, model: keras.Model) -> None:
        """Judge the untouched network as epoch 0."""
        self.set_model(model)
        self._judge_epoch(0, {})

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop before a loss that is no number spoils the checkpoint."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingError(
                "the loss is no longer a number; a lower learning rate helps most often. "
                f"Received: loss {loss} in batch {batch + 1}, behind epoch "
                f"{len(self.progress.rows) - 1}"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Judge, decide, write."""
        self._judge_epoch(epoch + 1, dict(logs or {}))

    def restore_best(self, model: keras.Model) -> None:
        """Give the model the weights of the best epoch."""
        for variable, value in zip(model.variables, self.best_weights, strict=True):
            variable.assign(value)

    def _judge_epoch(self, epoch: int, logs: dict[str, float]) -> None:
        optimizer = self.model.optimizer
        judged = self.judge()
        row = {"epoch": epoch, "learning_rate": float(optimizer.learning_rate), **logs, **judged}
        progress = self.progress
        progress.rows.append({name: float(value) for name, value in row.items()})
        bar = progress.best_score + (self.schedule.least_gain if progress.best_epoch == 0 else 0)
        if epoch == 0 or judged["score"] > bar:
            progress.best_epoch, progress.best_score, progress.waited = epoch, judged["score"], 0
            self.best_weights = [keras.ops.convert_to_numpy(v) for v in self.model.variables]
        else:
            progress.waited += 1
        rate = float(optimizer.learning_rate)
        next_rate = self.schedule.rate_behind(epoch, rate, progress.waited)
        # An optimizer with a schedule of its own refuses to be told.
        if next_rate != rate:
            optimizer.learning_rate = next_rate
        progress.finished = self.schedule.ends_behind(epoch, progress.waited)
        self.model.stop_training = progress.finished
        self._write()
        loss = f", loss {row['loss']:.4f}" if "loss" in row else ""
        if epoch == 0:
            loss = " (untouched)"
        self.say(f"epoch {epoch}{loss}, score {judged['score']:.4f}")

    def _write(self) -> None:
        with replacing(self.log, ModelFileError) as temporary:
            temporary.write_text(_as_csv(self.progress.rows), "utf-8")
        arrays = {
            f"value{index}": keras.ops.convert_to_numpy(variable)
            for index, variable in enumerate(_state_of(self.model))
        }
        arrays |= {f"best{index}": value for index, value in enumerate(self.best_weights)}
        state = json.dumps({"run_key": self.run_key, **asdict(self.progress)})
        with replacing(self.checkpoint, ModelFileError) as temporary:
            np.savez(temporary, allow_pickle=False, state=np.array(state), **arrays)


def fit_watched(
    model: keras.Model,
    batches: keras.utils.PyDataset,
    watch: Watch,
    *,
    solve: Callable[[], None] | None = None,
    verbose: int = 0,
) -> Progress:
    """Train a compiled model, from its checkpoint where there is one; leave it at its best.

    Or at its last, where the schedule says so.

    Args:
        model: Compiled; its optimizer's learning rate is the schedule's.
        batches: What to train on, with an ``epoch`` that its batches go by.
        watch: Judges and writes.
        solve: Takes the model part of the way without gradients; stands for the first epoch.
        verbose: As for ``keras.Model.fit``.

    Raises:
        TrainingError: The loss is no longer a number.
        ModelFileError: The log or the checkpoint cannot be written.
    """
    if not watch.resume(model):
        watch.begin(model)
    if solve is not None and len(watch.progress.rows) == 1:
        solve()
        watch.set_model(model)
        watch.on_epoch_end(0)
    done = len(watch.progress.rows) - 1
    if not watch.progress.finished:
        batches.epoch = done
        model.fit(
            batches,
            initial_epoch=done,
            epochs=watch.schedule.epochs,
            # The batches are shuffled by their own seed.
            shuffle=False,
            callbacks=[watch],
            verbose=verbose,
        )
    if not watch.schedule.keep_last:
        watch.restore_best(model)
    return watch.progress


def without_xla() -> bool | Literal["auto"]:
    """What ``compile`` is to be told of ``jit_compile``: on TensorFlow, to do without XLA.

    XLA does without oneDNN, which makes convolutions slower on a CPU.
    """
    return False if keras.backend.backend() == "tensorflow" else "auto"


def _state_of(model: keras.Model) -> list[Any]:
    """Every variable that the next step depends on, in a fixed order."""
    return [*model.variables, *model.optimizer.variables]


def _as_csv(rows: list[dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
