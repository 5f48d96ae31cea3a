"""Mutated files: photos of twelve formats, galleries and weights; each is read or refused in words.

Time and memory are bounded. The seeds are kept: what fails once fails again.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from face_encode.encoders.facenet_files import read_keras_layers
from face_encode.errors import GalleryError, ImageError, WeightsError
from face_encode.gallery.npz import read_content
from face_encode.photos.reading import decode_image
from face_encode.torch_file import read_state_dict
from tests.broken_inputs.making import little_memory, picture
from tests.encoders import torch_writing
from tests.encoders.facenet_originals import write_h5

pytestmark = pytest.mark.slow

FORMATS = [
    "JPEG",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "PPM",
    "TGA",
    "PCX",
    "JPEG2000",
    "MPO",
    "ICO",
]
SEEDS = range(400)
# Of one file; a header may promise 179 million pixels, 0.5 GB as RGB.
MOST_SECONDS, MOST_BYTES = 20, 3_000_000_000


def mutated(content: bytes, seed: int) -> bytes:
    """Change some bytes, mostly of the header, or cut the file off."""
    random = np.random.default_rng(seed)
    changed = bytearray(content)
    for _ in range(random.integers(1, 6)):
        near = len(changed) if random.random() < 0.2 else min(len(changed), 200)
        place = int(random.integers(near))
        match random.integers(4):
            case 0:
                changed[place] = int(random.integers(256))
            case 1:
                changed[place : place + 4] = random.choice([b"\xff" * 4, bytes(4), b"\x7f\xff" * 2])
            case 2:
                changed[place:place] = random.bytes(int(random.integers(1, 9)))
            case 3 if len(changed) > 20:
                del changed[place : place + int(random.integers(1, 9))]
    return bytes(changed)


def check(read: Callable[[bytes], object], content: bytes, error: type[Exception]) -> int:
    """Read all mutations within the bounds; returns how many were refused."""
    refused = 0
    with little_memory(MOST_BYTES):
        for seed in SEEDS:
            start = time.process_time()
            try:
                read(mutated(content, seed))
            except error as told:
                refused += 1
                assert len(str(told)) < 1500 and "\n" not in str(told), seed
            assert time.process_time() - start < MOST_SECONDS, seed
    return refused


@pytest.mark.parametrize("kind", FORMATS)
def test_photos_with_other_headers(kind: str) -> None:
    written = io.BytesIO()
    picture().save(written, kind)

    def read(content: bytes) -> None:
        image = decode_image(content, any_format=True)
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3

    read(written.getvalue())
    assert check(read, written.getvalue(), ImageError) > len(SEEDS) // 20


def test_galleries_with_other_bytes(gallery_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "people.npz"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        read_content(path)

    assert check(read, gallery_file.read_bytes(), GalleryError) > len(SEEDS) // 2


@pytest.mark.parametrize("old", [False, True])
def test_torch_files_with_other_bytes(old: bool) -> None:
    content = torch_writing.state_dict({"w": np.ones((2, 3), np.float32)}, old=old)
    refused = check(lambda changed: read_state_dict(changed, 1000), content, WeightsError)
    assert refused > len(SEEDS) // 2


def test_hdf5_files_with_other_bytes() -> None:
    content = write_h5([["Conv1", "Conv1/kernel:0", [4, 4, 3, 2]]])
    assert check(read_keras_layers, content, WeightsError) > len(SEEDS) // 20
