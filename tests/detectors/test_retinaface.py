"""RetinaFace beside its original, whose numbers are recorded here."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
import pytest

from face_encode.detectors import retinaface
from face_encode.detectors.registry import load_detector
from face_encode.detectors.retinaface import RetinaFaceDetector, build_retinaface
from face_encode.errors import WeightsError
from face_encode.photos.reading import read_image
from face_encode.types import ImageArray
from face_encode.weights import KNOWN_WEIGHTS, cache_folder
from tests.conftest import REPOSITORY, VERIFY_DATASET, place_weights
from tests.encoders import torch_writing as writing
from tests.loopback import Served, serving

# Of Pytorch_Retinaface at b984b4b, its own network and decoding, on PyTorch 2.14, for PHOTO: the
# surest detection's frame (left, top, width, height), points and score.
ORIGINAL_FRAME = [83.42177, 67.23805, 228.09709, 304.73608]
ORIGINAL_POINTS = [
    (145.09952, 193.31903),
    (244.23381, 182.34375),
    (201.41997, 242.24348),
    (161.03992, 294.23618),
    (250.18944, 284.69037),
]
ORIGINAL_SCORE = 0.99993527
PHOTO = VERIFY_DATASET / "Ada_Mirova" / "1.jpg"


@pytest.fixture
def photo() -> ImageArray:
    """An invented face, cut to a size that needs no border."""
    image = read_image(PHOTO)
    return np.ascontiguousarray(image[: len(image) // 32 * 32, : image.shape[1] // 32 * 32])


@pytest.fixture
def nothing_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    retinaface._session.cache_clear()
    yield
    retinaface._session.cache_clear()


@pytest.mark.data
def test_the_numbers_are_those_of_the_original(photo: ImageArray, public_weights: Path) -> None:
    place_weights("retinaface", public_weights)
    found = RetinaFaceDetector().run(photo[np.newaxis])
    best = found.scores.argmax()
    left, top = found.centres[best] - found.sizes[best] / 2
    np.testing.assert_allclose([left, top, *found.sizes[best]], ORIGINAL_FRAME, atol=1e-2)
    np.testing.assert_allclose(found.points[best], ORIGINAL_POINTS, atol=1e-2)
    # The score is the probability's logit, divided by 3.
    logit = np.log(ORIGINAL_SCORE / (1 - ORIGINAL_SCORE))
    assert found.scores[best] == pytest.approx(1 / (1 + np.exp(-logit / 3)), abs=1e-4)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_loaded")
def test_a_damaged_conversion_is_made_again(photo: ImageArray, public_weights: Path) -> None:
    cache_folder().mkdir()
    place_weights("retinaface", public_weights)
    (expected,) = load_detector("retinaface").detect(photo)
    (network,) = cache_folder().glob("retinaface-*.network")
    content = network.read_bytes()
    network.write_bytes(content[:-1])
    retinaface._session.cache_clear()
    (face,) = load_detector("retinaface").detect(photo)
    assert face.box == expected.box
    # The file begins with the SHA-256 of the rest, and a line break.
    again = network.read_bytes()
    assert again != content[:-1]
    assert hashlib.sha256(again[65:]).hexdigest().encode() == again[:64]


@pytest.mark.usefixtures("nothing_loaded")
def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch, photo: ImageArray) -> None:
    with serving(Served(b"another file")) as served:
        known = replace(KNOWN_WEIGHTS["retinaface"], url=served.url)
        monkeypatch.setitem(KNOWN_WEIGHTS, "retinaface", known)
        with pytest.raises(WeightsError, match=r"'retinaface'.*2979b33f.*Received"):
            load_detector("retinaface").detect(photo)


@pytest.fixture
def conversions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A network that takes no time to convert: a row for each time; and a cache of its own."""
    made: list[bytes] = []

    def converted(content: bytes) -> bytes:
        made.append(content)
        return b"network"

    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(retinaface, "read_verified", lambda _: b"weights")
    monkeypatch.setattr(retinaface, "_converted", converted)
    return made


def test_a_cached_network_is_read_where_nothing_can_be_written(
    conversions: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert retinaface._network() == b"network"
    monkeypatch.setattr(filelock.FileLock, "acquire", refused)
    assert retinaface._network() == b"network"
    assert len(conversions) == 1


def test_without_a_cache_the_network_is_converted_each_time(
    conversions: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(filelock.FileLock, "acquire", refused)
        assert retinaface._network() == b"network"
    # Nothing can be made below a file.
    (tmp_path / "file").touch()
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "file" / "cache"))
    assert retinaface._network() == b"network"
    assert len(conversions) == 2


def test_a_disk_that_is_full_keeps_no_face_from_being_found(
    conversions: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", refused)
    assert retinaface._network() == b"network"
    assert not list(cache_folder().glob("*.network"))


def refused(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_the_weights_of_another_network_are_refused() -> None:
    first = {"body.stage1.0.0.weight": np.zeros((8, 3, 5, 5), np.float32)}
    with pytest.raises(WeightsError, match=r"stage1.0.0.weight.*Received: \(8, 3, 5, 5\)"):
        build_retinaface(writing.state_dict(first))
    with pytest.raises(WeightsError, match=r"stage1.0.0.weight.*Received: nothing"):
        build_retinaface(writing.state_dict({"conv.weight": np.zeros(3, np.float32)}))


@pytest.mark.data
@pytest.mark.slow
def test_the_conversion_asks_for_tensorflow(tmp_path: Path, public_weights: Path) -> None:
    script = (
        "import numpy as np\n"
        "from face_encode import load_detector\n"
        "from face_encode.errors import InputError\n"
        "try:\n"
        "    load_detector('retinaface').detect(np.zeros((99, 99, 3), np.uint8))\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACE_ENCODE_CACHE", str(tmp_path))
        place_weights("retinaface", public_weights)
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(REPOSITORY)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
    assert "KERAS_BACKEND=tensorflow" in done.stdout
    assert "Received: 'jax'" in done.stdout
