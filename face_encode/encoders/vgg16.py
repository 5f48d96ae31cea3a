"""VGG16 with an MLP head: the network of the original project.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
2015, https://arxiv.org/abs/1409.1556, configuration D, without its classifier. The layers have
the names of ``keras.applications.VGG16``, and all are built-in, so that a saved file opens without
this package.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import keras
import numpy as np
import numpy.typing as npt

from face_encode.encoders.facenet_files import decoded, open_hdf5
from face_encode.errors import InputError, WeightsError
from face_encode.types import check_number
from face_encode.weights import installed_path, pin_digest, read_verified

FloatArray = npt.NDArray[np.float32]

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of convolutions of each block."""

HEAD_UNITS = (512, 256, 128)
EMBEDDING_SIZE = 128
DROPOUT = 0.3

VGGFACE_MEAN_RGB = (129.1863, 104.7624, 93.5940)
"""The mean that the VGGFace network subtracts; published in the order blue, green, red."""

# The weights' name in ``KNOWN_WEIGHTS``.
_VGGFACE_WEIGHTS = "vggface_vgg16"

# Keras' 0.99 takes hundreds of steps to forget the initial mean 0 and variance 1; training on a few
# hundred photos ends before that, with a network that works in training only.
_HEAD_MOMENTUM = 0.9

_MIN_SIDE = 2 ** len(BLOCKS)


def vgg_embedding(
    input_shape: tuple[int, int, int] = (150, 150, 3),
    embedding_size: int = EMBEDDING_SIZE,
    head_units: Sequence[int] = HEAD_UNITS,
    dropout: float = DROPOUT,
    width: float = 1.0,
    batch_normalization: bool = False,
    pixels: Literal["unit", "vggface"] = "unit",
    name: str = "vgg_embedding",
) -> keras.Model:
    """Build VGG16 with an MLP head that ends in an embedding.

    Args:
        input_shape: Height, width and 3; sides of at least 32 pixels.
        embedding_size: Length D of the embedding.
        head_units: Units of the head's hidden layers.
        dropout: Share of units dropped between the hidden layers, within 0..1 (exclusive).
        width: Multiplies the channels of every convolution; 1.0 is VGG16.
        batch_normalization: Whether each convolution is followed by batch normalisation. Train
            from scratch with it, then fold it away with
            ``face_encode.training.surgery.fold_batch_normalization``.
        pixels: ``"unit"`` divides them by 255; ``"vggface"`` subtracts the VGGFace mean.
        name: The model's name.

    Returns:
        RGB 0..255 ``(N, height, width, 3)`` in, float32 ``(N, D)`` out, not normalised.

    Raises:
        InputError: An argument out of its range.
    """
    if not embedding_size >= 1:
        raise InputError(f"an embedding has at least 1 number. Received: {embedding_size}")
    images, features = _vgg16_graph(input_shape, width, batch_normalization, pixels)
    flat = keras.layers.Flatten(name="flatten")(features)
    embeddings = add_mlp_head(flat, embedding_size, head_units, dropout)
    return keras.Model(images, embeddings, name=name)


def vgg16_backbone(
    input_shape: tuple[int, int, int] = (150, 150, 3),
    width: float = 1.0,
    batch_normalization: bool = False,
    pixels: Literal["unit", "vggface"] = "vggface",
    name: str = "vgg16",
    first_width: float | None = None,
) -> keras.Model:
    """Build VGG16 up to its last pooling, flattened; arguments as for ``vgg_embedding``.

    ``first_width`` is the width of the first block, which sees the most pixels; None for ``width``.

    Returns:
        RGB 0..255 in, the flattened features out: at 150x150, 4 * 4 * 512 of them.
    """
    images, features = _vgg16_graph(input_shape, width, batch_normalization, pixels, first_width)
    return keras.Model(images, keras.layers.Flatten(name="flatten")(features), name=name)


