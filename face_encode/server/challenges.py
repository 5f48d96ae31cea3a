"""Challenges over HTTP: in the pictures of one camera, heads turn before they are named.

A client sends the pictures of a camera one after the other, with a word of its own that holds them
together; the service follows the faces from picture to picture, and asks each one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from face_encode.gallery.distances import unit_length
from face_encode.liveness.challenge import Challenge
from face_encode.types import Box, Embeddings, Face
from face_encode.video.tracking import overlap_of_all

# Cameras whose faces are followed at once; beyond, the one that sent nothing for longest is asked
# anew.
_MAX_CAMERAS = 256
# A face that was not seen for so long has gone: whoever comes is asked.
_GONE_AFTER_SECONDS = 3.0
# From this share on, a face is the one that was there in the picture before.
_LEAST_OVERLAP = 0.2
# The mean over the last good sights is steadier than one, above all while a head turns.
_MEAN_SIGHTS = 5


@dataclass
class _Asked:
    """A face that is followed."""

    box: Box
    seconds: float
    challenge: Challenge = field(default_factory=Challenge)
    sights: deque[npt.NDArray[np.float32]] = field(
        default_factory=lambda: deque(maxlen=_MEAN_SIGHTS)
    )
    met_by: npt.NDArray[np.float32] | None = None
    is_other: bool = False

    @property
    def words(self) -> str | None:
        """What is still to do; None where the newest good sight shows who has turned."""
        return self.challenge.words if self.met_by is None or self.is_other else None

    def see(self, face: Face, embedding: npt.NDArray[np.float32], same_person: float) -> None:
        """Take the newest sight."""
        # A sight that is not to be trusted names nobody, and does not tell who else it is.
        is_good = face.quality is None or face.quality.reason is None
        if is_good:
            self.sights.append(embedding)
        if not self.sights:
            return
        mean = unit_length(np.mean(self.sights, axis=0))
        if self.met_by is not None and float(mean @ self.met_by) < same_person:
            # Another person, or a photo, has taken the place of who turned.
            self.challenge, self.met_by = Challenge(), None
        if self.met_by is None and face.points is not None:
            self.challenge.see(face.points, self.seconds)
            self.met_by = mean if self.challenge.is_met else None
        if self.met_by is not None and is_good:
            # Each picture is named by itself; the mean would let a few of somebody else through.
            # One alone may also be a bad angle, after which nobody has to turn again.
            self.is_other = float(embedding @ self.met_by) < same_person


class Challenges:
    """The faces before the cameras of a service's clients, and what each has still to do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cameras: OrderedDict[tuple[str, str], list[_Asked]] = OrderedDict()

    def ask(
        self,
        camera: tuple[str, str],
        faces: Sequence[Face],
        embeddings: Embeddings,
        seconds: float,
        same_person: float,
    ) -> list[str | None]:
        """Take the next picture of a camera.

        Args:
            camera: The client, and its word for the camera.
            faces: The faces in the picture, with the detector's points, and their quality where the
                encoder judges it.
            embeddings: float32 ``(N, D)``, theirs.
            seconds: The time of the picture.
            same_person: Cosine similarity from which two embeddings count as of one person.

        Returns:
            For each face what its person is still to do, in words; None where it is done.
        """
        with self._lock:
            before = self._cameras.pop(camera, [])
            there = [each for each in before if seconds - each.seconds <= _GONE_AFTER_SECONDS]
            asked = []
            for face, embedding in zip(faces, unit_length(embeddings), strict=True):
                nearest = max(there, key=lambda each: _overlap(each.box, face.box), default=None)
                if nearest is None or _overlap(nearest.box, face.box) < _LEAST_OVERLAP:
                    nearest = _Asked(face.box, seconds)
                else:
                    there.remove(nearest)
                nearest.box, nearest.seconds = face.box, seconds
                nearest.see(face, embedding, same_person)
                asked.append(nearest)
            # Those who are out of sight for a moment are not forgotten.
            self._cameras[camera] = asked + there
            while len(self._cameras) > _MAX_CAMERAS:
                self._cameras.popitem(last=False)
            return [each.words for each in asked]


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    first, second = (
        np.array([box.left, box.top, box.width, box.height], np.float64) for box in (one, other)
    )
    return float(overlap_of_all([first], [second])[0, 0])
