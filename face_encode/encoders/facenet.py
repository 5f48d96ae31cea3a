"""FaceNet: Inception-ResNet-v1 with David Sandberg's weights, as a native Keras model.

The weights are read from the files of the two projects that distribute them: facenet-pytorch (a
PyTorch state dict) and DeepFace (HDF5 of Keras 2). The pixels are prepared as in training, whatever
the project that distributes the file does: DeepFace, for instance, feeds blue, green, red of 0..1
unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.facenet_files import read_keras_layers
from face_encode.errors import InputError, WeightsError
from face_encode.torch_file import read_state_dict
from face_encode.types import CropRecipe
from face_encode.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    import keras

FloatArray = npt.NDArray[np.float32]
Weights = Mapping[str, tuple[FloatArray, ...]]

SIDE = 160
"""Height and width of the crops, in pixels."""

EMBEDDING_LAYER = "last_linear"
_BATCH_NORMALIZATION_EPSILON = 1e-3
# A file holds 29 million at most, the classifier of the training among them.
_MOST_NUMBERS = 30_000_000

# The weights cannot be downloaded where this package is developed, so nothing could be calibrated.
# In the FaceNet paper (figure 1) strangers lay beyond a squared distance of 1.1; between embeddings
# of length 1 that is a cosine of 1 - 1.1 / 2. Its false match rate is not known.
_BORROWED_SQUARED_DISTANCE = 1.1

# The models were trained on boxes of MTCNN with a margin. By the margins that the two projects
# evaluate with, these are 0.96 to 1.18 times as wide and 1.30 to 1.49 times as high as the boxes of
# this package's default detector (medians of 150 photos of LFW).
_CROP = CropRecipe("box", SIDE, SIDE, margin=0.1)


def _contract(name: str, trained_on: str) -> EncoderContract:
    """Build the contract of a FaceNet model."""
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
FACENET512_CONTRACT = replace(
    _contract("facenet512", "VGGFace2, as far as is known (a model of 2018)"),
    # DeepFace's threshold, a cosine distance of 0.3; for its own pixels.
    threshold=0.7,
    euclidean_threshold=None,
)


@dataclass(frozen=True)
class Convolution:
    """A convolution with its normalisation and relu.

    Attributes:
        name: Its name in facenet-pytorch.
        filters: Number of output channels.
        rows: Height of the window.
        columns: Width of the window.
        stride: Step in both directions.
        padding: As in Keras.
    """

    name: str
    filters: int
    rows: int
    columns: int
    stride: int = 1
    padding: Literal["same", "valid"] = "same"


@dataclass(frozen=True)
class Block:
    """Branches side by side, whose output channels are joined.

    Attributes:
        name: Its name in facenet-pytorch.
        branches: The convolutions of each branch.
        pooled: Whether one more branch is the maximum over 3x3 in steps of 2, without padding.
        projection: Projects the joined channels, without relu, to be added to the input; None if
            they are the output themselves.
        scale: Factor of the projection.
        relu: Whether a relu follows the addition.
    """

    name: str
    branches: tuple[tuple[Convolution, ...], ...] = ()
    pooled: bool = False
    projection: Convolution | None = None
    scale: float = 1.0
    relu: bool = True


def _branch(name: str, *convolutions: tuple[Any, ...]) -> tuple[Convolution, ...]:
    """Build a branch; several convolutions are numbered from 0."""
    if len(convolutions) == 1:
        return (Convolution(name, *convolutions[0]),)
    return tuple(Convolution(f"{name}.{i}", *each) for i, each in enumerate(convolutions))


def _residual(
    name: str,
    channels: int,
    scale: float,
    width: int,
    *chains: tuple[tuple[int, int], ...],
    relu: bool = True,
) -> Block:
    """Build a residual block: one convolution of 1x1 beside chains that begin with one."""
    branches = [_branch(f"{name}.branch0", (width, 1, 1))]
    for number, windows in enumerate(chains, start=1):
        sizes = ((width, *window) for window in ((1, 1), *windows))
        branches.append(_branch(f"{name}.branch{number}", *sizes))
    projection = Convolution(f"{name}.conv2d", channels, 1, 1)
    return Block(name, tuple(branches), False, projection, scale, relu)


def _plain(name: str, *convolution: Any) -> Block:
    """Build a block of a single convolution."""
    return Block(name, (_branch(name, convolution),))


NETWORK: tuple[Block, ...] = (
    _plain("conv2d_1a", 32, 3, 3, 2, "valid"),
    _plain("conv2d_2a", 32, 3, 3, 1, "valid"),
    _plain("conv2d_2b", 64, 3, 3),
    Block("maxpool_3a", pooled=True),
    _plain("conv2d_3b", 80, 1, 1),
    _plain("conv2d_4a", 192, 3, 3, 1, "valid"),
    _plain("conv2d_4b", 256, 3, 3, 2, "valid"),
    *(
        _residual(f"repeat_1.{index}", 256, 0.17, 32, ((3, 3),), ((3, 3), (3, 3)))
        for index in range(5)
    ),
    Block(
        "mixed_6a",
        (
            _branch("mixed_6a.branch0", (384, 3, 3, 2, "valid")),
            _branch("mixed_6a.branch1", (192, 1, 1), (192, 3, 3), (256, 3, 3, 2, "valid")),
        ),
        pooled=True,
    ),
    *(_residual(f"repeat_2.{index}", 896, 0.10, 128, ((1, 7), (7, 1))) for index in range(10)),
    Block(
        "mixed_7a",
        (
            _branch("mixed_7a.branch0", (256, 1, 1), (384, 3, 3, 2, "valid")),
            _branch("mixed_7a.branch1", (256, 1, 1), (256, 3, 3, 2, "valid")),
            _branch("mixed_7a.branch2", (256, 1, 1), (256, 3, 3), (256, 3, 3, 2, "valid")),
        ),
        pooled=True,
    ),
    *(_residual(f"repeat_3.{index}", 1792, 0.20, 192, ((1, 3), (3, 1))) for index in range(5)),
    _residual("block8", 1792, 1.0, 192, ((1, 3), (3, 1)), relu=False),
)
"""The network up to the global average, in the order of execution."""


def facenet512(name: str, content: bytes) -> keras.Model:
    """Build a model of 2018 from facenet-pytorch's file.

    Args:
        name: The model's name.
        content: The file ``20180402-114759-vggface2.pt`` or ``20180408-102900-casia-webface.pt``,
            whole.

    Returns:
        RGB 0..255, float32 ``(N, 160, 160, 3)`` in; float32 ``(N, 512)`` of length 1 out.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    return inception_resnet(read_torch_weights(content), "fixed", name)


