"""Hooks of the documentation site: it also shows the pages that live beside the code.

README.md becomes the first page. Other Markdown files of the repository, and the pictures and
scripts that pages link to, appear below ``project/``; links between all of them are rewritten, so
that a page reads the same on a code host and on the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/ACCURACY.md",
    "benchmarks/ALIGNMENT.md",
    "benchmarks/ATTRIBUTES.md",
    "benchmarks/FINDING.md",
    "benchmarks/README.md",
    "weights/README.md",
    "weights/TRAINING.md",
)
_LINK = re.compile(r"(\]\(|src=\")([^)\s\"#:]+)(?=[#)\s\"])")


def _site_path(path: str) -> str:
    """Where a file of the repository lies on the site."""
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"project/{path}"


def _repository_path(site_path: str) -> str:
    """The file of the repository behind a page of the site."""
    if site_path == "index.md":
        return "README.md"
    if site_path.startswith("project/"):
        return site_path.removeprefix("project/")
    return f"docs/{site_path}"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages beside the code, and what pages link to."""
    texts = {file.src_uri: file.content_string for file in files.documentation_pages()}
    for page in ("README.md", *PAGES):
        site_path = _site_path(page)
        texts[site_path] = (ROOT / page).read_text(encoding="utf-8")
        files.append(File.generated(config, site_path, content=texts[site_path]))
    for site_path, text in texts.items():
        folder = posixpath.dirname(_repository_path(site_path))
        for _, link in _LINK.findall(text):
            path = posixpath.normpath(posixpath.join(folder, link))
            known = files.get_file_from_path(_site_path(path))
            if known is None and not path.endswith(".md") and (ROOT / path).is_file():
                files.append(
                    File.generated(config, _site_path(path), abs_src_path=str(ROOT / path))
                )
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite links between files of the repository to links between pages of the site."""
    site_path = page.file.src_uri
    folder = posixpath.dirname(_repository_path(site_path))

    def rewritten(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        if not (ROOT / path).exists():
            return match[0]
        target = posixpath.relpath(_site_path(path), posixpath.dirname(site_path) or ".")
        return match[1] + target

    return _LINK.sub(rewritten, markdown)
