"""What an installation holds: every package, and the weights that come with it."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from face_encode.encoders.registry import KNOWN_ENCODERS, ShippedEncoder

ROOT = Path(__file__).parents[1]
SHIPPED = [name for name, known in KNOWN_ENCODERS.items() if isinstance(known, ShippedEncoder)]


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
    for name in SHIPPED:
        assert (ROOT / "weights" / f"{name}.keras").stat().st_size < 50_000_000


def test_an_installation_carries_the_shipped_files(tmp_path: Path) -> None:
    # From elsewhere and without PYTHONPATH, or it would be the clone that answers.
    script = (
        "from importlib.util import find_spec\n"
        "if not find_spec('face_encode') or not find_spec('face_encode.encoders.registry'):\n"
        "    raise SystemExit(77)\n"
        "from face_encode.encoders.registry import KNOWN_ENCODERS, ShippedEncoder\n"
        "for name, known in KNOWN_ENCODERS.items():\n"
        "    if isinstance(known, ShippedEncoder):\n"
        "        print(name, known.path, sep='=')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-I", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode == 77:
        pytest.skip("this release is not installed here")
    assert finished.returncode == 0, finished.stderr
    found = dict(line.split("=", 1) for line in finished.stdout.splitlines())
    assert set(found) == set(SHIPPED)
    if any(Path(path).parent.name == "weights" for path in found.values()):
        pytest.skip("what is installed here is a link to a clone")
    for name, path in found.items():
        assert Path(path).read_bytes() == (ROOT / "weights" / f"{name}.keras").read_bytes()
