"""dlib's face recognition network (King, 2017) as a native Keras functional model.

A residual network of 29 convolutions with half the filters of He et al. (2016), trained by its
author on about three million faces with a metric loss; 128 numbers a face, 99.38 % on LFW as
published. The weights are read from dlib's own file; every normalisation, that of the pixels
included, is folded into a convolution: the graph holds only convolutions, pools and additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from face_encode.dlib_file import DlibLayer, FloatArray, read_dlib_network
from face_encode.encoders.contract import EncoderContract
from face_encode.errors import WeightsError
from face_encode.types import CropRecipe
from face_encode.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    import keras

# dlib divides by 256, not 255.
_PIXEL_SCALE = 1 / 256

DLIB_RESNET_CONTRACT = EncoderContract(
    name="dlib_resnet",
    crop=CropRecipe("dlib_chip", 150, 150, margin=0.25),
    # Measured on 45 million pairs of strangers among 4,038 people of LFW (View 1, training),
    # with the default detector: 95.9 % of the pairs of one person reach it.
    threshold=0.929,
    false_match_rate=1e-3,
    mirror=True,
    # On the same pairs: 96 % of the pairs of one person lie within it. dlib's own 0.6 lets 0.9 %
    # of the pairs of strangers through.
    euclidean_threshold=0.53,
    # Of 300 photos of people of LFW, on whom nothing was trained, 0.7 % lie below. In a tenth of
    # the light 0.18 % of the pairs of strangers pass, 0.28 % at 0.8.
    quality_threshold=0.82,
    thresholds=((1e-4, 0.944), (1e-5, 0.956)),
    spread=0.0344,
    trained_on="about 3 million faces of 7,485 people (FaceScrub, VGG, and others), by its author",
    licence=KNOWN_WEIGHTS["dlib_resnet"].licence,
)

# The embeddings of dlib itself and face_recognition, without the mirror image: in half the time.
DLIB_RESNET_SINGLE_CONTRACT = replace(
    DLIB_RESNET_CONTRACT,
    name="dlib_resnet_single",
    mirror=False,
    # Measured as above: 94.2 % of the pairs of one person reach this, and lie within the next.
    threshold=0.926,
    euclidean_threshold=0.54,
    thresholds=((1e-4, 0.942), (1e-5, 0.955)),
    spread=0.0346,
)


def dlib_resnet(content: bytes) -> keras.Model:
    """Build the network with the weights of dlib's file.

    Args:
        content: The file ``dlib_face_recognition_resnet_model_v1.dat``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 150, 150, 3)`` in; float32 ``(N, 128)`` out, not normalised
        (norms are about 1.4).

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    import keras

    layers = read_dlib_network(content)
    first, *rest = layers
    inputs = keras.Input((*first.sizes, 3), name="rgb")
    x = shortcut = inputs
    filters: list[tuple[Any, list[Any]]] = []
    for index, layer in enumerate(rest):
        following = rest[index + 1].kind if index + 1 < len(rest) else ""
        name = f"{index:03d}_{layer.kind}"
        match layer.kind:
            case "con":
                convolution = _convolution(layer, name)
                x = convolution(x)
                filters.append((convolution, _folded(rest[index : index + 2])))
            case "affine":
                pass  # folded into the convolution before it
            case "relu":
                x = keras.layers.ReLU(name=name)(x)
            case "max_pool":
                x = keras.layers.MaxPooling2D(layer.sizes[:2], layer.sizes[2:4], name=name)(x)
            case "avg_pool" if following == "add_prev":
                pool = keras.layers.AveragePooling2D(layer.sizes[:2], layer.sizes[2:4], name=name)
                shortcut = pool(shortcut)
            case "avg_pool":
                x = keras.layers.GlobalAveragePooling2D(name=name)(x)
            case "add_prev":
                x = _add_padded(x, shortcut, name)
            case "fc":
                dense = keras.layers.Dense(layer.weights[0].shape[1], use_bias=False, name=name)
                x = dense(x)
                filters.append((dense, list(layer.weights)))
            case _:
                raise WeightsError(f"a layer out of place in the dlib file: {layer.kind}")
        ends_block = layer.kind == "relu" and rest[index - 1].kind == "add_prev"
        if ends_block or layer.kind == "max_pool":
            shortcut = x
    # The pixels' scaling is folded into the first convolution, which is exact only if that does
    # not pad: the colour of its zeros would change.
    if rest[0].sizes[4:] != (0, 0):
        raise WeightsError("the first convolution of the dlib file pads its input")
    filters[0][1][:] = _with_pixels_folded(first.weights[0], *filters[0][1])
    model = keras.Model(inputs, x, name="dlib_resnet")
    for target, weights in filters:
        target.set_weights(weights)
    return model


def _convolution(layer: DlibLayer, name: str) -> Any:
    """Build the Keras layer of a convolution; dlib pads either nothing or half the window."""
    import keras

    rows, columns, *strides_and_padding = layer.sizes
    strides, padding = strides_and_padding[:2], strides_and_padding[2:]
    if padding not in ([0, 0], [rows // 2, columns // 2]) or (any(padding) and strides != [1, 1]):
        raise WeightsError(f"a convolution of the dlib file with padding {padding} is unknown")
    return keras.layers.Conv2D(
        len(layer.weights[1]),
        (rows, columns),
        strides=strides,
        # With stride 1, "same" is half the window on every side; with stride 2 it would not be.
        padding="same" if any(padding) else "valid",
        name=name,
    )


def _folded(pair: Sequence[DlibLayer]) -> list[Any]:
    """Fold the scale and shift after a convolution into its weights."""
    if [layer.kind for layer in pair] != ["con", "affine"]:
        raise WeightsError("a convolution of the dlib file without its normalisation")
    (kernel, bias), (scale, shift) = pair[0].weights, pair[1].weights
    # dlib has (out, in, rows, columns), Keras (rows, columns, in, out).
    return [(kernel * scale[:, None, None, None]).transpose(2, 3, 1, 0), bias * scale + shift]


def _with_pixels_folded(mean_colour: FloatArray, kernel: FloatArray, bias: FloatArray) -> list[Any]:
    """Fold the pixels' mean colour and scaling into the first convolution's weights."""
    scaled = kernel.astype(np.float64) * _PIXEL_SCALE
    offset = np.einsum("rcio,i->o", scaled, mean_colour.astype(np.float64))
    return [scaled.astype(np.float32), (bias - offset).astype(np.float32)]


def _add_padded(x: Any, shortcut: Any, name: str) -> Any:
    """Add as dlib's ``add_prev``: the smaller tensor is padded with zeros at its ends."""
    import keras

    size = [max(a, b) for a, b in zip(x.shape[1:], shortcut.shape[1:], strict=True)]

    def padded(tensor: Any) -> Any:
        missing = [(0, want - have) for have, want in zip(tensor.shape[1:], size, strict=True)]
        if not any(after for _, after in missing):
            return tensor
        return keras.ops.pad(tensor, [(0, 0), *missing])

    return keras.layers.Add(name=name)([padded(x), padded(shortcut)])
