from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from face_encode.encoders.encoder import Encoder
from face_encode.pipeline.embedding import PhotoCrops
from face_encode.server.recognition import EncodingBatcher
from face_encode.types import Box, Face, ImageArray


def photos_of(crops: ImageArray) -> list[PhotoCrops]:
    face = Face(Box(0, 0, 9, 9), 1.0)
    return [
        PhotoCrops(str(place), (face,), crop[np.newaxis], (9, 9))
        for place, crop in enumerate(crops)
    ]


class CountingEncoder:
    """The real encoder, with each call noted; the first waits until it is let go."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.calls: list[int] = []
        self.go = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._encoder, name)

    def embed(self, crops: ImageArray, *, batch_size: int) -> object:
        self.calls.append(len(crops))
        if len(self.calls) == 1:
            assert self.go.wait(120)
        return self._encoder.embed(crops, batch_size=batch_size)


def test_what_arrives_together_is_encoded_in_one_call(
    encoder: Encoder, colour_crops: ImageArray
) -> None:
    counting = CountingEncoder(encoder)
    batches: list[tuple[int, int]] = []

    async def ask_all() -> list[np.ndarray]:
        batcher = EncodingBatcher(counting, lambda *numbers: batches.append(numbers))  # type: ignore[arg-type]
        photos = photos_of(colour_crops[:12])
        first = asyncio.create_task(batcher.encode(photos[0]))
        while not counting.calls:
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(batcher.encode(photo)) for photo in photos[1:]]
        await asyncio.sleep(0.05)
        counting.go.set()
        done = [await each for each in (first, *others)]
        batcher.close()
        return [each.embeddings[0] for each in done]

    embeddings = asyncio.run(ask_all())
    assert counting.calls == [1, 11]
    assert batches == [(1, 1), (11, 11)]
    # Each photo gets its own embedding, not that of another in its batch.
    assert np.stack(embeddings) == pytest.approx(encoder.encode(colour_crops[:12]), abs=1e-5)


def test_a_batch_that_fails_fails_only_those_in_it(
    encoder: Encoder, colour_crops: ImageArray
) -> None:
    async def ask() -> list[object]:
        batcher = EncodingBatcher(encoder)
        wrong = photos_of(np.zeros((1, 7, 7, 3), np.uint8))[0]
        results: list[object] = []
        for photo in (wrong, photos_of(colour_crops[:1])[0]):
            results += await asyncio.gather(batcher.encode(photo), return_exceptions=True)
        batcher.close()
        return results

    failed, done = asyncio.run(ask())
    assert isinstance(failed, Exception)
    assert not isinstance(done, Exception)


def test_requests_at_once_share_batches(client: TestClient, people_photos: list[Path]) -> None:
    def numbers() -> tuple[float, float]:
        lines = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines())
        name = "face_encode_batch_faces"
        return float(lines[f"{name}_sum"]), float(lines[f"{name}_count"])

    faces, batches = numbers()
    contents = [path.read_bytes() for path in people_photos]

    def ask(content: bytes) -> int:
        return len(client.post("/v1/match", files={"photo": content}).json()["faces"])

    with ThreadPoolExecutor(12) as threads:
        found = sum(threads.map(ask, contents))
    more_faces, more_batches = numbers()
    assert more_faces - faces == found >= 24
    assert more_batches - batches <= found
