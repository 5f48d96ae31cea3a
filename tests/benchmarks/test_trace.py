from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from benchmarks.trace import Walk, traced, walks
from tests.conftest import EXAMPLES, VERIFY_DATASET

MODULE = """
from walked.detectors.finding import find
from walked.other import helped

class Walker:
    def walk(self):
        return [self.step(number) for number in range(3)]

    def step(self, number):
        return find(number) + helped(number)
"""


def test_functions_are_counted_once_and_what_is_left_out_with_all_that_it_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "walked"
    (package / "detectors").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "walker.py").write_text(MODULE)
    (package / "other.py").write_text(
        "def helped(number):\n    return deeper(number)\n\n"
        "def deeper(number):\n    return number\n\n"
        "def called_by_the_detector():\n    yield from (1, 2)\n"
    )
    (package / "detectors" / "__init__.py").touch()
    (package / "detectors" / "finding.py").write_text(
        "from walked.other import called_by_the_detector\n\n"
        "def find(number):\n    return sum(called_by_the_detector())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    walker = importlib.import_module("walked.walker").Walker()
    walk = traced(walker.walk, package)
    assert walk == Walk(
        (
            ("walker.py", "walk"),
            ("walker.py", "step"),
            ("other.py", "helped"),
            ("other.py", "deeper"),
        ),
        # From outside into the first file, and three times into the second.
        changes_of_file=4,
    )
    assert walk.files == ("walker.py", "other.py")
    last = traced(walker.walk, package, from_last_left_out=True)
    assert set(last.functions) == set(walk.functions)
    assert last.changes_of_file == 1


@pytest.fixture(scope="module")
def both(cache_folder: Path) -> list[Walk]:
    return list(walks(VERIFY_DATASET, EXAMPLES / "ada_mirova.jpg").values())


def test_a_photo_reaches_the_gallery_by_few_functions(both: list[Walk]) -> None:
    enrolling, _ = both
    outside = [function for function in enrolling.functions if function[0][:8] != "gallery/"]
    assert len(outside) <= 35, outside
    assert len({file for file, _ in outside}) <= 10, outside


def test_a_photo_becomes_a_row_by_few_functions(both: list[Walk]) -> None:
    enrolling, _ = both
    assert len(enrolling.functions) <= 57, enrolling.functions
    assert len(enrolling.files) <= 14, enrolling.files


def test_a_face_finds_its_name_by_few_functions(both: list[Walk]) -> None:
    _, matching = both
    assert len(matching.functions) <= 16, matching.functions
    assert len(matching.files) <= 5, matching.files
