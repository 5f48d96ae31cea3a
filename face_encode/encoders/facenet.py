"""The FaceNet models that are in use: Inception-ResNet-v1 with David Sandberg's weights.

They are read from the files of the two projects that carry them on: facenet-pytorch (a PyTorch
state dict) and DeepFace (HDF5 of Keras 2). A picture is prepared as it was in training, whatever
the project that carries the file does with it; DeepFace, for instance, feeds blue, green, red of
0..1 unless it is told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.facenet_files import StoredLayer, read_keras_layers, read_state_dict
from face_encode.errors import InputError, WeightsError
from face_encode.types import CropRecipe
from face_encode.weights import KNOWN_WEIGHTS

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


Weights = dict[str, tuple[FloatArray, ...]]

# The weights cannot be had where this package is made, so nothing could be calibrated. Strangers
# lay beyond a squared distance of 1.1 in the FaceNet paper (figure 1); between embeddings of length
# 1 that is a cosine of 1 - 1.1 / 2. A false match rate is not known for it.
_BORROWED_SQUARED_DISTANCE = 1.1

# The models were trained on boxes of MTCNN with a margin. By the margins that the two projects
# evaluate with, these are 0.96 to 1.18 times as wide and 1.30 to 1.49 times as high as the boxes of
# this package's default detector (medians of 150 photos of LFW).
_CROP = CropRecipe("box", SIDE, SIDE, margin=0.1)


def _contract(name: str, trained_on: str) -> EncoderContract:
    """What all of them have in common."""
    return EncoderContract(
        name=name,
        crop=_CROP,
        threshold=round(1 - _BORROWED_SQUARED_DISTANCE / 2, 3),
        euclidean_threshold=round(_BORROWED_SQUARED_DISTANCE**0.5, 3),
        trained_on=trained_on,
        licence=KNOWN_WEIGHTS[name].licence,
    )


FACENET_VGGFACE2_CONTRACT = _contract(
    "facenet_vggface2", "VGGFace2: 3.3 million photos of 9,131 people (20180402-114759)"
)
FACENET_CASIA_CONTRACT = _contract(
    "facenet_casia", "CASIA-WebFace: 490,000 photos of 10,575 people (20180408-102900)"
)
FACENET128_CONTRACT = _contract("facenet128", "MS-Celeb-1M, as far as is known (a model of 2017)")


def facenet_vggface2(content: bytes) -> keras.Model:
    """Build the model of 2018 that was trained on VGGFace2, from facenet-pytorch's file.

    Args:
        content: The file ``20180402-114759-vggface2.pt``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 160, 160, 3)`` in; float32 ``(N, 512)`` of length 1 out.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    return inception_resnet(read_torch_weights(content), "fixed", "facenet_vggface2")


def facenet_casia(content: bytes) -> keras.Model:
    """Build the model of 2018 that was trained on CASIA-WebFace, from facenet-pytorch's file.

    Args:
        content: The file ``20180408-102900-casia-webface.pt``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 160, 160, 3)`` in; float32 ``(N, 512)`` of length 1 out.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    return inception_resnet(read_torch_weights(content), "fixed", "facenet_casia")


def facenet128(content: bytes) -> keras.Model:
    """Build the model of 2017 with 128 numbers a face, from DeepFace's file.

    Args:
        content: The file ``facenet_weights.h5``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 160, 160, 3)`` in; float32 ``(N, 128)`` of length 1 out.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    return inception_resnet(read_deepface_weights(content), "whitened", "facenet128")


