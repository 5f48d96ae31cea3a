"""The pages for those who come from another library are run, on the invented people."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from face_encode import cli
from tests.conftest import REPOSITORY
from tests.documents.reading import blocks, broken_links, commands, run_python

PAGES = sorted((REPOSITORY / "docs" / "coming_from").glob("*.md"))
INDEX = REPOSITORY / "docs" / "coming_from" / "README.md"


@pytest.mark.parametrize("page", [page for page in PAGES if page != INDEX], ids=lambda p: p.stem)
def test_the_code_runs(page: Path, clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert blocks(page, "python")
    run_python(page)
    for line in commands(page):
        assert cli.main(shlex.split(line)[1:]) == 0, f"{line}\n{capsys.readouterr().err}"


def test_every_page_is_in_the_index_and_every_link_leads_somewhere() -> None:
    assert len(PAGES) >= 7
    text = INDEX.read_text(encoding="utf-8")
    for page in PAGES:
        assert broken_links(page) == []
        assert page == INDEX or f"({page.name})" in text
