from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from face_encode.encoders.encoder import Encoder
from face_encode.model import Face_Encode_Model
from face_encode.pipeline.embedding import PhotoCrops
from face_encode.server.bodies import SentPhoto
from face_encode.server.problems import Problem
from face_encode.server.recognition import TOO_SLOW, DetectionPool, EncodingBatcher
from face_encode.server.settings import Limits
from face_encode.types import Box, CropRecipe, Face, ImageArray
from tests.server.conftest import Serve
from tests.server.endless import Endless


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


def sent(image: ImageArray) -> SentPhoto:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return SentPhoto("sent.png", file.getvalue())


NOISE = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
RECIPE = CropRecipe("box", 9, 9)
SLOW, FINE, DEADLY = sent(np.full_like(NOISE, 9)), sent(NOISE), sent(np.zeros_like(NOISE))


@asynccontextmanager
async def pool(workers: int, seconds: int) -> AsyncIterator[DetectionPool]:
    """A pool that is started, and so has no photo wait for imports."""
    found = DetectionPool(workers, Limits(photo_seconds=seconds), max_waiting=4)
    try:
        await found.start()
        yield found
    finally:
        await found.close()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_photo_has_its_time_and_others_go_on() -> None:
    async def ask() -> None:
        async with pool(2, seconds=10) as processes:
            slow = asyncio.create_task(processes.find(SLOW, 1, Endless(), RECIPE, False))
            await asyncio.sleep(0)
            fine = await processes.find(FINE, 1, Endless(), RECIPE, False)
            assert fine.error is None and len(fine.crops) == 1
            # It is waited for until its process is done.
            assert (slow.done(), processes.waiting) == (False, 1)
            assert (await slow).error == TOO_SLOW
            assert (processes.waiting, processes.workers_ready) == (0, 1)
            await until(lambda: processes.workers_ready == 2)
            # Both processes work again.
            both = (processes.find(FINE, 1, Endless(), RECIPE, False) for _ in range(2))
            assert [each.error for each in await asyncio.gather(*both)] == [None, None]

    asyncio.run(ask())


def test_a_request_that_is_given_up_does_not_free_its_process() -> None:
    async def ask() -> None:
        async with pool(1, seconds=10) as processes:
            slow = asyncio.create_task(processes.find(SLOW, 1, Endless(), RECIPE, False))
            behind = [
                asyncio.create_task(processes.find(FINE, 1, Endless(), RECIPE, False))
                for _ in range(3)
            ]
            await until(lambda: processes.waiting == 4)
            assert processes.is_full
            for task in (slow, behind[0]):
                task.cancel()
            await asyncio.gather(slow, behind[0], return_exceptions=True)
            # The one that had not begun is gone, the one in the process is not.
            assert processes.waiting == 3
            assert [each.error for each in await asyncio.gather(*behind[1:])] == [None, None]
            assert processes.waiting == 0

    asyncio.run(ask())


def test_a_photo_that_ends_its_process_gets_a_second_one_and_no_third() -> None:
    async def ask() -> None:
        async with pool(2, seconds=60) as processes:
            deadly = asyncio.create_task(processes.find(DEADLY, 1, Endless(), RECIPE, False))
            for _ in range(5):
                assert (await processes.find(FINE, 1, Endless(), RECIPE, False)).error is None
            with pytest.raises(Problem) as error:
                await deadly
            assert error.value.status == 503
            await until(lambda: processes.workers_ready == 2)
            assert (await processes.find(FINE, 1, Endless(), RECIPE, False)).error is None

    asyncio.run(ask())


def test_a_photo_that_takes_too_long_is_told_from_one_that_is_damaged(
    serve: Serve, empty_model: Face_Encode_Model
) -> None:
    empty_model.detector = Endless()
    with serve(limits=Limits(photo_seconds=5)) as client:
        answer = client.post("/v1/match", files={"photo": SLOW.content})
        assert answer.status_code == 422
        assert answer.json()["type"].endswith(":photo-takes-too-long")
        enrolment = client.post("/v1/people", files={"photos": SLOW.content}, data={"name": "A"})
        assert enrolment.status_code == 422
        (row,) = enrolment.json()["left_out"]
        assert "took too long" in row["reason"]
        # Ready again as soon as there is a process.
        for _ in range(1_000):
            ready = client.get("/readyz")
            if ready.status_code == 200:
                break
            assert ready.json()["type"].endswith(":no-process")
            time.sleep(0.05)
        assert ready.status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="a bound of Linux")
def test_decoding_has_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(sent(np.zeros((6000, 6000, 3), np.uint8)).content)
    program = """
import sys
from pathlib import Path
from face_encode.errors import ImageError
from face_encode.photos.reading import decode_image
from face_encode.pipeline.workers import limited_memory

content = Path(sys.argv[1]).read_bytes()
try:
    with limited_memory(20_000_000):
        decode_image(content)
except ImageError as error:
    print(error)
print(decode_image(content).shape)
"""
    # In a process of its own: what other tests leave behind may free memory meanwhile.
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "photo")],
        capture_output=True,
        check=True,
        text=True,
    )
    refused, shape = run.stdout.splitlines()
    assert "not enough memory" in refused
    assert shape == "(6000, 6000, 3)"
