"""From the photos of requests to embeddings: faces found in processes, encoded in batches."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import loky
import numpy as np

from face_encode.attributes.network import AttributeNetwork, load_attributes
from face_encode.detectors.base import Detector
from face_encode.detectors.dlib_detector import DlibDetector
from face_encode.detectors.registry import with_min_face
from face_encode.encoders.encoder import BATCH_SIZE, Encoder
from face_encode.errors import ImageError, InputError
from face_encode.liveness.judging import LivenessJudge
from face_encode.photos.reading import decode_image
from face_encode.pipeline.analysis import AnalyzedPhoto, analyzed
from face_encode.pipeline.embedding import (
    NO_FACE,
    EmbeddedPhoto,
    PhotoCrops,
    encode_together,
    find_in_photos,
)
from face_encode.pipeline.workers import ONE_THREAD, end_with, limited_memory
from face_encode.server.bodies import SentPhoto
from face_encode.server.metrics import Metrics
from face_encode.server.problems import Problem, too_busy
from face_encode.server.settings import Limits, ServerSettings
from face_encode.types import CropRecipe, Face, ImageArray

TOO_SLOW = "reading it and finding the faces took too long"
"""The ``error`` of a photo whose time was over."""

# What decoding takes beside the pixels; and for each pixel: those of a photo with transparency lie
# in memory four times, at four bytes, while they are turned and laid on white.
_DECODING_BYTES, _DECODING_BYTES_PER_PIXEL = 64_000_000, 32
# Between two attempts to start a process, where the machine has no room for one.
_RESTART_SECONDS = 1

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class EncodingBatcher:
    """Encodes in one call all photos that have arrived during the last batch.

    No photo waits for others: a lone one is encoded at once, and batches grow by themselves with
    the number of requests.
    """

    def __init__(
        self,
        encoder: Encoder,
        on_batch: Callable[[int, int], None] = lambda photos, faces: None,
        judge: LivenessJudge | None = None,
    ) -> None:
        """Take an encoder.

        Args:
            encoder: Embeds the faces.
            on_batch: Called with the numbers of photos and of faces of each batch.
            judge: Judges the liveness of those faces whose surroundings were cut out, too.
        """
        self._encoder = encoder
        self._judge = judge
        self._on_batch = on_batch
        self._waiting: deque[tuple[PhotoCrops, Future[EmbeddedPhoto]]] = deque()
        self._thread = ThreadPoolExecutor(1, "encode")

    def close(self) -> None:
        """Cancel what waits, and end the thread."""
        self._thread.shutdown(cancel_futures=True)
        for _, future in self._waiting:
            future.cancel()

    async def encode(self, photo: PhotoCrops) -> EmbeddedPhoto:
        """Embed the faces of a photo, together with those of others."""
        future: Future[EmbeddedPhoto] = Future()
        self._waiting.append((photo, future))
        self._thread.submit(self._encode_waiting)
        return await asyncio.wrap_future(future)

    def _encode_waiting(self) -> None:
        """Encode photos that fill one batch of the encoder, at least one if any waits."""
        photos: list[PhotoCrops] = []
        futures: list[Future[EmbeddedPhoto]] = []
        faces = 0
        while self._waiting and (not faces or faces + len(self._waiting[0][0].crops) <= BATCH_SIZE):
            photo, future = self._waiting.popleft()
            # False where the client has hung up.
            if future.set_running_or_notify_cancel():
                photos.append(photo)
                futures.append(future)
                faces += len(photo.crops)
        if not photos:
            return
        try:
            self._on_batch(len(photos), faces)
            embedded = list(encode_together(photos, self._encoder, judge=self._judge))
        except Exception as error:  # for the requests of this batch; the next one is encoded
            for future in futures:
                future.set_exception(error)
            return
        for future, result in zip(futures, embedded, strict=True):
            future.set_result(result)


class DetectionPool:
    """Processes that read photos and find faces, each one photo at a time.

    What a stranger has sent may keep a process busy for hours, or take all memory. So a photo has a
    time, at the end of which its process is ended and replaced while the others go on, and a bound
    on the memory that decoding it takes.

    Attributes:
        waiting: Photos handed in whose process is not done with them, whether or not somebody still
            wants the answer.
        workers_ready: Processes that are not being replaced.
    """

    def __init__(
        self,
        workers: int,
        limits: Limits,
        max_waiting: int,
        surroundings: bool = False,
    ) -> None:
        """Take the settings; the processes start with ``start`` or the first photos.

        Args:
            workers: The number of processes.
            limits: The bounds of a photo.
            max_waiting: The number of photos from which on ``is_full``.
            surroundings: Whether the faces' surroundings are cut out, too, for the judge of
                liveness.
        """
        self.waiting, self.workers_ready = 0, workers
        self._limits, self._max_waiting = limits, max_waiting
        self._surroundings = surroundings
        # A process each, since the others of a pool could not go on without one that is ended. None
        # is a place whose process has to be started first.
        self._idle: asyncio.Queue[loky.ProcessPoolExecutor | None] = asyncio.Queue()
        for _ in range(workers):
            self._idle.put_nowait(None)
        self._processes: set[loky.ProcessPoolExecutor] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        """Whether as many photos wait as may."""
        return self.waiting >= self._max_waiting

    async def start(self) -> None:
        """Start the processes, and wait until each has loaded what it needs."""
        places = [self._idle.get_nowait() for _ in range(self._idle.qsize())]
        for process in await asyncio.gather(*(self._started() for _ in places)):
            self._idle.put_nowait(process)

    async def close(self) -> None:
        """End the processes, also in the middle of a photo."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*map(self._end, list(self._processes)))

    async def find(
        self,
        photo: SentPhoto,
        max_faces: int | None,
        detector: Detector,
        recipe: CropRecipe,
        portraits: bool,
    ) -> PhotoCrops:
        """Read a photo, find its faces and cut them out by a recipe.

        Returns:
            The faces; a photo that took too long has the error ``TOO_SLOW``.

        Raises:
            Problem: The process ended, twice.
        """
        work = partial(
            _find_faces,
            photo,
            max_faces,
            detector,
            recipe,
            self._limits.pixels,
            portraits,
            self._surroundings,
        )
        self.waiting += 1
        try:
            process = await self._idle.get()
        except BaseException:
            self.waiting -= 1
            raise
        # Apart from the request, which may be given up while the process works on.
        return await asyncio.shield(self._in_background(self._done(work, photo, recipe, process)))

    async def _done(
        self,
        work: partial[PhotoCrops],
        photo: SentPhoto,
        recipe: CropRecipe,
        process: loky.ProcessPoolExecutor | None,
    ) -> PhotoCrops:
        """Do the work in a process, and leave a process to the next photo."""
        try:
            for _ in range(2):
                if process is None:
                    process = await self._started()
                try:
                    return await asyncio.wait_for(
                        asyncio.wrap_future(process.submit(work)), self._limits.photo_seconds
                    )
                except asyncio.TimeoutError:
                    await self._end(process)
                    process = None
                    return _without_faces(photo, recipe, TOO_SLOW)
                except (loky.BrokenProcessPool, loky.process_executor.ShutdownExecutorError):
                    # Most often killed for lack of memory, perhaps not by this photo, which gets a
                    # second chance.
                    await self._end(process)
                    process = None
        finally:
            self.waiting -= 1
            if process is not None:
                self._idle.put_nowait(process)
            elif not self._is_closed:
                self._in_background(self._replaced())
        raise Problem(
            503,
            "detection-lost",
            "The process that read the photo ended; it may lack memory.",
            headers={"Retry-After": "5"},
        )

    async def _started(self) -> loky.ProcessPoolExecutor:
        """Start a process, and wait until it has loaded what it needs."""
        process = loky.ProcessPoolExecutor(
            max_workers=1, initializer=end_with, initargs=(os.getpid(),), env=ONE_THREAD
        )
        self._processes.add(process)
        try:
            await asyncio.wrap_future(process.submit(_warm_up))
        except BaseException:
            await self._end(process)
            raise
        return process

    async def _replaced(self) -> None:
        """Start a process in the place of one that ended, and hand it out once there is one."""
        self.workers_ready -= 1
        while True:
            try:
                process = await self._started()
                break
            except Exception:
                _LOG.exception("a process that reads photos cannot be started")
                await asyncio.sleep(_RESTART_SECONDS)
        self.workers_ready += 1
        self._idle.put_nowait(process)

    async def _end(self, process: loky.ProcessPoolExecutor) -> None:
        """End a process, whatever it is doing."""
        self._processes.discard(process)
        await asyncio.to_thread(process.shutdown, kill_workers=True)

    def _in_background(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Do something whether or not somebody waits for it."""
        task = asyncio.create_task(work)
        # The event loop itself would forget it.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _find_faces(
    photo: SentPhoto,
    max_faces: int | None,
    detector: Detector,
    recipe: CropRecipe,
    max_pixels: int,
    portraits: bool,
    surroundings: bool,
) -> PhotoCrops:
    """Read a photo, find the faces and cut them out, in a process of the pool."""
    notes: list[str] = []
    try:
        with limited_memory(_DECODING_BYTES + max_pixels * _DECODING_BYTES_PER_PIXEL):
            image = decode_image(photo.content, max_pixels=max_pixels, notes=notes)
    except ImageError as error:
        return _without_faces(photo, recipe, str(error).removeprefix("the photo: "))
    (found,) = find_in_photos(
        [image], detector, recipe, max_faces, portraits=portraits, surroundings=surroundings
    )
    digest = hashlib.sha256(photo.content).hexdigest()
    return replace(found, photo=photo.label, digest=digest, notes=tuple(notes))


def _without_faces(photo: SentPhoto, recipe: CropRecipe, reason: str) -> PhotoCrops:
    """A photo in which no face was looked for."""
    nothing = np.empty((0, recipe.height, recipe.width, 3), np.uint8)
    return PhotoCrops(photo.label, (), nothing, error=reason)


def _warm_up() -> None:
    """Load the files of detector and landmarks."""
    import cv2

    from face_encode.detectors.alignment import find_landmarks
    from face_encode.types import Box

    cv2.setNumThreads(1)
    blank = np.zeros((80, 80, 3), np.uint8)
    DlibDetector(thorough=False).detect(blank)
    find_landmarks(blank, Box(0, 0, 80, 80))


@dataclass(frozen=True)
class ChosenFace:
    """A detector that finds one of the faces which another one finds.

    Attributes:
        detector: Finds them all.
        number: Which of them, from 0, the largest.
    """

    detector: Detector
    number: int

    @property
    def name(self) -> str:
        """The name of the detector that does the work."""
        return self.detector.name

    def detect(self, image: ImageArray) -> list[Face]:
        """Find the chosen face; see ``Detector.detect``. Empty where there are fewer."""
        return self.detector.detect(image)[self.number : self.number + 1]


class Recogniser:
    """Embeds the faces of the photos of requests.

    Attributes:
        pool: Finds the faces.
    """

    def __init__(
        self,
        encoder: Encoder,
        detector: Detector,
        settings: ServerSettings,
        metrics: Metrics,
        judge: LivenessJudge | None = None,
    ) -> None:
        """Take the parts; ``judge`` gives every face its liveness."""
        limits = settings.limits
        self._encoder = encoder
        self._detector = detector
        # Room for every request's photo, and for a few enrolments of many.
        max_waiting = limits.requests_in_flight + 4 * limits.photos
        self.pool = DetectionPool(
            settings.workers,
            limits,
            max_waiting,
            surroundings=judge is not None,
        )
        self._judge = judge
        self._batcher = EncodingBatcher(encoder, metrics.encoded, judge)
        self._metrics = metrics
        self._lock = threading.Lock()
        self._analysis: tuple[AttributeNetwork, EncodingBatcher] | None = None

    async def load(self) -> None:
        """Start the processes and compile the network: seconds that no request has to wait."""
        await self.pool.start()
        crop = self._encoder.contract.crop
        for faces in (1, BATCH_SIZE):
            crops = np.zeros((faces, crop.height, crop.width, 3), np.uint8)
            await asyncio.to_thread(self._encoder.encode, crops)

    async def close(self) -> None:
        """Stop, and give up the photos that are under way."""
        await asyncio.to_thread(self._batcher.close)
        if self._analysis is not None:
            await asyncio.to_thread(self._analysis[1].close)
        await self.pool.close()

    def detector(self, thorough: bool, min_face: int | None) -> Detector:
        """The detector, with the settings of a request.

        Args:
            thorough: Whether slower detectors look where the fast one finds nothing.
            min_face: Side of the smallest face to look for, in pixels; None for its own.

        Raises:
            Problem: It has no smallest face to set.
        """
        try:
            changed = with_min_face(self._detector, min_face)
        except InputError as error:
            raise Problem(422, "not-an-option", f"{error}.") from error
        if isinstance(changed, DlibDetector) and not thorough:
            return replace(changed, thorough=False)
        return changed

    async def embed(
        self,
        photo: SentPhoto,
        max_faces: int | None,
        detector: Detector | None = None,
        *,
        portraits: bool = False,
    ) -> EmbeddedPhoto:
        """Find and embed the faces of a photo.

        Args:
            photo: The photo.
            max_faces: At most this many faces, largest first; None for all.
            detector: Finds them; None for the one as it is.
            portraits: Whether to give a portrait of the largest face too.

        Returns:
            The faces and their embeddings; ``error`` says why there are none.

        Raises:
            Problem: No room at present, or the processes end again and again.
        """
        recipe = self._encoder.contract.crop
        return await self._embed(photo, max_faces, self._batcher, recipe, detector, portraits)

    async def analyze(
        self, photo: SentPhoto, max_faces: int | None, detector: Detector | None = None
    ) -> AnalyzedPhoto:
        """Tell what the faces of a photo show; arguments as for ``embed``.

        The network is loaded for the first photo.

        Raises:
            Problem: As for ``embed``.
        """
        network, batcher = await asyncio.to_thread(self._analyzing)
        recipe = network.encoder.contract.crop
        embedded = await self._embed(photo, max_faces, batcher, recipe, detector, False)
        return analyzed(embedded, network, detector or self._detector)

    def _analyzing(self) -> tuple[AttributeNetwork, EncodingBatcher]:
        """The network of attributes and what runs it, loaded once for any number of threads."""
        with self._lock:
            if self._analysis is None:
                network = load_attributes()
                batcher = EncodingBatcher(network.encoder, self._metrics.encoded, self._judge)
                self._analysis = network, batcher
            return self._analysis

    async def _embed(
        self,
        photo: SentPhoto,
        max_faces: int | None,
        batcher: EncodingBatcher,
        recipe: CropRecipe,
        detector: Detector | None,
        portraits: bool,
    ) -> EmbeddedPhoto:
        """Find the faces of a photo and send them through a network."""
        if self.pool.is_full:
            raise too_busy("Too many photos are waiting; come back soon.")
        crops = await self.pool.find(
            photo, max_faces, detector or self._detector, recipe, portraits
        )
        if len(crops.crops):
            return await batcher.encode(crops)
        nothing = np.empty((0, 0), np.float32)
        return EmbeddedPhoto(
            crops.photo,
            (),
            nothing,
            (),
            crops.size,
            crops.error,
            crops.digest,
            notes=crops.notes,
        )

    async def embed_all(
        self,
        photos: Sequence[SentPhoto],
        max_faces: int | None,
        *,
        portraits: bool = False,
        chosen: Sequence[int] | None = None,
    ) -> list[EmbeddedPhoto]:
        """Find and embed the faces of several photos; arguments as for ``embed``.

        ``chosen`` is the one face of each photo that is meant, from 0, the largest; None for all.
        """
        numbers: Sequence[int | None] = [None] * len(photos) if chosen is None else chosen
        embedded = await asyncio.gather(
            *(
                self.embed(
                    photo,
                    max_faces,
                    None if number is None else ChosenFace(self._detector, number),
                    portraits=portraits,
                )
                for photo, number in zip(photos, numbers, strict=True)
            )
        )
        return [
            replace(photo, error=f"{NO_FACE} of number {number}, counted from 0, the largest")
            if number and photo.error == NO_FACE
            else photo
            for photo, number in zip(embedded, numbers, strict=True)
        ]
