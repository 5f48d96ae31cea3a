from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face_encode.errors import InputError
from face_encode.evaluation.contact_sheet import (
    COLOURS,
    check_sheet_path,
    verdict,
    write_contact_sheet,
)
from face_encode.evaluation.faces import EmbeddedFaces
from face_encode.evaluation.people import PeopleResult, evaluate_identification
from face_encode.types import Box, Face
from tests.conftest import EXAMPLES, VERIFY_DATASET

PHOTO = next(iter(sorted(VERIFY_DATASET.glob("*/*.jpg"))))


def measured(true_names: list[str], similarities: Any, photo: Path = PHOTO) -> PeopleResult:
    """A result with these similarities to Ada and Bo, all probes with one photo."""
    nearness = np.array(similarities, np.float32)
    people, count = ("Ada Lovelace", "Bo"), len(true_names)
    found = [bool(np.isfinite(row).all()) for row in nearness]
    face = Face(Box(60, 60, 120, 120), 1.0)
    return PeopleResult(
        identification=evaluate_identification(nearness, people, true_names, 0.9),
        gallery_names=people,
        true_names=tuple(true_names),
        similarities=nearness,
        nearest_photo=np.zeros(count, np.intp),
        enrolled=("ada.jpg", "bo.jpg"),
        probes=EmbeddedFaces(
            photos=(str(photo),) * count,
            embeddings=np.zeros((count, 4), np.float32),
            faces=tuple(face if each else None for each in found),
            sharpness=np.zeros(count),
            errors=tuple(None if each else "no face found" for each in found),
            seconds_a_photo=0.01,
        ),
        left_out=(),
        encoder="one",
        detector="eyes",
    )


NAMES = ["Ada Lovelace", "Bo", "Bo", "王小明 with a very long name indeed", "Cy", "Ada Lovelace"]
NEARNESS = [(0.95, 0.8), (0.92, 0.91), (0.8, 0.89), (0.2, 0.97), (0.1, 0.2), (np.nan, np.nan)]


KINDS = ["wrong"] * 2 + ["unnamed"] * 3 + ["right"]


def test_mistakes_come_first_and_right_names_last() -> None:
    listed = measured(NAMES, NEARNESS).answers()
    assert [(each.row, verdict(each)) for each in listed] == [
        (3, "→ Bo"),
        (1, "→ Ada Lovelace"),
        (2, "unknown"),
        (4, "unknown, rightly"),
        (5, "no face found"),
        (0, "✓"),
    ]
    assert [each.kind for each in listed] == KINDS


def test_the_sheet_shows_every_face_in_its_frame(tmp_path: Path) -> None:
    (page,) = write_contact_sheet(measured(NAMES, NEARNESS), tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(page).convert("RGB"))
    # Frames of 152 pixels, 4 wide; of one cell's rows, the line just inside the frame's top.
    line = pixels[64 + 8 + 1]
    for place, kind in enumerate(KINDS):
        cell = line[8 + place * 160 : 8 + place * 160 + 152]
        assert (cell == COLOURS[kind]).all()
    # Photos are inside the frames, and texts below them.
    inside = pixels[80:200, 16:150]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) > 100
    assert (pixels[64 + 8 + 155 : 64 + 8 + 205, 8:160] != 255).any()


def test_many_faces_take_several_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("face_encode.evaluation.contact_sheet._PER_PAGE", 4)
    pages = write_contact_sheet(measured(NAMES, NEARNESS), tmp_path / "sheet.jpg")
    assert [page.name for page in pages] == ["sheet.jpg", "sheet-2.jpg"]
    assert sorted(tmp_path.iterdir()) == sorted(pages)


def test_a_photo_that_is_gone_leaves_an_empty_frame(tmp_path: Path) -> None:
    result = measured(NAMES, NEARNESS, tmp_path / "gone.jpg")
    assert write_contact_sheet(result, tmp_path / "sheet.png")[0].is_file()


def test_a_wrong_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.png"):
        check_sheet_path(tmp_path / "sheet.html")
    with pytest.raises(InputError, match="folder does not exist"):
        check_sheet_path(tmp_path / "none" / "sheet.png")


def test_the_command_draws_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from face_encode import cli

    probes = tmp_path / "probes"
    for person in sorted(VERIFY_DATASET.iterdir())[:2]:
        (probes / person.name).mkdir(parents=True)
        (probes / person.name / "1.jpg").symlink_to(sorted(person.glob("*.jpg"))[0])
    (probes / "A Stranger").mkdir()
    (probes / "A Stranger" / "1.jpg").symlink_to(EXAMPLES / "stranger.jpg")
    sheet = tmp_path / "sheet.png"
    command = ["evaluate", "people", VERIFY_DATASET, probes, "--contact-sheet", sheet]
    assert cli.main([str(word) for word in command]) == 0
    printed = capsys.readouterr().out
    assert "3 of 3 photos answered right (100.0 %" in printed
    assert f"contact sheet: {sheet}" in printed
    with Image.open(sheet) as drawn:
        assert drawn.width == 6 * 160 + 8


def test_no_page_replaces_another_programs_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from face_encode import cli

    monkeypatch.setattr("face_encode.evaluation.contact_sheet._PER_PAGE", 10)
    (tmp_path / "sheet-3.png").write_text("mine")
    command = ["evaluate", "people", str(VERIFY_DATASET), str(VERIFY_DATASET)]
    assert cli.main([*command, "--contact-sheet", str(tmp_path / "sheet.png")]) == 1
    assert "sheet-3.png exists and is no picture" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["sheet-3.png"]
