"""DeepID: the small network of Sun et al. (2014), as a native Keras model.

Sun, Wang and Tang, "Deep Learning Face Representation from Predicting 10,000 Classes", 2014. The
weights are those that DeepFace distributes, of the implementation github.com/Ruoyiran/DeepID. The
pixels are prepared as that implementation trained: red, green, blue of -1..1 (DeepFace feeds blue,
green, red of 0..1), of a square around the face, squeezed to 47x55.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.facenet_files import load_keras_weights
from face_encode.types import CropRecipe
from face_encode.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    import keras

DEEPID_CONTRACT = EncoderContract(
    name="deepid",
    crop=CropRecipe("box", height=55, width=47),
    # DeepFace's threshold, a cosine distance of 0.015; for its own pixels.
    threshold=0.985,
    trained_on="YouTube Faces: frames of videos of 1,595 people, by the implementation's author",
    licence=KNOWN_WEIGHTS["deepid"].licence,
)


def deepid(content: bytes) -> keras.Model:
    """Build the network with the weights of DeepFace's file.

    Args:
        content: The file ``deepid_keras_weights.h5``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 55, 47, 3)`` in; float32 ``(N, 160)`` out, none below 0, not
        normalised.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    import keras
    from keras import layers

    inputs = keras.Input((55, 47, 3), name="rgb")
    x = layers.Rescaling(1 / 127.5, -1.0, name="pixels")(inputs)
    for number, (filters, window) in enumerate(((20, 4), (40, 3), (60, 3)), start=1):
        x = layers.Conv2D(filters, window, activation="relu", name=f"conv{number}")(x)
        x = layers.MaxPooling2D(2, 2, name=f"pool{number}")(x)
    last = layers.Conv2D(80, 2, activation="relu", name="conv4")(x)
    ends = [
        layers.Dense(160, name=f"fc{number}")(layers.Flatten(name=f"flatten{number}")(features))
        for number, features in enumerate((x, last), start=1)
    ]
    outputs = layers.ReLU(name="embedding")(layers.Add(name="sum")(ends))
    model = keras.Model(inputs, outputs, name="deepid")
    load_keras_weights(model, content)
    return model