def add_mlp_head(
    features: Any,
    embedding_size: int = EMBEDDING_SIZE,
    head_units: Sequence[int] = HEAD_UNITS,
    dropout: float = DROPOUT,
    output_initializer: str = "glorot_uniform",
) -> Any:
    """Put the original project's MLP head on features.

    Each hidden layer is Dense, relu, batch normalisation, with dropout between hidden layers; the
    last layer is linear.

    Args:
        features: A Keras tensor ``(N, F)``.
        embedding_size: Length D of the embedding.
        head_units: Units of the hidden layers.
        dropout: Share of units dropped, within 0..1 (exclusive).
        output_initializer: Initial weights of the last layer.

    Returns:
        A Keras tensor ``(N, D)``.

    Raises:
        InputError: An argument out of its range.
    """
    if not 0 <= dropout < 1:
        raise InputError(f"dropout is a share, 0 <= dropout < 1. Received: {dropout}")
    if any(units < 1 for units in head_units):
        raise InputError(f"hidden layers have at least 1 unit. Received: {tuple(head_units)}")
    for index, units in enumerate(head_units, start=1):
        features = keras.layers.Dense(
            units, activation="relu", kernel_initializer="he_normal", name=f"head_dense{index}"
        )(features)
        features = keras.layers.BatchNormalization(momentum=_HEAD_MOMENTUM, name=f"head_bn{index}")(
            features
        )
        if index < len(head_units):
            features = keras.layers.Dropout(dropout, name=f"head_dropout{index}")(features)
    return keras.layers.Dense(
        embedding_size, kernel_initializer=output_initializer, dtype="float32", name="embedding"
    )(features)


def load_vggface_weights(model: keras.Model, path: str | os.PathLike[str] | None = None) -> None:
    """Load the VGGFace weights into the convolutions of a VGG16.

    They are Oxford's (Parkhi, Vedaldi and Zisserman, "Deep Face Recognition", 2015), for
    non-commercial use, in the files of keras-vggface or DeepFace. The former, from Caffe, takes
    blue, green, red; the first kernel's input channels are reversed here, so that the model keeps
    taking RGB. The latter, from MatConvNet, takes RGB.

    Args:
        model: From ``vgg_embedding`` or ``vgg16_backbone``, with ``width=1``, without
            batch normalisation, and with ``pixels="vggface"``. Its weights are replaced only
            if the whole file fits.
        path: The ``.h5`` file: ``rcmalli_vggface_tf_notop_vgg16.h5`` of keras-vggface, which is
            downloaded if none is given, or ``vgg_face_weights.h5`` of DeepFace, whose dense
            layers are ignored.

    Raises:
        WeightsError: The file is missing, cannot be downloaded, is no HDF5, or holds other layers
            or shapes.
        InputError: The model is not built as described.
    """
    layers = {layer.name: layer for layer in model.layers}
    if "vggface_pixels" not in layers:
        raise InputError(
            'VGGFace weights belong to a network built with pixels="vggface". '
            f"Received: model {model.name!r} with layers {list(layers)[:3]}..."
        )
    digest = None
    if path is None:
        content = read_verified(_VGGFACE_WEIGHTS)
        digest = hashlib.sha256(content).hexdigest()
        path = installed_path(_VGGFACE_WEIGHTS)
        stored = _read_convolutions(content, path)
    else:
        stored = _read_convolutions(Path(path), Path(path))
    planned = []
    for (block, index), (kernel, bias) in stored.items():
        target = layers[f"block{block}_conv{index}"]
        expected = [tuple(weight.shape) for weight in target.weights]
        if [kernel.shape, bias.shape] != expected:
            raise WeightsError(
                f"{path}: {target.name} takes weights of shapes {expected}. "
                f"Received: {[kernel.shape, bias.shape]}"
            )
        planned.append((target, [kernel, bias]))
    for target, weights in planned:
        target.set_weights(weights)
    if digest is not None:
        pin_digest(_VGGFACE_WEIGHTS, digest)


