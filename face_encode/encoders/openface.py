"""OpenFace: the Inception network nn4.small2 of Amos et al., as a native Keras model.

Amos, Ludwiczuk and Satyanarayanan, "OpenFace: A general-purpose face recognition library with
mobile applications", 2016. DeepFace distributes the weights, after
github.com/iwantooxxoox/Keras-OpenFace. Alignment and pixels are OpenFace's own: the outer corners
of the eyes and the nose at fixed places, pixels of 0..1 (DeepFace feeds blue, green, red).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.facenet_files import load_keras_weights
from face_encode.types import CropRecipe
from face_encode.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    import keras

OPENFACE_CONTRACT = EncoderContract(
    name="openface",
    crop=CropRecipe("openface", 96, 96),
    # The authors' mean threshold on LFW, a squared distance of 0.99 between embeddings of length 1
    # (evaluation/lfw.nn4.small2.v1/accuracies.txt): a cosine of 1 - 0.99 / 2.
    threshold=0.505,
    trained_on="CASIA-WebFace and FaceScrub, by its authors",
    licence=KNOWN_WEIGHTS["openface"].licence,
)

# Of each Inception block: its name; channels of the branches of 3x3 and 5x5, before and in the
# window; the kind of pooling, the channels after it, and the zeros around it (top and left, bottom
# and right); channels of the branch of 1x1; stride. 0 or () where the block has no such branch.
_BLOCKS = (
    ("3a", (96, 128), (16, 32), "maximum", 32, (3, 4), 64, 1),
    ("3b", (96, 128), (32, 64), "length", 64, (4, 4), 64, 1),
    ("3c", (128, 256), (32, 64), "maximum", 0, (0, 1), 0, 2),
    ("4a", (96, 192), (32, 64), "length", 128, (2, 2), 256, 1),
    ("4e", (160, 256), (64, 128), "maximum", 0, (0, 1), 0, 2),
    ("5a", (96, 384), (), "length", 96, (1, 1), 256, 1),
    ("5b", (96, 384), (), "maximum", 96, (1, 1), 256, 1),
)


def openface(content: bytes) -> keras.Model:
    """Build the network with the weights of DeepFace's file.

    Args:
        content: The file ``openface_weights.h5``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 96, 96, 3)`` in; float32 ``(N, 128)`` of length 1 out.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    import keras
    from keras import layers

    inputs = keras.Input((96, 96, 3), name="rgb")
    x = layers.Rescaling(1 / 255, name="pixels")(inputs)
    x = _convolve(x, 64, 7, 2, "conv1")
    x = layers.MaxPooling2D(3, 2, name="pool1")(layers.ZeroPadding2D(1, name="pool1_pad")(x))
    x = _convolve(_normalize_response(x, "lrn1"), 64, 1, 1, "conv2")
    x = _normalize_response(_convolve(x, 192, 3, 1, "conv3"), "lrn2")
    x = layers.MaxPooling2D(3, 2, name="pool2")(layers.ZeroPadding2D(1, name="pool2_pad")(x))
    for name, small, large, pooling, pooled, zeros, direct, stride in _BLOCKS:
        branches = []
        for window, channels in ((3, small), (5, large)):
            if channels:
                branch = _convolve(x, channels[0], 1, 1, f"{name}_{window}x{window}_reduce")
                branch = _convolve(branch, channels[1], window, stride, f"{name}_{window}x{window}")
                branches.append(branch)
        branch = _pool(x, pooling, name)
        if pooled:
            branch = _convolve(branch, pooled, 1, 1, f"{name}_pool")
        branches.append(layers.ZeroPadding2D((zeros, zeros), name=f"{name}_pool_pad")(branch))
        if direct:
            branches.append(_convolve(x, direct, 1, 1, f"{name}_1x1"))
        x = layers.Concatenate(name=f"{name}_join")(branches)
    x = layers.Flatten(name="flatten")(layers.AveragePooling2D(3, 1, name="average")(x))
    x = layers.UnitNormalization(name="unit_length")(layers.Dense(128, name="embedding")(x))
    model = keras.Model(inputs, x, name="openface")
    load_keras_weights(model, content)
    return model


def _convolve(x: Any, filters: int, window: int, stride: int, name: str) -> Any:
    """Append a convolution, its normalisation and relu, padded by zeros on all sides alike."""
    from keras import layers

    if window > 1:
        # With stride 2, "same" would pad the bottom and right only.
        x = layers.ZeroPadding2D(window // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(filters, window, stride, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _pool(x: Any, pooling: str, name: str) -> Any:
    """Append a pooling over 3x3: the maximum in steps of 2, or Euclidean lengths in steps of 3."""
    import keras

    if pooling == "maximum":
        return keras.layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x)
    mean = keras.layers.AveragePooling2D(3, 3, name=f"{name}_pool")(keras.ops.square(x))
    return keras.ops.sqrt(keras.ops.multiply(mean, 9.0))


def _normalize_response(x: Any, name: str) -> Any:
    """Divide by the strength of the 11 nearest channels (Krizhevsky et al., 2012).

    The channels are laid out as an image's columns, so that an average pooling, which every engine
    has, sums over the neighbours.
    """
    import keras
    from keras import layers

    rows, columns, channels = x.shape[1:]
    energy = layers.Reshape((rows * columns, channels, 1), name=f"{name}_rows")(keras.ops.square(x))
    energy = layers.ZeroPadding2D((0, 5), name=f"{name}_pad")(energy)
    energy = layers.AveragePooling2D((1, 11), 1, name=f"{name}_mean")(energy)
    energy = layers.Reshape((rows, columns, channels), name=f"{name}_image")(energy)
    strength = layers.Rescaling(11 * 1e-4, 1.0, name=f"{name}_strength")(energy)
    return keras.ops.multiply(x, keras.ops.power(strength, -0.75))
