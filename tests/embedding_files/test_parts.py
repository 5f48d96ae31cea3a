from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import EmbeddingFileError
from face_encode.photos.folders import place_of
from face_encode.pipeline.embedding_file import (
    CONTENTS,
    is_part,
    part_name,
    read_embeddings,
    read_part,
    write_contents,
    write_part,
)
from face_encode.pipeline.embedding_table import EmbeddingSettings
from face_encode.pipeline.parquet import table_of
from tests.embedding_files.drawn import faces

parquet = pytest.importorskip("pyarrow.parquet")

SETTINGS = EmbeddingSettings("one", "f1", 8, "eyes")


PARTS = [[faces("a.jpg", 2), faces("b.jpg", 0)], [faces("c.jpg", 0)], [faces("d.jpg", 1)]]
NAMES = [part_name(number, f"{number:064x}"[::-1]) for number in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "embeddings.parquet"
    for name, photos in zip(NAMES, PARTS, strict=True):
        write_part(place_of(path / name), SETTINGS, [table_of(photos, SETTINGS, None)])
    write_contents(place_of(path), NAMES)
    return path


def test_a_folder_of_parts_is_read_as_one(folder: Path) -> None:
    table = read_embeddings(folder)
    assert table.photos.tolist() == ["a.jpg", "a.jpg", "d.jpg"]
    assert [photo for photo, _ in table.left_out] == ["b.jpg", "c.jpg"]
    assert table.settings == SETTINGS
    wanted = np.concatenate([each.embeddings for photos in PARTS for each in photos])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(table.embeddings, wanted, atol=1e-6)
    np.testing.assert_array_equal(read_embeddings(f"file://{folder}").kept, table.kept)
    # Other readers take the folder as it is.
    assert len(parquet.read_table(folder)) == 5


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "unfinished": (lambda path: (path / CONTENTS).unlink(), "no finished folder of embeddings"),
    "a part gone": (lambda path: (path / NAMES[1]).unlink(), "cannot be read"),
    "a part cut off": (lambda path: (path / NAMES[1]).write_bytes(b"PAR1"), "cannot|damaged"),
    "no list": (lambda path: (path / CONTENTS).write_text("[]"), "is damaged"),
    "a list of others": (
        lambda path: (path / CONTENTS).write_text(
            json.dumps({"format_version": 1, "parts": ["../../secret"]})
        ),
        "is damaged",
    ),
    "later": (
        lambda path: (path / CONTENTS).write_text(
            json.dumps({"format_version": 2, "parts": NAMES})
        ),
        "later release",
    ),
    "other settings": (
        lambda path: write_part(
            place_of(path / NAMES[1]),
            replace(SETTINGS, detector="nose"),
            [table_of(PARTS[1], replace(SETTINGS, detector="nose"), None)],
        ),
        "different settings",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_by_its_name(damage: str, folder: Path) -> None:
    do, told = DAMAGES[damage]
    do(folder)
    with pytest.raises(EmbeddingFileError, match=told) as caught:
        read_embeddings(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_part_is_known_by_its_name() -> None:
    assert all(map(is_part, NAMES)) and sorted(NAMES) == NAMES
    assert is_part(part_name(12_345_678, "0" * 64))
    for name in ("part-1.parquet", "../part-000001-0000000000000000.parquet", CONTENTS):
        assert not is_part(name)


def test_a_part_that_is_no_parquet_is_told(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("x")
    with pytest.raises(EmbeddingFileError):
        read_part(place_of(tmp_path / "part"))
