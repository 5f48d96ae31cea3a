from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from face_encode.encoders.contract import EncoderContract, read_quality_head, save_encoder
from face_encode.encoders.quality import QualityHead
from face_encode.encoders.registry import load_encoder
from face_encode.training.augmentation import (
    DEGRADATIONS,
    blurred,
    compressed,
    covered,
    dark,
    small,
)
from face_encode.training.quality import (
    _DAMAGES,
    CONDITIONS,
    TURNED,
    UNDAMAGED,
    Looks,
    QualityConfig,
    _choose_threshold,
    _looks_at,
    _turned,
    main,
)
from face_encode.types import Box, CropRecipe, Face, ImageArray
from tests.conftest import EXAMPLES, VERIFY_DATASET

CONTRACT = EncoderContract(
    "small", CropRecipe("dlib_chip", 24, 24, margin=0.25), threshold=0.9, mirror=True
)


@pytest.fixture
def photo() -> ImageArray:
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_degradation_gives_other_crops_of_the_same_shape(name: str, photo: ImageArray) -> None:
    crops = np.stack([photo, photo[::-1]])
    before = crops.copy()
    degraded = DEGRADATIONS[name](crops)
    assert degraded.shape == crops.shape
    assert degraded.dtype == np.uint8
    assert not np.array_equal(degraded, before)
    assert np.array_equal(crops, before)


def test_the_strength_of_a_degradation_is_what_it_says(photo: ImageArray) -> None:
    crops = photo[np.newaxis]
    assert np.array_equal(dark(crops, 0.5), np.rint(crops * 0.5))
    band = covered(crops, 0.25, 0.5, (1, 2, 3))[0]
    assert (band[15:30] == (1, 2, 3)).all()
    assert np.array_equal(band[:15], photo[:15])
    assert np.array_equal(band[30:], photo[30:])
    # Twice the blur leaves less detail; JPEG of a better quality is nearer to the crop.
    assert blurred(crops, 4).std() < blurred(crops, 2).std() < crops.std()
    near, far = (np.abs(compressed(crops, each) - crops.astype(float)).mean() for each in (95, 5))
    assert near < far
    assert small(crops, 80).tolist() == crops.tolist()


