from __future__ import annotations

import shutil
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, GalleryError, InputError
from face_encode.evaluation.clustering import b_cubed
from face_encode.evaluation.faces import EmbeddedFaces
from face_encode.evaluation.pairs import evaluate_pairs, read_pairs
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.opening import load_gallery
from face_encode.model import Face_Encode_Model
from face_encode.photos.folders import people_in
from face_encode.photos.reading import content_digest
from face_encode.types import Box, Face, Quality
from tests.conftest import VERIFY_DATASET


@pytest.mark.data
def test_a_gallery_keeps_what_was_learnt(
    run: Any, link: Any, several: list[Path], encoder: Encoder, tmp_path: Path
) -> None:
    people, path = link(tmp_path / "people", several, 0, 3), tmp_path / "people.npz"
    model = Face_Encode_Model(encoder)
    model.fit_dataset(people, progress=False)
    model.save_gallery(path)
    told = run("calibrate", path, "--false-match-rate", "0.05", "--json")
    kept = load_gallery(path, encoder).calibration
    assert kept is not None
    assert kept.false_match_rate == 0.05
    assert (kept.people, kept.photos) == (8, 24)
    assert told["threshold"] == kept.threshold(24)
    assert told["gallery"] == str(path)
    # The same people from their folder teach the same.
    (people / "stray.jpg").write_bytes(b"beside them")
    fresh = run("calibrate", people, "--false-match-rate", "0.05", "--json")
    assert fresh["thresholds"] == pytest.approx(told["thresholds"], abs=1e-4)
    assert fresh["gallery"] is None
    assert [each["photo"] for each in fresh["left_out"]] == [str(people / "stray.jpg")]


@pytest.mark.data
def test_the_thresholds_are_printed_and_an_extrapolation_is_told(
    run: Any, link: Any, several: list[Path], tmp_path: Path
) -> None:
    printed = run("calibrate", link(tmp_path / "people", several, 0, 2))
    assert "two photos compared" in printed
    assert "16 photos enrolled" in printed
    assert "to the safe side" in printed


@pytest.mark.data
def test_too_few_people_and_a_missing_gallery_are_refused(
    run: Any, link: Any, several: list[Path], tmp_path: Path
) -> None:
    people = link(tmp_path / "people", several[:3], 0, 2)
    with pytest.raises(InputError, match="at least 5 people"):
        run("calibrate", people)
    with pytest.raises(GalleryError, match="no such gallery"):
        run("calibrate", people, "-g", tmp_path / "none.npz")


def test_calibration_learns_from_the_faces_and_names_that_a_gallery_would_have(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(6, 16)).repeat(3, 0) + 0.1 * random.normal(size=(18, 16))
    qualities = [Quality(0.9), Quality(0.9), Quality(0.1, "blurred")] * 6
    faces = EmbeddedFaces(
        tuple(f"{number}.jpg" for number in range(18)),
        embeddings.astype(np.float32),
        tuple(Face(Box(0, 0, 50, 50), 1.0, quality=quality) for quality in qualities),
        np.ones(18),
        (None,) * 18,
        0.01,
    )
    names = np.array([f"{'Aa'[row % 3]}da {row // 3}" if row % 3 < 2 else "x" for row in range(18)])
    monkeypatch.setattr("face_encode.cli.evaluate.open_models", lambda options: (None, None))
    monkeypatch.setattr(
        "face_encode.evaluation.faces.embed_people", lambda *_, **options: (names, faces)
    )
    told = run("calibrate", tmp_path, "--false-match-rate", "0.05", "--json")
    assert (told["photos"], told["people"]) == (12, 6)
    assert [each["photo"] for each in told["left_out"]] == [f"{row}.jpg" for row in range(2, 18, 3)]
    assert "blurred" in told["left_out"][0]["reason"]
    with pytest.raises(InputError, match=r"a gallery keeps its own.*a\.sqlite and -g .*b\.sqlite"):
        run("calibrate", tmp_path / "a.sqlite", "-g", tmp_path / "b.sqlite")


def test_a_gallery_without_photos_is_refused_before_it_is_calibrated(
    run: Any, encoder: Encoder, tmp_path: Path
) -> None:
    path = tmp_path / "people.sqlite"
    DatabaseGallery(path, encoder).close()
    with pytest.raises(GalleryError, match=r"once somebody is enrolled.*without photos"):
        run("calibrate", VERIFY_DATASET, "-g", path)
    with closing(DatabaseGallery(path, encoder)) as gallery:
        assert gallery.calibration is None


