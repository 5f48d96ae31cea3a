"""The watcher, which follows and names the faces frame by frame, and ``watch``, its short form."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.attributes.answers import read_answers
from face_encode.attributes.network import AttributeNetwork
from face_encode.detectors.alignment import crop_faces, make_portrait
from face_encode.detectors.base import Detector, gives_points
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.detectors.haar import HaarDetector
from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.distances import unit_length
from face_encode.gallery.mistakes import is_blurred
from face_encode.gallery.unknown import Sight
from face_encode.liveness.challenge import Challenge
from face_encode.liveness.minifasnet import LIVENESS_CROP
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
    follow_boxes,
    overlap_of_all,
    shrink,
)

# Motion is followed in a frame of this width: a webcam's 640 pixels halved.
_MOTION_WIDTH = 320
# The second look takes the face's box with this share of it added on every side,
_AROUND = 0.6
# scaled to this many pixels, where the face is about 110 pixels wide: the HOG detector finds none
# under 80.
_CLOSE_PIXELS = 240 * 240
_MAX_ENLARGE = 4.0
# From this overlap (intersection over union), the second look has found the same face.
_MIN_SAME_OVERLAP = 0.3
# Seconds after which the detector runs, however few frames came meanwhile: a face that is not found
# again for three times as long is gone.
_MAX_DETECTION_INTERVAL = 0.5
# Seconds until the names are compared anew with a gallery that other programs may change.
_JUDGED_AGAIN = 0.5
# Sights in a row that show somebody else than who turned, until who is there is asked anew. They
# take about a second, in which a head that is still turned may look like another one.
_OTHERS_TO_ASK_ANEW = 5
# Nearest people searched, so that a face's former name is among them.
_NEAREST = 5
# Frames are searched at this width by the default detector. Live, that finds faces of a fifteenth
# of the frame's height: a person at the far end of a room. In a file it finds faces of half that
# size, in four times the time, for which a file waits.
_LIVE_WIDTH, _RECORDED_WIDTH = 640, 1280
_MIN_HAAR_FACE = 24
_USUAL_ASPECT = 9 / 16


@dataclass(frozen=True)
class WatchSettings:
    """The amount of work done for each frame.

    Attributes:
        detect_every: Run the detector on every n-th frame; in the others, the known faces are
            followed by their motion.
        encodes_per_frame: Encode at most this many faces at one frame.
        smallest_face: Encode only faces at least this wide, in pixels of the frame; narrower ones
            are followed, but too small to be recognised.
        confirm: Whether the HOG detector has to find a face, too, before it is encoded; None for
            only where the Haar cascade is the detector, which has many false alarms.
        liveness: Whether to judge if each face is alive, or a photo or a screen held up; what is
            not alive gets no name.
        challenge: Whether people have to turn their head to a side chosen at random before they
            get a name. The detector has to give points of its own, as ``"yunet"`` does.
        keep_sights: Whether each face without a name carries its best sight, by which a stranger is
            known again later.
    """

    detect_every: int = 3
    encodes_per_frame: int = 2
    smallest_face: int = 40
    confirm: bool | None = None
    liveness: bool = False
    challenge: bool = False
    keep_sights: bool = False

    def __post_init__(self) -> None:
        check_count(self.detect_every, "detect_every")
        check_count(self.encodes_per_frame, "encodes_per_frame")
        check_count(self.smallest_face, "smallest_face", least=20)


class Watcher:
    """Follows and names the faces in the frames of one video.

    Attributes:
        model: The encoder, the threshold and the enrolled people.
        detector: Finds the faces in the frames.
        settings: The amount of work done for each frame.
        attributes: Tells age, gender and expression of the faces; None where nobody asks.
        encoded: Number of times that a face was encoded.
    """

    def __init__(
        self,
        model: Face_Encode_Model,
        detector: Detector,
        settings: WatchSettings | None = None,
        attributes: AttributeNetwork | None = None,
    ) -> None:
        """Prepare the model and the detector.

        The networks run once here, because their first run takes seconds in which a camera would
        lose frames.

        Raises:
            InputError: Heads are to turn, and the detector gives no points.
        """
        self.model = model
        self.detector = detector
        self.settings = WatchSettings() if settings is None else settings
        if self.settings.challenge and not gives_points(detector):
            raise _no_points(detector)
        self.encoded = 0
        self._tracker = Tracker()
        is_haar = isinstance(detector, HaarDetector)
        self._confirms = is_haar if self.settings.confirm is None else self.settings.confirm
        self._close_detector = DlibHogDetector(max_pixels=_CLOSE_PIXELS, enlarge=_MAX_ENLARGE)
        self._before: GreyArray | None = None
        self._frames = 0
        self._detected_at = -math.inf
        self._judge_again_at = 0.0
        self.attributes = attributes
        for network in [model.encoder, *([attributes.encoder] if attributes else [])]:
            crop = network.contract.crop
            network.encode(np.zeros((1, crop.height, crop.width, 3), np.uint8))
        if self.settings.liveness:
            around = np.zeros((1, LIVENESS_CROP.height, LIVENESS_CROP.width, 3), np.uint8)
            model.liveness_judge.values(around)

    def look(self, frame: Frame) -> WatchedFrame:
        """Process the next frame.

        Args:
            frame: Of the same size as the one before; at another size, all tracks are dropped.

        Returns:
            The frame with the faces followed in it.
        """
        size = (frame.image.shape[1], frame.image.shape[0])
        self._follow(frame)
        is_due = frame.seconds - self._detected_at >= _MAX_DETECTION_INTERVAL
        if is_due or self._frames % self.settings.detect_every == 0:
            self._tracker.find(self.detector.detect(frame.image), frame.seconds, size)
            self._detected_at = frame.seconds
            if self.settings.challenge:
                self._see_turns(frame.seconds)
        self._frames += 1
        self._identify(frame)
        self._judge_again()
        self._name_each_once()
        tracks = self._tracker.tracks
        shown = [track for track in tracks if track.is_shown(frame.seconds)]
        faces = [self._watched(track, size) for track in shown]
        faces.sort(key=lambda face: face.box.area, reverse=True)
        uncertain = tuple(_as_box(track.box, size) for track in tracks if track not in shown)
        return WatchedFrame(
            frame.image,
            frame.number,
            frame.seconds,
            tuple(faces),
            uncertain,
            taken_at=frame.taken_at,
        )

    def _watched(self, track: Track, size: tuple[int, int]) -> WatchedFace:
        """The public view of a track."""
        identity = track.identity
        awaits = self.settings.challenge and not track.has_turned
        shown = None
        if self.attributes is not None and identity.answers is not None:
            answers = identity.answers[np.newaxis]
            (shown,) = read_answers(answers, self.attributes.calibration, [None])
        return WatchedFace(
            track=track.number,
            box=_as_box(track.box, size),
            since=track.since,
            name=identity.name,
            similarity=identity.similarity,
            is_settled=identity.is_settled,
            embedding=identity.embedding,
            is_missed=track.misses > 0,
            liveness=identity.liveness(self.model.verification_threshold),
            is_live=self._is_live(track),
            challenge=track.challenge.words if awaits else None,
            attributes=shown,
            sight=self._stranger(track),
        )

    def _stranger(self, track: Track) -> Sight | None:
        """The best sight of a stranger; None of a photo held up, and of who is enrolled."""
        identity = track.identity
        if identity.best is None or identity.name is not None or self._is_live(track) is False:
            return None
        near, nearest = identity.similarity, identity.nearest
        if near is not None and nearest is not None and near >= self.model.threshold_of(nearest):
            # Somebody enrolled, who has still to turn their head.
            return None
        return identity.best

    def _follow(self, frame: Frame) -> None:
        """Move the tracks to where this frame shows the faces."""
        self._tracker.drop_unseen(frame.seconds)
        smaller, scale = shrink(frame.image, _MOTION_WIDTH)
        grey: GreyArray = np.asarray(cv2.cvtColor(smaller, cv2.COLOR_RGB2GRAY), np.uint8)
        if self._before is not None and self._before.shape != grey.shape:
            self._tracker.tracks = []
        boxes = [track.box * scale for track in self._tracker.tracks]
        moved = [] if self._before is None else follow_boxes(self._before, grey, boxes)
        self._tracker.move([None if box is None else box / scale for box in moved], frame.seconds)
        self._before = grey

    def _identify(self, frame: Frame) -> None:
        """Encode the faces that are due, and update their names."""
        due = [
            track
            for track in self._tracker.tracks
            if track.found_at == frame.seconds
            and track.finds > 1
            and track.identity.wants_sight(frame.seconds, track.box[2])
        ]
        # The face with the fewest sights comes first, the larger of two.
        due.sort(key=lambda track: (track.identity.sights, -track.box[2]))
        sights: list[tuple[Track, Face, ImageArray]] = []
        for track in due[: self.settings.encodes_per_frame]:
            good = self._good_crop(frame.image, track.face)
            if good is None:
                track.identity.note_failure(frame.seconds, track.box[2])
                continue
            sights.append((track, *good))
        if not sights:
            return
        embeddings, qualities = self.model.encoder.embed(np.stack([crop for *_, crop in sights]))
        self.encoded += len(sights)
        least = self.model.encoder.contract.quality_threshold or 0
        told = [None] * len(sights) if qualities is None else list(qualities)
        for (track, face, _), embedding, quality in zip(sights, embeddings, told, strict=True):
            is_good = quality is None or quality >= least
            is_usable = is_good and 0 < np.linalg.norm(embedding) < np.inf
            if not is_usable or self._shows_other(track, unit_length(embedding)):
                track.identity.note_failure(frame.seconds, track.box[2])
                continue
            liveness = None
            if self.settings.liveness:
                around = crop_faces(frame.image, [face], LIVENESS_CROP)
                liveness = float(self.model.liveness_judge.values(around)[0])
            mean = track.identity.add_sight(embedding, frame.seconds, track.box[2], liveness)
            alone, together = self.model.gallery.search(np.stack([embedding, mean]), _NEAREST)
            if together:
                track.identity.judge(alone[0], together, self._needed(track))
            # Only now: who has taken the place of somebody else has begun anew.
            if self.attributes is not None:
                _add_answers(track.identity, frame.image, face, self.attributes.encoder)
            if self.settings.keep_sights and track.identity.name is None:
                shown = None if quality is None else float(quality)
                self._keep_best(track.identity, frame.image, face, embedding, shown)

    def _keep_best(
        self,
        identity: Identity,
        image: ImageArray,
        face: Face,
        embedding: npt.NDArray[np.float32],
        quality: float | None,
    ) -> None:
        """Keep a stranger's sight if it is the best; of those without a quality, the last."""
        best = identity.best
        if quality is None or best is None or quality > (best.details.quality or 0):
            details = PhotoDetails(quality=quality, crop=make_portrait(image, face))
            identity.best = Sight(embedding, details, detector=self.detector.name)

    def _judge_again(self) -> None:
        """Update all names twice a second where other programs may change the gallery."""
        now = time.monotonic()
        if not self.model.gallery.is_shared or now < self._judge_again_at:
            return
        self._judge_again_at = now + _JUDGED_AGAIN
        seen = [track for track in self._tracker.tracks if track.identity.sights]
        if not seen:
            return
        means = np.stack(
            [track.identity.embedding for track in seen if track.identity.embedding is not None]
        )
        for track, together in zip(seen, self.model.gallery.search(means, _NEAREST), strict=True):
            track.identity.judge_again(together, self._needed(track))

    def _needed(self, track: Track) -> Callable[[str], float]:
        """The similarity that names a face; for what is not alive, or did not turn, none does."""
        is_live = self._is_live(track) is not False
        has_turned = not self.settings.challenge or track.has_turned
        return self.model.threshold_of if is_live and has_turned else lambda name: math.inf

    def _is_live(self, track: Track) -> bool | None:
        """Whether a face is alive; None where nobody asked, or before its first sight."""
        value = track.identity.liveness(self.model.verification_threshold)
        return None if value is None else value >= self.model.liveness_judge.threshold

    def _shows_other(self, track: Track, sight: npt.NDArray[np.float32]) -> bool:
        """Whether a good sight shows somebody else than who turned.

        Then it does not count, and there is no name before the next one: it is a bad angle, or a
        photo held up for a moment. After some in a row, who is there now begins anew.
        """
        if track.met_by is None or sight @ track.met_by >= self.model.verification_threshold:
            track.others = 0
            return False
        track.identity.name = None
        track.others += 1
        if track.others < _OTHERS_TO_ASK_ANEW:
            return True
        track.identity, track.challenge = Identity(), Challenge()
        track.met_by, track.others = None, 0
        return False

    def _see_turns(self, seconds: float) -> None:
        """Show the faces that were found just now to their challenges.

        Raises:
            InputError: The detector gives no points.
        """
        for track in self._tracker.tracks:
            embedding = track.identity.embedding
            if track.found_at != seconds or embedding is None or track.met_by is not None:
                continue
            if track.face.points is None:
                raise _no_points(self.detector)
            track.challenge.see(track.face.points, seconds)
            if track.challenge.is_met:
                track.met_by = embedding
                track.identity.look_again()

    def _name_each_once(self) -> None:
        """Reset the less similar of two faces with one name.

        That face most often got the name from the other, when one passed in front of the other.
        """
        named = [track for track in self._tracker.tracks if track.identity.name is not None]
        named.sort(key=lambda track: (track.misses > 0, -(track.identity.similarity or 0)))
        taken: set[str | None] = set()
        for track in named:
            if track.identity.name in taken:
                track.identity = Identity()
            else:
                taken.add(track.identity.name)

    def _good_crop(self, image: ImageArray, face: Face) -> tuple[Face, ImageArray] | None:
        """Crop a face for the encoder; None if it is too small, blurred or a false alarm.

        The second look, at the face's surroundings alone, tells a face from a false alarm, and
        frames it as the gallery's photos were framed.
        """
        if face.box.width < self.settings.smallest_face:
            return None
        seen = self._second_look(image, as_array(face.box)) if self._confirms else face
        if seen is None:
            return None
        recipe = self.model.encoder.contract.crop
        crops = crop_faces(image, [seen], recipe)
        return None if is_blurred(recipe.first_of(crops)[0]) else (seen, crops[0])

    def _second_look(self, image: ImageArray, box: FloatBox) -> Face | None:
        """Run the HOG detector on the surroundings of a box; None if it finds no face there."""
        margin = _AROUND * box[2:]
        around = np.concatenate([box[:2] - margin, box[2:] + 2 * margin])
        area = _as_box(around, (image.shape[1], image.shape[0]))
        part = image[area.top : area.top + area.height, area.left : area.left + area.width]
        found = self._close_detector.detect(np.ascontiguousarray(part))
        if not found:
            return None
        offset = np.array([area.left, area.top, 0, 0])
        overlaps = overlap_of_all([box], [as_array(face.box) + offset for face in found])[0]
        if overlaps.max() < _MIN_SAME_OVERLAP:
            return None
        face = found[int(overlaps.argmax())]
        moved = replace(face.box, left=face.box.left + area.left, top=face.box.top + area.top)
        shift = np.array([area.left, area.top], np.float32)
        landmarks = None if face.landmarks is None else face.landmarks + shift
        return Face(moved, face.score, landmarks)


