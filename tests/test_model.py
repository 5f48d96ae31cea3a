from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.detectors.registry import DEFAULT_DETECTOR, KNOWN_DETECTORS
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import CHOICES, KNOWN_ENCODERS
from face_encode.errors import (
    DatasetError,
    GalleryError,
    InputError,
    ModelFileError,
    WrongEncoderError,
)
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.thresholds import Calibration
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import Box, Face, ImageArray, Match
from face_encode.weights import KNOWN_WEIGHTS
from tests.conftest import EXAMPLES, VERIFY_DATASET, place_weights
from tests.gallery.calibrations import BY_HAND

KNOWN_EXAMPLES = sorted(
    path for path in EXAMPLES.glob("*.jpg") if path.stem not in ("group", "stranger")
)


def name_of(photo: Path) -> str:
    """The enrolled person that an example shows, by its file name."""
    (name,) = (
        path.name for path in VERIFY_DATASET.iterdir() if photo.stem.startswith(path.name.lower())
    )
    return name


@pytest.fixture(scope="module")
def photo(people_photos: list[Path]) -> ImageArray:
    return read_image(people_photos[0])


def test_fitting_fills_the_arrays(
    fitted_model: Face_Encode_Model, people_photos: list[Path]
) -> None:
    count = len(people_photos)
    assert fitted_model.verify_embeddings.shape == (count, 128)
    assert fitted_model.verify_embeddings.dtype == np.float32
    assert fitted_model.verify_names.tolist() == [photo.parent.name for photo in people_photos]


def test_people_are_recognised_in_photos_that_were_not_enrolled(
    fitted_model: Face_Encode_Model,
) -> None:
    assert len(KNOWN_EXAMPLES) >= 3
    for path in KNOWN_EXAMPLES:
        (face,) = fitted_model.match_image(read_image(path))
        assert face["name"] == name_of(path)
        assert face["is_match"] is True
        assert isinstance(face["similarity"], float)
        assert fitted_model.threshold <= face["similarity"] <= 1
        judged = {"rotation", "quality", "quality_reason"}
        assert set(face) == {"name", "similarity", "is_match", "bounding_box"} | judged
        assert set(face["bounding_box"]) == {"x", "y", "width", "height"}


def test_a_stranger_is_unknown_and_the_nearest_is_told(fitted_model: Face_Encode_Model) -> None:
    (face,) = fitted_model.match_image(read_image(EXAMPLES / "stranger.jpg"))
    assert face["is_match"] is False
    assert face["name"] in set(fitted_model.verify_names.tolist())


def test_a_group_photo_gives_the_largest_faces_first(fitted_model: Face_Encode_Model) -> None:
    group = read_image(EXAMPLES / "group.jpg")
    everybody = fitted_model.match_image(group, n_max_faces=None)
    assert len(everybody) >= 3
    areas = [face["bounding_box"]["width"] * face["bounding_box"]["height"] for face in everybody]
    assert areas == sorted(areas, reverse=True)
    (largest,) = fitted_model.match_image(group)
    assert largest["bounding_box"] == everybody[0]["bounding_box"]
    # Batches of another size add up in another order.
    assert largest["similarity"] == pytest.approx(everybody[0]["similarity"], abs=1e-5)
    # More than there are is no error, as it was in the original.
    assert len(fitted_model.match_image(group, n_max_faces=50)) == len(everybody)
    names = [face["name"] for face in everybody if face["is_match"]]
    assert len(names) == len(set(names)) >= 3


def test_no_face_gives_an_empty_list(fitted_model: Face_Encode_Model) -> None:
    assert fitted_model.match_image(np.full((200, 300, 3), 90, np.uint8)) == []
    embeddings, boxes = fitted_model.compute_embeddings_image(np.zeros((9, 9, 3), np.uint8))
    assert (embeddings.shape, boxes) == ((0, 128), [])
    assert embeddings.dtype == np.float32


