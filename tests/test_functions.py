from __future__ import annotations

import base64
import json
import math
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pandas
import pytest
from PIL import Image

from face_encode import functions
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.encoders.contract import EncoderContract, original_contract, save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import CHOICES, load_encoder
from face_encode.errors import (
    DatasetError,
    GalleryError,
    ImageError,
    InputError,
    MissingExtraError,
    ModelFileError,
)
from face_encode.functions import (
    FIND_COLUMNS,
    extract_faces,
    find,
    loaded_encoder,
    represent,
    verify,
)
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import open_gallery
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.types import CropRecipe, ImageArray
from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.gallery.calibrations import BY_HAND

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
        assert isinstance(face["score"], float)
    assert json.loads(json.dumps(faces)) == faces
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


GROUP = EXAMPLES / "group.jpg"


def rows(*arguments: Any, **options: Any) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], find(*arguments, as_frame=False, **options))


def test_a_folders_photos_of_the_same_person_are_found(encoder: Encoder) -> None:
    found = find(ADA_AGAIN, VERIFY_DATASET, encoder=encoder)
    assert isinstance(found, pandas.DataFrame)
    assert tuple(found.columns) == FIND_COLUMNS
    assert set(found["name"]) == {"Ada_Mirova"}
    assert set(found["photo"]) <= {str(path) for path in VERIFY_DATASET.glob("Ada_Mirova/*")}
    assert found["distance"].is_monotonic_increasing
    assert (found["distance"] <= found["distance_threshold"]).all()
    assert found.to_dict("records") == rows(ADA_AGAIN, VERIFY_DATASET, encoder=encoder)


def test_each_face_of_a_group_has_rows_of_its_own(
    encoder: Encoder, fitted_model: Face_Encode_Model
) -> None:
    found = rows(GROUP, fitted_model, k=1)
    expected = [
        face
        for face in fitted_model.match_image(read_image(GROUP), n_max_faces=None)
        if face["is_match"]
    ]
    assert [row["name"] for row in found] == [face["name"] for face in expected]
    assert len({row["face"] for row in found}) == len(found) >= 3
    for row, face in zip(found, expected, strict=True):
        assert row["similarity"] == pytest.approx(face["similarity"], abs=1e-5)
        box = face["bounding_box"]
        assert {side: row[side] for side in box} == box
        assert row["photo"] is None
    # A gallery, in memory or in a file, is as good as the model that filled it.
    assert rows(GROUP, fitted_model.gallery, encoder=encoder, k=1) == found


def test_a_gallery_file_is_searched_by_any_metric(
    encoder: Encoder, fitted_model: Face_Encode_Model, tmp_path: Path
) -> None:
    fitted_model.save_gallery(tmp_path / "people.npz")
    for metric in ("cosine", "euclidean", "euclidean_l2"):
        found = rows(ADA_AGAIN, tmp_path / "people.npz", encoder=encoder, metric=metric)
        assert {row["name"] for row in found} == {"Ada_Mirova"}
    everybody = rows(ADA_AGAIN, tmp_path / "people.npz", encoder=encoder, distance_threshold=2)
    assert len(everybody) == len(fitted_model.gallery)
    assert len(rows(ADA_AGAIN, fitted_model, distance_threshold=2, k=3)) == 3


def test_a_persons_own_threshold_goes_before_the_common_one(
    encoder: Encoder, fitted_model: Face_Encode_Model, tmp_path: Path
) -> None:
    people = fitted_model.gallery.rows()
    with closing(DatabaseGallery(tmp_path / "people.sqlite", encoder)) as gallery:
        gallery.add(people.names.tolist(), people.embeddings)
        found = rows(ADA_AGAIN, gallery, encoder=encoder)
        # Between her photos: the farthest is not near enough any more.
        least = (found[0]["similarity"] + found[-1]["similarity"]) / 2
        gallery.set_threshold("Ada_Mirova", least)
        for searched in (gallery, tmp_path / "people.sqlite"):
            strict = rows(ADA_AGAIN, searched, encoder=encoder)
            assert 0 < len(strict) < len(found)
            assert {row["distance_threshold"] for row in strict} == {1 - least}
            assert strict == [
                {**row, "distance_threshold": 1 - least}
                for row in found
                if row["similarity"] >= least
            ]
            squared = rows(ADA_AGAIN, searched, encoder=encoder, metric="euclidean_l2")
            assert len(squared) == len(strict)
            with pytest.raises(InputError, match="'Ada_Mirova' has a threshold of their own"):
                find(ADA_AGAIN, searched, encoder=encoder, metric="euclidean")
            # What is asked for goes before both.
            limit = found[-1]["distance"]
            asked = rows(ADA_AGAIN, searched, encoder=encoder, distance_threshold=limit)
            assert len(asked) >= len(found)


def test_strangers_and_walls_have_no_rows(fitted_model: Face_Encode_Model) -> None:
    wall = np.full((100, 120, 3), 90, np.uint8)
    for photo in (EXAMPLES / "stranger.jpg", wall):
        found = find(photo, fitted_model)
        assert isinstance(found, pandas.DataFrame)
        assert (len(found), tuple(found.columns)) == (0, FIND_COLUMNS)


