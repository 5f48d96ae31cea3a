"""The original's network, and the VGGFace weights in the layout of the published file."""

from __future__ import annotations

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from face_encode.encoders.vgg16 import (
    VGGFACE_MEAN_RGB,
    load_vggface_weights,
    vgg16_backbone,
    vgg_embedding,
)
from face_encode.errors import InputError, WeightsError
from tests.encoders.facenet_originals import draw_crops, draw_weight, read_record

CONVOLUTIONS = [
    (block, index)
    for block, count in enumerate((2, 2, 3, 3, 3), start=1)
    for index in range(1, count + 1)
]


Weights = dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Random kernels and biases of VGG16, small enough for its features to stay finite."""
    random = np.random.default_rng(0)
    drawn, incoming = {}, 3
    for block, index in CONVOLUTIONS:
        channels = (64, 128, 256, 512, 512)[block - 1]
        kernel = random.standard_normal((3, 3, incoming, channels), np.float32)
        kernel *= np.float32((2 / (9 * incoming)) ** 0.5)
        drawn[block, index] = kernel, random.normal(0, 0.1, channels).astype(np.float32)
        incoming = channels
    return drawn


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    """A VGG16 whose weights any test may replace."""
    return vgg16_backbone((32, 32, 3))


def write_vggface_file(path: Path, weights: Weights, names: str = "conv{}_{}") -> None:
    """Write a file laid out as keras-vggface's."""
    with h5py.File(path, "w") as file:
        for place, (kernel, bias) in weights.items():
            name = names.format(*place)
            # Keras 2 repeats the layer's name inside the layer's group.
            file[f"{name}/{name}/kernel:0"] = kernel
            file[f"{name}/{name}/bias:0"] = bias


def test_the_architecture_is_the_originals() -> None:
    model = vgg_embedding()
    assert model.input_shape == (None, 150, 150, 3)
    assert model.output_shape == (None, 128)
    kinds = [type(layer).__name__ for layer in model.layers]
    head = kinds[kinds.index("Flatten") :]
    assert head == [
        *["Flatten", "Dense", "BatchNormalization", "Dropout"],
        *["Dense", "BatchNormalization", "Dropout", "Dense", "BatchNormalization", "Dense"],
    ]
    published = keras.applications.VGG16(include_top=False, weights=None, input_shape=(150, 150, 3))
    convolutions = {
        layer.name: layer for layer in published.layers if isinstance(layer, keras.layers.Conv2D)
    }
    assert len(convolutions) == 13
    for name, layer in convolutions.items():
        assert model.get_layer(name).kernel.shape == layer.kernel.shape
        assert model.get_layer(name).activation is keras.activations.relu
    # 14,714,688 of VGG16, and 4,365,696 + 165,632 of the head with its normalisations.
    assert model.count_params() == 14_714_688 + 8192 * 512 + 512 + 131_328 + 32_896 + 16_512 + 4 * (
        512 + 256 + 128
    )


def test_the_features_are_those_of_keras_applications() -> None:
    published = keras.applications.VGG16(include_top=False, weights=None, input_shape=(48, 64, 3))
    ours = vgg16_backbone((48, 64, 3), pixels="unit")
    ours.set_weights(published.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3)).astype(np.float32)
    expected = published(pixels / 255)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ours(pixels)),
        keras.ops.convert_to_numpy(expected).reshape(2, -1),
        rtol=1e-3,
        atol=1e-6,
    )


def test_narrow_normalised_variant() -> None:
    model = vgg_embedding((32, 40, 3), 16, (24, 8), width=0.25, batch_normalization=True)
    assert [model.get_layer(f"block{block}_conv1").filters for block in range(1, 6)] == [
        *[16, 32, 64, 128, 128]
    ]
    assert model.output_shape == (None, 16)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds.count("BatchNormalization") == 13 + 2


