from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_encode import Face_Encode_Model, ReferenceEmbeddings, find, represent, verify
from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import load_encoder
from face_encode.errors import DatasetError
from face_encode.evaluation.clustering import group_photos
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import open_gallery
from face_encode.photos.reading import read_image
from face_encode.pipeline.embedding import embed_photos
from face_encode.pipeline.enrolment import enrol_people, enrolment_checkpoint
from face_encode.pipeline.quality import judge_faces, quality_reason
from face_encode.pipeline.reembedding import reembed
from face_encode.training.augmentation import blurred, covered, dark
from face_encode.types import Box, CropRecipe, EnrolmentReport, Face, ImageArray, Quality
from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.tiny_parts import save_tiny_encoder

RECIPE = CropRecipe("dlib_chip", 150, 150, margin=0.25)


@pytest.fixture(scope="module")
def photo() -> ImageArray:
    return read_image(EXAMPLES / "ada_mirova.jpg")


@pytest.fixture(scope="module")
def face(photo: ImageArray) -> Face:
    return DlibHogDetector().detect(photo)[0]


@pytest.fixture(scope="module")
def crop(photo: ImageArray, face: Face) -> ImageArray:
    return np.asarray(crop_faces(photo, [face], RECIPE)[0])


@pytest.fixture
def behind_a_mask(photo: ImageArray, face: Face) -> ImageArray:
    nose = (face.box.top + 0.5 * face.box.height) / len(photo)
    return np.asarray(covered(photo[np.newaxis], nose)[0])


@pytest.fixture
def judging(encoder: Encoder) -> Face_Encode_Model:
    return Face_Encode_Model(encoder, DlibHogDetector())


def test_reasons_are_the_damage_that_was_done(crop: ImageArray, face: Face) -> None:
    assert quality_reason(blurred(crop[np.newaxis], 6)[0], face) == "blurred"
    assert quality_reason(dark(crop[np.newaxis])[0], face) == "too dark"
    assert quality_reason(covered(crop[np.newaxis])[0], face) == "covered or distorted"
    small = replace(face, box=Box(10, 10, 39, 50))
    assert quality_reason(crop, small) == "too small"
    assert face.landmarks is not None
    eyes = face.landmarks[:4].mean(axis=0)
    aside = face.landmarks.copy()
    aside[4, 0] += 0.4 * abs(face.landmarks[0, 0] - eyes[0]) * 2
    assert quality_reason(crop, replace(face, landmarks=aside)) == "turned away"
    assert quality_reason(crop, replace(face, landmarks=None)) == "covered or distorted"


@pytest.mark.parametrize("side", [64, 112, 300])
def test_a_reason_does_not_depend_on_the_size_of_the_crop(
    photo: ImageArray, face: Face, side: int
) -> None:
    recipe = CropRecipe("dlib_chip", side, side, margin=0.25)
    (crop,) = crop_faces(photo, [face], recipe)
    assert quality_reason(crop, face) == "covered or distorted"
    assert quality_reason(blurred(crop[np.newaxis], side / 25)[0], face) == "blurred"


def test_only_an_insufficient_quality_has_a_reason(
    crop: ImageArray, face: Face, encoder: Encoder
) -> None:
    contract = replace(encoder.contract, quality_threshold=0.5)
    crops = np.stack([crop, crop])
    qualities = np.array([0.5, 0.25], np.float32)
    good, bad = judge_faces([face, face], qualities, crops, contract)
    assert good.quality == Quality(0.5)
    assert good.quality.refusal is None
    assert bad.quality == Quality(0.25, "covered or distorted")
    assert bad.quality.refusal == "not to be trusted: covered or distorted (quality 0.25)"
    assert judge_faces([face], None, crops[:1], contract) == [face]


def test_a_face_that_cannot_be_trusted_matches_nobody(
    judging: Face_Encode_Model, photo: ImageArray, behind_a_mask: ImageArray
) -> None:
    judging.add_person("Ada", [photo])
    (good,) = judging.match_image(photo)
    assert good["is_match"]
    assert good["quality"] >= judging.encoder.contract.quality_threshold
    assert good["quality_reason"] is None
    judging.threshold = -1
    (bad,) = judging.match_image(behind_a_mask)
    assert not bad["is_match"]
    assert bad["name"] == "Ada"
    assert bad["quality"] < judging.encoder.contract.quality_threshold
    assert bad["quality_reason"] == "covered or distorted"
    (whole,) = judging.match_image(blurred(photo[np.newaxis], 12)[0], detect_faces=False)
    assert (whole["is_match"], whole["quality_reason"]) == (False, "blurred")
    assert whole["bounding_box"] is None


