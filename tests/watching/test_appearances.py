from __future__ import annotations

import numpy as np
import numpy.typing as npt

from face_encode.types import Box
from face_encode.video.frames import WatchedFace, WatchedFrame
from face_encode.video.session import Appearance, AppearanceLog

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


def logged(*frames: tuple[float, list[WatchedFace]]) -> list[Appearance]:
    log = AppearanceLog(threshold=0.9, merge_seconds=2.0)
    told: list[Appearance] = []
    for number, (seconds, faces) in enumerate(frames):
        told += log.add(WatchedFrame(IMAGE, number, seconds, tuple(faces)))
    return told + log.close()


def test_one_entry_an_appearance_with_the_best_similarity() -> None:
    told = logged(
        (0.5, [seen("Ada", similarity=0.93, since=0.1)]),
        (1.0, [seen("Ada", similarity=0.97, since=0.1)]),
        (2.0, [seen("Ada", similarity=0.95, since=0.1)]),
    )
    assert told == [Appearance("Ada", 0.1, 2.0, 0.97)]
    assert told[0].as_dict() == {"name": "Ada", "from": 0.1, "to": 2.0, "best_similarity": 0.97}


def test_short_gaps_are_merged_and_long_ones_are_not() -> None:
    told = logged(
        (1.0, [seen("Ada", track=1, since=1.0)]),
        (2.0, []),
        (2.9, [seen("Ada", track=2, since=2.5)]),
        (5.0, []),
        (6.0, [seen("Ada", track=3, since=5.9)]),
    )
    assert [(each.begin, each.end) for each in told] == [(1.0, 2.9), (5.9, 6.0)]


def test_an_appearance_is_told_as_soon_as_it_is_over() -> None:
    log = AppearanceLog(threshold=0.9, merge_seconds=2.0)
    assert log.add(WatchedFrame(IMAGE, 0, 0.0, (seen("Ada"),))) == []
    assert log.add(WatchedFrame(IMAGE, 1, 1.9, ())) == []
    assert [each.name for each in log.add(WatchedFrame(IMAGE, 2, 2.1, ()))] == ["Ada"]
    assert log.close() == []


def test_two_people_have_an_entry_each() -> None:
    told = logged((0.0, [seen("Ada", 1), seen("Bob", 2)]), (1.0, [seen("Ada", 1), seen("Bob", 2)]))
    assert [each.name for each in told] == ["Ada", "Bob"]


def test_whoever_is_recognised_late_was_there_from_the_beginning() -> None:
    told = logged(
        (1.0, [seen(None, similarity=0.8, since=0.2)]),
        (3.0, [seen(None, similarity=0.85, since=0.2)]),
        (3.1, [seen("Ada", similarity=0.95, since=0.2)]),
    )
    assert told == [Appearance("Ada", 0.2, 3.1, 0.95)]


def test_a_face_that_another_person_took_over_is_two_appearances() -> None:
    told = logged(
        (1.0, [seen("Ada", since=0.0)]), (2.0, [seen("Bob", since=0.0)]), (3.0, [seen("Bob")])
    )
    assert [(each.name, each.begin, each.end) for each in told] == [
        ("Ada", 0.0, 1.0),
        ("Bob", 2.0, 3.0),
    ]


def test_what_is_not_settled_or_not_seen_is_not_told() -> None:
    told = logged(
        (1.0, [seen("Ada")]),
        (1.5, [seen("Ada", missed=True)]),
        (1.6, [seen(None, track=2, settled=False)]),
        (3.0, [seen(None, track=2, settled=False)]),
    )
    assert told == [Appearance("Ada", 0.0, 1.0, 0.95)]


def test_unknown_people_are_told_apart_and_known_again() -> None:
    told = logged(
        (1.0, [seen(None, 1, 0.8), seen(None, 2, 0.7, embedding=OTHER)]),
        (2.0, [seen(None, 1, 0.8), seen(None, 2, 0.7, embedding=OTHER)]),
        # The first is lost for a moment and followed under another number.
        (3.0, [seen(None, 3, 0.82, since=2.8), seen(None, 2, 0.7, embedding=OTHER)]),
    )
    assert told == [Appearance(None, 0.0, 3.0, 0.82), Appearance(None, 0.0, 3.0, 0.7)]


def test_unknown_faces_do_not_flood() -> None:
    passing = [
        (0.4 * index, [seen(None, index, embedding=None, since=0.4 * index)]) for index in range(50)
    ]
    assert logged(*passing) == []


def test_nobody_enrolled_has_no_similarity() -> None:
    told = logged((0.0, [seen(None, similarity=None)]), (2.0, [seen(None, similarity=None)]))
    assert told == [Appearance(None, 0.0, 2.0, None)]
