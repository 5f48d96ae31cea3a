"""VGG-Face: Oxford's VGG16 for faces with its dense layers, as a native Keras model.

Parkhi, Vedaldi and Zisserman, "Deep Face Recognition", 2015. DeepFace distributes the weights; its
author tells how they were converted from Oxford's MatConvNet file
(sefiks.com/2019/07/15/how-to-convert-matlab-models-to-keras), which takes red, green, blue, less
the mean colour of the training (DeepFace feeds blue, green, red of 0..1 unless told otherwise).
The embedding is the last layer before the classifier, as DeepFace takes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.facenet_files import load_keras_weights
from face_encode.types import CropRecipe
from face_encode.weights import KNOWN_WEIGHTS

if TYPE_CHECKING:
    import keras

VGG_FACE_CONTRACT = EncoderContract(
    name="vgg_face",
    # A tenth more on every side, as for FaceNet: DeepFace's detectors frame the whole face, dlib's
    # box ends at the eyebrows.
    crop=CropRecipe("box", 224, 224, margin=0.1),
    # DeepFace's threshold, a cosine distance of 0.68; for its own pixels.
    threshold=0.32,
    trained_on="VGG Face: 2.6 million photos of 2,622 people, by its authors",
    licence=KNOWN_WEIGHTS["vgg_face"].licence,
)


def vgg_face(content: bytes) -> keras.Model:
    """Build the network with the weights of DeepFace's file.

    Args:
        content: The file ``vgg_face_weights.h5``, whole.

    Returns:
        RGB 0..255, float32 ``(N, 224, 224, 3)`` in; float32 ``(N, 4096)`` out, none below 0, not
        normalised.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    import keras
    from keras import layers

    from face_encode.encoders.vgg16 import vgg16_backbone

    backbone = vgg16_backbone((224, 224, 3), pixels="vggface")
    x = backbone.get_layer("block5_pool").output
    # Replaced at once; drawing 145 million at random takes seconds.
    x = layers.Conv2D(4096, 7, activation="relu", kernel_initializer="zeros", name="fc6")(x)
    x = layers.Conv2D(4096, 1, activation="relu", kernel_initializer="zeros", name="fc7")(x)
    classes = layers.Conv2D(2622, 1, kernel_initializer="zeros", name="fc8")(x)
    # The file holds the classifier, too: every array in it is checked.
    load_keras_weights(keras.Model(backbone.inputs, classes, name="vgg_face"), content)
    embedding = layers.Flatten(name="embedding")(x)
    return keras.Model(backbone.inputs, embedding, name="vgg_face")