@pytest.mark.data
def test_planted_mistakes_are_named_with_pictures(
    run: Any, link: Any, several: list[Path], tmp_path: Path
) -> None:
    folder = link(tmp_path / "people", several, 0, 4)
    first, second, third = (each.name for each in several[:3])
    wrong = folder / second / "wrong.jpg"
    shutil.move(folder / first / f"{first}_0001.jpg", wrong)
    double = folder / third / "double.jpg"
    shutil.copy(folder / third / f"{third}_0001.jpg", double)
    blurred = folder / third / f"{third}_0002.jpg"
    photo = Image.open(blurred).convert("RGB").filter(ImageFilter.GaussianBlur(7))
    blurred.unlink()
    photo.save(blurred, quality=95)
    Image.new("RGB", (200, 200), "teal").save(folder / third / "empty.jpg")
    report = tmp_path / "report.html"
    told = run("check", folder, "--json", "--report", report)
    assert (told["photos"], told["people"]) == (34, 8)
    named = {(each["kind"], *each["photos"]) for each in told["suspicions"]}
    assert ("mislabelled", str(wrong)) in named
    assert ("same photo", str(folder / third / f"{third}_0001.jpg"), str(double)) in named
    left_out = [each["photo"] for each in told["left_out"]]
    # So much blur may hide the face from the detector altogether; either way it is named.
    assert ("blurred face", str(blurred)) in named or str(blurred) in left_out
    assert str(folder / third / "empty.jpg") in left_out
    page = report.read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == sum(len(each["photos"]) for each in told["suspicions"])
    printed = run("check", folder)
    assert "wrong.jpg: unlike the other photos" in printed


