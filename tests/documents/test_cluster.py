"""docs/cluster.md: its commands are parsed, its file for Kubernetes is read, its links followed."""

from __future__ import annotations

import ast
import importlib
import inspect
import shlex
from typing import Any

import pytest

from face_encode import cli
from tests.conftest import REPOSITORY
from tests.documents.reading import blocks, broken_links, commands

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
    tree = ast.parse(code)
    imported: dict[str, Any] = {
        alias.name: getattr(importlib.import_module(statement.module or ""), alias.name, None)
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert len(imported) == 5
    assert [name for name, value in imported.items() if value is None] == []
    called = set()
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in imported:
            name = ast.unparse(call.func)
            called.add(name)
            taken = inspect.signature(imported[name])
            assert does_take(taken, len(call.args), [each.arg or "" for each in call.keywords])
    assert called == set(imported)


def does_take(taken: inspect.Signature, positional: int, names: list[str]) -> bool:
    """Whether a callable takes so many arguments by place, and these by name."""
    try:
        taken.bind(*range(positional), **dict.fromkeys(names))
    except TypeError:
        return False
    return True


def test_the_links_lead_somewhere() -> None:
    assert broken_links(GUIDE) == []
