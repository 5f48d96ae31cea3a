from __future__ import annotations

import numpy as np
import pytest

from face_encode.photos.folders import PhotoListing
from face_encode.pipeline.cluster.parts import chunks, divide
from face_encode.pipeline.embedding_file import is_part
from face_encode.pipeline.embedding_table import EmbeddingSettings

pytest.importorskip("pyarrow")

SETTINGS = EmbeddingSettings("one", "f1", 8, "eyes")
NAMES = [f"{number}.jpg" for number in range(7)]
LISTING = PhotoListing(NAMES, np.array([(10, number) for number in range(7)]), [])


def test_photos_are_divided_in_their_order() -> None:
    parts = divide(LISTING, SETTINGS, 3)
    assert [(part.number, part.start, part.stop) for part in parts] == [
        (1, 0, 3),
        (2, 3, 6),
        (3, 6, 7),
    ]
    names = [part.name for part in parts]
    assert all(map(is_part, names)) and names == sorted(names)


def test_a_part_has_another_name_when_anything_in_it_changed() -> None:
    before = divide(LISTING, SETTINGS, 3)
    assert divide(LISTING, SETTINGS, 3) == before
    states = LISTING.states.copy()
    states[4] = 10, 99
    changed = divide(PhotoListing(NAMES, states, []), SETTINGS, 3)
    assert [a == b for a, b in zip(before, changed, strict=True)] == [True, False, True]
    renamed = divide(PhotoListing(["x.jpg", *NAMES[1:]], LISTING.states, []), SETTINGS, 3)
    assert [a == b for a, b in zip(before, renamed, strict=True)] == [False, True, True]
    other = divide(LISTING, EmbeddingSettings("one", "f2", 8, "eyes"), 3)
    assert not {part.name for part in other} & {part.name for part in before}


def test_a_chunk_is_of_one_part_only() -> None:
    parts = divide(LISTING, SETTINGS, 5)
    given = [(set(t["part"].to_pylist()), t["photo"].to_pylist()) for t in chunks(parts, NAMES, 2)]
    assert given == [
        ({1}, NAMES[0:2]),
        ({1}, NAMES[2:4]),
        ({1}, NAMES[4:5]),
        ({2}, NAMES[5:7]),
    ]
