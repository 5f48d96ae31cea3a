"""Several encoders as one: the cosine of the whole is the weighted sum of the parts'."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from face_encode.detectors.alignment import crop_faces, crop_whole
from face_encode.detectors.registry import load_detector
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import ENGINES, KERAS
from face_encode.encoders.quality import QualityHead, with_features
from face_encode.encoders.registry import (
    KNOWN_ENCODERS,
    CombinedEncoder,
    ConvertedEncoder,
    load_encoder,
)
from face_encode.errors import ModelFileError
from face_encode.evaluation.faces import central_face, embed_faces, similarities
from face_encode.evaluation.pairs import read_pairs, verification_numbers
from face_encode.functions import extract_faces
from face_encode.gallery.distances import unit_length
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import CropRecipe, Embeddings, ImageArray
from face_encode.weights import KNOWN_WEIGHTS, KnownWeights
from tests.conftest import VERIFY_DATASET, place_weights

CHIP = CropRecipe("dlib_chip", 24, 24, margin=0.25)
BOX = CropRecipe("box", 12, 16)
STACK = CropRecipe.stacked([CHIP, BOX])


def build(content: bytes, *, crop: CropRecipe, size: int, scale: float) -> keras.Model:
    """A small network; embeddings of ``size`` numbers, of a length that grows with ``scale``."""
    keras.utils.set_random_seed(content[0])
    inputs = keras.Input((crop.height, crop.width, 3))
    x = keras.layers.Rescaling(scale / 255, -scale / 2)(inputs)
    x = keras.layers.Conv2D(6, 5, strides=3, activation="relu")(x)
    x = keras.layers.Dense(size)(keras.layers.Flatten()(x))
    return keras.Model(inputs, x, name=f"network_{size}")


@pytest.fixture
def parts(
    cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, EncoderContract]]:
    """Known encoders "left" and "right", whose weights lie in an empty cache."""
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    contracts = {
        "left": EncoderContract("left", CHIP, 0.9, 1e-3, mirror=True, spread=0.05, licence="A"),
        "right": EncoderContract("right", BOX, 0.3, 1e-3, mirror=True, spread=0.2, licence="B"),
    }
    settings: dict[str, dict[str, Any]] = {
        "left": {"size": 5, "scale": 9.0},
        "right": {"size": 7, "scale": 1.0},
    }
    for name, contract in contracts.items():
        (tmp_path / "cache" / f"{name}.bin").write_bytes(name.encode())
        known = KnownWeights(None, f"{name}.bin", None, "of tests", "tests", "http://no.where/")
        monkeypatch.setitem(KNOWN_WEIGHTS, name, known)
        make = partial(build, crop=contract.crop, **settings[name])
        monkeypatch.setitem(KNOWN_ENCODERS, name, ConvertedEncoder(contract, make, name))
    yield contracts


def stack_crops() -> ImageArray:
    random = np.random.default_rng(3)
    return random.integers(0, 256, (4, STACK.height, STACK.width, 3)).astype(np.uint8)


def cosines(embeddings: Embeddings) -> Embeddings:
    units = unit_length(embeddings)
    return np.asarray(units @ units.T, np.float32)


def test_a_stack_holds_the_crops_of_all_parts(people_photos: list[Path]) -> None:
    image = read_image(people_photos[0])
    faces = load_detector("dlib_hog").detect(image)
    (stack,) = crop_faces(image, faces, STACK)
    assert stack.shape == (36, 24, 3)
    np.testing.assert_array_equal(stack[:24], crop_faces(image, faces, CHIP)[0])
    np.testing.assert_array_equal(stack[24:, 4:20], crop_faces(image, faces, BOX)[0])
    assert not stack[24:, :4].any() and not stack[24:, 20:].any()
    bare = [replace(face, landmarks=None) for face in faces]
    np.testing.assert_array_equal(crop_faces(image, bare, STACK)[0], stack)
    whole = crop_whole(image, STACK)
    np.testing.assert_array_equal(whole[24:, 4:20], crop_whole(image, BOX))


def test_one_cosine_is_the_weighted_sum_in_units_of_the_spread(
    parts: dict[str, EncoderContract],
) -> None:
    encoder = load_encoder("left+right", engine=KERAS)
    assert encoder.embedding_size == 12
    crops = stack_crops()
    each = []
    for name, (rows, columns) in zip(parts, STACK.places(), strict=True):
        single = load_encoder(name, engine=KERAS)
        assert single.contract.mirror
        part = np.ascontiguousarray(crops[:, rows, columns])
        # Of length 1 before the mirror image is averaged in.
        views = (
            Encoder(single.model, replace(single.contract, mirror=False)).encode(view)
            for view in (part, part[:, :, ::-1])
        )
        each.append(np.mean([unit_length(view) for view in views], axis=0))
    # Half the weight each, in units of 0.05 and of 0.2.
    expected = np.concatenate([each[0] * 0.8**0.5, each[1] * 0.2**0.5], axis=1)
    np.testing.assert_allclose(encoder.encode(crops), expected, atol=1e-5)
    contract = encoder.contract
    assert contract.threshold == pytest.approx(0.8 * 0.9 + 0.2 * 0.3)
    assert contract.false_match_rate is None  # nobody calibrated it
    assert contract.licence == "left: A; right: B"


def test_it_runs_on_every_engine_and_from_the_cache(
    parts: dict[str, EncoderContract], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = stack_crops()
    expected = load_encoder("left+right", engine=KERAS)
    converted = load_encoder("left+right", engine="onnx")
    np.testing.assert_allclose(converted.encode(crops), expected.encode(crops), atol=1e-5)
    assert converted.fingerprint == expected.fingerprint
    for name in parts:
        assert load_encoder(name, engine=KERAS).fingerprint != expected.fingerprint

    def fail(content: bytes) -> keras.Model:
        raise AssertionError("it was put together before")

    for name in parts:
        known = KNOWN_ENCODERS[name]
        assert isinstance(known, ConvertedEncoder)
        monkeypatch.setitem(KNOWN_ENCODERS, name, replace(known, build=fail))
        for path in (tmp_path / "cache").glob(f"{name}-*.keras"):
            path.unlink()
    assert load_encoder("left+right").fingerprint == expected.fingerprint


def give_heads(
    parts: dict[str, EncoderContract], monkeypatch: pytest.MonkeyPatch, **bounds: float | None
) -> None:
    """Known encoders with quality heads; a bound of None leaves a part without one."""
    random = np.random.default_rng(7)
    heads = {}
    for name in parts:
        part = load_encoder(name, engine=KERAS)
        features = with_features(part.model, part.contract.crop).outputs[1].shape[-1]
        shapes = ((features, 3), (3,), (3, 1), (1,))
        head = QualityHead(*(np.float32(random.integers(-8, 9, shape) / 32) for shape in shapes))
        heads[name] = b"" if bounds[name] is None else head.to_bytes()
        known = KNOWN_ENCODERS[name]
        assert isinstance(known, ConvertedEncoder)
        judging = replace(known.contract, quality_threshold=bounds[name])
        monkeypatch.setitem(KNOWN_ENCODERS, name, replace(known, contract=judging))
    monkeypatch.setattr(ConvertedEncoder, "_quality_head", lambda self: heads[self.weights])


@pytest.mark.parametrize("engine", [KERAS, "onnx", "openvino"])
def test_its_quality_is_the_mean_of_the_logits_of_its_parts(
    engine: str, parts: dict[str, EncoderContract], monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine in ENGINES and not ENGINES[engine].is_installed:
        pytest.skip(f"{engine} is not installed")
    plain = load_encoder("left+right", engine=engine)
    give_heads(parts, monkeypatch, left=0.8, right=0.5)
    crops, logits = stack_crops(), []
    for name, (rows, columns) in zip(parts, STACK.places(), strict=True):
        part = np.ascontiguousarray(crops[:, rows, columns])
        _, qualities = load_encoder(name, engine=KERAS).embed(part)
        assert qualities is not None
        logits.append(np.log(qualities / (1 - qualities)))
    # Put together, then from the cache.
    for _ in range(2):
        encoder = load_encoder("left+right", engine=engine)
        embeddings, qualities = encoder.embed(crops)
        assert qualities == pytest.approx(1 / (1 + np.exp(-np.mean(logits, axis=0))), abs=1e-4)
        assert np.ptp(qualities) > 0.05
        np.testing.assert_allclose(embeddings, plain.encode(crops), atol=1e-5)
        # The odds of 4 and of 1 have the mean 2 in logarithms.
        assert encoder.contract.quality_threshold == pytest.approx(2 / 3, abs=1e-3)
    assert encoder.fingerprint == plain.fingerprint
    assert plain.embed(crops)[1] is None


def test_a_part_that_judges_nothing_leaves_the_whole_without_a_quality(
    parts: dict[str, EncoderContract], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_heads(parts, monkeypatch, left=0.8, right=None)
    encoder = load_encoder("left+right", engine=KERAS)
    assert encoder.embed(stack_crops())[1] is None
    assert encoder.contract.quality_threshold is None


def test_other_weights_or_contracts_of_the_parts_make_another_one(
    parts: dict[str, EncoderContract], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_encoder("left+right", engine=KERAS)
    heavier = CombinedEncoder(("left", "right"), (0.9, 0.1)).open(None, KERAS)
    assert heavier.fingerprint != first.fingerprint
    known = KNOWN_ENCODERS["left"]
    assert isinstance(known, ConvertedEncoder)
    wider = replace(known, contract=replace(known.contract, spread=0.1))
    monkeypatch.setitem(KNOWN_ENCODERS, "left", wider)
    assert load_encoder("left+right", engine=KERAS).fingerprint != first.fingerprint


def test_a_model_file_holds_it_whole(parts: dict[str, EncoderContract], tmp_path: Path) -> None:
    encoder = load_encoder("left+right", engine=KERAS)
    (path,) = (tmp_path / "cache").glob("left+right-*.keras")
    shutil.copy(path, tmp_path / "mine.keras")
    opened = load_encoder(tmp_path / "mine.keras", engine=KERAS)
    assert opened.fingerprint == encoder.fingerprint
    assert opened.contract == encoder.contract


def test_people_are_enrolled_and_found(parts: dict[str, EncoderContract]) -> None:
    model = Face_Encode_Model("left+right", "dlib_hog")
    assert model.fit_dataset(VERIFY_DATASET, progress=False).enrolled > 20
    photo = sorted(VERIFY_DATASET.glob("*/*.jpg"))[0]
    image = read_image(photo)
    (match,) = model.match_image(image)
    assert match["name"] == photo.parent.name
    assert match["similarity"] > 0.999
    assert len(model.match_image(image, detect_faces=False)) == 1
    (face,) = extract_faces(photo, encoder=model.encoder, detector="dlib_hog")
    assert face["face"].shape == (24, 24, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spread": None}, "was not measured for right"),
        ({"mirror": False}, "all or none of them average the mirror image"),
    ],
)
def test_encoders_that_do_not_go_together_are_refused(
    parts: dict[str, EncoderContract],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    message: str,
) -> None:
    known = KNOWN_ENCODERS["right"]
    assert isinstance(known, ConvertedEncoder)
    changed = replace(known, contract=replace(known.contract, **change))  # type: ignore[arg-type]
    monkeypatch.setitem(KNOWN_ENCODERS, "right", changed)
    with pytest.raises(ModelFileError, match=message):
        load_encoder("left+right")


@pytest.mark.parametrize("name", ["left+", "+", "left+none", "left+left", "left+mine.keras"])
def test_a_name_that_names_no_two_encoders_is_refused(
    parts: dict[str, EncoderContract], name: str
) -> None:
    with pytest.raises(ModelFileError):
        load_encoder(name)
    with pytest.raises(ModelFileError, match="carries its own weights"):
        load_encoder("left+right", weights="mine.bin")


@pytest.mark.data
def test_the_pair_tells_people_apart_better_than_either(
    public_weights: Path, lfw_photos: Path, lfw_pairs: Path
) -> None:
    place_weights("mobilefacenet", public_weights)
    encoder = load_encoder("dlib_resnet+mobilefacenet")
    pairs = read_pairs(lfw_pairs, lfw_photos)
    faces = embed_faces(pairs.photos(), load_detector(), encoder, central_face)
    row_of = {photo: row for row, photo in enumerate(pairs.photos())}
    first, second = (
        faces.embeddings[[row_of[photo] for photo in side]]
        for side in (pairs.photos_a, pairs.photos_b)
    )
    scores = {
        "dlib_resnet": similarities(first[:, :128], second[:, :128], "cosine"),
        "mobilefacenet": similarities(first[:, 128:], second[:, 128:], "cosine"),
        "both": similarities(first, second, "cosine"),
    }
    accuracy = {name: verification_numbers(each, pairs).accuracy for name, each in scores.items()}
    assert accuracy["both"] > accuracy["mobilefacenet"] > accuracy["dlib_resnet"] > 0.99
    # One false match among 1,100 pairs of strangers.
    for name, least in (("mobilefacenet", 0.98), ("both", 0.985)):
        limit = np.sort(scores[name][~pairs.same])[-1]
        assert (scores[name][pairs.same] > limit).mean() >= least
