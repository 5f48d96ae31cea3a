"""Who is there: people's arrivals, new names and departures, out of the faces of the frames."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError
from face_encode.gallery.base import unknown_id
from face_encode.gallery.unknown import KEEP_DAYS, Placed, Sight, UnknownPeople
from face_encode.video.frames import UNSEEN_SECONDS, UnseenLimit, WatchedFace, WatchedFrame

# A face that came back in time has so long to be recognised.
_SETTLING_SECONDS = 2.0
# Unknown people are reported from this long a stay on.
_MIN_UNKNOWN_SECONDS = 1.0


@dataclass(frozen=True)
class Appearance:
    """A person's stay in front of the camera.

    Attributes:
        id: Another one for each appearance, in all runs.
        name: The person, or None for somebody who is not enrolled.
        begin: Seconds at which the face was first seen: of the video or, live, since the first
            frame, by a clock that nobody sets.
        end: Seconds at which it was last seen.
        best_similarity: The highest; of an unknown person, to the nearest enrolled one, or None
            where nobody is enrolled.
        began_at: The same as ``begin`` by the wall's clock, in UTC; None for a recorded video.
        ended_at: The same as ``end`` by the wall's clock.
        unknown: What somebody without a name is called, ``"unknown-7"``: the same at the next
            appearance, before other cameras and in other runs; None where strangers are not kept,
            or cannot be.
    """

    id: str
    name: str | None
    begin: float
    end: float
    best_similarity: float | None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    unknown: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The appearance as plain JSON values."""
        best = self.best_similarity
        times = {
            key: at.isoformat(timespec="milliseconds")
            for key, at in (("from_time", self.began_at), ("to_time", self.ended_at))
            if at is not None
        }
        return {
            "id": self.id,
            "name": self.name,
            **({} if self.unknown is None else {"unknown": self.unknown}),
            "from": round(self.begin, 3),
            "to": round(self.end, 3),
            "best_similarity": None if best is None else round(best, 4),
            **times,
        }


