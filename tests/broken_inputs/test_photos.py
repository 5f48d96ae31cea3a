"""Photos that are broken, one by one: each is refused in words, at once, and in little memory."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import FaceEncodeError, ImageError, InputError
from face_encode.photos.reading import as_rgb, content_digest, read_image
from tests.broken_inputs.making import BROKEN_FILES, BROKEN_PATHS, encoded, little_memory, picture

ALL = {**BROKEN_FILES, **BROKEN_PATHS}


@pytest.mark.parametrize("case", ALL)
def test_a_broken_photo_is_refused_in_words(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, told = ALL[case]
    path = make(tmp_path)
    started = time.process_time()
    # Whatever a header claims, nothing of that size is made.
    with little_memory(), pytest.raises(ImageError) as caught:
        read_image(path)
    assert time.process_time() - started < 10
    assert str(caught.value).startswith(f"{path}: ")
    assert told in str(caught.value)
    assert not (tmp_path / "exploded.txt").exists()


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", "not empty"),
        ("a\0b.jpg", "without null characters"),
        (b"a.jpg", "Received: bytes"),
        (None, "Received: NoneType"),
        (3, "Received: int"),
        (["a.jpg"], "Received: list"),
        (picture(), "Received: Image"),
    ],
)
def test_what_is_no_path_is_refused(path: Any, told: str) -> None:
    for read in (read_image, content_digest):
        with pytest.raises(InputError, match=told):
            read(path)


def test_an_array_is_no_path() -> None:
    with pytest.raises(InputError, match="Received: ndarray"):
        read_image(np.zeros((9, 9, 3), np.uint8))  # type: ignore[arg-type]


ARRAYS: dict[str, tuple[Any, str]] = {
    "nothing, as cv2.imread gives": (None, "Received: NoneType"),
    "a path": ("photo.jpg", "Received: str"),
    "a Path": (Path("photo.jpg"), "Received: .*Path"),
    "bytes": (encoded("PNG"), "Received: bytes"),
    "a list": ([[[1, 2, 3]]], "Received: list"),
    "a Pillow image": (picture(), "Received: Image"),
    "a number": (np.array(3, np.uint8), r"shape \(\)"),
    "a line": (np.zeros(9, np.uint8), r"shape \(9,\)"),
    "a stack of photos": (np.zeros((2, 9, 9, 3), np.uint8), r"shape \(2, 9, 9, 3\)"),
    "two channels": (np.zeros((9, 9, 2), np.uint8), r"shape \(9, 9, 2\)"),
    "five channels": (np.zeros((9, 9, 5), np.uint8), r"shape \(9, 9, 5\)"),
    "no channel": (np.zeros((9, 9, 0), np.uint8), r"shape \(9, 9, 0\)"),
    "channels first": (np.zeros((3, 9, 9), np.uint8), r"shape \(3, 9, 9\)"),
    "no row": (np.zeros((0, 9, 3), np.uint8), r"shape \(0, 9, 3\)"),
    "no column": (np.zeros((9, 0), np.uint8), r"shape \(9, 0\)"),
    "0..1": (np.zeros((9, 9, 3), np.float32), r"for values of 0\.\.1: \(255 \* photo\)"),
    "0..255 in double precision": (np.full((9, 9, 3), 255.0), "Received: float64"),
    "not numbers": (np.full((9, 9, 3), np.nan), "Received: float64"),
    "half precision": (np.zeros((9, 9), np.float16), "Received: float16"),
    "whole numbers": (np.zeros((9, 9, 3), np.int64), "Received: int64"),
    "16 bits": (np.zeros((9, 9, 3), np.uint16), "Received: uint16"),
    "signed bytes": (np.zeros((9, 9, 3), np.int8), "Received: int8"),
    "true and false": (np.zeros((9, 9), bool), "Received: bool"),
    "complex": (np.zeros((9, 9, 3), complex), "Received: complex128"),
    "texts": (np.full((9, 9, 3), "a"), "Received: <U1"),
    "objects": (np.full((9, 9, 3), None), "Received: object"),
    "dates": (np.zeros((9, 9, 3), "datetime64[s]"), "Received: datetime64"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_an_array_that_is_no_photo_is_refused(case: str) -> None:
    image, told = ARRAYS[case]
    with pytest.raises(InputError, match=told):
        as_rgb(image)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_whatever_bytes_are_damaged_no_foreign_error_comes_through(
    kind: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(7)
    whole = encoded(kind)
    path = tmp_path / "photo.jpg"
    outcomes = set()
    for _ in range(60):
        damaged = np.frombuffer(whole, np.uint8).copy()
        # Headers are where a changed byte leads a reader astray.
        reach = len(damaged) if random.random() < 0.3 else min(200, len(damaged))
        damaged[random.integers(0, reach, 3)] = random.integers(0, 256, 3)
        path.write_bytes(damaged[: int(len(damaged) * random.uniform(0.5, 1.5))].tobytes())
        try:
            image = read_image(path)
        except ImageError as error:
            outcomes.add("refused")
            assert str(error).startswith(f"{path}: ")
        else:
            outcomes.add("read")
            assert image.dtype == np.uint8 and image.shape[2] == 3
    assert "refused" in outcomes


def test_a_photo_in_memory_is_told_from_one_in_a_file() -> None:
    with pytest.raises(FaceEncodeError, match="Received: BytesIO"):
        read_image(io.BytesIO(encoded("PNG")))  # type: ignore[arg-type]
