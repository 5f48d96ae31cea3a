"""The stage with people as labels: it learns, and is kept only where it helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.training.distillation import train_on_people
from face_encode.training.fitting import Progress
from face_encode.training.verification import PairSet, measure
from face_encode.types import ImageArray


def draw(people: int, photos: int, seed: int) -> tuple[ImageArray, np.ndarray]:
    """People are a colour under much light; what tells them apart is the hue."""
    random = np.random.default_rng(seed)
    colours = random.uniform(60, 200, (people, 1, 1, 1, 3))
    light = random.normal(0, 60, (people, photos, 1, 1, 1))
    crops = colours + light + random.normal(0, 6, (people, photos, 8, 8, 3))
    numbers = np.repeat(np.arange(people), photos)
    return crops.reshape(-1, 8, 8, 3).clip(0, 255).astype(np.uint8), numbers


def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dense(8),
        ]
    )


def stage(
    folder: Path, judge: Callable[[keras.Model], float], epochs: int = 4
) -> tuple[keras.Model, Progress]:
    crops, people = draw(30, 4, 0)
    model = network()
    progress = train_on_people(
        model,
        crops,
        people,
        lambda: {"score": judge(model), "standard_error": 0.01},
        epochs=epochs,
        learning_rate=0.01,
        folder=folder,
        run_key="key",
    )
    return model, progress


def test_it_tells_other_people_apart_better(tmp_path: Path) -> None:
    crops, people = draw(20, 4, 9)
    pairs = PairSet.among(people)

    def judge(model: keras.Model) -> float:
        return measure(model.predict(crops, verbose=0), pairs).accuracy

    model, progress = stage(tmp_path, judge)
    scores = [row["score"] for row in progress.rows]
    assert progress.best_epoch > 0
    assert max(scores) > scores[0] + 0.05, scores
    assert judge(model) == pytest.approx(max(scores))


def test_what_does_not_help_is_not_kept(tmp_path: Path) -> None:
    given = iter([0.8, 0.8, 0.805, 0.7])
    model, progress = stage(tmp_path, lambda _: next(given), epochs=2)
    assert progress.best_epoch == 0
    for kept, untouched in zip(model.get_weights(), network().get_weights(), strict=True):
        np.testing.assert_array_equal(kept, untouched)
