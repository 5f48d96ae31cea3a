from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError
from face_encode.gallery.base import Replaces
from face_encode.gallery.memory import MemoryGallery
from face_encode.photos.folders import people_in
from face_encode.photos.reading import read_image
from face_encode.pipeline import enrolment
from face_encode.pipeline.enrolment import enrol_people, enrolment_checkpoint
from face_encode.types import EnrolmentReport, Face, ImageArray, LeftOut
from tests.conftest import VERIFY_DATASET
from tests.gallery.calibrations import BY_HAND
from tests.tiny_parts import Halves


@pytest.fixture
def folder(tmp_path: Path, people_photos: list[Path]) -> Path:
    """Two of the invented people with two photos each."""
    by_person: dict[str, list[Path]] = {}
    for photo in people_photos:
        by_person.setdefault(photo.parent.name, []).append(photo)
    for number, photos in enumerate(list(by_person.values())[:2]):
        person = tmp_path / "people" / f"person {number}"
        person.mkdir(parents=True)
        for photo in photos[:2]:
            shutil.copy(photo, person)
    return tmp_path / "people"


def enrol(
    folder: Path, gallery: MemoryGallery, encoder: Encoder, replaces: Replaces = "all"
) -> EnrolmentReport:
    people = people_in(folder)
    return enrol_people(
        people, gallery, load_detector(), encoder, replaces=replaces, progress=False
    )


def test_the_report_tells_what_became_of_each_photo(folder: Path, encoder: Encoder) -> None:
    first = folder / "person 0"
    (first / "text.jpg").write_text("no photo")
    Image.new("RGB", (120, 120), "grey").save(first / "wall.png")
    gallery = MemoryGallery(encoder)
    report = enrol(folder, gallery, encoder)
    assert report.enrolled == len(gallery) == 4
    assert report.per_person == {"person 0": 2, "person 1": 2}
    assert set(report.left_out) == {
        LeftOut(str(first / "text.jpg"), "person 0", "not a photo in a known format"),
        LeftOut(str(first / "wall.png"), "person 0", "no face found"),
    }
    assert report.reused == 0
    assert "2 left out" in str(report)


def test_only_what_changed_is_encoded_again(
    folder: Path, encoder: Encoder, people_photos: list[Path]
) -> None:
    gallery = MemoryGallery(encoder)
    enrol(folder, gallery, encoder)
    before = gallery.embeddings.copy()
    # Dates say nothing, and a name neither: the content counts.
    moved = sorted((folder / "person 0").iterdir())[0]
    moved.rename(moved.with_name("zz.jpg"))
    for photo in folder.glob("*/*"):
        photo.touch()
    report = enrol(folder, gallery, encoder)
    assert report.reused == report.enrolled == 4
    assert sorted(map(tuple, gallery.embeddings.tolist())) == sorted(map(tuple, before.tolist()))

    changed = sorted((folder / "person 1").iterdir())[0]
    shutil.copy(people_photos[-1], changed)
    report = enrol(folder, gallery, encoder)
    assert (report.reused, report.enrolled) == (3, 4)


def test_enrolling_again_replaces_and_adding_keeps(folder: Path, encoder: Encoder) -> None:
    gallery = MemoryGallery(encoder)
    enrol(folder, gallery, encoder)
    shutil.rmtree(folder / "person 0")
    enrol(folder, gallery, encoder, replaces="same people")
    assert gallery.people() == {"person 0": 2, "person 1": 2}
    enrol(folder, gallery, encoder, replaces="nothing")
    assert gallery.people() == {"person 0": 2, "person 1": 4}
    enrol(folder, gallery, encoder)
    assert gallery.people() == {"person 1": 2}


def test_another_detector_encodes_again(folder: Path, encoder: Encoder) -> None:
    gallery = MemoryGallery(encoder)
    enrol(folder, gallery, encoder)
    report = enrol_people(
        people_in(folder), gallery, load_detector("dlib_hog"), encoder, progress=False
    )
    assert report.reused == 0


def test_people_of_another_detector_who_stay_are_not_taken_for_unchanged(
    folder: Path, encoder: Encoder
) -> None:
    gallery = MemoryGallery(encoder)
    enrol(folder, gallery, encoder)
    hog = load_detector("dlib_hog")
    some = dict(list(people_in(folder).items())[:1])
    enrol_people(some, gallery, hog, encoder, replaces="same people", progress=False)
    assert gallery.detector_name == ""
    report = enrol_people(people_in(folder), gallery, hog, encoder, progress=False)
    assert report.reused == 0
    assert gallery.detector_name == "dlib_hog"


def test_where_nothing_can_be_enrolled_the_gallery_stays(
    folder: Path, encoder: Encoder, tmp_path: Path
) -> None:
    gallery = MemoryGallery(encoder)
    enrol(folder, gallery, encoder)
    (tmp_path / "others" / "Bo").mkdir(parents=True)
    (tmp_path / "others" / "Bo" / "1.jpg").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"none of the 1 photos.*1\.jpg: an empty file"):
        enrol(tmp_path / "others", gallery, encoder)
    assert gallery.people() == {"person 0": 2, "person 1": 2}


def test_no_photos_are_told_by_a_gallery_that_is_calibrated_too(tiny: Encoder) -> None:
    gallery = MemoryGallery(tiny)
    gallery.calibration = BY_HAND
    with pytest.raises(DatasetError, match="none of the 0 photos"):
        enrol_people({"Ada": []}, gallery, Halves(), tiny, progress=False)


