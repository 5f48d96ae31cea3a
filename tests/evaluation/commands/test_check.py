from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter


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


def test_a_clean_folder_has_nothing_to_show(
    run: Any, link: Any, several: list[Path], tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    run("check", link(tmp_path / "people", several[:2], 0, 2), "--report", report)
    assert "Nothing was noticed." in report.read_text(encoding="utf-8")