def test_without_detection_the_whole_photo_is_the_face(
    fitted_model: Face_Encode_Model, colour_crops: ImageArray
) -> None:
    (face,) = fitted_model.match_image(colour_crops[0], detect_faces=False)
    assert face["bounding_box"] is None
    # A chip is what the encoder cuts out itself, so it is the very photo that was enrolled.
    assert face["name"] == fitted_model.verify_names[0]
    assert face["similarity"] == pytest.approx(1, abs=1e-5)
    embeddings, boxes = fitted_model.compute_embeddings_image(
        np.full((40, 70, 3), 9, np.uint8), detect_faces=False
    )
    assert (embeddings.shape, boxes) == ((1, 128), [None])


def test_grey_and_transparent_photos_are_taken(
    fitted_model: Face_Encode_Model, photo: ImageArray
) -> None:
    grey = photo.mean(axis=2).astype(np.uint8)
    alpha = np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)])
    assert fitted_model.match_image(grey)[0]["name"] == fitted_model.verify_names[0]
    assert fitted_model.match_image(alpha) == fitted_model.match_image(photo)


def test_two_embeddings_are_compared(fitted_model: Face_Encode_Model) -> None:
    names, embeddings = fitted_model.verify_names, fitted_model.verify_embeddings
    similarity, is_same = fitted_model.compare_encodings(embeddings[0], 3 * embeddings[:1])
    assert similarity == pytest.approx(1)
    assert is_same is True
    other = embeddings[np.flatnonzero(names != names[0])[0]]
    similarity, is_same = fitted_model.compare_encodings(embeddings[0], other)
    expected = embeddings[0] @ other / np.linalg.norm(embeddings[0]) / np.linalg.norm(other)
    assert similarity == pytest.approx(expected, abs=1e-6)
    assert is_same is False


@pytest.mark.parametrize("wrong", [np.zeros(128), np.ones(127), np.full(128, np.nan), "x", None])
def test_what_is_no_embedding_is_refused(fitted_model: Face_Encode_Model, wrong: Any) -> None:
    with pytest.raises(InputError):
        fitted_model.compare_encodings(fitted_model.verify_embeddings[0], wrong)


def test_faces_are_boxed_and_drawn(fitted_model: Face_Encode_Model, photo: ImageArray) -> None:
    (box,) = fitted_model.detect_faces(photo)
    assert box == fitted_model.match_image(photo)[0]["bounding_box"]
    for faces in ([box], fitted_model.match_image(photo)):
        drawn = fitted_model.draw_bounding_box(photo, faces)
        assert drawn.shape == photo.shape
        assert (drawn != photo).any()
    untouched = fitted_model.match_image(photo, detect_faces=False)
    np.testing.assert_array_equal(fitted_model.draw_bounding_box(photo, untouched), photo)


def test_a_person_is_added_and_removed_without_touching_the_others(
    encoder: Encoder, photo: ImageArray, people_photos: list[Path]
) -> None:
    model = Face_Encode_Model(encoder)
    with pytest.raises(GalleryError, match="nobody is enrolled"):
        model.match_image(photo)
    model.add_person("Ada", [photo])
    first = model.verify_embeddings[0].copy()
    report = model.add_person("Bo", people_photos[-2:])
    assert report.enrolled == 2
    assert model.verify_names.tolist() == ["Ada", "Bo", "Bo"]
    np.testing.assert_array_equal(model.verify_embeddings[0], first)
    assert model.remove_person("Bo") == 2
    np.testing.assert_array_equal(model.verify_embeddings, first[np.newaxis])
    with pytest.raises(GalleryError, match="nobody named 'Bo'"):
        model.remove_person("Bo")
    with pytest.raises(DatasetError, match="none of the 1 photos"):
        model.add_person("", [photo])
    with pytest.raises(DatasetError):
        model.add_person("Cy", [np.zeros((50, 50, 3), np.uint8)])


def test_fitting_again_replaces(encoder: Encoder, photo: ImageArray) -> None:
    model = Face_Encode_Model(encoder)
    model.add_person("Somebody Else", [photo])
    report = model.fit_dataset(VERIFY_DATASET, progress=False)
    assert "Somebody Else" not in model.verify_names
    assert report.enrolled == len(model.verify_names)