@pytest.mark.data
def test_a_clean_folder_has_nothing_to_show(
    run: Any, link: Any, several: list[Path], tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    run("check", link(tmp_path / "people", several[:2], 0, 2), "--report", report)
    assert "Nothing was noticed." in report.read_text(encoding="utf-8")


@pytest.mark.data
def test_unnamed_photos_become_folders_that_can_be_enrolled(
    run: Any, several: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("scipy")
    photos, output = tmp_path / "photos", tmp_path / "people"
    (photos / "deeper").mkdir(parents=True)
    for person in several[:5]:
        for number, photo in enumerate(sorted(person.iterdir())[:4]):
            folder = photos / "deeper" if number % 2 else photos
            (folder / f"{person.name}-{number}.jpg").symlink_to(photo)
    told = run("cluster", photos, "-o", output, "--json")
    assert told["photos"] == 20
    rows = [
        (Path(face["photo"]).stem.rsplit("-", 1)[0], person["name"])
        for person in told["people"]
        for face in person["faces"]
        if face["bounding_box"]["width"] > 60
    ]
    assert b_cubed([name for name, _ in rows], [group for _, group in rows]).f > 0.9
    written = people_in(output)
    assert {name: len(files) for name, files in written.items()} == {
        person["name"]: len(person["faces"]) for person in told["people"]
    }
    with pytest.raises(DatasetError, match="new or an empty folder"):
        run("cluster", photos, "-o", output)


def test_pairs_of_the_invented_people(run: Any, tmp_path: Path) -> None:
    people = [sorted(person.glob("*.jpg")) for person in sorted(VERIFY_DATASET.iterdir())]
    rows = [(photos[0], photos[1], 1) for photos in people]
    rows += [(a[0], b[0], 0) for a, b in pairwise(people)]
    file, report = tmp_path / "pairs.csv", tmp_path / "report.html"
    lines = ["photo_a,photo_b,same", *(f"{a},{b},{same}" for a, b, same in rows)]
    file.write_text("\n".join(lines), encoding="utf-8")
    arguments = ["--photos", VERIFY_DATASET, "--pairs", file]
    told = run("evaluate", "pairs", *arguments, "--report", report, "--json")
    assert (told["pairs"], told["not_found"], told["accuracy"]) == (len(rows), [], 1.0)
    assert report.read_text(encoding="utf-8").count("<svg") == 4


def test_the_invented_people_are_calibrated_checked_and_grouped(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    people = len(list(VERIFY_DATASET.iterdir()))
    told = run("calibrate", VERIFY_DATASET, "--false-match-rate", "0.05", "--json")
    assert (told["people"], told["gallery"]) == (people, None)
    report = tmp_path / "report.html"
    assert "likely mistakes" in run("check", VERIFY_DATASET, "--report", report)
    assert report.is_file()
    grouped = run("cluster", VERIFY_DATASET, "-o", tmp_path / "people", "--json")
    names = [
        {Path(face["photo"]).parent.name for face in each["faces"]} for each in grouped["people"]
    ]
    assert all(len(each) == 1 for each in names)
    assert len(set.union(*names)) == people
    assert people_in(tmp_path / "people").keys() == {each["name"] for each in grouped["people"]}


def test_a_folder_is_sorted_into_a_database_and_the_groups_are_named(
    run: Any, tmp_path: Path
) -> None:
    pytest.importorskip("scipy")
    database, photos = tmp_path / "people.sqlite", tmp_path / "photos"
    shutil.copytree(VERIFY_DATASET, photos)
    told = run("cluster", photos, "-g", database, "--json")
    assert told["enrolled"] == {}
    groups = {
        each["name"]: {Path(face["photo"]).parent.name for face in each["faces"]}
        for each in told["people"]
    }
    # One group a person, and one person a group.
    (names,) = zip(*groups.values(), strict=True)
    assert sorted(names) == sorted(each.name for each in VERIFY_DATASET.iterdir())
    (tmp_path / "photos" / "Ada_Mirova").rename(tmp_path / "Ada_Mirova")
    with closing(DatabaseGallery(database, create=False)) as gallery:
        for group in gallery.unknown.groups()[0]:
            (name,) = groups[group.id]
            assert {face.source for face in group.faces} == {
                f"{name}/{number}.jpg" for number in range(1, 5)
            }
            assert group.seen == 4 and group.expires_at > group.last_seen
            crop = gallery.unknown.crop(group.faces[0].id)
            assert crop is not None and crop.startswith(b"\xff\xd8")
            if name == "Ada_Mirova":
                gallery.unknown.name(group.number, "Ada")
            elif name == "Mei_Oshara":
                gallery.unknown.dismiss(group.number)
        # A photo is recognised by its content, as if it had been enrolled.
        (photo, *_) = gallery.photos("Ada")
        assert photo.digest == content_digest(tmp_path / "Ada_Mirova" / Path(photo.source).name)
    # Sorted again: who has a name is left out, the others keep their numbers.
    shutil.copytree(tmp_path / "Ada_Mirova", photos / "again")
    again = run("cluster", photos, "-g", database, "--keep-unknown", "2", "--json")
    assert again["enrolled"] == {"Ada": 4}
    now = {
        each["name"]: {Path(face["photo"]).parent.name for face in each["faces"]}
        for each in again["people"]
    }
    gone = ({"Ada_Mirova"}, {"Mei_Oshara"})
    kept = {group: name for group, name in groups.items() if name not in gone}
    assert kept.items() <= now.items()
    assert {"Mei_Oshara"} in now.values() and len(now) == len(kept) + 1
    with closing(DatabaseGallery(database, create=False)) as gallery:
        assert all((each.seen, len(each.faces)) == (4, 4) for each in gallery.unknown.groups()[0])


def test_where_groups_are_kept_is_checked_before_the_work(run: Any, tmp_path: Path) -> None:
    photos, database = VERIFY_DATASET, tmp_path / "people.sqlite"
    with pytest.raises(GalleryError, match="only a gallery database"):
        run("cluster", photos, "-g", tmp_path / "people.npz")
    for wrong in (
        ("-o", tmp_path / "out", "--keep-unknown", "3"),
        ("-g", database, "--keep-unknown", "0"),
    ):
        with pytest.raises(InputError, match="--keep-unknown is for -g"):
            run("cluster", photos, *wrong)
    for usage in ((), ("-g", database, "-o", tmp_path / "out")):
        with pytest.raises(SystemExit):
            run("cluster", photos, *usage)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_photos_is_refused(run: Any, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DatasetError, match="no photo"):
        run("cluster", tmp_path / "photos", "-o", tmp_path / "out")


PER_KIND = 20


@pytest.fixture
def some_pairs(lfw_pairs: Path, tmp_path: Path) -> Path:
    """The first pairs of each kind of the development list."""
    _, *lines = lfw_pairs.read_text().splitlines()
    half = len(lines) // 2
    file = tmp_path / "pairs.txt"
    chosen = [str(PER_KIND), *lines[:PER_KIND], *lines[half : half + PER_KIND]]
    file.write_text("\n".join(chosen), encoding="utf-8")
    return file


@pytest.mark.data
def test_json_equals_scikit_learn_and_the_report_stands_alone(
    run: Any, some_pairs: Path, lfw_photos: Path, encoder: Encoder, tmp_path: Path
) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    photos, report = lfw_photos, tmp_path / "report.html"
    arguments = ["--photos", photos, "--pairs", some_pairs]
    told = run("evaluate", "pairs", *arguments, "--report", report, "--json")
    pairs = read_pairs(some_pairs, photos)
    measured = evaluate_pairs(pairs, load_detector(), encoder, progress=False)
    false, true, _ = sklearn_metrics.roc_curve(pairs.same, measured.scores, drop_intermediate=False)
    accuracy = np.max(true + 1 - false) / 2
    assert told["pairs"] == 2 * PER_KIND
    assert told["not_found"] == []
    assert told["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert told["auc"] == pytest.approx(sklearn_metrics.auc(false, true), abs=1e-6)
    assert told["accuracy"] > 0.9
    assert told["tar_at_far"] == {"0.1": None, "0.01": None, "0.001": None, "0.0001": None}
    assert (told["encoder"], told["detector"], told["metric"]) == ("dlib_resnet", "dlib", "cosine")
    page = report.read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    assert "http" not in page
    assert "encoding one face" in page


@pytest.mark.data
def test_a_photo_without_a_face_is_listed_and_counts_as_an_error(
    run: Any, several: list[Path], tmp_path: Path
) -> None:
    for person in several[:2]:
        for number, photo in enumerate(sorted(person.iterdir())[:2]):
            (tmp_path / f"{person.name}{number}.jpg").symlink_to(photo)
    Image.new("RGB", (200, 200), "teal").save(tmp_path / "empty.jpg")
    first, second = several[0].name, several[1].name
    rows = [
        (f"{first}0.jpg", f"{first}1.jpg", 1),
        (f"{second}0.jpg", f"{second}1.jpg", 1),
        (f"{first}0.jpg", f"{second}0.jpg", 0),
        (f"{first}1.jpg", "empty.jpg", 0),
    ]
    file = tmp_path / "pairs.csv"
    lines = ["photo_a,photo_b,same", *(f"{a},{b},{same}" for a, b, same in rows)]
    file.write_text("\n".join(lines), encoding="utf-8")
    told = run("evaluate", "pairs", "--photos", tmp_path, "--pairs", file, "--json")
    assert told["not_found"] == [str(tmp_path / "empty.jpg")]
    assert told["accuracy"] == pytest.approx(3 / 4)
    printed = run("evaluate", "pairs", "--photos", tmp_path, "--pairs", file)
    assert "75.00 %" in printed
    assert "a face was found in 80.00 % of the photos" in printed
    assert "empty.jpg: no face found" in printed


def test_what_is_wrong_is_told_before_the_work(run: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        run("evaluate", "pairs", "--photos", tmp_path / "none", "--pairs", tmp_path / "none")
    (tmp_path / "a.jpg").touch()
    file = tmp_path / "pairs.csv"
    file.write_text("photo_a,photo_b,same\na.jpg,a.jpg,1\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"\.html"):
        run("evaluate", "pairs", "--photos", tmp_path, "--pairs", file, "--report", "out.pdf")


@pytest.mark.data
def test_enrolled_people_strangers_and_a_photo_without_a_face(
    run: Any, link: Any, several: list[Path], tmp_path: Path
) -> None:
    gallery = link(tmp_path / "gallery", several[:6], 0, 2)
    probes = link(tmp_path / "probes", several, 2, 4)
    Image.new("RGB", (200, 200), "teal").save(probes / several[0].name / "empty.jpg")
    report = tmp_path / "report.html"
    told = run("evaluate", "people", gallery, probes, "--json", "--report", report)
    assert (told["people"], told["enrolled"]) == (6, 12)
    assert (told["probes"], told["stranger_probes"]) == (17, 4)
    assert told["not_found"] == [str(probes / several[0].name / "empty.jpg")]
    # Twelve probes of enrolled people have a face; at most one may be told wrong.
    assert told["rank_1"] >= 11 / 13
    assert told["rank_5"] >= told["rank_1"]
    right = told["probes"] - told["wrong_name"] - told["missed"] - told["false_alarms"]
    assert told["correct"] == right
    assert report.read_text(encoding="utf-8").count("<svg") == 1
    printed = run("evaluate", "people", gallery, probes, "--threshold", "0")
    assert "strangers given a name" in printed
    assert "4 of 4 (100.00 %" in printed
    assert "empty.jpg: no face found" in printed


@pytest.mark.data
def test_the_threshold_can_be_calibrated_on_the_enrolled(
    run: Any, link: Any, several: list[Path], tmp_path: Path
) -> None:
    gallery = link(tmp_path / "gallery", several, 0, 3)
    probes = link(tmp_path / "probes", several[:1], 3, 4)
    loose, strict = (
        run("evaluate", "people", gallery, probes, "--false-match-rate", rate, "--json")
        for rate in (0.2, 0.001)
    )
    assert 0.7 < loose["threshold"] < strict["threshold"]
