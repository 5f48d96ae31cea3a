"""The same tests on another Keras backend."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import pytest

HERE = Path(__file__).parent
BACKEND_FREE = [
    "test_triplet.py",
    "test_losses.py",
    "test_optimizers.py",
    "test_views.py",
    "test_distillation.py::test_the_student_learns_and_is_plain[tiny_student]",
    "test_backbones.py::test_layers_begin_standardised_and_embeddings_apart",
    "test_backbones.py::test_a_channel_that_is_the_same_for_all_stays_finite",
    "test_backbones.py::test_what_it_cannot_do_is_refused",
]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jax") is None, reason="jax is not installed")
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="everything runs on JAX already")
def test_the_same_tests_pass_on_jax() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *(str(HERE / name) for name in BACKEND_FREE)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-4000:]
