from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.gallery import mistakes
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.mistakes import (
    LabelledPhotos,
    LabelProblem,
    compare_all,
    find_label_problems,
    is_blurred,
    label_photos,
    misplaced_photos,
    sharpness,
)
from face_encode.types import ImageArray
from tests.gallery.common import Identity

SIXTY_FOUR = Identity(embedding_size=64)


def invented_folder(people: int = 40, each: int = 5) -> tuple[list[str], list[str], Any]:
    """People a good way apart, their photos close together."""
    random = np.random.default_rng(0)
    centres = np.repeat(random.normal(size=(people, 64)), each, axis=0)
    embeddings = 0.7 + centres + 0.35 * random.normal(size=centres.shape)
    names = [f"p{number:02d}" for number in range(people) for _ in range(each)]
    photos = [f"{name}/{number}.jpg" for number, name in enumerate(names)]
    return photos, names, embeddings.astype(np.float32)


def of_kind(found: tuple[LabelProblem, ...], kind: str) -> list[LabelProblem]:
    return [each for each in found if each.kind == kind]


def test_a_clean_folder_has_no_problem() -> None:
    assert find_label_problems(*invented_folder()) == ()


def test_a_photo_in_the_wrong_folder_is_named_with_its_true_person() -> None:
    photos, names, embeddings = invented_folder()
    names[7] = "p30"
    found = find_label_problems(photos, names, embeddings)
    assert [each.photos for each in found] == [(photos[7],)]
    assert found[0].kind == "mislabelled"
    assert found[0].people == ("p30", "p01")
    assert "rather p01" in str(found[0])


def test_a_photo_of_a_stranger_is_named_without_a_true_person() -> None:
    photos, names, embeddings = invented_folder()
    embeddings[7] = 0.7 + np.random.default_rng(1).normal(size=64)
    found = find_label_problems(photos, names, embeddings)
    assert [each.photos for each in found] == [(photos[7],)]
    assert found[0].people == ("p01",)


def test_of_three_photos_the_one_that_differs_is_named() -> None:
    photos, names, embeddings = invented_folder(each=3)
    names[0] = "p20"
    assert [each.photos for each in find_label_problems(photos, names, embeddings)] == [
        (photos[0],)
    ]


def test_of_two_photos_the_one_of_somebody_else_is_named() -> None:
    photos, names, embeddings = invented_folder(each=2)
    embeddings[0] = embeddings[10] + 0.2 * np.random.default_rng(2).normal(size=64)
    found = find_label_problems(photos, names, embeddings)
    assert [(each.photos, each.people) for each in found] == [((photos[0],), ("p00", "p05"))]


def test_of_two_unlike_photos_of_nobody_else_both_are_named() -> None:
    photos, names, embeddings = invented_folder(each=2)
    embeddings[0] = 0.7 + np.random.default_rng(2).normal(size=64)
    found = find_label_problems(photos, names, embeddings)
    assert [each.photos for each in found] == [(photos[0], photos[1])]
    assert "unlike each other" in found[0].text


def test_a_person_under_two_names_is_named_once() -> None:
    photos, names, embeddings = invented_folder()
    for row in (0, 1):
        names[row] = "somebody"
    found = find_label_problems(photos, names, embeddings)
    assert [(each.kind, each.people) for each in found] == [
        ("one person twice", ("p00", "somebody"))
    ]


def test_the_same_photo_twice_is_named() -> None:
    photos, names, embeddings = invented_folder()
    embeddings[1] = embeddings[0] * 1.5
    found = find_label_problems(photos, names, embeddings)
    assert [(each.kind, each.photos) for each in found] == [("same photo", (photos[0], photos[1]))]
    assert "two names" not in found[0].text


def test_the_same_photo_under_two_names_is_named_and_mislabelled_in_one_of_them() -> None:
    photos, names, embeddings = invented_folder()
    embeddings[12] = embeddings[0]
    found = find_label_problems(photos, names, embeddings)
    assert [each.kind for each in found] == ["mislabelled", "same photo"]
    assert found[1].people == ("p00", "p02")
    assert "under two names" in found[1].text


def test_small_and_blurred_faces_are_named() -> None:
    photos, names, embeddings = invented_folder()
    sides = np.full(200, 80.0)
    sides[3], sides[4] = 49, np.nan
    details = np.full(200, 0.02)
    details[5], details[6] = 0.0005, np.nan
    found = find_label_problems(photos, names, embeddings, face_sides=sides, sharpnesses=details)
    assert [(each.kind, each.photos) for each in found] == [
        ("small face", (photos[3],)),
        ("blurred face", (photos[5],)),
    ]
    assert "49 pixels; below 50" in found[0].text


def test_a_folder_too_small_to_judge_is_judged_by_its_photos_only() -> None:
    photos, names, embeddings = invented_folder(2, 2)
    assert find_label_problems(photos, names, embeddings, face_sides=[10, 99, 99, 99]) != ()
    assert find_label_problems(photos, names, embeddings) == ()
    assert find_label_problems([], [], np.empty((0, 64), np.float32)) == ()


def test_ten_photos_at_random_in_wrong_folders_of_five_hundred() -> None:
    photos, names, embeddings = invented_folder(100, 5)
    random = np.random.default_rng(3)
    wrong = random.choice(500, 10, replace=False)
    for row in wrong:
        names[row] = f"p{(int(names[row][1:]) + 37) % 100:02d}"
    named = of_kind(find_label_problems(photos, names, embeddings), "mislabelled")
    right = {each.photos[0] for each in named} & {photos[row] for row in wrong}
    assert len(right) >= 9
    assert len(named) - len(right) <= 5


