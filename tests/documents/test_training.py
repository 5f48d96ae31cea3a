"""The guide is run: its Python, and its command on the invented people."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode import cli
from face_encode.encoders.registry import load_encoder
from tests.conftest import REPOSITORY, VERIFY_DATASET

GUIDE = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")

LOAD = """
import keras, numpy
from face_encode import TripletModel
model = keras.models.load_model("siamese.keras", safe_mode=True)
assert isinstance(model, TripletModel), type(model)
data = numpy.load("data.npz")
received = keras.ops.convert_to_numpy(model.embedding_network(data["crops"], training=False))
numpy.testing.assert_allclose(received, data["embeddings"], rtol=1e-4, atol=1e-4)
"""


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the invented people in it."""
    (tmp_path / "verify_dataset").symlink_to(VERIFY_DATASET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_siamese_network_learns_and_its_file_loads_in_a_fresh_process(clone: Path) -> None:
    namespace: dict[str, object] = {}
    (block,) = blocks("python")
    exec(compile(block, "training.md", "exec"), namespace)
    before, after, crops = (namespace[name] for name in ("before", "after", "crops"))
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    assert isinstance(crops, np.ndarray)
    assert len(crops) == 24
    assert after["loss"] < 0.9 * before["loss"]
    assert after["accuracy"] > before["accuracy"] + 0.1
    network = namespace["network"]
    assert isinstance(network, keras.Model)
    embeddings = keras.ops.convert_to_numpy(network(crops[:8], training=False))
    np.savez("data.npz", crops=crops[:8], embeddings=embeddings)
    environment = {
        **os.environ,
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": str(REPOSITORY),
    }
    subprocess.run([sys.executable, "-c", LOAD], check=True, env=environment)


@pytest.mark.slow
def test_the_command_runs_on_the_invented_people(
    clone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = blocks("sh")
    assert cli.main(shlex.split(block)[1:]) == 0, capsys.readouterr().err
    assert "2 people to report on are too few" in capsys.readouterr().out
    assert load_encoder(clone / "my_embedding.keras").name == "my_embedding"
