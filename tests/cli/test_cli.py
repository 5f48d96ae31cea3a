from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face_encode import cli
from face_encode.detectors.base import SMALLEST_SIDE
from face_encode.functions import find
from face_encode.gallery.memory import MemoryGallery
from face_encode.photos.reading import read_image
from face_encode.version import __version__
from tests.conftest import EXAMPLES, REPOSITORY, VERIFY_DATASET


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gallery") / "people.npz"
    assert cli.main(["enroll", str(VERIFY_DATASET), "-g", str(path)]) == 0
    return path


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """Run a command and read standard output, which has to be JSON and nothing else."""
    capsys.readouterr()
    assert cli.main(arguments) == code
    return json.loads(capsys.readouterr().out)


def test_matching_a_gallery(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = [str(EXAMPLES / "group.jpg"), str(EXAMPLES / "stranger.jpg")]
    group, stranger = run_json(capsys, "match", str(gallery), *photos, "--json")
    assert [group["photo"], stranger["photo"]] == photos
    assert set(group) == {"photo", "faces", "error", "notes"}
    assert group["error"] is None
    assert len(group["faces"]) >= 3
    for face in group["faces"]:
        judged = {"rotation", "quality", "quality_reason"}
        assert set(face) == {"name", "similarity", "is_match", "bounding_box"} | judged
    assert [face["is_match"] for face in stranger["faces"]] == [False]


def test_matching_a_folder_gives_the_same(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(EXAMPLES / "group.jpg"), "--json", "--max-faces", "2"]
    by_gallery = run_json(capsys, "match", str(gallery), *arguments)
    by_folder = run_json(capsys, "match", str(VERIFY_DATASET), *arguments)
    assert len(by_gallery[0]["faces"]) == 2
    for one, other in zip(by_gallery[0]["faces"], by_folder[0]["faces"], strict=True):
        assert one["similarity"] == pytest.approx(other.pop("similarity"), abs=1e-5)
        assert {key: one[key] for key in other} == other


def test_a_table_for_people(gallery: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wall = gallery.with_name("wall.png")
    Image.new("RGB", (99, 99), "grey").save(wall)
    capsys.readouterr()
    assert cli.main(["match", str(gallery), str(EXAMPLES / "stranger.jpg"), str(wall)]) == 0
    captured = capsys.readouterr()
    assert "unknown (nearest:" in captured.out
    assert "no face found" in captured.out
    assert "Matching" in captured.err


def test_a_broken_photo_is_a_row_and_the_others_are_matched(
    gallery: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_text("no photo")
    photos = [str(broken), str(EXAMPLES / "stranger.jpg")]
    first, second = run_json(capsys, "match", str(gallery), *photos, "--json")
    assert first == {
        "photo": str(broken),
        "faces": [],
        "error": "not a photo in a known format",
        "notes": [],
    }
    assert len(second["faces"]) == 1
    (only,) = run_json(capsys, "match", str(gallery), str(broken), "--json", code=1)
    assert only == first
    assert cli.main(["match", str(gallery), str(broken)]) == 1
    captured = capsys.readouterr()
    assert "not a photo" in captured.out
    assert captured.err.strip().endswith("face-encode: none of the 1 photos can be read")


def test_what_lies_beside_the_people_is_told(
    tmp_path: Path, tiny_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = tmp_path / "people"
    for name in ("Ada_Mirova", "Bruno_Castell"):
        shutil.copytree(VERIFY_DATASET / name, people / name)
    stray = people / "stray.jpg"
    shutil.copy(EXAMPLES / "stranger.jpg", stray)
    model = ["--model", str(tiny_file), "--detector", "dlib_hog"]
    told = f"{stray}: beside the people's folders: it belongs into that of its person"

    target = str(tmp_path / "people.sqlite")
    for command in (
        ["check", str(people)],
        ["evaluate", "people", str(people), str(VERIFY_DATASET)],
        ["evaluate", "people", str(VERIFY_DATASET), str(people)],
        ["import", str(people), target, "--any-quality"],
    ):
        assert cli.main([*command, *model]) == 0
        assert told in " ".join(capsys.readouterr().out.split())
        assert cli.main([*command, *model, "--json"]) == 0
        assert str(stray) in capsys.readouterr().out
    with pytest.warns(UserWarning, match=rf"1 photos .*left out; the first: {told}"):
        find(EXAMPLES / "ada_mirova.jpg", people, encoder=tiny_file, detector="dlib_hog")


def test_annotated_photos_are_written(
    gallery: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere" / "group.jpg"
    other.parent.mkdir()
    shutil.copy(EXAMPLES / "group.jpg", other)
    out = tmp_path / "new" / "annotated"
    photos = [str(EXAMPLES / "group.jpg"), str(other)]
    assert cli.main(["match", str(gallery), *photos, "--annotate", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["group-2.png", "group.png"]
    drawn, original = read_image(out / "group.png"), read_image(EXAMPLES / "group.jpg")
    assert drawn.shape == original.shape
    assert 0.001 < (drawn != original).any(axis=2).mean() < 0.5


def test_annotating_into_a_file_is_told(
    gallery: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    photo = str(EXAMPLES / "stranger.jpg")
    assert cli.main(["match", str(gallery), photo, "--annotate", str(tmp_path / "file")]) == 1
    assert "cannot write to" in capsys.readouterr().err


def test_an_interrupted_enrolment_goes_on_beside_its_gallery(
    tmp_path: Path,
    people_photos: list[Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(gallery: MemoryGallery) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "people.npz"
    arguments = ["enroll", str(VERIFY_DATASET), "-g", str(target), "--batch-size", "10", "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(MemoryGallery, "close", interrupted)
        assert cli.main(arguments) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["people.npz.unfinished"]
    assert cli.main([*arguments, "--detector", "haar"]) == 1
    assert "other settings" in capsys.readouterr().err
    report = run_json(capsys, *arguments)
    assert report["resumed"] == report["enrolled"] == len(people_photos)
    assert [path.name for path in tmp_path.iterdir()] == ["people.npz"]


def test_enrolling_again_encodes_only_what_changed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, people_photos: list[Path]
) -> None:
    people = tmp_path / "people"
    shutil.copytree(VERIFY_DATASET, people)
    target = str(tmp_path / "people.npz")
    first = run_json(capsys, "enroll", str(people), "-g", target, "--json")
    assert first["enrolled"] == len(people_photos)
    assert (first["reused"], first["left_out"]) == (0, [])
    names = sorted(first["per_person"])
    shutil.rmtree(people / names[0])
    second = run_json(capsys, "enroll", str(people), "-g", target, "--json")
    assert second["reused"] == second["enrolled"] < first["enrolled"]
    assert second["no_longer_enrolled"] == [names[0]]

    other = tmp_path / "other" / "Somebody New"
    other.mkdir(parents=True)
    shutil.copy(people_photos[0], other)
    third = run_json(capsys, "enroll", str(other.parent), "-g", target, "--json", "--add")
    assert third["no_longer_enrolled"] == []
    assert cli.main(["remove", target, "Somebody New"]) == 0
    assert "1 photos" in capsys.readouterr().out
    assert cli.main(["remove", target, "Somebody New"]) == 1
    with np.load(target, allow_pickle=False) as stored:
        assert sorted(stored["people"].tobytes().decode().splitlines()) == names[1:]


def test_an_indexed_gallery_gives_the_same_names(
    gallery: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, people_photos: list[Path]
) -> None:
    target = str(shutil.copy(gallery, tmp_path / "people.npz"))
    photos = [str(photo) for photo in people_photos[:6]]
    plain = run_json(capsys, "match", target, *photos, "--json")
    assert cli.main(["index", target]) == 0
    assert "people indexed" in capsys.readouterr().out
    assert run_json(capsys, "match", target, *photos, "--json") == plain
    assert cli.main(["index", target, "--approximate"]) == 0
    assert list(tmp_path.glob("people-*.faiss"))
    assert run_json(capsys, "match", target, *photos, "--json", "--approximate") == plain
    capsys.readouterr()
    assert cli.main(["match", str(VERIFY_DATASET), photos[0], "--approximate"]) == 1
    assert "an approximate index is of a gallery's file" in capsys.readouterr().err


def test_a_folder_of_rubbish_leaves_the_gallery(
    gallery: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = gallery.read_bytes()
    (tmp_path / "Ada").mkdir()
    (tmp_path / "Ada" / "1.jpg").write_bytes(b"")
    assert cli.main(["enroll", str(tmp_path), "-g", str(gallery)]) == 1
    assert "none of the 1 photos" in capsys.readouterr().err
    assert gallery.read_bytes() == before


def test_verifying_two_photos(
    people_photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    one, same, other = people_photos[0], people_photos[1], people_photos[-1]
    result = run_json(capsys, "verify", str(one), str(same), "--json")
    assert result["is_match"] is True
    assert result["similarity"] >= result["threshold"]
    assert run_json(capsys, "verify", str(one), str(other), "--json")["is_match"] is False
    assert cli.main(["verify", str(one), str(other)]) == 0
    assert "different people" in capsys.readouterr().out


def test_verifying_against_a_group_compares_every_face(
    people_photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    group = EXAMPLES / "group.jpg"
    told = run_json(capsys, "match", str(VERIFY_DATASET), str(group), "--json")
    names = [face["name"] for face in told[0]["faces"]]
    alone = next(photo for photo in people_photos if photo.parent.name == names[-1])
    assert names[0] != names[-1]
    result = run_json(capsys, "verify", str(alone), str(group), "--json")
    assert result["is_match"] is True
    assert result["faces"] == [1, len(names)]
    assert result["compared"][0] == 0 and names[result["compared"][1]] == names[-1]
    assert cli.main(["verify", str(group), str(alone)]) == 0
    out = capsys.readouterr().out
    assert "the same person" in out
    assert f"{group}: face {result['compared'][1] + 1} of {len(names)} is the nearest" in out


def test_verifying_needs_a_face_in_each(
    people_photos: list[Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    wall = tmp_path / "wall.png"
    Image.new("RGB", (99, 99), "grey").save(wall)
    assert cli.main(["verify", str(people_photos[0]), str(wall)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.strip() == f"face-encode: {wall}: no face found"


def test_the_models_are_listed_with_their_licences(capsys: pytest.CaptureFixture[str]) -> None:
    listed = run_json(capsys, "models", "--json")
    names = {encoder["name"] for encoder in listed["encoders"]}
    assert names >= {"dlib_resnet", "vgg_embedding"}
    assert all(encoder["licence"] for encoder in listed["encoders"])
    assert [encoder["name"] for encoder in listed["encoders"] if encoder["default"]]
    assert {detector["name"] for detector in listed["detectors"]} >= {"dlib", "dlib_hog"}
    present = {encoder["name"]: encoder["present"] for encoder in listed["encoders"]}
    assert present["dlib_resnet"] and present["vgg_embedding"] and not present["facenet_casia"]
    assert cli.main(["models"]) == 0
    table = capsys.readouterr().out
    assert "public domain" in table
    assert "20180408-102900-casia-webface.pt" in table


DETECTING = [
    ["enroll", "PEOPLE", "-g", "OUT.npz"],
    ["match", "PEOPLE", "PHOTO"],
    ["verify", "PHOTO", "PHOTO"],
    ["evaluate", "pairs", "--photos", "PEOPLE", "--pairs", "PAIRS"],
    ["evaluate", "people", "PEOPLE", "PEOPLE"],
    ["check", "PEOPLE"],
    ["cluster", "PEOPLE", "-o", "OUT"],
    ["train", "head", "PEOPLE", "-o", "OUT.keras"],
    ["train", "distill", "PEOPLE", "-o", "OUT.keras"],
]


@pytest.mark.parametrize("arguments", DETECTING, ids=lambda words: " ".join(words[:2]))
def test_every_command_that_looks_for_faces_takes_a_detector(
    arguments: list[str], tmp_path: Path, gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.csv"
    photo = next(VERIFY_DATASET.glob("*/*.jpg"))
    pairs.write_text(f"photo_a,photo_b,same\n{photo},{photo},1\n", encoding="utf-8")
    places = {"PEOPLE": VERIFY_DATASET, "PHOTO": photo, "PAIRS": pairs, "GALLERY": gallery}
    places |= {name: tmp_path / name for name in ("OUT", "OUT.npz", "OUT.keras")}
    words = [str(places.get(word, word)) for word in arguments]
    capsys.readouterr()
    assert cli.main([*words, "--detector", "eyes"]) == 1
    assert "a detector is one of" in capsys.readouterr().err.splitlines()[-1]


def test_people_found_by_one_detector_are_matched_by_another(
    tmp_path: Path, people_photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "people.npz")
    assert cli.main(["enroll", str(VERIFY_DATASET), "-g", path, "--detector", "haar"]) == 0
    photo = people_photos[0]
    for detector in ("haar", "dlib_hog"):
        (result,) = run_json(capsys, "match", path, str(photo), "--detector", detector, "--json")
        (face,) = result["faces"]
        assert face["name"] == photo.parent.name
        assert face["similarity"] > 0.98


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["enroll", "no-such-folder", "-g", "x.npz"], "no such folder"),
        (["enroll", str(VERIFY_DATASET), "-g", "x.pkl"], "path of a .sqlite file"),
        (["match", "no-such-gallery.npz", "x.jpg"], "no such gallery"),
        (["match", str(VERIFY_DATASET), "x.jpg", "--model", "nonsense"], "nonsense"),
        (["match", str(VERIFY_DATASET), "x.jpg", "--detector", "eyes"], "'eyes'"),
        (["verify", "none.jpg", "none.jpg"], "no such file"),
        (["verify", "a.jpg", "b.jpg", "--threshold", "7"], "-1..1"),
        (
            ["models", "get", "nothing"],
            "those of offline, fast, accurate, dlib_resnet, dlib_resnet_single,",
        ),
    ],
)
def test_an_error_of_ours_is_one_line_and_code_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("face-encode: ")
    assert message in last


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["unknown"],
        ["enroll", "folder"],
        ["match", "folder"],
        ["match", "folder", "photo", "--max-faces", "0"],
        ["match", "folder", "photo", "--max-faces", "two"],
    ],
)
def test_wrong_usage_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: face-encode" in capsys.readouterr().err


@pytest.mark.parametrize("side", ["-5", "0", "19", "19.5", "x"])
def test_the_smallest_face_has_one_bound(side: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["match", "folder", "photo", f"--min-face={side}"])
    expected = f"argument --min-face: a whole number, at least {SMALLEST_SIDE}, not {side!r}"
    assert expected in capsys.readouterr().err


def test_the_installed_command_writes_json_alone_to_standard_output(gallery: Path) -> None:
    command = Path(sys.executable).with_name("face-encode")
    done = subprocess.run(
        [command, "match", gallery, EXAMPLES / "stranger.jpg", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "40"},
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert len(result["faces"]) == 1
    # The bar, which a narrow terminal breaks into lines, and none of TensorFlow's greetings.
    assert "Matching" in done.stderr
    assert not re.search("tensorflow|onednn|cuda|warning", done.stderr, re.IGNORECASE)


def test_help_and_version_are_instant_and_load_nothing_heavy() -> None:
    script = (
        "import sys\nfrom face_encode import cli\n"
        "try:\n    cli.main(['--help'])\n"
        "except SystemExit as stopped:\n    assert not stopped.code\n"
        "heavy = {'tensorflow', 'keras', 'dlib', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("enroll", "match", "verify", "models"):
        assert command in done.stdout


@pytest.mark.parametrize("module", ["face_encode", "face_encode.cli"])
def test_the_package_runs_as_the_command(module: str) -> None:
    words = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"face-encode {__version__}\n"), done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize(
    ("output", "code", "told"),
    [(">/dev/full", 1, "standard output cannot be written: no space left"), (">&-", 0, "")],
)
def test_output_that_cannot_be_written_is_told_in_a_line(
    output: str, code: int, told: str, options: list[str]
) -> None:
    words = [sys.executable, "-m", "face_encode.cli", "models", *options]
    done = subprocess.run(
        f"{shlex.join(words)} {output}",
        shell=True,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=300,
    )
    assert (done.returncode, done.stderr.count("\n")) == (code, bool(told)), done.stderr
    assert told in done.stderr
