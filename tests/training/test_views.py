"""Views: their files, how teachers and student see them, and resuming after an interruption."""

from __future__ import annotations

from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from face_encode.detectors.alignment import ARCFACE_SIDE, DLIB_LANDMARKS_IN_ARCFACE
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import ENGINES
from face_encode.errors import InputError, ModelFileError
from face_encode.training.augmentation import Augmentation
from face_encode.training.data import MASTER, FaceCrops
from face_encode.training.views import Teachers, Views, cut_out, look, make_views, with_room
from face_encode.types import Box, CropRecipe, Face

STILL = Augmentation(turn=0, zoom=0, shift=0, brightness=0, contrast=0, flip=False)
ARCFACE = CropRecipe("arcface", 56, 56)
STUDENT = CropRecipe("dlib_chip", 40, 40, margin=0.1)
ROWS = np.arange(5)


def mean_colour(name: str, recipe: CropRecipe) -> Encoder:
    """Its embedding is the crop's mean colour."""
    shape = (recipe.height, recipe.width, 3)
    model = keras.Sequential([keras.Input(shape), keras.layers.GlobalAveragePooling2D()])
    return Encoder(model, EncoderContract(name, recipe, threshold=0.5))


@pytest.fixture(scope="module")
def teacher() -> Encoder:
    return mean_colour("mean colour", ARCFACE)


@pytest.fixture
def data() -> FaceCrops:
    """Master crops with a face in the middle of each, of smooth colours."""
    random = np.random.default_rng(0)
    blots = random.integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    side = MASTER.height
    crops = np.stack([cv2.resize(each, (side, side)) for each in blots])
    room = (side - ARCFACE_SIDE) // 2
    landmarks = (DLIB_LANDMARKS_IN_ARCFACE + room).astype(np.float32)
    face = Face(Box(room + 18, room + 25, 76, 76), 1.0, landmarks)
    digests = tuple("abcde")
    return FaceCrops(crops, ROWS, digests, digests, photos=digests, faces=(face,) * 5)


def views_of(
    data: FaceCrops, teachers: list[Encoder], folder: Path, rounds: int = 1, **options: object
) -> Views:
    options = {"progress": False, **options}
    rows = np.arange(len(data))
    return make_views(data, rows, Teachers.of(teachers), STUDENT, folder, rounds=rounds, **options)  # type: ignore[arg-type]


def unit(colours: np.ndarray) -> np.ndarray:
    return np.asarray(colours / np.linalg.norm(colours, axis=1, keepdims=True))