def test_a_gallery_is_kept_in_a_file(
    fitted_model: Face_Encode_Model, encoder: Encoder, photo: ImageArray, tmp_path: Path
) -> None:
    fitted_model.save_gallery(tmp_path / "people.npz")
    model = Face_Encode_Model(encoder)
    model.load_gallery(tmp_path / "people.npz")
    assert model.match_image(photo) == fitted_model.match_image(photo)
    report = model.fit_dataset(VERIFY_DATASET, progress=False)
    assert report.reused == report.enrolled


def test_another_encoders_gallery_is_refused(
    fitted_model: Face_Encode_Model, tmp_path: Path
) -> None:
    inputs = keras.Input((20, 20, 3))
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs)).save(
        tmp_path / "other.keras"
    )
    fitted_model.save_gallery(tmp_path / "people.npz")
    other = Face_Encode_Model(tmp_path / "other.keras")
    assert other.threshold == 0.7
    with pytest.raises(WrongEncoderError, match=r"'dlib_resnet'.*'other'"):
        other.load_gallery(tmp_path / "people.npz")


def test_the_threshold_decides(encoder: Encoder, photo: ImageArray) -> None:
    assert Face_Encode_Model(encoder).threshold == encoder.contract.threshold
    for threshold, is_match in ((-1.0, True), (1.0, False)):
        model = Face_Encode_Model(encoder, DlibHogDetector(), threshold)
        model.add_person("Ada", [np.ascontiguousarray(photo[:, ::-1] // 2)])
        assert model.match_image(photo)[0]["is_match"] is is_match


@pytest.mark.parametrize("threshold", [1.5, -2, float("nan")])
def test_a_threshold_out_of_range_is_refused(encoder: Encoder, threshold: float) -> None:
    with pytest.raises(InputError, match=r"-1\.\.1"):
        Face_Encode_Model(encoder, threshold=threshold)
    model = Face_Encode_Model(encoder, threshold=0.5)
    with pytest.raises(InputError, match=r"-1\.\.1"):
        model.threshold = threshold
    assert model.threshold == 0.5
    model.threshold = None
    assert model.threshold == encoder.contract.threshold


def test_the_threshold_is_that_of_a_false_match_rate(encoder: Encoder) -> None:
    thresholds = [
        Face_Encode_Model(encoder, "haar", false_match_rate=rate).threshold
        for rate in (1e-3, 1e-4, 1e-5)
    ]
    assert thresholds == sorted(set(thresholds))
    assert thresholds[0] == encoder.contract.threshold
    with pytest.raises(InputError, match=r"0\.001, 0\.0001, 1e-05\. Received: 0\.5"):
        Face_Encode_Model(encoder, "haar", false_match_rate=0.5)
    wrong: list[Any] = [[], "0.001", float("nan")]
    for rate in wrong:
        with pytest.raises(InputError, match="a false match rate lies within"):
            Face_Encode_Model(encoder, "haar", false_match_rate=rate)
    with pytest.raises(InputError, match="not both"):
        Face_Encode_Model(encoder, "haar", 0.9, false_match_rate=1e-3)


def test_a_choice_brings_its_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(CHOICES["offline"], encoder="vgg_embedding", detector="haar")
    monkeypatch.setitem(CHOICES, "small", small)
    model = Face_Encode_Model("small")
    assert (model.encoder.name, model.detector.name) == ("vgg_embedding", "haar")
    assert Face_Encode_Model("small", "dlib_hog").detector.name == "dlib_hog"
    assert Face_Encode_Model(model.encoder).detector.name == DEFAULT_DETECTOR
    with pytest.raises(ModelFileError, match="one of offline, fast, accurate,"):
        Face_Encode_Model("slow")


@pytest.mark.data
@pytest.mark.parametrize("choice", ["fast", "accurate"])
def test_the_choices_recognise_the_invented_people(
    choice: str, public_weights: Path, cache_folder: Path
) -> None:
    encoder, detector = CHOICES[choice].encoder, CHOICES[choice].detector
    for name in (*KNOWN_ENCODERS[encoder].files, KNOWN_DETECTORS[detector].weights):
        if name is not None and KNOWN_WEIGHTS[name].url is not None:
            place_weights(name, public_weights)
    model = Face_Encode_Model(choice)
    assert (model.encoder.name, model.detector.name) == (encoder, detector)
    assert not model.fit_dataset(VERIFY_DATASET, progress=False).left_out
    for path in KNOWN_EXAMPLES:
        (face,) = model.match_image(read_image(path))
        assert face["name"] == name_of(path)
        assert face["is_match"] is True
    (face,) = model.match_image(read_image(EXAMPLES / "stranger.jpg"))
    assert face["is_match"] is False


def test_a_description_says_what_is_in_it(fitted_model: Face_Encode_Model) -> None:
    text = repr(fitted_model)
    assert "dlib_resnet" in text
    assert f"{len(fitted_model.verify_names)} photos" in text


@pytest.mark.slow
def test_a_script_without_a_main_guard_may_use_workers(people_photos: list[Path]) -> None:
    # The standard library's processes would run the whole script again in each of them.
    script = (
        "from face_encode import Face_Encode_Model\n"
        "print('starting')\n"
        "model = Face_Encode_Model(detector='dlib_hog')\n"
        f"report = model.fit_dataset({str(VERIFY_DATASET)!r}, workers=2, progress=False)\n"
        "print(report.enrolled)\n"
    )
    path = people_photos[0].parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["starting", str(len(people_photos))], done.stderr


def test_a_calibrated_gallery_sets_the_threshold_and_gives_probabilities(
    encoder: Encoder,
) -> None:
    model = Face_Encode_Model(encoder)
    face = Face(Box(0, 0, 10, 10), 1.0)
    model.gallery.add(["Ada", "Bo"], np.eye(2, encoder.embedding_size, dtype=np.float32))
    assert model.threshold == encoder.contract.threshold
    assert "probability" not in model.describe(Match("Ada", 0.9), face)
    model.gallery.calibration = Calibration(
        false_match_rate=0.01,
        people=10,
        photos=100,
        enrolled=(1, 2, 100),
        thresholds=(0.5, 0.6, 0.7),
        tail_scale=0.1,
        slopes=(20.0, 40.0),
        midpoints=(0.5, 0.7),
        verification_interval=(0.4, 0.6),
        search_interval=(0.6, 0.8),
        extrapolated=False,
    )
    # A search of two photos; a comparison of two faces has the lower threshold.
    assert model.threshold == pytest.approx(0.6)
    described = model.describe(Match("Ada", 0.65), face)
    assert described["is_match"]
    expected = model.gallery.calibration.probability(0.65, 2)
    assert described["probability"] == pytest.approx(float(expected))
    embedding = np.zeros(encoder.embedding_size, np.float32)
    other = embedding.copy()
    embedding[0], other[:2] = 1, (0.55, np.sqrt(1 - 0.55**2))
    assert model.compare_encodings(embedding, other)[1]
    model.threshold = 0.95
    assert model.threshold == 0.95
    assert not model.compare_encodings(embedding, other)[1]


class Calibrated(MemoryGallery):
    """A gallery that holds ten photos of nobody."""

    def __len__(self) -> int:
        return 10


def test_a_threshold_is_the_one_set_or_the_calibrated_one_or_the_encoders(encoder: Encoder) -> None:
    model = Face_Encode_Model(encoder)
    model.gallery = gallery = Calibrated(encoder)
    own = encoder.contract.threshold
    assert model.threshold == model.verification_threshold == own
    # By the logarithm of the number enrolled; two photos alone are compared as with one.
    gallery.calibration = BY_HAND
    assert model.threshold == pytest.approx(0.6)
    assert model.verification_threshold == 0.5
    model.gallery = MemoryGallery(encoder)
    model.gallery.calibration = BY_HAND
    assert model.threshold == 0.5
    for given in (-1.0, 0.3, 1.0):
        model.threshold = given
        assert model.threshold == model.verification_threshold == given
        assert Face_Encode_Model(encoder, threshold=given).threshold == given