def test_a_folder_is_enrolled_again_as_far_as_it_changed(encoder: Encoder, tmp_path: Path) -> None:
    people = tmp_path / "people"
    shutil.copytree(VERIFY_DATASET / "Ada_Mirova", people / "Ada")
    (people / "Ada" / "broken.jpg").write_text("no photo")
    options: dict[str, Any] = {"encoder": encoder, "detector": "dlib_hog"}
    with pytest.warns(UserWarning, match=r"1 photos .*broken\.jpg"):
        first = rows(ADA_AGAIN, people, **options)
    assert {row["name"] for row in first} == {"Ada"}
    with warnings.catch_warnings():
        # Nothing has changed: nothing is enrolled, nothing told again.
        warnings.simplefilter("error")
        assert rows(ADA_AGAIN, people, **options) == first
    (people / "Ada" / "broken.jpg").unlink()
    (people / "Ada").rename(people / "Ada Lovelace")
    again = rows(ADA_AGAIN, people, **options)
    assert [row["name"] for row in again] == ["Ada Lovelace"] * len(first)
    assert again[0]["photo"].startswith(str(people / "Ada Lovelace"))


def test_a_photo_of_the_same_size_and_time_is_enrolled_anew(
    encoder: Encoder, tmp_path: Path
) -> None:
    photo = tmp_path / "people" / "Ada" / "1.jpg"
    photo.parent.mkdir(parents=True)
    shutil.copytree(VERIFY_DATASET / "Bruno_Castell", tmp_path / "people" / "Bruno")
    content = (VERIFY_DATASET / "Ada_Mirova" / "1.jpg").read_bytes()
    photo.write_bytes(b"x" * len(content))
    time = photo.stat().st_mtime_ns
    with pytest.warns(UserWarning, match="left out"):
        assert not rows(ADA_AGAIN, tmp_path / "people", encoder=encoder)
    photo.write_bytes(content)
    os.utime(photo, ns=(time, time))
    assert [row["name"] for row in rows(ADA_AGAIN, tmp_path / "people", encoder=encoder)] == ["Ada"]


