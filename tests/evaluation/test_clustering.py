from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from face_encode.errors import DatasetError, InputError, MissingExtraError
from face_encode.evaluation import clustering
from face_encode.evaluation.clustering import (
    Groups,
    PhotoFace,
    b_cubed,
    cluster_faces,
    group_photos,
    write_groups,
)
from face_encode.types import Box, Match
from tests.evaluation.invented import at_angles
from tests.pipeline.drawn import faces


def test_b_cubed_of_bagga_and_baldwin() -> None:
    # Their example: 12 mentions of three people (5, 2, 5); the second and third run together.
    truth = [1] * 5 + [2] * 2 + [3] * 5
    first = b_cubed(truth, [1] * 5 + [2] * 7)
    assert first.precision == pytest.approx((5 + 2 * 2 / 7 + 5 * 5 / 7) / 12)  # 0.76
    assert first.recall == 1
    # The same mistake with the two large ones counts more.
    second = b_cubed(truth, [1] * 5 + [2] * 2 + [1] * 5)
    assert second.precision == pytest.approx((2 + 10 / 2) / 12)  # 0.58
    assert second.f == pytest.approx(2 * second.precision / (1 + second.precision))


def test_b_cubed_of_groups_cut_in_two() -> None:
    result = b_cubed(["a", "a", "a", "a"], [0, 0, 0, 1])
    assert result.precision == 1
    assert result.recall == pytest.approx((3 * 3 / 4 + 1 / 4) / 4)


def test_faces_at_angles_group_by_mean_similarity() -> None:
    faces = at_angles(0, 90, 92, 4, 94, 180)
    np.testing.assert_array_equal(cluster_faces(faces, 0.99), [1, 0, 0, 1, 0, 2])


def test_the_mean_similarity_decides() -> None:
    # 0 and 20 degrees join first; 50 is 30 and 50 degrees away from them: mean 0.754.
    faces = at_angles(0, 20, 50)
    mean = (np.cos(np.deg2rad(30)) + np.cos(np.deg2rad(50))) / 2
    np.testing.assert_array_equal(cluster_faces(faces, mean - 1e-4), [0, 0, 0])
    np.testing.assert_array_equal(cluster_faces(faces, mean + 1e-4), [0, 0, 1])


def test_the_length_of_an_embedding_and_equal_faces_do_not_matter() -> None:
    faces = at_angles(0, 0, 90) * np.array([[1.0], [7.0], [0.1]])
    np.testing.assert_array_equal(cluster_faces(faces, 0.9), [0, 0, 1])
    np.testing.assert_array_equal(cluster_faces(faces[:1], 0.9), [0])


def test_two_hundred_invented_people_are_told_apart() -> None:
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(200), 5)
    faces = random.normal(size=(200, 64))[people] + 0.4 * random.normal(size=(1000, 64))
    assert b_cubed(people, cluster_faces(faces, 0.6)).f > 0.98


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match="threshold"):
        cluster_faces(at_angles(0, 1), 1.5)
    with pytest.raises(InputError, match="embeddings"):
        cluster_faces(np.empty((0, 2)), 0.5)
    with pytest.raises(InputError, match="at most"):
        cluster_faces(np.ones((20_001, 2)), 0.5)
    with pytest.raises(InputError, match="groupings"):
        b_cubed([1, 2], [1])


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.cluster.hierarchy", None)
    with pytest.raises(MissingExtraError, match=r"face_encode\[cluster\]"):
        cluster_faces(at_angles(0, 1), 0.5)
    # Before the photos are even looked for.
    with pytest.raises(MissingExtraError, match=r"face_encode\[cluster\]"):
        group_photos("none", Mock(), Mock())


def test_too_many_faces_and_a_wrong_threshold_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number}.jpg" for number in range(9)]
    for name in names:
        (tmp_path / name).touch()
    coming = iter([faces(name, 1) for name in names])
    monkeypatch.setattr(clustering, "embed_photos", lambda *_, **options: coming)
    monkeypatch.setattr(clustering, "MAX_FACES", 4)
    encoder = Mock(**{"contract.threshold": 0.5})
    with pytest.raises(InputError, match="cosine threshold"):
        group_photos(tmp_path, Mock(), encoder, threshold=2, progress=False)
    # Those of people who are enrolled do not count.
    known = Mock(**{"search.side_effect": [[[Match("Ada", 0.9)]] * 2 + [[]] * 3, [[], []]]})
    with pytest.raises(InputError, match="at most 4 faces are grouped"):
        group_photos(tmp_path, Mock(), encoder, gallery=known, progress=False)
    assert len(list(coming)) == 9 - 2 - 5


def test_faces_are_written_all_or_none_under_names_of_any_length(tmp_path: Path) -> None:
    photos = [tmp_path / name for name in ("a.jpg", "é" * 120 + ".jpg", "gone.jpg")]
    for photo in photos[:2]:
        Image.new("RGB", (60, 60)).save(photo)
    shown = [
        PhotoFace(str(photo), Box(5, 5, 30, 30), 0, None, "", np.ones(4, np.float32))
        for photo in photos
    ]
    with pytest.raises(DatasetError, match="changed during the run"):
        write_groups(Groups(((*shown[:2],), (shown[0], shown[2])), 3, (), 0.5), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert write_groups(Groups((tuple(shown[:2]),), 2, (), 0.5), tmp_path / "out") == ["person_001"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["person_001"]
    assert len(list((tmp_path / "out" / "person_001").iterdir())) == 2