def read_torch_weights(content: bytes) -> Weights:
    """Read facenet-pytorch's ``InceptionResnetV1``, folded for :func:`inception_resnet`.

    Args:
        content: What ``torch.save(model.state_dict(), path)`` wrote.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    tensors = read_state_dict(content)

    def take(name: str, dimensions: int) -> FloatArray:
        array = tensors.pop(name, None)
        if array is None or array.ndim != dimensions or array.dtype.kind != "f":
            raise WeightsError(
                f"the file of Inception-ResNet-v1 holds {name!r} with {dimensions} dimensions. "
                f"Received: {'nothing' if array is None else array.shape}"
            )
        return array

    def folded(name: str, normalization: str, dimensions: int) -> tuple[FloatArray, ...]:
        # PyTorch has (out, in, rows, columns), Keras (rows, columns, in, out).
        kernel = take(f"{name}.weight", dimensions).T
        if dimensions == 4:
            kernel = kernel.transpose(1, 0, 2, 3)
        parts = ("bias", "running_mean", "running_var", "weight")
        return _fold(name, kernel, *(take(f"{normalization}.{part}", 1) for part in parts))

    weights: Weights = {}
    for block, convolution in _steps():
        if convolution is not None:
            name = convolution.name
            weights[name] = folded(f"{name}.conv", f"{name}.bn", 4)
        else:
            kernel = take(f"{block.projection}.weight", 4).transpose(2, 3, 1, 0)
            bias = take(f"{block.projection}.bias", 1)
            weights[block.projection] = (kernel * block.scale, bias * block.scale)
    weights[EMBEDDING_LAYER] = folded(EMBEDDING_LAYER, "last_bn", 2)
    # The classifier of the training, and counters.
    rest = [
        name
        for name in tensors
        if not name.startswith("logits.") and not name.endswith(".num_batches_tracked")
    ]
    if rest:
        raise WeightsError(f"Inception-ResNet-v1 has no {rest[0]!r}")
    return weights


def read_deepface_weights(content: bytes) -> Weights:
    """Read DeepFace's ``InceptionResNetV1``, folded for :func:`inception_resnet`.

    Args:
        content: What ``model.save_weights("….h5")`` wrote in Keras 2.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    layers = iter(read_keras_layers(content))

    def take(*parts: str) -> list[FloatArray]:
        layer = next(layers, None)
        if layer is None or set(layer.arrays) != set(parts):
            raise WeightsError(
                f"the file of Inception-ResNet-v1 goes on with a layer of {', '.join(parts)}. "
                f"Received: {_described(layer)}"
            )
        return [layer.arrays[part] for part in parts]

    normalization = ("beta", "moving_mean", "moving_variance")
    weights: Weights = {}
    for group in _groups_of_the_saved_order():
        kernels: list[tuple[str, FloatArray]] = []
        for step in group:
            if isinstance(step, Block):
                kernel, bias = take("kernel", "bias")
                weights[step.projection] = (kernel * step.scale, bias * step.scale)
            else:
                kernels.append((step.name, take("kernel")[0]))
        for name, kernel in kernels:
            weights[name] = _fold(name, kernel, *take(*normalization))
    kernel = take("kernel")[0]
    weights[EMBEDDING_LAYER] = _fold(EMBEDDING_LAYER, kernel, *take(*normalization))
    if (left := next(layers, None)) is not None:
        raise WeightsError(f"Inception-ResNet-v1 ends before the layer {left.name!r}")
    return weights


def _steps() -> Iterator[tuple[Block, Convolution] | tuple[Block, None]]:
    """Every convolution with its block, and every projection as the block alone."""
    outside = Block("", ())
    for part in NETWORK:
        if isinstance(part, Convolution):
            yield outside, part
        elif isinstance(part, Block):
            for branch in part.branches:
                for convolution in branch:
                    yield part, convolution
            if part.scale:
                yield part, None


def _groups_of_the_saved_order() -> Iterator[list[Convolution | Block]]:
    """The order in which Keras saves the layers: by their distance from the output.

    Convolutions of neighbouring branches stand together that have the same number of layers
    before the joint; the normalisations follow their convolutions.
    """
    for part in NETWORK:
        if isinstance(part, Convolution):
            yield [part]
        elif isinstance(part, Block):
            for distance in reversed(range(max(map(len, part.branches)))):
                yield [branch[-1 - distance] for branch in part.branches if len(branch) > distance]
            if part.scale:
                yield [part]


def _fold(
    name: str,
    kernel: FloatArray,
    shift: FloatArray,
    mean: FloatArray,
    variance: FloatArray,
    scale: FloatArray | float = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """Fold, where the normalisation has as many channels as the kernel gives."""
    channels = kernel.shape[-1]
    if any(array.shape != (channels,) for array in (shift, mean, variance)):
        raise WeightsError(
            f"the normalisation of {name!r} has {channels} channels. Received: {shift.shape}"
        )
    return fold(kernel, shift, mean, variance, scale)


def _described(layer: StoredLayer | None) -> str:
    """A layer in an error."""
    return "the end" if layer is None else f"{layer.name!r} with {', '.join(layer.arrays)}"
