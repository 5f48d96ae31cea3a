"""Broken folders of people, and broken photos in them: an error, or a row in the report."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, InputError
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import open_gallery
from face_encode.model import Face_Encode_Model
from face_encode.photos.folders import people_in
from face_encode.pipeline.enrolment import enrol_people
from face_encode.types import EnrolmentReport, Face, ImageArray
from tests.broken_inputs.conftest import WholePhoto
from tests.broken_inputs.making import BROKEN_FILES, picture


def person(folder: Path, name: str, *photos: str) -> Path:
    """A person's folder with photos."""
    try:
        (folder / name).mkdir(parents=True)
    except OSError as error:
        # EILSEQ and EINVAL: file systems that take valid text only, or not all of it.
        if error.errno not in (errno.EILSEQ, errno.EINVAL):
            raise
        pytest.skip("this file system does not take such a name")
    for seed, photo in enumerate(photos):
        picture(seed=seed).save(folder / name / photo)
    return folder / name


def one_file(folder: Path) -> Path:
    picture().save(folder / "people", "PNG")
    return folder / "people"


def only_photos(folder: Path) -> Path:
    picture().save(folder / "Ada.jpg")
    return folder


def empty_people(folder: Path) -> Path:
    person(folder, "Ada")
    person(folder, "Bo")
    return folder


def only_texts(folder: Path) -> Path:
    (person(folder, "Ada") / "notes.txt").write_text("tall")
    return folder


def hidden(folder: Path) -> Path:
    person(folder, ".git", "1.jpg")
    person(folder, "Ada", ".1.jpg")
    return folder


def only_hidden_people(folder: Path) -> Path:
    person(folder, ".thumbnails", "1.jpg")
    return folder


def looped(folder: Path) -> Path:
    (folder / "people").symlink_to("people")
    return folder / "people"


def dangling(folder: Path) -> Path:
    (folder / "people").symlink_to("gone")
    return folder / "people"


def forbidden(folder: Path) -> Path:
    person(folder, "people/Ada", "1.jpg")
    (folder / "people").chmod(0)
    if os.access(folder / "people", os.R_OK):
        pytest.skip("nothing can be forbidden to this user")
    return folder / "people"


def share_gone(folder: Path) -> Path:
    person(folder, "Ada", "1.jpg")
    (folder / "Bo").symlink_to("/mnt/share/Bo")
    return folder


def share_named_like_a_photo(folder: Path) -> Path:
    person(folder, "Ada", "1.jpg")
    (folder / "Bo.jpg").symlink_to("/mnt/share/Bo")
    return folder


def looped_person(folder: Path) -> Path:
    person(folder, "Ada", "1.jpg")
    (folder / "Bo").symlink_to("Bo")
    return folder


def pipe(folder: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(folder / "people")
    return folder / "people"


def all_broken(folder: Path) -> Path:
    (person(folder, "Ada") / "1.jpg").write_bytes(b"")
    (person(folder, "Bo") / "2.png").write_text("no photo")
    return folder


BROKEN_FOLDERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "none", "no such folder"),
    "empty": (lambda folder: folder, "a folder without sub-folders"),
    "a file": (one_file, "a file, not a folder"),
    "a pipe": (pipe, "a file, not a folder"),
    "photos without people": (only_photos, "a folder without sub-folders"),
    "people without photos": (empty_people, "no photo in any of its 2 sub-folders"),
    "texts for photos": (only_texts, "photos are files ending in"),
    "hidden photos": (hidden, "no photo in any of its 1 sub-folders"),
    "hidden people": (only_hidden_people, "a folder without sub-folders"),
    "a link to itself": (looped, "too many levels of symbolic links"),
    "a dangling link": (dangling, "no such folder"),
    "no permission": (forbidden, "permission denied"),
    "a person on a share that is not mounted": (share_gone, "Bo: a link to nothing"),
    "a person's link named like a photo": (share_named_like_a_photo, "Bo.jpg: a link to nothing"),
    "a person that is a link to itself": (looped_person, "Bo: a link to nothing"),
    "a name that is too long": (lambda folder: folder / ("a" * 300), "name too long"),
    "broken photos only": (all_broken, "none of the 2 photos can be enrolled; the first: "),
}


