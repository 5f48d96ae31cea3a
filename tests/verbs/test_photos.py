from __future__ import annotations

import base64
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.encoders.contract import original_contract
from face_encode.encoders.encoder import Encoder
from face_encode.errors import ImageError, InputError, ModelFileError
from face_encode.functions import extract_faces, represent, verify
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import ImageArray
from tests.conftest import EXAMPLES, VERIFY_DATASET

ADA = VERIFY_DATASET / "Ada_Mirova" / "1.jpg"
ADA_AGAIN = EXAMPLES / "ada_mirova.jpg"
BRUNO = EXAMPLES / "bruno_castell.jpg"
WALL = np.full((100, 120, 3), 90, np.uint8)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "euclidean_l2"])
def test_the_same_person_is_told_from_another_by_every_metric(
    encoder: Encoder, metric: Any
) -> None:
    same = verify(ADA, ADA_AGAIN, encoder=encoder, metric=metric)
    other = verify(ADA, BRUNO, encoder=encoder, metric=metric)
    assert same["is_match"] is True
    assert other["is_match"] is False
    assert 0 < same["distance"] <= same["distance_threshold"] < other["distance"]
    assert same["similarity"] > other["similarity"]
    assert (same["metric"], same["encoder"], same["detector"]) == (metric, "dlib_resnet", "dlib")


def test_distance_and_threshold_agree_with_the_model(encoder: Encoder) -> None:
    model = Face_Encode_Model(encoder)
    photos = [read_image(path) for path in (ADA, ADA_AGAIN)]
    (a, (box_a,)), (b, (box_b,)) = (model.compute_embeddings_image(photo) for photo in photos)
    similarity, is_same = model.compare_encodings(a, b)
    found = verify(*photos, encoder=encoder)
    assert found["similarity"] == pytest.approx(similarity, abs=1e-6)
    assert found["distance"] == pytest.approx(1 - similarity, abs=1e-6)
    assert found["distance_threshold"] == pytest.approx(1 - encoder.contract.threshold)
    assert found["is_match"] is is_same
    assert found["bounding_boxes"] == [box_a, box_b]
    on_the_sphere = verify(*photos, encoder=encoder, metric="euclidean_l2")
    assert on_the_sphere["distance"] == pytest.approx(math.sqrt(2 - 2 * similarity), abs=1e-6)
    raw = verify(*photos, encoder=encoder, metric="euclidean")
    assert raw["distance"] == pytest.approx(float(np.linalg.norm(a - b)), abs=1e-6)
    assert raw["distance_threshold"] == encoder.contract.euclidean_threshold


def test_a_threshold_of_ones_own_decides(encoder: Encoder) -> None:
    for threshold, is_match in ((0.0, False), (2, True)):
        found = verify(ADA, ADA_AGAIN, encoder=encoder, distance_threshold=threshold)
        assert found["is_match"] is is_match
        assert found["distance_threshold"] == threshold


def test_photos_come_in_every_form(encoder: Encoder) -> None:
    content = ADA.read_bytes()
    expected = verify(ADA, ADA_AGAIN, encoder=encoder)
    with Image.open(ADA) as image, open(ADA, "rb") as file:
        for form in (content, base64.b64encode(content).decode(), image, file, read_image(ADA)):
            assert verify(form, str(ADA_AGAIN), encoder=encoder) == expected


def test_crops_are_compared_without_looking_for_faces(
    encoder: Encoder, colour_crops: ImageArray
) -> None:
    found = verify(colour_crops[0], colour_crops[0], encoder=encoder, detect_faces=False)
    assert found["distance"] == pytest.approx(0, abs=1e-6)
    assert found["bounding_boxes"] == [None, None]


def test_what_cannot_be_compared_is_told(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="photo b: no face found"):
        verify(ADA, WALL, encoder=encoder)
    Image.fromarray(WALL).save(tmp_path / "wall.png")
    with pytest.raises(ImageError, match=r"wall\.png: no face found"):
        verify(tmp_path / "wall.png", ADA, encoder=encoder)
    with pytest.raises(ImageError, match="no such file"):
        verify("none.jpg", ADA, encoder=encoder)
    with pytest.raises(InputError, match="a metric is one of cosine, euclidean, euclidean_l2"):
        verify(ADA, ADA, encoder=encoder, metric="manhattan")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="distance threshold"):
        verify(ADA, ADA, encoder=encoder, distance_threshold=-1)
    with pytest.raises(InputError, match="a detector is one of"):
        verify(ADA, ADA, encoder=encoder, detector="none")
    for wrong in ("none", 7, "none.keras"):
        with pytest.raises((ModelFileError, InputError)):
            verify(ADA, ADA, encoder=wrong)  # type: ignore[arg-type]


def test_a_raw_distance_without_a_measured_threshold_needs_one(encoder: Encoder) -> None:
    unmeasured = Encoder(encoder.model, original_contract("mine", 150, 150))
    with pytest.raises(InputError, match=r"no threshold was measured.*'mine'"):
        verify(ADA, ADA, encoder=unmeasured, metric="euclidean")
    found = verify(ADA, ADA, encoder=unmeasured, metric="euclidean", distance_threshold=0.5)
    assert found["is_match"] is True


def test_faces_are_represented_the_largest_first(encoder: Encoder) -> None:
    group = EXAMPLES / "group.jpg"
    faces = represent(group, encoder=encoder)
    assert len(faces) >= 3
    embeddings, boxes = Face_Encode_Model(encoder).compute_embeddings_image(
        read_image(group), n_max_faces=None
    )
    assert [face["bounding_box"] for face in faces] == boxes
    for face, embedding in zip(faces, embeddings, strict=True):
        np.testing.assert_allclose(face["embedding"], embedding, atol=1e-6)
        assert face["embedding"].dtype == np.float32
        assert isinstance(face["score"], float)
    (largest,) = represent(group, encoder=encoder, max_faces=1, normalize=True)
    assert np.linalg.norm(largest["embedding"]) == pytest.approx(1, abs=1e-6)
    assert largest["bounding_box"] == boxes[0]


def test_no_face_is_an_empty_list(encoder: Encoder) -> None:
    assert represent(WALL, encoder=encoder) == []
    assert extract_faces(WALL, encoder=encoder) == []
    (whole,) = represent(WALL, encoder=encoder, detect_faces=False)
    assert (whole["bounding_box"], whole["score"]) == (None, None)
    with pytest.raises(InputError, match="max_faces"):
        represent(ADA, encoder=encoder, max_faces=0)


def test_extracted_faces_are_what_the_encoder_takes(encoder: Encoder) -> None:
    (face,) = extract_faces(ADA, encoder=encoder, detector=DlibHogDetector())
    assert face["face"].shape == (150, 150, 3)
    assert face["face"].dtype == np.uint8
    assert face["landmarks"].shape == (5, 2)
    (embedded,) = represent(ADA, encoder=encoder, detector="dlib_hog")
    np.testing.assert_allclose(
        encoder.encode(face["face"][np.newaxis])[0], embedded["embedding"], atol=1e-6
    )
    assert (face["bounding_box"], face["score"]) == (embedded["bounding_box"], embedded["score"])


def test_threads_get_the_same_answers(encoder: Encoder, people_photos: list[Path]) -> None:
    def distance(photo: Path) -> float:
        found = verify(ADA, photo, encoder=encoder, detector="dlib_hog")
        return float(found["distance"])

    alone = [distance(photo) for photo in people_photos[:12]]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(distance, people_photos[:12] * 2))
    np.testing.assert_allclose(together, alone * 2, atol=1e-6)
