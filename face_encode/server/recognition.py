"""From the photos of requests to embeddings: faces found in processes, encoded in batches."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

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
    """Processes that read photos and find faces.

    Attributes:
        waiting: Photos handed in and not answered yet.
    """

    def __init__(
        self,
        workers: int,
        max_pixels: int,
        max_waiting: int,
        surroundings: bool = False,
    ) -> None:
        """Take the settings; the processes start with ``start`` or the first photo.

        Args:
            workers: The number of processes.
            max_pixels: The largest photo that is decoded.
            max_waiting: The number of photos from which on ``is_full``.
            surroundings: Whether the faces' surroundings are cut out, too, for the judge of
                liveness.
        """
        self._surroundings = surroundings
        self.waiting = 0
        self._workers = workers
        self._max_pixels = max_pixels
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._executor: loky.ProcessPoolExecutor | None = None

    @property
    def is_full(self) -> bool:
        """Whether as many photos wait as may."""
        return self.waiting >= self._max_waiting

    def start(self) -> None:
        """Start the processes, and wait until each has loaded what it needs."""
        executor = self._running()
        for each in [executor.submit(_warm_up) for _ in range(self._workers)]:
            each.result()

    def close(self) -> None:
        """End the processes, also in the middle of a photo."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, kill_workers=True)

    async def find(
        self,
        photo: SentPhoto,
        max_faces: int | None,
        detector: Detector,
        recipe: CropRecipe,
        portraits: bool,
    ) -> PhotoCrops:
        """Read a photo, find its faces and cut them out by a recipe.

        Raises:
            Problem: The process ended, twice.
        """
        self.waiting += 1
        try:
            for _ in range(2):
                executor = self._running()
                try:
                    found: Future[PhotoCrops] = executor.submit(
                        _find_faces,
                        photo,
                        max_faces,
                        detector,
                        recipe,
                        self._max_pixels,
                        portraits,
                        self._surroundings,
                    )
                    return await asyncio.wrap_future(found)
                except (loky.BrokenProcessPool, loky.process_executor.ShutdownExecutorError):
                    # Most often killed for lack of memory; another photo is as likely the cause
                    # as this one, which gets a second chance in new processes.
                    with self._lock:
                        if self._executor is executor:
                            self._executor = None
        finally:
            self.waiting -= 1
        raise Problem(
            503,
            "detection-lost",
            "The process that read the photo ended; it may lack memory.",
            headers={"Retry-After": "5"},
        )

    def _running(self) -> loky.ProcessPoolExecutor:
        """Return the processes, started if there are none."""
        with self._lock:
            if self._executor is None:
                self._executor = loky.ProcessPoolExecutor(
                    max_workers=self._workers,
                    initializer=end_with,
                    initargs=(os.getpid(),),
                    env=ONE_THREAD,
                )
            return self._executor


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
    try:
        image = decode_image(photo.content, max_pixels=max_pixels)
    except ImageError as error:
        nothing = np.empty((0, recipe.height, recipe.width, 3), np.uint8)
        reason = str(error).removeprefix("the photo: ")
        return PhotoCrops(photo.label, (), nothing, error=reason)
    (found,) = find_in_photos(
        [image], detector, recipe, max_faces, portraits=portraits, surroundings=surroundings
    )
    digest = hashlib.sha256(photo.content).hexdigest()
    return replace(found, photo=photo.label, digest=digest)


def _warm_up() -> None:
    """Load the files of detector and landmarks, and leave the other processes their turn."""
    import cv2

    from face_encode.detectors.alignment import find_landmarks
    from face_encode.types import Box

    cv2.setNumThreads(1)
    blank = np.zeros((80, 80, 3), np.uint8)
    DlibDetector(thorough=False).detect(blank)
    find_landmarks(blank, Box(0, 0, 80, 80))
    time.sleep(0.2)


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
            limits.pixels,
            max_waiting,
            surroundings=judge is not None,
        )
        self._batcher = EncodingBatcher(encoder, metrics.encoded, judge)
        self._metrics = metrics
        self._lock = threading.Lock()
        self._analysis: tuple[AttributeNetwork, EncodingBatcher] | None = None

    def load(self) -> None:
        """Start the processes and compile the network: seconds that no request has to wait."""
        self.pool.start()
        crop = self._encoder.contract.crop
        for faces in (1, BATCH_SIZE):
            self._encoder.encode(np.zeros((faces, crop.height, crop.width, 3), np.uint8))

    def close(self) -> None:
        """Stop, and give up the photos that are under way."""
        self._batcher.close()
        if self._analysis is not None:
            self._analysis[1].close()
        self.pool.close()

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
        return analyzed(embedded, network)

    def _analyzing(self) -> tuple[AttributeNetwork, EncodingBatcher]:
        """The network of attributes and what runs it, loaded once for any number of threads."""
        with self._lock:
            if self._analysis is None:
                network = load_attributes()
                self._analysis = network, EncodingBatcher(network.encoder, self._metrics.encoded)
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
        return EmbeddedPhoto(crops.photo, (), nothing, (), crops.size, crops.error, crops.digest)

    async def embed_all(
        self, photos: Sequence[SentPhoto], max_faces: int | None, *, portraits: bool = False
    ) -> list[EmbeddedPhoto]:
        """Find and embed the faces of several photos; arguments as for ``embed``."""
        return list(
            await asyncio.gather(
                *(self.embed(photo, max_faces, portraits=portraits) for photo in photos)
            )
        )
