"""The engine ``onnx``: ONNX Runtime."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from face_encode.encoders.engines.engine import Network, pieces_of
from face_encode.types import Embeddings, ImageArray

# Its own levels: 3 tells of errors only.
_ERRORS_ONLY = 3


def open_onnx_runtime(content: bytes, threads: int) -> Network:
    """Open a network in ONNX Runtime, on the processor.

    A batch of at least as many images as threads is divided among them; of a smaller one, the
    threads share each layer.

    Args:
        content: The ONNX file.
        threads: How many processor cores to use.
    """
    shared = _session(content, threads)
    if threads == 1:
        return _run(shared)
    one_core = _run(_session(content, 1))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="face_encode-onnx")
    together = _run(shared)

    def run(images: ImageArray) -> Embeddings:
        if len(images) < threads:
            return together(images)
        return np.concatenate(list(pool.map(one_core, pieces_of(images, threads))))

    return run


def _session(content: bytes, threads: int) -> Any:
    """A session that so many cores work for."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run(session: Any) -> Network:
    """A session may be run by any number of threads at once."""
    name = session.get_inputs()[0].name

    def run(images: ImageArray) -> Embeddings:
        (embeddings,) = session.run(None, {name: images})
        return np.asarray(embeddings, np.float32)

    return run