@pytest.mark.parametrize("case", BROKEN_FOLDERS)
def test_a_broken_folder_is_refused_and_the_enrolled_stay(
    case: str, tmp_path: Path, tiny_model: Face_Encode_Model
) -> None:
    make, told = BROKEN_FOLDERS[case]
    folder = make(tmp_path)
    with pytest.raises(DatasetError) as caught:
        tiny_model.fit_dataset(folder, progress=False)
    assert told in str(caught.value)
    assert tiny_model.verify_names.tolist() == ["Ada"]


def test_a_persons_folder_that_hides_photos_is_refused_and_the_enrolled_stay(
    tmp_path: Path, tiny_model: Face_Encode_Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(tmp_path, "Ada/2023", "1.jpg")
    person(tmp_path, "Bo", "2.jpg")
    listed = os.scandir

    def scandir(path: Any) -> Any:
        # Asked of the operating system, it would be granted where the tests run as root.
        if Path(path).name == "2023":
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DatasetError, match=r"Ada.2023: permission denied"):
        tiny_model.fit_dataset(tmp_path, progress=False)
    assert tiny_model.verify_names.tolist() == ["Ada"]


@pytest.mark.parametrize("folder", ["", "a\0b", b"people", None, 3, ["Ada"]])
def test_what_is_no_path_is_refused(folder: Any, tiny_model: Face_Encode_Model) -> None:
    with pytest.raises(InputError, match="a path is"):
        tiny_model.fit_dataset(folder)


@dataclass(frozen=True)
class Mixed:
    """One enrolment of a person with a good photo and every broken one that can be made."""

    report: EnrolmentReport
    paths: dict[str, Path]
    left_out: dict[str, str]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, tiny: Encoder) -> Mixed:
    folder = tmp_path_factory.mktemp("people")
    ada = person(folder, "Ada", "good.jpg")
    paths = {}
    for case, (make, _) in BROKEN_FILES.items():
        try:
            paths[case] = make(ada)
        except pytest.skip.Exception:
            continue
    report = Face_Encode_Model(tiny, WholePhoto()).fit_dataset(folder, progress=False)
    return Mixed(report, paths, {row.photo: row.reason for row in report.left_out})


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_a_broken_photo_is_a_row_in_the_report(case: str, mixed: Mixed) -> None:
    if case not in mixed.paths:
        pytest.skip("cannot be made here")
    path, told = mixed.paths[case], BROKEN_FILES[case][1]
    assert told in mixed.left_out[str(path)]
    # The photo is named in its own column.
    assert path.name not in mixed.left_out[str(path)]


def test_the_good_photo_beside_them_is_enrolled_and_nothing_is_passed_over(mixed: Mixed) -> None:
    assert mixed.report.enrolled == 1
    assert mixed.report.per_person == {"Ada": 1}
    assert len(mixed.left_out) == len(mixed.report.left_out) == len(mixed.paths)
    assert {row.name for row in mixed.report.left_out} == {"Ada"}


NAMES = {
    "a control character": ("Ada\x07", False),
    "an escape sequence": ("\x1b[2JAda", False),
    "a line break": ("Ada\nLovelace", False),
    "blanks only": ("  ", False),
    "bytes that are no text": ("M\udcfcller", False),
    "blanks within": ("Ada King of Lovelace", True),
    "accents in two parts": ("Ame\u0301lie", True),
    "Japanese": ("田中 太郎", True),
    "Arabic, from right to left": ("محمد", True),
    "Persian, with a joiner": ("می\u200cخواهم", True),
    "Emoji": ("👩🏽‍🚀", True),
    "brackets, as of markup": ("[red]Ada", True),
    "a quotation mark": ('Ada "the first"', True),
    "a leading dash": ("--json", True),
    "a formula": ("=1+1", True),
    "a number": ("007", True),
    "as long as can be": ("a" * 255, True),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_name_of_any_script_is_taken_and_what_is_no_name_told(
    case: str, tmp_path: Path, tiny_model: Face_Encode_Model
) -> None:
    name, fine = NAMES[case]
    photos = tmp_path / "people"
    person(photos, "Zoë", "1.jpg")
    other = person(photos, name)
    picture(seed=9).save(other / "2.jpg")
    report = tiny_model.fit_dataset(photos, progress=False)
    if fine:
        assert sorted(tiny_model.verify_names.tolist()) == sorted([name, "Zoë"])
        tiny_model.save_gallery(tmp_path / "people.npz")
        tiny_model.load_gallery(tmp_path / "people.npz")
        assert tiny_model.remove_person(name) == 1
    else:
        assert tiny_model.verify_names.tolist() == ["Zoë"]
        (row,) = report.left_out
        assert row.photo == str(other / "2.jpg")
        assert "text without control characters" in row.reason
        assert ("convmv -r -f latin1" in row.reason) == ("no text" in case)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are always read as UTF-8")
def test_names_that_python_reads_in_another_encoding_are_not_called_latin() -> None:
    program = """
import os
from face_encode.errors import InputError
from face_encode.gallery.base import check_name
try:
    check_name(os.fsdecode(b"Zo\\xc3\\xab"))
except InputError as error:
    print(error)
"""
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **plain},
        capture_output=True,
        check=True,
    )
    assert run.stdout.strip().endswith(b"does not expect: PYTHONUTF8=1")


