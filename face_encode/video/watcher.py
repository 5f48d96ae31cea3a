"""The watcher: takes one frame after the other, and knows who is in it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.base import Detector
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.detectors.haar import HaarDetector
from face_encode.detectors.registry import load_detector
from face_encode.gallery.mistakes import is_blurred
from face_encode.model import Face_Encode_Model
from face_encode.types import Box, Face, ImageArray, check_count
from face_encode.video.frames import Frame, WatchedFace, WatchedFrame
from face_encode.video.identity import Identity
from face_encode.video.sources import Source, open_source
from face_encode.video.tracking import (
    FloatBox,
    GreyArray,
    Track,
    Tracker,
    as_array,
    as_grey,
    follow_boxes,
    overlap_of_all,
    shrink,
)

# Motion is followed in a frame of this width: half the pixels that a webcam gives on a side.
_MOTION_WIDTH = 320
# A second look takes the face with this much of its box around it on every side,
_AROUND = 0.6
# enlarged or shrunk to so many pixels, in which the face is about 110 pixels wide: the HOG
# detector finds none under 80.
_SECOND_LOOK_PIXELS = 240 * 240
_MOST_ENLARGED = 4.0
# The second look has found the same face where it is neither much larger nor much smaller.
_LEAST_ALIKE = 0.3
# How many of the nearest people are looked at, to find the one among them that a face was.
_NEAREST = 5


@dataclass(frozen=True)
class WatchSettings:
    """How much is looked at, which is what watching costs.

    Attributes:
        detect_every: Faces are looked for in every so manieth frame; in the others those known
            are followed by their motion.
        encodes_per_frame: At the most so many faces are encoded at one frame.
        smallest_face: Faces narrower than this in pixels of the frame are followed, but tell too
            little to be encoded.
        confirm: Whether the HOG detector must have seen a face, too, before it is encoded; None
            for where it is followed by the Haar cascade, which takes many a thing for a face.
    """

    detect_every: int = 3
    encodes_per_frame: int = 2
    smallest_face: int = 40
    confirm: bool | None = None

    def __post_init__(self) -> None:
        """Check the counts."""
        check_count(self.detect_every, "detect_every")
        check_count(self.encodes_per_frame, "encodes_per_frame")
        check_count(self.smallest_face, "smallest_face", least=20)


class Watcher:
    """Follows the faces in the frames of one video, and names them.

    Attributes:
        model: The encoder, the threshold and the enrolled people.
        detector: Finds the faces in the frames.
        settings: How much is looked at.
        encoded: How many times a face was encoded so far.
    """

    def __init__(
        self, model: Face_Encode_Model, detector: Detector, settings: WatchSettings | None = None
    ) -> None:
        """Take the parts.

        The encoder is run once here, since its first run takes seconds, which a camera does not
        wait for.
        """
        self.model = model
        self.detector = detector
        self.settings = WatchSettings() if settings is None else settings
        self.encoded = 0
        self._tracker = Tracker()
        is_haar = isinstance(detector, HaarDetector)
        self._confirms = is_haar if self.settings.confirm is None else self.settings.confirm
        self._close_detector = DlibHogDetector(
            max_pixels=_SECOND_LOOK_PIXELS, enlarge=_MOST_ENLARGED
        )
        self._before: GreyArray | None = None
        self._frames = 0
        crop = model.encoder.contract.crop
        model.encoder.encode(np.zeros((1, crop.height, crop.width, 3), np.uint8))

    def look(self, frame: Frame) -> WatchedFrame:
        """Take the next frame.

        Args:
            frame: Of the same size as the former ones; another size begins anew.

        Returns:
            The faces followed in it.
        """
        size = (frame.image.shape[1], frame.image.shape[0])
        self._follow(frame)
        if self._frames % self.settings.detect_every == 0:
            self._tracker.find(self.detector.detect(frame.image), frame.seconds, size)
        self._frames += 1
        self._identify(frame)
        self._name_each_once()
        tracks = self._tracker.tracks
        shown = [track for track in tracks if track.is_shown(frame.seconds)]
        faces = [_watched(track, size) for track in shown]
        faces.sort(key=lambda face: face.box.area, reverse=True)
        uncertain = [_as_box(track.box, size) for track in tracks if track not in shown]
        return WatchedFrame(
            frame.image, frame.number, frame.seconds, tuple(faces), tuple(uncertain)
        )

    def _follow(self, frame: Frame) -> None:
        """Move the faces known to where this frame shows them."""
        smaller, scale = shrink(frame.image, _MOTION_WIDTH)
        grey = as_grey(smaller)
        if self._before is not None and self._before.shape != grey.shape:
            self._tracker.tracks = []
        tracks = self._tracker.tracks
        if tracks and self._before is not None:
            moved = follow_boxes(self._before, grey, [track.box * scale for track in tracks])
            boxes = [None if box is None else box / scale for box in moved]
        else:
            boxes = [None] * len(tracks)
        self._tracker.move(boxes, frame.seconds)
        self._before = grey

    def _identify(self, frame: Frame) -> None:
        """Encode the faces whose turn it is, and draw the conclusions."""
        due = [
            track
            for track in self._tracker.tracks
            if track.found_at == frame.seconds
            and track.finds > 1
            and track.identity.wants_sight(frame.seconds, track.box[2])
        ]
        # Whoever was seen least comes first, the larger face of two.
        due.sort(key=lambda track: (track.identity.sights, -track.box[2]))
        sights: list[tuple[Track, ImageArray]] = []
        for track in due[: self.settings.encodes_per_frame]:
            crop = self._good_crop(frame.image, track)
            if crop is None:
                track.identity.note_failure(frame.seconds, track.box[2])
            else:
                sights.append((track, crop))
        if not sights:
            return
        embeddings = self.model.encoder.encode(np.stack([crop for _, crop in sights]))
        self.encoded += len(sights)
        for (track, _), embedding in zip(sights, embeddings, strict=True):
            if not 0 < np.linalg.norm(embedding) < np.inf:
                track.identity.note_failure(frame.seconds, track.box[2])
                continue
            mean = track.identity.add_sight(embedding, frame.seconds, track.box[2])
            alone, together = self.model.gallery.search(np.stack([embedding, mean]), _NEAREST)
            if together:
                track.identity.judge(alone[0], together, self.model.threshold)

    def _name_each_once(self) -> None:
        """Nobody is in two places: of two faces of one name, the less similar one loses it.

        It most often got the name from the other, when one passed in front of the other.
        """
        named = [track for track in self._tracker.tracks if track.identity.name is not None]
        named.sort(key=lambda track: (track.misses > 0, -(track.identity.similarity or 0)))
        taken: set[str | None] = set()
        for track in named:
            if track.identity.name in taken:
                track.identity = Identity()
            else:
                taken.add(track.identity.name)

    def _good_crop(self, image: ImageArray, track: Track) -> ImageArray | None:
        """The crop of a face for the encoder, or None where it is not seen well enough.

        The second look, at the face's neighbourhood alone, tells a face from a false alarm, and
        frames it as the gallery's photos were framed.
        """
        face: Face | None = track.face
        if track.face.box.width < self.settings.smallest_face:
            return None
        if self._confirms:
            face = self._seen_closer(image, as_array(track.face.box))
        if face is None:
            return None
        crop: ImageArray = crop_faces(image, [face], self.model.encoder.contract.crop)[0]
        return None if is_blurred(crop) else crop

    def _seen_closer(self, image: ImageArray, box: FloatBox) -> Face | None:
        """The face as found in its neighbourhood alone; None where there is none."""
        around = box + np.array([-_AROUND, -_AROUND, 2 * _AROUND, 2 * _AROUND]) * np.tile(
            box[2:], 2
        )
        area = _as_box(around, (image.shape[1], image.shape[0]))
        part = image[area.top : area.top + area.height, area.left : area.left + area.width]
        offset = np.array([area.left, area.top, 0, 0])
        found = self._close_detector.detect(np.ascontiguousarray(part))
        overlaps = overlap_of_all([box], [as_array(face.box) + offset for face in found])[0]
        if not len(found) or overlaps.max() < _LEAST_ALIKE:
            return None
        face = found[int(overlaps.argmax())]
        moved = replace(face.box, left=face.box.left + area.left, top=face.box.top + area.top)
        landmarks = face.landmarks
        if landmarks is not None:
            landmarks = landmarks + np.array([area.left, area.top], np.float32)
        return Face(moved, face.score, landmarks)


def _as_box(box: FloatBox, size: tuple[int, int]) -> Box:
    """Four numbers as a box, clamped to a frame of this width and height."""
    left, top, width, height = (round(float(value)) for value in box)
    return Box(left, top, max(1, width), max(1, height)).clamped(*size)


def _watched(track: Track, size: tuple[int, int]) -> WatchedFace:
    """A face followed, as others get to see it."""
    identity = track.identity
    return WatchedFace(
        track=track.number,
        box=_as_box(track.box, size),
        since=track.since,
        name=identity.name,
        similarity=identity.similarity,
        is_settled=identity.is_settled,
        embedding=identity.embedding,
        is_missed=track.misses > 0,
    )


DEFAULT_DETECTOR = "haar"
# Live, faces of a fifteenth of the frame's height are found: a person at the far end of a room. A
# file waits, so that faces of half that size can be looked for, in four times the time.
LIVE_WIDTH, RECORDED_WIDTH = 640, 1280
_HAAR_SMALLEST = 24
_USUAL_SHAPE = 9 / 16


def watch(
    source: int | str | os.PathLike[str] | Source,
    model: Face_Encode_Model,
    detector: str | Detector | None = None,
    settings: WatchSettings | None = None,
) -> Iterator[WatchedFrame]:
    """Follow and name the faces in a video, a camera or a stream.

    Args:
        source: A webcam's number, an address, the path of a video file, or a source opened by
            ``open_source``.
        model: The encoder and the enrolled people.
        detector: Finds the faces in the frames: the name of a known one, a detector, or None for
            the fastest. The model's own detector only finds those of its photos.
        settings: How much is looked at.

    Yields:
        Each frame with the faces in it. A live source passes over the frames that come while one
        is looked at; a file gives all of them.

    Raises:
        VideoError: The source is not there, is no video, or was lost and did not come back.
        InputError: No such source or detector.

    Examples:
        >>> from face_encode import Face_Encode_Model, watch
        >>> model = Face_Encode_Model()
        >>> report = model.fit_dataset("verify_dataset", progress=False)
        >>> for frame in watch("visitors.mp4", model):  # doctest: +SKIP
        ...     print(frame.seconds, [face.name for face in frame.faces])
    """
    opened = open_source(source) if isinstance(source, int | str | os.PathLike) else source
    try:
        watcher = Watcher(model, video_detector(detector, is_live=opened.is_live), settings)
        for frame in opened.frames():
            if frame is not None:
                yield watcher.look(frame)
    finally:
        opened.close()


def video_detector(
    detector: str | Detector | None = None, width: int | None = None, *, is_live: bool = True
) -> Detector:
    """The detector for video.

    Args:
        detector: A name, a detector, or None for the fastest.
        width: Frames are shrunk to about this width before it looks at them; None for what suits
            the source. A detector that has no bound on the pixels looks at them as they are.
        is_live: Whether frames are lost where it takes long.

    Raises:
        InputError: No such detector, or a width below 64.
    """
    chosen: Detector
    if detector is None or detector == DEFAULT_DETECTOR:
        chosen = HaarDetector(smallest=_HAAR_SMALLEST)
        if width is None:
            width = LIVE_WIDTH if is_live else RECORDED_WIDTH
    else:
        chosen = load_detector(detector) if isinstance(detector, str) else detector
    if width is None or not dataclasses.is_dataclass(chosen) or not hasattr(chosen, "max_pixels"):
        return chosen
    check_count(width, "width", least=64)
    changed: Detector = dataclasses.replace(chosen, max_pixels=round(width * width * _USUAL_SHAPE))
    return changed
