from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from face_encode.detectors import mtcnn
from face_encode.detectors.registry import load_detector
from face_encode.errors import InputError, MissingExtraError, WeightsError
from face_encode.photos.reading import read_image
from face_encode.weights import KNOWN_WEIGHTS
from tests.conftest import REPOSITORY


@pytest.fixture
def nothing_loaded() -> None:
    mtcnn._detector.cache_clear()


def test_without_the_extra_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "face_encode\[mtcnn\]"'):
        load_detector("mtcnn")


@pytest.mark.usefixtures("nothing_loaded")
def test_a_package_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = load_detector("mtcnn")
    monkeypatch.setitem(sys.modules, "mtcnn.stages", None)
    with pytest.raises(MissingExtraError, match="cannot be imported"):
        detector.detect(np.zeros((99, 99, 3), np.uint8))


@pytest.mark.usefixtures("nothing_loaded")
def test_other_weights_are_refused_before_they_are_unpickled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = replace(KNOWN_WEIGHTS["mtcnn_onet"], sha256="0" * 64)
    monkeypatch.setitem(KNOWN_WEIGHTS, "mtcnn_onet", known)
    with pytest.raises(WeightsError, match=r"is not the known file 'mtcnn_onet'"):
        load_detector("mtcnn").detect(np.zeros((99, 99, 3), np.uint8))


@pytest.mark.usefixtures("nothing_loaded")
def test_files_of_the_working_folder_are_not_unpickled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, people_photos: list[Path]
) -> None:
    image = read_image(people_photos[0])
    for name in ("pnet", "rnet", "onet"):
        (tmp_path / f"{name}.lz4").write_bytes(b"taken from the working folder")
    monkeypatch.chdir(tmp_path)
    assert len(load_detector("mtcnn").detect(image)) == 1


def test_another_backend_of_keras_is_told(tmp_path: Path) -> None:
    script = (
        "import numpy as np\n"
        "from face_encode import load_detector\n"
        "from face_encode.errors import InputError\n"
        "try:\n"
        "    load_detector('mtcnn').detect(np.zeros((99, 99, 3), np.uint8))\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
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


def test_the_detector_is_told_like_any_other_unknown_setting() -> None:
    with pytest.raises(InputError, match=r"haar.*mtcnn.*Received: 'MTCNN'"):
        load_detector("MTCNN")