def facenet128(content: bytes) -> keras.Model:
    """Build the model of 2017 from DeepFace's file.

    Args:
        content: The file ``facenet_weights.h5``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 160, 160, 3)`` in; float32 ``(N, 128)`` of length 1 out.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    return inception_resnet(read_deepface_weights(content), "whitened", "facenet128")


def deepface_facenet512(content: bytes) -> keras.Model:
    """Build the model of 512 numbers from DeepFace's file.

    Args:
        content: The file ``facenet512_weights.h5``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 160, 160, 3)`` in; float32 ``(N, 512)`` of length 1 out.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    return inception_resnet(read_deepface_weights(content), "fixed", "facenet512")


def inception_resnet(
    weights: Weights, pixels: Literal["fixed", "whitened"], name: str
) -> keras.Model:
    """Build Inception-ResNet-v1 for crops of 160x160.

    Args:
        weights: Kernel and bias of each convolution and of the last layer, by the names in
            ``NETWORK``, with every normalisation and scale folded in.
        pixels: ``"fixed"`` subtracts 127.5 and divides by 128, as the models of 2018 expect;
            ``"whitened"`` subtracts the crop's own mean and divides by its own standard deviation,
            of at least 1 / sqrt(number of values), as the models of 2017 expect.
        name: The model's name.

    Returns:
        RGB 0..255, float32 ``(N, 160, 160, 3)`` in; float32 ``(N, D)`` of length 1 out.

    Raises:
        InputError: Another word for the pixels.
        WeightsError: A layer's weights are of another shape.
    """
    import keras

    inputs = keras.Input((SIDE, SIDE, 3), name="rgb")
    if pixels == "fixed":
        x = keras.layers.Rescaling(1 / 128, -127.5 / 128, name="fixed_standardization")(inputs)
    elif pixels == "whitened":
        mean = keras.ops.mean(inputs, axis=(1, 2, 3), keepdims=True)
        deviation = keras.ops.std(inputs, axis=(1, 2, 3), keepdims=True)
        centred = keras.ops.subtract(inputs, mean)
        x = keras.ops.divide(centred, keras.ops.maximum(deviation, (SIDE * SIDE * 3) ** -0.5))
    else:
        raise InputError(f"pixels is 'fixed' or 'whitened'. Received: {pixels!r}")

    def convolve(tensor: Any, convolution: Convolution, activation: str | None = "relu") -> Any:
        layer = keras.layers.Conv2D(
            convolution.filters,
            (convolution.rows, convolution.columns),
            strides=convolution.stride,
            padding=convolution.padding,
            activation=activation,
            # Replaced at once; drawing 23 million at random takes half a second.
            kernel_initializer="zeros",
            name=convolution.name.replace(".", "_"),
        )
        return _with_weights(layer, tensor, weights[convolution.name])

    for block in NETWORK:
        block_name = block.name.replace(".", "_")  # Keras allows no dots in the names of layers
        ends = []
        for branch in block.branches:
            end = x
            for convolution in branch:
                end = convolve(end, convolution)
            ends.append(end)
        if block.pooled:
            ends.append(keras.layers.MaxPooling2D(3, 2, name=f"{block_name}_pool")(x))
        joined = ends[0]
        if len(ends) > 1:
            joined = keras.layers.Concatenate(name=f"{block_name}_join")(ends)
        if block.projection is None:
            x = joined
            continue
        projected = convolve(joined, block.projection, None)
        x = keras.layers.Add(name=f"{block_name}_add")([x, projected])
        if block.relu:
            x = keras.layers.ReLU(name=f"{block_name}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D(name="avgpool_1a")(x)
    size = weights[EMBEDDING_LAYER][0].shape[-1]
    last = keras.layers.Dense(size, kernel_initializer="zeros", name=EMBEDDING_LAYER)
    x = _with_weights(last, x, weights[EMBEDDING_LAYER])
    return keras.Model(inputs, keras.layers.UnitNormalization(name="unit_length")(x), name=name)


def _with_weights(layer: Any, tensor: Any, weights: tuple[FloatArray, ...]) -> Any:
    """Apply a layer to a tensor and set its weights, or say that their shapes do not fit."""
    output = layer(tensor)
    expected = [tuple(variable.shape) for variable in layer.weights]
    received = [array.shape for array in weights]
    if received != expected:
        raise WeightsError(
            f"layer {layer.name!r} of Inception-ResNet-v1 takes weights of shapes {expected}. "
            f"Received: {received}"
        )
    layer.set_weights(weights)
    return output


def read_torch_weights(content: bytes) -> Weights:
    """Read facenet-pytorch's ``InceptionResnetV1``, folded for ``inception_resnet``.

    Args:
        content: A file that ``torch.save(model.state_dict(), path)`` wrote.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    tensors = read_state_dict(content, _MOST_NUMBERS)

    def take(name: str, dimensions: int) -> FloatArray:
        array = tensors.pop(name, None)
        if array is None or array.ndim != dimensions or array.dtype.kind != "f":
            raise WeightsError(
                f"the file of Inception-ResNet-v1 holds {name!r} with {dimensions} dimensions. "
                f"Received: {'nothing' if array is None else array.shape}"
            )
        return array

    def folded(name: str, kernel: FloatArray, normalization: str) -> tuple[FloatArray, ...]:
        parts = ("bias", "running_mean", "running_var", "weight")
        return _fold(name, kernel, *(take(f"{normalization}.{part}", 1) for part in parts))

    # PyTorch has (out, in, rows, columns), Keras (rows, columns, in, out).
    weights = {}
    for block in NETWORK:
        for convolution in (each for branch in block.branches for each in branch):
            name = convolution.name
            kernel = take(f"{name}.conv.weight", 4).transpose(2, 3, 1, 0)
            weights[name] = folded(name, kernel, f"{name}.bn")
        if block.projection is not None:
            name = block.projection.name
            kernel = take(f"{name}.weight", 4).transpose(2, 3, 1, 0)
            weights[name] = (kernel * block.scale, take(f"{name}.bias", 1) * block.scale)
    kernel = take(f"{EMBEDDING_LAYER}.weight", 2).T
    weights[EMBEDDING_LAYER] = folded(EMBEDDING_LAYER, kernel, "last_bn")
    # The classifier of the training, and counters.
    unknown = [
        name
        for name in tensors
        if not name.startswith("logits.") and not name.endswith(".num_batches_tracked")
    ]
    if unknown:
        raise WeightsError(f"Inception-ResNet-v1 has no {unknown[0]!r}")
    return weights


def read_deepface_weights(content: bytes) -> Weights:
    """Read DeepFace's ``InceptionResNetV1``, folded for ``inception_resnet``.

    Args:
        content: A file that ``model.save_weights("….h5")`` of Keras 2 wrote.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    layers = iter(read_keras_layers(content))

    def take(*parts: str) -> list[FloatArray]:
        layer = next(layers, None)
        if layer is None or set(layer.arrays) != set(parts):
            received = "the end"
            if layer is not None:
                received = f"{layer.name!r} with {', '.join(layer.arrays)}"
            raise WeightsError(
                f"the file of Inception-ResNet-v1 goes on with a layer of {', '.join(parts)}. "
                f"Received: {received}"
            )
        return [layer.arrays[part] for part in parts]

    normalization = ("beta", "moving_mean", "moving_variance")
    weights: dict[str, tuple[FloatArray, ...]] = {}
    for block in NETWORK:
        # Keras saves the layers by their distance from the output: first the convolutions of all
        # branches at one distance from the joint, then their normalisations.
        for distance in reversed(range(max(map(len, block.branches), default=0))):
            abreast = [branch[-1 - distance] for branch in block.branches if len(branch) > distance]
            kernels = {convolution.name: take("kernel")[0] for convolution in abreast}
            for name, kernel in kernels.items():
                weights[name] = _fold(name, kernel, *take(*normalization))
        if block.projection is not None:
            kernel, bias = take("kernel", "bias")
            weights[block.projection.name] = (kernel * block.scale, bias * block.scale)
    kernel = take("kernel")[0]
    weights[EMBEDDING_LAYER] = _fold(EMBEDDING_LAYER, kernel, *take(*normalization))
    if (left := next(layers, None)) is not None:
        raise WeightsError(f"Inception-ResNet-v1 ends before the layer {left.name!r}")
    return weights


def _fold(
    name: str,
    kernel: FloatArray,
    shift: FloatArray,
    mean: FloatArray,
    variance: FloatArray,
    gamma: FloatArray | float = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """Fold a batch normalisation into the kernel before it, which has no bias.

    Args:
        name: The kernel's name, for the error.
        kernel: Output channels last.
        shift: Beta, ``(channels,)``.
        mean: The moving mean, ``(channels,)``.
        variance: The moving variance, ``(channels,)``.
        gamma: ``(channels,)``; 1 if the normalisation has none.

    Returns:
        Kernel and bias.
    """
    channels = kernel.shape[-1]
    if any(array.shape != (channels,) for array in (shift, mean, variance)):
        raise WeightsError(
            f"the normalisation of {name!r} has {channels} channels. Received: {shift.shape}"
        )
    factor = gamma / np.sqrt(variance.astype(np.float64) + _BATCH_NORMALIZATION_EPSILON)
    return (kernel * factor).astype(np.float32), (shift - mean * factor).astype(np.float32)
