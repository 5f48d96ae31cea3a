"""GhostFaceNet: a network of cheap feature maps, as a native Keras model.

Alansari et al., "GhostFaceNets: Lightweight Face Recognition Model From Cheap Operations", 2023;
GhostFaceNetV1 of width 1.3 and stride 1. The weights and the scaling of the pixels,
(x - 127.5) / 128, are the authors' (DeepFace feeds blue, green, red of 0..1 unless told otherwise).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.facenet_files import load_keras_weights
from face_encode.types import CropRecipe
from face_encode.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    import keras

GHOSTFACENET_CONTRACT = EncoderContract(
    name="ghostfacenet",
    crop=CropRecipe("arcface", 112, 112),
    # DeepFace's threshold, a cosine distance of 0.65; for its own pixels.
    threshold=0.35,
    trained_on="MS1MV3, a cleaned MS-Celeb-1M: 5.2 million photos of 93,000 people, by its authors",
    licence=KNOWN_WEIGHTS["ghostfacenet"].licence,
)

# Of each bottleneck: window of the depthwise convolution, stride, inner channels, channels out, and
# channels of the squeeze-and-excitation (0 for none).
_BOTTLENECKS = (
    (3, 1, 20, 20, 0),
    (3, 2, 64, 32, 0),
    (3, 1, 92, 32, 0),
    (5, 2, 92, 52, 24),
    (5, 1, 156, 52, 40),
    (3, 2, 312, 104, 0),
    (3, 1, 260, 104, 0),
    (3, 1, 240, 104, 0),
    (3, 1, 240, 104, 0),
    (3, 1, 624, 144, 156),
    (3, 1, 872, 144, 220),
    (5, 2, 872, 208, 220),
    (5, 1, 1248, 208, 0),
    (5, 1, 1248, 208, 312),
    (5, 1, 1248, 208, 0),
    (5, 1, 664, 208, 168),
)


def ghostfacenet(content: bytes) -> keras.Model:
    """Build the network with the weights of the authors' file.

    Args:
        content: The file ``GhostFaceNet_W1.3_S1_ArcFace.h5``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 112, 112, 3)`` in; float32 ``(N, 512)`` out, not normalised.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    import keras
    from keras import layers

    inputs = keras.Input((112, 112, 3), name="rgb")
    x = layers.Rescaling(1 / 128, -127.5 / 128, name="pixels")(inputs)
    x = _prelu(_convolve(x, 20, 3))
    for bottleneck in _BOTTLENECKS:
        x = _bottleneck(x, *bottleneck)
    x = _prelu(_convolve(x, 664))
    x = _depthwise(x, x.shape[1], padding="valid")
    x = layers.Flatten(name="flatten")(layers.Conv2D(512, 1, name="projection")(x))
    model = keras.Model(inputs, _normalize(x), name="ghostfacenet")
    load_keras_weights(model, content)
    return model


def _bottleneck(x: Any, window: int, stride: int, inner: int, filters: int, squeezed: int) -> Any:
    """Append two ghost modules, with a stride and an excitation between them, and a shortcut."""
    from keras import layers

    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = _convolve(_depthwise(x, window, stride), filters)
    x = _ghost(x, inner, _prelu)
    if stride > 1:
        x = _depthwise(x, window, stride)
    if squeezed:
        x = _excite(x, squeezed)
    x = _ghost(x, filters, lambda tensor: tensor)
    return layers.Add()([shortcut, x])


def _ghost(x: Any, filters: int, activation: Any) -> Any:
    """Append half the channels by a convolution, the other half cheaply from those."""
    from keras import layers

    half = activation(_convolve(x, filters // 2))
    return layers.Concatenate()([half, activation(_depthwise(half, 3))])


def _excite(x: Any, squeezed: int) -> Any:
    """Scale each channel by a factor that depends on the means of all (squeeze-and-excitation)."""
    from keras import layers

    channels = x.shape[-1]
    factor = layers.Reshape((1, 1, channels))(layers.GlobalAveragePooling2D()(x))
    factor = layers.Conv2D(channels, 1)(_prelu(layers.Conv2D(squeezed, 1)(factor)))
    # The hard sigmoid of Keras 2, which had other slopes than that of Keras 3.
    factor = layers.ReLU(max_value=1.0)(layers.Rescaling(0.2, 0.5)(factor))
    return layers.Multiply()([x, factor])


def _convolve(x: Any, filters: int, window: int = 1) -> Any:
    """Append a convolution without a bias, and its normalisation."""
    from keras import layers

    return _normalize(layers.Conv2D(filters, window, padding="same", use_bias=False)(x))


def _depthwise(x: Any, window: int, stride: int = 1, padding: str = "same") -> Any:
    """Append a convolution of each channel by itself, and its normalisation."""
    from keras import layers

    return _normalize(layers.DepthwiseConv2D(window, stride, padding, use_bias=False)(x))


def _normalize(x: Any) -> Any:
    """Append a batch normalisation."""
    import keras

    return keras.layers.BatchNormalization(epsilon=1e-3)(x)


def _prelu(x: Any) -> Any:
    """Append a relu whose slope below 0 was learnt, one a channel."""
    import keras

    return keras.layers.PReLU(shared_axes=(1, 2))(x)
