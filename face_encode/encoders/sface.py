"""SFace: a MobileNet trained by the loss of Zhong et al., as a native Keras model.

Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", 2021. The
weights are those of OpenCV's model zoo, read from its ONNX file, which scales the pixels itself:
(x - 127.5) / 128. Alignment and threshold are those of OpenCV's ``FaceRecognizerSF``.
"""

from __future__ import annotations

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

SFACE_CONTRACT = EncoderContract(
    name="sface",
    crop=CropRecipe("arcface", 112, 112),
    # OpenCV's own (opencv_zoo, models/face_recognition_sface/sface.py).
    threshold=0.363,
    trained_on="not published with the file (SFace's paper: CASIA-WebFace, VGGFace2, MS-Celeb-1M)",
    licence=KNOWN_WEIGHTS["sface"].licence,
)

# Channels out and stride of each pair of a depthwise convolution and one of 1x1.
_PAIRS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *5 * ((512, 1),),
    (1024, 2),
    (1024, 1),
)
_PIXEL_MEAN, _PIXEL_SCALE = 127.5, 1 / 128


def sface(content: bytes) -> keras.Model:
    """Build the network with the weights of OpenCV's file.

    Args:
        content: The file ``face_recognition_sface_2021dec.onnx``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 112, 112, 3)`` in; float32 ``(N, 128)`` out, not normalised.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    import keras
    from keras import layers

    weights = _Weights(content)
    inputs = keras.Input((112, 112, 3), name="rgb")
    x = layers.Rescaling(_PIXEL_SCALE, -_PIXEL_MEAN * _PIXEL_SCALE, name="pixels")(inputs)
    x = _convolve(x, weights, "conv_1", 3, filters=32)
    for number, (filters, stride) in enumerate(_PAIRS, start=2):
        x = _convolve(x, weights, f"conv_{number}_dw", 3, stride)
        x = _convolve(x, weights, f"conv_{number}", 1, filters=filters)
    x = weights.normalize(x, "bn1")
    rows, columns, channels = x.shape[1:]
    # ONNX flattens channels first, and has the outputs before the inputs.
    kernel = weights.take("pre_fc1_weight", (128, channels * rows * columns))
    kernel = kernel.reshape(128, channels, rows, columns).transpose(2, 3, 1, 0).reshape(-1, 128)
    dense = layers.Dense(128, kernel_initializer="zeros", name="pre_fc1")
    x = dense(layers.Flatten(name="flatten")(x))
    dense.set_weights([kernel, weights.take("pre_fc1_bias", (128,))])
    model = keras.Model(inputs, weights.normalize(x, "fc1"), name="sface")
    weights.check_rest()
    return model


def _convolve(
    x: Any, weights: _Weights, name: str, window: int, stride: int = 1, filters: int = 0
) -> Any:
    """Append a convolution, its normalisation and a learnt relu; depthwise without ``filters``."""
    from keras import layers

    if stride > 1:
        # "same" would pad the bottom and right only.
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    channels = x.shape[-1]
    settings: dict[str, Any] = {
        "strides": stride,
        "padding": "valid" if stride > 1 else "same",
        "use_bias": False,
        "name": f"{name}_conv2d",
    }
    # ONNX has (out, in, rows, columns); Keras (rows, columns, in, out).
    if filters:
        layer = layers.Conv2D(filters, window, **settings)
        kernel = weights.take(f"{name}_conv2d_weight", (filters, channels, window, window))
        x = layer(x)
        layer.set_weights([kernel.transpose(2, 3, 1, 0)])
    else:
        layer = layers.DepthwiseConv2D(window, **settings)
        kernel = weights.take(f"{name}_conv2d_weight", (channels, 1, window, window))
        x = layer(x)
        layer.set_weights([kernel.transpose(2, 3, 0, 1)])
    x = weights.normalize(x, f"{name}_batchnorm")
    relu = layers.PReLU(shared_axes=(1, 2), name=f"{name}_relu")
    x = relu(x)
    relu.set_weights([weights.take(f"{name}_relu_gamma", (1, 1, x.shape[-1]))])
    return x


class _Weights:
    """The arrays of the file, each to be taken once."""

    def __init__(self, content: bytes) -> None:
        nodes, self.arrays = read_onnx_graph(content)
        # ONNX's own 1e-5, unless the node says otherwise.
        self.epsilons = {
            node.input[1]: next((each.f for each in node.attribute if each.name == "epsilon"), 1e-5)
            for node in nodes
            if node.op_type == "BatchNormalization"
        }

    def take(self, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Take an array of a shape out of the file; axes of length 1 may lie anywhere."""
        array = self.arrays.pop(name, None)
        # Exports differ on where the channels of a relu's slopes lie.
        if array is None or [n for n in array.shape if n > 1] != [n for n in shape if n > 1]:
            raise WeightsError(
                f"the file of SFace holds {name!r} of shape {shape}. "
                f"Received: {'nothing' if array is None else array.shape}"
            )
        return array.reshape(shape)

    def normalize(self, x: Any, name: str) -> Any:
        """Append a batch normalisation with the file's weights and epsilon."""
        from keras import layers

        if f"{name}_gamma" not in self.epsilons:
            raise WeightsError(f"the file of SFace holds no normalisation {name!r}")
        layer = layers.BatchNormalization(epsilon=self.epsilons[f"{name}_gamma"], name=name)
        x = layer(x)
        parts = ("gamma", "beta", "moving_mean", "moving_var")
        layer.set_weights([self.take(f"{name}_{part}", (x.shape[-1],)) for part in parts])
        return x

    def check_rest(self) -> None:
        """Refuse a file with anything left but the pixels' mean and scale."""
        left = sorted(self.arrays)
        numbers = sorted(each.item() for each in self.arrays.values() if each.size == 1)
        if len(left) != 2 or not np.allclose(numbers, [_PIXEL_SCALE, _PIXEL_MEAN]):
            raise WeightsError(
                "beside its layers, the file of SFace holds the pixels' scale 1/128 and mean "
                f"127.5. Received: {left}"
            )
