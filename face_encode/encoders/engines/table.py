"""The table of engines."""

from __future__ import annotations

from face_encode.encoders.engines.engine import Engine
from face_encode.encoders.engines.onnx_runtime import open_onnx_runtime
from face_encode.encoders.engines.openvino_runtime import open_openvino

AUTOMATIC = "auto"
KERAS = "tensorflow"
"""Keras itself, on whatever backend it runs on."""

# Of two that are about as fast, the earlier is taken.
ENGINES = {
    engine.name: engine
    for engine in (
        Engine("onnx", "onnxruntime", "onnxruntime", "onnx", open_onnx_runtime),
        Engine("openvino", "openvino", "openvino", "openvino", open_openvino),
    )
}


def engine_names() -> tuple[str, ...]:
    """What may be asked for."""
    return (AUTOMATIC, KERAS, *ENGINES)