@pytest.mark.parametrize("case", [case for case, (_, fine) in NAMES.items() if not fine])
def test_what_is_no_name_is_told_each_time_a_gallery_database_is_filled(
    case: str, tmp_path: Path, tiny: Encoder
) -> None:
    person(tmp_path / "people", "Ada", "1.jpg")
    other = person(tmp_path / "people", NAMES[case][0], "2.jpg")
    model = Face_Encode_Model(tiny, WholePhoto())
    model.gallery = open_gallery(tmp_path / "people.sqlite", encoder=tiny)
    for _ in range(2):
        report = model.fit_dataset(tmp_path / "people", progress=False)
        assert [row.photo for row in report.left_out] == [str(other / "2.jpg")]
        assert model.gallery.people() == {"Ada": 1}


def test_a_photo_whose_name_is_no_text_is_enrolled_in_a_gallery_database(
    tmp_path: Path, tiny: Encoder
) -> None:
    ada = person(tmp_path / "people", "Ada", "1.jpg")
    try:
        (ada / "1.jpg").rename(ada / "M\udcfcller.jpg")
    except OSError:
        pytest.skip("this file system does not take such a name")
    gallery = DatabaseGallery(tmp_path / "people.sqlite", tiny)
    model = Face_Encode_Model(tiny, WholePhoto())
    model.gallery = gallery
    for _ in range(2):
        assert model.fit_dataset(tmp_path / "people", progress=False).enrolled == 1
        assert [photo.source for photo in gallery.photos()] == [str(ada / "M\\udcfcller.jpg")]


def test_a_person_without_photos_is_remarked_on(
    tmp_path: Path, tiny_model: Face_Encode_Model
) -> None:
    person(tmp_path, "Ada", "1.jpg")
    person(tmp_path, "Bo")
    report = tiny_model.fit_dataset(tmp_path, progress=False)
    assert report.per_person == {"Ada": 1, "Bo": 0}
    assert report.notes == ("Bo: no photo in the folder",)


def test_odd_entries_beside_the_people_are_passed_over(
    tmp_path: Path, tiny_model: Face_Encode_Model
) -> None:
    person(tmp_path, "Ada", "1.jpg")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "list.csv").write_text("Ada")
    (tmp_path / "Ada" / "folder.jpg").mkdir()
    (tmp_path / "Bo").symlink_to("Ada")
    report = tiny_model.fit_dataset(tmp_path, progress=False)
    assert report.per_person == {"Ada": 1, "Bo": 1}
    assert report.left_out == ()
    assert report.others == 2 and "2 other files are no photos" in str(report)


