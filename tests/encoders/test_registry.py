from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.detectors.registry import DEFAULT_DETECTOR, KNOWN_DETECTORS
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import AUTOMATIC, KERAS
from face_encode.encoders.registry import (
    CHOICES,
    DEFAULT_ENCODER,
    KNOWN_ENCODERS,
    ConvertedEncoder,
    ShippedEncoder,
    as_encoder,
    detector_for,
    load_encoder,
)
from face_encode.errors import InputError, ModelFileError, WeightsError
from face_encode.types import CropRecipe, ImageArray
from face_encode.weights import KNOWN_WEIGHTS, KnownWeights
from tests.loopback import Served, serving


def plain_model(height: int | None = 16, channels: int = 3) -> keras.Model:
    inputs = keras.Input((height, height, channels))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    return keras.Model(inputs, keras.layers.Dense(8)(x))


def test_the_default_is_the_most_accurate_one(encoder: Encoder) -> None:
    assert encoder.name == "dlib_resnet"
    assert load_encoder("dlib_resnet").fingerprint == encoder.fingerprint


def test_a_choice_is_an_encoder_with_a_detector(encoder: Encoder) -> None:
    assert load_encoder("offline").fingerprint == encoder.fingerprint
    assert set(CHOICES) == {"offline", "fast", "accurate"}
    for name, choice in CHOICES.items():
        assert choice.encoder in KNOWN_ENCODERS
        assert choice.detector in KNOWN_DETECTORS
        assert name not in KNOWN_ENCODERS  # it would hide the encoder
        assert detector_for(name, None) == choice.detector
        assert detector_for(name, "haar") == "haar"
    assert (CHOICES["offline"].encoder, CHOICES["offline"].detector) == (
        DEFAULT_ENCODER,
        DEFAULT_DETECTOR,
    )
    for other in (None, encoder, "dlib_resnet", Path("fast")):
        assert detector_for(other, None) is None


def test_the_converted_weights_are_cached(
    encoder: Encoder, cache_folder: Path, colour_crops: ImageArray
) -> None:
    cached = list(cache_folder.glob("dlib_resnet-*.keras"))
    assert len(cached) == 1
    from_file = load_encoder(cached[0])
    assert from_file.contract == encoder.contract
    assert from_file.fingerprint == encoder.fingerprint
    np.testing.assert_allclose(
        from_file.encode(colour_crops[:4]), encoder.encode(colour_crops[:4]), atol=1e-6
    )


def test_a_cache_that_cannot_be_written_is_no_matter(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "file"))
    assert load_encoder(engine=KERAS).fingerprint == encoder.fingerprint


def test_weights_are_taken_from_a_given_path_and_verified(tmp_path: Path) -> None:
    other = tmp_path / "weights.dat"
    other.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="SHA-256"):
        load_encoder("dlib_resnet", weights=other)


def test_a_plain_keras_file_is_used_by_the_original_conventions(tmp_path: Path) -> None:
    model, path = plain_model(), tmp_path / "vgg_embedding.keras"
    model.save(path)
    encoder = load_encoder(path, engine=KERAS)
    assert encoder.name == "vgg_embedding"
    assert encoder.contract.threshold == 0.7
    crops = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    expected = np.asarray(model(crops.astype(np.float32) / 255))
    np.testing.assert_allclose(encoder.encode(crops), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["nonsense", "model.h5", "", "dlib_resnet.dat"])
def test_an_unknown_name_is_told_with_the_known_ones(name: str) -> None:
    with pytest.raises(ModelFileError, match=r"dlib_resnet.*Received"):
        load_encoder(name)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such model file"):
        load_encoder(tmp_path / "none.keras")


def test_an_open_encoder_is_taken_with_its_engine(tiny_file: Path) -> None:
    opened = as_encoder(tiny_file, KERAS)
    assert opened.engine == KERAS
    for engine in (None, AUTOMATIC, KERAS):
        assert as_encoder(opened, engine) is opened
    with pytest.raises(InputError, match=rf"its engine, '{KERAS}'.*Received: 'onnx'"):
        as_encoder(opened, "onnx")