def alike(views: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """How far the light of each view goes with that of its crop."""
    pairs = zip(views.mean(axis=-1), crops.mean(axis=-1), strict=True)
    return np.array([np.corrcoef(view.ravel(), crop.ravel())[0, 1] for view, crop in pairs])


def test_a_view_without_changes_is_the_crop_by_each_recipe(
    data: FaceCrops, teacher: Encoder, tmp_path: Path
) -> None:
    views = views_of(data, [teacher], tmp_path, mixup=0, augmentation=STILL)
    seen = cut_out(data, ROWS, ARCFACE).mean(axis=(1, 2))
    # But for blur, paleness and tint, which every view may have.
    assert (views.answers[0] * unit(seen)).sum(axis=1).min() > 0.98
    own = cut_out(data, ROWS, with_room(STUDENT))
    assert views.pixels[0].shape == own.shape == (5, 42, 42, 3)
    assert alike(views.pixels[0], own).min() > 0.97


def test_teachers_and_student_see_the_same_pose(data: FaceCrops, tmp_path: Path) -> None:
    # A teacher that sees just what the student sees answers with what the student's pixels are.
    student = mean_colour("own", with_room(STUDENT))
    views = views_of(data, [student], tmp_path, rounds=2, mixup=1.0)
    for pixels, answers in zip(views.pixels, views.answers, strict=True):
        np.testing.assert_allclose(answers, unit(pixels.mean(axis=(1, 2))), atol=1e-3)
    assert np.abs(views.answers[0] - views.answers[1]).max() > 0.02


def test_several_teachers_answer_side_by_side(
    data: FaceCrops, teacher: Encoder, tmp_path: Path
) -> None:
    other = mean_colour("box", CropRecipe("box", 20, 24))
    views = views_of(data, [teacher, other], tmp_path)
    assert views.answers[0].shape == (5, 6)
    np.testing.assert_allclose(np.linalg.norm(views.answers[0][:, :3], axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(views.answers[0][:, 3:], axis=1), 1, atol=1e-3)


@pytest.mark.skipif(not ENGINES["openvino"].is_installed, reason="openvino is not installed")
def test_a_fast_teacher_answers_nearly_the_same(data: FaceCrops, teacher: Encoder) -> None:
    crops = [cut_out(data, ROWS, ARCFACE)]
    fast, exact = (Teachers.of([teacher], fast=fast).embed(crops) for fast in (True, False))
    np.testing.assert_allclose(fast, exact, atol=0.01)


def test_only_a_share_is_mixed(data: FaceCrops, teacher: Encoder, tmp_path: Path) -> None:
    many = FaceCrops(
        np.repeat(data.crops, 40, axis=0),
        np.arange(200),
        ("one",) * 200,
        ("one",) * 200,
        faces=data.faces * 40,
    )
    views = views_of(many, [teacher], tmp_path, mixup=0.4, augmentation=STILL)
    own = cut_out(many, np.arange(200), with_room(STUDENT))
    # One mixed view in five is mixed with the same photo, others hardly.
    assert 0.1 < (alike(views.pixels[0], own) < 0.97).mean() < 0.45


def test_an_interrupted_run_goes_on_behind_its_last_whole_round(
    data: FaceCrops, teacher: Encoder, tmp_path: Path
) -> None:
    whole = views_of(data, [teacher], tmp_path / "whole", rounds=2)
    views_of(data, [teacher], tmp_path / "cut", rounds=1)
    # Killed between the two files of the second round.
    np.save(tmp_path / "cut" / "pixels-001.npy", np.zeros((5, 16, 16, 3), np.uint8))
    first = (tmp_path / "cut" / "pixels-000.npy").stat().st_mtime_ns
    cut = views_of(data, [teacher], tmp_path / "cut", rounds=2)
    assert (tmp_path / "cut" / "pixels-000.npy").stat().st_mtime_ns == first
    for one, other in zip(whole.pixels + whole.answers, cut.pixels + cut.answers, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_round_is_told(data: FaceCrops, teacher: Encoder, tmp_path: Path) -> None:
    views_of(data, [teacher], tmp_path)
    (tmp_path / "answers-000.npy").write_bytes(b"half a file")
    with pytest.raises(ModelFileError, match="damaged; delete"):
        views_of(data, [teacher], tmp_path)


def test_views_are_indexed_across_their_files() -> None:
    parts = tuple(np.full((count, 2, 2, 3), number) for number, count in enumerate((3, 1, 4)))
    views = Views(parts[:1], ()) + Views(parts[1:], ())
    assert len(views) == 8
    assert views[np.array([7, 0, 3, 2, 4])][:, 0, 0, 0].tolist() == [2, 0, 1, 0, 2]


def test_room_is_more_of_the_face_at_the_same_scale() -> None:
    larger = with_room(CropRecipe("dlib_chip", 80, 80, margin=0.1))
    assert (larger.method, larger.height, larger.width) == ("dlib_chip", 84, 84)
    assert larger.margin == pytest.approx(0.13)


def test_a_second_look_is_moved_mirrored_and_lit() -> None:
    image = np.full((1, 84, 84, 3), 100, np.uint8)
    image[:, 25:60, 37:39] = 200
    looks = look(np.repeat(image, 300, axis=0), 3, 80)
    assert looks.shape == (300, 80, 80, 3)
    # A contrast of up to a tenth; a line two pixels wide is thinner in a smaller crop's resize.
    assert 0.85 <= np.ptp(looks, axis=(1, 2, 3)).min() / 100 < 0.95
    assert 1.05 < np.ptp(looks, axis=(1, 2, 3)).max() / 100 <= 1.11
    columns = looks[:, 40, :, 0].argmax(axis=1)
    # Moved by some pixels either way; mirrored, column 35 is column 44.
    assert 32 <= columns.min() < 35
    assert 44 < columns.max() <= 47
    assert len(set(columns)) > 6
    assert look(image, 5, 48).shape == (1, 48, 48, 3)
    np.testing.assert_array_equal(look(image, 5, 48), look(image, 5, 48))


def test_no_photo_and_no_round_are_refused(
    data: FaceCrops, teacher: Encoder, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="0 rounds"):
        views_of(data, [teacher], tmp_path, rounds=0)
    with pytest.raises(InputError, match="0 photos"):
        make_views(data, ROWS[:0], Teachers.of([teacher]), STUDENT, tmp_path, rounds=1)
