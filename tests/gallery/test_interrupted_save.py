"""A save that is interrupted at any point leaves the former file whole, or the new one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.encoders.contract import EncoderContract, read_contract, save_encoder
from face_encode.encoders.registry import load_encoder
from face_encode.errors import DatasetError, GalleryError, ModelFileError
from face_encode.files import write_archive
from face_encode.gallery import npz
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import load_gallery
from face_encode.photos.folders import people_in, photos_in
from face_encode.types import CropRecipe
from tests.conftest import REPOSITORY
from tests.full_disk import full_disk

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes the POSIX way")

# Large enough that writing takes longer than starting to write: 2 MB.
ROWS, SIZE = 4_000, 128


@dataclass(frozen=True)
class Identity:
    """What a gallery knows of an encoder."""

    name: str = "one"
    fingerprint: str = "f1"
    embedding_size: int = SIZE


def filled(version: int) -> MemoryGallery:
    """A gallery that shows in every number which version it is."""
    gallery = MemoryGallery(Identity())
    embeddings = np.full((ROWS, SIZE), version, np.float32)
    gallery.add([f"version {version}"] * ROWS, embeddings)
    return gallery


def version_of(path: Path) -> int:
    """Which version a file holds; fails unless it holds the whole of one."""
    gallery = load_gallery(path, Identity())
    assert gallery.embeddings.shape == (ROWS, SIZE)
    (version,) = np.unique(gallery.embeddings)
    assert gallery.people() == {f"version {int(version)}": ROWS}
    return int(version)


# A child process imports neither TensorFlow nor the tests' own settings.
SAVE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from tests.gallery.test_interrupted_save import filled
path = Path(sys.argv[1])
versions = [filled(version) for version in (1, 2, 3)]
print("ready", flush=True)
for gallery in itertools.cycle(versions):
    gallery.save(path)
"""

SAVE_AND_DIE = """
import os, shutil, signal, sys
from pathlib import Path
from face_encode.gallery import npz
from tests.gallery.test_interrupted_save import filled
path, module, function, when = Path(sys.argv[1]), *sys.argv[2:]
gallery = filled(2)
owner = {"os": os, "npz": npz, "shutil": shutil, "Path": Path}[module]
real = getattr(owner, function)

def dying(*arguments, **options):
    if when == "after":
        real(*arguments, **options)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, function, dying)
gallery.save(path)
"""

SAVE_HALF_A_MODEL_AND_DIE = """
import os, signal, sys
from pathlib import Path
from face_encode.encoders.contract import read_contract, save_encoder
path = Path(sys.argv[1])

class Half:
    def save(self, target):
        target.write_bytes(path.read_bytes()[:5_000])
        os.kill(os.getpid(), signal.SIGKILL)

save_encoder(Half(), path, read_contract(path))
"""


def child(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    filled(1).save(path)
    moments = random.Random(0)
    seen: set[int] = set()
    halves = 0
    for attempt in range(30):
        # On a busy machine a child gets through little before it is killed.
        if attempt >= 6 and seen == {1, 2, 3} and halves > 0:
            break
        process = child(SAVE_FOR_EVER, path)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        # A stopped process is where a killed one would be: the file is looked at many times
        # for the price of one start.
        for _ in range(15):
            time.sleep(moments.uniform(0, 0.02))
            process.send_signal(signal.SIGSTOP)
            seen.add(version_of(path))
            process.send_signal(signal.SIGCONT)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        seen.add(version_of(path))
        halves += sum(1 for entry in tmp_path.iterdir() if entry != path)
    # Saves did go through, and some were hit in the middle.
    assert seen == {1, 2, 3}
    assert halves > 0
    check_leftovers(tmp_path)


def check_leftovers(folder: Path) -> None:
    """What a killed process leaves behind is hidden, and never taken for anything."""
    for entry in folder.iterdir():
        assert entry.name == "people.npz" or entry.name.startswith(".people-")
    assert photos_in(folder) == []
    with pytest.raises(DatasetError, match="without sub-folders"):
        people_in(folder)


@pytest.mark.parametrize(
    ("module", "function", "when", "survivor"),
    [
        ("os", "replace", "before", 1),
        ("os", "replace", "after", 2),
        *(
            pytest.param(*step, marks=pytest.mark.slow)
            for step in [
                ("Path", "mkdir", "before", 1),
                ("npz", "write_archive", "before", 1),
                ("npz", "write_archive", "after", 1),
                ("os", "fsync", "before", 1),
                ("os", "fsync", "after", 1),
                ("shutil", "copymode", "before", 1),
                ("shutil", "copymode", "after", 1),
                ("Path", "unlink", "before", 2),
            ]
        ),
    ],
)
def test_killed_at_each_step(
    module: str, function: str, when: str, survivor: int, tmp_path: Path
) -> None:
    path = tmp_path / "people.npz"
    filled(1).save(path)
    process = child(SAVE_AND_DIE, path, module, function, when)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert version_of(path) == survivor
    check_leftovers(tmp_path)


def test_the_next_save_goes_through(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    filled(1).save(path)
    process = child(SAVE_AND_DIE, path, "os", "replace", "before")
    process.communicate()
    filled(3).save(path)
    assert version_of(path) == 3


@pytest.mark.parametrize("room", [0, 1, 100, 5_000, 100_000, 1_000_000, 2_000_000])
def test_a_full_disk_leaves_the_former_gallery_and_no_litter(room: int, tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    filled(1).save(path)
    assert path.stat().st_size > 2_000_000
    with full_disk(room), pytest.raises(GalleryError, match="File too large"):
        filled(2).save(path)
    assert version_of(path) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_an_interruption_from_within_leaves_the_former_gallery_and_no_litter(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people.npz"
    filled(1).save(path)

    def interrupted(path: Path, arrays: dict[str, Any]) -> None:
        write_archive(path, arrays)
        raise error

    monkeypatch.setattr(npz, "write_archive", interrupted)
    with pytest.raises(error):
        filled(2).save(path)
    assert version_of(path) == 1
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_model_file_survives_in_the_same_way(tmp_path: Path) -> None:
    import keras

    path = tmp_path / "tiny.keras"
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(64)]
    model = keras.Sequential(layers)
    crop = CropRecipe("box", 8, 8)
    save_encoder(model, path, EncoderContract("first", crop, 0.5))
    former = path.read_bytes()
    # Too little for the weights; too little for the contract behind them.
    for room in (1_000, len(former) - 700):
        with full_disk(room), pytest.raises(ModelFileError, match="cannot write"):
            save_encoder(model, path, EncoderContract("second", crop, 0.5))
        assert path.read_bytes() == former
        assert list(tmp_path.iterdir()) == [path]
    # A process that dies once Keras is done, before the contract is in.
    process = child(SAVE_HALF_A_MODEL_AND_DIE, path)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == former
    contract = read_contract(path)
    assert contract is not None and contract.name == "first"
    assert load_encoder(path).embedding_size == 64
