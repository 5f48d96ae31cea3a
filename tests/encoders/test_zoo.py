"""The networks that DeepFace distributes beside their originals, and from a server."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import KERAS
from face_encode.encoders.registry import KNOWN_ENCODERS, load_encoder
from face_encode.errors import WeightsError
from face_encode.weights import KNOWN_WEIGHTS
from tests.encoders.facenet_originals import DEEPFACE, normalized, read_record, write_h5
from tests.loopback import Served, serving

SMALL = ("deepid", "openface", "ghostfacenet")
NAMES = [
    name if name in SMALL else pytest.param(name, marks=pytest.mark.slow)
    for name in DEEPFACE
    if name != "facenet128"  # in test_facenet.py
]


def load_drawn(name: str, folder: Path) -> Encoder:
    """The encoder from a file with drawn weights, as DeepFace's network writes it."""
    path = folder / f"{name}.h5"
    path.write_bytes(write_h5(read_record(f"deepface_{name}")["weights"]))
    return load_encoder(name, weights=path, engine=KERAS)


def assert_equal_embeddings(received: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Equal, and unlike enough from picture to picture for that to mean something."""
    differences = np.abs(expected[:, None] - expected[None]).max(axis=2)
    assert differences[~np.eye(len(expected), dtype=bool)].min() > 1e-3
    np.testing.assert_allclose(received, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_equal_those_of_deepface(name: str, tmp_path: Path) -> None:
    encoder = load_drawn(name, tmp_path)
    expected = np.array(read_record(f"deepface_{name}")["embeddings"])
    received = normalized(encoder.encode(DEEPFACE[name].crops()))
    assert_equal_embeddings(received[:, :: DEEPFACE[name].step], expected)
    layers = encoder.model.layers
    assert {type(layer).__module__.split(".")[0] for layer in layers} == {"keras"}
    assert not [layer for layer in layers if type(layer).__name__ == "Lambda"]


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEPFACE)
def test_embeddings_equal_those_of_deepface_where_it_is_installed(
    name: str, tmp_path: Path
) -> None:
    pytest.importorskip("tf_keras")
    pytest.importorskip("deepface")
    if os.environ.get("TF_USE_LEGACY_KERAS") != "1":
        pytest.skip("DeepFace takes TF_USE_LEGACY_KERAS=1")
    network = DEEPFACE[name].build()
    network.save_weights(tmp_path / "weights.h5")
    encoder = load_encoder(name, weights=tmp_path / "weights.h5", engine=KERAS)
    received = normalized(encoder.encode(DEEPFACE[name].crops()))
    assert_equal_embeddings(received[:, :: DEEPFACE[name].step], DEEPFACE[name].embed(network))


def test_the_first_use_downloads_and_later_ones_open_plain_keras() -> None:
    known = KNOWN_WEIGHTS["deepid"]
    served = Served(write_h5(read_record("deepface_deepid")["weights"]))
    with serving(served), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setitem(KNOWN_WEIGHTS, "deepid", replace(known, url=served.url))
        first = load_encoder("deepid", engine=KERAS)
    again = load_encoder("deepid")  # from the cache, for its server is gone
    assert len(served.asked) == 1
    assert again.contract == first.contract
    crops = DEEPFACE["deepid"].crops()
    np.testing.assert_allclose(again.encode(crops), first.encode(crops), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openface", "ghostfacenet"])
def test_the_saved_file_opens_and_converts(name: str, tmp_path: Path) -> None:
    from face_encode.encoders.contract import save_encoder

    encoder = load_drawn(name, tmp_path)
    if name == "ghostfacenet":
        # Drawn weights give numbers in the hundreds, and engines are held to 1e-3.
        last = encoder.model.layers[-1]
        gamma, beta, *statistics = last.get_weights()
        last.set_weights([gamma / 100, beta / 100, *statistics])
    save_encoder(encoder.model, tmp_path / f"{name}.keras", encoder.contract)
    crops = DEEPFACE[name].crops()
    expected = normalized(encoder.encode(crops))
    for engine in (KERAS, "onnx"):
        again = load_encoder(tmp_path / f"{name}.keras", engine=engine)
        np.testing.assert_allclose(normalized(again.encode(crops)), expected, atol=1e-4)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    weights = read_record("deepface_deepid")["weights"]
    wider = [
        [layer, name, [4, 4, 3, 24]] if shape == [4, 4, 3, 20] else [layer, name, shape]
        for layer, name, shape in weights
    ]
    for wrong, message in (
        (weights[:-2], "has 6 layers with weights. Received: a file with 5"),
        ([*weights, ["more", "more/kernel:0", [1]]], "Received: a file with 7"),
        (wider, r"'conv1'.*\(4, 4, 3, 20\).*Received: layer 'Conv1' with.*\(4, 4, 3, 24\)"),
        ([*weights[:-1], ["fc12", "fc12/gamma:0", [160]]], r"'fc2'.*'gamma': \(160,\)"),
    ):
        path = tmp_path / "weights.h5"
        path.write_bytes(write_h5(wrong))
        with pytest.raises(WeightsError, match=message):
            load_encoder("deepid", weights=path, engine=KERAS)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n damaged"])
def test_damaged_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_bytes(content)
    with pytest.raises(WeightsError, match="damaged"):
        load_encoder("deepid", weights=tmp_path / "weights.h5", engine=KERAS)


Change = Callable[[h5py.File, Path], None]


def external(file: h5py.File, secret: Path) -> None:
    kernel = file["Conv1/Conv1/kernel:0"]
    shape, kind = kernel.shape, kernel.dtype
    del file["Conv1/Conv1/kernel:0"]
    outside = [(str(secret), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("Conv1/Conv1/kernel:0", shape, kind, external=outside)


def virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((4, 4, 3, 20), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "x", (4, 4, 3, 20))
    del file["Conv1/Conv1/kernel:0"]
    file.create_virtual_dataset("Conv1/Conv1/kernel:0", layout)


def linked_outside(file: h5py.File, secret: Path) -> None:
    del file["Conv1/Conv1/kernel:0"]
    file["Conv1/Conv1/kernel:0"] = h5py.ExternalLink(str(secret), "/x")


def linked_group(file: h5py.File, secret: Path) -> None:
    del file["Conv1"]
    file["Conv1"] = h5py.ExternalLink(str(secret), "/")


def soft_link(file: h5py.File, secret: Path) -> None:
    file["more"] = h5py.SoftLink("/Conv1")


def two_names(file: h5py.File, secret: Path) -> None:
    file["more"] = file["Conv1"]


def enormous(file: h5py.File, secret: Path) -> None:
    del file["Conv1/Conv1/kernel:0"]
    file.create_dataset("Conv1/Conv1/kernel:0", (4, 4, 3, 2**30), "f4", chunks=(1, 1, 1, 1024))


def listed_often(file: h5py.File, secret: Path) -> None:
    file.attrs["layer_names"] = [b"fc11"] * 200


OUTSIDE: dict[str, tuple[Change, str]] = {
    "numbers in another file": (external, "'/Conv1/Conv1/kernel:0' lie in other files"),
    "a virtual array": (virtual, "'/Conv1/Conv1/kernel:0' lie in other files"),
    "a link to another file": (linked_outside, "is a link to elsewhere .ExternalLink"),
    "a group of another file": (linked_group, "'/Conv1' is a link to elsewhere .ExternalLink"),
    "a soft link": (soft_link, "'/more' is a link to elsewhere .SoftLink"),
    "two names": (two_names, "has two names"),
    "an array of nothing": (enormous, "arrays of [0-9,]+ bytes in a file of"),
    "a layer listed often": (listed_often, "again and again"),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_weights_that_are_not_all_in_the_file_are_refused(case: str, tmp_path: Path) -> None:
    change, told = OUTSIDE[case]
    with h5py.File(tmp_path / "secret", "w") as secret:
        secret["x"] = np.zeros((4, 4, 3, 20), np.float32)
    path = tmp_path / "weights.h5"
    path.write_bytes(write_h5(read_record("deepface_deepid")["weights"]))
    with h5py.File(path, "r+") as file:
        change(file, tmp_path / "secret")
    with pytest.raises(WeightsError, match=told):
        load_encoder("deepid", weights=path, engine=KERAS)


def test_a_weights_file_larger_than_any_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "weights.h5", "wb") as file:
        file.truncate(2**31)
    with pytest.raises(
        WeightsError, match=r"at most 1,073,741,824 bytes. Received: .*2,147,483,648"
    ):
        load_encoder("deepid", weights=tmp_path / "weights.h5", engine=KERAS)


@pytest.mark.parametrize("name", [*DEEPFACE, "sface"])
def test_the_contracts_say_that_nothing_was_calibrated(name: str) -> None:
    contract = KNOWN_ENCODERS[name].contract
    assert contract.false_match_rate is None
    assert contract.pixel_range == (0, 255)
    if name in DEEPFACE:
        assert (contract.crop.height, contract.crop.width) == DEEPFACE[name].size