def test_weights_make_no_sense_for_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plain.keras"
    plain_model().save(path)
    with pytest.raises(ModelFileError, match="carries its own weights"):
        load_encoder(path, weights=path)


def test_a_model_of_open_size_without_a_contract_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "open.keras"
    plain_model(height=None).save(path)
    with pytest.raises(ModelFileError, match="one fixed size"):
        load_encoder(path)


def test_a_model_of_grey_images_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grey.keras"
    plain_model(channels=1).save(path)
    with pytest.raises(ModelFileError, match="RGB images"):
        load_encoder(path)


def test_a_siamese_network_is_refused_with_advice(tmp_path: Path) -> None:
    network = plain_model()
    inputs = [keras.Input((16, 16, 3)) for _ in range(3)]
    siamese = keras.Model(inputs, [network(each) for each in inputs])
    path = tmp_path / "siamese.keras"
    siamese.save(path)
    with pytest.raises(ModelFileError):
        load_encoder(path)


def test_code_in_a_model_file_is_not_run(tmp_path: Path) -> None:
    inputs = keras.Input((16, 16, 3))
    hidden = keras.layers.Lambda(lambda x: x + 1, output_shape=(16, 16, 3))(inputs)
    path = tmp_path / "lambda.keras"
    keras.Model(inputs, keras.layers.Flatten()(hidden)).save(path)
    with pytest.raises(ModelFileError, match="Keras cannot load"):
        load_encoder(path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    """An encoder "far" whose weights are one number, on a server of this machine."""

    def build(content: bytes) -> keras.Model:
        if not content.startswith(b"weights "):
            raise WeightsError("no weights")
        model = plain_model()
        model.set_weights([np.full(each.shape, int(content[8:])) for each in model.weights])
        return model

    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(Served(b"weights 3")) as served:
        weights = KnownWeights(None, "far.bin", None, "for tests only", "the tests", served.url)
        contract = EncoderContract("far", CropRecipe("box", 16, 16), 0.5)
        monkeypatch.setitem(KNOWN_WEIGHTS, "far", weights)
        monkeypatch.setitem(KNOWN_ENCODERS, "far", ConvertedEncoder(contract, build, "far"))
        yield served


def test_a_cache_from_another_calibration_is_left_alone(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KNOWN_ENCODERS["far"]
    assert isinstance(known, ConvertedEncoder)
    former = replace(known, contract=replace(known.contract, threshold=0.25))
    monkeypatch.setitem(KNOWN_ENCODERS, "far", former)
    assert load_encoder("far", engine=KERAS).contract.threshold == 0.25
    monkeypatch.setitem(KNOWN_ENCODERS, "far", known)
    assert load_encoder("far", engine=KERAS).contract == known.contract


def test_a_damaged_cache_is_made_again(server: Served, tmp_path: Path) -> None:
    fingerprint = load_encoder("far", engine=KERAS).fingerprint
    (cached,) = (tmp_path / "cache").glob("*.keras")
    cached.write_bytes(cached.read_bytes()[:1000])
    assert load_encoder("far", engine=KERAS).fingerprint == fingerprint
    assert load_encoder(cached, engine=KERAS).fingerprint == fingerprint  # whole again


def test_a_damaged_cache_that_may_only_be_read_is_no_matter(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = load_encoder("far", engine=KERAS).fingerprint
    (cached,) = (tmp_path / "cache").glob("*.keras")
    cached.write_bytes(cached.read_bytes()[:1000])

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(path)

    def refuse_saving(*_: object, **__: object) -> None:
        raise ModelFileError("cannot be written to")

    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr("face_encode.encoders.registry.save_encoder", refuse_saving)
    assert load_encoder("far", engine=KERAS).fingerprint == fingerprint


def test_a_cache_that_cannot_be_looked_into_is_no_matter(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name that is too long fails as another user's folder does, also for root.
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / ("a" * 300)))
    assert not KNOWN_ENCODERS["far"].is_present
    digest = hashlib.sha256(b"weights 3").hexdigest()
    monkeypatch.setitem(KNOWN_WEIGHTS, "far", replace(KNOWN_WEIGHTS["far"], sha256=digest))
    assert not KNOWN_ENCODERS["far"].is_present
    (tmp_path / "mine.bin").write_bytes(b"weights 3")
    assert load_encoder("far", weights=tmp_path / "mine.bin", engine=KERAS).name == "far"
    with pytest.raises(WeightsError, match="could not be downloaded"):
        load_encoder("far", engine=KERAS)


def test_an_encoder_is_downloaded_once(server: Served, tmp_path: Path) -> None:
    assert not KNOWN_ENCODERS["far"].is_present
    first = load_encoder("far", engine=KERAS)
    assert KNOWN_ENCODERS["far"].is_present
    assert load_encoder("far", engine=KERAS).fingerprint == first.fingerprint
    assert len(server.asked) == 1
    names = sorted({path.suffix for path in (tmp_path / "cache").iterdir()} - {".lock"})
    assert names == [".bin", ".json", ".keras"]
    # The converted one does without the original.
    (tmp_path / "cache" / "far.bin").unlink()
    assert KNOWN_ENCODERS["far"].is_present
    assert load_encoder("far", engine=KERAS).fingerprint == first.fingerprint
    assert len(server.asked) == 1


def test_a_download_that_is_no_network_is_told_and_not_ruled_by(
    server: Served, tmp_path: Path
) -> None:
    server.content = b"<html>Please log in to this hotel</html>"
    with pytest.raises(WeightsError, match=r"far\.bin: no weights; delete it"):
        load_encoder("far", engine=KERAS)
    (tmp_path / "cache" / "far.bin").unlink()
    server.content = b"weights 3"
    assert float(load_encoder("far", engine=KERAS).model.get_weights()[0].max()) == 3


def test_weights_from_anywhere_leave_no_trace(server: Served, tmp_path: Path) -> None:
    (tmp_path / "mine.bin").write_bytes(b"weights 5")
    mine = load_encoder("far", weights=tmp_path / "mine.bin", engine=KERAS)
    assert float(mine.model.get_weights()[0].max()) == 5
    assert server.asked == []
    assert float(load_encoder("far", engine=KERAS).model.get_weights()[0].max()) == 3
    (tmp_path / "mine.bin").write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"mine\.bin: no weights$"):
        load_encoder("far", weights=tmp_path / "mine.bin", engine=KERAS)


SHIPPED = [known for known in KNOWN_ENCODERS.values() if isinstance(known, ShippedEncoder)]


@pytest.mark.parametrize("known", SHIPPED, ids=lambda known: known.name)
def test_a_shipped_encoder_is_calibrated_and_open_to_keras_alone(known: ShippedEncoder) -> None:
    contract = known.contract
    assert contract.name == known.name
    assert known.is_present
    assert contract.false_match_rate == 1e-3
    assert contract.licence != "unknown"
    assert contract.euclidean_threshold is None
    assert "mobilefacenet" in contract.trained_on
    model = keras.saving.load_model(known.path, compile=False, safe_mode=True)
    side = contract.crop.height
    assert model.input_shape == (None, side, side, 3)
    crops = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    opened = load_encoder(known.name, engine=KERAS)
    assert opened.encode(crops).shape == (2, 128)


def test_vgg_embedding_is_plain_vgg16_with_the_mlp() -> None:
    model = load_encoder("vgg_embedding", engine=KERAS).model
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("Conv2D") == 13
    assert kinds.count("MaxPooling2D") == 5
    assert kinds.count("Dense") == 4
    # Those of the original project's head, behind its activations.
    assert kinds.count("BatchNormalization") == 3
    assert "Conv2D" not in kinds[kinds.index("Flatten") :]


def test_a_shipped_encoder_carries_its_own_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="carries its own weights"):
        load_encoder("vgg_embedding", tmp_path / "weights.dat")


def test_a_missing_shipped_file_is_told() -> None:
    with pytest.raises(ModelFileError, match=r"lost\.keras.* is missing; install"):
        _ = ShippedEncoder("lost").path
