from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import EmbeddingFileError
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.folders import PhotoListing, place_of
from face_encode.pipeline.cluster.parts import WrittenParts, divide
from face_encode.pipeline.embedding_file import part_name, read_embeddings
from face_encode.pipeline.embedding_table import EmbeddingSettings, PhotoFaces
from face_encode.pipeline.parquet import table_of

pytest.importorskip("pyarrow")

SETTINGS = EmbeddingSettings("one", "f1", 8, "eyes")
NAMES = ["a.jpg", "b.jpg", "c.jpg"]
PARTS = divide(PhotoListing(NAMES, np.ones((3, 2), np.int64), []), SETTINGS, 2)


def face(photo: str) -> PhotoFaces:
    embedding = np.random.default_rng(ord(photo[0])).normal(size=(1, 8)).astype(np.float32)
    return PhotoFaces(photo, "ab", np.ones((1, 4), np.int32), np.ones(1, np.float32), embedding)


def written(folder: Path) -> WrittenParts:
    """Both parts, with the column beside those of the file that a cluster's rows have."""
    parts = WrittenParts(place_of(folder), SETTINGS, [("bad", "a link to nothing")], PARTS)
    for part in PARTS:
        rows = table_of([face(name) for name in NAMES[part.start : part.stop]], SETTINGS, None)
        parts.write(part, [rows.append_column("part", [[part.number] * len(part)])])
    return parts


def test_parts_become_a_file_or_a_folder_of_the_same_rows(tmp_path: Path) -> None:
    parts = written(tmp_path / "e.parquet")
    parts.finish_file(place_of(tmp_path / "one.parquet"), SETTINGS, None)
    assert (parts.face_count, parts.left_out) == (3, [("bad", "a link to nothing")])
    written(tmp_path / "e.parquet").finish_folder(place_of(tmp_path / "e.parquet"), SETTINGS, None)
    one, other = (read_embeddings(tmp_path / name) for name in ("one.parquet", "e.parquet"))
    assert one.photos.tolist() == other.photos.tolist() == NAMES
    assert one.left_out == other.left_out == (("bad", "a link to nothing"),)
    np.testing.assert_array_equal(one.kept, other.kept)
    expected = Quantizer.fitted_to([one.embeddings]).centre
    np.testing.assert_allclose(parts.quantizer().centre, expected, atol=1e-6)


def test_parts_of_former_runs_go_and_nothing_else(tmp_path: Path) -> None:
    parts = written(tmp_path)
    (tmp_path / part_name(9, "f" * 16)).touch()
    (tmp_path / "notes.txt").touch()
    names = {part.name for part in PARTS}
    assert parts.tidy(restart=False) == names
    assert {path.name for path in tmp_path.iterdir()} == {*names, "notes.txt"}
    assert parts.tidy(restart=True) == set()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(EmbeddingFileError):
        parts.quantizer()
