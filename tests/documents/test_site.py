"""The documentation site is built strictly: a broken link or reference is an error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import face_encode
from tests.conftest import REPOSITORY

REFERENCE = REPOSITORY / "docs" / "reference" / "face_encode.md"


def test_the_reference_has_every_public_name_once() -> None:
    shown = re.findall(r"^::: face_encode\.(\w+)$", REFERENCE.read_text(encoding="utf-8"), re.M)
    assert sorted(shown) == sorted(set(face_encode.__all__) - {"__version__"})


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mkdocs") is None, reason="mkdocs is not installed")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    assert "not included in the" not in done.stderr
    start = (tmp_path / "index.html").read_text(encoding="utf-8")
    # Links between files of the repository lead to pages of the site.
    assert 'href="engines/#how-fast"' in start
    assert 'href="project/benchmarks/ACCURACY/"' in start
    assert (tmp_path / "project" / "examples" / "group_annotated.png").is_file()
    reference = (tmp_path / "reference" / "face_encode" / "index.html").read_text(encoding="utf-8")
    for name in set(face_encode.__all__) - {"__version__"}:
        assert f'id="face_encode.{name}"' in reference, name
