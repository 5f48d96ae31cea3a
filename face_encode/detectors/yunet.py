"""YuNet (Wu et al., 2023): very fast, also small and turned faces, with five points of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from face_encode.detectors.single_stage import Detections, SingleStageDetector
from face_encode.terminal import import_onnx_runtime
from face_encode.types import ImageArray
from face_encode.weights import read_verified

_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class YunetDetector(SingleStageDetector):
    """Finds faces from the front, aside and in small; see ``SingleStageDetector``."""

    base_name: ClassVar[str] = "yunet"
    smallest_seen: ClassVar[int] = 24
    largest_seen: ClassVar[int] = 600
    unshrunk_pixels: ClassVar[int] = 192**2
    sure_score: ClassVar[float] = 0.9
    turned_side: ClassVar[int] = 128
    # The medians over faces that both found; docs/detectors.md.
    frame: ClassVar[tuple[float, float, float]] = (0.03, 0.07, 0.96)

    def run(self, images: ImageArray) -> Detections:
        """Run the network; see ``SingleStageDetector.run``."""
        outputs = _session().run(None, {"photos": images})
        levels = []
        # At each stride: the scores of a face and of an object, its frame, its points.
        for level, stride in enumerate(_STRIDES):
            classes, objects, frames, points = outputs[level::3]
            scores = np.sqrt(classes * objects)[..., 0]
            image, cell = np.nonzero(scores >= self.min_score)
            columns = images.shape[2] // stride
            corner = np.stack([cell % columns, cell // columns], axis=1)
            frame = frames[image, cell]
            levels.append(
                Detections(
                    image,
                    scores[image, cell],
                    (corner + frame[:, :2]) * stride,
                    np.exp(frame[:, 2:]) * stride,
                    (corner[:, np.newaxis] + points[image, cell].reshape(-1, 5, 2)) * stride,
                )
            )
        return Detections.joined(levels)


@lru_cache(maxsize=1)
def _session() -> Any:
    """The network, shared by all threads.

    It takes one core: photos are many, and a photo is too small to be worth a second one. Without
    threads of its own it also works in a forked process.
    """
    import onnx

    # The file asks for one photo of 640x640; only its ends and three shapes say so, not its layers.
    network = onnx.load_from_string(read_verified("yunet"))
    graph = network.graph
    for end in (*graph.input, *graph.output):
        for dimension in end.type.tensor_type.shape.dim:
            dimension.ClearField("dim_value")
    for constant in graph.initializer:
        values = onnx.numpy_helper.to_array(constant)
        if values.dtype == np.int64 and values[:2].tolist() == [1, -1]:
            # 0 keeps the number of photos.
            kept = np.array([0, *values[1:]], np.int64)
            constant.CopyFrom(onnx.numpy_helper.from_array(kept, constant.name))
    # Photos go in as they lie in memory: numpy takes half as long as the network to make of them
    # the floats that the file asks for, BGR, a plane a colour.
    (former,) = graph.input
    make = onnx.helper.make_node
    nodes = [
        make("Transpose", ["photos"], ["planes"], perm=(0, 3, 1, 2)),
        make("Gather", ["planes", "backwards"], ["bgr"], axis=1),
        make("Cast", ["bgr"], [former.name], to=onnx.TensorProto.FLOAT),
        *graph.node,
    ]
    photos = onnx.helper.make_tensor_value_info("photos", onnx.TensorProto.UINT8, [None] * 4)
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 1, 0]), "backwards"))
    del graph.input[:], graph.node[:]
    graph.input.append(photos)
    graph.node.extend(nodes)
    onnxruntime = import_onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    content = network.SerializeToString()
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
