from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.encoders.contract import original_contract
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, GalleryError, ImageError, InputError
from face_encode.gallery.database import DatabaseGallery
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.references import ReferenceEmbeddings, default_path
from face_encode.types import Face, ImageArray
from tests.conftest import EXAMPLES, VERIFY_DATASET

ADA = VERIFY_DATASET / "Ada_Mirova"
BRUNO = VERIFY_DATASET / "Bruno_Castell"
WALL = np.full((100, 120, 3), 90, np.uint8)


@pytest.fixture(scope="module", params=["cosine", "euclidean"])
def references(request: pytest.FixtureRequest, encoder: Encoder) -> ReferenceEmbeddings:
    """Two of Ada's photos and one of Bruno's; not to be changed by a test."""
    filled = ReferenceEmbeddings(encoder, "dlib_hog", request.param)
    with Image.open(ADA / "2.jpg") as photo:
        report = filled.enrol(
            [("Ada", ADA / "1.jpg"), ("Bruno", read_image(BRUNO / "1.jpg")), ("Ada", photo)]
        )
    assert report.per_person == {"Ada": 2, "Bruno": 1}
    return filled


def test_a_label_has_several_embeddings(references: ReferenceEmbeddings) -> None:
    assert len(references) == 3
    assert references.labels == ["Ada", "Bruno"]
    records = references.records
    assert [record["label"] for record in records] == ["Ada", "Ada", "Bruno"]
    for record in records:
        assert record["embedding"].shape == (128,)
        assert record["embedding"].dtype == np.float32
    assert references.metric in repr(references)


def test_faces_are_identified_by_the_nearest_embedding(references: ReferenceEmbeddings) -> None:
    (ada,) = references.identify(EXAMPLES / "ada_mirova.jpg")
    assert (ada.label, ada.matched) == ("Ada", True)
    assert 0 < ada.distance <= references.distance_threshold
    (stranger,) = references.identify(EXAMPLES / "stranger.jpg")
    assert not stranger.matched
    assert stranger.distance > references.distance_threshold
    # By hand, from what is enrolled and what the model gives.
    model = Face_Encode_Model(references._model.encoder, "dlib_hog")
    (probe,), (box,) = model.compute_embeddings_image(read_image(EXAMPLES / "ada_mirova.jpg"))
    assert ada.bounding_box == box
    enrolled = references.gallery.embeddings[:2]
    if references.metric == "euclidean":
        expected = np.linalg.norm(enrolled - probe, axis=1).min()
        assert ada.similarity == -ada.distance
        assert references.distance_threshold == 0.53
    else:
        lengths = np.linalg.norm(enrolled, axis=1) * np.linalg.norm(probe)
        expected = (1 - enrolled @ probe / lengths).min()
        assert ada.similarity == pytest.approx(1 - ada.distance)
    assert ada.distance == pytest.approx(float(expected), abs=1e-5)


def test_a_photo_is_compared_with_a_label_or_with_all(references: ReferenceEmbeddings) -> None:
    photo = EXAMPLES / "ada_mirova.jpg"
    matched, label, distance = references.compare(photo)
    assert (matched, label) == (True, "Ada")
    assert references.compare(photo, "Ada").distance == pytest.approx(distance, abs=1e-5)
    other = references.compare(photo, "Bruno")
    assert (other.matched, other.label) == (False, "Bruno")
    assert other.distance > distance
    with pytest.raises(GalleryError, match="nobody labelled 'Cy'"):
        references.compare(photo, "Cy")
    with pytest.raises(ImageError, match="no face found"):
        references.compare(WALL)
    assert references.identify(WALL) == []


def test_they_are_kept_in_a_file(references: ReferenceEmbeddings, tmp_path: Path) -> None:
    encoder = references._model.encoder
    assert references.save(tmp_path / "people.npz") == tmp_path / "people.npz"
    again = ReferenceEmbeddings.load(tmp_path / "people.npz", encoder, "dlib_hog")
    assert again.metric == references.metric
    assert again.distance_threshold == references.distance_threshold
    photo = EXAMPLES / "ada_mirova.jpg"
    assert again.compare(photo) == references.compare(photo)
    model = Face_Encode_Model(encoder)
    if references.metric == "cosine":
        model.load_gallery(tmp_path / "people.npz")
        assert model.verify_names.tolist() == references.gallery.names.tolist()
    else:
        with pytest.raises(GalleryError, match=r"ReferenceEmbeddings\.load"):
            model.load_gallery(tmp_path / "people.npz")


def test_without_a_path_they_are_kept_among_the_users_data(
    references: ReferenceEmbeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: tmp_path / "share")
    with pytest.raises(GalleryError, match="no such gallery"):
        ReferenceEmbeddings.load(encoder=references._model.encoder)
    assert references.save() == default_path() == tmp_path / "share" / "references.npz"
    assert len(ReferenceEmbeddings.load(encoder=references._model.encoder)) == 3
    with pytest.raises(GalleryError, match=r"\.npz"):
        references.save(tmp_path / "people.json")


