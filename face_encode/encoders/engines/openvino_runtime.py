"""The engine ``openvino``: OpenVINO, on the processor."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from face_encode.encoders.engines.engine import Network, pieces_of
from face_encode.types import Embeddings, ImageArray


def open_openvino(content: bytes, threads: int) -> Network:
    """Open a network in OpenVINO.

    A batch of at least as many images as threads is divided among them; of a smaller one, the
    threads share each layer.

    Args:
        content: The ONNX file.
        threads: How many processor cores to use.
    """
    import openvino

    core = openvino.Core()
    network = core.read_model(content)
    divided, together = (_compiled(core, network, threads, streams) for streams in (threads, 1))
    # Two threads that hand over images at once have brought OpenVINO's bindings to a standstill;
    # and a batch takes all cores by itself.
    lock = threading.Lock()

    def run(images: ImageArray) -> Embeddings:
        with lock:
            return _run(divided if len(images) >= threads else together, images)

    return run


def _compiled(core: Any, network: Any, threads: int, streams: int) -> list[Any]:
    """As many requests as run at once, each on its share of the cores."""
    compiled = core.compile_model(
        network,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            # On processors with bfloat16 that would be the default, and 2.5e-3 off.
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    return [compiled.create_infer_request() for _ in range(streams)]


def _run(requests: list[Any], images: ImageArray) -> Embeddings:
    """Divide images among requests; each of them runs one piece at a time."""
    pieces = pieces_of(images, len(requests))
    embeddings: list[Any] = []
    for number, piece in enumerate(pieces):
        if number >= len(requests):
            embeddings.append(_result(requests[number % len(requests)]))
        # A piece may be a view of a larger array; OpenVINO would take it to lie in one piece.
        requests[number % len(requests)].start_async([np.ascontiguousarray(piece)])
    for number in range(len(embeddings), len(pieces)):
        embeddings.append(_result(requests[number % len(requests)]))
    return np.concatenate(embeddings)


def _result(request: Any) -> Embeddings:
    """What a request gives when it is done; it uses the same memory again."""
    request.wait()
    return np.array(request.get_output_tensor(0).data, np.float32)