@pytest.mark.parametrize("number", range(len(_DAMAGES)))
def test_a_random_damage_keeps_the_photo_and_repeats_with_its_numbers(
    number: int, photo: ImageArray
) -> None:
    before, box = photo.copy(), Box(20, 10, 40, 40)
    first, again, other = (
        _DAMAGES[number](photo, box, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert first.shape == photo.shape
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(photo, before)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_photo_has_its_face_in_the_turned_box(quarters: int, photo: ImageArray) -> None:
    photo[10:30, 50:75] = 255
    turned, box = _turned(photo, Box(50, 10, 25, 20), quarters)
    inside = turned[box.top : box.top + box.height, box.left : box.left + box.width]
    assert inside.size == 25 * 20 * 3
    assert (inside == 255).all()


class MiddleDetector:
    """Takes the middle of each photo for the face."""

    name = "middle"

    def detect(self, image: ImageArray) -> list[Face]:
        height, width = image.shape[:2]
        return [Face(Box(width // 4, height // 4, width // 2, height // 2), 1.0)]


def test_photos_of_one_name_are_damaged_each_in_its_own_way(
    photo: ImageArray, tmp_path: Path
) -> None:
    paths = [tmp_path / person / "1.png" for person in ("ada", "bob")]
    for path in paths:
        path.parent.mkdir()
        cv2.imwrite(str(path), photo)
    recipe = CropRecipe("box", 24, 24)
    first, second = _looks_at(paths, MiddleDetector(), recipe, 8, seed=0)
    (again,) = _looks_at(paths[:1], MiddleDetector(), recipe, 8, seed=0)
    assert np.array_equal(first[0], second[0])  # type: ignore[index]
    assert not np.array_equal(first, second)  # type: ignore[arg-type]
    assert np.array_equal(first, again)  # type: ignore[arg-type]


def test_the_bound_is_not_rounded_above_the_photos_it_was_chosen_by() -> None:
    count = len(CONDITIONS) + len(TURNED)
    looks = Looks(np.ones((3, count, 1), np.float32), np.zeros((3, count, 1, 1), np.float32))
    # A head that always says 0.99966, which rounds to 1.
    zero = np.zeros((1, 1), np.float32)
    head = QualityHead(zero, zero[0], zero, np.full(1, 8.0, np.float32))
    config = QualityConfig(Path("people"))
    assert _choose_threshold(looks, head, CONTRACT, config) == 0.999


@pytest.mark.parametrize("suffix", [".keras", ".npz"])
def test_a_head_is_trained_measured_and_written(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((24, 24, 3))
    x = keras.layers.Conv2D(8, 5, 2, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(3)(x))
    model = keras.Model(inputs, keras.layers.Dense(16)(x))
    save_encoder(model, tmp_path / "small.keras", CONTRACT)
    encoder = load_encoder(tmp_path / "small.keras", engine="tensorflow")
    output = tmp_path / f"judged{suffix}"
    people = tmp_path / "people"
    shutil.copytree(VERIFY_DATASET, people)
    shutil.copy(EXAMPLES / "stranger.jpg", people)
    for name in ("nobody", "torn"):
        (people / name).mkdir()
    cv2.imwrite(str(people / "nobody" / "grey.png"), np.full((80, 80, 3), 128, np.uint8))
    (people / "torn" / "photo.jpg").write_bytes(b"no photo")
    arguments = [str(people), "--encoder", str(tmp_path / "small.keras")]
    arguments += ["-o", str(output), "--photos", "8", "--validation", "0.3", "--test", "0.3"]
    assert main([*arguments, "--detector", "dlib_hog"]) == 0
    told, err = capsys.readouterr()
    assert f"1 left out, such as {people / 'stranger.jpg'}: beside the people's folders" in err
    assert f"1 left out, such as {people / 'nobody' / 'grey.png'}: no face found" in err
    assert f"1 left out, such as {people / 'torn' / 'photo.jpg'}: " in err
    for name in (*CONDITIONS, *TURNED):
        assert f"\n{name} " in told
    assert "trained on 8 photos, chosen by 2, counted on 2 of other people" in told
    if suffix == ".npz":
        assert QualityHead.from_bytes(output.read_bytes()).kernel.shape[1] == 64
        return
    judged = load_encoder(output, engine="tensorflow")
    assert read_quality_head(output) is not None
    assert judged.contract.quality_threshold is not None
    assert judged.embedding_size == encoder.embedding_size
    crops = np.random.default_rng(1).integers(0, 256, (4, 24, 24, 3)).astype(np.uint8)
    embeddings, qualities = judged.embed(crops)
    assert qualities is not None
    assert ((qualities >= 0) & (qualities <= 1)).all()
    assert np.array_equal(embeddings, encoder.encode(crops))
    assert judged.fingerprint == encoder.fingerprint


@pytest.mark.parametrize(
    "option",
    ["--photos=3", "--refused=-1", "--margin=nan", "--validation=nan", "--test=0", "--seed=-1"],
)
def test_settings_out_of_range_are_refused_before_the_work(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tmp_path / "missing"), "-o", str(tmp_path / "head.npz")]
    assert main([*arguments, option]) == 1
    assert "lies within" in capsys.readouterr().err


def test_an_output_of_another_kind_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "-o", str(tmp_path / "head.h5")]) == 1
    assert "written as an .npz file" in capsys.readouterr().err


def test_the_first_condition_is_the_photo_as_it_is(photo: ImageArray) -> None:
    assert next(iter(CONDITIONS)) == UNDAMAGED
    box, random = Box(20, 10, 40, 40), np.random.default_rng(0)
    for name, degrade in CONDITIONS.items():
        assert np.array_equal(degrade(photo, box, random), photo) == (name == UNDAMAGED)
