from __future__ import annotations

import io
import secrets
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cryptography")

from face_encode.server.encryption import Cipher, is_encrypted
from face_encode.server.people import CropFolder
from face_encode.types import ImageArray


@pytest.fixture
def crop() -> ImageArray:
    return np.full((150, 150, 3), (200, 40, 40), np.uint8)


def test_a_crop_is_kept_renamed_and_forgotten(tmp_path: Path, crop: ImageArray) -> None:
    crops = CropFolder(tmp_path / "crops")
    assert crops.of("../Zoe") is None and not crops.has("../Zoe")
    crops.keep("../Zoe", crop)
    content = crops.of("../Zoe")
    assert content is not None
    picture = np.asarray(Image.open(io.BytesIO(content)))
    assert picture.shape == (96, 96, 3)
    assert np.abs(picture.mean((0, 1)) - (200, 40, 40)).max() < 4
    crops.rename("../Zoe", "Zoe")
    assert crops.of("Zoe") == content and not crops.has("../Zoe")
    crops.forget("Zoe")
    crops.forget("Zoe")
    assert list((tmp_path / "crops").iterdir()) == []
    assert list(tmp_path.iterdir()) == [tmp_path / "crops"]  # no name became a path


def test_what_a_crash_left_behind_goes(tmp_path: Path, crop: ImageArray) -> None:
    crops = CropFolder(tmp_path)
    crops.tidy(["A"])
    for name in "ABC":
        crops.keep(name, crop)
    (tmp_path / ".half-1234.jpg").write_bytes(b"half")
    crops.tidy(["A", "C"])
    assert [crops.has(name) for name in "ABC"] == [True, False, True]
    assert len(list(tmp_path.iterdir())) == 2


def test_crops_are_encrypted_under_the_first_key(tmp_path: Path, crop: ImageArray) -> None:
    CropFolder(tmp_path).keep("A", crop)
    plain = CropFolder(tmp_path).of("A")
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    for keys in ([old], [new, old], [new]):
        crops = CropFolder(tmp_path, Cipher(keys))
        crops.tidy(["A"])
        assert crops.of("A") == plain
        assert all(is_encrypted(path.read_bytes()) for path in tmp_path.iterdir())
    assert CropFolder(tmp_path, Cipher([old])).of("A") is None
    assert CropFolder(tmp_path).of("A") is None
