from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import pytest
from face_encode.verbs import cache

from face_encode.encoders.contract import EncoderContract, save_encoder
from face_encode.encoders.registry import load_encoder
from face_encode.errors import ModelFileError
from face_encode.functions import kept_encoder
from face_encode.types import CropRecipe


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_encoders", type(cache._encoders)())


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was loaded, in order; the loading itself is the real one."""
    loaded: list[Any] = []

    def counted(name_or_path: Any) -> Any:
        loaded.append(name_or_path)
        return load_encoder(name_or_path)

    monkeypatch.setattr(cache, "load_encoder", counted)
    yield loaded


def save(path: Path, seed: int) -> Path:
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
    contract = EncoderContract(name="tiny", crop=CropRecipe("box", 8, 8), threshold=0.5)
    save_encoder(keras.Sequential(layers), path, contract)
    return path


def test_an_encoder_is_loaded_once_for_any_number_of_threads(
    tmp_path: Path, loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.keras", 0)
    with ThreadPoolExecutor(4) as threads:
        encoders = list(threads.map(kept_encoder, [path, str(path)] * 4))
    assert len({id(encoder) for encoder in encoders}) == len(loads) == 1
    monkeypatch.chdir(tmp_path)
    assert kept_encoder("a.keras") is encoders[0]
    assert kept_encoder(encoders[0]) is encoders[0]
    assert len(loads) == 1


def test_a_file_that_changed_is_loaded_again(tmp_path: Path, loads: list[Any]) -> None:
    path = save(tmp_path / "a.keras", 0)
    first = kept_encoder(path)
    save(path, 1)
    os.utime(path, ns=(1, 1))
    assert kept_encoder(path).fingerprint != first.fingerprint
    assert len(loads) == 2


def test_only_the_ones_used_last_are_kept(
    tmp_path: Path, loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_MOST_ENCODERS", 1)
    paths = [save(tmp_path / f"{name}.keras", 0) for name in "ab"]
    for path in (*paths, *paths):
        kept_encoder(path)
    assert len(loads) == 4


def test_what_is_no_encoder_is_not_kept(tmp_path: Path, loads: list[Any]) -> None:
    for _ in range(2):
        with pytest.raises(ModelFileError):
            kept_encoder(tmp_path / "none.keras")
    assert len(loads) == 2
