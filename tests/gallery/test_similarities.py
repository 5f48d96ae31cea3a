from __future__ import annotations

import numpy as np
import pytest

from face_encode.gallery.columns import Enrolled
from face_encode.gallery.distances import Metric
from face_encode.gallery.search import similarities_of
from tests.gallery.common import like_faces


@pytest.mark.parametrize(
    ("kind", "metric", "size", "at_most"),
    [
        ("float32", "cosine", 128, 1e-5),
        ("float32", "cosine", 512, 4e-5),
        ("float32", "euclidean", 128, 0.3),
        ("int8", "cosine", 128, 0.02),
        ("indexed", "cosine", 128, 0.03),
    ],
)
@pytest.mark.parametrize("probes", [1, 2, 9])
def test_the_rough_look_is_off_by_the_slack_at_the_most(
    kind: str, metric: Metric, size: int, at_most: float, probes: int
) -> None:
    rows = like_faces(3_001, size=size)
    columns = Enrolled.nobody(size, int8=kind == "int8").joined(
        ["Ada"] * len(rows), rows, [""] * len(rows)
    )
    if kind == "indexed":
        columns = columns.indexed()
    # Among them some who are enrolled: distances near zero are the hardest.
    asked = np.concatenate([like_faces(probes, size=size, seed=3), rows[:1]])[-probes:]
    similarities = similarities_of(columns, asked, metric)
    rough = similarities.rough(similarities.scores(slice(0, len(rows))))
    assert rough.dtype == np.float32
    for probe in range(probes):
        exact = similarities.exact(probe, np.arange(len(rows)))
        off = np.abs(rough[:, probe] - exact).max()
        assert off <= similarities.slack[probe] <= at_most


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 8])
def test_any_number_of_rows_has_the_scores_of_each(count: int) -> None:
    rows = like_faces(9, size=16)
    columns = Enrolled.nobody(16, int8=True).joined(["Ada"] * 9, rows, [""] * 9)
    similarities = similarities_of(columns, like_faces(1, size=16, seed=3), "cosine")
    one_by_one = [similarities.scores(np.array([row]))[0, 0] for row in range(count)]
    assert similarities.scores(np.arange(count))[:, 0].tolist() == one_by_one


def test_exact_is_what_the_definition_says() -> None:
    rows = np.array([(3, 4), (0, 2), (-1, 0)], np.float32)
    columns = Enrolled.nobody(2).joined(["Ada", "Bo", "Cy"], rows, ["", "", ""])
    asked, everybody = np.array([(2, 0), (0, 5)], np.float32), np.arange(3)
    cosine = similarities_of(columns, asked, "cosine")
    np.testing.assert_allclose(cosine.exact(0, everybody), [0.6, 0, -1], atol=1e-7)
    np.testing.assert_allclose(cosine.exact(1, everybody), [0.8, 1, 0], atol=1e-7)
    distance = similarities_of(columns, asked, "euclidean")
    np.testing.assert_allclose(distance.exact(0, everybody), -np.sqrt([17, 8, 9]), rtol=1e-7)
