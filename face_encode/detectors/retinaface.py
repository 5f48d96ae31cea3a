"""RetinaFace (Deng et al., 2020) on a MobileNet of a quarter's width: the most exact five points.

The network is a Keras model that reads the weights of Pytorch_Retinaface (biubug6). ONNX Runtime
runs it: converted once, it is cached, and later starts need neither Keras nor TensorFlow.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from face_encode.detectors.single_stage import STRIDE, Detections, SingleStageDetector
from face_encode.errors import InputError, WeightsError
from face_encode.terminal import import_keras, import_onnx_runtime, without_native_notices
from face_encode.torch_file import read_state_dict
from face_encode.types import ImageArray
from face_encode.version import __version__
from face_encode.weights import cached, read_verified

if TYPE_CHECKING:
    import keras

# Stride of each level, and the sides of its two anchors, in pixels.
_LEVELS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
# By what the network's offsets are multiplied: of places, and of the logarithms of sides.
_PLACE_VARIANCE, _SIDE_VARIANCE = 0.1, 0.2

# The network is surer than it may be: an upright face has a probability of 0.9983 to 1, a lying one
# up to 0.9997. With its logit divided by 3 the scores are about as YuNet's.
_TEMPERATURE = 3.0

_MEAN_RGB = (123, 117, 104)
_SLOPE = 0.1
# PyTorch's default for batch normalisation.
_EPSILON = 1e-5
# The file holds 0.45 million.
_MOST_NUMBERS = 500_000


@dataclass(frozen=True)
class RetinaFaceDetector(SingleStageDetector):
    """Finds faces at any angle, with exact points; see ``SingleStageDetector``."""

    base_name: ClassVar[str] = "retinaface"
    smallest_seen: ClassVar[int] = 24
    largest_seen: ClassVar[int] = 800
    unshrunk_pixels: ClassVar[int] = 400_000
    sure_score: ClassVar[float] = 0.93
    turned_side: ClassVar[int] = 256
    # The medians over faces that both found; docs/detectors.md.
    frame: ClassVar[tuple[float, float, float]] = (0.04, 0.07, 0.93)

    def run(self, images: ImageArray) -> Detections:
        """Run the network; see ``SingleStageDetector.run``."""
        levels = []
        for (stride, sides), rows in zip(
            _LEVELS, _session().run(None, {"photos": images}), strict=True
        ):
            scores = 1 / (1 + np.exp(-rows[..., 0] / _TEMPERATURE))
            image, cell, anchor = np.nonzero(scores >= self.min_score)
            columns = images.shape[2] // stride
            middle = (
                np.stack([cell % columns, cell // columns], axis=1) + np.float32(0.5)
            ) * stride
            side = np.array(sides, np.float32)[anchor, np.newaxis]
            found = rows[image, cell, anchor]
            points = found[:, 5:].reshape(-1, 5, 2) * _PLACE_VARIANCE * side[:, np.newaxis]
            levels.append(
                Detections(
                    image,
                    scores[image, cell, anchor],
                    middle + found[:, 1:3] * _PLACE_VARIANCE * side,
                    side * np.exp(found[:, 3:5] * _SIDE_VARIANCE),
                    middle[:, np.newaxis] + points,
                )
            )
        return Detections.joined(levels)


@lru_cache(maxsize=1)
def _session() -> Any:
    """The network, shared by all threads; it takes one core, as YuNet's does."""
    onnxruntime = import_onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(_network(), options, ["CPUExecutionProvider"])


def _network() -> bytes:
    """The network in ONNX, from the cache, or converted now and cached if the cache is writable."""
    content = read_verified("retinaface")
    releases = [f"{name} {metadata.version(name)}" for name in ("keras", "tensorflow", "tf2onnx")]
    used = "\n".join([hashlib.sha256(content).hexdigest(), __version__, *releases])
    short = hashlib.sha256(used.encode()).hexdigest()[:16]
    return cached(f"retinaface-{short}.network", lambda: _converted(content), bytes)


