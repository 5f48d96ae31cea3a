"""The original's network, and the VGGFace weights in the layout of the published file."""

from __future__ import annotations

import subprocess
import sys
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


def write_vggface_file(
    path: Path, left_out: str = "", rows: int = 3, names: str = "conv{}_{}"
) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
    """A file laid out as keras-vggface's, with random weights small enough to stay finite."""
    random = np.random.default_rng(0)
    channels = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}
    weights, incoming = {}, 3
    with h5py.File(path, "w") as file:
        for block, index in CONVOLUTIONS:
            name = names.format(block, index)
            shape = (rows, rows, incoming, channels[block])
            kernel = random.normal(0, (2 / (9 * incoming)) ** 0.5, shape).astype(np.float32)
            bias = random.normal(0, 0.1, channels[block]).astype(np.float32)
            incoming = channels[block]
            weights[block, index] = kernel, bias
            if name != left_out:
                # Keras 2 repeats the layer's name inside the layer's group.
                file[f"{name}/{name}/kernel:0"] = kernel
                file[f"{name}/{name}/bias:0"] = bias
    return weights


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


@pytest.mark.parametrize("names", ["conv{}_{}", "block{}_conv{}"])
def test_vggface_weights_take_the_published_preprocessing(tmp_path: Path, names: str) -> None:
    weights = write_vggface_file(tmp_path / "vggface.h5", names=names)
    model = vgg16_backbone((32, 32, 3))
    load_vggface_weights(model, tmp_path / "vggface.h5")
    rgb = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    # As published: blue, green, red, minus the mean in that order, into the file's own kernels.
    reference = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    for (block, index), (kernel, bias) in weights.items():
        reference.get_layer(f"block{block}_conv{index}").set_weights([kernel, bias])
    expected = reference(rgb[..., ::-1] - np.array([93.5940, 104.7624, 129.1863], np.float32))
    received = keras.ops.convert_to_numpy(model(rgb))
    np.testing.assert_allclose(
        received, keras.ops.convert_to_numpy(expected).reshape(2, -1), rtol=1e-3, atol=1e-3
    )
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
    ("options", "message"),
    [
        ({"left_out": "conv4_2"}, r"'conv4_2' or 'block4_conv2'. Received"),
        ({"rows": 5}, r"shapes \[\(3, 3, 3, 64\), \(64,\)\]. Received: \[\(5, 5, 3, 64\)"),
    ],
)
def test_other_files_are_refused_and_leave_the_model_alone(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    write_vggface_file(tmp_path / "other.h5", **options)  # type: ignore[arg-type]
    model = vgg16_backbone((32, 32, 3))
    before = model.get_weights()
    with pytest.raises(WeightsError, match=message):
        load_vggface_weights(model, tmp_path / "other.h5")
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_file_that_is_no_hdf5_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not weights")
    model = vgg16_backbone((32, 32, 3))
    with pytest.raises(WeightsError, match="not an HDF5 weights file"):
        load_vggface_weights(model, tmp_path / "text.h5")
    with pytest.raises(WeightsError, match="no such weights file"):
        load_vggface_weights(model, tmp_path / "missing.h5")


def test_vggface_weights_into_another_preprocessing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='pixels="vggface"'):
        load_vggface_weights(vgg_embedding((32, 32, 3)), tmp_path / "any.h5")


def test_saved_file_opens_without_this_package(tmp_path: Path) -> None:
    model = vgg_embedding((32, 32, 3), width=0.125, pixels="vggface")
    model.save(tmp_path / "plain.keras")
    program = (
        "import sys, keras; keras.models.load_model(sys.argv[1], safe_mode=True); "
        "assert not any(name.startswith('face_encode') for name in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "plain.keras")]
    subprocess.run(command, check=True, cwd=tmp_path)


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
