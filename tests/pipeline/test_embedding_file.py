from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import EmbeddingFileError, InputError, MissingExtraError
from face_encode.files import write_archive
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.folders import location_of
from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.pipeline.embedding_file import (
    CONTENTS,
    check_embeddings_path,
    is_part,
    part_name,
    read_embeddings,
    read_part,
    write_contents,
    write_embeddings,
    write_part,
)
from face_encode.pipeline.embedding_table import EmbeddingSettings, EmbeddingTable
from face_encode.pipeline.parquet import table_of
from face_encode.types import Box, Quality
from tests.pipeline.drawn import embedded
from tests.pipeline.drawn import faces as drawn_faces

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SETTINGS = EmbeddingSettings("one", "f1", 8, "eyes")
SUFFIXES = ("npz", "parquet")


def faces(photo: str, count: int, error: str | None = None, digest: str = "ab") -> EmbeddedPhoto:
    return embedded(photo, count, error, digest, seed=len(photo))


PHOTOS = [
    faces("a.jpg", 2),
    faces("party/王 Élodie.jpg", 1),
    faces("wall.png", 0, "no face found"),
    faces("gone.jpg", 0, "a link to nothing", ""),
    faces("z.jpg", 3),
]


def written(path: Path, settings: EmbeddingSettings = SETTINGS, **more: Any) -> EmbeddingTable:
    write_embeddings(path, settings, iter(PHOTOS), **more)
    return read_embeddings(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_was_written_is_read(suffix: str, tmp_path: Path) -> None:
    table = written(tmp_path / f"new/embeddings.{suffix}")
    assert len(table) == 6
    assert table.photos.tolist() == ["a.jpg"] * 2 + ["party/王 Élodie.jpg"] + ["z.jpg"] * 3
    assert table.faces.tolist() == [0, 1, 0, 0, 1, 2]
    assert set(table.digests.tolist()) == {"ab"}
    assert table.left_out == (("wall.png", "no face found"), ("gone.jpg", "a link to nothing"))
    assert table.settings == SETTINGS
    np.testing.assert_array_equal(table.boxes[:2], PHOTOS[0].boxes)
    assert table.box(0) == Box(*PHOTOS[0].boxes[0].tolist())
    np.testing.assert_array_equal(table.scores[3:], PHOTOS[4].scores)
    raw = np.concatenate([photo.embeddings for photo in PHOTOS])
    assert table.embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(table.embeddings, axis=1), 1, atol=1e-6)
    units = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(table.embeddings, units, atol=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_quality_of_each_face_is_kept(suffix: str, tmp_path: Path) -> None:
    path, judgements = tmp_path / f"e.{suffix}", (Quality(0.75), Quality(0.25, "blurred"), None)
    several = faces("z.jpg", 3)
    judged = tuple(
        replace(face, quality=quality)
        for face, quality in zip(several.faces, judgements, strict=True)
    )
    write_embeddings(path, SETTINGS, [PHOTOS[2], replace(several, faces=judged)])
    table = read_embeddings(path)
    assert [table.quality(row) for row in range(3)] == list(judgements)
    # As former releases wrote it.
    if suffix == "parquet":
        new = parquet.read_table(path)
        parquet.write_table(new.drop_columns(["quality", "quality_reason", "notes"]), path)
    else:
        with np.load(path) as archive:
            old = {name: archive[name] for name in archive.files if "qualit" not in name}
        np.savez(path, **old)
    table = read_embeddings(path)
    assert [table.quality(row) for row in range(3)] == [None] * 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_raw_embeddings_are_as_the_network_gave_them(suffix: str, tmp_path: Path) -> None:
    settings = EmbeddingSettings("one", "f1", 8, "eyes", raw=True)
    table = written(tmp_path / f"embeddings.{suffix}", settings)
    np.testing.assert_array_equal(table.embeddings[:2], PHOTOS[0].embeddings)


def test_int8_is_the_same_in_either_format(tmp_path: Path) -> None:
    settings = EmbeddingSettings("one", "f1", 8, "eyes", "largest", int8=True)
    quantizer = Quantizer.fitted_to([photo.embeddings for photo in PHOTOS])
    tables = [
        written(tmp_path / f"e.{suffix}", settings, quantizer=quantizer) for suffix in SUFFIXES
    ]
    raw = np.concatenate([photo.embeddings for photo in PHOTOS])
    for table in tables:
        assert table.kept.dtype == np.int8
        assert table.settings == settings
        np.testing.assert_array_equal(table.kept, quantizer.quantize(raw))
        np.testing.assert_array_equal(
            table.embeddings, quantizer.dequantize(quantizer.quantize(raw))
        )


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("photos", [[], PHOTOS[2:4]], ids=["no photo", "no face"])
def test_a_file_of_no_face(suffix: str, photos: list[EmbeddedPhoto], tmp_path: Path) -> None:
    path = tmp_path / f"embeddings.{suffix}"
    write_embeddings(path, SETTINGS, photos)
    table = read_embeddings(path)
    assert (len(table), len(table.left_out)) == (0, len(photos))
    assert table.embeddings.shape == (0, 8)
    assert table.photos.tolist() == []


def test_many_rows_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written(tmp_path / "one.parquet")
    monkeypatch.setattr("face_encode.pipeline.parquet._ROW_GROUP", 3)
    parts = written(tmp_path / "more.parquet")
    assert parquet.ParquetFile(tmp_path / "more.parquet").num_row_groups == 2
    np.testing.assert_array_equal(whole.embeddings, parts.embeddings)
    assert whole.left_out == parts.left_out


def test_other_programs_read_the_columns(tmp_path: Path) -> None:
    written(tmp_path / "embeddings.parquet")
    table = parquet.read_table(tmp_path / "embeddings.parquet")
    columns = "photo digest face left top width height score quality quality_reason embedding error"
    assert table.column_names == [*columns.split(), "notes"]
    assert table["embedding"].type == pyarrow.list_(pyarrow.float32())
    assert {len(each) for each in table["embedding"].to_pylist() if each is not None} == {8}
    assert table["error"].to_pylist()[3:5] == ["no face found", "a link to nothing"]
    assert table["embedding"].to_pylist()[3] is None
    assert table["digest"].to_pylist()[4] is None
    written(tmp_path / "embeddings.npz")
    with np.load(tmp_path / "embeddings.npz", allow_pickle=False) as stored:
        assert stored["embeddings"].shape == (6, 8)
        assert json.loads(str(stored["settings"]))["encoder"] == "one"


def arrays(**changes: Any) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        with np.load(path) as stored:
            kept = dict(stored) | changes
        write_archive(path, {name: array for name, array in kept.items() if array is not None})

    return damage


def metadata(change: bytes | None) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        table = parquet.read_table(path)
        table = table.replace_schema_metadata(None if change is None else {b"face_encode": change})
        parquet.write_table(table, path)

    return damage


def columns(change: Callable[[Any], Any]) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        table = parquet.read_table(path)
        changed = change(table).replace_schema_metadata(table.schema.metadata)
        parquet.write_table(changed, path)

    return damage


def nulled(table: Any) -> Any:
    names = pyarrow.nulls(len(table), pyarrow.string())
    return table.set_column(0, "photo", names)


def no_text(table: Any) -> Any:
    names = pyarrow.array([b"\xff"] * len(table)).view(pyarrow.string())
    return table.set_column(0, "photo", names)


def another_embedding(path: Path) -> None:
    first = np.array(parquet.read_table(path)["embedding"][0].as_py(), np.float32).tobytes()
    path.write_bytes(path.read_bytes().replace(first, bytes([first[0] ^ 1]) + first[1:], 1))


DAMAGED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "cut off npz": ("npz", lambda p: p.write_bytes(p.read_bytes()[:500]), "cut off"),
    "cut off": ("parquet", lambda p: p.write_bytes(p.read_bytes()[:500]), "damaged"),
    "text": ("parquet", lambda p: p.write_text("photo,embedding"), "damaged"),
    "nothing": ("parquet", lambda p: p.write_bytes(b""), "damaged"),
    "no file npz": ("npz", Path.unlink, "no such file"),
    "no file": ("parquet", Path.unlink, "no such file"),
    "another archive": ("npz", arrays(photos=None), "holds no array 'photos'"),
    "short": ("npz", arrays(faces=np.zeros(2, np.int32)), "unequal lengths"),
    "short report": ("npz", arrays(left_out_photos=np.array(["x"])), "unequal lengths"),
    "flat boxes": ("npz", arrays(boxes=np.zeros((6, 3), np.int32)), "unequal lengths"),
    "other length": ("npz", arrays(embeddings=np.zeros((6, 9), np.float32)), r"shape \(6, 8\)"),
    "int8 alone": ("npz", arrays(embeddings=np.zeros((6, 8), np.int8)), "with a centre"),
    "settings": ("npz", arrays(settings=np.array('{"encoder": 1}')), "settings are damaged"),
    "settings of text": ("npz", arrays(settings=np.array("[" * 9999)), "settings are damaged"),
    "later npz": ("npz", arrays(format_version=np.array(2)), "later release"),
    "later": ("parquet", metadata(b'{"format_version": 2, "settings": {}}'), "later release"),
    "other metadata": ("parquet", metadata(b"[]"), "metadata are damaged"),
    "no metadata": ("parquet", metadata(None), "no metadata of face_encode"),
    "other columns": ("parquet", columns(lambda t: t.drop_columns(["score"])), "columns"),
    "nulls": ("parquet", columns(nulled), "lacks a value"),
    "no text": ("parquet", columns(no_text), "damaged: .* decode"),
    "a bit": ("parquet", another_embedding, "damaged: .*(CRC|checksum)"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_by_its_name(case: str, tmp_path: Path) -> None:
    suffix, damage, told = DAMAGED[case]
    path = tmp_path / f"embeddings.{suffix}"
    write_embeddings(path, SETTINGS, PHOTOS)
    damage(path)
    with pytest.raises(EmbeddingFileError, match=told) as caught:
        read_embeddings(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_ending_is_refused() -> None:
    for name in ("embeddings.csv", "embeddings", "embeddings.pkl"):
        with pytest.raises(EmbeddingFileError, match=r"\.npz or \.parquet"):
            read_embeddings(name)


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.delattr(pyarrow, "parquet", raising=False)
    with pytest.raises(MissingExtraError, match=r'pip install "face_encode\[parquet\]"'):
        check_embeddings_path(Path("embeddings.parquet"))
    check_embeddings_path(Path("embeddings.npz"))


def test_settings_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="choose one of the two"):
        EmbeddingSettings("one", "f1", 8, "eyes", raw=True, int8=True)
    with pytest.raises(InputError, match="'all' or 'largest'"):
        EmbeddingSettings("one", "f1", 8, "eyes", faces="two")  # type: ignore[arg-type]


def test_a_photo_has_faces_or_an_error() -> None:
    with pytest.raises(InputError, match="faces or an error"):
        faces("a.jpg", 1, "no face found")
    with pytest.raises(InputError, match="faces or an error"):
        faces("a.jpg", 0)


PARTS = [
    [drawn_faces("a.jpg", 2), drawn_faces("b.jpg", 0)],
    [drawn_faces("c.jpg", 0)],
    [drawn_faces("d.jpg", 1)],
]
NAMES = [part_name(number, f"{number:064x}"[::-1]) for number in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "embeddings.parquet"
    for name, photos in zip(NAMES, PARTS, strict=True):
        write_part(location_of(path / name), SETTINGS, [table_of(photos, SETTINGS, None)])
    write_contents(location_of(path), NAMES)
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
    "a bit": (lambda path: another_embedding(path / NAMES[0]), "CRC|checksum"),
    "other settings": (
        lambda path: write_part(
            location_of(path / NAMES[1]),
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
        read_part(location_of(tmp_path / "part"))
