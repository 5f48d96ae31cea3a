"""The student of a distillation: how it begins, what it sees, and how it becomes an encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace

import keras
import numpy as np

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.vgg16 import vgg_embedding
from face_encode.training.surgery import fold_batch_normalization
from face_encode.training.views import middle_of
from face_encode.types import Embeddings, ImageArray


def vgg16_student(
    width: float, mixed_precision: bool, side: int, embedding_size: int
) -> keras.Model:
    """Build VGG16 with batch normalisation behind every convolution.

    Args:
        width: Multiplies the channels of every convolution.
        mixed_precision: Whether it computes in bfloat16.
        side: Rows and columns of its input.
        embedding_size: Length D of its embedding.
    """
    former = keras.config.dtype_policy()
    if mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        # With so many views and mixtures nothing is left for dropout to do.
        return vgg_embedding(
            (side, side, 3), embedding_size, dropout=0.0, width=width, batch_normalization=True
        )
    finally:
        keras.config.set_dtype_policy(former)


@dataclass(frozen=True, eq=False)
class StudentFrame:
    """What lies between a student in training and an encoder like any other.

    Attributes:
        contract: The finished encoder's, but for the size of its crops.
        share: How much of the side of the teacher's crop the student sees.
        mean: The teacher's mean embedding ``(D,)``.
        scale: The standard deviation about it, one number.
    """

    contract: EncoderContract
    share: float
    mean: Embeddings
    scale: float

    def seen(self, crops: ImageArray, side: int) -> ImageArray:
        """What a student of that size sees of the teacher's crops."""
        return middle_of(np.asarray(crops), side, self.share)

    def centred(self, answers: Embeddings) -> Embeddings:
        """The teacher's embeddings, ``(N, D)``, as the student learns them.

        Embeddings of faces share a large mean, beside which their differences are small.
        """
        centred: Embeddings = (answers - self.mean) / self.scale
        return centred

    def finish(self, trained: keras.Model) -> Encoder:
        """The student as an encoder of its own, which gives embeddings like the teacher's.

        Its weights are copies; training further does not change it.
        """
        folded = fold_batch_normalization(trained)
        kernel, bias = folded.layers[-1].get_weights()
        folded.layers[-1].set_weights([kernel * self.scale, bias * self.scale + self.mean])
        side = trained.input_shape[1]
        crop = replace(self.contract.crop, height=side, width=side)
        return Encoder(folded, replace(self.contract, crop=crop))
