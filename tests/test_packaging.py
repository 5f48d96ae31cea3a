"""What an installation holds: every package, and the weights that come with it."""

from __future__ import annotations

import configparser
import importlib.util
from importlib import metadata
from pathlib import Path

import pytest

from face_encode.encoders.shipped import SHIPPED_ENCODERS

ROOT = Path(__file__).parents[1]


def setup_options(section: str) -> configparser.SectionProxy:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", "utf-8")
    return settings[section]


def test_setup_lists_every_package() -> None:
    folders = (path.parent.relative_to(ROOT) for path in ROOT.glob("face_encode/**/__init__.py"))
    found = {".".join(folder.parts) for folder in folders}
    listed = setup_options("options")["packages"].split()
    assert sorted(listed) == sorted({*found, "face_encode_weights"})


def test_the_shipped_files_lie_in_weights() -> None:
    for name in SHIPPED_ENCODERS:
        assert (ROOT / "weights" / f"{name}.keras").stat().st_size < 50_000_000


def test_an_installation_carries_the_shipped_files() -> None:
    try:
        metadata.distribution("face_encode")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here")
    spec = importlib.util.find_spec("face_encode_weights")
    assert spec is not None and spec.submodule_search_locations
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    for name in SHIPPED_ENCODERS:
        installed = next(folder for folder in folders if folder.is_dir()) / f"{name}.keras"
        assert installed.read_bytes() == (ROOT / "weights" / f"{name}.keras").read_bytes()
