"""Views: their files, how a student sees them, and resuming after an interruption."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError, ModelFileError
from face_encode.training.augmentation import Augmentation
from face_encode.training.views import crop_middle, jitter, make_views
from face_encode.types import CropRecipe, ImageArray

STILL = Augmentation(turn=0, zoom=0, shift=0, brightness=0, contrast=0, flip=False)


@pytest.fixture(scope="module")
def teacher() -> Encoder:
    """Its embedding is the crop's mean colour."""
    model = keras.Sequential([keras.Input((24, 24, 3)), keras.layers.GlobalAveragePooling2D()])
    return Encoder(model, EncoderContract("mean colour", CropRecipe("box", 24, 24), threshold=0.5))


@pytest.fixture
def crops() -> ImageArray:
    return np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3)).astype(np.uint8)


def test_the_teacher_answers_for_the_very_view_that_is_kept(
    teacher: Encoder, crops: ImageArray, tmp_path: Path
) -> None:
    views = make_views(crops, teacher, tmp_path, rounds=2, side=24, mixup=1.0, progress=False)
    assert [pixels.shape for pixels in views.pixels] == [crops.shape] * 2
    for pixels, answers in zip(views.pixels, views.answers, strict=True):
        np.testing.assert_allclose(answers, pixels.mean(axis=(1, 2)), rtol=1e-5)
        assert np.abs(pixels.astype(int) - crops).mean() > 5
    assert np.abs(views.answers[0] - views.answers[1]).max() > 0.1


def test_without_augmentation_and_mixtures_a_view_is_the_crop(
    teacher: Encoder, crops: ImageArray, tmp_path: Path
) -> None:
    views = make_views(
        crops, teacher, tmp_path, rounds=1, side=24, mixup=0, augmentation=STILL, progress=False
    )
    np.testing.assert_array_equal(views.pixels[0], crops)


def test_only_a_share_is_mixed(teacher: Encoder, crops: ImageArray, tmp_path: Path) -> None:
    many = np.repeat(crops, 40, axis=0)
    views = make_views(
        many, teacher, tmp_path, rounds=1, side=24, mixup=0.4, augmentation=STILL, progress=False
    )
    # One mixed view in five is mixed with the same photo.
    mixed = (views.pixels[0] != many).any(axis=(1, 2, 3)).mean()
    assert 0.2 < mixed < 0.45


def test_an_interrupted_run_goes_on_behind_its_last_whole_round(
    teacher: Encoder, crops: ImageArray, tmp_path: Path
) -> None:
    whole = make_views(crops, teacher, tmp_path / "whole", rounds=2, side=16, progress=False)
    make_views(crops, teacher, tmp_path / "cut", rounds=1, side=16, progress=False)
    # Killed between the two files of the second round.
    np.save(tmp_path / "cut" / "pixels-001.npy", np.zeros((5, 16, 16, 3), np.uint8))
    first = (tmp_path / "cut" / "pixels-000.npy").stat().st_mtime_ns
    cut = make_views(crops, teacher, tmp_path / "cut", rounds=2, side=16, progress=False)
    assert (tmp_path / "cut" / "pixels-000.npy").stat().st_mtime_ns == first
    for one, other in zip(whole.pixels + whole.answers, cut.pixels + cut.answers, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_round_is_told(teacher: Encoder, crops: ImageArray, tmp_path: Path) -> None:
    make_views(crops, teacher, tmp_path, rounds=1, side=16, progress=False)
    (tmp_path / "answers-000.npy").write_bytes(b"half a file")
    with pytest.raises(ModelFileError, match="damaged; delete"):
        make_views(crops, teacher, tmp_path, rounds=1, side=16, progress=False)


def test_prepared_views_are_all_rounds_in_the_students_size_with_room(
    teacher: Encoder, crops: ImageArray, tmp_path: Path
) -> None:
    views = make_views(crops, teacher, tmp_path, rounds=3, side=24, progress=False)
    seen = views.for_student(8, 2 / 3)
    np.testing.assert_array_equal(seen[5:10], crop_middle(views.pixels[1], 8, 2 / 3))
    assert views.for_student(32, 0.5).shape == (15, 34, 34, 3)


def test_the_middle_is_cut_out_evenly_and_averaged() -> None:
    image = np.zeros((1, 12, 12, 3), np.uint8)
    image[:, 2:10, 2:10] = 100
    image[:, 2:10, 2:6] = 200
    seen = crop_middle(image, 4, 8 / 12)
    np.testing.assert_array_equal(seen[0, :, :2], 200)
    np.testing.assert_array_equal(seen[0, :, 2:], 100)
    np.testing.assert_array_equal(crop_middle(image, 12), image)
    with pytest.raises(InputError, match=r"Received: 1\.5"):
        crop_middle(image, 4, 1.5)


def test_a_second_look_is_moved_mirrored_and_lit() -> None:
    image = np.full((1, 68, 68, 3), 100, np.uint8)
    image[:, 20:50, 30] = 200
    looks = jitter(np.repeat(image, 300, axis=0), 3)
    assert looks.shape == (300, 64, 64, 3)
    # A contrast and a lift of up to a tenth each.
    assert 0.9 <= np.ptp(looks, axis=(1, 2, 3)).min() / 100 < 0.95
    assert 1.05 < np.ptp(looks, axis=(1, 2, 3)).max() / 100 <= 1.1
    columns = looks[:, 30, :, 0].argmax(axis=1)
    # Moved by up to 2 pixels either way; mirrored, column 28 is column 35.
    assert set(columns) == {26, 27, 28, 29, 30, 33, 34, 35, 36, 37}
    rows = looks[np.arange(300), :, columns, 0].argmax(axis=1)
    assert set(rows) == {16, 17, 18, 19, 20}
    np.testing.assert_array_equal(jitter(image, 5), jitter(image, 5))


def test_no_photo_and_no_round_are_refused(
    teacher: Encoder, crops: ImageArray, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="0 rounds"):
        make_views(crops, teacher, tmp_path, rounds=0, side=16, progress=False)
    with pytest.raises(InputError, match="0 photos"):
        make_views(crops[:0], teacher, tmp_path, rounds=1, side=16, progress=False)
