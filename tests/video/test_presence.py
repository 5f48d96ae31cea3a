from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

import numpy as np
import numpy.typing as npt

from face_encode.types import Box
from face_encode.video.frames import WatchedFace, WatchedFrame
from face_encode.video.presence import AppearanceLog, PresenceEvent

IMAGE = np.zeros((2, 2, 3), np.uint8)
ONE = np.array([1, 0], np.float32)
OTHER = np.array([0, 1], np.float32)


def seen(
    name: str | None,
    track: int = 1,
    similarity: float | None = 0.95,
    since: float = 0.0,
    settled: bool = True,
    embedding: npt.NDArray[np.float32] | None = ONE,
    missed: bool = False,
) -> WatchedFace:
    box = Box(0, 0, 2, 2)
    return WatchedFace(track, box, since, name, similarity, settled, embedding, missed)


START = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)


def shown(seconds: float, *faces: WatchedFace) -> WatchedFrame:
    """A frame of a live source in which exactly these faces are."""
    taken_at = START + timedelta(seconds=seconds)
    return WatchedFrame(IMAGE, 0, seconds, tuple(faces), taken_at=taken_at)


def told(*frames: WatchedFrame) -> list[PresenceEvent]:
    log = AppearanceLog(threshold=0.9, unseen_seconds=2.0)
    return [each for frame in frames for each in log.add(frame)] + log.close()


def logged(
    *frames: tuple[float, list[WatchedFace]],
) -> list[tuple[str | None, float, float, float | None]]:
    """Name, begin, end and best similarity of the appearances, in the order of their ends."""
    stays = [
        each.appearance
        for each in told(*(shown(at, *faces) for at, faces in frames))
        if each.kind == "left"
    ]
    return [(each.name, each.begin, each.end, each.best_similarity) for each in stays]


def test_one_entry_an_appearance_with_the_best_similarity() -> None:
    appearances = logged(
        (0.5, [seen("Ada", similarity=0.93, since=0.1)]),
        (1.0, [seen("Ada", similarity=0.97, since=0.1)]),
        (2.0, [seen("Ada", similarity=0.95, since=0.1)]),
    )
    assert appearances == [("Ada", 0.1, 2.0, 0.97)]


def test_short_gaps_are_merged_and_long_ones_are_not() -> None:
    appearances = logged(
        (1.0, [seen("Ada", track=1, since=1.0)]),
        (2.0, []),
        (2.9, [seen("Ada", track=2, since=2.5)]),
        (5.0, []),
        (6.0, [seen("Ada", track=3, since=5.9)]),
    )
    assert [each[1:3] for each in appearances] == [(1.0, 2.9), (5.9, 6.0)]


def kinds(events: Iterable[PresenceEvent]) -> list[tuple[str, str | None]]:
    return [(each.kind, each.appearance.name) for each in events]


def test_an_arrival_is_told_at_once_and_the_departure_as_soon_as_it_is_over() -> None:
    log = AppearanceLog(threshold=0.9, unseen_seconds=2.0)
    (arrived,) = log.add(shown(0.3, seen("Ada", since=0.1)))
    assert arrived.kind == "arrived"
    assert arrived.face is not None and arrived.face.name == "Ada"
    assert log.add(shown(1.0, seen("Ada", similarity=0.97, since=0.1))) == []
    assert log.add(shown(2.9)) == []
    (left,) = log.add(shown(3.1))
    assert left.appearance.id == arrived.appearance.id
    assert left.as_dict() == {
        "event": "left",
        "id": arrived.appearance.id,
        "name": "Ada",
        "from": 0.1,
        "to": 1.0,
        "best_similarity": 0.97,
        "from_time": "2026-11-29T12:00:00.100+00:00",
        "to_time": "2026-11-29T12:00:01.000+00:00",
    }
    assert log.close() == []


def test_a_break_ends_an_appearance_while_no_frame_comes() -> None:
    log = AppearanceLog(threshold=0.9)
    before = [each for number in range(50) for each in log.add(shown(number / 10, seen("Ada")))]
    assert kinds(before) == [("arrived", "Ada")]
    assert log.wait(6.3) == []
    (left,) = log.wait(6.5)
    assert (left.kind, left.appearance.end) == ("left", 4.9)
    after = log.add(shown(3605.0, seen("Ada", track=2, since=3605.0)))
    assert kinds(after) == [("arrived", "Ada")]
    assert after[0].appearance.id != left.appearance.id
    assert after[0].appearance.begin == 3605.0


def test_a_break_that_nobody_waited_in_ends_an_appearance() -> None:
    log = AppearanceLog(threshold=0.9)
    for number in range(50):
        log.add(shown(number / 10, seen("Ada")))
    events = log.add(shown(3605.0, seen("Ada", track=2, since=3605.0)))
    assert kinds(events) == [("left", "Ada"), ("arrived", "Ada")]
    assert [each.appearance.end for each in events] == [4.9, 3605.0]


def test_who_comes_back_in_time_has_a_moment_to_be_recognised() -> None:
    log = AppearanceLog(threshold=0.9, unseen_seconds=1.5)
    log.add(shown(0.5, seen("Ada", since=0.1)))
    back = seen(None, track=2, since=1.9, settled=False)
    assert log.add(shown(2.1, back)) == []
    assert log.add(shown(2.9, back)) == []
    assert log.add(shown(3.0, seen("Ada", track=2, since=1.9))) == []
    # Whoever comes later does not keep Ada there, nor does a face that nobody recognises.
    late = seen(None, track=3, since=4.6, settled=False)
    assert kinds(log.add(shown(4.7, late))) == [("left", "Ada")]
    log.add(shown(5.0, seen("Ada", track=4, since=4.8)))
    odd = seen(None, track=5, since=5.5, settled=False)
    assert log.add(shown(7.4, odd)) == []
    assert kinds(log.add(shown(9.5, odd))) == [("left", "Ada")]