def test_a_folder_is_enrolled_by_its_file_names(encoder: Encoder, tmp_path: Path) -> None:
    for name, photo in (("Ada Lovelace", ADA / "1.jpg"), ("王小明", BRUNO / "1.jpg")):
        (tmp_path / f"{name}.jpg").write_bytes(photo.read_bytes())
    (tmp_path / "notes.txt").write_text("no photo")
    (tmp_path / "broken.jpg").write_text("no photo")
    references = ReferenceEmbeddings(encoder, "dlib_hog")
    report = references.enrol_folder(tmp_path)
    assert references.labels == ["Ada Lovelace", "王小明"]
    assert [row.name for row in report.left_out] == ["broken"]
    with pytest.raises(DatasetError, match="no such folder"):
        references.enrol_folder(tmp_path / "none")


@pytest.mark.parametrize("photos", [7, "ada.jpg", [("Ada",)], ["ada.jpg"], [(1, WALL)], None])
def test_what_are_no_labelled_photos_is_refused(encoder: Encoder, photos: Any) -> None:
    with pytest.raises(InputError, match=r"pairs \(label, photo\)|a label is text"):
        ReferenceEmbeddings(encoder).enrol(photos)


def test_settings_are_checked(encoder: Encoder) -> None:
    unmeasured = Encoder(encoder.model, original_contract("mine", 150, 150))
    with pytest.raises(InputError, match="no threshold was measured"):
        ReferenceEmbeddings(unmeasured, metric="euclidean")
    references = ReferenceEmbeddings(unmeasured, metric="euclidean", distance_threshold=0.4)
    assert references.distance_threshold == 0.4
    with pytest.raises(InputError, match="one of cosine, euclidean"):
        ReferenceEmbeddings(encoder, metric="euclidean_l2")
    with pytest.raises(GalleryError, match="nobody is enrolled"):
        references.identify(WALL)
    with pytest.raises(DatasetError, match="none of the 1 photos"):
        references.enrol([("Ada", WALL)])


def test_a_labels_own_threshold_comes_first(encoder: Encoder, tmp_path: Path) -> None:
    references = ReferenceEmbeddings(encoder, "dlib_hog")
    references.enrol([("Ada", ADA / "1.jpg")])
    (before,) = references.identify(EXAMPLES / "ada_mirova.jpg")
    assert before.matched
    for own, matched in ((0.999, False), (before.similarity - 1e-6, True)):
        references.gallery.set_threshold("Ada", own)
        references.save(tmp_path / "references.npz")
        again = ReferenceEmbeddings.load(tmp_path / "references.npz", encoder, "dlib_hog")
        assert again.identify(EXAMPLES / "ada_mirova.jpg")[0].matched is matched
        for label in (None, "Ada"):
            assert again.compare(EXAMPLES / "ada_mirova.jpg", label).matched is matched
    euclidean = ReferenceEmbeddings(encoder, "dlib_hog", "euclidean")
    euclidean.enrol([("Ada", ADA / "1.jpg")])
    euclidean.gallery.set_threshold("Ada", 0.999)
    with pytest.raises(InputError, match="'Ada' has a threshold of its own, a cosine similarity"):
        euclidean.identify(EXAMPLES / "ada_mirova.jpg")


def test_a_label_is_one_however_it_is_spelt(encoder: Encoder) -> None:
    references = ReferenceEmbeddings(encoder, "dlib_hog")
    references.enrol([("Jos\u00e9", ADA / "1.jpg")])
    for label in ("Jose\u0301", "  jos\u00c9 "):
        assert references.compare(EXAMPLES / "ada_mirova.jpg", label).label == "Jos\u00e9"
    for wrong in ("Jose", "", ["Jos\u00e9"], 3):
        with pytest.raises(GalleryError, match="nobody labelled"):
            references.compare(EXAMPLES / "ada_mirova.jpg", wrong)  # type: ignore[arg-type]


def test_whom_another_program_takes_out_meanwhile_is_told(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "references.sqlite"
    first = ReferenceEmbeddings(encoder, "dlib_hog")
    first.enrol([("Ada", ADA / "1.jpg")])
    first.save(path)
    references = ReferenceEmbeddings.load(path, encoder, "dlib_hog")
    detector = references._model.detector

    class Meanwhile(DlibHogDetector):
        def detect(self, image: ImageArray) -> list[Face]:
            with closing(DatabaseGallery(path, encoder)) as gallery:
                if gallery.people():
                    gallery.remove("Ada")
            return detector.detect(image)

    references._model.detector = Meanwhile()
    for label in (None, "Ada"):
        with closing(DatabaseGallery(path, encoder)) as gallery:
            gallery.add(["Ada"], first.gallery.embeddings, ["d"])
        with pytest.raises(GalleryError, match="enrolled any more"):
            references.compare(EXAMPLES / "ada_mirova.jpg", label)
    with closing(DatabaseGallery(path, encoder)) as gallery:
        gallery.add(["Ada"], first.gallery.embeddings, ["d"])
    with pytest.raises(GalleryError, match="enrolled any more"):
        references.identify(EXAMPLES / "ada_mirova.jpg")