def test_vggface_weights_take_the_published_preprocessing(
    weights: Weights, backbone: keras.Model, tmp_path: Path
) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    # As published: blue, green, red, minus the mean in that order, into the file's own kernels.
    reference = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    for (block, index), arrays in weights.items():
        reference.get_layer(f"block{block}_conv{index}").set_weights(arrays)
    published = reference(rgb[..., ::-1] - np.array([93.5940, 104.7624, 129.1863], np.float32))
    expected = keras.ops.convert_to_numpy(published).reshape(2, -1)
    for names in ("conv{}_{}", "block{}_conv{}"):
        write_vggface_file(tmp_path / "vggface.h5", weights, names)
        backbone.set_weights([np.zeros(weight.shape) for weight in backbone.weights])
        load_vggface_weights(backbone, tmp_path / "vggface.h5")
        received = keras.ops.convert_to_numpy(backbone(rgb))
        np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-3)
        assert received.std() > 0.01
    assert VGGFACE_MEAN_RGB == (129.1863, 104.7624, 93.5940)


@pytest.mark.parametrize("original", ["keras_vggface", "deepface_vggface"])
def test_features_equal_those_of_the_originals(tmp_path: Path, original: str) -> None:
    record = read_record(original)
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        layers: dict[str, list[str]] = {}
        # DeepFace's dense layers, which are convolutions too, are no part of a backbone.
        rest = [["conv2d_13", "conv2d_13/kernel:0", [7, 7, 512, 2]]]
        if original == "keras_vggface":
            rest = []
        for layer, weight, shape in record["weights"] + rest:
            layers.setdefault(layer, []).append(weight)
            file[f"{layer}/{weight}"] = draw_weight(weight, tuple(shape))
        file.attrs["layer_names"] = ["zero_padding2d", *layers]
    model = vgg16_backbone((224, 224, 3))
    load_vggface_weights(model, tmp_path / "weights.h5")
    maps = keras.ops.convert_to_numpy(model(draw_crops(2, 224).astype(np.float32)))
    received = maps.reshape(2, 49, 512).mean(axis=1)
    expected = np.array(record["embeddings"])
    assert np.abs(expected[0] - expected[1]).max() > 1
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-3 * expected.std())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({(4, 2): None}, r"'conv4_2' or 'block4_conv2'. Received"),
        (
            {(1, 1): (np.zeros((5, 5, 3, 64), np.float32), np.zeros(64, np.float32))},
            r"shapes \[\(3, 3, 3, 64\), \(64,\)\]. Received: \[\(5, 5, 3, 64\)",
        ),
    ],
)
def test_other_files_are_refused_and_leave_the_model_alone(
    weights: Weights,
    backbone: keras.Model,
    tmp_path: Path,
    changes: dict[tuple[int, int], tuple[np.ndarray, np.ndarray] | None],
    message: str,
) -> None:
    changed = {place: arrays for place, arrays in (weights | changes).items() if arrays}
    write_vggface_file(tmp_path / "other.h5", changed)
    before = backbone.get_weights()
    with pytest.raises(WeightsError, match=message):
        load_vggface_weights(backbone, tmp_path / "other.h5")
    for old, new in zip(before, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_file_that_is_no_hdf5_or_missing_is_refused(
    backbone: keras.Model, tmp_path: Path
) -> None:
    (tmp_path / "text.h5").write_text("not weights")
    with pytest.raises(WeightsError, match="not an HDF5 weights file"):
        load_vggface_weights(backbone, tmp_path / "text.h5")
    with pytest.raises(WeightsError, match="no such weights file"):
        load_vggface_weights(backbone, tmp_path / "missing.h5")


def test_convolutions_of_another_file_are_refused(
    weights: Weights, backbone: keras.Model, tmp_path: Path
) -> None:
    write_vggface_file(tmp_path / "secret.h5", weights)
    write_vggface_file(tmp_path / "linked.h5", weights)
    with h5py.File(tmp_path / "linked.h5", "r+") as file:
        del file["conv3_1"]
        file["conv3_1"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/conv3_1")
    with pytest.raises(WeightsError, match="'/conv3_1' is a link to elsewhere"):
        load_vggface_weights(backbone, tmp_path / "linked.h5")


def test_vggface_weights_into_another_preprocessing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='pixels="vggface"'):
        load_vggface_weights(vgg_embedding((32, 32, 3), width=0.125), tmp_path / "any.h5")


@pytest.mark.parametrize(
    "options",
    [
        {"input_shape": (31, 150, 3)},
        {"input_shape": (150, 150, 1)},
        {"embedding_size": 0},
        {"head_units": (512, 0)},
        {"dropout": 1.0},
        {"width": 0},
        {"pixels": "bgr"},
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="Received"):
        vgg_embedding(**options)  # type: ignore[arg-type]