def test_frames_that_come_seldom_do_not_end_an_appearance() -> None:
    log = AppearanceLog(threshold=0.9)
    events = [each for number in range(20) for each in log.add(shown(2.0 * number, seen("Ada")))]
    # In the first frames, nobody can know how often they come.
    assert kinds(events[-1:]) == [("arrived", "Ada")]
    assert events[-1].appearance.begin <= 10
    assert log.close()[0].appearance.end == 38


def test_an_unknown_person_who_is_recognised_keeps_the_id() -> None:
    events = told(
        shown(1.0, seen(None, similarity=0.8)),
        shown(2.0, seen(None, similarity=0.8)),
        shown(2.1, seen("Ada")),
        shown(3.0, seen("Ada")),
    )
    assert kinds(events) == [("arrived", None), ("renamed", "Ada"), ("left", "Ada")]
    assert len({each.appearance.id for each in events}) == 1
    assert events[-1].appearance.begin == 0.0


def test_a_name_that_is_lost_for_a_while_begins_no_stay_before_the_loss() -> None:
    log, events = AppearanceLog(threshold=0.9), list[PresenceEvent]()
    for tenths in range(300):
        name = None if 100 <= tenths < 150 or 200 <= tenths < 250 else "Ada"
        events += log.add(shown(tenths / 10, seen(name)))
    events += log.close()
    stays = [each.appearance for each in events if each.kind == "left"]
    assert [(each.name, each.begin, each.end) for each in stays] == [
        ("Ada", 0.0, 9.9),
        ("Ada", 10.0, 19.9),
        ("Ada", 20.0, 29.9),
    ]
    assert [each.began_at for each in stays] == [
        START + timedelta(seconds=seconds) for seconds in (0, 10, 20)
    ]


def test_an_unknown_person_who_is_somebody_that_is_there_goes_on_as_them() -> None:
    events = told(
        shown(0.5, seen("Ada", track=1)),
        shown(1.0, seen(None, track=2, similarity=0.8, since=0.7)),
        shown(2.0, seen(None, track=2, similarity=0.8, since=0.7)),
        shown(2.1, seen("Ada", track=2, since=0.7)),
    )
    ada, unknown, continued, left = events
    assert kinds(events) == [("arrived", "Ada"), ("arrived", None), ("left", None), ("left", "Ada")]
    assert continued.appearance.id == unknown.appearance.id
    assert continued.as_dict()["continued_as"] == ada.appearance.id == left.appearance.id
    assert "continued_as" not in left.as_dict()


def test_two_people_have_an_entry_each() -> None:
    appearances = logged(
        (0.0, [seen("Ada", 1), seen("Bob", 2)]), (1.0, [seen("Ada", 1), seen("Bob", 2)])
    )
    assert [each[0] for each in appearances] == ["Ada", "Bob"]


def test_a_person_recognised_late_was_there_from_the_beginning() -> None:
    appearances = logged(
        (1.0, [seen(None, similarity=0.8, since=0.2)]),
        (3.0, [seen(None, similarity=0.85, since=0.2)]),
        (3.1, [seen("Ada", similarity=0.95, since=0.2)]),
    )
    assert appearances == [("Ada", 0.2, 3.1, 0.95)]


def test_a_face_that_another_person_took_over_is_two_appearances() -> None:
    appearances = logged(
        (1.0, [seen("Ada", since=0.0)]), (2.0, [seen("Bob", since=0.0)]), (3.0, [seen("Bob")])
    )
    assert [each[:3] for each in appearances] == [
        ("Ada", 0.0, 1.0),
        ("Bob", 2.0, 3.0),
    ]


def test_faces_not_settled_or_not_found_are_not_reported() -> None:
    appearances = logged(
        (1.0, [seen("Ada")]),
        (1.5, [seen("Ada", missed=True)]),
        (1.6, [seen(None, track=2, settled=False)]),
        (3.0, [seen(None, track=2, settled=False)]),
    )
    assert appearances == [("Ada", 0.0, 1.0, 0.95)]


def test_unknown_people_are_told_apart_and_known_again() -> None:
    appearances = logged(
        (1.0, [seen(None, 1, 0.8), seen(None, 2, 0.7, embedding=OTHER)]),
        (2.0, [seen(None, 1, 0.8), seen(None, 2, 0.7, embedding=OTHER)]),
        # The first is lost for a moment and followed under another number.
        (3.0, [seen(None, 3, 0.82, since=2.8), seen(None, 2, 0.7, embedding=OTHER)]),
    )
    assert appearances == [(None, 0.0, 3.0, 0.82), (None, 0.0, 3.0, 0.7)]


def test_unknown_faces_do_not_flood() -> None:
    passing = [
        (0.4 * index, [seen(None, index, embedding=None, since=0.4 * index)]) for index in range(50)
    ]
    assert logged(*passing) == []


def test_nobody_enrolled_has_no_similarity() -> None:
    appearances = logged((0.0, [seen(None, similarity=None)]), (2.0, [seen(None, similarity=None)]))
    assert appearances == [(None, 0.0, 2.0, None)]