def test_verify_matches_no_photo_that_cannot_be_trusted(
    encoder: Encoder, photo: ImageArray, behind_a_mask: ImageArray
) -> None:
    same = verify(behind_a_mask, behind_a_mask, encoder=encoder, detector="dlib_hog")
    assert same["distance"] == pytest.approx(0, abs=1e-5)
    assert not same["is_match"]
    assert same["quality_reasons"] == ["covered or distorted"] * 2
    good = verify(photo, photo, encoder=encoder, detector="dlib_hog")
    assert good["is_match"]
    assert good["quality_reasons"] == [None, None]


def test_nothing_is_found_for_a_face_that_cannot_be_trusted(
    judging: Face_Encode_Model, photo: ImageArray, behind_a_mask: ImageArray
) -> None:
    judging.add_person("Ada", [photo])
    (row,) = find(photo, judging, as_frame=False)
    assert (row["name"], row["quality"]) == ("Ada", pytest.approx(0.95, abs=0.05))
    with pytest.warns(UserWarning, match=r"the photo: face 0 matches nobody: not to be trusted: c"):
        assert find(behind_a_mask, judging, distance_threshold=2, as_frame=False) == []
    (told,) = represent(behind_a_mask, encoder=judging.encoder, detector="dlib_hog")
    assert told["quality_reason"] == "covered or distorted"


def test_references_take_no_face_that_cannot_be_trusted_for_anybody(
    encoder: Encoder, photo: ImageArray, behind_a_mask: ImageArray
) -> None:
    references = ReferenceEmbeddings(encoder, "dlib_hog", distance_threshold=2)
    report = references.enrol([("Ada", photo), ("Ada", behind_a_mask)])
    assert (report.enrolled, len(report.left_out)) == (1, 1)
    (good,) = references.identify(photo)
    assert (good.matched, good.quality_reason) == (True, None)
    (bad,) = references.identify(behind_a_mask)
    assert (bad.matched, bad.label, bad.quality_reason) == (False, "Ada", "covered or distorted")
    assert good.quality is not None and bad.quality is not None
    assert good.quality > bad.quality
    for label in (None, "Ada"):
        assert references.compare(photo, label).matched
        with pytest.warns(UserWarning, match="face 0 matches nobody"):
            assert not references.compare(behind_a_mask, label).matched
    assert references.enrol([("Ada", behind_a_mask)], check_quality=False).enrolled == 1


