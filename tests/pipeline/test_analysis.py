from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face_encode.attributes.answers import EXPRESSIONS, read_answers
from face_encode.attributes.network import AttributeNetwork, load_attributes
from face_encode.cli import main
from face_encode.detectors.alignment import crop_faces
from face_encode.errors import DatasetError, EmbeddingFileError, InputError
from face_encode.functions import analyze
from face_encode.liveness.judging import LivenessJudge
from face_encode.photos.reading import read_image
from face_encode.pipeline.analysis import analyze_folder
from face_encode.pipeline.checkpoint import Run
from face_encode.pipeline.folder import EmbeddingReport
from tests.conftest import EXAMPLES
from tests.tiny_parts import Halves, save_tiny_attributes, write_photos

KEYS = {
    "bounding_box",
    "age",
    "age_interval",
    "gender",
    "gender_probabilities",
    "expression",
    "expression_probabilities",
    "quality",
    "quality_reason",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> AttributeNetwork:
    path = save_tiny_attributes(tmp_path_factory.mktemp("attributes") / "tiny.keras")
    return load_attributes(path, "onnx")


def test_a_photos_faces_are_told_one_by_one(folder: Path, network: AttributeNetwork) -> None:
    path = folder / "day 0/000.png"
    (photo,) = analyze(path, attributes=network, detector=Halves())
    assert (photo["photo"], photo["error"], photo["notes"]) == (str(path), None, [])
    assert [set(face) for face in photo["faces"]] == [KEYS, KEYS]
    assert photo["faces"][1]["bounding_box"] == {"x": 20, "y": 0, "width": 20, "height": 16}
    assert json.loads(json.dumps(photo)) == photo
    # Worked out apart from the rest.
    image = read_image(path)
    crops = crop_faces(image, Halves().detect(image), network.encoder.contract.crop)
    expected = read_answers(network.encoder.encode(crops), network.calibration, [None, None])
    for face, shown in zip(photo["faces"], expected, strict=True):
        assert face["age"] == pytest.approx(shown.age, abs=0.11)
        assert face["expression_probabilities"] == pytest.approx(
            shown.expression_probabilities, abs=2e-4
        )
        assert face["age_interval"][0] <= face["age"] <= face["age_interval"][1]
        assert sum(face["expression_probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_photos_in_any_form_keep_their_places(folder: Path, network: AttributeNetwork) -> None:
    pixels = read_image(folder / "day 0/001.png")
    photos = analyze(
        [folder / "broken.jpg", pixels, str(folder / "black.png"), b"no photo"],
        attributes=network,
        detector=Halves(),
        progress=False,
    )
    assert [len(photo["faces"]) for photo in photos] == [0, 1, 0, 0]
    assert photos[1]["photo"] == "array"
    # A photo without a face is a fine photo.
    assert [photo["error"] is None for photo in photos] == [False, True, True, False]


@dataclass(frozen=True)
class Noting(Halves):
    def notes(self, width: int, height: int) -> tuple[str, ...]:
        return (f"looked at {width} x {height}",)


def test_notes_on_a_photo_are_told(
    folder: Path,
    network: AttributeNetwork,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes((EXAMPLES / "ada_mirova.jpg").read_bytes()[:-150])
    whole, lacking = analyze(
        [folder / "day 0/001.png", cut], attributes=network, detector=Noting(), progress=False
    )
    assert whole["notes"] == ["looked at 20 x 16"]
    end, size = lacking["notes"]
    assert "the end of the file is missing" in end and size == "looked at 385 x 468"
    assert main(["analyze", str(cut), "--detector", "dlib_hog"]) == 0
    assert f"note: {cut}: {end}" in capsys.readouterr().out


def test_a_folder_is_taken_with_those_below(folder: Path, network: AttributeNetwork) -> None:
    photos = analyze(folder, attributes=network, detector=Halves(), progress=False, max_faces=1)
    assert len(photos) == 152
    assert str(folder / "day 0/000.png") in [photo["photo"] for photo in photos]
    assert max(len(photo["faces"]) for photo in photos) == 1


def test_what_is_no_photo_is_refused(tmp_path: Path, network: AttributeNetwork) -> None:
    with pytest.raises(InputError, match="Received: int"):
        analyze(3, attributes=network)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_faces"):
        analyze("photo.jpg", attributes=network, max_faces=0)
    with pytest.raises(DatasetError, match="no photo in it or below it"):
        analyze(tmp_path, attributes=network)
    with pytest.raises(DatasetError, match="no photo in it or below it"):
        analyze([tmp_path], attributes=network)
    (photo,) = analyze(tmp_path / "missing.jpg", attributes=network, detector=Halves())
    assert photo["faces"] == [] and photo["error"]


def test_an_empty_folder_among_others_is_a_row(
    folder: Path, network: AttributeNetwork, tmp_path: Path
) -> None:
    given = [folder / "day 0/001.png", tmp_path, folder / "day 0/002.png"]
    photos = analyze(given, attributes=network, detector=Halves(), progress=False)
    assert [photo["photo"] for photo in photos] == list(map(str, given))
    assert [len(photo["faces"]) for photo in photos] == [1, 0, 1]
    assert photos[1]["error"] == "no photo in it or below it"


@pytest.mark.parametrize("name", ["max_faces", "workers", "batch_size"])
def test_a_count_is_refused_before_a_bar_is_drawn(
    folder: Path,
    network: AttributeNetwork,
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts: dict[str, Any] = {name: 0}
    with pytest.raises(InputError, match=name):
        analyze(folder, attributes=network, detector=Halves(), **counts)
    output = tmp_path / "table.parquet"
    with pytest.raises(InputError, match=name):
        analyze_folder(folder, output, Halves(), network, **counts)
    assert capsys.readouterr().err == "" and not list(tmp_path.iterdir())


def table(
    folder: Path, output: Path, network: AttributeNetwork, judge: LivenessJudge | None = None
) -> EmbeddingReport:
    return analyze_folder(folder, output, Halves(), network, workers=1, progress=False, judge=judge)


def test_a_table_has_a_row_a_face_and_one_for_every_other_photo(
    folder: Path, network: AttributeNetwork, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    report = table(folder, tmp_path / "faces.parquet", network)
    assert str(report) == "165 faces in 152 photos analyzed, 2 left out"
    rows = parquet.read_table(tmp_path / "faces.parquet").to_pylist()
    assert len(rows) == 167
    by_name = {row["photo"]: row for row in rows}
    assert by_name["black.png"]["error"] == "no face found"
    (photo,) = analyze(folder / "day 0/001.png", attributes=network, detector=Halves())
    row, face = by_name["day 0/001.png"], photo["faces"][0]
    assert row["age"] == pytest.approx(face["age"], abs=0.11)
    assert (row["age_low"], row["age_high"]) == pytest.approx(face["age_interval"], abs=0.11)
    assert [row[name] for name in EXPRESSIONS] == pytest.approx(
        list(face["expression_probabilities"].values()), abs=2e-4
    )
    assert [path.name for path in tmp_path.iterdir()] == ["faces.parquet"]


def test_a_table_has_the_notes_on_each_photo(network: AttributeNetwork, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    photos, output = tmp_path / "photos", tmp_path / "faces.parquet"
    photos.mkdir()
    shutil.copy(EXAMPLES / "group.jpg", photos / "whole.jpg")
    (photos / "cut.jpg").write_bytes((EXAMPLES / "ada_mirova.jpg").read_bytes()[:-150])
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(photos / "none.png")
    report = analyze_folder(photos, output, Noting(), network, workers=1, progress=False)
    rows = parquet.read_table(output).to_pylist()
    told = {(row["photo"], tuple(row["notes"])) for row in rows}
    results = analyze(photos, attributes=network, detector=Noting(), progress=False)
    assert told == {(Path(each["photo"]).name, tuple(each["notes"])) for each in results}
    assert set(report.notes) == {f"{name}: {note}" for name, notes in told for note in notes}
    assert len(rows) > len(told) == 3 and all(row["notes"] for row in rows)


@pytest.mark.parametrize("is_judged", [False, True])
def test_an_interrupted_run_is_resumed_and_ends_with_the_same_table(
    folder: Path,
    network: AttributeNetwork,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    drawn_judge: LivenessJudge,
    is_judged: bool,
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    judge = drawn_judge if is_judged else None
    table(folder, tmp_path / "whole.parquet", network, judge)
    keep, kept = Run.keep, list[int]()

    def stopping(run: Run, batch: list[tuple[int, object]]) -> None:
        if kept:
            raise KeyboardInterrupt
        kept.append(len(batch))
        keep(run, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Run, "keep", stopping)
        with pytest.raises(KeyboardInterrupt):
            table(folder, tmp_path / "faces.parquet", network, judge)
    assert not (tmp_path / "faces.parquet").exists()
    with pytest.raises(EmbeddingFileError, match=r"other settings: .*liveness_threshold"):
        table(folder, tmp_path / "faces.parquet", network, None if is_judged else drawn_judge)
    report = table(folder, tmp_path / "faces.parquet", network, judge)
    assert report.resumed == kept[0] > 0
    one, other = (parquet.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "faces"))
    assert one.equals(other)
    assert {"liveness", "is_live"} <= set(one.column_names) or not is_judged
    for row in one.to_pylist() if is_judged else ():
        is_face = row["face"] is not None
        assert row["is_live"] is (row["liveness"] >= drawn_judge.threshold if is_face else None)


def test_a_table_of_another_kind_is_refused(
    folder: Path, network: AttributeNetwork, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(EmbeddingFileError, match=r"ends in \.parquet"):
        table(folder, tmp_path / "faces.csv", network)


def test_the_command_prints_what_the_function_returns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(EXAMPLES / "group.jpg")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "black.png")
    assert main(["analyze", photo, str(tmp_path), "--json"]) == 0
    group, black = json.loads(capsys.readouterr().out)
    assert (group["photo"], black["faces"], black["error"]) == (photo, [], None)
    areas = [face["bounding_box"]["width"] for face in group["faces"]]
    assert len(areas) == 5 and areas == sorted(areas, reverse=True)
    (same,) = analyze(photo)
    assert [face["bounding_box"] for face in same["faces"]] == [
        face["bounding_box"] for face in group["faces"]
    ]
    for face in group["faces"]:
        assert set(face) == KEYS
        assert face["gender"] in ("woman", "man", "uncertain")
        assert face["expression"] in EXPRESSIONS


def test_the_command_prints_a_table_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = str(EXAMPLES / "ada_mirova.jpg")
    assert main(["analyze", photo, "--annotate", str(tmp_path / "drawn")]) == 0
    printed = capsys.readouterr().out
    assert "expression" in printed and "%" in printed
    drawn = read_image(tmp_path / "drawn" / "ada_mirova.png")
    assert (drawn != read_image(photo)).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no such photo.jpg"], "none of the 1 photos can be read"),
        (["a.jpg", "-o", "table.parquet"], "a table is written of one folder"),
        (["a.jpg", "--restart"], "--restart is for a table"),
        (["a.jpg", "--attributes", "nobody"], "'face_attributes' or the path"),
    ],
)
def test_the_command_says_what_is_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyze", *arguments]) == 1
    assert message in capsys.readouterr().err