def _add_answers(identity: Identity, image: ImageArray, face: Face, network: Encoder) -> None:
    """Add what a face shows of age, gender and expression, where it can be told."""
    answers, trust = network.embed(crop_faces(image, [face], network.contract.crop))
    # The network's own measure: a covered mouth hides an age before it hides a name.
    if trust is None or trust[0] >= (network.contract.quality_threshold or 0):
        identity.add_answers(answers[0])


def _as_box(box: FloatBox, size: tuple[int, int]) -> Box:
    """Round four numbers to a box, clamped to a frame of this width and height."""
    left, top, width, height = (round(float(value)) for value in box)
    return Box(left, top, max(1, width), max(1, height)).clamped(*size)


def watch(
    source: int | str | os.PathLike[str] | Source,
    model: Face_Encode_Model,
    detector: str | Detector | None = None,
    settings: WatchSettings | None = None,
) -> Generator[WatchedFrame, None, None]:
    """Follow and name the faces in a video, a camera or a stream.

    Args:
        source: A webcam's number, an address, the path of a video file, or a source opened by
            ``open_source``.
        model: The encoder and the enrolled people.
        detector: Finds the faces in the frames: a known detector's name, a detector, or None for
            the default, ``"haar"``. The model's own detector serves its photos only.
        settings: The amount of work done for each frame.

    Yields:
        Each frame with the faces in it. A live source passes over the frames that come during the
        work on one; a file gives every frame.

    Raises:
        VideoError: The source cannot be opened, is no video, or was lost and did not come back.
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


def _no_points(detector: Detector) -> InputError:
    """The error where turns of the head are asked for, and cannot be seen."""
    return InputError(
        "turns of the head are seen by points that yunet and retinaface give. "
        f"Received: the detector {detector.name!r}"
    )


def video_detector(
    detector: str | Detector | None = None, width: int | None = None, *, is_live: bool = True
) -> Detector:
    """Open the detector for a video.

    Args:
        detector: A name, a detector, or None for the default, ``"haar"``.
        width: Shrink frames to about this width for the detector; None for a width that suits the
            source. A detector without a bound on its pixels gets whole frames.
        is_live: Whether a slow detector costs frames.

    Raises:
        InputError: No such detector, or a width below 64.
    """
    chosen: Detector
    if detector is None or detector == "haar":
        chosen = HaarDetector(smallest=_MIN_HAAR_FACE)
        if width is None:
            width = _LIVE_WIDTH if is_live else _RECORDED_WIDTH
    else:
        chosen = load_detector(detector) if isinstance(detector, str) else detector
    if width is None or not dataclasses.is_dataclass(chosen) or not hasattr(chosen, "max_pixels"):
        return chosen
    check_count(width, "width", least=64)
    changed: Detector = replace(chosen, max_pixels=round(width * width * _USUAL_ASPECT))
    return changed
