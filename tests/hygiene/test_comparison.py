from __future__ import annotations

import numpy as np
import pytest
from face_encode.hygiene import comparison

from face_encode.gallery.mistakes import Folder, compare_all, folder_of, people_with_several


def at_angles(names: list[str], *degrees: float) -> Folder | None:
    """Photos whose embeddings lie on a circle."""
    angles = np.deg2rad(degrees)
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return folder_of([f"{number}.jpg" for number in range(len(names))], names, 3 * embeddings)


def cosine(degrees: float) -> float:
    return float(np.cos(np.deg2rad(degrees)))


def test_a_folder_sets_the_limits() -> None:
    folder = at_angles(["b", "a", "c", "b", "a", "c"], 60, 0, 150, 90, 20, 190)
    assert folder is not None
    assert folder.names == ["a", "b", "c"]
    assert folder.owner.tolist() == [1, 0, 2, 1, 0, 2]
    np.testing.assert_allclose(np.linalg.norm(folder.units, axis=1), 1, atol=1e-6)
    # Two photos of one person are 20, 30 and 40 degrees apart.
    assert folder.usual == pytest.approx(cosine(30), abs=1e-6)
    assert folder.alike == pytest.approx((cosine(40) + cosine(30)) / 2, abs=1e-6)
    # Of the twelve pairs of strangers the nearest are 40 degrees apart.
    assert folder.far == folder.certain == pytest.approx(cosine(40), abs=1e-6)


@pytest.mark.parametrize("names", [["a", "a", "b", "b"], ["a", "b", "c", "d"]])
def test_too_few_photos_or_people_set_none(names: list[str]) -> None:
    assert at_angles(names, 0, 10, 80, 90) is None


def test_people_with_one_photo_are_passed_over() -> None:
    rows = people_with_several(np.array([2, 0, 2, 1, 2, 1]))
    assert [each.tolist() for each in rows] == [[3, 5], [0, 2, 4]]


@pytest.mark.parametrize("tile", [1, 3, 7, 1_024])
def test_each_photo_is_compared_with_each_other(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_TILE", tile)
    random = np.random.default_rng(0)
    owner = np.repeat(np.arange(6), 4)
    embeddings = (random.normal(size=(6, 16))[owner] + random.normal(size=(24, 16))).astype(
        np.float32
    )
    embeddings[17] = 2 * embeddings[3]
    folder = folder_of([""] * 24, [f"person {who}" for who in owner], embeddings)
    assert folder is not None
    nearest, doubles, near_people = compare_all(folder)
    similarities = folder.units @ folder.units.T
    similarities[owner[:, np.newaxis] == owner] = -np.inf
    np.testing.assert_array_equal(nearest, similarities.argmax(axis=1))
    assert doubles == [(3, 17)]
    near = owner[np.argwhere(similarities >= folder.alike)]
    assert near_people == sorted({tuple(sorted(pair)) for pair in near.tolist()})
