"""From photos that were sent to embeddings: found in processes, encoded together."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import loky
import numpy as np

from face_encode.detectors.base import Detector
from face_encode.detectors.registry import ThoroughDetector
from face_encode.encoders.encoder import BATCH_SIZE, Encoder
from face_encode.errors import ImageError
from face_encode.photos.reading import decode_image
from face_encode.pipeline.embedding import (
    NO_EMBEDDING,
    NO_FACE,
    EmbeddedPhoto,
    PhotoCrops,
    encode_together,
    find_in_photos,
)
from face_encode.pipeline.workers import ONE_THREAD, end_with
from face_encode.server.bodies import SentPhoto
from face_encode.server.metrics import Metrics
from face_encode.server.problems import Problem, too_busy
from face_encode.server.settings import ServerSettings
from face_encode.types import CropRecipe

if TYPE_CHECKING:
    from concurrent.futures import Future


class EncodingBatcher:
    """Encodes whatever has come in while the last batch was encoded, in one call.

    Nothing waits for others to come: a lone request is encoded at once, and the more there are,
    the larger the batches grow by themselves.
    """

    def __init__(
        self, encoder: Encoder, on_batch: Callable[[int, int], None] = lambda photos, faces: None
    ) -> None:
        """Take an encoder.

        Args:
            encoder: Embeds the faces.
            on_batch: Is told the numbers of photos and of faces of each batch.
        """
        self._encoder = encoder
        self._on_batch = on_batch
        self._waiting: list[tuple[PhotoCrops, asyncio.Future[EmbeddedPhoto]]] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "encode")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; called within the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop; what still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        for _, future in self._waiting:
            future.cancel()
        self._thread.shutdown()

    async def encode(self, photo: PhotoCrops) -> EmbeddedPhoto:
        """Embed the faces of a photo, together with those of others."""
        future: asyncio.Future[EmbeddedPhoto] = asyncio.get_running_loop().create_future()
        self._waiting.append((photo, future))
        self._arrived.set()
        return await future

    def _take(self) -> list[tuple[PhotoCrops, asyncio.Future[EmbeddedPhoto]]]:
        """The next batch: as many photos as fill the encoder's own batch, at least one."""
        batch: list[tuple[PhotoCrops, asyncio.Future[EmbeddedPhoto]]] = []
        faces = 0
        while self._waiting and (not batch or faces + len(self._waiting[0][0].crops) <= BATCH_SIZE):
            item = self._waiting.pop(0)
            if item[1].cancelled():
                continue  # its client went away
            batch.append(item)
            faces += len(item[0].crops)
        return batch

    async def _run(self) -> None:
        """One batch after the other."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = self._take()
            if not self._waiting:
                self._arrived.clear()
            if not batch:
                continue
            photos = [photo for photo, _ in batch]
            try:
                embedded = await loop.run_in_executor(self._thread, self._encode, photos)
            except Exception as error:  # told to each who waits; the next batch goes on
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, embedded, strict=True):
                if not future.done():
                    future.set_result(result)

    def _encode(self, photos: list[PhotoCrops]) -> list[EmbeddedPhoto]:
        self._on_batch(len(photos), sum(len(photo.crops) for photo in photos))
        return list(encode_together(photos, self._encoder))


class DetectionLost(Exception):
    """The process that worked on a photo ended; the photo may be tried again."""


@dataclass(frozen=True)
class DetectionTask:
    """A photo from outside.

    Attributes:
        content: Its bytes.
        label: What it is called in a report.
        max_faces: The largest so many faces; None for all.
        max_pixels: The most that are decoded.
    """

    content: bytes
    label: str
    max_faces: int | None
    max_pixels: int


class DetectionPool:
    """Processes that read photos and find faces.

    Attributes:
        waiting: Photos handed in and not yet answered.
    """

    def __init__(self, workers: int, recipe: CropRecipe, most_waiting: int) -> None:
        """Start no process yet; see ``start``.

        Args:
            workers: How many.
            recipe: How faces are cut out.
            most_waiting: From how many photos on ``is_full``.
        """
        self.waiting = 0
        self._workers = workers
        self._recipe = recipe
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._executor: loky.ProcessPoolExecutor | None = None

    @property
    def is_full(self) -> bool:
        """Whether as many photos wait as may."""
        return self.waiting >= self._most_waiting

    def start(self) -> None:
        """Start the processes, and wait until each has loaded what it needs."""
        executor = self._running()
        for each in [executor.submit(_warm_up) for _ in range(self._workers)]:
            each.result()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, kill_workers=True)

    async def find(self, task: DetectionTask, detector: Detector) -> PhotoCrops:
        """Read a photo and find its faces.

        Raises:
            DetectionLost: The process ended, twice.
        """
        self.waiting += 1
        try:
            for _ in range(2):
                executor = self._running()
                try:
                    future: Future[PhotoCrops] = executor.submit(
                        find_in_bytes, task, detector, self._recipe
                    )
                    return await asyncio.wrap_future(future)
                except (loky.BrokenProcessPool, loky.process_executor.ShutdownExecutorError):
                    # Killed for lack of memory, most often; another photo's fault as likely as
                    # this one's, so it gets a second chance in new processes.
                    self._forget(executor)
            raise DetectionLost
        finally:
            self.waiting -= 1

    def _running(self) -> loky.ProcessPoolExecutor:
        """The processes, started where there are none."""
        with self._lock:
            if self._executor is None:
                self._executor = loky.ProcessPoolExecutor(
                    max_workers=self._workers,
                    initializer=end_with,
                    initargs=(os.getpid(),),
                    env=ONE_THREAD,
                )
            return self._executor

    def _forget(self, executor: loky.ProcessPoolExecutor) -> None:
        """Let go of broken processes, once."""
        with self._lock:
            if self._executor is executor:
                self._executor = None


def find_in_bytes(task: DetectionTask, detector: Detector, recipe: CropRecipe) -> PhotoCrops:
    """What a process does with a photo: read it, find the faces, cut them out."""
    import numpy as np

    try:
        image = decode_image(task.content, max_pixels=task.max_pixels)
    except ImageError as error:
        nothing = np.empty((0, recipe.height, recipe.width, 3), np.uint8)
        reason = str(error).removeprefix("the photo: ")
        return PhotoCrops(task.label, (), nothing, error=reason)
    (found,) = find_in_photos([image], detector, recipe, task.max_faces)
    return replace(found, photo=task.label)


def _warm_up() -> None:
    """Load the detector's and the landmarks' files, and give the other processes their turn."""
    import cv2
    import numpy as np

    from face_encode.detectors.alignment import find_landmarks
    from face_encode.detectors.dlib_hog import DlibHogDetector
    from face_encode.types import Box

    cv2.setNumThreads(1)
    blank = np.zeros((80, 80, 3), np.uint8)
    DlibHogDetector().detect(blank)
    find_landmarks(blank, Box(0, 0, 80, 80))
    time.sleep(0.2)


_NOTHING = np.empty((0, 0), np.float32)


class Recogniser:
    """Embeds the faces of photos from outside.

    Attributes:
        pool: Finds the faces.
    """

    def __init__(
        self, encoder: Encoder, detector: Detector, settings: ServerSettings, metrics: Metrics
    ) -> None:
        """Take an encoder and a detector; see ``load`` and ``start``."""
        limits = settings.limits
        self._encoder = encoder
        self._detector = detector
        first = detector.steps[0] if isinstance(detector, ThoroughDetector) else detector
        self._quick_detector = first
        self._max_pixels = limits.pixels
        # Room for every request's photo, and for a few enrolments of many.
        waiting = limits.requests_in_flight + 4 * limits.photos
        self.pool = DetectionPool(settings.workers, encoder.contract.crop, waiting)
        self._batcher = EncodingBatcher(encoder, metrics.encoded)

    def load(self) -> None:
        """Start the processes and compile the network: seconds that no request has to wait."""
        self.pool.start()
        crop = self._encoder.contract.crop
        for faces in (1, BATCH_SIZE):
            self._encoder.encode(np.zeros((faces, crop.height, crop.width, 3), np.uint8))

    def start(self) -> None:
        """Begin to encode; called within the event loop."""
        self._batcher.start()

    async def close(self) -> None:
        """Stop, whatever is under way."""
        await self._batcher.close()
        self.pool.close()

    async def embed(
        self, photo: SentPhoto, max_faces: int | None, *, thorough: bool = True
    ) -> tuple[PhotoCrops, EmbeddedPhoto]:
        """Find and embed the faces of a photo.

        Args:
            photo: As it was sent.
            max_faces: The largest so many faces.
            thorough: Whether slower detectors look where the fast one finds nothing.

        Returns:
            The crops, and their embeddings; what is wrong with the photo is their ``error``.

        Raises:
            Problem: No room at present, or the processes end again and again.
        """
        if self.pool.is_full:
            raise too_busy("Too many photos wait to be looked at; come back soon.")
        task = DetectionTask(photo.content, photo.label, max_faces, self._max_pixels)
        detector = self._detector if thorough else self._quick_detector
        try:
            crops = await self.pool.find(task, detector)
        except DetectionLost as error:
            raise Problem(
                503,
                "detection-lost",
                "The process that looked at the photo ended; it may lack memory.",
                headers={"Retry-After": "5"},
            ) from error
        if not len(crops.crops):
            empty = EmbeddedPhoto(crops.photo, (), _NOTHING, (), crops.size, crops.error)
            return crops, empty
        return crops, await self._batcher.encode(crops)

    async def embed_all(
        self, photos: Sequence[SentPhoto], max_faces: int | None
    ) -> list[tuple[PhotoCrops, EmbeddedPhoto]]:
        """Find and embed the faces of several photos."""
        return list(await asyncio.gather(*(self.embed(photo, max_faces) for photo in photos)))


def readable(photo: EmbeddedPhoto) -> EmbeddedPhoto:
    """A photo that could be read, whether or not there is a face in it.

    Raises:
        Problem: It could not.
    """
    if photo.error is not None and photo.error not in (NO_FACE, NO_EMBEDDING):
        raise Problem(422, "photo-unreadable", f"{photo.photo}: {photo.error}.")
    return photo


def with_face(photo: EmbeddedPhoto) -> EmbeddedPhoto:
    """A photo with a face in it.

    Raises:
        Problem: It could not be read, or has none.
    """
    if photo.error is not None:
        kind = "no-face" if photo.error == NO_FACE else "photo-unreadable"
        raise Problem(422, kind, f"{photo.photo}: {photo.error}.")
    return photo
