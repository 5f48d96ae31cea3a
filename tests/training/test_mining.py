"""The mining rules on distances small enough to work out by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from face_encode.training.losses import batch_hard, batch_semi_hard, squared_distances

# Five photos on a line: A at 0 and 3, B at 1 and 10, and C, who has one photo, at 4.
PEOPLE = np.array([0, 0, 1, 1, 2])
PLACES = np.array([[0.0], [3.0], [1.0], [10.0], [4.0]], np.float32)


def as_numpy(tensor: object) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def test_squared_distances_are_those_of_the_differences() -> None:
    embeddings = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    expected = ((embeddings[:, None] - embeddings[None]) ** 2).sum(axis=2)
    distances = as_numpy(squared_distances(embeddings))
    np.testing.assert_allclose(distances, expected, atol=1e-5)
    assert distances.min() >= 0


def test_batch_hard_takes_the_farthest_positive_and_the_nearest_negative() -> None:
    triplets = batch_hard(squared_distances(PLACES), PEOPLE)
    # Anchors: A at 0 (own 3; others 1, 10, 4), A at 3 (own 0; others 1, 10, 4),
    # B at 1 (own 10; others 0, 3, 4), B at 10 (own 1; others 0, 3, 4), C.
    assert as_numpy(triplets.is_valid).tolist() == [True, True, True, True, False]
    np.testing.assert_allclose(as_numpy(triplets.positive_distance)[:4], [9, 9, 81, 81], atol=1e-4)
    np.testing.assert_allclose(as_numpy(triplets.negative_distance)[:4], [1, 1, 1, 36], atol=1e-4)


def test_batch_semi_hard_takes_the_nearest_negative_beyond_the_positive() -> None:
    triplets = batch_semi_hard(squared_distances(PLACES), PEOPLE)
    valid = as_numpy(triplets.is_valid).reshape(5, 5)
    assert np.argwhere(valid).tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    negative = as_numpy(triplets.negative_distance).reshape(5, 5)[valid]
    positive = as_numpy(triplets.positive_distance).reshape(5, 5)[valid]
    np.testing.assert_allclose(positive, [9, 9, 81, 81], atol=1e-4)
    # A at 0: beyond 9 lie 16 (C) and 100: 16. A at 3: beyond 9 lies 49 only. B at 1 and B at 10:
    # nobody lies beyond 81, so the farthest: 9 (A at 3) and 100 (A at 0), which is beyond.
    np.testing.assert_allclose(negative, [16, 49, 9, 100], atol=1e-4)


@pytest.mark.parametrize("rule", [batch_hard, batch_semi_hard])
@pytest.mark.parametrize("people", [[0, 1, 2, 3, 4], [7, 7, 7, 7, 7]])
def test_a_batch_without_positives_or_without_negatives_has_no_triplet(
    rule: object, people: list[int]
) -> None:
    triplets = rule(squared_distances(PLACES), np.array(people))  # type: ignore[operator]
    assert not as_numpy(triplets.is_valid).any()
    assert np.isfinite(as_numpy(triplets.positive_distance)).all()
    assert np.isfinite(as_numpy(triplets.negative_distance)).all()


def test_people_may_come_as_a_column() -> None:
    distances = squared_distances(PLACES)
    flat, column = batch_hard(distances, PEOPLE), batch_hard(distances, PEOPLE[:, None])
    np.testing.assert_array_equal(
        as_numpy(flat.negative_distance), as_numpy(column.negative_distance)
    )
