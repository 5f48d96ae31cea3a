from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.archives import ArchiveForm, read_archive, text_array, write_archive
from face_encode.errors import FaceEncodeError, InputError

FORM = ArchiveForm(
    what="herbarium",
    newest=2,
    arrays={"numbers": ("f", 2), "texts": ("U", 1)},
    optional={"note": ("U", 0)},
    error_type=InputError,
)
WHOLE: dict[str, Any] = {
    "format_version": np.array(1),
    "numbers": np.arange(6, dtype=np.float32).reshape(2, 3),
    "texts": np.array(["Ada", "王小明"]),
}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "herbs.npz"
    write_archive(path, WHOLE)
    read = read_archive(path, FORM)
    assert set(read) == {"format_version", "numbers", "texts"}
    for name, array in WHOLE.items():
        np.testing.assert_array_equal(read[name], array)
    write_archive(path, {**WHOLE, "note": np.array("dry")})
    assert str(read_archive(path, FORM)["note"]) == "dry"


def test_the_same_arrays_give_the_same_bytes_and_texts_are_packed(tmp_path: Path) -> None:
    arrays = {**WHOLE, "texts": np.array(["a" * 64] * 1000), "numbers": np.zeros((1000, 8))}
    write_archive(tmp_path / "one.npz", arrays)
    time.sleep(2.1)  # the clock of a zip archive goes in steps of two seconds
    write_archive(tmp_path / "two.npz", arrays)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        sizes = {member.filename: member.compress_size for member in archive.infolist()}
    assert sizes["texts.npy"] < 64 * 1000
    # Numbers lie there as in memory, so that they can be mapped.
    assert sizes["numbers.npy"] > 8 * 8 * 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"texts": None}, "is no herbarium: it holds no array 'texts'"),
        ({"numbers": np.zeros(3)}, "herbarium .* is damaged: 'numbers' is an array of 2"),
        ({"note": np.array(3)}, "'note' is an array of 0 dimensions and kind 'U'"),
        ({"format_version": np.array(3)}, "versions up to 2. Received: version 3"),
        ({"format_version": np.array(0)}, "Received: version 0"),
    ],
)
def test_what_does_not_fit_the_form_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "herbs.npz"
    arrays = {name: array for name, array in (WHOLE | changes).items() if array is not None}
    write_archive(path, arrays)
    with pytest.raises(InputError, match=message):
        read_archive(path, FORM)


def test_nothing_is_pickled_and_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Object arrays"):
        write_archive(tmp_path / "x.npz", {"a": np.array([object()])})
    with pytest.raises(FaceEncodeError, match="no such herbarium"):
        read_archive(tmp_path / "none.npz", FORM)


def test_an_array_of_no_text_is_one_of_texts() -> None:
    assert text_array([]).shape == (0,)
    assert text_array([]).dtype.kind == "U"
    assert np.concatenate([text_array([]), text_array(["Ada"])]).tolist() == ["Ada"]