def test_who_asks_for_one_encoder_does_not_wait_for_another() -> None:
    recent = functions._Recent[str](2)
    begun, ended = threading.Event(), threading.Event()

    def make() -> str:
        begun.set()
        assert ended.wait(60)
        return "slow"

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(recent.get, "slow", make) for _ in range(2)]
        assert begun.wait(60)
        assert recent.get("fast", lambda: "fast") == "fast"
        # Two others are used, and one cannot be made: none is made twice for it.
        assert recent.get("third", lambda: "third") == "third"
        with pytest.raises(ZeroDivisionError):
            recent.get("wrong", lambda: str(1 // 0))
        assert recent.get("fast", lambda: "again") == "fast"
        ended.set()
        assert [each.result() for each in both] == ["slow", "slow"]
    assert recent.get("third", lambda: "made anew") == "made anew"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_does_not_wait_for_threads_that_it_lacks(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recent, folder = functions._Recent[str](2), functions._Folder(encoder)
    monkeypatch.setattr(functions, "_encoders", recent)
    functions._folders.get("folder", lambda: folder)
    begun, ended = threading.Event(), threading.Event()

    def make() -> str:
        with folder._lock:
            begun.set()
            assert ended.wait(60)
        return "slow"

    with ThreadPoolExecutor(1) as threads:
        making = threads.submit(recent.get, "slow", make)
        assert begun.wait(60)
        child = os.fork()
        if not child:
            try:
                signal.alarm(60)
                done = recent.get("slow", lambda: "anew") == "anew" and folder._lock.acquire()
                os._exit(not done)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        ended.set()
        assert making.result() == "slow"


def test_photos_are_told_of_folders_whose_names_are_one_person(
    encoder: Encoder, tmp_path: Path
) -> None:
    photos = []
    for name, photo in (("Ada", "1.jpg"), ("ada ", "2.jpg")):
        (tmp_path / name).mkdir()
        photos.append(shutil.copy(VERIFY_DATASET / "Ada_Mirova" / photo, tmp_path / name))
    options: dict[str, Any] = {"encoder": encoder, "detector": "dlib_hog"}
    found = rows(ADA_AGAIN, tmp_path, distance_threshold=2, **options)
    assert sorted(row["photo"] for row in found) == sorted(map(str, photos))
    assert {row["name"] for row in found} == {"Ada"}


def test_wrong_folders_take_no_place_among_the_enrolled(encoder: Encoder, tmp_path: Path) -> None:
    enrolled = set(functions._folders._values)
    for number in range(5):
        with pytest.raises(DatasetError):
            find(ADA_AGAIN, tmp_path / str(number), encoder=encoder)
    assert set(functions._folders._values) == enrolled


def test_a_shared_gallery_is_closed_once_it_is_read(
    fitted_model: Face_Encode_Model, tmp_path: Path
) -> None:
    milvus_lite = pytest.importorskip("milvus_lite")
    with closing(open_gallery(tmp_path / "people.db", encoder=fitted_model.encoder)) as shared:
        held = fitted_model.gallery.rows()
        shared.add(held.names.tolist(), held.embeddings)
        shared.calibration = BY_HAND
    assert rows(ADA_AGAIN, tmp_path / "people.db", encoder=fitted_model.encoder)
    # Its lock is by open file, not by process: this stands for another program.
    milvus_lite.MilvusLite(str(tmp_path / "people.db")).close()


def test_without_pandas_there_are_dicts(
    fitted_model: Face_Encode_Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rows(ADA_AGAIN, fitted_model)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert find(ADA_AGAIN, fitted_model) == expected
    with pytest.raises(MissingExtraError, match=r'pip install "face_encode\[pandas\]"'):
        find(ADA_AGAIN, fitted_model, as_frame=True)


def test_what_cannot_be_searched_is_told(
    encoder: Encoder, fitted_model: Face_Encode_Model, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="give it alone"):
        find(ADA_AGAIN, fitted_model, encoder=encoder)
    with pytest.raises(GalleryError, match="nobody is enrolled"):
        find(ADA_AGAIN, MemoryGallery(encoder), encoder=encoder)
    with pytest.raises(DatasetError, match="no such folder"):
        find(ADA_AGAIN, tmp_path / "none", encoder=encoder)
    with pytest.raises(GalleryError, match="no such gallery"):
        find(ADA_AGAIN, tmp_path / "none.npz", encoder=encoder)
    with pytest.raises(InputError, match="k is a whole number"):
        find(ADA_AGAIN, fitted_model, k=0)
    with pytest.raises(InputError, match="a path is"):
        find(ADA_AGAIN, 7, encoder=encoder)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "_encoders", functions._Recent[Encoder](4))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was loaded, in order; the loading itself is the real one."""
    loaded: list[Any] = []

    def counted(name_or_path: Any, **options: Any) -> Any:
        loaded.append(name_or_path)
        return load_encoder(name_or_path, **options)

    monkeypatch.setattr(functions, "load_encoder", counted)
    yield loaded


def save(path: Path, seed: int) -> Path:
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
    contract = EncoderContract(name="tiny", crop=CropRecipe("box", 8, 8), threshold=0.5)
    save_encoder(keras.Sequential(layers), path, contract)
    return path


def test_an_encoder_is_loaded_once_for_any_number_of_threads(
    tmp_path: Path, loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.keras", 0)
    with ThreadPoolExecutor(4) as threads:
        encoders = list(threads.map(loaded_encoder, [path, str(path)] * 4))
    assert len({id(encoder) for encoder in encoders}) == len(loads) == 1
    monkeypatch.chdir(tmp_path)
    assert loaded_encoder("a.keras") is encoders[0]
    assert loaded_encoder(encoders[0]) is encoders[0]
    assert len(loads) == 1


def test_a_choice_is_its_encoder_with_its_detector(
    loads: list[Any], monkeypatch: pytest.MonkeyPatch, people_photos: list[Path]
) -> None:
    monkeypatch.setattr(functions, "_encoders", functions._Recent[Encoder](4))
    small = replace(CHOICES["offline"], encoder="vgg_embedding", detector="haar")
    monkeypatch.setitem(CHOICES, "small", small)
    (by_choice,) = represent(people_photos[0], encoder="small")
    (by_names,) = represent(people_photos[0], encoder="vgg_embedding", detector="haar")
    np.testing.assert_array_equal(by_choice["embedding"], by_names["embedding"])
    assert by_choice["bounding_box"] == by_names["bounding_box"]
    assert loads == ["vgg_embedding"]


def test_a_choice_runs_on_its_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(functions, "load_encoder", lambda *given, **engine: asked.append(engine))
    for name in ("fast", "offline", CHOICES["fast"].encoder):
        loaded_encoder(name)
    assert [each["engine"] for each in asked] == ["fastest", "auto", "auto"]


def test_a_file_that_changed_is_loaded_again(tmp_path: Path, loads: list[Any]) -> None:
    path = save(tmp_path / "a.keras", 0)
    first = loaded_encoder(path)
    save(path, 1)
    os.utime(path, ns=(1, 1))
    assert loaded_encoder(path).fingerprint != first.fingerprint
    assert len(loads) == 2


def test_only_the_ones_used_last_are_kept(
    tmp_path: Path, loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "_encoders", functions._Recent[Encoder](1))
    paths = [save(tmp_path / f"{name}.keras", 0) for name in "ab"]
    for path in (*paths, *paths):
        loaded_encoder(path)
    assert len(loads) == 4


def test_what_is_no_encoder_is_not_kept(tmp_path: Path, loads: list[Any]) -> None:
    for _ in range(2):
        with pytest.raises(ModelFileError):
            loaded_encoder(tmp_path / "none.keras")
    assert len(loads) == 2
