"""Inception-ResNet-v1, the network of the FaceNet models that are in use, in native Keras.

Szegedy, Ioffe, Vanhoucke and Alemi, "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning", 2017, https://arxiv.org/abs/1602.07261, as David Sandberg trained it on
faces after Schroff, Kalenichenko and Philbin, "FaceNet", 2015, https://arxiv.org/abs/1503.03832.
His weights live on in two files of two projects, in the orders and names of these; here is the
network itself, once. Every normalisation and every residual scale is folded into a convolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError, WeightsError

if TYPE_CHECKING:
    import keras

FloatArray = npt.NDArray[np.float32]

SIDE = 160
"""Rows and columns of the picture that FaceNet models take."""

BATCH_NORMALIZATION_EPSILON = 1e-3
EMBEDDING_LAYER = "last_linear"


@dataclass(frozen=True)
class Convolution:
    """A convolution with its normalisation and relu.

    Attributes:
        name: As facenet-pytorch calls it.
        filters: Number of channels it gives.
        rows: Height of the window.
        columns: Width of the window.
        stride: Step in both directions.
        padding: Keras' word for it.
    """

    name: str
    filters: int
    rows: int
    columns: int
    stride: int = 1
    padding: Literal["same", "valid"] = "same"


@dataclass(frozen=True)
class Pool:
    """Maximum over 3x3 in steps of 2, without padding."""

    name: str


@dataclass(frozen=True)
class Block:
    """Branches side by side whose channels are joined.

    Attributes:
        name: As facenet-pytorch calls it.
        branches: The convolutions of each.
        pooled: Whether the maximum of the input is joined as one more branch.
        scale: Where the joined channels are projected and added to the input: what they are
            multiplied by before; 0 where they are the output themselves.
        channels: Channels that the projection gives.
        relu: Whether a relu follows the addition.
    """

    name: str
    branches: tuple[tuple[Convolution, ...], ...]
    pooled: bool = False
    scale: float = 0.0
    channels: int = 0
    relu: bool = True

    @property
    def projection(self) -> str:
        """The name of the projection."""
        return f"{self.name}.conv2d"


def _residual(
    name: str,
    channels: int,
    scale: float,
    width: int,
    *chains: tuple[tuple[int, int], ...],
    relu: bool = True,
) -> Block:
    """A block added to its input: one convolution of 1x1 beside chains that begin with one."""
    branches: list[tuple[Convolution, ...]] = [(Convolution(f"{name}.branch0", width, 1, 1),)]
    for number, windows in enumerate(chains, start=1):
        names = [f"{name}.branch{number}.{index}" for index in range(len(windows) + 1)]
        branches.append(
            tuple(
                Convolution(convolution, width, rows, columns)
                for convolution, (rows, columns) in zip(names, ((1, 1), *windows), strict=True)
            )
        )
    return Block(name, tuple(branches), scale=scale, channels=channels, relu=relu)


NETWORK: tuple[Convolution | Pool | Block, ...] = (
    Convolution("conv2d_1a", 32, 3, 3, 2, "valid"),
    Convolution("conv2d_2a", 32, 3, 3, 1, "valid"),
    Convolution("conv2d_2b", 64, 3, 3),
    Pool("maxpool_3a"),
    Convolution("conv2d_3b", 80, 1, 1),
    Convolution("conv2d_4a", 192, 3, 3, 1, "valid"),
    Convolution("conv2d_4b", 256, 3, 3, 2, "valid"),
    *(
        _residual(f"repeat_1.{index}", 256, 0.17, 32, ((3, 3),), ((3, 3), (3, 3)))
        for index in range(5)
    ),
    Block(
        "mixed_6a",
        (
            (Convolution("mixed_6a.branch0", 384, 3, 3, 2, "valid"),),
            (
                Convolution("mixed_6a.branch1.0", 192, 1, 1),
                Convolution("mixed_6a.branch1.1", 192, 3, 3),
                Convolution("mixed_6a.branch1.2", 256, 3, 3, 2, "valid"),
            ),
        ),
        pooled=True,
    ),
    *(_residual(f"repeat_2.{index}", 896, 0.10, 128, ((1, 7), (7, 1))) for index in range(10)),
    Block(
        "mixed_7a",
        (
            (
                Convolution("mixed_7a.branch0.0", 256, 1, 1),
                Convolution("mixed_7a.branch0.1", 384, 3, 3, 2, "valid"),
            ),
            (
                Convolution("mixed_7a.branch1.0", 256, 1, 1),
                Convolution("mixed_7a.branch1.1", 256, 3, 3, 2, "valid"),
            ),
            (
                Convolution("mixed_7a.branch2.0", 256, 1, 1),
                Convolution("mixed_7a.branch2.1", 256, 3, 3),
                Convolution("mixed_7a.branch2.2", 256, 3, 3, 2, "valid"),
            ),
        ),
        pooled=True,
    ),
    *(_residual(f"repeat_3.{index}", 1792, 0.20, 192, ((1, 3), (3, 1))) for index in range(5)),
    _residual("block8", 1792, 1.0, 192, ((1, 3), (3, 1)), relu=False),
)
"""The whole network up to the global average, in the order of execution."""


def inception_resnet(
    weights: Mapping[str, tuple[FloatArray, ...]],
    pixels: Literal["fixed", "whitened"],
    name: str,
) -> keras.Model:
    """Build the network for pictures of 160x160.

    Args:
        weights: Kernel and bias of each convolution and of the last layer, by the names in
            ``NETWORK``, with every normalisation and scale folded in.
        pixels: ``"fixed"`` subtracts 127.5 and divides by 128, as the models of 2018 want it;
            ``"whitened"`` subtracts a picture's own mean and divides by its own standard
            deviation, of at least 1 / sqrt(number of values), as those of 2017 do.
        name: The model's name.

    Returns:
        RGB 0..255, float32 ``(N, 160, 160, 3)`` in; float32 ``(N, D)`` of length 1 out.

    Raises:
        WeightsError: A layer's weights are of another shape.
    """
    import keras

    inputs = keras.Input((SIDE, SIDE, 3), name="rgb")
    if pixels == "fixed":
        x = keras.layers.Rescaling(1 / 128, -127.5 / 128, name="fixed_standardization")(inputs)
    elif pixels == "whitened":
        x = _whitened(inputs)
    else:
        raise InputError(f"pixels is 'fixed' or 'whitened'. Received: {pixels!r}")

    def convolve(tensor: Any, convolution: Convolution, activation: str | None = "relu") -> Any:
        layer = keras.layers.Conv2D(
            convolution.filters,
            (convolution.rows, convolution.columns),
            strides=convolution.stride,
            padding=convolution.padding,
            activation=activation,
            # They are replaced at once; drawing 23 million at random takes half a second.
            kernel_initializer="zeros",
            name=_keras_name(convolution.name),
        )
        output = layer(tensor)
        _set_weights(layer, weights[convolution.name])
        return output

    for part in NETWORK:
        if isinstance(part, Convolution):
            x = convolve(x, part)
            continue
        if isinstance(part, Pool):
            x = keras.layers.MaxPooling2D(3, 2, name=part.name)(x)
            continue
        ends = []
        for branch in part.branches:
            end = x
            for convolution in branch:
                end = convolve(end, convolution)
            ends.append(end)
        if part.pooled:
            ends.append(keras.layers.MaxPooling2D(3, 2, name=f"{_keras_name(part.name)}_pool")(x))
        joined = keras.layers.Concatenate(name=f"{_keras_name(part.name)}_join")(ends)
        if not part.scale:
            x = joined
            continue
        projected = convolve(joined, Convolution(part.projection, part.channels, 1, 1), None)
        x = keras.layers.Add(name=f"{_keras_name(part.name)}_add")([x, projected])
        if part.relu:
            x = keras.layers.ReLU(name=f"{_keras_name(part.name)}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="avgpool_1a")(x)
    size = weights[EMBEDDING_LAYER][0].shape[-1]
    last = keras.layers.Dense(size, kernel_initializer="zeros", name=EMBEDDING_LAYER)
    x = last(x)
    _set_weights(last, weights[EMBEDDING_LAYER])
    return keras.Model(inputs, keras.layers.UnitNormalization(name="unit_length")(x), name=name)


def fold(
    kernel: FloatArray,
    shift: FloatArray,
    mean: FloatArray,
    variance: FloatArray,
    scale: FloatArray | float = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """Fold a batch normalisation into the weights before it, which have no bias.

    Args:
        kernel: Channels given last, of any further shape.
        shift: Beta, ``(channels,)``.
        mean: The moving mean, ``(channels,)``.
        variance: The moving variance, ``(channels,)``.
        scale: Gamma, ``(channels,)``; 1 where the normalisation has none.

    Returns:
        Kernel and bias.
    """
    factor = scale / np.sqrt(variance.astype(np.float64) + BATCH_NORMALIZATION_EPSILON)
    return (kernel * factor).astype(np.float32), (shift - mean * factor).astype(np.float32)


def _set_weights(layer: Any, weights: tuple[FloatArray, ...]) -> None:
    """Give a layer its weights, or say which one they do not fit."""
    expected = [tuple(variable.shape) for variable in layer.weights]
    received = [array.shape for array in weights]
    if received != expected:
        raise WeightsError(
            f"layer {layer.name!r} of Inception-ResNet-v1 takes weights of shapes {expected}. "
            f"Received: {received}"
        )
    layer.set_weights(weights)


def _whitened(pixels: Any) -> Any:
    """Each picture less its mean, over its standard deviation, of operations of Keras itself."""
    import keras

    mean = keras.ops.mean(pixels, axis=(1, 2, 3), keepdims=True)
    deviation = keras.ops.std(pixels, axis=(1, 2, 3), keepdims=True)
    least = (SIDE * SIDE * 3) ** -0.5
    centred = keras.ops.subtract(pixels, mean)
    return keras.ops.divide(centred, keras.ops.maximum(deviation, least))


def _keras_name(name: str) -> str:
    """Keras keeps the dot in files to itself."""
    return name.replace(".", "_")
