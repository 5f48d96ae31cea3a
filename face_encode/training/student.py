"""The student of a distillation: how it begins, what it sees, and how it becomes an encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.vgg16 import BLOCKS, vgg_embedding
from face_encode.errors import InputError, ModelFileError
from face_encode.training.surgery import fold_batch_normalization, widened
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


def earlier_student(path: Path, width: float, embedding_size: int) -> keras.Model:
    """Open the student of an earlier run, widened where more width is wanted.

    Args:
        path: Its ``student.keras``.
        width: The width wanted, a whole multiple of its own.
        embedding_size: Length D of its embedding.

    Raises:
        ModelFileError: The file is missing, or no Keras model.
        InputError: It has another embedding, or a width that widening does not lead to.
    """
    try:
        student = keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras raises whatever a foreign file trips over, from KeyError to its own types.
    except Exception as error:
        raise ModelFileError(f"Keras cannot load {path}: {error}") from error
    wanted = round(BLOCKS[0][0] * width)
    own = next(
        (layer.filters for layer in student.layers if isinstance(layer, keras.layers.Conv2D)), 0
    )
    if not own or wanted % own or student.output_shape[-1] != embedding_size:
        raise InputError(
            f"{path}: a student to go on from has embeddings of {embedding_size} numbers, and a "
            f"first convolution of {wanted} channels or a whole part of that. "
            f"Received: {student.output_shape[-1]} numbers, {own} channels"
        )
    return widened(student, wanted // own) if wanted > own else student


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
