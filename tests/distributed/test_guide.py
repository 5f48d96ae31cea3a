"""docs/cluster.md: its commands are parsed, its file for Kubernetes is read, its links followed."""

from __future__ import annotations

import ast
import shlex

import pytest

from face_encode import cli
from tests.conftest import REPOSITORY
from tests.documents import blocks, broken_links, commands

GUIDE = REPOSITORY / "docs" / "cluster.md"


def embed_options(words: list[str]) -> None:
    assert words[0] == "face-encode"
    options = cli.build_parser().parse_args(words[1:])
    assert options.engine == "ray"


def test_the_commands_are_there() -> None:
    lines = commands(GUIDE)
    assert len(lines) == 3
    for line in lines:
        embed_options(shlex.split(line, comments=True))


def test_the_file_for_kubernetes_holds_a_command_that_is_there() -> None:
    yaml = pytest.importorskip("yaml")
    (text,) = blocks(GUIDE, "yaml")
    job = yaml.safe_load(text)["spec"]
    embed_options(shlex.split(job["entrypoint"]))
    head = job["rayClusterSpec"]["headGroupSpec"]
    (workers,) = job["rayClusterSpec"]["workerGroupSpecs"]
    images = [group["template"]["spec"]["containers"][0]["image"] for group in (head, workers)]
    assert len(set(images)) == 1


def test_the_python_names_what_is_there() -> None:
    (code,) = blocks(GUIDE, "python")
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.ImportFrom):
            exec(compile(ast.Module([statement], []), GUIDE.name, "exec"), {})


def test_the_links_lead_somewhere() -> None:
    assert broken_links(GUIDE) == []
