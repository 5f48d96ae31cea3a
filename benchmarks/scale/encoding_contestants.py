"""What encodes faces: an encoder on an engine; see ``contestant.py``.

A request ``{"batch": …, "repeats": …}`` encodes ``batch`` crops in one call, ``repeats`` times; the
answer holds the seconds of each call.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.scale.contestant import Answer, Handler, MissingContestantError, answer_requests
from benchmarks.timing import seconds
from face_encode.encoders.contract import save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.facenet import (
    EMBEDDING_LAYER,
    FACENET_VGGFACE2_CONTRACT,
    NETWORK,
    Convolution,
    FloatArray,
    inception_resnet,
)
from face_encode.encoders.registry import KNOWN_ENCODERS, load_encoder
from face_encode.errors import EngineError, InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping

_EMBEDDING_SIZE = 512


def encoding(options: Answer) -> Handler:
    """An encoder on an engine, both by name; ``facenet`` also without its weights."""
    name, engine = options["encoder"], options["engine"]
    random_weights = name in KNOWN_ENCODERS and not KNOWN_ENCODERS[name].is_present
    try:
        encoder = (
            _facenet_at_random(engine) if random_weights else load_encoder(name, engine=engine)
        )
    except (MissingExtraError, EngineError, InputError) as error:
        raise MissingContestantError(str(error)) from error
    crop = encoder.contract.crop
    random = np.random.default_rng(0)
    largest = random.integers(0, 256, (options["largest"], crop.height, crop.width, 3), np.uint8)

    def handle(request: Answer) -> Answer:
        if "about" in request:
            return {"engine": encoder.engine, "random_weights": random_weights}
        crops = largest[: request["batch"]]
        call = partial(encoder.encode, crops)
        return {"seconds": [seconds(call)[0] for _ in range(request["repeats"])]}

    return handle


def _facenet_at_random(engine: str) -> Encoder:
    """FaceNet's network with weights of nobody's, which take as long as the real ones."""
    model = inception_resnet(random_facenet_weights(), "fixed", "facenet_vggface2")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "facenet.keras")
        save_encoder(model, path, FACENET_VGGFACE2_CONTRACT)
        encoder = load_encoder(path, engine=engine)
        # What is made at the first call may read the file.
        encoder.encode(
            np.zeros((1, encoder.contract.crop.height, encoder.contract.crop.width, 3), np.uint8)
        )
    return encoder


def random_facenet_weights() -> Mapping[str, tuple[FloatArray, ...]]:
    """Kernel and bias of every layer of Inception-ResNet-v1, drawn at random.

    Kernels are scaled by the number of their inputs (He et al., 2015), so that what goes through
    the network neither fades away nor overflows.
    """
    random = np.random.default_rng(0)
    weights: dict[str, tuple[FloatArray, ...]] = {}

    def draw(name: str, *shape: int, scale: float = 2.0) -> int:
        kernel = random.standard_normal(shape, np.float32)
        kernel *= np.float32(np.sqrt(scale / np.prod(shape[:-1])))
        weights[name] = (kernel, np.zeros(shape[-1], np.float32))
        return shape[-1]

    def convolution(part: Convolution, channels: int, scale: float = 2.0) -> int:
        return draw(part.name, part.rows, part.columns, channels, part.filters, scale=scale)

    channels = 3
    for block in NETWORK:
        joined = channels if block.pooled else 0
        for branch in block.branches:
            end = channels
            for each in branch:
                end = convolution(each, end)
            joined += end
        channels = joined
        if block.projection is not None:
            # Added to what came in, many times over: small, as in a trained network.
            channels = convolution(block.projection, joined, scale=0.1)
    draw(EMBEDDING_LAYER, channels, _EMBEDDING_SIZE)
    return weights


if __name__ == "__main__":
    answer_requests({"encoding": encoding})