def _converted(content: bytes) -> bytes:
    """Convert the network to ONNX, by Keras on TensorFlow."""
    model = build_retinaface(content)
    import keras

    if keras.config.backend() != "tensorflow":
        raise InputError(
            'the detector "retinaface" is converted at its first use by Keras on TensorFlow '
            f"(KERAS_BACKEND=tensorflow). Received: {keras.config.backend()!r}"
        )
    with (
        tempfile.TemporaryDirectory(prefix="face_encode-") as folder,
        warnings.catch_warnings(),
        without_native_notices(),
        redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        path = Path(folder, "network.onnx")
        # Keras exports only a model that was called.
        model(np.zeros((1, STRIDE, STRIDE, 3), np.uint8))
        model.export(str(path), format="onnx", verbose=False)
        return path.read_bytes()


def build_retinaface(content: bytes) -> keras.Model:
    """Build the network, with the weights of a file of Pytorch_Retinaface.

    Args:
        content: The whole file, a state dict.

    Returns:
        Photos uint8 ``(N, H, W, 3)``, RGB, H and W multiples of 32, to three arrays, one a stride:
        float32 ``(N, cells, 2, 15)``, for both anchors the logit of a face, the offsets of the
        frame (centre, logarithms of its sides) and those of the five points.

    Raises:
        WeightsError: A file of another network.
    """
    import_keras()
    import keras
    from keras import layers

    tensors = {
        name.removeprefix("module."): each
        for name, each in read_state_dict(content, _MOST_NUMBERS).items()
    }
    planned: list[tuple[Any, list[npt.NDArray[np.float32]]]] = []

    def taken(name: str, *shape: int) -> npt.NDArray[np.float32]:
        tensor = tensors.pop(name, None)
        if tensor is None or tensor.shape != shape:
            received = "nothing" if tensor is None else str(tensor.shape)
            raise WeightsError(
                f"the weights of RetinaFace have {name!r} of shape {shape}. Received: {received}"
            )
        return np.asarray(tensor, np.float32)

    def convolved(
        x: Any,
        name: str,
        filters: int,
        window: int,
        stride: int = 1,
        *,
        norm: str = "",
        depthwise: bool = False,
    ) -> Any:
        """Convolve; the batch normalisation that follows is folded into the kernel."""
        channels = x.shape[-1]
        kernel = taken(f"{name}.weight", filters, 1 if depthwise else channels, window, window)
        if norm:
            gain = taken(f"{norm}.weight", filters)
            mean, variance = (
                taken(f"{norm}.running_mean", filters),
                taken(f"{norm}.running_var", filters),
            )
            factor = gain / np.sqrt(variance + _EPSILON)
            kernel = kernel * factor[:, np.newaxis, np.newaxis, np.newaxis]
            bias = taken(f"{norm}.bias", filters) - mean * factor
        else:
            bias = taken(f"{name}.bias", filters)
        if window == 3:
            x = layers.ZeroPadding2D(1)(x)
        if depthwise:
            layer = layers.DepthwiseConv2D(window, stride)
            kernel = kernel.transpose(2, 3, 0, 1)
        else:
            layer = layers.Conv2D(filters, window, stride)
            kernel = kernel.transpose(2, 3, 1, 0)
        planned.append((layer, [kernel, bias]))
        return layer(x)

    def block(x: Any, name: str, filters: int, window: int, stride: int = 1) -> Any:
        x = convolved(x, f"{name}.0", filters, window, stride, norm=f"{name}.1")
        return layers.LeakyReLU(_SLOPE)(x)

    def separable(x: Any, name: str, filters: int, stride: int) -> Any:
        x = convolved(x, f"{name}.0", x.shape[-1], 3, stride, norm=f"{name}.1", depthwise=True)
        x = layers.LeakyReLU(_SLOPE)(x)
        x = convolved(x, f"{name}.3", filters, 1, norm=f"{name}.4")
        return layers.LeakyReLU(_SLOPE)(x)

    def context(x: Any, name: str) -> Any:
        def bare(x: Any, part: str, filters: int) -> Any:
            return convolved(x, f"{name}.{part}.0", filters, 3, norm=f"{name}.{part}.1")

        narrow = bare(x, "conv3X3", 32)
        shared = block(x, f"{name}.conv5X5_1", 16, 3)
        middle = bare(shared, "conv5X5_2", 16)
        wide = bare(block(shared, f"{name}.conv7X7_2", 16, 3), "conv7x7_3", 16)
        return layers.ReLU()(layers.Concatenate()([narrow, middle, wide]))

    photos = layers.Input((None, None, 3), dtype="uint8", name="photos")
    x = layers.Rescaling(1.0, offset=[-each for each in _MEAN_RGB])(photos)
    # The weights are for BGR.
    tensors["body.stage1.0.0.weight"] = taken("body.stage1.0.0.weight", 8, 3, 3, 3)[:, ::-1]
    x = block(x, "body.stage1.0", 8, 3, 2)
    stages = []
    for name, first, widths in (
        ("stage1", 1, ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1))),
        ("stage2", 0, ((128, 2), *[(128, 1)] * 5)),
        ("stage3", 0, ((256, 2), (256, 1))),
    ):
        for index, (filters, stride) in enumerate(widths, first):
            x = separable(x, f"body.{name}.{index}", filters, stride)
        stages.append(x)
    fine, medium, coarse = (
        block(x, f"fpn.output{index}", 64, 1) for index, x in enumerate(stages, 1)
    )
    medium = layers.Add()([medium, layers.UpSampling2D(2)(coarse)])
    medium = block(medium, "fpn.merge2", 64, 3)
    fine = layers.Add()([fine, layers.UpSampling2D(2)(medium)])
    fine = block(fine, "fpn.merge1", 64, 3)
    outputs = []
    for index, x in enumerate((fine, medium, coarse)):
        x = context(x, f"ssh{index + 1}")
        classes, frames, points = (
            layers.Reshape((-1, 2, width))(convolved(x, f"{head}.{index}.conv1x1", 2 * width, 1))
            for head, width in (("ClassHead", 2), ("BboxHead", 4), ("LandmarkHead", 10))
        )
        evidence = layers.Subtract()([classes[..., 1:], classes[..., :1]])
        outputs.append(layers.Concatenate()([evidence, frames, points]))
    # Counters of the training, no weights.
    rest = [name for name in tensors if not name.endswith("num_batches_tracked")]
    if rest:
        raise WeightsError(f"the weights of RetinaFace have no {rest[0]!r}")
    model = keras.Model(photos, outputs, name="retinaface")
    for layer, arrays in planned:
        layer.set_weights(arrays)
    return model
