"""Reads a network that dlib serialized into a ``.dat`` file, with nothing but numpy.

The format has no index: it is one stream in which the versions of the nested layers come first,
outermost before innermost, and the layers' own contents after them, innermost before outermost:
that is, in the order of execution. So the file reads as a flat list of layers. Integers are a
control byte (how many bytes follow, and the sign) and little-endian bytes; a floating-point
number is two such integers, mantissa and exponent of two; tensors are raw little-endian float32;
booleans are the ASCII characters 0 and 1. Source: ``serialize.h`` and ``dnn/layers.h`` of dlib.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.errors import WeightsError

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class DlibLayer:
    """One layer of the file.

    Attributes:
        kind: ``input``, ``con``, ``affine``, ``relu``, ``max_pool``, ``avg_pool``,
            ``add_prev`` or ``fc``.
        weights: ``con``: the filters ``(out, in, rows, columns)`` and biases ``(out,)``;
            ``affine``: scale and shift ``(channels,)``, those of a batch normalisation where
            the file still has one; ``fc``: the matrix ``(in, out)``; ``input``: the mean colour
            ``(3,)``; otherwise nothing.
        sizes: ``con`` and pools: rows, columns, vertical and horizontal stride and padding;
            ``input``: rows and columns of the picture, where the network takes one size only;
            otherwise nothing.
    """

    kind: str
    weights: tuple[FloatArray, ...] = ()
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class DlibDetectorOptions:
    """How the scores of a max-margin object detector become boxes.

    Attributes:
        width: Width of the window around each score, in pixels.
        height: Height of the window.
        largest_overlap: Of two boxes that share a larger part of the smallest rectangle round
            both, the one with the lower score is dropped.
        largest_cover: The same, where they share a larger part of either.
    """

    width: int
    height: int
    largest_overlap: float
    largest_cover: float


def read_dlib_network(content: bytes) -> list[DlibLayer]:
    """Read a metric-learning network of dlib in the order of execution.

    Args:
        content: The whole file.

    Raises:
        WeightsError: Not such a file, or anything in it is left over.
    """
    return _Reader(content).metric_network()


def read_dlib_detector(content: bytes) -> tuple[DlibDetectorOptions, list[DlibLayer]]:
    """Read a max-margin object detector of dlib, its layers in the order of execution.

    Args:
        content: The whole file.

    Raises:
        WeightsError: Not such a file, or anything in it is left over.
    """
    return _Reader(content).detector()


class _Reader:
    """A cursor over the file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0

    def metric_network(self) -> list[DlibLayer]:
        """The layers, up to the very last byte."""
        self.integer()
        self.expect("loss_metric_2")
        self.real()  # margin of the loss
        self.real()  # distance threshold of the loss
        return self.layers("input_rgb_image_sized", sizes=2)

    def detector(self) -> tuple[DlibDetectorOptions, list[DlibLayer]]:
        """The options and the layers, up to the very last byte."""
        self.integer()
        self.expect("loss_mmod_")
        if self.integer() != 1:
            raise self.damaged("a detector with one window was expected")
        width, height = self.integer(), self.integer()
        self.real()  # the loss of a false alarm
        self.real()  # the loss of a missed target
        self.real()  # the overlap from which on a target counts as hit
        options = DlibDetectorOptions(width, height, self.real(), self.real())
        self.real()  # the overlap with a region to ignore
        self.real()  # the same, as a part of either
        return options, self.layers("input_rgb_image_pyramid", sizes=0)

    def layers(self, input_name: str, sizes: int) -> list[DlibLayer]:
        """The input layer, and all that follow."""
        start = bytes([1, len(input_name)]) + input_name.encode()
        while not self.content.startswith(start, self.position):
            self.integer()  # the versions of the nested layers
        layers = [self.input(input_name, sizes)]
        first = True
        while self.position < len(self.content):
            layers.append(self.layer())
            if first:
                self.integer()  # how many samples the input layer makes of one picture
                first = False
        return layers

    def layer(self) -> DlibLayer:
        """One layer and the bookkeeping behind it."""
        name = self.string()
        # The bookkeeping starts with three booleans, and relu_ and add_prev_ have no contents
        # of their own.
        readers = {
            "con_4": self.convolution,
            "affine_": self.affine,
            "bn_con2": self.normalization,
            "relu_": lambda: DlibLayer("relu"),
            "add_prev_": lambda: DlibLayer("add_prev"),
            "max_pool_2": lambda: self.pool("max_pool"),
            "avg_pool_2": lambda: self.pool("avg_pool"),
            "fc_2": self.fully_connected,
        }
        if name not in readers:
            raise WeightsError(
                f"unknown layer in the dlib file at byte {self.position}: one of "
                f"{', '.join(readers)} is expected. Received: {name!r}"
            )
        layer = readers[name]()
        for _ in range(3):
            self.boolean()  # what training has set up
        for _ in range(3):
            self.tensor()  # gradients and the last output, empty in a cleaned network
        return layer

    def input(self, name: str, sizes: int) -> DlibLayer:
        """The input layer: the mean colour in RGB, and the size where it has one."""
        self.expect(name)
        mean = np.array([self.real() for _ in range(3)], np.float32)
        return DlibLayer("input", (mean,), tuple(self.integer() for _ in range(sizes)))

    def convolution(self) -> DlibLayer:
        """Filters and biases lie one behind the other in one tensor."""
        parameters = self.tensor().ravel()
        count = self.integer()
        rows, columns, *rest = (self.integer() for _ in range(6))
        shape = self.alias()
        bias_shape = self.alias()
        for _ in range(4):
            self.real()  # multipliers of learning rate and weight decay
        if shape[0] != count or math.prod(bias_shape) != count:
            raise self.damaged("a convolution's filters and biases differ in number")
        if math.prod(shape) + count != parameters.size or shape[2:] != (rows, columns):
            raise self.damaged("a convolution's weights do not fit its shape")
        return DlibLayer(
            "con",
            (parameters[:-count].reshape(shape), parameters[-count:]),
            (rows, columns, *rest),
        )

    def affine(self) -> DlibLayer:
        """Scale and shift lie one behind the other in one tensor."""
        parameters = self.tensor().ravel()
        channels = math.prod(self.alias())
        self.alias()
        self.integer()  # convolutional or fully connected
        if parameters.size != 2 * channels:
            raise self.damaged("an affine layer's weights do not fit its shape")
        return DlibLayer("affine", (parameters[:channels], parameters[channels:]))

    def normalization(self) -> DlibLayer:
        """A batch normalisation, as the affine layer that it is outside training."""
        parameters = self.tensor().ravel()
        channels = math.prod(self.alias())
        self.alias()
        self.tensor()  # means of the last batch
        self.tensor()  # inverse deviations of the last batch
        means, variances = self.tensor().ravel(), self.tensor().ravel()
        self.integer()  # how often the running means were updated
        self.integer()  # over how many batches they run
        for _ in range(4):
            self.real()  # multipliers of learning rate and weight decay
        epsilon = np.float32(self.real())
        if not parameters.size == 2 * channels == 2 * means.size == 2 * variances.size:
            raise self.damaged("a batch normalisation's weights do not fit its shape")
        scale = parameters[:channels] / np.sqrt(variances + epsilon)
        return DlibLayer("affine", (scale, parameters[channels:] - scale * means))

    def pool(self, kind: str) -> DlibLayer:
        """Window, stride and padding."""
        return DlibLayer(kind, (), tuple(self.integer() for _ in range(6)))

    def fully_connected(self) -> DlibLayer:
        """The matrix; dlib's face network has no bias in it."""
        outputs, inputs = self.integer(), self.integer()
        parameters = self.tensor()
        self.alias()
        self.alias()
        self.integer()  # with or without bias
        for _ in range(4):
            self.real()  # multipliers of learning rate and weight decay
        if parameters.size != outputs * inputs:
            raise self.damaged("the last layer's weights do not fit its shape")
        return DlibLayer("fc", (parameters.reshape(inputs, outputs),))

    def damaged(self, reason: str) -> WeightsError:
        """An error that says where."""
        return WeightsError(f"not a dlib network, or damaged, at byte {self.position}: {reason}")

    def take(self, count: int) -> bytes:
        """The next bytes."""
        taken = self.content[self.position : self.position + count]
        if len(taken) < count:
            raise self.damaged("the file ends too early")
        self.position += count
        return taken

    def integer(self) -> int:
        """A control byte, then up to eight bytes."""
        control = self.take(1)[0]
        if control & 0x70 or control & 0x0F > 8:
            raise self.damaged("an integer was expected")
        value = int.from_bytes(self.take(control & 0x0F), "little")
        return -value if control & 0x80 else value

    def real(self) -> float:
        """Mantissa times two to the exponent."""
        mantissa, exponent = self.integer(), self.integer()
        return math.ldexp(mantissa, exponent)

    def boolean(self) -> bool:
        """One ASCII character."""
        character = self.take(1)
        if character not in b"01":
            raise self.damaged("a boolean was expected")
        return character == b"1"

    def string(self) -> str:
        """A length, then the characters."""
        return self.take(self.integer()).decode("latin-1")

    def expect(self, name: str) -> None:
        """The next string has to be this one."""
        received = self.string()
        if received != name:
            raise self.damaged(f"{name!r} was expected. Received: {received!r}")

    def tensor(self) -> FloatArray:
        """A version, four sizes, then the values."""
        if self.integer() != 2:
            raise self.damaged("a tensor was expected")
        shape = tuple(self.integer() for _ in range(4))
        if min(shape) < 0:
            raise self.damaged("a tensor of negative size")
        values = np.frombuffer(self.take(4 * math.prod(shape)), "<f4")
        return values.reshape(shape).astype(np.float32)

    def alias(self) -> tuple[int, ...]:
        """A view into a tensor: a version, then four sizes."""
        if self.integer() != 1:
            raise self.damaged("the shape of a part of a tensor was expected")
        return tuple(self.integer() for _ in range(4))