def test_groups_hold_no_face_that_cannot_be_trusted(
    encoder: Encoder, photo: ImageArray, behind_a_mask: ImageArray, tmp_path: Path
) -> None:
    for name, image in (("good", photo), ("masked", behind_a_mask)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    grouped = group_photos(tmp_path, DlibHogDetector(), encoder, progress=False)
    assert [[Path(face.photo).stem for face in group] for group in grouped.groups] == [["good"]]
    ((left_out, reason),) = grouped.left_out
    assert Path(left_out).stem == "masked"
    assert reason.startswith("face 0: not to be trusted: covered or distorted (quality 0.")


def test_another_encoder_takes_over_no_photo_that_it_does_not_trust(
    encoder: Encoder, photo: ImageArray, tmp_path: Path
) -> None:
    unsharp = blurred(photo[np.newaxis], 6)[0]
    former = load_encoder(save_tiny_encoder(tmp_path / "tiny.keras"))

    def kept() -> DatabaseGallery:
        """Ada's portrait, sharp and not, whose crops are kept."""
        path = tmp_path / "people.sqlite"
        path.unlink(missing_ok=True)
        gallery = DatabaseGallery(path, former)
        report = enrol_people(
            {"Ada": [photo, unsharp]},
            gallery,
            DlibHogDetector(),
            former,
            progress=False,
            keep_crops=True,
        )
        assert report.enrolled == 2
        return gallery

    gallery, report = reembed(kept(), DlibHogDetector(), encoder, progress=False)
    ((_, reason),) = report.left_out
    assert reason.startswith("not to be trusted: ")
    (row,) = gallery.photos("Ada")
    assert row.quality is not None and encoder.contract.quality_threshold is not None
    assert encoder.contract.quality_threshold <= row.quality <= 1
    gallery.close()
    gallery, report = reembed(
        kept(), DlibHogDetector(), encoder, check_quality=False, progress=False
    )
    assert (report.embedded, len(gallery.photos("Ada"))) == (2, 2)
    gallery.close()


def test_a_photo_that_cannot_be_trusted_is_not_enrolled_unless_asked_for(
    judging: Face_Encode_Model, photo: ImageArray, behind_a_mask: ImageArray
) -> None:
    report = judging.add_person("Ada", [photo, behind_a_mask])
    assert (report.enrolled, len(judging.verify_names)) == (1, 1)
    (left_out,) = report.left_out
    assert left_out.photo == "photo 1"
    assert left_out.reason.startswith("not to be trusted: covered or distorted (quality 0.")
    with pytest.raises(DatasetError, match="not to be trusted: covered or distorted"):
        judging.add_person("Ada", [behind_a_mask])
    assert judging.add_person("Ada", [behind_a_mask], check_quality=False).enrolled == 1


@pytest.mark.parametrize("ending", ["sqlite", "npz"])
def test_a_known_photo_that_cannot_be_trusted_is_not_enrolled_again_unless_asked_for(
    ending: str, encoder: Encoder, photo: ImageArray, behind_a_mask: ImageArray, tmp_path: Path
) -> None:
    people = {"Ada": [photo, behind_a_mask]}

    def enrol(check_quality: bool) -> EnrolmentReport:
        with closing(open_gallery(tmp_path / f"people.{ending}", encoder=encoder)) as gallery:
            return enrol_people(
                people,
                gallery,
                DlibHogDetector(),
                encoder,
                check_quality=check_quality,
                progress=False,
            )

    assert enrol(check_quality=False).enrolled == 2
    report = enrol(check_quality=True)
    (left_out,) = report.left_out
    assert left_out.reason.startswith("not to be trusted: covered or distorted (quality 0.")
    assert (report.enrolled, report.reused) == (1, 1)
    again = enrol(check_quality=False)
    assert (again.enrolled, again.reused) == (2, 1)
    # Where the quality does not count, a database need not judge again.
    assert enrol(check_quality=False).reused == (2 if ending == "sqlite" else 1)


def test_a_known_photo_without_a_quality_is_judged_once(
    encoder: Encoder, photo: ImageArray, tmp_path: Path
) -> None:
    people, detector = {"Ada": [photo]}, DlibHogDetector()
    held = MemoryGallery(encoder)
    enrol_people(people, held, detector, encoder, progress=False)
    rows = held.rows()
    with closing(DatabaseGallery(tmp_path / "people.sqlite", encoder)) as gallery:
        gallery.replace(
            rows.names.tolist(),
            rows.embeddings,
            rows.digests.tolist(),
            detector_name=rows.detector_name,
        )
        (before,) = gallery.photos()
        assert enrol_people(people, gallery, detector, encoder, progress=False).reused == 0
        (after,) = gallery.photos()
        assert before.quality is None and after.quality is not None
        assert before.box is None and after.box is not None
        told = replace(before, quality=after.quality, box=after.box, source="photo 0")
        assert after == told
        assert enrol_people(people, gallery, detector, encoder, progress=False).reused == 1


def test_a_gallery_database_keeps_the_quality(
    encoder: Encoder, photo: ImageArray, tmp_path: Path
) -> None:
    gallery = open_gallery(tmp_path / "people.sqlite", encoder=encoder)
    enrol_people({"Ada": [photo]}, gallery, DlibHogDetector(), encoder, progress=False)
    assert isinstance(gallery, DatabaseGallery)
    (row,) = gallery.photos("Ada")
    assert row.quality is not None
    assert encoder.contract.quality_threshold is not None
    assert encoder.contract.quality_threshold <= row.quality <= 1
    gallery.close()


def test_a_checkpoint_keeps_the_quality(encoder: Encoder, tmp_path: Path) -> None:
    path, detector = VERIFY_DATASET / "Ada_Mirova" / "1.jpg", DlibHogDetector()
    (embedded,) = embed_photos([path], detector, encoder)
    judged = embedded.faces[0].quality
    assert judged is not None
    gallery = open_gallery(None, encoder=encoder)
    with enrolment_checkpoint(gallery, tmp_path / "c", detector, encoder) as checkpoint:
        for quality in (judged, Quality(0.1, "blurred"), None):
            faces = (replace(embedded.faces[0], quality=quality), *embedded.faces[1:])
            checkpoint.keep([(str(path), (1, 2), replace(embedded, faces=faces))])
            assert checkpoint.result(str(path)).faces[0].quality == quality
