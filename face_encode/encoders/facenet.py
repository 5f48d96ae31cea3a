"""The FaceNet models that are in use: Inception-ResNet-v1 with David Sandberg's weights.

They are read from the files of the two projects that carry them on: facenet-pytorch (a PyTorch
state dict) and DeepFace (HDF5 of Keras 2). A picture is prepared as it was in training, whatever
the project that carries the file does with it; DeepFace, for instance, feeds blue, green, red of
0..1 unless it is told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.hdf5_file import StoredLayer, read_keras_layers
from face_encode.encoders.inception_resnet import (
    EMBEDDING_LAYER,
    NETWORK,
    SIDE,
    Block,
    Convolution,
    FloatArray,
    fold,
    inception_resnet,
)
from face_encode.encoders.torch_file import read_state_dict
from face_encode.errors import WeightsError
from face_encode.types import CropRecipe
from face_encode.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    import keras

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
