"""SFace beside ONNX Runtime, on a network of the same form with drawn weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import KERAS
from face_encode.encoders.registry import load_encoder
from face_encode.encoders.sface import sface
from face_encode.errors import WeightsError
from face_encode.weights import KNOWN_WEIGHTS
from tests.encoders.facenet_originals import draw_crops, draw_weight, normalized
from tests.loopback import Served, serving

CROPS = draw_crops(3, 112)
CHANNELS = (32, 64, 128, 128, 256, 256, *6 * (512,), 1024, 1024)
STRIDES = (1, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def write_network() -> bytes:
    """Write a network as OpenCV's file holds it, an export from MXNet."""
    arrays: dict[str, npt.NDArray[Any]] = {
        "scalar_op1": np.array([127.5], np.float32),
        "scalar_op2": np.array([1 / 128], np.float32),
    }
    nodes: list[NodeProto] = []

    def append(kind: str, *names: str, **attributes: Any) -> None:
        """Append a node to the chain, with the names of its arrays."""
        source = nodes[-1].output[0] if nodes else "data"
        nodes.append(helper.make_node(kind, [source, *names], [f"t{len(nodes)}"], **attributes))

    def normalize(name: str, channels: int, epsilon: float) -> None:
        parts = ("gamma", "beta", "moving_mean", "moving_variance")
        # MXNet calls the last one by a shorter name.
        names = [f"{name}_{part}".removesuffix("iance") for part in parts]
        for full, part in zip(names, parts, strict=True):
            arrays[full] = draw_weight(f"{name}/{part}:0", (channels,))
        append("BatchNormalization", *names, epsilon=epsilon)

    def convolve(name: str, inputs: int, outputs: int, stride: int, window: int) -> None:
        weight, groups = f"{name}_conv2d_weight", 1
        if name.endswith("_dw"):
            kernel = draw_weight(f"{name}/depthwise_kernel:0", (window, window, inputs, 1))
            arrays[weight], groups = kernel.transpose(2, 3, 0, 1), inputs
        else:
            kernel = draw_weight(f"{name}/kernel:0", (window, window, inputs, outputs))
            arrays[weight] = kernel.transpose(3, 2, 0, 1)
        pads, strides = [window // 2] * 4, [stride] * 2
        append("Conv", weight, pads=pads, strides=strides, group=groups)
        normalize(f"{name}_batchnorm", outputs, 1e-3)
        arrays[f"{name}_relu_gamma"] = draw_weight(f"{name}/alpha:0", (outputs, 1, 1))
        append("PRelu", f"{name}_relu_gamma")

    append("Sub", "scalar_op1")
    append("Mul", "scalar_op2")
    convolve("conv_1", 3, CHANNELS[0], 1, 3)
    for number in range(2, 15):
        before, after = CHANNELS[number - 2 : number]
        convolve(f"conv_{number}_dw", before, before, STRIDES[number - 1], 3)
        convolve(f"conv_{number}", before, after, 1, 1)
    normalize("bn1", 1024, 2e-5)
    arrays["pre_fc1_weight"] = draw_weight("pre_fc1/kernel:0", (50176, 128)).T
    arrays["pre_fc1_bias"] = draw_weight("pre_fc1/bias:0", (128,))
    append("Flatten")
    append("Gemm", "pre_fc1_weight", "pre_fc1_bias", transB=1)
    normalize("fc1", 128, 2e-5)

    ends = (("data", ["batch", 3, 112, 112]), (nodes[-1].output[0], ["batch", 128]))
    source, target = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends
    )
    stored = [
        numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()
    ]
    graph = helper.make_graph(nodes, "mxnet_converted_model", [source], [target], stored)
    opset = [helper.make_opsetid("", 13)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


@pytest.fixture(scope="module")
def network() -> bytes:
    return write_network()


@pytest.fixture(scope="module")
def encoder(network: bytes) -> Encoder:
    """The encoder from a server, as at a user's first use."""
    known = KNOWN_WEIGHTS["sface"]
    served = Served(network)
    with serving(served), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        digest = hashlib.sha256(network).hexdigest()
        patch.setitem(KNOWN_WEIGHTS, "sface", replace(known, url=served.url, sha256=digest))
        encoder = load_encoder("sface", engine=KERAS)
    assert len(served.asked) == 1
    return encoder


def test_embeddings_equal_those_of_onnx_runtime(encoder: Encoder, network: bytes) -> None:
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    # As OpenCV feeds it: red, green, blue of 0..255, channels first.
    blob = np.ascontiguousarray(CROPS.transpose(0, 3, 1, 2), np.float32)
    expected = normalized(session.run(None, {"data": blob})[0])
    differences = np.abs(expected[:, None] - expected[None]).max(axis=2)
    assert differences[~np.eye(3, dtype=bool)].min() > 1e-3
    np.testing.assert_allclose(normalized(encoder.encode(CROPS)), expected, atol=1e-5, rtol=0)


def test_the_graph_holds_built_in_layers_only(encoder: Encoder) -> None:
    assert {type(layer).__module__.split(".")[0] for layer in encoder.model.layers} == {"keras"}


def test_the_published_sha256_is_asked_for(network: bytes, tmp_path: Path) -> None:
    (tmp_path / "sface.onnx").write_bytes(network)
    with pytest.raises(WeightsError, match="expected SHA-256 0ba9fbfa"):
        load_encoder("sface", weights=tmp_path / "sface.onnx")


@pytest.mark.data
def test_the_published_file(public_weights: Path) -> None:
    path = public_weights / KNOWN_WEIGHTS["sface"].file
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    blob = np.ascontiguousarray(CROPS.transpose(0, 3, 1, 2), np.float32)
    (source,) = [each.name for each in session.get_inputs() if each.name == "data"]
    expected = np.concatenate([session.run(None, {source: each[None]})[0] for each in blob])
    received = load_encoder("sface", weights=path, engine=KERAS).encode(CROPS)
    np.testing.assert_allclose(normalized(received), normalized(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conv_9_conv2d_weight": None}, "'conv_9_conv2d_weight' of shape.*Received: nothing"),
        ({"fc1_beta": np.zeros(64, np.float32)}, r"'fc1_beta' of shape \(128,\).*\(64,\)"),
        ({"conv_15_weight": np.zeros(4, np.float32)}, "Received:.*'conv_15_weight'"),
        ({"scalar_op1": np.array([0], np.float32)}, "scale 1/128 and mean 127.5"),
        ({"conv_3_relu_gamma": np.zeros(3, np.float32)}, "'conv_3_relu_gamma'"),
    ],
)
def test_another_network_is_refused(
    network: bytes, changes: Mapping[str, npt.NDArray[Any] | None], message: str
) -> None:
    changed = onnx.load_model_from_string(network)
    arrays = [each for each in changed.graph.initializer if each.name not in changes]
    del changed.graph.initializer[:]
    changed.graph.initializer.extend(arrays)
    for name, array in changes.items():
        if array is not None:
            changed.graph.initializer.append(numpy_helper.from_array(array, name))
    with pytest.raises(WeightsError, match=message):
        sface(changed.SerializeToString())


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x07damaged"])
def test_damaged_files_are_refused(content: bytes) -> None:
    with pytest.raises(WeightsError, match="not an ONNX file, or damaged"):
        sface(content)
