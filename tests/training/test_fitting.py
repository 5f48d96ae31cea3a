"""Judged training: the best epoch is kept, it ends in time, and it resumes where it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from face_encode.errors import InputError, ModelFileError, TrainingError
from face_encode.training.batches import PhotoBatches
from face_encode.training.fitting import Checkpoint, Progress, Schedule, fit_judged
from tests.full_disk import full_disk

INPUTS = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
TARGETS = INPUTS @ np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)


def network(learning_rate: float = 0.02) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(2),
        ]
    )
    model.compile(keras.optimizers.Adam(learning_rate), loss="mse")
    return model


def train(
    folder: Path,
    schedule: Schedule,
    scores: list[float] | None = None,
    stop_after: int | None = None,
    learning_rate: float = 0.02,
    run_key: str = "key",
    say: Callable[[str], None] | None = None,
) -> tuple[keras.Model, Progress]:
    model = network(learning_rate)
    given = iter(scores or [])

    def judge() -> dict[str, float]:
        if scores is not None:
            return {"score": next(given)}
        error = keras.ops.convert_to_numpy(model(INPUTS)) - TARGETS
        return {"score": -float(np.square(error).mean())}

    def stop(line: str) -> None:
        if stop_after is not None and line.startswith(f"epoch {stop_after},"):
            raise KeyboardInterrupt

    checkpoint = Checkpoint(judge, schedule, folder, "run", run_key, say or stop)
    batches = PhotoBatches(INPUTS, TARGETS, batch_size=16, seed=4)
    return model, fit_judged(model, batches, checkpoint)


def weights(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in model.variables]


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    schedule = Schedule(epochs=6)
    whole, whole_progress = train(tmp_path / "whole", schedule)
    for stop in (1, 4):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", schedule, stop_after=stop)
    parts, parts_progress = train(tmp_path / "parts", schedule)
    assert len(parts_progress.rows) == 7
    for one, other in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_array_equal(one, other)
    # Only the time that it took differs.
    assert replace(whole_progress, hours=0) == replace(parts_progress, hours=0)
    logs = [(tmp_path / name / "run.csv").read_text() for name in ("whole", "parts")]
    assert logs[0] == logs[1]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, _ = train(tmp_path, Schedule(epochs=2))
    again, progress = train(tmp_path, Schedule(epochs=2), scores=[])
    assert len(progress.rows) == 3
    for one, other in zip(weights(first), weights(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_best_epoch_is_kept_and_the_learning_rate_falls(tmp_path: Path) -> None:
    schedule = Schedule(epochs=20, patience=2, factor=0.5)
    _, progress = train(tmp_path, schedule, scores=[0.5, 0.6, 0.7, 0.6, 0.6, 0.6, 0.7, 0.9])
    assert progress.best_epoch == 2
    assert progress.finished
    rates = [row["learning_rate"] for row in progress.rows]
    # Halved behind epoch 4, two epochs after the best; stopped behind epoch 6, four after it.
    assert rates == pytest.approx([0.02] * 5 + [0.01] * 2)


def test_by_a_cosine_no_epoch_is_left_out(tmp_path: Path) -> None:
    schedule = Schedule(epochs=4, learning_rate=0.02, patience=1, cosine=True)
    _, progress = train(tmp_path, schedule, scores=[0.9, 0.5, 0.5, 0.5, 0.5])
    rates = [row["learning_rate"] for row in progress.rows]
    # 0.02 times half of 1 + cos(0), cos(45 degrees), cos(90), cos(135).
    assert rates == pytest.approx([0.02, 0.02, 0.0170711, 0.01, 0.0029289], rel=1e-4)
    assert len(progress.rows) == 5


def test_the_last_epoch_is_kept_where_the_schedule_says_so(tmp_path: Path) -> None:
    scores = [0.1, 0.9, 0.2, 0.3]
    schedule = Schedule(epochs=3, patience=5)
    best, _ = train(tmp_path / "best", schedule, list(scores))
    kept_last = Schedule(epochs=3, patience=5, keep_last=True)
    last, progress = train(tmp_path / "last", kept_last, list(scores))
    assert progress.best_epoch == 1
    first_epoch, _ = train(tmp_path / "one", Schedule(epochs=1), scores[:2])
    np.testing.assert_array_equal(weights(best)[0], weights(first_epoch)[0])
    assert np.abs(weights(last)[0] - weights(best)[0]).max() > 0.01
    # What was finished before is taken up at its last epoch too.
    again, _ = train(tmp_path / "last", kept_last, [])
    np.testing.assert_array_equal(weights(again)[0], weights(last)[0])


def test_the_beginning_is_kept_unless_the_gain_is_large_enough(tmp_path: Path) -> None:
    schedule = Schedule(epochs=3, least_gain=0.1)
    untouched = weights(network())
    model, progress = train(tmp_path / "a", schedule, scores=[0.5, 0.55, 0.59, 0.58])
    assert progress.best_epoch == 0
    for one, other in zip(weights(model), untouched, strict=True):
        np.testing.assert_array_equal(one, other)
    _, progress = train(tmp_path / "b", schedule, scores=[0.5, 0.55, 0.61, 0.62])
    assert progress.best_epoch == 3


def test_a_checkpoint_of_other_work_is_not_taken_up(tmp_path: Path) -> None:
    first, _ = train(tmp_path, Schedule(epochs=1))
    said: list[str] = []
    train(tmp_path, Schedule(epochs=1), run_key="other", say=said.append)
    assert [line[:7] for line in said] == ["run.npz", "epoch 0", "epoch 1"]
    train(tmp_path, Schedule(epochs=1), run_key="other", say=said.append)
    assert len(said) == 3
    train(tmp_path, Schedule(epochs=2), run_key="third")
    assert len(list(tmp_path.glob("run.former-*.npz"))) == 2
    # It is kept, and gone on with when it is asked for again.
    again, _ = train(tmp_path, Schedule(epochs=1), say=said.append)
    assert [line[:7] for line in said[3:]] == ["run.npz"]
    assert len(list(tmp_path.glob("run*.npz"))) == 3
    assert len((tmp_path / "run.csv").read_text().splitlines()) == 3
    for one, other in zip(weights(again), weights(first), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_checkpoint_of_another_network_is_not_taken_up(tmp_path: Path) -> None:
    train(tmp_path, Schedule(epochs=1))
    with np.load(tmp_path / "run.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    np.savez(tmp_path / "run.npz", **{**arrays, "value0": np.zeros((6, 5), np.float32)})
    said: list[str] = []
    train(tmp_path, Schedule(epochs=1), say=said.append)
    assert [line[:7] for line in said] == ["run.npz", "epoch 0", "epoch 1"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"no checkpoint at all"])
def test_a_damaged_checkpoint_starts_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.npz").write_bytes(content)
    _, progress = train(tmp_path, Schedule(epochs=1))
    assert len(progress.rows) == 2


def test_a_loss_that_is_no_number_ends_the_run_and_spares_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a lower learning rate helps"):
        train(tmp_path, Schedule(epochs=50), learning_rate=1e38)
    with np.load(tmp_path / "run.npz", allow_pickle=False) as stored:
        assert all(np.isfinite(stored[name]).all() for name in stored if name.startswith("best"))


def test_a_full_disk_is_told_and_spares_the_former_files(tmp_path: Path) -> None:
    train(tmp_path, Schedule(epochs=1))
    before = (tmp_path / "run.npz").read_bytes()
    model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(1000)])
    model.compile("sgd", "mse")
    checkpoint = Checkpoint(lambda: {"score": 0.0}, Schedule(), tmp_path, "run", "other")
    with full_disk(20_000), pytest.raises(ModelFileError, match="cannot write"):
        checkpoint.begin(model)
    assert (tmp_path / "run.npz").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.csv", "run.npz"]


@pytest.mark.slow
def test_a_killed_process_leaves_a_checkpoint_to_resume_from(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", Schedule(epochs=5))
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.training.test_fitting import Schedule, train\n"
        "def say(line):\n"
        "    print(line, flush=True)\n"
        "    if line.startswith('epoch 2,'):\n"
        "        sys.stdin.read()\n"
        "train(Path(sys.argv[1]), Schedule(epochs=5), say=say)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "killed")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 2,"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed, progress = train(tmp_path / "killed", Schedule(epochs=5))
    assert len(progress.rows) == 6
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def rows(epochs: int) -> list[dict[str, float]]:
    """A log behind some epochs."""
    return [{}] * (epochs + 1)


def test_a_part_of_a_longer_training_warms_up_and_goes_on_with_its_cosine() -> None:
    first = Schedule(2, 0.1, cosine=True, span=(0.0, 0.5), warm_up=0.3)
    second = Schedule(2, 0.1, cosine=True, span=(0.5, 1.0))
    rates = [part.next_rate(0, Progress(rows(n))) for part in (first, second) for n in range(3)]
    assert rates == pytest.approx([0.03, 0.0853553, 0.05, 0.05, 0.0146447, 0.0], abs=1e-6)
    assert [first.is_over(Progress(rows(n))) for n in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    "changes", [{"epochs": 0}, {"learning_rate": -1.0}, {"patience": 0}, {"hours": float("nan")}]
)
def test_schedules_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"lies within .*\. Received: "):
        Schedule(**changes)


def test_hours_rule_over_epochs() -> None:
    schedule = Schedule(1, 0.1, cosine=True, hours=2.0)
    assert schedule.next_rate(0, Progress(rows(9), hours=1.0)) == pytest.approx(0.05)
    assert not schedule.is_over(Progress(rows(9), hours=1.9))
    assert schedule.is_over(Progress(rows(9), hours=2.1))
