"""From photos that were sent to embeddings: found in processes, encoded together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from face_encode.detectors.base import Detector
from face_encode.detectors.registry import ThoroughDetector
from face_encode.encoders.encoder import BATCH_SIZE, Encoder
from face_encode.pipeline.embedding import NO_EMBEDDING, NO_FACE, EmbeddedPhoto, PhotoCrops
from face_encode.server.batching import EncodingBatcher
from face_encode.server.bodies import SentPhoto
from face_encode.server.detection import DetectionLost, DetectionPool, DetectionTask
from face_encode.server.metrics import Metrics
from face_encode.server.problems import Problem, too_busy
from face_encode.server.settings import ServerSettings

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
