"""Reading photos and finding faces in processes, with a bound on how many wait.

Processes, because dlib keeps Python's lock while it looks for faces: two threads take longer than
one. They hold neither TensorFlow nor the gallery, and a photo that crashes a decoder takes one of
them with it, not the service.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import loky

from face_encode.detectors.base import Detector
from face_encode.errors import ImageError
from face_encode.photos.reading import decode_image
from face_encode.pipeline.embedding import PhotoCrops, find_in_photos
from face_encode.pipeline.workers import ONE_THREAD, end_with
from face_encode.types import CropRecipe

if TYPE_CHECKING:
    from concurrent.futures import Future


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
