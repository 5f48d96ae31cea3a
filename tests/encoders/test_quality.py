from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.encoders.contract import QUALITY_MEMBER, EncoderContract, save_encoder
from face_encode.encoders.dlib_resnet import DLIB_RESNET_CONTRACT
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import ENGINES
from face_encode.encoders.export import export_encoder
from face_encode.encoders.quality import QualityHead, last_features, with_quality
from face_encode.encoders.registry import load_encoder
from face_encode.errors import InputError, ModelFileError
from face_encode.types import CropRecipe, ImageArray

CONTRACT = EncoderContract(
    "tiny", CropRecipe("box", 8, 8), threshold=0.5, mirror=True, quality_threshold=0.5
)
FEATURES, HIDDEN = 5, 3


def tiny_model() -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    features = keras.layers.Dense(FEATURES, "relu")(x)
    return keras.Model(inputs, keras.layers.Dense(4)(features))


def tiny_head(features: int = FEATURES) -> QualityHead:
    random = np.random.default_rng(0)
    shapes = ((features, HIDDEN), (HIDDEN,), (HIDDEN, 1), (1,))
    # float16 holds these exactly.
    return QualityHead(*(np.float32(random.integers(-8, 8, shape) / 4) for shape in shapes))


@pytest.fixture
def crops() -> ImageArray:
    return np.random.default_rng(2).integers(0, 256, (11, 8, 8, 3)).astype(np.uint8)


def by_hand(model: keras.Model, head: QualityHead, crops: ImageArray) -> np.ndarray:
    """The mean of the logits over crop and mirror image, through a sigmoid."""
    features = keras.Model(model.inputs[0], last_features(model))
    logits = [
        np.maximum(np.asarray(features(view.astype(np.float32))) @ head.kernel + head.bias, 0)
        @ head.output
        + head.offset
        for view in (crops, crops[:, :, ::-1])
    ]
    return np.asarray(1 / (1 + np.exp(-np.mean(logits, axis=0)[:, 0])))


@pytest.mark.parametrize("engine", ["tensorflow", "onnx", "openvino"])
def test_every_engine_gives_embeddings_and_qualities_in_one_pass(
    engine: str, tmp_path: Path, crops: ImageArray
) -> None:
    if engine in ENGINES and not ENGINES[engine].is_installed:
        pytest.skip(f"{engine} is not installed")
    model, head = tiny_model(), tiny_head()
    save_encoder(model, tmp_path / "tiny.keras", CONTRACT, quality_head=head)
    encoder = load_encoder(tmp_path / "tiny.keras", engine=engine)
    assert encoder.engine == engine
    embeddings, qualities = encoder.embed(crops, batch_size=4)
    assert qualities is not None
    assert (embeddings.shape, qualities.shape) == ((11, 4), (11,))
    assert embeddings.dtype == qualities.dtype == np.float32
    assert qualities == pytest.approx(by_hand(model, head, crops), abs=1e-4)
    assert len(set(qualities.round(3))) > 5
    plain = Encoder(model, CONTRACT)
    assert embeddings == pytest.approx(plain.encode(crops), abs=1e-4)
    assert plain.embed(crops)[1] is None
    # The head judges embeddings and changes none.
    assert encoder.fingerprint == plain.fingerprint
    none, nothing = encoder.embed(crops[:0])
    assert nothing is not None
    assert (none.shape, nothing.shape) == ((0, 4), (0,))


def test_a_file_without_a_head_states_no_quality(tmp_path: Path, crops: ImageArray) -> None:
    save_encoder(tiny_model(), tmp_path / "tiny.keras", CONTRACT)
    encoder = load_encoder(tmp_path / "tiny.keras", engine="tensorflow")
    assert encoder.quality_head is None
    assert encoder.contract == replace(CONTRACT, quality_threshold=None)
    assert encoder.embed(crops)[1] is None


def test_an_exported_file_gives_the_embeddings_alone(tmp_path: Path, crops: ImageArray) -> None:
    encoder = Encoder(tiny_model(), CONTRACT, tiny_head())
    exported = export_encoder(encoder, tmp_path / "tiny.onnx")
    assert exported.difference < 1e-4


def test_the_head_takes_the_features_before_the_last_layer_with_weights() -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 8, activation="relu")(inputs)
    x = keras.layers.Conv2D(4, 1)(x)
    model = keras.Model(inputs, keras.layers.Flatten()(x))
    assert last_features(model).shape == (None, 6)
    assert with_quality(model, tiny_head(6), CONTRACT.crop).output_shape == (None, 5)
    assert with_quality(model, None, CONTRACT.crop) is model


def test_a_head_for_other_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"takes 5 features\. Received: a head for 7"):
        Encoder(tiny_model(), CONTRACT, tiny_head(7))
    inputs = keras.Input((8, 8, 3))
    without = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    with pytest.raises(ModelFileError, match="last layer with weights"):
        Encoder(without, CONTRACT, tiny_head())
    with pytest.raises(InputError, match=r"\(F, H\), \(H,\), \(H, 1\) and \(1,\)"):
        replace(tiny_head(), bias=np.zeros(9, np.float32))
    with pytest.raises(InputError, match="finite"):
        replace(tiny_head(), bias=np.full(HIDDEN, np.inf, np.float32))


def test_a_head_is_read_as_it_was_written() -> None:
    head = tiny_head()
    read = QualityHead.from_bytes(head.to_bytes())
    for name in ("kernel", "bias", "output", "offset"):
        assert np.array_equal(getattr(read, name), getattr(head, name))
        assert getattr(read, name).dtype == np.float32


@pytest.mark.parametrize("content", [b"", b"no archive", tiny_head().to_bytes()[:-90]])
def test_a_damaged_head_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="quality head is damaged"):
        QualityHead.from_bytes(content)
    path = tmp_path / "tiny.keras"
    save_encoder(tiny_model(), path, CONTRACT)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(QUALITY_MEMBER, content)
    with pytest.raises(ModelFileError, match=r"tiny\.keras: the quality head is damaged"):
        load_encoder(path)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_quality_threshold_lies_within_0_and_1(threshold: float) -> None:
    with pytest.raises(InputError, match=r"quality threshold lies within 0\.\.1"):
        replace(CONTRACT, quality_threshold=threshold)


def test_the_default_encoder_trusts_sharp_faces_and_no_damaged_ones(
    encoder: Encoder, colour_crops: ImageArray
) -> None:
    from face_encode.training.augmentation import blurred, covered

    bound = DLIB_RESNET_CONTRACT.quality_threshold
    assert bound is not None
    _, good = encoder.embed(colour_crops)
    assert good is not None
    assert (good >= bound).all()
    for damaged in (
        blurred(colour_crops, 7),
        covered(colour_crops),
        np.rot90(colour_crops, axes=(1, 2)),
    ):
        _, bad = encoder.embed(np.ascontiguousarray(damaged))
        assert bad is not None
        assert (bad < bound).mean() > 0.7
