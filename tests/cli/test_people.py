"""The commands for people in a gallery, run as programs beside one that has the gallery open."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from face_encode import cli
from face_encode.errors import InputError
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.distances import unit_length
from face_encode.gallery.encryption import KEY_VARIABLE
from face_encode.gallery.opening import open_gallery
from face_encode.gallery.unknown import Sight
from tests.gallery.common import SIXTEEN, like_faces

COMMAND = Path(sys.executable).with_name("face-encode")


def run(
    *arguments: object, code: int = 0, key: str | None = None, folder: Path | None = None
) -> str:
    """Run the installed command in a process of its own; returns what it printed."""
    keys = {} if key is None else {KEY_VARIABLE: key}
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **keys},
        cwd=folder,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[DatabaseGallery]:
    """A gallery that this process has open, as a service has; the commands run beside it."""
    gallery = DatabaseGallery(tmp_path / "people.sqlite", SIXTEEN)
    yield gallery
    gallery.close()


def named(gallery: DatabaseGallery, photo: int) -> str:
    """Whom the gallery names the photo that was enrolled by this row of ``like_faces``."""
    ((match,),) = gallery.search(like_faces(9)[photo - 1 : photo])
    return match.name


def test_one_wrong_photo_is_found_and_moved_to_whom_it_shows(gallery: DatabaseGallery) -> None:
    photos = [PhotoDetails(f"{number}.jpg", crop=b"jpeg") for number in range(1, 6)]
    gallery.add(["Ada", "Ada", "Ada", "Bo", "Bo"], like_faces(5), None, photos)
    listed = json.loads(run("photos", gallery.path, "ada", "--json"))
    assert [(photo["id"], photo["source"]) for photo in listed] == [
        (1, "1.jpg"),
        (2, "2.jpg"),
        (3, "3.jpg"),
    ]
    crops = gallery.path.parent / "crops"
    assert "3.jpg" in run("photos", gallery.path, "ada", "--save-crops", crops)
    assert sorted(path.name for path in crops.iterdir()) == ["1.jpg", "2.jpg", "3.jpg"]
    assert named(gallery, 3) == "Ada"
    assert "Bo has 3" in run("move", gallery.path, 3, "--to", "bo")
    assert named(gallery, 3) == "Bo"
    assert gallery.people() == {"Ada": 2, "Bo": 3}
    assert "undone: change 2, move Ada -1 Bo +1" in run("undo", gallery.path)
    assert named(gallery, 3) == "Ada"
    assert "1 of Ada; 4 remain" in run("remove", gallery.path, "--photo", 3)
    assert gallery.people() == {"Ada": 2, "Bo": 2}
    assert "no such photo" in run("remove", gallery.path, "--photo", 3, code=1)


def test_a_person_gets_a_threshold(gallery: DatabaseGallery) -> None:
    gallery.add(["Ada", "Bo"], like_faces(2))
    assert "threshold" not in run("people", gallery.path)
    told = run("threshold", gallery.path, "ada", 0.95)
    assert told == "ada is named from a similarity of 0.95 on\n"
    assert gallery.thresholds == {"Ada": 0.95}
    shown = run("people", gallery.path)
    assert "own threshold" in shown and "0.95" in shown
    assert json.loads(run("people", gallery.path, "--json")) == [
        {"name": "Ada", "photos": 1, "threshold": 0.95},
        {"name": "Bo", "photos": 1, "threshold": None},
    ]
    history = run("history", gallery.path)
    assert "threshold Ada: none to 0.95" in history
    assert "as everybody" in run("threshold", gallery.path, "ada", "none")
    assert gallery.thresholds == {}
    for wrong in ("high", "1.5", "nan"):
        told = run("threshold", gallery.path, "ada", wrong, code=1)
        assert "within -1..1" in told and wrong in told
    assert "nobody named 'Cleo'" in run("threshold", gallery.path, "Cleo", 0.9, code=1)
    assert "undone: change 3, threshold Ada: 0.95 to none" in run("undo", gallery.path)


def test_two_names_of_one_person_are_merged(gallery: DatabaseGallery) -> None:
    gallery.add(["Serena", "S. Williams"], like_faces(2))
    assert "merge the two" in run("rename", gallery.path, "S. Williams", "serena", code=1)
    assert "2 photos" in run("merge", gallery.path, "s. williams", "serena")
    assert gallery.people() == {"Serena": 2}
    assert named(gallery, 1) == named(gallery, 2) == "Serena"
    # A new form of the same name.
    run("rename", gallery.path, "serena", "SERENA")
    assert gallery.people() == {"SERENA": 2}


def test_jose_in_either_unicode_form_is_one_person(gallery: DatabaseGallery) -> None:
    gallery.add(["José", "Bo"], like_faces(2))
    gallery.add(["Jose\u0301"], like_faces(3)[2:])
    assert gallery.people() == {"José": 2, "Bo": 1}
    assert "2 photos; 1 remain" in run("remove", gallery.path, "jose\u0301")
    assert [named(gallery, photo) for photo in (1, 2, 3)] == ["Bo", "Bo", "Bo"]
    history = json.loads(run("history", gallery.path, "--json"))
    assert [change["action"] for change in history] == ["enrol", "enrol", "remove"]
    assert history[-1]["removed"] == {"José": [1, 3]}
    # Only the program that removed them has the photos still, and it has ended.
    assert "only the program that removed them" in run("undo", gallery.path, code=1)


def test_a_forgotten_person_is_in_no_file(gallery: DatabaseGallery) -> None:
    gallery.add(["Ada", "Bo"], like_faces(2), None, [PhotoDetails("secret-source.jpg")] * 2)
    run("rename", gallery.path, "Ada", "Countess")
    told = run("forget", gallery.path, "countess")
    assert "1 photos" in told and "backups" in told and "exports" in told
    gallery.close()
    for path in gallery.path.parent.iterdir():
        content = path.read_bytes()
        assert b"Ada" not in content and b"Countess" not in content
        assert like_faces(2)[0].tobytes() not in content
    assert "(forgotten)" in run("history", gallery.path)


def test_who_is_forgotten_may_be_among_those_without_a_name(gallery: DatabaseGallery) -> None:
    faces = like_faces(6)
    gallery.add(["Ada", "Ada", "Bo"], faces[:3])
    assert "without a name" not in run("forget", gallery.path, "bo")
    strangers = [faces[4], faces[0], faces[5], faces[3]]
    for number, embedding in enumerate(strangers, start=1):
        details = PhotoDetails(f"camera {number}", crop=b"jpeg")
        gallery.unknown.see(Sight(embedding, details), 0.9999)
    line = next(
        line for line in run("forget", gallery.path, "ada").splitlines() if "most like" in line
    )
    told = re.findall(r"unknown-(\d) \((0\.\d+)\)", line)
    # Two photos of Ada's; the second stranger is as the first of them.
    expected = {
        number: float((unit_length(faces[:2]) @ unit_length(stranger)).mean())
        for number, stranger in enumerate(strangers, start=1)
    }
    assert [int(number) for number, _ in told] == sorted(expected, key=lambda n: -expected[n])[:3]
    assert [float(near) for _, near in told] == [
        pytest.approx(expected[int(number)], abs=6e-4) for number, _ in told
    ]
    assert gallery.people() == {} and gallery.unknown.groups()[1] == 4


def test_keys_are_changed(gallery: DatabaseGallery) -> None:
    gallery.add(["Ada"], like_faces(1))
    gallery.close()
    old, new = "1" * 64, "2" * 64
    assert "there is no key" in run("rekey", gallery.path, code=1)
    run("rekey", gallery.path, key=old)
    assert "is encrypted" in run("people", gallery.path, code=1)
    assert "Ada" in run("people", gallery.path, key=old)
    run("rekey", gallery.path, key=f"{new},{old}")
    assert "cannot be decrypted" in run("people", gallery.path, code=1, key=old)
    assert "Ada" in run("people", gallery.path, key=new)
    assert "is encrypted, and an index" in run("index", gallery.path, code=1, key=new)


def test_exports_and_imports_hold_the_same(gallery: DatabaseGallery) -> None:
    pytest.importorskip("pyarrow")
    gallery.add(["Ada", "Bo"], like_faces(2), ["a" * 64, "b" * 64])
    folder = gallery.path.parent
    for name in ("out.npz", "out.parquet"):
        assert "2 photos" in run("export", gallery.path, "-o", folder / name)
        target = folder / f"{name}.sqlite"
        assert "2 photos of 2 people" in run("import", folder / name, target)
        assert DatabaseGallery(target).people() == {"Ada": 1, "Bo": 1}
    run("export", gallery.path, "-o", folder / "copy.sqlite")
    assert len(DatabaseGallery(folder / "copy.sqlite").changes()) == 1
    run("export", gallery.path, "--person", "ada", "-o", folder / "ada.zip")
    assert "person.json" in zipfile.ZipFile(folder / "ada.zip").namelist()
    for wrong in (["-o", "x.txt"], ["--person", "ada", "-o", "x.npz"], ["-o", "x.zip"]):
        run("export", gallery.path, *wrong, code=1)


def test_folders_of_one_person_are_imported_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("%41da", "Ada"):
        (tmp_path / "crops" / name).mkdir(parents=True)
        (tmp_path / "crops" / name / "1.jpg").touch()
    seen: dict[str, list[Path]] = {}

    def stop(people: dict[str, list[Path]], *_: object, **options: object) -> None:
        seen.update(people)
        raise InputError("seen")

    monkeypatch.setattr("face_encode.cli.transfer.open_models", lambda options: (None, SIXTEEN))
    monkeypatch.setattr("face_encode.pipeline.enrolment.enrol_people", stop)
    assert cli.main(["import", str(tmp_path / "crops"), str(tmp_path / "people.sqlite")]) == 1
    assert {name: len(photos) for name, photos in seen.items()} == {"Ada": 2}


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_people_are_searched_and_paged(
    gallery: DatabaseGallery, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery.add(["Zoë", "Ada Bell", "Bo", "Ada Cole"], like_faces(4))
    path = str(gallery.path)
    assert [person["name"] for person in listed(capsys, "people", path)] == list(gallery.people())
    found = listed(capsys, "people", path, "--search", "ADA")
    assert found == [
        {"name": name, "photos": 1, "threshold": None} for name in ("Ada Bell", "Ada Cole")
    ]
    assert listed(capsys, "people", path, "--search", "zoe\u0308")[0]["name"] == "Zoë"
    page = listed(capsys, "people", path, "--start", "2", "--count", "2")
    assert [person["name"] for person in page] == ["Ada Bell", "Bo"]
    assert cli.main(["people", path, "--count", "1"]) == 0
    assert "1 of 4 people, 4 photos" in capsys.readouterr().out


def test_other_galleries_do_what_they_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    npz = open_gallery(tmp_path / "people.npz", encoder=SIXTEEN)
    npz.add(["Ada", "Bo"], like_faces(2))
    npz.close()
    path = str(tmp_path / "people.npz")
    assert listed(capsys, "people", path) == [
        {"name": "Ada", "photos": 1, "threshold": None},
        {"name": "Bo", "photos": 1, "threshold": None},
    ]
    assert cli.main(["rename", path, "Ada", "Grace"]) == 0
    assert cli.main(["remove", path, "Bo"]) == 0
    assert open_gallery(path).people() == {"Grace": 1}
    for words in (
        ["merge", path, "Ada", "Bo"],
        ["move", path, "1", "--to", "Bo"],
        ["undo", path],
        ["history", path],
        ["forget", path, "Ada"],
        ["photos", path, "Ada"],
        ["remove", path, "--photo", "1"],
        ["reembed", path],
        ["rekey", path],
    ):
        capsys.readouterr()
        assert cli.main(words) == 1
        assert "only a gallery database" in capsys.readouterr().err
    assert cli.main(["remove", path]) == 1
    assert "one of the two" in capsys.readouterr().err
    assert cli.main(["import", path, path]) == 1
    assert cli.main(["export", "dlib_resnet", "--person", "Ada", "-o", "x.onnx"]) == 1


def test_rows_are_changed_without_loading_an_encoder(gallery: DatabaseGallery) -> None:
    gallery.add(["Ada", "Bo"], like_faces(2))
    script = (
        "import sys\nfrom face_encode import cli\n"
        f"path = {str(gallery.path)!r}\n"
        "for words in (['people', path], ['rename', path, 'ada', 'Eve'], ['photos', path, 'eve'],"
        " ['merge', path, 'eve', 'bo'], ['undo', path], ['history', path], ['forget', path, 'bo']):"
        "\n    assert cli.main(words) == 0\n"
        "heavy = {'tensorflow', 'keras', 'dlib', 'onnxruntime', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert gallery.people() == {"Eve": 1}


def test_strangers_are_listed_named_merged_and_dismissed(gallery: DatabaseGallery) -> None:
    faces = like_faces(9)
    for number in (0, 0, 1, 2, 3):
        details = PhotoDetails(f"camera {number}", quality=0.5, crop=f"jpeg {number}".encode())
        gallery.unknown.see(Sight(faces[number], details), 0.9999)
    table = run("unknown", gallery.path)
    assert "unknown-1" in table and "camera 0" in table and "4 without a name" in table
    listed = json.loads(run("unknown", gallery.path, "--json"))
    assert {each["id"]: (each["seen"], len(each["faces"])) for each in listed} == {
        "unknown-1": (2, 2),
        "unknown-2": (1, 1),
        "unknown-3": (1, 1),
        "unknown-4": (1, 1),
    }
    crops = gallery.path.parent / "crops"
    run("unknown", gallery.path, "--save-crops", crops)
    assert (crops / "unknown-2" / "3.jpg").read_bytes() == b"jpeg 1"

    # As the file is called where nobody says otherwise.
    told = run("name", "unknown-1", "Ada", folder=gallery.path.parent)
    assert told == "unknown-1 is Ada: 2 photos enrolled, 2 in all\n"
    assert named(gallery, 1) == "Ada"
    run("unknown", gallery.path, "--merge", "unknown-3", "unknown-2")
    left = run("unknown", gallery.path, "--dismiss", "unknown-4", "--json")
    assert [(each["id"], each["seen"]) for each in json.loads(left)] == [("unknown-2", 2)]
    history = run("history", gallery.path)
    for line in ("name unknown-1 Ada +2", "merge unknown-3 unknown-2", "dismiss unknown-4"):
        assert line in history
    assert "undone: change 1, name unknown-1 Ada +2" in run("undo", gallery.path, 1)
    assert gallery.people() == {} and gallery.unknown.group(1).seen == 2

    name = ("-g", gallery.path)
    assert "no unknown-4" in run("name", "unknown-4", "Bo", *name, code=1)
    assert "unknown-7 or so" in run("name", "Bo", "unknown-4", *name, code=1)
    assert "into itself" in run("unknown", gallery.path, "--merge", *["unknown-2"] * 2, code=1)
