"""FaceNet beside its originals: what they wrote, and what they said of the same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from face_encode.encoders import facenet
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import KERAS
from face_encode.encoders.registry import load_encoder
from face_encode.errors import WeightsError
from face_encode.weights import KNOWN_WEIGHTS
from tests.encoders import torch_writing
from tests.encoders.facenet_originals import (
    draw_crops,
    draw_weight,
    embed_by_pytorch,
    facenet_pytorch_network,
    normalized,
    read_record,
    write_h5,
)
from tests.loopback import Served, serving

CROPS = draw_crops(3)


@pytest.fixture(scope="module")
def torch_arrays() -> dict[str, npt.NDArray[Any]]:
    """The state dict of facenet-pytorch's network, by its recorded names and shapes."""
    return {
        name: draw_weight(name, tuple(shape)) if shape else np.array(1, np.int64)
        for name, shape in read_record("facenet_pytorch")["weights"]
    }


@pytest.fixture(scope="module")
def torch_encoder(
    torch_arrays: Mapping[str, npt.NDArray[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Encoder:
    """The encoder from a file anywhere."""
    path = tmp_path_factory.mktemp("anywhere") / "state.pt"
    path.write_bytes(torch_writing.state_dict(torch_arrays))
    return load_encoder("facenet_vggface2", weights=path, engine=KERAS)


@pytest.fixture(scope="module")
def h5_encoder() -> Encoder:
    """The encoder from a server, as at a user's first use, over a connection that breaks."""
    content = write_h5(read_record("deepface_facenet128")["weights"])
    known = KNOWN_WEIGHTS["facenet128"]
    served = Served(content, cut_after=[len(content) // 2])
    with serving(served), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setitem(KNOWN_WEIGHTS, "facenet128", replace(known, url=served.url))
        encoder = load_encoder("facenet128", engine=KERAS)
    assert len(served.asked) == 2
    return encoder


def assert_equal_embeddings(received: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Equal, and unlike enough from picture to picture for that to mean something."""
    assert (
        np.abs(expected[:, None] - expected[None]).max(axis=2)[~np.eye(3, dtype=bool)].min() > 0.01
    )
    np.testing.assert_allclose(received, expected, atol=1e-4, rtol=0)


def test_embeddings_equal_those_of_facenet_pytorch(torch_encoder: Encoder) -> None:
    expected = np.array(read_record("facenet_pytorch")["embeddings"])
    assert expected.shape == (3, 512)
    assert_equal_embeddings(torch_encoder.encode(CROPS), expected)


def test_embeddings_equal_those_of_deepface(h5_encoder: Encoder) -> None:
    expected = np.array(read_record("deepface_facenet128")["embeddings"])
    assert expected.shape == (3, 128)
    # DeepFace leaves the length as it is.
    assert_equal_embeddings(h5_encoder.encode(CROPS), normalized(expected))


def test_embeddings_equal_those_of_facenet_pytorch_where_it_is_installed(
    torch_encoder: Encoder, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    try:
        network = facenet_pytorch_network()
    except ImportError as error:
        pytest.skip(str(error))
    expected = embed_by_pytorch(network, CROPS)
    for old in (False, True):
        path = tmp_path / "state.pt"
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not old)
        model = facenet.facenet512("facenet_casia", path.read_bytes())
        received = Encoder(model, facenet.FACENET_CASIA_CONTRACT).encode(CROPS)
        assert_equal_embeddings(received, expected)
        assert_equal_embeddings(torch_encoder.encode(CROPS), expected)


def test_the_classifier_of_the_training_is_passed_over(
    torch_arrays: dict[str, npt.NDArray[Any]],
) -> None:
    classifier = {
        "logits.weight": np.zeros((8, 512), np.float32),
        "logits.bias": np.zeros(8, np.float32),
    }
    content = torch_writing.state_dict({**torch_arrays, **classifier}, old=True)
    weights = facenet.read_torch_weights(content)
    assert len(weights) == 111 + 21 + 1  # convolutions, projections, the last layer


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "'conv2d_2a.conv.weight' with 4 dimensions. Received: nothing"),
        ({"conv2d_1a.bn.weight": np.zeros((2, 2), np.float32)}, r"1 dim.*Received: \(2, 2\)"),
        ({"conv2d_1a.bn.bias": np.zeros(7, np.float32)}, r"32 channels. Received: \(7,\)"),
        ({"conv2d_1a.conv.weight": np.zeros((32, 3, 3, 3), np.int64)}, "4 dimensions"),
    ],
)
def test_another_state_dict_is_refused(
    torch_arrays: dict[str, npt.NDArray[Any]], changes: dict[str, Any], message: str
) -> None:
    first = {name: array for name, array in torch_arrays.items() if "conv2d_1a." in name}
    with pytest.raises(WeightsError, match=message):
        facenet.facenet512("facenet_vggface2", torch_writing.state_dict(first | changes))


def test_windows_of_another_size_are_refused(torch_arrays: dict[str, npt.NDArray[Any]]) -> None:
    changed = torch_arrays | {"conv2d_1a.conv.weight": np.zeros((32, 3, 5, 5), np.float32)}
    message = r"'conv2d_1a'.*\(3, 3, 3, 32\).*Received: \[\(5, 5, 3, 32\)"
    with pytest.raises(WeightsError, match=message):
        facenet.facenet512("facenet_vggface2", torch_writing.state_dict(changed))


def test_more_than_the_network_has_is_refused(torch_arrays: dict[str, npt.NDArray[Any]]) -> None:
    changed = torch_arrays | {"extra.weight": np.zeros(3, np.float32)}
    with pytest.raises(WeightsError, match=r"has no 'extra\.weight'"):
        facenet.read_torch_weights(torch_writing.state_dict(changed))


def test_another_h5_file_is_refused() -> None:
    weights = read_record("deepface_facenet128")["weights"]
    with pytest.raises(WeightsError, match=r"goes on with a layer of kernel. Received: the end"):
        facenet.read_deepface_weights(write_h5(weights[:12]))
    with pytest.raises(WeightsError, match=r"goes on with.*beta.*Received: 'Conv2d_1a_3x3_Batch"):
        facenet.read_deepface_weights(write_h5([weights[0], *weights[2:4]]))
    with pytest.raises(WeightsError, match="ends before the layer 'more'"):
        facenet.read_deepface_weights(write_h5([*weights, ("more", "more/kernel:0", [1])]))


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n damaged"])
def test_damaged_files_are_refused(content: bytes) -> None:
    with pytest.raises(WeightsError, match="damaged"):
        facenet.facenet128(content)
    with pytest.raises(WeightsError, match="damaged"):
        facenet.facenet512("facenet_vggface2", content)


def test_embeddings_have_length_1_and_flat_pictures_are_no_trouble(h5_encoder: Encoder) -> None:
    flat = np.full((2, 160, 160, 3), 93, np.uint8)
    flat[1, 0, 0] = 94
    embeddings = h5_encoder.encode(np.concatenate([CROPS, flat]))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)


def test_whitening_takes_away_brightness_and_contrast(h5_encoder: Encoder) -> None:
    darker = (CROPS // 2 + 20).astype(np.uint8)
    np.testing.assert_allclose(h5_encoder.encode(darker), h5_encoder.encode(CROPS), atol=5e-3)


@pytest.mark.slow
def test_the_converted_file_is_plain_keras(h5_encoder: Encoder) -> None:
    again = load_encoder("facenet128")  # from the cache, for its server is gone
    assert again.contract == h5_encoder.contract
    np.testing.assert_allclose(again.encode(CROPS), h5_encoder.encode(CROPS), atol=1e-5)


def test_the_graph_holds_built_in_layers_only(torch_encoder: Encoder, h5_encoder: Encoder) -> None:
    for encoder in (torch_encoder, h5_encoder):
        layers = encoder.model.layers
        assert {type(layer).__module__.split(".")[0] for layer in layers} == {"keras"}
        assert not [layer for layer in layers if type(layer).__name__ == "Lambda"]


@pytest.mark.parametrize(
    "contract",
    [
        facenet.FACENET_VGGFACE2_CONTRACT,
        facenet.FACENET_CASIA_CONTRACT,
        facenet.FACENET128_CONTRACT,
    ],
)
def test_the_contracts_say_that_nothing_was_calibrated(contract: EncoderContract) -> None:
    assert contract.false_match_rate is None
    assert contract.crop.height == contract.crop.width == 160
    assert contract.pixel_range == (0, 255)
