"""The documentation as the tests see it: blocks of code to run, and links to follow."""

from __future__ import annotations

import re
from pathlib import Path


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """The lines of a page's shell blocks that are commands of this package."""
    return [
        command.strip()
        for block in blocks(page, "sh")
        for line in block.splitlines()
        for command in line.split("&&")
        if command.strip().startswith("face-encode ")
    ]


def run_python(page: Path) -> None:
    """Run a page's Python, from top to bottom, in one namespace."""
    namespace: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), namespace)


def broken_links(page: Path) -> list[str]:
    """The links of a page to files that are not there."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    local = [target for target in targets if not target.startswith("https://")]
    return [target for target in local if not (page.parent / target).exists()]