@dataclass(frozen=True, eq=False)
class PresenceEvent:
    """Somebody arrived, is known by a name now, or left.

    Attributes:
        kind: ``"arrived"``, once the face is recognised, or called unknown after a second;
            ``"renamed"``, when an unknown person was recognised after all; or ``"left"``.
        appearance: As it is now: it keeps its ``id`` until the end.
        face: The face in the frame; None when the person has left.
        continued_as: Where somebody unknown has "left" because they are the person of another
            appearance: its ``id``.
    """

    kind: Literal["arrived", "renamed", "left"]
    appearance: Appearance
    face: WatchedFace | None = None
    continued_as: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The event as plain JSON values."""
        event = {"event": self.kind, **self.appearance.as_dict()}
        if self.continued_as is not None:
            event["continued_as"] = self.continued_as
        if self.face is not None and self.face.attributes is not None:
            event["attributes"] = self.face.attributes.as_dict()
        return event


@dataclass(frozen=True)
class Strangers:
    """Where people without a name are known again: the gallery database of several cameras.

    Attributes:
        people: ``DatabaseGallery.unknown``.
        threshold: Similarity from which somebody is the person of an earlier appearance.
        source: The camera.
        keep_days: How long somebody is kept after the last appearance; 0 keeps nobody.
        report: Called with a line of text when strangers cannot be kept, such as on a full disk:
            who is enrolled is recognised all the same.
    """

    people: UnknownPeople
    threshold: float
    source: str = ""
    keep_days: float = KEEP_DAYS
    report: Callable[[str], None] | None = None


@dataclass(eq=False)
class _Open:
    """An appearance that has not ended.

    Attributes:
        tracks: Numbers of the tracks that it consists of.
        embedding: The latest, by which an unknown person is recognised again.
        is_announced: Whether its arrival was reported.
        placed: Where the stranger's faces are kept, or None.
        sight: The best sight of the stranger, and whether that is kept already.
    """

    id: str
    name: str | None
    begin: float
    end: float
    best: float | None
    began_at: datetime | None
    ended_at: datetime | None
    tracks: set[int] = field(default_factory=set)
    embedding: npt.NDArray[np.float32] | None = None
    is_announced: bool = False
    placed: Placed | None = None
    sight: Sight | None = None
    is_kept: bool = False

    def as_appearance(self) -> Appearance:
        """What others may see of it."""
        return Appearance(
            self.id,
            self.name,
            self.begin,
            self.end,
            self.best,
            self.began_at,
            self.ended_at,
            None if self.placed is None else unknown_id(self.placed.number),
        )


class AppearanceLog:
    """Turns the faces of successive frames into events.

    A face that is recognised only after a while was that person from the beginning. Unknown people
    are told apart by their embeddings.
    """

    def __init__(
        self,
        threshold: float,
        unseen_seconds: float = UNSEEN_SECONDS,
        strangers: Strangers | None = None,
    ) -> None:
        """Begin without appearances.

        Args:
            threshold: Similarity from which two unknown faces are the same person.
            unseen_seconds: An absence shorter than this does not end an appearance.
            strangers: Where unknown people are known again by; None for nowhere. The watcher's
                setting ``keep_sights`` belongs to it.
        """
        self._threshold, self._strangers = threshold, strangers
        self._problem: str | None = None
        self._unseen = UnseenLimit(unseen_seconds)
        self._open: list[_Open] = []
        # Since when each face is seen that belongs to nobody yet.
        self._newcomers: list[float] = []
        # A few letters of chance for this run, and a number for each appearance.
        self._run, self._count = uuid.uuid4().hex[:8], 0

    def add(self, frame: WatchedFrame) -> list[PresenceEvent]:
        """Add the faces of the next frame.

        Returns:
            What has happened: those who left in the order in which they came, then the others.
        """
        followed = {track for each in self._open for track in each.tracks}
        self._newcomers = [face.since for face in frame.faces if face.track not in followed]
        events = self._end_unseen(frame.seconds, self._unseen.after(frame.seconds))
        for face in frame.faces:
            if face.is_settled and not face.is_missed:
                events += self._add_face(face, frame)
        return events

    def wait(self, seconds: float) -> list[PresenceEvent]:
        """Let the time go on while no frame comes: whoever is not seen leaves.

        Args:
            seconds: The time now, as that of the frames.
        """
        return self._end_unseen(seconds, self._unseen.seconds)

    def close(self) -> list[PresenceEvent]:
        """End all appearances, in the order in which they began."""
        return self._end(self._open)

    def _end_unseen(self, now: float, allowed: float) -> list[PresenceEvent]:
        """End the appearances of those who were not seen for too long."""
        recent = [since for since in self._newcomers if now - since <= _SETTLING_SECONDS]
        over = [each for each in self._open if now - each.end > allowed]
        return self._end(
            [each for each in over if not any(since - each.end <= allowed for since in recent)]
        )

    def _end(self, over: list[_Open], continued_as: str | None = None) -> list[PresenceEvent]:
        """Remove these appearances; returns an event for each that was reported before."""
        self._open = [each for each in self._open if each not in over]
        for each in over:
            if continued_as is None:
                self._keep_best(each)
            else:
                self._withdraw(each)
        return [
            PresenceEvent("left", each.as_appearance(), continued_as=continued_as)
            for each in sorted(over, key=lambda each: each.begin)
            if each.is_announced
        ]

    def _add_face(self, face: WatchedFace, frame: WatchedFrame) -> Iterable[PresenceEvent]:
        """Continue the face's appearance, or begin one."""
        begin, began_at = self._began(face, frame)
        own = next((each for each in self._open if self._belongs(face, each)), None)
        is_new = own is None
        if own is None:
            self._count += 1
            own = _Open(
                f"{self._run}-{self._count}",
                face.name,
                begin,
                frame.seconds,
                face.similarity,
                began_at,
                frame.taken_at,
            )
            self._open.append(own)
        events: list[PresenceEvent] = []
        is_renamed = False
        if face.name is not None and face.track not in own.tracks:
            # Until now, this track may have been counted as an unknown person.
            over = self._unknown_only_by(face.track)
            former = next((each for each in over if is_new and each.is_announced), None)
            if former is not None:
                over.remove(former)
                self._open.remove(former)
                self._withdraw(former)
                own.id, own.is_announced, is_renamed = former.id, True, True
            events += self._end(over, own.id)
            if begin < own.begin:
                own.begin, own.began_at = begin, began_at
        own.tracks.add(face.track)
        own.end, own.ended_at = frame.seconds, frame.taken_at
        if face.similarity is not None and (own.best is None or face.similarity > own.best):
            own.best = face.similarity
        own.embedding = face.embedding
        if face.sight is not None and face.sight is not own.sight:
            own.sight, own.is_kept = face.sight, False
        if is_renamed:
            events.append(PresenceEvent("renamed", own.as_appearance(), face))
        elif not own.is_announced and (
            own.name is not None or own.end - own.begin >= _MIN_UNKNOWN_SECONDS
        ):
            own.is_announced = True
            self._place(own, face)
            events.append(PresenceEvent("arrived", own.as_appearance(), face))
        return events

    def _began(self, face: WatchedFace, frame: WatchedFrame) -> tuple[float, datetime | None]:
        """When the person whom a face shows came, in the time of frames and of the clock."""
        before = [each for each in self._open if face.track in each.tracks]
        # A track that had another name before became this person only now.
        changed = any(each.name not in (None, face.name) for each in before)
        begin = frame.seconds if changed else face.since
        began_at = frame.taken_at
        if began_at is not None:
            began_at -= timedelta(seconds=frame.seconds - begin)
        for each in before:
            # Nor was it this person before it lost a name, and was unknown from then on.
            if each.name is None and each.begin > begin:
                begin, began_at = each.begin, each.began_at
        return begin, began_at

    def _unknown_only_by(self, track: int) -> list[_Open]:
        """Take a track from the unknown people; those who had no other."""
        unknown = [each for each in self._open if each.name is None]
        for each in unknown:
            each.tracks.discard(track)
        return [each for each in unknown if not each.tracks]

    def _place(self, own: _Open, face: WatchedFace) -> None:
        """Find out which stranger somebody is who has just arrived, and keep the face."""
        strangers = self._strangers
        if strangers is None or own.name is not None or face.sight is None:
            return
        with self._problems_told():
            own.placed = strangers.people.see(
                _from(strangers.source, face.sight),
                strangers.threshold,
                probe=face.embedding,
                keep_days=strangers.keep_days,
            )
            own.is_kept = True

    def _keep_best(self, own: _Open) -> None:
        """Keep the best sight of a stranger who has left."""
        strangers, placed = self._strangers, own.placed
        if strangers is None or placed is None or own.sight is None or own.is_kept:
            return
        with self._problems_told():
            strangers.people.see_again(
                placed.number, _from(strangers.source, own.sight), keep_days=strangers.keep_days
            )

    def _withdraw(self, own: _Open) -> None:
        """Forget the faces of somebody who turned out to be enrolled."""
        if self._strangers is not None and own.placed is not None:
            with self._problems_told():
                self._strangers.people.withdraw(*own.placed)

    @contextmanager
    def _problems_told(self) -> Iterator[None]:
        """Go on where the gallery cannot be changed, and tell so once; nobody is missed for it."""
        problem = None
        try:
            yield
        except GalleryError as error:
            problem = str(error)
        strangers = self._strangers
        if problem not in (None, self._problem) and strangers is not None and strangers.report:
            strangers.report(f"{strangers.source}: strangers are not kept: {problem}")
        self._problem = problem

    def _belongs(self, face: WatchedFace, appearance: _Open) -> bool:
        """Whether a face continues an appearance."""
        if face.name is not None or appearance.name is not None:
            return appearance.name == face.name
        if face.track in appearance.tracks:
            return True
        if face.embedding is None or appearance.embedding is None:
            return False
        return float(face.embedding @ appearance.embedding) >= self._threshold


def _from(source: str, sight: Sight) -> Sight:
    """A sight with the name of its camera."""
    return replace(sight, details=replace(sight.details, source=source))
