from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.encoders.encoder import Encoder
from face_encode.evaluation.faces import measure_speeds


def test_every_part_of_real_photos_takes_time(lfw_photos: Path, encoder: Encoder) -> None:
    photos = sorted((lfw_photos).glob("*/*.jpg"))[:4]
    # Where other programs take the processor for a moment, that moment is measured too.
    for _ in range(10):
        speeds = measure_speeds(photos, DlibHogDetector(), encoder)
        assert min(speeds.reading, speeds.encoding_batched) > 0
        if speeds.reading < speeds.detection and speeds.encoding_batched < speeds.encoding_one:
            break
    assert speeds.reading < speeds.detection
    # A batch takes less a face than a face by itself.
    assert speeds.encoding_batched < speeds.encoding_one


def test_photos_without_a_face_or_a_file_leave_encoding_unmeasured(
    tmp_path: Path, encoder: Encoder
) -> None:
    photo = tmp_path / "empty.png"
    Image.fromarray(np.full((100, 100, 3), 90, np.uint8)).save(photo)
    speeds = measure_speeds([photo, photo, tmp_path / "none.png"], DlibHogDetector(), encoder)
    assert speeds.detection > 0
    assert math.isnan(speeds.encoding_one)
