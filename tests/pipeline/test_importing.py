"""People from elsewhere, and a gallery by another encoder."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import load_encoder
from face_encode.errors import EmbeddingFileError, GalleryError, WrongEncoderError
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.encryption import KEY_VARIABLE, cipher_from_environment
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.npz import write_content
from face_encode.pipeline.embedding_file import write_embeddings
from face_encode.pipeline.embedding_table import EmbeddingSettings
from face_encode.pipeline.enrolment import enrol_people
from face_encode.pipeline.importing import import_people
from face_encode.pipeline.reembedding import reembed
from face_encode.types import Quality
from tests.gallery.calibrations import BY_HAND
from tests.gallery.common import SIXTEEN, like_faces
from tests.pipeline.drawn import faces as drawn_faces
from tests.tiny_parts import Halves, embed, save_tiny_encoder, write_photos


def old_gallery() -> MemoryGallery:
    """A gallery as an earlier release wrote it: José stands in it twice."""
    gallery = MemoryGallery(SIXTEEN)
    gallery.add(["José", "Bo", "Jose\u0301"], like_faces(3), ["a" * 64, "b" * 64, "c" * 64])
    gallery.detector_name = "eyes"
    gallery.calibration = BY_HAND
    return gallery


def test_an_npz_gallery_with_digests_detector_and_calibration(tmp_path: Path) -> None:
    old_gallery().save(tmp_path / "old.npz")
    target = tmp_path / "people.sqlite"
    photos, people, notes = import_people(tmp_path / "old.npz", target)
    assert (photos, people) == (3, 2)
    assert notes == ["'Jose\u0301' and 'José' are one person, 'José'"]
    with contextlib.closing(DatabaseGallery(target, SIXTEEN)) as gallery:
        assert gallery.people() == {"José": 2, "Bo": 1}
        np.testing.assert_array_equal(gallery.embeddings, like_faces(3))
        assert gallery.rows().digests.tolist() == ["a" * 64, "b" * 64, "c" * 64]
        assert (gallery.detector_name, gallery.calibration) == ("eyes", BY_HAND)
        gallery.add(["Ada"], like_faces(1, seed=1))
    # Once more changes nothing, and takes nobody out.
    import_people(tmp_path / "old.npz", target)
    assert DatabaseGallery(target).people() == {"José": 2, "Bo": 1, "Ada": 1}


def test_a_gallery_that_an_earlier_service_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "7" * 64)
    cipher, plain = cipher_from_environment(), io.BytesIO()
    assert cipher is not None
    write_content(plain, old_gallery().content)
    (tmp_path / "old.npz").write_bytes(cipher.encrypt(plain.getvalue()))
    import_people(tmp_path / "old.npz", tmp_path / "people.sqlite")
    # What was encrypted stays so.
    with contextlib.closing(DatabaseGallery(tmp_path / "people.sqlite")) as gallery:
        assert gallery.is_encrypted and gallery.people() == {"José": 2, "Bo": 1}
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(GalleryError, match="is encrypted"):
        import_people(tmp_path / "old.npz", tmp_path / "other.sqlite")


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_what_embed_wrote_of_a_folder_of_people(ending: str, tiny: Encoder, tmp_path: Path) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / "photos").mkdir()
    embed(write_photos(tmp_path / "photos"), tmp_path / f"out{ending}", tiny)
    target = tmp_path / "people.sqlite"
    photos, people, notes = import_people(tmp_path / f"out{ending}", target)
    assert (photos, people) == (150, 5)
    assert "15 faces that are not the largest of their photo are left out" in notes
    assert any(note.startswith("broken.jpg: ") for note in notes)
    with contextlib.closing(DatabaseGallery(target, tiny)) as gallery:
        assert set(gallery.people()) == {f"day {number}" for number in range(5)}
        first = gallery.photos("day 0")[0]
        assert first.source == "day 0/000.png" and first.box is not None


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_embedded_faces_that_cannot_be_trusted_are_left_out(ending: str, tmp_path: Path) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    photos = []
    for name, quality in (("1.jpg", Quality(0.9)), ("2.jpg", Quality(0.25, "blurred"))):
        photo = drawn_faces(f"Ada/{name}", 1)
        face = replace(photo.faces[0], quality=quality)
        photos.append(replace(photo, faces=(face,), digest=name))
    settings = EmbeddingSettings("one", "f1", 8, "eyes")
    write_embeddings(tmp_path / f"e{ending}", settings, photos)
    target = tmp_path / "people.sqlite"
    found = import_people(tmp_path / f"e{ending}", target)
    assert found == (1, 1, ["Ada/2.jpg: not to be trusted: blurred (quality 0.25)"])
    with contextlib.closing(DatabaseGallery(target)) as gallery:
        assert [photo.quality for photo in gallery.photos("Ada")] == [pytest.approx(0.9)]
    assert import_people(tmp_path / f"e{ending}", target, check_quality=False)[:2] == (2, 1)
    write_embeddings(tmp_path / f"e{ending}", settings, photos[1:])
    with pytest.raises(
        GalleryError, match=r"can be imported; Ada/2\.jpg: not to be trusted: blurred"
    ):
        import_people(tmp_path / f"e{ending}", target)


def test_sources_that_hold_no_people(tiny: Encoder, tmp_path: Path) -> None:
    target = tmp_path / "people.sqlite"
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (20, 20), "red").save(tmp_path / "flat" / "1.png")
    embed(tmp_path / "flat", tmp_path / "flat.npz", tiny)
    with pytest.raises(EmbeddingFileError, match="no photo in a folder"):
        import_people(tmp_path / "flat.npz", target)
    (tmp_path / "broken.npz").write_bytes(b"PK no archive")
    for name in ("none.npz", "people.txt", "broken.npz"):
        with pytest.raises(GalleryError, match=name):
            import_people(tmp_path / name, target)
    assert not target.exists()
    old_gallery().save(tmp_path / "old.npz")
    import_people(tmp_path / "old.npz", target)
    of_another = MemoryGallery(tiny)
    of_another.add(["Ada"], like_faces(1, size=4))
    of_another.save(tmp_path / "other.npz")
    with pytest.raises(WrongEncoderError, match=r"people\.sqlite was filled by the encoder 'one'"):
        import_people(tmp_path / "other.npz", target)


def jpeg(colour: str) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (30, 30), colour).save(content, "jpeg")
    return content.getvalue()


@pytest.fixture
def other_encoder(tmp_path: Path) -> Encoder:
    """Another encoder than ``tiny``, of the same length of embedding."""
    return load_encoder(save_tiny_encoder(tmp_path / "other.keras", seed=1))


def kept(path: Path, tiny: Encoder, crops: list[bytes]) -> DatabaseGallery:
    """Ada has two photos, Bo one; each may have a crop."""
    gallery = DatabaseGallery(path / "people.sqlite", tiny)
    details = [PhotoDetails(f"{number}.jpg", crop=crop) for number, crop in enumerate(crops)]
    gallery.add(["Ada", "Ada", "Bo"], like_faces(3, size=4), None, details)
    gallery.calibration = BY_HAND
    return gallery


def test_another_encoder_embeds_the_crops(
    tiny: Encoder, other_encoder: Encoder, tmp_path: Path
) -> None:
    former = kept(tmp_path, tiny, [jpeg("red"), jpeg("blue"), jpeg("green")])
    gallery, report = reembed(former, Halves(), other_encoder, progress=False)
    assert (report.embedded, report.left_out, report.lost) == (3, (), ())
    assert gallery.people() == {"Ada": 2, "Bo": 1}
    assert gallery.calibration is None
    with pytest.raises(WrongEncoderError):
        DatabaseGallery(gallery.path, tiny)
    # As a photo of its own would be.
    Image.open(io.BytesIO(jpeg("green"))).save(tmp_path / "green.png")
    alone = MemoryGallery(other_encoder)
    enrol_people({"Bo": [tmp_path / "green.png"]}, alone, Halves(), other_encoder, progress=False)
    np.testing.assert_allclose(gallery.embeddings[2], alone.embeddings[0], rtol=1e-5)
    assert gallery.crop(3) == jpeg("green")


@pytest.mark.parametrize("crop", [b"", b"no photo", jpeg("black")])
def test_who_would_be_lost_is_named_and_only_left_out_when_asked_to(
    crop: bytes, tiny: Encoder, other_encoder: Encoder, tmp_path: Path
) -> None:
    former = kept(tmp_path, tiny, [jpeg("red"), crop, crop])
    with pytest.raises(GalleryError, match=r"1 people would be lost.*: Bo\. Nothing has changed"):
        reembed(former, Halves(), other_encoder, progress=False)
    assert former.people() == {"Ada": 2, "Bo": 1}
    assert DatabaseGallery(tmp_path / "people.sqlite", tiny).calibration == BY_HAND
    gallery, report = reembed(former, Halves(), other_encoder, leave_out=True, progress=False)
    assert (report.embedded, report.lost) == (1, ("Bo",))
    assert [photo.source for photo, _ in report.left_out] == ["1.jpg", "2.jpg"]
    assert gallery.people() == {"Ada": 1}


def test_who_is_enrolled_meanwhile_is_not_lost(
    tiny: Encoder, other_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = kept(tmp_path, tiny, [jpeg("red"), jpeg("blue"), jpeg("green")])
    embed = other_encoder.embed

    def meanwhile(*arguments: object, **options: object) -> object:
        DatabaseGallery(former.path, tiny).add(["Eve"], like_faces(1, size=4))
        return embed(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(other_encoder, "embed", meanwhile)
    with pytest.raises(GalleryError, match="meanwhile; begin again"):
        reembed(former, Halves(), other_encoder, progress=False)
    assert former.people() == {"Ada": 2, "Bo": 1, "Eve": 1}


def test_crops_may_be_asked_for_later(tiny: Encoder, tmp_path: Path) -> None:
    Image.new("RGB", (30, 30), "red").save(tmp_path / "1.png")
    people = {"Ada": [tmp_path / "1.png"]}
    gallery = DatabaseGallery(tmp_path / "people.sqlite", tiny)
    enrol_people(people, gallery, Halves(), tiny, progress=False)
    (before,) = gallery.photos()
    assert not before.has_crop and before.source == str(tmp_path / "1.png")
    report = enrol_people(people, gallery, Halves(), tiny, keep_crops=True, progress=False)
    (after,) = gallery.photos()
    assert (report.reused, after.id, after.has_crop) == (0, before.id, True)
    # Known by its content, also as somebody else's.
    report = enrol_people(
        {"Eve": people["Ada"]}, gallery, Halves(), tiny, keep_crops=True, progress=False
    )
    (moved,) = gallery.photos("Eve")
    assert (report.reused, moved.source) == (1, before.source)
