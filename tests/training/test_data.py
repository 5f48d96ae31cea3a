"""Folders of people: crops cut once, splits by person, and what cannot be trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from face_encode.detectors.alignment import DLIB_LANDMARKS_IN_ARCFACE
from face_encode.errors import DatasetError, InputError
from face_encode.training.data import (
    MASTER,
    FaceCrops,
    crop_people,
    crop_photos,
    moved,
    refuse_overlap,
    refuse_shared,
    screen,
    split_people,
    tell_left_out,
    weigh,
)
from face_encode.types import Box, CropRecipe, Face, ImageArray
from tests.full_disk import full_disk
from tests.training.drawn_people import WholePhotoDetector, draw_people

RECIPE = CropRecipe("box", 24, 24)


class NeverAsked(WholePhotoDetector):
    def detect(self, image: ImageArray) -> list[Face]:
        raise AssertionError("the crops are in the cache")


def crops_of(folder: Path, cache: Path, detector: WholePhotoDetector | None = None) -> FaceCrops:
    detector = detector or WholePhotoDetector()
    return crop_people(folder, RECIPE, detector, cache=cache, progress=False)


def test_crops_are_cut_once_and_come_from_the_cache_again(tmp_path: Path) -> None:
    folder = draw_people(tmp_path / "people", people=3, photos=2)
    first = crops_of(folder, tmp_path / "cache")
    again = crops_of(folder, tmp_path / "cache", NeverAsked())
    assert first.crops.shape == (6, 24, 24, 3)
    assert first.names == ("person_00", "person_01", "person_02")
    assert first.people.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(first.crops, again.crops)
    assert first.digests == again.digests


def test_a_changed_photo_is_cut_again(tmp_path: Path) -> None:
    folder = draw_people(tmp_path / "people", people=2, photos=2)
    before = crops_of(folder, tmp_path / "cache")
    shutil.copy(folder / "person_00" / "0.png", folder / "person_01" / "0.png")
    after = crops_of(folder, tmp_path / "cache")
    np.testing.assert_array_equal(after.crops[2], before.crops[0])
    assert not np.array_equal(before.crops[2], before.crops[0])


def test_photos_without_a_face_are_left_out_and_told(tmp_path: Path) -> None:
    from PIL import Image

    folder = draw_people(tmp_path / "people", people=2, photos=2)
    Image.new("RGB", (32, 32)).save(folder / "person_00" / "black.png")
    (folder / "person_01" / "text.jpg").write_text("no photo")
    # Without a digest, unlike the others.
    (folder / "person_01" / "empty.png").write_bytes(b"")
    for _ in range(2):
        data = crops_of(folder, tmp_path / "cache")
        assert len(data) == 4
        assert data.people.tolist() == [0, 0, 1, 1]
        names = [Path(item.photo).name for item in data.left_out]
        assert names == ["empty.png", "black.png", "text.jpg"]
        assert data.left_out[0].reason == "an empty file"


def test_photos_beside_the_peoples_folders_are_told_in_the_words_of_enrolment(
    tmp_path: Path,
) -> None:
    folder = draw_people(tmp_path / "people", people=2, photos=2)
    for name in ("loose.png", "more.png"):
        shutil.copy(folder / "person_00" / "0.png", folder / name)
    (folder / "person_01" / "text.jpg").write_text("no photo")
    words = "beside the people's folders: it belongs into that of its person"
    for crop in (crop_people, crop_people, crop_photos):
        data = crop(folder, RECIPE, WholePhotoDetector(), cache=tmp_path / "cache", progress=False)
        assert len(data) == 4
        said: list[str] = []
        tell_left_out(data.left_out, said.append)
        assert said[0] == f"2 left out, such as {folder / 'loose.png'}: {words}"
        assert said[1].startswith(f"1 left out, such as {folder / 'person_01' / 'text.jpg'}: ")


@pytest.mark.parametrize(
    ("people", "photos", "message"),
    [(1, 3, "at least 2 people.*Received: 1"), (3, 1, "two photos.*Received: 3 people")],
)
def test_folders_that_teach_nothing_are_refused(
    tmp_path: Path, people: int, photos: int, message: str
) -> None:
    folder = draw_people(tmp_path / "people", people=people, photos=photos)
    with pytest.raises(DatasetError, match=message):
        crops_of(folder, tmp_path / "cache")


def test_a_damaged_cache_is_told(tmp_path: Path) -> None:
    folder = draw_people(tmp_path / "people", people=2, photos=2)
    crops_of(folder, tmp_path / "cache")
    (index,) = (tmp_path / "cache").glob("*.json")
    index.write_text("{")
    with pytest.raises(DatasetError, match="delete"):
        crops_of(folder, tmp_path / "cache")


def test_a_full_disk_is_told_and_leaves_no_half_written_cache(tmp_path: Path) -> None:
    draw_people(tmp_path / "people", people=4, photos=4)
    with full_disk(8_000), pytest.raises(DatasetError, match="cannot write"):
        crops_of(tmp_path / "people", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(crops_of(tmp_path / "people", tmp_path / "cache")) == 16


def test_splits_are_by_person_complete_and_repeatable() -> None:
    people = np.repeat(np.arange(100), np.tile([1, 2, 3, 1], 25))
    split = split_people(people, validation=0.15, test=0.2, seed=3)
    parts = [split.train, split.validation, split.test]
    assert sorted(np.concatenate(parts)) == list(range(len(people)))
    sets = [set(people[rows]) for rows in parts]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    # Of 50 people with several photos and 50 with one: 15 % are 8 each, 20 % are 10 each.
    assert [len(one) for one in sets] == [64, 16, 20]
    np.testing.assert_array_equal(split.test, split_people(people, seed=3).test)
    assert not np.array_equal(split.test, split_people(people, seed=4).test)


def test_nobody_is_reported_on_where_there_is_a_test_folder() -> None:
    split = split_people(np.repeat(np.arange(20), 2), test=0)
    assert len(split.test) == 0
    assert len(split.train) + len(split.validation) == 40


def test_six_people_are_enough_to_be_split() -> None:
    people = np.repeat(np.arange(6), 4)
    split = split_people(people)
    assert [len(set(people[r])) for r in (split.train, split.validation, split.test)] == [2, 2, 2]


def test_data_too_small_to_be_split_is_refused() -> None:
    with pytest.raises(DatasetError, match="too small"):
        split_people(np.array([0, 0, 1, 1]))
    with pytest.raises(DatasetError, match="Received: 0 people"):
        split_people(np.array([], np.int64))
    with pytest.raises(InputError, match="shares lie within"):
        split_people(np.repeat(np.arange(20), 2), validation=0.5, test=0.5)


def test_a_test_folder_that_overlaps_is_refused(tmp_path: Path) -> None:
    train = draw_people(tmp_path / "train", people=2, photos=2)
    apart = draw_people(tmp_path / "apart", people=2, photos=2, seed=1, prefix="other")
    namesakes = draw_people(tmp_path / "namesakes", people=2, photos=2, seed=2)
    renamed = draw_people(tmp_path / "renamed", people=2, photos=2, seed=3, prefix="new")
    shutil.copy(train / "person_01" / "1.png", renamed / "new_00" / "1.png")

    def check(test: Path) -> None:
        refuse_overlap(train, test)
        refuse_shared(*(crops_of(folder, tmp_path / "cache") for folder in (train, test)))

    check(apart)
    for folder, message in (
        (train, "overlap"),
        (train.parent, "overlap"),
        (train / "person_00", "overlap"),
        (namesakes, "2 in both, such as 'person_00'"),
        (renamed, "'person_01' that is also one of 'new_00'"),
    ):
        with pytest.raises(DatasetError, match=message):
            check(folder)
    (tmp_path / "link").symlink_to(train)
    with pytest.raises(DatasetError, match="overlap"):
        check(tmp_path / "link")


def masters_of(folder: Path, cache: Path, detector: WholePhotoDetector | None = None) -> FaceCrops:
    detector = detector or WholePhotoDetector()
    return crop_photos(folder, MASTER, detector, cache=cache / "cache", progress=False)


def test_master_crops_come_with_their_faces_from_people_and_from_loose_photos(
    tmp_path: Path,
) -> None:
    folder = draw_people(tmp_path / "people", people=2, photos=2)
    loose = folder / "person_00"
    for _ in range(2):
        named, unnamed = (
            crop_photos(
                each, MASTER, WholePhotoDetector(), cache=tmp_path / "cache", progress=False
            )
            for each in (folder, loose)
        )
        assert named.people.tolist() == [0, 0, 1, 1]
        assert named.photos[2] == "people/person_01/0.png"
        assert unnamed.people.tolist() == [0, 1]
        assert unnamed.names == unnamed.photos == ("person_00/0.png", "person_00/1.png")
        assert named.crops.shape == (4, MASTER.height, MASTER.width, 3)
        # The whole photo is ArcFace's frame: 112 pixels with 20 around.
        assert named.faces[3].box == Box(20, 20, 112, 112)
        landmarks = named.faces[3].landmarks
        assert landmarks is not None
        np.testing.assert_allclose(landmarks, DLIB_LANDMARKS_IN_ARCFACE + 20, atol=1e-3)
        inside = named.crops[0, 24:-24, 24:-24]
        assert inside.std() > 10
    with pytest.raises(DatasetError, match="no photo with a face"):
        (tmp_path / "empty").mkdir()
        crop_photos(
            tmp_path / "empty", MASTER, WholePhotoDetector(), cache=tmp_path, progress=False
        )
    with pytest.raises(DatasetError, match="no such folder"):
        masters_of(tmp_path / "none", tmp_path)


def test_master_crops_need_landmarks(tmp_path: Path) -> None:
    class WithoutLandmarks(WholePhotoDetector):
        def detect(self, image: ImageArray) -> list[Face]:
            return [Face(face.box, face.score) for face in super().detect(image)]

    folder = draw_people(tmp_path / "people", people=2, photos=2)
    with pytest.raises(InputError, match="Received: one without points"):
        masters_of(folder, tmp_path, WithoutLandmarks())


def test_a_face_moves_with_its_photo() -> None:
    landmarks = np.array([(9, 2), (7, 2), (1, 2), (3, 2), (5, 6)], np.float32)
    points = np.array([(2, 2), (8, 2), (5, 5), (3, 8), (7, 8)], np.float32)
    face = Face(Box(0, 0, 10, 10), 0.5, landmarks, points)
    larger = moved(face, np.array([[2.0, 0, 3], [0, 2, 1]]))
    assert larger.box == Box(3, 1, 20, 20)
    assert larger.points is not None
    np.testing.assert_allclose(larger.points, points * 2 + np.array([3, 1]), rtol=1e-6)
    # Mirrored about x = 5, a symmetric face is the same again, in the same order.
    mirrored = moved(face, np.array([[-1.0, 0, 10], [0, 1, 0]]))
    assert mirrored.landmarks is not None and mirrored.points is not None
    np.testing.assert_allclose(mirrored.landmarks, landmarks, rtol=1e-6)
    np.testing.assert_allclose(mirrored.points, points, rtol=1e-6)
    assert mirrored.box == face.box


def test_screening_leaves_out_doubles_and_people_held_out() -> None:
    def unit(*degrees: float) -> np.ndarray:
        angle = np.radians(degrees)
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)

    held = unit(0)
    # Similarities: the same photo within 5 degrees, the same person within 30.
    first, second = unit(0, 2, 20, 90, 92, 120), unit(10, 40, 121, 200)
    every = [np.arange(6), np.arange(4)]
    same_photo, same_person = np.cos(np.radians(5)), np.cos(np.radians(30))
    left = screen([first, second], every, held, same_photo, same_person)
    # Of the first folder the held-out photo itself and its double go, and the second of two alike.
    assert left[0].tolist() == [2, 3, 5]
    # Of the second also whoever looks like the person held out, and the double of the first's.
    assert left[1].tolist() == [1, 3]
    assert screen([first], [np.array([3])], held[:0], 0.9, 0.5)[0].tolist() == [3]


def test_weights_of_patterns_are_multiplied() -> None:
    photos = ("lfw/ada/1.jpg", "utk/5_0_1.jpg", "utk/70_1_0.jpg")
    weights = {"lfw/*": 2.0, "utk/*_1.jpg": 3.0, "utk/?_*": 1.5, "utk/70_*": 0.0}
    said: list[str] = []
    (factors,) = weigh([photos], weights, said.append)
    assert factors.tolist() == [2.0, 4.5, 0.0]
    assert said == []
    first, others = weigh([photos[:1], photos[1:]], {"[": 2.0}, said.append)
    assert (first.tolist(), others.tolist()) == ([1.0], [1.0, 1.0])
    assert said == ["no photo is called '[', a pattern of the weights"]
