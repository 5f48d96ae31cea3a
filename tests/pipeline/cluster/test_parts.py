from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import EmbeddingFileError
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.folders import PhotoListing, location_of
from face_encode.pipeline.cluster.parts import WrittenParts, chunks, divide
from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.pipeline.embedding_file import CONTENTS, is_part, read_embeddings
from face_encode.pipeline.embedding_table import EmbeddingSettings
from face_encode.pipeline.parquet import table_of
from face_encode.types import Box, Face

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


pytest.importorskip("pyarrow")

NAMES_OF_WRITTEN_PARTS = ["a.jpg", "b.jpg", "c.jpg"]
PARTS = divide(PhotoListing(NAMES_OF_WRITTEN_PARTS, np.ones((3, 2), np.int64), []), SETTINGS, 2)


def face(photo: str) -> EmbeddedPhoto:
    embedding = np.random.default_rng(ord(photo[0])).normal(size=(1, 8)).astype(np.float32)
    face = Face(Box(1, 1, 1, 1), 1.0)
    return EmbeddedPhoto(photo, (face,), embedding, digest="ab", notes=("lacks its end",))


def written(folder: Path) -> WrittenParts:
    """Both parts, with the column beside those of the file that a cluster's rows have."""
    parts = WrittenParts(location_of(folder), SETTINGS, [("bad", "a link to nothing")], PARTS)
    for part in PARTS:
        rows = table_of(
            [face(name) for name in NAMES_OF_WRITTEN_PARTS[part.start : part.stop]], SETTINGS, None
        )
        parts.write(part, [rows.append_column("part", [[part.number] * len(part)])])
    return parts


def test_parts_become_a_file_or_a_folder_of_the_same_rows(tmp_path: Path) -> None:
    parts = written(tmp_path / "e.parquet")
    parts.finish_file(location_of(tmp_path / "one.parquet"), SETTINGS, None)
    assert (parts.face_count, parts.left_out) == (3, [("bad", "a link to nothing")])
    assert parts.notes == [f"{name}: lacks its end" for name in NAMES_OF_WRITTEN_PARTS]
    others = written(tmp_path / "e.parquet")
    others.finish_folder(location_of(tmp_path / "e.parquet"), SETTINGS, None)
    assert others.notes == parts.notes
    one, other = (read_embeddings(tmp_path / name) for name in ("one.parquet", "e.parquet"))
    assert one.photos.tolist() == other.photos.tolist() == NAMES_OF_WRITTEN_PARTS
    assert one.left_out == other.left_out == (("bad", "a link to nothing"),)
    np.testing.assert_array_equal(one.kept, other.kept)
    expected = Quantizer.fitted_to([one.embeddings]).centre
    np.testing.assert_allclose(parts.quantizer().centre, expected, atol=1e-6)


def test_a_former_result_stays_until_the_next_is_whole_and_nothing_else_goes(
    tmp_path: Path,
) -> None:
    folder = location_of(tmp_path / "e.parquet")
    written(folder.local).finish_folder(folder, SETTINGS, None)
    (folder.local / "notes.txt").touch()
    former, files = read_embeddings(folder.path), set(folder.names())
    settings = EmbeddingSettings("two", "f2", 8, "eyes")
    todo = divide(PhotoListing(["d.jpg"], np.ones((1, 2), np.int64), []), settings, 2)
    later = WrittenParts(folder, settings, [("worse", "a link to nothing")], todo)
    assert later.done() == set()
    later.write(todo[0], [table_of([face("d.jpg")], settings, None)])
    assert later.done() == {todo[0].name} and files < set(folder.names())
    np.testing.assert_array_equal(read_embeddings(folder.path).kept, former.kept)
    later.finish_folder(folder, settings, None)
    given = read_embeddings(folder.path)
    assert (given.photos.tolist(), given.left_out[0][0]) == (["d.jpg"], "worse")
    assert set(folder.names()) & files == {CONTENTS, "notes.txt"} and len(folder.names()) == 4
    with pytest.raises(EmbeddingFileError):
        WrittenParts(folder, SETTINGS, [], PARTS).quantizer()


def test_codes_take_no_place_of_a_former_result_of_the_same_photos(tmp_path: Path) -> None:
    folder = location_of(tmp_path / "e.parquet")
    coded = replace(SETTINGS, int8=True)
    parts = written(tmp_path / "work")
    parts.finish_folder(folder, coded, parts.quantizer())
    files = set(folder.names())
    # Of float32 in their own folder: none of the codes is taken for one, and all can be read on.
    again = written(folder.local)
    assert files < set(folder.names())
    assert read_embeddings(folder.path).settings.int8
    again.finish_folder(folder, SETTINGS, None)
    assert not read_embeddings(folder.path).settings.int8
    assert set(folder.names()) & files == {CONTENTS}