def test_every_file_of_a_folder_is_accounted_for(
    tmp_path: Path, tiny_model: Face_Encode_Model
) -> None:
    ada = person(tmp_path, "Ada", "1.jpg")
    person(tmp_path, "Ada/2023/06", "2.jpg")
    for seed, (name, kind) in enumerate(
        [
            *(("3.jpe", "JPEG"), ("4.pgm", "PPM"), ("5.jp2", "JPEG2000"), ("6.tga", "TGA")),
            *(("7.mpo", "MPO"), ("eight", "PNG"), ("nine.backup", "WEBP"), ("10.pcx", "PCX")),
        ],
        start=3,
    ):
        picture(seed=seed).save(ada / "2023" / name, kind)
    (ada / "2023" / "notes.txt").write_text("tall")
    (ada / "2023" / "broken.jpg").write_text("no photo")
    (ada / "elsewhere").symlink_to(tmp_path)
    picture(seed=99).save(tmp_path / "Bo.jpg")
    (tmp_path / "list.csv").write_text("Ada")
    report = tiny_model.fit_dataset(tmp_path, progress=False)
    assert report.per_person == {"Ada": 10}
    assert {(Path(row.photo).name, row.name, row.reason) for row in report.left_out} == {
        ("broken.jpg", "Ada", "not a photo in a known format"),
        ("Bo.jpg", "", "beside the people's folders: it belongs into that of its person"),
        ("elsewhere", "Ada", "a link to a folder, which is not followed"),
    }
    assert report.others == 2
    assert "10 photos of 1 people enrolled, 3 left out; 2 other files are no photos" in str(report)


def changes_between_listing_and_reading() -> dict[str, tuple[Callable[[Path], None], str]]:
    def becomes_a_folder(path: Path) -> None:
        path.unlink()
        path.mkdir()

    return {
        "deleted": (Path.unlink, "no such file"),
        "emptied": (lambda path: os.truncate(path, 0), "an empty file"),
        "a folder": (becomes_a_folder, "a folder, not a photo"),
        "its folder gone": (lambda path: shutil.rmtree(path.parent), "no such file"),
    }


@pytest.mark.parametrize("case", changes_between_listing_and_reading())
def test_a_photo_that_changes_after_it_was_listed(case: str, tmp_path: Path, tiny: Encoder) -> None:
    change, told = changes_between_listing_and_reading()[case]
    person(tmp_path, "Ada", "1.png")
    person(tmp_path, "Bo", "2.png")
    people = people_in(tmp_path)
    change(tmp_path / "Bo" / "2.png")
    gallery = MemoryGallery(tiny)
    report = enrol_people(people, gallery, WholePhoto(), tiny, progress=False)
    assert report.enrolled == 1
    assert [(row.name, row.reason) for row in report.left_out] == [("Bo", told)]


@dataclass(frozen=True)
class Deleting:
    """A detector during whose work another photo goes away."""

    victim: Path
    name: str = "deleting"

    def detect(self, image: ImageArray) -> list[Face]:
        self.victim.unlink(missing_ok=True)
        return WholePhoto().detect(image)


def test_a_photo_that_goes_away_during_the_enrolment(tmp_path: Path, tiny: Encoder) -> None:
    ada = person(tmp_path, "Ada", "1.png", "2.png")
    model = Face_Encode_Model(tiny, Deleting(ada / "2.png"))
    report = model.fit_dataset(tmp_path, progress=False)
    assert report.enrolled == 1
    assert [(row.photo, row.reason) for row in report.left_out] == [
        (str(ada / "2.png"), "no such file")
    ]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (19, 19), (90, 90)])
def test_a_photo_too_small_or_too_plain_for_a_face_is_a_row(
    width: int, height: int, tmp_path: Path, tiny: Encoder
) -> None:
    person(tmp_path, "Ada")
    Image.new("RGB", (width, height), "grey").save(tmp_path / "Ada" / "1.png")
    # The default detector, in all its steps.
    with pytest.raises(DatasetError, match=r"1\.png: no face found"):
        Face_Encode_Model(tiny).fit_dataset(tmp_path, progress=False)


def test_an_encoder_that_gives_no_numbers_makes_rows(tmp_path: Path, tiny: Encoder) -> None:
    import keras

    model = keras.models.clone_model(tiny.model)
    model.set_weights([weight * float("nan") for weight in model.get_weights()])
    broken = Face_Encode_Model(Encoder(model, tiny.contract), WholePhoto())
    person(tmp_path, "Ada", "1.png")
    with pytest.raises(DatasetError, match="no usable embedding"):
        broken.fit_dataset(tmp_path, progress=False)
