"""MiniFASNet V2 and V1SE (Minivision, 2020) as one native Keras functional model.

Two networks look at a face with little and with much around it, each at a crop of 80x80 pixels, and
tell three things apart: a live face, and two kinds of copies held up, on paper or on a screen. They
are MobileFaceNets with most channels pruned away, every block by another share. The weights are
those of github.com/minivision-ai/Silent-Face-Anti-Spoofing; each batch normalisation is folded into
the convolution before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import WeightsError
from face_encode.torch_file import read_state_dict
from face_encode.types import CropRecipe

if TYPE_CHECKING:
    import keras

FloatArray = npt.NDArray[np.float64]

SIDE = 80
"""Height and width of each crop, in pixels."""

LIVE = 1
"""The place of the live faces among the three classes."""

# PyTorch's default for batch normalisation.
_EPSILON = 1e-5
_WIDTH, _FEATURES, _CLASSES = 512, 128, 3
_MOST_NUMBERS = 500_000

# Channels within each block of the stages, which begin with a block of stride 2.
_V1_CHANNELS = {
    "conv_23": 103,
    "conv_3": (13, 26, 13, 52),
    "conv_34": 231,
    "conv_4": (154, 52, 26, 52, 26, 26),
    "conv_45": 308,
    "conv_5": (26, 26),
}


@dataclass(frozen=True)
class Part:
    """One of the two networks.

    Attributes:
        name: Its name, and that of its file in ``KNOWN_WEIGHTS``.
        margin: The share of the face's box that it sees on every side.
        channels: Channels within the blocks, by stage.
        squeezes: Whether the last block of each stage weighs its channels (Hu et al., 2018).
    """

    name: str
    margin: float
    channels: dict[str, Any]
    squeezes: bool

    @property
    def crop(self) -> CropRecipe:
        """How its faces are cut out."""
        return CropRecipe("surroundings", SIDE, SIDE, self.margin)


PARTS = (
    Part(
        "minifasnet_v2",
        # 2.7 times the box.
        0.85,
        _V1_CHANNELS | {"conv_3": (13, 13, 13, 13), "conv_4": (231, 52, 26, 77, 26, 26)},
        squeezes=False,
    ),
    # 4 times the box.
    Part("minifasnet_v1se", 1.5, _V1_CHANNELS, squeezes=True),
)

LIVENESS_CROP = CropRecipe.stacked([part.crop for part in PARTS])
"""How faces are cut out for ``minifasnet``."""


def minifasnet(contents: Sequence[bytes]) -> keras.Model:
    """Build both networks, with the weights of their authors' files.

    Args:
        contents: The files of ``PARTS``, whole, in their order.

    Returns:
        RGB 0..255, float32 ``(N, 160, 80, 3)`` in, both crops one below the other; float32 ``(N,
        3)`` out, probabilities that sum to 1, the mean of both networks'; ``LIVE`` is the live
        faces' one.

    Raises:
        WeightsError: Another file, or a damaged one.
    """
    import keras

    inputs = keras.Input((LIVENESS_CROP.height, LIVENESS_CROP.width, 3), name="rgb")
    ends = []
    for part, content, (rows, _) in zip(PARTS, contents, LIVENESS_CROP.places(), strict=True):
        cut = ((rows.start, LIVENESS_CROP.height - rows.stop), (0, 0))
        x = keras.layers.Cropping2D(cut, name=f"{part.name}_crop")(inputs)
        ends.append(_build(part, content)(x))
    return keras.Model(inputs, keras.layers.Average(name="probabilities")(ends), name="minifasnet")


def _build(part: Part, content: bytes) -> keras.Model:
    """Build one network: RGB 0..255 ``(N, 80, 80, 3)`` in, three probabilities out."""
    import keras
    from keras import layers

    file = _WeightsFile(part.name, content)
    planned: list[tuple[Any, list[FloatArray]]] = []

    def convolve(
        x: Any, name: str, norm: str, channels: int, window: int = 1, **options: Any
    ) -> Any:
        """Convolve, depthwise where asked to, with the batch normalisation that follows."""
        depthwise, stride = options.get("depthwise", False), options.get("stride", 1)
        inside = 1 if depthwise else x.shape[-1]
        kernel = file.take(f"{name}.weight", channels, inside, window, window)
        factor, bias = file.normalisation(norm, channels)
        kernel = kernel * factor[:, np.newaxis, np.newaxis, np.newaxis]
        if stride == 2:
            # Keras' own "same" would pad at the right and at the bottom only.
            x = layers.ZeroPadding2D(1)(x)
        padding = "same" if window == 3 and stride == 1 else "valid"
        # PyTorch has (out, in, rows, columns).
        if depthwise:
            layer = layers.DepthwiseConv2D(window, stride, padding)
            kernel = kernel.transpose(2, 3, 0, 1)
        else:
            layer = layers.Conv2D(channels, window, stride, padding)
            kernel = kernel.transpose(2, 3, 1, 0)
        planned.append((layer, [kernel, bias]))
        return layer(x)

    def activated(x: Any, name: str, channels: int, window: int = 1, **options: Any) -> Any:
        x = convolve(x, f"{name}.conv", f"{name}.bn", channels, window, **options)
        layer = layers.PReLU(shared_axes=[1, 2])
        planned.append((layer, [file.take(f"{name}.prelu.weight", channels).reshape(1, 1, -1)]))
        return layer(x)

    def squeezed(x: Any, name: str) -> Any:
        """Weigh the channels by what each has in it over the whole crop."""
        channels = x.shape[-1]
        weights = layers.GlobalAveragePooling2D(keepdims=True)(x)
        weights = convolve(weights, f"{name}.fc1", f"{name}.bn1", channels // 4)
        weights = layers.ReLU()(weights)
        weights = convolve(weights, f"{name}.fc2", f"{name}.bn2", channels)
        return layers.Multiply()([x, layers.Activation("sigmoid")(weights)])

    def block(x: Any, name: str, within: int, out: int, stride: int, squeezes: bool) -> Any:
        end = activated(x, f"{name}.conv", within)
        end = activated(end, f"{name}.conv_dw", within, 3, depthwise=True, stride=stride)
        end = convolve(end, f"{name}.project.conv", f"{name}.project.bn", out)
        if squeezes:
            end = squeezed(end, f"{name}.se_module")
        return end if stride == 2 else layers.Add()([x, end])

    # The weights are for BGR.
    file.tensors["conv1.conv.weight"] = file.take("conv1.conv.weight", 32, 3, 3, 3)[:, ::-1]
    inputs = keras.Input((SIDE, SIDE, 3))
    x = activated(inputs, "conv1", 32, 3, stride=2)
    x = activated(x, "conv2_dw", 32, 3, depthwise=True)
    for entry, stage, width in (
        ("conv_23", "conv_3", 64),
        ("conv_34", "conv_4", 128),
        ("conv_45", "conv_5", 128),
    ):
        x = block(x, entry, part.channels[entry], width, 2, False)
        last = len(part.channels[stage]) - 1
        for number, within in enumerate(part.channels[stage]):
            name = f"{stage}.model.{number}"
            x = block(x, name, within, width, 1, part.squeezes and number == last)
    x = activated(x, "conv_6_sep", _WIDTH)
    window = x.shape[1]
    x = convolve(x, "conv_6_dw.conv", "conv_6_dw.bn", _WIDTH, window, depthwise=True)
    # Two layers without anything between them but a normalisation are one.
    factor, bias = file.normalisation("bn", _FEATURES)
    classes = file.take("prob.weight", _CLASSES, _FEATURES)
    features = file.take("linear.weight", _FEATURES, _WIDTH) * factor[:, np.newaxis]
    layer = layers.Dense(_CLASSES, "softmax")
    planned.append((layer, [(classes @ features).T, classes @ bias]))
    model = keras.Model(inputs, layer(layers.Flatten()(x)), name=part.name)
    file.check_empty()
    for layer, arrays in planned:
        layer.set_weights(arrays)
    return model


class _WeightsFile:
    """The arrays of a weights file, which are taken out one by one."""

    def __init__(self, name: str, content: bytes) -> None:
        """Read a state dict, saved with or without ``DataParallel`` around the network."""
        self.name = name
        self.tensors = {
            key.removeprefix("module."): np.asarray(value, np.float64)
            for key, value in read_state_dict(content, _MOST_NUMBERS).items()
        }

    def take(self, key: str, *shape: int) -> FloatArray:
        """Take an array of this shape."""
        tensor = self.tensors.pop(key, None)
        if tensor is None or tensor.shape != shape:
            received = "nothing" if tensor is None else str(tensor.shape)
            raise WeightsError(
                f"the weights of {self.name} have {key!r} of shape {shape}. Received: {received}"
            )
        return tensor

    def normalisation(self, name: str, channels: int) -> tuple[FloatArray, FloatArray]:
        """Take a batch normalisation: the factor and the offset that it comes to."""
        gain, offset, mean, variance = (
            self.take(f"{name}.{key}", channels)
            for key in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gain / np.sqrt(variance + _EPSILON)
        return factor, offset - mean * factor

    def check_empty(self) -> None:
        """Refuse arrays that no layer takes; counters of the training are no weights."""
        rest = [key for key in self.tensors if not key.endswith("num_batches_tracked")]
        if rest:
            raise WeightsError(f"the weights of {self.name} have no {rest[0]!r}")
