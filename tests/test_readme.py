"""The README is run: its Python in one go, and its commands on the invented people."""

from __future__ import annotations

import glob
import re
import shlex
import shutil
from pathlib import Path

import pytest

from face_encode import cli
from tests.conftest import EXAMPLES, REPOSITORY, VERIFY_DATASET

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has in front of them: a clone, and photos of their own."""
    (tmp_path / "verify_dataset").symlink_to(VERIFY_DATASET)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    shutil.copytree(VERIFY_DATASET, tmp_path / "people")
    first, *_ = sorted((tmp_path / "people").iterdir())
    first.rename(first.with_name("Ada Lovelace"))
    shutil.copytree(EXAMPLES, tmp_path / "party", ignore=shutil.ignore_patterns("*.py", "*.npz"))
    passport, selfie, *_ = sorted((tmp_path / "people" / "Ada Lovelace").iterdir())
    shutil.copy(passport, tmp_path / "passport.jpg")
    shutil.copy(selfie, tmp_path / "selfie.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_runs(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks("python")
    assert len(code) >= 3
    namespace: dict[str, object] = {}
    for block in code:
        exec(compile(block, "README.md", "exec"), namespace)
    assert (clone / "people.npz").is_file()
    assert "photos of" in capsys.readouterr().out


def test_the_commands_run(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        command.strip()
        for block in blocks("sh")
        for line in block.splitlines()
        for command in line.split("&&")
        if command.strip().startswith("face-encode ")
    ]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if words[0] == "train":
            # Six people are too few to train on; tests/training runs this on more.
            assert cli.build_parser().parse_args(words).data == Path("my_people")
            continue
        if words[0] in ("serve", "watch"):
            # These run until they are stopped; tests of their own start them.
            assert callable(cli.build_parser().parse_args(words).run)
            continue
        expanded = [path for word in words for path in sorted(glob.glob(word)) or [word]]
        assert cli.main(expanded) == 0, f"{line}\n{capsys.readouterr().err}"


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("https://"):
            assert (REPOSITORY / target).exists(), target


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    assert "python -m pytest" in (REPOSITORY / ".ci" / "run").read_text()
    assert any("python -m pytest" in block for block in blocks("sh"))
