"""Export of an encoder as one file for other programs, with JSON that says how to use it.

The file takes crops and gives embeddings: the pixels' scaling and the mean over the mirror image
are part of it. The JSON beside it says the rest: how faces are cut out, from which similarity two
count as one person.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from face_encode.encoders.conversion import (
    INPUT_NAME,
    ONNX_CONVERTERS,
    OUTPUT_NAME,
    FileFormat,
    convert,
    first_line_of,
    require,
)
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import (
    MAX_DIFFERENCE,
    Network,
    largest_difference,
    open_onnx_runtime,
    probe_crops,
)
from face_encode.errors import EngineError, InputError
from face_encode.files import as_path, check_writable, replacing
from face_encode.types import CropMethod, CropRecipe, Embeddings, ImageArray
from face_encode.version import __version__

NOTE_VERSION = 1
"""Version of the JSON beside an exported file."""

_FORMATS: dict[str, FileFormat] = {".onnx": "onnx", ".tflite": "tflite"}
_OUTPUT_NAMES = {"onnx": OUTPUT_NAME, "tflite": "output_0"}
_TFLITE_SIGNATURE = "serving_default"
_CROP_IN_WORDS: dict[CropMethod, str] = {
    "dlib_chip": "Find the face and dlib's five landmarks (shape_predictor_5_face_landmarks.dat); "
    "then dlib.get_face_chip(photo, landmarks, size=height, padding=margin), which turns the face "
    "upright.",
    "arcface": "Find the face and five points: the centres of the eyes, the tip of the nose and "
    "the corners of the mouth. Map the photo by the similarity transform (turn, scale, shift) that "
    "brings them nearest to (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, "
    "92.3655) and (70.7299, 92.2041): x and y in a square of 112 pixels, which is scaled to width "
    "x height, with the share 'margin' added on every side.",
    "openface": "Find the face and dlib's five landmarks (shape_predictor_5_face_landmarks.dat). "
    "Map the photo by the affine transform that brings the third, the first and the fifth, the "
    "outer corners of the eyes and the base of the nose, to (18.639, 16.25), (75.73, 15.184) and "
    "(47.515, 49.386): x and y in a square of 96 pixels, which is scaled to width x height, with "
    "the share 'margin' added on every side.",
    "stack": "Cut out the crops of all 'parts', and put them one below the other, each in the "
    "middle of the width, black at its sides.",
    "box": "Grow the detector's box by the share 'margin' of its width and height on every side, "
    "cut off what lies outside the photo, and resize it to width x height without keeping its "
    "proportions (OpenCV's INTER_AREA to make it smaller, INTER_LINEAR to make it larger).",
    "surroundings": "Grow the detector's box by the share 'margin' of its width and height on "
    "every side; shrink what is larger than the photo about its centre until it fits, and move "
    "what reaches out of the photo into it. Resize it to width x height without keeping its "
    "proportions (OpenCV's INTER_LINEAR).",
}


@dataclass(frozen=True)
class ExportedEncoder:
    """Result of an export.

    Attributes:
        path: The model file.
        note_path: The JSON beside it.
        difference: The largest difference of its embeddings from those of Keras, on synthetic
            crops; see ``face_encode.encoders.engines.largest_difference``.
    """

    path: Path
    note_path: Path
    difference: float


def export_encoder(encoder: Encoder, path: str | os.PathLike[str]) -> ExportedEncoder:
    """Write an encoder as one file for other programs, and JSON that says how to use it.

    Both are written atomically, and only if the file's embeddings are within 1e-3 of those of
    Keras.

    Args:
        encoder: Any encoder.
        path: The file, ending in ``.onnx``, or in ``.tflite`` for TensorFlow Lite. The JSON's name
            is the same, followed by ``.json``.

    Raises:
        InputError: The path ends otherwise.
        MissingExtraError: A library that the format takes is not installed.
        EngineError: The encoder cannot be converted, its embeddings then differ, or the files
            cannot be written.
    """
    path = as_path(path)
    file_format = check_export_path(path)
    content = convert(encoder.model, encoder.contract, file_format, mirror=encoder.contract.mirror)
    difference = _difference(encoder, content, file_format)
    if not difference <= MAX_DIFFERENCE:  # so that NaN is refused
        raise EngineError(
            f"{path} was not written: embeddings may differ from those of Keras by "
            f"{MAX_DIFFERENCE:g} at most. Received: a largest difference of {difference:.2g}"
        )
    note_path = _note_path(path)
    note = _note(encoder, path, content, difference)
    with (
        replacing(note_path, EngineError, shared=True) as new_note,
        replacing(path, EngineError, shared=True) as new_file,
    ):
        new_file.write_bytes(content)
        new_note.write_text(json.dumps(note, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return ExportedEncoder(path, note_path, difference)


def check_export_path(path: Path) -> FileFormat:
    """Refuse a path that cannot be exported to, before the seconds that loading a model takes.

    Returns:
        The format that the ending stands for.

    Raises:
        InputError: The path ends otherwise than in ``.onnx`` or ``.tflite``.
        MissingExtraError: A library that the format takes is not installed.
        EngineError: The path cannot be written to.
    """
    if path.suffix not in _FORMATS:
        raise InputError(f"an exported file ends in {' or '.join(_FORMATS)}. Received: {path}")
    file_format = _FORMATS[path.suffix]
    if file_format == "onnx":
        require("exporting to ONNX", (*ONNX_CONVERTERS, "onnxruntime"))
    for output in (path, _note_path(path)):
        check_writable(output, EngineError)
    return file_format


def _note_path(path: Path) -> Path:
    """The JSON beside an exported file."""
    return path.with_name(f"{path.name}.json")


def _note(encoder: Encoder, path: Path, content: bytes, difference: float) -> dict[str, Any]:
    """Describe an exported file, in plain JSON values."""
    contract, file_format = encoder.contract, _FORMATS[path.suffix]
    crop = contract.crop
    mirror = "inside the file: the mean over the crop and its mirror image"
    return {
        "note_version": NOTE_VERSION,
        "file": {
            "name": path.name,
            "format": file_format,
            "sha256": hashlib.sha256(content).hexdigest(),
        },
        "encoder": {
            "name": contract.name,
            "fingerprint": encoder.fingerprint,
            "trained_on": contract.trained_on,
            "licence": contract.licence,
        },
        "crop": {
            **crop.as_dict(),
            "in_words": " ".join(_CROP_IN_WORDS[part.method] for part in (crop, *crop.parts)),
        },
        "input": {
            "name": INPUT_NAME,
            "shape": ["any number of crops", crop.height, crop.width, 3],
            "type": "uint8",
            "colours": "red, green, blue",
            "pixel_range": [0, 255],
            "scaling": "inside the file: give the pixels as they are",
        },
        "output": {
            "name": _OUTPUT_NAMES[file_format],
            "shape": ["one for each crop", encoder.embedding_size],
            "type": "float32",
            "mirror": mirror if contract.mirror else "none",
            "length": "as the network gives it; divide by it before a dot product",
        },
        "comparison": {
            "metric": contract.metric,
            "threshold": contract.threshold,
            "false_match_rate": contract.false_match_rate,
            "euclidean_threshold": contract.euclidean_threshold,
            "in_words": "two faces count as one person where the cosine of their embeddings is at "
            "least 'threshold'",
        },
        "largest_difference_from_keras": difference,
        "package": {"name": "face_encode", "version": __version__},
    }


def _difference(encoder: Encoder, content: bytes, file_format: FileFormat) -> float:
    """Compare the file's embeddings with those of Keras, in batches of two sizes."""
    by_keras = Encoder(encoder.model, encoder.contract)
    crops = probe_crops(encoder.contract.crop)
    expected = by_keras.encode(crops)
    try:
        is_onnx = file_format == "onnx"
        crop = encoder.contract.crop
        network = open_onnx_runtime(content, 1) if is_onnx else _open_tflite(content, crop)
        whole = largest_difference(expected, network(crops))
        return max(whole, largest_difference(expected[-1:], network(crops[-1:])))
    # Each library raises types of its own.
    except Exception as error:
        raise EngineError(
            f"the converted file of {encoder.name!r} cannot be run: {first_line_of(error)}"
        ) from error


def _open_tflite(content: bytes, crop: CropRecipe) -> Network:
    """Open a network in the interpreter of TensorFlow Lite."""
    with warnings.catch_warnings():
        # TensorFlow's interpreter warns that it is deprecated in favour of ai_edge_litert.
        warnings.simplefilter("ignore")
        if importlib.util.find_spec("ai_edge_litert") is not None:
            from ai_edge_litert.interpreter import Interpreter
        else:
            import tensorflow as tf

            Interpreter = tf.lite.Interpreter
        interpreter = Interpreter(model_content=content)
    index = interpreter.get_input_details()[0]["index"]

    def network(images: ImageArray) -> Embeddings:
        interpreter.resize_tensor_input(index, (len(images), crop.height, crop.width, 3))
        run = interpreter.get_signature_runner(_TFLITE_SIGNATURE)
        return np.array(run(**{INPUT_NAME: images})[_OUTPUT_NAMES["tflite"]], np.float32)

    return network
