"""MobileFaceNet (Chen et al., 2018) as a native Keras functional model.

A network of depthwise convolutions in inverted residuals, made for telephones: 990,000 parameters,
128 numbers a face. The weights are those of github.com/foamliu/MobileFaceNet, trained on a refined
MS-Celeb-1M with ArcFace's loss, read from its ONNX file; every normalisation of the training is
folded into a convolution there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.facenet_files import read_onnx_graph
from face_encode.errors import WeightsError
from face_encode.types import CropRecipe
from face_encode.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    import keras

FloatArray = npt.NDArray[np.float32]

SIDE = 112
"""Height and width of the crops, in pixels."""

# ImageNet's colours, of pixels within 0..1.
_MEAN_COLOUR = np.array([0.485, 0.456, 0.406])
_COLOUR_DEVIATION = np.array([0.229, 0.224, 0.225])

# Channels within, channels out and stride of each inverted residual; where the stride is 1 the
# input, which then has as many channels, is added to the output.
_BLOCKS = (
    (128, 64, 2),
    *4 * ((128, 64, 1),),
    (256, 128, 2),
    *6 * ((256, 128, 1),),
    (512, 128, 2),
    *2 * ((256, 128, 1),),
)

CONVOLUTIONS = 6 + 3 * len(_BLOCKS)

MOBILEFACENET_CONTRACT = EncoderContract(
    name="mobilefacenet",
    crop=CropRecipe("arcface", SIDE, SIDE),
    # Measured on 45 million pairs of strangers among 4,038 people of LFW (View 1, training), with
    # the default detector: 99.3 % of the pairs of one person reach it.
    threshold=0.338,
    false_match_rate=1e-3,
    mirror=True,
    # On the same pairs; 94 % of the pairs of one person lie within it.
    euclidean_threshold=17.7,
    # Chosen on 323 people of LFW; of 300 and of 651 photos of other people 0.7 and 1.5 % lie below.
    quality_threshold=0.754,
    thresholds=((1e-4, 0.409), (1e-5, 0.484)),
    spread=0.1026,
    trained_on="MS-Celeb-1M, refined: 3.9 million photos of 86,876 people, by its author",
    licence=KNOWN_WEIGHTS["mobilefacenet"].licence,
)

# Without the mirror image: in half the time. 99.2 % of the pairs of one person reach the threshold.
MOBILEFACENET_SINGLE_CONTRACT = replace(
    MOBILEFACENET_CONTRACT,
    name="mobilefacenet_single",
    mirror=False,
    threshold=0.336,
    euclidean_threshold=17.9,
    thresholds=((1e-4, 0.407), (1e-5, 0.481)),
    spread=0.1023,
)


def mobilefacenet(content: bytes) -> keras.Model:
    """Build the network with the weights of its author's file.

    Args:
        content: The file ``MobileFaceNet.onnx``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 112, 112, 3)`` in; float32 ``(N, 128)`` out, not normalised.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    import keras
    from keras import layers

    weights = iter(_read_convolutions(content))
    filters: list[tuple[Any, list[FloatArray]]] = []

    def convolve(
        x: Any, channels: int | None, window: int, activation: str | None, stride: int = 1
    ) -> Any:
        """Add a convolution; where no number of channels is given, a depthwise one."""
        is_depthwise = channels is None
        name = f"{len(filters):02d}_{'depthwise' if is_depthwise else 'convolution'}"
        if stride == 2:
            # Keras' own "same" would pad at the right and at the bottom only.
            x = layers.ZeroPadding2D(1, name=f"{name}_padding")(x)
        settings: dict[str, Any] = {
            "strides": stride,
            "padding": "same" if stride == 1 and window == 3 else "valid",
            "activation": activation,
            "name": name,
        }
        if is_depthwise:
            layer = layers.DepthwiseConv2D(window, **settings)
        else:
            layer = layers.Conv2D(channels, window, **settings)
        x = layer(x)
        kernel, bias = next(weights)
        # ONNX has (out, in, rows, columns); Keras (rows, columns, in, out), and (rows, columns,
        # channels, 1) for a depthwise convolution.
        kernel = kernel.transpose((2, 3, 0, 1) if is_depthwise else (2, 3, 1, 0))
        expected = [tuple(variable.shape) for variable in layer.weights]
        if [kernel.shape, bias.shape] != expected:
            raise WeightsError(
                f"layer {name!r} of MobileFaceNet takes weights of shapes {expected}. "
                f"Received: {[kernel.shape, bias.shape]}"
            )
        filters.append((layer, [kernel, bias]))
        return x

    inputs = keras.Input((SIDE, SIDE, 3), name="rgb")
    scale, offset = 1 / (255 * _COLOUR_DEVIATION), -_MEAN_COLOUR / _COLOUR_DEVIATION
    x = layers.Rescaling(scale.tolist(), offset.tolist(), name="colours")(inputs)
    x = convolve(x, 64, 3, "relu6", stride=2)
    x = convolve(x, None, 3, "relu")
    x = convolve(x, 64, 1, "relu")
    for number, (within, out, stride) in enumerate(_BLOCKS):
        end = convolve(x, within, 1, "relu6")
        end = convolve(end, None, 3, "relu6", stride)
        end = convolve(end, out, 1, None)
        x = layers.Add(name=f"block_{number:02d}_add")([x, end]) if stride == 1 else end
    x = convolve(x, 512, 1, "relu6")
    # One weight for each place of the face, where other networks take the average.
    x = convolve(x, None, 7, None)
    x = convolve(x, 128, 1, None)
    model = keras.Model(inputs, layers.Flatten(name="embedding")(x), name="mobilefacenet")
    for layer, arrays in filters:
        layer.set_weights(arrays)
    return model


def _read_convolutions(content: bytes) -> list[list[FloatArray]]:
    """Read kernel and bias of each convolution of an ONNX file, in the order of execution.

    Raises:
        WeightsError: No ONNX file, or one whose arrays are not those of ``CONVOLUTIONS``
            convolutions.
    """
    network, arrays = read_onnx_graph(content)
    nodes = [node for node in network if node.op_type == "Conv"]
    used = [name for node in nodes for name in node.input[1:]]
    shapes = [[arrays[name].ndim for name in node.input[1:] if name in arrays] for node in nodes]
    if shapes != [[4, 1]] * CONVOLUTIONS or sorted(used) != sorted(arrays):
        raise WeightsError(
            f"the file of MobileFaceNet holds kernel and bias of {CONVOLUTIONS} convolutions and "
            f"nothing else. Received: {len(nodes)} convolutions and {len(arrays)} arrays"
        )
    return [[arrays[name] for name in node.input[1:]] for node in nodes]
