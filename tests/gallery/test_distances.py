from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.gallery import distances as module
from face_encode.gallery.distances import (
    METRICS,
    Metric,
    check_distance_threshold,
    distances,
    similarity_of,
    threshold_distance,
    unit_embedding,
)

A = np.array([[3.0, 4.0]], np.float32)
B = np.array([[3.0, 4.0], [4.0, 3.0], [-6.0, -8.0], [0.0, 1.0]], np.float32)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("cosine", [0, 1 - 24 / 25, 2, 1 - 4 / 5]),
        ("euclidean", [0, math.sqrt(2), 15, math.sqrt(18)]),
        ("euclidean_l2", [0, math.sqrt(2) / 5, 2, math.sqrt(0.4)]),
    ],
)
def test_distances_worked_out_by_hand(metric: Metric, expected: list[float]) -> None:
    found = distances(A, B, metric)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [expected], atol=1e-7)


@pytest.mark.parametrize("metric", METRICS)
def test_blocks_make_no_difference(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=(3, 8)), random.normal(size=(10, 8))
    whole = distances(a, b, metric)
    monkeypatch.setattr(module, "_BLOCK_ROWS", 4)
    np.testing.assert_allclose(distances(a, b, metric), whole, rtol=1e-12)


def test_a_small_distance_between_long_embeddings_survives() -> None:
    a = np.full((1, 128), 100.0)
    b = a + np.eye(1, 128) * 1e-3
    assert distances(a, b, "euclidean")[0, 0] == pytest.approx(1e-3, rel=0.01)


def test_nothing_has_no_distances() -> None:
    assert distances(np.empty((0, 2)), B, "cosine").shape == (0, 4)
    assert distances(A, np.empty((0, 2)), "euclidean").shape == (1, 0)


@pytest.mark.parametrize(
    ("a", "b", "metric"),
    [
        (A[0], B, "cosine"),
        (A, B[:, :1], "cosine"),
        (A, B, "manhattan"),
        (A, B, None),
        (A * np.nan, B, "euclidean"),
        (A, B * 0, "cosine"),
        (A, B * 0, "euclidean_l2"),
        ([["x", "y"]], B, "cosine"),
    ],
)
def test_what_is_no_embedding_is_refused(a: Any, b: Any, metric: Any) -> None:
    with pytest.raises(InputError):
        distances(a, b, metric)


@pytest.mark.parametrize("metric", ["cosine", "euclidean_l2"])
def test_a_threshold_means_the_same_in_either_metric_on_the_sphere(metric: Metric) -> None:
    # Pairs at 40 and 50 degrees, and a threshold at 45.
    angles = np.radians([[40.0], [50.0]])
    b = np.hstack([np.cos(angles), np.sin(angles)])
    found = distances([[1.0, 0.0]], b, metric)[0]
    limit = threshold_distance(metric, math.cos(math.radians(45)), None, "any")
    assert found[0] < limit < found[1]
    for distance, angle in zip(found, angles[:, 0], strict=True):
        assert similarity_of(float(distance), metric) == pytest.approx(math.cos(angle))


def test_raw_distances_have_a_threshold_only_where_one_was_measured() -> None:
    assert threshold_distance("euclidean", 0.9, 0.53, "dlib_resnet") == 0.53
    assert similarity_of(0.53, "euclidean") == -0.53
    with pytest.raises(InputError, match=r"no threshold was measured.*'mine'"):
        threshold_distance("euclidean", 0.9, None, "mine")


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "0.5", None, True])
def test_a_distance_threshold_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="at least 0"):
        check_distance_threshold(value)
    assert check_distance_threshold(np.float32(0.5)) == 0.5


def test_one_embedding_is_brought_to_length_1_in_double_precision() -> None:
    for embedding in ([3.0, 4.0], np.array([[3, 4]], np.float32)):
        unit = unit_embedding(embedding, 2, "mine")
        assert unit.dtype == np.float64
        np.testing.assert_allclose(unit, [0.6, 0.8], atol=1e-12)


@pytest.mark.parametrize("wrong", [np.zeros(2), np.ones(3), np.ones((2, 2)), [1, math.nan], None])
def test_what_is_not_one_embedding_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"an embedding of 'mine' has shape \(2,\).*Received"):
        unit_embedding(wrong, 2, "mine")


def test_what_are_no_numbers_is_refused() -> None:
    with pytest.raises(InputError, match="an embedding is an array of numbers"):
        unit_embedding("x", 2, "mine")
