"""Networks in whole numbers of 8 bits, which take less than half the time of float32.

Weights are rounded channel by channel, activations by the range that they have on faces (Jacob and
others, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018). The faces come with this package: 32 of invented people, so that nothing has to
be fetched and the same network comes out everywhere.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from face_encode.encoders.conversion import INPUT_NAME, first_line_of
from face_encode.errors import EngineError
from face_encode.terminal import import_onnx_runtime, without_native_notices
from face_encode.types import CropRecipe, Embeddings, ImageArray

MIN_COSINE = 0.98
"""How near an embedding has to be to that of Keras, on each of the faces."""
MAX_QUALITY_DIFFERENCE = 0.1
"""How far the quality of a face may be from that by Keras."""

# The sheet of faces, those of verify_dataset and examples: chips of 128x128 with a margin of 0.25.
_SHEET, _ROWS, _COLUMNS, _MEASURED = "invented_faces.jpg", 4, 8, 24
# What lies between convolutions is rounded too, so that numbers stay whole from one to the next;
# what follows the last, the embedding and the quality's head, is not.
_ROUNDED = ["Conv", "Relu", "Clip", "MaxPool", "Add"]


class InventedFaces(NamedTuple):
    """Faces of invented people, framed about as a crop recipe cuts them out.

    Attributes:
        measured: uint8 ``(24, height, width, 3)``, on which activations are measured.
        compared: uint8 ``(16, height, width, 3)``, of other photos, each with its mirror image.
    """

    measured: ImageArray
    compared: ImageArray


def invented_faces(recipe: CropRecipe) -> InventedFaces:
    """The faces in the size of a recipe.

    Raises:
        EngineError: The recipe is of several encoders as one, each of which has a frame of its own.
    """
    import cv2

    if recipe.parts:
        raise EngineError("the engine 'int8' runs single encoders, not several as one")
    content = (resources.files("face_encode.encoders") / _SHEET).read_bytes()
    sheet = cast(ImageArray, cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))
    size = (recipe.width, recipe.height)
    faces = [
        cv2.cvtColor(cv2.resize(face, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
        for row in np.split(sheet, _ROWS)
        for face in np.split(row, _COLUMNS, axis=1)
    ]
    others = faces[_MEASURED:]
    return InventedFaces(
        np.stack(faces[:_MEASURED]), np.stack([*others, *(face[:, ::-1] for face in others)])
    )


def smallest_cosine(expected: Embeddings, received: Embeddings) -> float:
    """The smallest cosine of two embeddings of one face.

    Args:
        expected: float32 ``(N, D)``.
        received: The same shape.

    Returns:
        -1 to 1; NaN if an embedding has no direction.
    """
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(received, axis=1)
    with np.errstate(all="ignore"):
        return float(((expected * received).sum(axis=1) / lengths).min())


def quantize(content: bytes, faces: ImageArray) -> bytes:
    """Round a network.

    Args:
        content: An ONNX file, as ``convert`` makes it.
        faces: uint8 ``(N, height, width, 3)``, on which the activations' ranges are measured.

    Returns:
        The content of an ONNX file that takes and gives the same.

    Raises:
        EngineError: ONNX Runtime cannot round it.
    """
    # It logs on the root logger, which without a handler would get one for good.
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        import_onnx_runtime()
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with (
            tempfile.TemporaryDirectory(prefix="face_encode-") as folder,
            without_native_notices(),
        ):
            given, prepared, rounded = (
                Path(folder, f"{name}.onnx") for name in ("given", "prepared", "rounded")
            )
            given.write_bytes(content)
            quant_pre_process(given, prepared, skip_symbolic_shape=True)
            quantization.quantize_static(
                prepared,
                rounded,
                _Faces(faces),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=_ROUNDED,
            )
            return rounded.read_bytes()
    # It raises whatever a foreign graph trips over.
    except Exception as error:
        raise EngineError(
            f"the network cannot be rounded to int8: {first_line_of(error)}"
        ) from error
    finally:
        logging.root.removeHandler(handler)


class _Faces:
    """Hands out faces one at a time, as ONNX Runtime's ``CalibrationDataReader``."""

    def __init__(self, faces: ImageArray) -> None:
        self._faces: Iterator[dict[str, Any]] = ({INPUT_NAME: face[None]} for face in faces)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._faces, None)
