from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas
import pytest

from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, GalleryError, InputError, MissingExtraError
from face_encode.functions import FIND_COLUMNS, find
from face_encode.gallery.memory import MemoryGallery
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from tests.conftest import EXAMPLES, VERIFY_DATASET

ADA = EXAMPLES / "ada_mirova.jpg"
GROUP = EXAMPLES / "group.jpg"


def rows(*arguments: Any, **options: Any) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], find(*arguments, as_frame=False, **options))


def test_a_folders_photos_of_the_same_person_are_found(encoder: Encoder) -> None:
    found = find(ADA, VERIFY_DATASET, encoder=encoder)
    assert isinstance(found, pandas.DataFrame)
    assert tuple(found.columns) == FIND_COLUMNS
    assert set(found["name"]) == {"Ada_Mirova"}
    assert set(found["photo"]) <= {str(path) for path in VERIFY_DATASET.glob("Ada_Mirova/*")}
    assert found["distance"].is_monotonic_increasing
    assert (found["distance"] <= found["distance_threshold"]).all()
    assert found.to_dict("records") == rows(ADA, VERIFY_DATASET, encoder=encoder)


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
        found = rows(ADA, tmp_path / "people.npz", encoder=encoder, metric=metric)
        assert {row["name"] for row in found} == {"Ada_Mirova"}
    everybody = rows(ADA, tmp_path / "people.npz", encoder=encoder, distance_threshold=2)
    assert len(everybody) == len(fitted_model.gallery)
    assert len(rows(ADA, fitted_model, distance_threshold=2, k=3)) == 3


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
        first = rows(ADA, people, **options)
    assert {row["name"] for row in first} == {"Ada"}
    with warnings.catch_warnings():
        # Nothing has changed: nothing is enrolled, nothing told again.
        warnings.simplefilter("error")
        assert rows(ADA, people, **options) == first
    (people / "Ada" / "broken.jpg").unlink()
    (people / "Ada").rename(people / "Ada Lovelace")
    again = rows(ADA, people, **options)
    assert [row["name"] for row in again] == ["Ada Lovelace"] * len(first)
    assert again[0]["photo"].startswith(str(people / "Ada Lovelace"))


def test_without_pandas_there_are_dicts(
    fitted_model: Face_Encode_Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rows(ADA, fitted_model)
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert find(ADA, fitted_model) == expected
    with pytest.raises(MissingExtraError, match=r'pip install "face_encode\[pandas\]"'):
        find(ADA, fitted_model, as_frame=True)


def test_what_cannot_be_searched_is_told(
    encoder: Encoder, fitted_model: Face_Encode_Model, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="give it alone"):
        find(ADA, fitted_model, encoder=encoder)
    with pytest.raises(GalleryError, match="nobody is enrolled"):
        find(ADA, MemoryGallery(encoder), encoder=encoder)
    with pytest.raises(DatasetError, match="no such folder"):
        find(ADA, tmp_path / "none", encoder=encoder)
    with pytest.raises(GalleryError, match="no such gallery"):
        find(ADA, tmp_path / "none.npz", encoder=encoder)
    with pytest.raises(InputError, match="k is a whole number"):
        find(ADA, fitted_model, k=0)
    with pytest.raises(InputError, match="a path is"):
        find(ADA, 7, encoder=encoder)  # type: ignore[arg-type]
