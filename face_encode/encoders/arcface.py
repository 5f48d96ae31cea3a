"""ArcFace: a ResNet of 34 layers trained by the loss of Deng et al., as a native Keras model.

Deng et al., "ArcFace: Additive Angular Margin Loss for Deep Face Recognition", 2019. DeepFace
distributes the weights; its author names github.com/leondgarse/Keras_insightface as their source
("Resnet34 trained on CASIA, E40": deepface issue 905). The pixels are prepared as there:
(x - 127.5) / 128 (DeepFace feeds blue, green, red of 0..1 unless told otherwise).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.facenet_files import load_keras_weights
from face_encode.types import CropRecipe
from face_encode.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    import keras

ARCFACE_CONTRACT = EncoderContract(
    name="arcface",
    crop=CropRecipe("arcface", 112, 112),
    # DeepFace's threshold, a cosine distance of 0.68; for its own pixels.
    threshold=0.32,
    trained_on="CASIA-WebFace: 490,000 photos of 10,575 people (Keras_insightface)",
    licence=KNOWN_WEIGHTS["arcface"].licence,
)

# Channels and number of blocks of each stage; the first block halves the sides.
_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))


def arcface(content: bytes) -> keras.Model:
    """Build the network with the weights of DeepFace's file.

    Args:
        content: The file ``arcface_weights.h5``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 112, 112, 3)`` in; float32 ``(N, 512)`` out, not normalised.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    import keras
    from keras import layers

    inputs = keras.Input((112, 112, 3), name="rgb")
    x = layers.Rescaling(1 / 128, -127.5 / 128, name="pixels")(inputs)
    x = _prelu(_normalize(_convolve(x, 64, 3, 1, "conv1"), "conv1"), "conv1")
    for stage, (filters, blocks) in enumerate(_STAGES, start=2):
        for block in range(1, blocks + 1):
            x = _residual(x, filters, block == 1, f"conv{stage}_block{block}")
    x = layers.Flatten(name="flatten")(_normalize(x, "features"))
    x = _normalize(layers.Dense(512, name="dense")(x), "embedding")
    model = keras.Model(inputs, x, name="arcface")
    load_keras_weights(model, content)
    return model


def _residual(x: Any, filters: int, is_first: bool, name: str) -> Any:
    """Append a block: normalised, convolved, normalised, convolved, normalised; then added."""
    import keras

    stride = 2 if is_first else 1
    shortcut = x
    if is_first:
        shortcut = _normalize(_convolve(x, filters, 1, stride, f"{name}_0"), f"{name}_0")
    x = _convolve(_normalize(x, f"{name}_1"), filters, 3, 1, f"{name}_1")
    x = _prelu(_normalize(x, f"{name}_2"), f"{name}_1")
    x = _normalize(_convolve(x, filters, 3, stride, f"{name}_2"), f"{name}_3")
    return keras.layers.Add(name=f"{name}_add")([shortcut, x])


def _convolve(x: Any, filters: int, window: int, stride: int, name: str) -> Any:
    """Append a convolution without a bias, padded by zeros on all sides alike."""
    from keras import layers

    if window > 1:
        # With stride 2, "same" would pad the bottom and right only.
        x = layers.ZeroPadding2D(window // 2, name=f"{name}_pad")(x)
    return layers.Conv2D(filters, window, stride, use_bias=False, name=f"{name}_conv")(x)


def _normalize(x: Any, name: str) -> Any:
    """Append a batch normalisation."""
    import keras

    return keras.layers.BatchNormalization(epsilon=2e-5, name=f"{name}_bn")(x)


def _prelu(x: Any, name: str) -> Any:
    """Append a relu whose slope below 0 was learnt, one a channel."""
    import keras

    return keras.layers.PReLU(shared_axes=(1, 2), name=f"{name}_prelu")(x)