def _vgg16_graph(
    input_shape: tuple[int, int, int],
    width: float,
    batch_normalization: bool,
    pixels: str,
    first_width: float | None = None,
) -> tuple[Any, Any]:
    """Build VGG16: its input and its last pooling."""
    height, columns, channels = input_shape
    if channels != 3 or min(height, columns) < _MIN_SIDE:
        raise InputError(
            f"VGG16 takes RGB of at least {_MIN_SIDE}x{_MIN_SIDE} pixels. "
            f"Received: input_shape {input_shape}"
        )
    check_number(width, "the width", 0, ends=False)
    images = keras.Input(input_shape, name="pixels")
    if pixels == "unit":
        tensor = keras.layers.Rescaling(1 / 255, name="unit_pixels")(images)
    elif pixels == "vggface":
        offset = [-mean for mean in VGGFACE_MEAN_RGB]
        tensor = keras.layers.Rescaling(1.0, offset, name="vggface_pixels")(images)
    else:
        raise InputError(f"pixels is one of 'unit', 'vggface'. Received: {pixels!r}")
    for block, (full_channels, convolutions) in enumerate(BLOCKS, start=1):
        own_width = width if first_width is None or block > 1 else first_width
        filters = max(1, round(full_channels * own_width))
        for index in range(1, convolutions + 1):
            tensor = _convolve(tensor, filters, f"block{block}_conv{index}", batch_normalization)
        tensor = keras.layers.MaxPooling2D(2, 2, name=f"block{block}_pool")(tensor)
    return images, tensor


def _convolve(tensor: Any, filters: int, name: str, batch_normalization: bool) -> Any:
    """Append a 3x3 convolution and its relu."""
    convolution = keras.layers.Conv2D(
        filters,
        3,
        padding="same",
        activation=None if batch_normalization else "relu",
        kernel_initializer="he_normal",
        name=name,
    )
    tensor = convolution(tensor)
    if not batch_normalization:
        return tensor
    tensor = keras.layers.BatchNormalization(name=f"{name}_bn")(tensor)
    return keras.layers.Activation("relu", name=f"{name}_relu")(tensor)


def _read_convolutions(
    source: Path | bytes, path: Path
) -> dict[tuple[int, int], tuple[FloatArray, FloatArray]]:
    """Read kernel and bias of each convolution of an HDF5 file, by block and index.

    Layers are named ``conv1_2`` (keras-vggface) or ``block1_conv2`` (keras.applications). DeepFace
    leaves the names to Keras, which numbers them through all networks: there the order decides.
    Kernels are for RGB.
    """
    if isinstance(source, Path) and not source.is_file():
        raise WeightsError(f"no such weights file: {path}")
    convolutions = [
        (block, index)
        for block, (_, count) in enumerate(BLOCKS, start=1)
        for index in range(1, count + 1)
    ]
    try:
        with open_hdf5(source) as root:
            numbered = [
                root[name]
                for name in decoded(root.attrs.get("layer_names", []))
                if re.fullmatch(r"conv(olution)?2d(_\d+)?", name)
            ]
            is_named = len(numbered) < len(convolutions)
            if is_named:
                numbered = [_named_convolution(root, *each, path) for each in convolutions]
            read = {
                each: _kernel_and_bias(group, path)
                for each, group in zip(convolutions, numbered, strict=False)
            }
    except WeightsError:
        raise
    # h5py raises whatever a damaged file trips over: OSError, RuntimeError, KeyError …
    except Exception as error:
        raise WeightsError(f"not an HDF5 weights file: {path} ({error})") from error
    if is_named:
        kernel, bias = read[1, 1]
        read[1, 1] = kernel[:, :, ::-1], bias
    return read


def _named_convolution(root: h5py.Group, block: int, index: int, path: Path) -> h5py.Group:
    """Find a convolution's layer by either of its names."""
    names = (f"conv{block}_{index}", f"block{block}_conv{index}")
    group = next((root[name] for name in names if name in root), None)
    if group is None:
        raise WeightsError(
            f"{path}: VGG16 has a layer {names[0]!r} or {names[1]!r}. "
            f"Received: a file with {sorted(root)}"
        )
    return group


def _kernel_and_bias(group: h5py.Group, path: Path) -> tuple[FloatArray, FloatArray]:
    """Read the two arrays below a layer's group, at any depth."""
    arrays: list[FloatArray] = []

    def collect(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            arrays.append(np.asarray(item, np.float32))

    group.visititems(collect)
    arrays.sort(key=lambda array: -array.ndim)
    if [array.ndim for array in arrays] != [4, 1]:
        raise WeightsError(
            f"{path}: layer {group.name!r} holds a kernel and a bias. "
            f"Received: arrays of shapes {[array.shape for array in arrays]}"
        )
    return arrays[0], arrays[1]
