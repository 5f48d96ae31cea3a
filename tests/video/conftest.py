"""A video of the invented people, made of their photos: they come, move, and go."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from face_encode.encoders.encoder import Encoder
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import content_digest, read_image
from face_encode.types import ImageArray
from face_encode.video.output import Recorder
from tests.conftest import VERIFY_DATASET

WIDTH, HEIGHT, FRAMES, FRAMES_PER_SECOND = 640, 360, 75, 12.5
STRANGER = "Teo_Varga"
PHOTOS = {"Ada": "Ada_Mirova/3.jpg", "Mei": "Mei_Oshara/1.jpg", "stranger": f"{STRANGER}/2.jpg"}


def paste(picture: ImageArray, photo: ImageArray, left: float, top: float, height: int) -> None:
    """Lay a photo, resized to a height, on a picture; what reaches out of it is cut off."""
    width = round(photo.shape[1] * height / photo.shape[0])
    small = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    x, y = round(left), round(top)
    rows = slice(max(0, y), max(0, min(picture.shape[0], y + height)))
    columns = slice(max(0, x), max(0, min(picture.shape[1], x + width)))
    picture[rows, columns] = small[
        rows.start - y : rows.stop - y, columns.start - x : columns.stop - x
    ]


def invented_frame(number: int) -> ImageArray:
    """One frame of the video.

    Ada walks through from the left to the right and is gone after frame 52. Mei comes nearer from
    frame 25 on, to the end. A stranger stands at the right from frame 20 to 69.
    """
    ramp = np.linspace(60, 150, WIDTH, dtype=np.uint8)
    noise = np.random.default_rng(number).integers(0, 12, (HEIGHT, WIDTH, 1), np.uint8)
    picture: ImageArray = np.broadcast_to(ramp[:, np.newaxis], (HEIGHT, WIDTH, 3)) + noise
    if 20 <= number < 70:
        photo = read_image(VERIFY_DATASET / PHOTOS["stranger"])
        paste(picture, photo, 470 + 6 * np.sin(number / 5), 120, 180)
    if number >= 25:
        photo = read_image(VERIFY_DATASET / PHOTOS["Mei"])
        paste(picture, photo, 20, 150 - number, 140 + 2 * (number - 25))
    if number < 53:
        photo = read_image(VERIFY_DATASET / PHOTOS["Ada"])
        paste(picture, photo, -145 + 15 * number, 40 + 10 * np.sin(number / 4), 190)
    return picture


@pytest.fixture(scope="session")
def invented_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The video of ``invented_frame``."""
    path = tmp_path_factory.mktemp("videos") / "invented people.mp4"
    with Recorder(path, FRAMES_PER_SECOND) as recorder:
        for number in range(FRAMES):
            recorder.write(invented_frame(number), number / FRAMES_PER_SECOND)
    return path


@pytest.fixture(scope="session")
def model_without_stranger(encoder: Encoder, fitted_model: Face_Encode_Model) -> Face_Encode_Model:
    """The invented people but one are enrolled, by other photos than the video shows."""
    model, gallery = Face_Encode_Model(encoder), fitted_model.gallery.rows()
    shown = [content_digest(VERIFY_DATASET / photo) for photo in PHOTOS.values()]
    stay = (gallery.names != STRANGER) & ~np.isin(gallery.digests, shown)
    assert stay.sum() == len(stay) - 4 - 2
    model.gallery.add(gallery.names[stay].tolist(), gallery.embeddings[stay])
    return model