def test_with_one_photo_each_two_names_of_one_person_are_noted() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(30, 64)).astype(np.float32)
    embeddings[17] = embeddings[4] + 0.1 * rng.normal(size=64)
    names = [f"person {number:02}" for number in range(30)]
    photos = [f"{name}/1.jpg" for name in names]
    assert find_label_problems(photos, names, embeddings) == ()
    (problem,) = find_label_problems(photos, names, embeddings, threshold=0.8)
    assert (problem.kind, problem.people) == ("one person twice", ("person 04", "person 17"))
    assert problem.photos == ("person 04/1.jpg", "person 17/1.jpg")
    # Two people are enough.
    assert find_label_problems(photos[:2], names[:2], embeddings[[4, 17]], threshold=0.8) != ()
    assert find_label_problems(photos[:1], names[:1], embeddings[:1], threshold=0.8) == ()


def test_a_pair_that_another_problem_names_is_not_noted_twice() -> None:
    photos, names, embeddings = invented_folder(10, 5)
    wrong = names.index(names[-1])
    names[0] = names[wrong]
    found = find_label_problems(photos, names, embeddings, threshold=0.9)
    assert [each.kind for each in found if photos[0] in each.photos] == ["mislabelled"]
    assert of_kind(found, "one person twice") == []


def test_photos_that_look_like_somebody_else() -> None:
    people = np.eye(4, 64, dtype=np.float32)
    around = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32) / 100
    gallery = MemoryGallery(SIXTY_FOUR)
    gallery.add(["Ada", "Bo"], people[:2])
    # Of three new photos of Bo one is Ada's; the only photo of Cy is Bo's; Di is new.
    embeddings = np.stack(
        [people[1] + around[0], people[0] + around[1], people[1], people[1] + around[2], people[3]]
    )
    names = ["Bo", "Bo", "Bo", "Cy", "Di"]
    found = misplaced_photos(names, embeddings, gallery, 0.8)
    assert {row: name for row, (name, _) in found.items()} == {1: "Ada", 3: "Bo"}
    assert found[1][1] == pytest.approx(float(embeddings[1, 0] / np.linalg.norm(embeddings[1])))
    # Without a gallery the first of two people with one photo each stays.
    nobody = MemoryGallery(SIXTY_FOUR)
    assert misplaced_photos(["A", "B"], people[[2, 2]], nobody, 0.8) == {1: ("A", 1.0)}
    assert misplaced_photos(["A", "A"], people[[2, 3]], nobody, 0.8) == {}


def test_nonsense_is_refused() -> None:
    photos, names, embeddings = invented_folder(3, 2)
    with pytest.raises(InputError, match="has a name"):
        find_label_problems(photos[:-1], names, embeddings)
    with pytest.raises(InputError, match="length zero"):
        find_label_problems(photos, names, embeddings * 0)
    with pytest.raises(InputError, match="one size"):
        find_label_problems(photos, names, embeddings, face_sides=[1.0])


def at_angles(names: list[str], *degrees: float) -> LabelledPhotos | None:
    """Photos whose embeddings lie on a circle."""
    angles = np.deg2rad(degrees)
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return label_photos([f"{number}.jpg" for number in range(len(names))], names, 3 * embeddings)


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


def test_the_rows_of_each_person() -> None:
    folder = at_angles(["c", "a", "c", "b", "c", "b"], 0, 30, 5, 60, 10, 70)
    assert folder is not None
    assert [each.tolist() for each in folder.rows] == [[1], [3, 5], [0, 2, 4]]


@pytest.mark.parametrize("tile", [1, 3, 7, 1_024])
def test_each_photo_is_compared_with_each_other(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mistakes, "_TILE", tile)
    random = np.random.default_rng(0)
    owner = np.repeat(np.arange(6), 4)
    embeddings = (random.normal(size=(6, 16))[owner] + random.normal(size=(24, 16))).astype(
        np.float32
    )
    embeddings[17] = 2 * embeddings[3]
    folder = label_photos([""] * 24, [f"person {who}" for who in owner], embeddings)
    assert folder is not None
    nearest, doubles, near_people = compare_all(folder)
    similarities = folder.units @ folder.units.T
    similarities[owner[:, np.newaxis] == owner] = -np.inf
    np.testing.assert_array_equal(nearest, similarities.argmax(axis=1))
    assert doubles == [(3, 17)]
    near = owner[np.argwhere(similarities >= folder.alike)]
    assert near_people == sorted({tuple(sorted(pair)) for pair in near.tolist()})


def test_sharpness_falls_with_blur_and_not_with_contrast() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (150, 150, 3)).astype(np.uint8)
    blurred = np.asarray(cv2.GaussianBlur(crop, (0, 0), 3), np.uint8)
    assert sharpness(blurred) < 0.1 * sharpness(crop)
    assert sharpness(crop // 2) == pytest.approx(sharpness(crop), rel=0.02)
    assert sharpness(np.full((150, 150, 3), 90, np.uint8)) == 0


def test_a_crop_as_it_is_passes_and_a_blurred_one_does_not(colour_crops: ImageArray) -> None:
    crop = colour_crops[0]
    assert not is_blurred(crop)
    assert is_blurred(np.asarray(cv2.GaussianBlur(crop, (0, 0), 6), np.uint8))
