from __future__ import annotations

import numpy as np

from face_encode.evaluation.people import search_people


def test_a_person_is_as_near_as_the_nearest_photo() -> None:
    embeddings = np.array([[0, 1], [1, 0], [3, 4], [5, 0]], np.float32)
    names = np.array(["bo", "ann", "bo", "cy"])
    probes = np.array([[2, 0], [np.nan, np.nan], [0, 0.5]], np.float32)
    people, similarities, nearest = search_people(embeddings, names, probes)
    assert people == ("ann", "bo", "cy")
    np.testing.assert_allclose(
        similarities, np.array([[1, 0.6, 1], [np.nan, np.nan, np.nan], [0, 1, 0]]), atol=1e-6
    )
    assert nearest[0] in (1, 3)
    assert nearest[1:].tolist() == [-1, 0]


def test_nobody_found_at_all() -> None:
    probes = np.full((2, 2), np.nan, np.float32)
    _, similarities, nearest = search_people(
        np.eye(2, dtype=np.float32), np.array(["a", "b"]), probes
    )
    assert np.isnan(similarities).all()
    assert nearest.tolist() == [-1, -1]
