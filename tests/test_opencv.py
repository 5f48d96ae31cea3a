"""The two packages of OpenCV, and what the image of the documentation installs for it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.conftest import EXAMPLES, REPOSITORY, VERIFY_DATASET
from tests.documents.reading import blocks

# What every image of Debian has.
_ALWAYS_THERE = {"libc6", "libgcc-s1", "libstdc++6", "zlib1g"}


def printed(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.slow
def test_the_headless_package_takes_the_place_of_the_other(tmp_path: Path) -> None:
    version = ".".join(cv2.__version__.split(".")[:3])
    folder = str(tmp_path / "headless")
    wanted = f"opencv-python-headless=={version}.*"
    options = ("--quiet", "--no-deps", "--disable-pip-version-check", "--target", folder)
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wanted], check=True)
    script = (
        "import sys, cv2\n"
        "assert cv2.__file__.startswith(sys.argv[1]), cv2.__file__\n"
        "assert 'NONE' in cv2.getBuildInformation().split('GUI:')[1].split('\\n')[0]\n"
        "from face_encode.cli import main\n"
        "sys.exit(main(['match', sys.argv[2], sys.argv[3]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, folder, VERIFY_DATASET, EXAMPLES / "ada_mirova.jpg"],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{REPOSITORY}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "Ada_Mirova" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="takes Debian's packages")
def test_the_image_installs_what_opencv_takes() -> None:
    (dockerfile,) = blocks(REPOSITORY / "docs" / "deploy.md", "dockerfile")
    (line,) = re.findall(r"apt-get install -y --no-install-recommends (.*?) \\", dockerfile)
    installed = line.split()
    # As an image that has none of them would get them.
    subprocess.run(["apt-get", "install", "--simulate", "-qq", *installed], check=True)
    depends = ("apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests")
    more = ("--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances")
    reached = set(re.findall(r"^\S+$", printed(*depends, *more, *installed), re.MULTILINE))
    module = next(Path(cv2.__file__).parent.glob("cv2*.so"))
    libraries = re.findall(r"=> (/\S+)", printed("ldd", str(module)))
    # Not those that come with the wheel.
    taken = [path for path in libraries if "opencv_python" not in path]
    assert any("libGL" in path for path in taken) or "headless" in module.parts
    for path in taken:
        owner = subprocess.run(
            ["dpkg-query", "-S", os.path.realpath(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ).stdout.split(":")[0]
        # A library that lies beside Python itself belongs to no package.
        assert not owner or owner in reached | _ALWAYS_THERE, (path, owner)
