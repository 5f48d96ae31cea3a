from __future__ import annotations

import time

import numpy as np
import pytest

from face_encode.encoders.compilation import Forward
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines.parity import (
    MOST_DIFFERENCE,
    Parity,
    largest_difference,
    milliseconds_in_turns,
    probe_crops,
)
from face_encode.types import CropRecipe, Embeddings, ImageArray


def test_probes_are_always_the_same_and_use_the_whole_range() -> None:
    recipe = CropRecipe("box", 60, 41)
    crops = probe_crops(recipe)
    assert crops.shape == (8, 60, 41, 3)
    assert crops.dtype == np.uint8
    assert np.array_equal(crops, probe_crops(recipe))
    assert (crops.min(), crops.max()) == (0, 255)
    spread = crops[:-1].std(axis=(1, 2))
    assert spread.min() > 25


def test_probes_are_smooth_as_photographs_are() -> None:
    crops = probe_crops(CropRecipe("box", 150, 150))[:-1].astype(np.float64)
    neighbours = np.abs(np.diff(crops, axis=2)).mean()
    strangers = np.abs(crops[:, :, :75] - crops[:, :, 75:]).mean()
    assert neighbours < strangers / 3


def test_probes_find_as_large_a_difference_as_faces_do(
    encoder: Encoder, colour_crops: ImageArray
) -> None:
    """What an inexact engine gets wrong on faces must show on the probes."""
    import keras

    coarse = keras.models.clone_model(encoder.model)
    coarse.set_weights(
        [
            # bfloat16 keeps eight bits of the mantissa.
            (weight.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            for weight in encoder.model.get_weights()
        ]
    )
    inexact, exact = (Encoder(model, encoder.contract) for model in (coarse, encoder.model))

    def difference(crops: ImageArray) -> float:
        return largest_difference(exact.encode(crops), inexact.encode(crops))

    on_faces = difference(colour_crops)
    assert on_faces > MOST_DIFFERENCE
    assert difference(probe_crops(encoder.contract.crop)) > on_faces / 2


@pytest.mark.parametrize(
    ("expected", "received", "difference"),
    [
        ([[3.0, 4.0]], [[3.0, 4.5]], 0.5),  # length 5: as it is
        ([[0.3, 0.4]], [[0.3, 0.45]], 0.1),  # length 0.5: in proportion
        ([[0.0, 0.0]], [[0.0, 0.0]], 0.0),
        ([[0.0, 0.0]], [[0.0, 0.1]], np.inf),
        ([[3.0, 4.0], [1.0, 0.0]], [[3.0, 4.0], [1.0, 0.25]], 0.25),
        ([[1.0]], [[1.0], [1.0]], np.inf),
    ],
)
def test_the_largest_difference(
    expected: list[list[float]], received: list[list[float]], difference: float
) -> None:
    arrays = np.array(expected, np.float32), np.array(received, np.float32)
    assert largest_difference(*arrays) == pytest.approx(difference, abs=1e-6)


def test_what_is_no_number_does_not_hold() -> None:
    expected = np.ones((8, 3), np.float32)
    assert not Parity(largest_difference(expected, expected * np.nan), 1.0).holds
    assert Parity(1e-3, 1.0).holds and not Parity(1.1e-3, 1.0).holds


def test_engines_are_timed_in_turns() -> None:
    crops = probe_crops(CropRecipe("box", 8, 8))
    calls: list[str] = []

    def forward(name: str, seconds: float) -> Forward:
        def run(crops: ImageArray) -> Embeddings:
            # The first turn of all is disturbed, which must not decide.
            time.sleep(seconds if calls else 0.1)
            calls.append(name)
            return np.ones((len(crops), 3), np.float32)

        return run

    fast, slow = milliseconds_in_turns([forward("fast", 0.001), forward("slow", 0.02)], crops)
    assert 1 <= fast < slow
    assert calls[:8] == ["fast", "fast", "slow", "slow"] * 2
    assert calls.count("slow") == calls.count("fast")
