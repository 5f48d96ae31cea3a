"""Arguments that are wrong: each is refused by an error that says what was received."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, FaceEncodeError, GalleryError, InputError
from face_encode.model import Face_Encode_Model
from tests.broken_inputs.conftest import WholePhoto
from tests.broken_inputs.making import picture

PHOTO = np.asarray(picture())
NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize("count", [0, -1, 1.5, 1.0, "two", "1", True, NAN, [1], (), b"1"])
def test_a_number_of_faces_that_is_none_is_refused(
    count: Any, tiny_model: Face_Encode_Model
) -> None:
    for call in (
        lambda: tiny_model.match_image(PHOTO, n_max_faces=count),
        lambda: tiny_model.match_image(PHOTO, detect_faces=False, n_max_faces=count),
        lambda: tiny_model.compute_embeddings_image(PHOTO, count),
        lambda: tiny_model.detect_faces(PHOTO, count),
    ):
        with pytest.raises(InputError, match="n_max_faces is a whole number, at least 1"):
            call()


def test_a_number_of_numpy_s_is_one(tiny_model: Face_Encode_Model) -> None:
    assert len(tiny_model.match_image(PHOTO, n_max_faces=np.int64(3))) == 1


@pytest.mark.parametrize("threshold", [2, -1.01, NAN, INFINITY, "high", "0.5", [0.5], b"1", 1j])
def test_a_threshold_that_is_none_is_refused(threshold: Any, tiny: Encoder) -> None:
    with pytest.raises(InputError, match=r"within -1\.\.1\. Received"):
        Face_Encode_Model(tiny, WholePhoto(), threshold)


@pytest.mark.parametrize("detector", [3, "", "mtcnn!", "DLIB", b"dlib", ["dlib"], object(), {}])
def test_a_detector_that_is_none_is_refused(detector: Any, tiny: Encoder) -> None:
    with pytest.raises(InputError, match=r"a detector is .*Received"):
        Face_Encode_Model(tiny, detector)
    with pytest.raises(InputError, match=r"a detector is one of dlib, .*Received"):
        load_detector(detector)


@pytest.mark.parametrize("photo", [None, "photo.jpg", PHOTO / 255, PHOTO[np.newaxis], PHOTO[:0]])
def test_a_photo_that_is_none_is_refused_wherever_one_is_taken(
    photo: Any, tiny_model: Face_Encode_Model
) -> None:
    for call in (
        lambda: tiny_model.match_image(photo),
        lambda: tiny_model.match_image(photo, detect_faces=False),
        lambda: tiny_model.compute_embeddings_image(photo),
        lambda: tiny_model.detect_faces(photo),
        lambda: tiny_model.draw_bounding_box(photo, []),
    ):
        with pytest.raises(InputError, match=r"a photo (is|has) "):
            call()


ONES = np.ones(4, np.float32)
EMBEDDINGS: dict[str, Any] = {
    "zeros": np.zeros(4, np.float32),
    "no numbers": np.full(4, NAN, np.float32),
    "one that is no number": np.array([1, 2, 3, NAN]),
    "without end": np.full(4, INFINITY),
    "beyond double precision": np.full(4, 1e200),
    "another length": np.ones(5),
    "two of them": np.ones((2, 4)),
    "a column": np.ones((4, 1)),
    "nothing": None,
    "empty": [],
    "a text": "Ada",
    "texts": ["a", "b", "c", "d"],
    "ragged": [[1, 2], [3]],
    "a dict": {"embedding": [1, 2, 3, 4]},
    "what compute_embeddings_image returns": (np.ones((1, 4)), [None]),
}


@pytest.mark.parametrize("case", EMBEDDINGS)
def test_what_is_no_embedding_is_refused(case: str, tiny_model: Face_Encode_Model) -> None:
    for pair in ((EMBEDDINGS[case], ONES), (ONES, EMBEDDINGS[case])):
        with pytest.raises(InputError, match="an embedding "):
            tiny_model.compare_encodings(*pair)


@pytest.mark.parametrize("case", [case for case in EMBEDDINGS if case != "two of them"])
def test_what_are_no_embeddings_is_not_enrolled(case: str, tiny_model: Face_Encode_Model) -> None:
    value: Any = EMBEDDINGS[case]
    with pytest.raises(InputError, match="embedding"):
        tiny_model.gallery.add(["Bo"], cast(Any, None if value is None else [value]))
    assert tiny_model.verify_names.tolist() == ["Ada"]


@pytest.mark.parametrize("k", [0, -3, 1.5, "all", True, None])
def test_a_search_for_no_number_of_people_is_refused(k: Any, tiny_model: Face_Encode_Model) -> None:
    with pytest.raises(InputError, match="k is a whole number"):
        tiny_model.gallery.search(ONES[np.newaxis], k)


@pytest.mark.parametrize("probes", [ONES, np.full((1, 4), NAN), np.ones((1, 5)), "Ada", None])
def test_a_search_by_no_embeddings_is_refused(probes: Any, tiny_model: Face_Encode_Model) -> None:
    with pytest.raises(InputError, match="embedding"):
        tiny_model.gallery.search(probes)


BOX = {"x": 1, "y": 1, "width": 5, "height": 5}
FACES: dict[str, Any] = {
    "no list": 3,
    "nothing": None,
    "a dict for a list": BOX,
    "lists for dicts": [[1, 1, 5, 5]],
    "no width": [{"x": 1, "y": 1, "height": 5}],
    "no pixel": [{**BOX, "width": 0}],
    "a text for a number": [{**BOX, "x": "left"}],
    "no number": [{**BOX, "x": NAN}],
    "without end": [{**BOX, "x": INFINITY}],
    "no similarity": [{"bounding_box": BOX, "name": "Ada", "similarity": None}],
}


@pytest.mark.parametrize("case", FACES)
def test_what_are_no_faces_is_not_drawn(case: str, tiny_model: Face_Encode_Model) -> None:
    with pytest.raises(InputError, match=r"faces are what|a box holds"):
        tiny_model.draw_bounding_box(PHOTO, FACES[case])


@pytest.mark.parametrize(
    "face",
    [
        {"x": -50, "y": -50, "width": 900, "height": 900},
        {"x": 900, "y": 900, "width": 5, "height": 5},
        {"bounding_box": BOX, "name": "x" * 5_000, "similarity": 0.5},
        {"bounding_box": BOX, "name": "two\nlines 写真 🙂", "similarity": NAN},
        {"bounding_box": None, "name": "Ada", "similarity": 0.5},
    ],
)
def test_odd_faces_are_drawn_as_far_as_they_can_be(
    face: dict[str, Any], tiny_model: Face_Encode_Model
) -> None:
    before = PHOTO.copy()
    assert tiny_model.draw_bounding_box(PHOTO, [face]).shape == PHOTO.shape
    assert tiny_model.draw_bounding_box(PHOTO[:1, :1], [face]).shape == (1, 1, 3)
    np.testing.assert_array_equal(PHOTO, before)


@pytest.mark.parametrize("photos", ["ada.jpg", Path("ada.jpg"), b"ada.jpg", PHOTO, None, 3])
def test_one_photo_for_a_list_of_them_is_refused(
    photos: Any, tiny_model: Face_Encode_Model
) -> None:
    with pytest.raises(InputError, match="photos is a list of paths or arrays, also for one"):
        tiny_model.add_person("Bo", photos)


def test_of_a_person_s_photos_each_broken_one_is_a_row(tiny_model: Face_Encode_Model) -> None:
    photos: list[Any] = [PHOTO, None, 3, "", "a\0b", b"a.jpg", PHOTO / 255, [[1]], "none.jpg"]
    report = tiny_model.add_person("Bo", photos)
    assert report.enrolled == 1
    told = {row.photo: row.reason for row in report.left_out}
    assert len(told) == len(report.left_out) == len(photos) - 1
    assert "Received: NoneType" in told["photo 1"]
    assert "Received: int" in told["photo 2"]
    assert "not empty" in told[""]
    assert "null" in told["a\0b"]
    assert "the bytes received: not a photo" in told["photo 5"]
    assert "(255 * photo)" in told["photo 6"]
    assert "Received: list" in told["photo 7"]
    assert told["none.jpg"] == "no such file"


@pytest.mark.parametrize("name", ["", " ", "\n", "a\x00", "\ud800", 3, None, b"Bo"])
def test_a_name_that_is_none_is_refused(name: Any, tiny_model: Face_Encode_Model) -> None:
    with pytest.raises(DatasetError, match="a person's name is text"):
        tiny_model.add_person(name, [PHOTO])
    with pytest.raises(InputError, match="a person's name is text"):
        tiny_model.gallery.add([name], ONES[np.newaxis])


@pytest.mark.parametrize("name", ["Bo", "", "Adam", 3, None])
def test_somebody_unknown_cannot_be_removed(name: Any, tiny_model: Face_Encode_Model) -> None:
    with pytest.raises(GalleryError, match="nobody named"):
        tiny_model.remove_person(name)
    assert len(tiny_model.gallery) == 1


@pytest.mark.parametrize("workers", [0, -1, 1.5, "two", True])
def test_a_number_of_workers_that_is_none_is_refused(
    workers: Any, tmp_path: Path, tiny_model: Face_Encode_Model
) -> None:
    (tmp_path / "Bo").mkdir()
    picture().save(tmp_path / "Bo" / "1.jpg")
    for name in ("workers", "batch_size"):
        counts = {name: workers}
        with pytest.raises(InputError, match=f"{name} is a whole number, at least 1"):
            tiny_model.fit_dataset(tmp_path, progress=False, **counts)
    assert tiny_model.gallery.names == ("Ada",)


EMPTY_CALLS: dict[str, Callable[[Face_Encode_Model], object]] = {
    "match": lambda model: model.match_image(PHOTO),
    "no photo of a person": lambda model: model.add_person("Bo", []),
}


@pytest.mark.parametrize("case", EMPTY_CALLS)
def test_nothing_to_work_on_is_told(case: str, tiny: Encoder) -> None:
    with pytest.raises(FaceEncodeError, match=r"nobody is enrolled|none of the 0 photos"):
        EMPTY_CALLS[case](Face_Encode_Model(tiny, WholePhoto()))


@pytest.mark.parametrize(
    "photo",
    [
        PHOTO[::-1, ::-1],
        PHOTO[:, :, ::-1],
        np.asfortranarray(PHOTO),
        PHOTO[::2, ::3],
        np.frombuffer(PHOTO.tobytes(), np.uint8).reshape(PHOTO.shape),
        np.ma.masked_array(PHOTO),
        PHOTO[:, :, 0],
        PHOTO[:, :, :1],
        np.dstack([PHOTO, PHOTO[:, :, :1]]),
        np.zeros((1, 5000, 3), np.uint8),
        np.zeros((1, 1, 3), np.uint8),
    ],
)
def test_arrays_that_lie_in_memory_in_any_way_are_taken(
    photo: Any, tiny_model: Face_Encode_Model, tiny: Encoder
) -> None:
    ((embedding,), (box,)) = tiny_model.compute_embeddings_image(photo)
    assert box == {"x": 0, "y": 0, "width": photo.shape[1], "height": photo.shape[0]}
    assert np.isfinite(embedding).all()
    # dlib's own code is pickier about memory than ours.
    assert Face_Encode_Model(tiny, "dlib_hog").detect_faces(photo) == []
