"""MobileFaceNet beside its original: the same ONNX file, run by ONNX Runtime."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import KERAS, probe_crops
from face_encode.encoders.mobilefacenet import MOBILEFACENET_CONTRACT, mobilefacenet
from face_encode.encoders.registry import load_encoder
from face_encode.errors import WeightsError
from face_encode.pipeline.embedding import find_crops
from face_encode.types import Embeddings, ImageArray
from face_encode.weights import KNOWN_WEIGHTS
from tests.loopback import Served, serving

# Channels in, channels within, channels out and stride of the inverted residuals.
BLOCKS = [
    (64, 128, 64, 2),
    *[(64, 128, 64, 1)] * 4,
    (64, 256, 128, 2),
    *[(128, 256, 128, 1)] * 6,
    (128, 512, 128, 2),
    *[(128, 256, 128, 1)] * 2,
]


def write_network() -> onnx.ModelProto:
    """The original's graph, operator by operator, with weights drawn at random."""
    random = np.random.default_rng(20_180_420)
    nodes: list[onnx.NodeProto] = []
    arrays: list[onnx.TensorProto] = []

    def add(kind: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{kind}_{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    def convolve(
        x: str, channels: int, out: int, window: int, stride: int = 1, group: int = 1
    ) -> str:
        fan_in = channels // group * window**2
        kernel = random.standard_normal((out, channels // group, window, window)) / fan_in**0.5
        names = [f"kernel_{len(arrays)}", f"bias_{len(arrays)}"]
        bias = random.standard_normal(out) / 8
        for name, array in zip(names, (kernel, bias), strict=True):
            arrays.append(numpy_helper.from_array(array.astype(np.float32), name))
        pads = [1 if window == 3 else 0] * 4
        return add(
            "Conv",
            x,
            *names,
            group=group,
            kernel_shape=[window] * 2,
            pads=pads,
            strides=[stride] * 2,
        )

    def relu6(x: str) -> str:
        ends = (numpy_helper.from_array(np.array(end, np.float32)) for end in (0, 6))
        return add("Clip", x, *(add("Constant", value=end) for end in ends))

    x = relu6(convolve("input0", 3, 64, 3, 2))
    x = add("Relu", convolve(x, 64, 64, 3, group=64))
    x = add("Relu", convolve(x, 64, 64, 1))
    for channels, within, out, stride in BLOCKS:
        end = relu6(convolve(x, channels, within, 1))
        end = relu6(convolve(end, within, within, 3, stride, group=within))
        end = convolve(end, within, out, 1)
        x = add("Add", x, end) if stride == 1 else end
    x = relu6(convolve(x, 128, 512, 1))
    x = convolve(convolve(x, 512, 512, 7, group=512), 512, 128, 1)
    shape = add("Constant", value=numpy_helper.from_array(np.array([1, -1])))
    nodes.append(helper.make_node("Reshape", [x, shape], ["output0"]))
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size)
        for name, size in (("input0", [1, 3, 112, 112]), ("output0", [1, 128]))
    ]
    graph = helper.make_graph(nodes, "MobileFaceNet", ends[:1], ends[1:], arrays)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])


def run_original(content: bytes, crops: ImageArray) -> Embeddings:
    """Embed crops by the file itself, one at a time, as its author prepares them."""
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    pixels = ((crops / np.float32(255) - mean) / deviation).transpose(0, 3, 1, 2)
    return np.concatenate([session.run(None, {"input0": each[None]})[0] for each in pixels])


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    return write_network()


@pytest.fixture(scope="module")
def random_encoder(network: onnx.ModelProto) -> Encoder:
    """The network of random weights, from a server, as at a user's first use."""
    content = network.SerializeToString()
    known = KNOWN_WEIGHTS["mobilefacenet"]
    with serving(Served(content)) as served, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        changed = replace(
            known,
            url=served.url,
            file="random_mobilefacenet.onnx",
            sha256=hashlib.sha256(content).hexdigest(),
        )
        patch.setitem(KNOWN_WEIGHTS, "mobilefacenet", changed)
        return load_encoder("mobilefacenet_single", engine=KERAS)


def draw_crops(count: int) -> ImageArray:
    return probe_crops(MOBILEFACENET_CONTRACT.crop)[:count]


def test_embeddings_equal_those_of_the_original_graph(
    network: onnx.ModelProto, random_encoder: Encoder
) -> None:
    crops = draw_crops(3)
    expected = run_original(network.SerializeToString(), crops)
    assert 0.5 < np.abs(expected).max() < 50  # so that the bound below means something
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    np.testing.assert_allclose(random_encoder.encode(crops), expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def face_crops(people_photos: list[Path], random_encoder: Encoder) -> ImageArray:
    """The invented people in ArcFace's frame."""
    recipe = random_encoder.contract.crop
    found = find_crops(people_photos[:12], load_detector("dlib_hog"), recipe)
    return np.concatenate([item.crops for item in found])


@pytest.mark.data
def test_embeddings_equal_those_of_the_public_file(
    public_weights: Path, face_crops: ImageArray
) -> None:
    path = public_weights / "MobileFaceNet.onnx"
    # On grey faces a swap of red and blue would pass unseen.
    assert np.abs(np.diff(face_crops.astype(int), axis=3)).mean() > 5
    expected = run_original(path.read_bytes(), face_crops)
    single = load_encoder("mobilefacenet_single", weights=path, engine=KERAS)
    np.testing.assert_allclose(single.encode(face_crops), expected, atol=1e-5, rtol=0)
    encoder = load_encoder("mobilefacenet", weights=path)
    mirrored = run_original(path.read_bytes(), face_crops[:, :, ::-1])
    both = (expected + mirrored) / 2
    np.testing.assert_allclose(encoder.encode(face_crops), both, atol=1e-4, rtol=0)


def test_the_graph_holds_built_in_layers_only(random_encoder: Encoder) -> None:
    modules = {type(layer).__module__.split(".")[0] for layer in random_encoder.model.layers}
    assert modules == {"keras"}
    assert random_encoder.model.count_params() == 989_952


def test_the_weights_of_another_network_are_refused(network: onnx.ModelProto) -> None:
    more = onnx.ModelProto()
    more.CopyFrom(network)
    more.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "more"))
    with pytest.raises(
        WeightsError, match=r"51 convolutions and nothing else. Received.*103 arrays"
    ):
        mobilefacenet(more.SerializeToString())
    fewer = onnx.ModelProto()
    fewer.CopyFrom(network)
    del fewer.graph.initializer[-1]
    with pytest.raises(
        WeightsError, match=r"51 convolutions and nothing else. Received.*101 arrays"
    ):
        mobilefacenet(fewer.SerializeToString())


def test_an_array_of_another_shape_is_refused(network: onnx.ModelProto) -> None:
    changed = onnx.ModelProto()
    changed.CopyFrom(network)
    name = changed.graph.initializer[2].name
    wrong = numpy_helper.from_array(np.zeros((64, 1, 5, 5), np.float32), name)
    changed.graph.initializer[2].CopyFrom(wrong)
    with pytest.raises(WeightsError, match=r"'01_depthwise'.*\(3, 3, 64, 1\).*\(5, 5, 64, 1\)"):
        mobilefacenet(changed.SerializeToString())


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x08\x12 damaged"])
def test_a_damaged_file_is_refused(content: bytes) -> None:
    with pytest.raises(WeightsError):
        mobilefacenet(content)