def test_several_faces_are_remarked_on(
    folder: Path, encoder: Encoder, people_photos: list[Path]
) -> None:
    two = np.concatenate([read_image(people_photos[0])[:400, :360]] * 2, axis=1)
    Image.fromarray(two).save(folder / "person 0" / "two.png")
    report = enrol(folder, MemoryGallery(encoder), encoder)
    assert report.enrolled == 5
    assert report.notes == (f"{folder}/person 0/two.png: 2 faces, the largest is enrolled",)


def test_arrays_and_paths_can_be_mixed(encoder: Encoder, people_photos: list[Path]) -> None:
    gallery = MemoryGallery(encoder)
    photos: list[Any] = [
        people_photos[0],
        read_image(people_photos[0]),
        np.zeros((5, 5), np.float32),
    ]
    report = enrol_people({"Ada": photos}, gallery, load_detector(), encoder, progress=False)
    np.testing.assert_allclose(gallery.embeddings[0], gallery.embeddings[1], atol=1e-6)
    assert [item.photo for item in report.left_out] == ["photo 2"]
    assert "uint8" in report.left_out[0].reason


def test_photos_in_any_form_are_enrolled_alike(encoder: Encoder, people_photos: list[Path]) -> None:
    path = people_photos[0]
    content = path.read_bytes()
    forms: list[Any] = [
        path,
        content,
        base64.b64encode(content).decode(),
        Image.open(path),
        read_image(path),
    ]
    gallery = MemoryGallery(encoder)
    report = enrol_people(
        {"Ada": [*forms, b"no photo", "http://127.0.0.1:1/a.png?secret"]},
        gallery,
        load_detector(),
        encoder,
        progress=False,
    )
    assert report.enrolled == len(forms)
    for row in gallery.embeddings:
        np.testing.assert_allclose(row, gallery.embeddings[0], atol=1e-5)
    assert report.left_out[0] == LeftOut(
        "photo 5", "Ada", "the bytes received: not a photo in a known format"
    )
    assert report.left_out[1].photo == "http://127.0.0.1:1/a.png"
    assert "127.0.0.1 is an address of this machine" in report.left_out[1].reason


def test_a_photo_in_the_wrong_folder_is_named_first(encoder: Encoder, tmp_path: Path) -> None:
    for person in VERIFY_DATASET.iterdir():
        if person.is_dir():
            shutil.copytree(person, tmp_path / person.name)
    first, second = sorted(path for path in tmp_path.iterdir() if path.is_dir())[:2]
    wrong = second / "wrong.jpg"
    sorted(first.glob("*.jpg"))[0].rename(wrong)
    report = enrol(tmp_path, MemoryGallery(encoder), encoder)
    assert report.notes[0].startswith(f"{wrong}: unlike the other photos of {second.name}")
    # Nothing is left out for a suspicion.
    assert report.left_out == ()


def test_a_blurred_face_is_remarked_on(
    folder: Path, encoder: Encoder, people_photos: list[Path]
) -> None:
    blurred = cv2.GaussianBlur(read_image(people_photos[0]), (0, 0), 5)
    Image.fromarray(blurred.astype(np.uint8)).save(folder / "person 0" / "blurred.png")
    report = enrol(folder, MemoryGallery(encoder), encoder)
    assert report.enrolled == 5
    remarks = [note for note in report.notes if "too blurred" in note]
    assert [remark.split(":")[0] for remark in remarks] == [f"{folder}/person 0/blurred.png"]


def test_photos_are_opened_when_their_turn_comes(tiny: Encoder) -> None:
    opened: list[int] = []
    seen: list[int] = []

    class OnDemand(io.BytesIO):
        """A photo that notes when it is read."""

        def read(self, size: int | None = -1) -> bytes:
            opened.append(len(opened))
            return super().read(size)

    class Noting(Halves):
        """A detector that notes how many photos are open when it is at work."""

        def detect(self, image: ImageArray) -> list[Face]:
            seen.append(len(opened))
            return super().detect(image)

    content = io.BytesIO()
    Image.fromarray(np.full((16, 20, 3), 9, np.uint8)).save(content, "PNG")
    photos = [OnDemand(content.getvalue()) for _ in range(40)]
    gallery = MemoryGallery(tiny)
    enrol_people({"Ada": photos}, gallery, Noting(), tiny, progress=False)
    assert seen == list(range(1, 41))


def test_a_large_folder_is_not_compared_with_itself(
    folder: Path, tiny: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrolment, "_MAX_COMPARED", 3)
    report = enrol_people(people_in(folder), MemoryGallery(tiny), Halves(), tiny, progress=False)
    assert any("4 photos are too many to compare" in note for note in report.notes)


def test_a_remark_on_a_file_reaches_the_report_also_after_a_kill(
    tmp_path: Path, tiny: Encoder
) -> None:
    folder = tmp_path / "people" / "Ada"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG")
    (folder / "1.jpg").write_bytes(written.getvalue()[:-2])
    note = f"{folder / '1.jpg'}: the end of the file is missing; almost all of the photo is there"
    for _ in range(2):
        gallery = MemoryGallery(tiny)
        with enrolment_checkpoint(gallery, tmp_path / "c", Halves(), tiny) as checkpoint:
            people = people_in(tmp_path / "people")
            report = enrol_people(
                people, gallery, Halves(), tiny, progress=False, checkpoint=checkpoint
            )
        assert note in report.notes
    assert report.resumed == 1
