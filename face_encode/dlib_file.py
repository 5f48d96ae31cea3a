"""A reader of the networks that dlib serializes into ``.dat`` files, with nothing but numpy.

The format is one stream without an index: first the versions of the nested layers, outermost
before innermost, then the layers' own contents, innermost before outermost, that is, in the order
of execution. So the file reads as a flat list of layers. Integers are a control byte (the sign, and
how many bytes follow) and little-endian bytes; a floating-point number is two such integers,
mantissa and exponent of two; tensors are raw little-endian float32; booleans are the ASCII
characters 0 and 1. Source: ``serialize.h`` and ``dnn/layers.h`` of dlib.
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
            ``affine``: scale and shift ``(channels,)``, or those that a batch normalisation amounts
            to; ``fc``: the matrix ``(in, out)``; ``input``: the mean colour ``(3,)``; otherwise
            empty.
        sizes: ``con`` and pools: rows, columns, vertical and horizontal stride and padding;
            ``input``: height and width of the image, if the network takes one size only; otherwise
            empty.
    """

    kind: str
    weights: tuple[FloatArray, ...] = ()
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class DlibDetectorOptions:
    """Options by which the scores of a max-margin object detector become boxes.

    Attributes:
        width: Width of the window around each score, in pixels.
        height: Height of the window.
        largest_overlap: Of two boxes that share a larger part of the smallest rectangle round
            both, the one with the lower score is dropped.
        largest_cover: The same, for a larger part of either box.
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
        WeightsError: Another file, a damaged one, or one with bytes left over.
    """
    reader = _Reader(content)
    reader.integer()
    reader.expect("loss_metric_2")
    reader.skip_reals(2)  # margin and distance threshold of the loss
    return reader.layers("input_rgb_image_sized", sizes=2)


def read_dlib_detector(content: bytes) -> tuple[DlibDetectorOptions, list[DlibLayer]]:
    """Read a max-margin object detector of dlib, its layers in the order of execution.

    Args:
        content: The whole file.

    Raises:
        WeightsError: Another file, a damaged one, or one with bytes left over.
    """
    reader = _Reader(content)
    reader.integer()
    reader.expect("loss_mmod_")
    if reader.integer() != 1:
        raise reader.damaged("a detector with one window was expected")
    width, height = reader.integer(), reader.integer()
    reader.skip_reals(3)  # loss of a false alarm, of a missed target; overlap that counts as hit
    options = DlibDetectorOptions(width, height, reader.real(), reader.real())
    reader.skip_reals(2)  # overlap with a region to ignore; the same, as a part of either
    return options, reader.layers("input_rgb_image_pyramid", sizes=0)


def read_dlib_filters(content: bytes) -> tuple[int, npt.NDArray[np.float64]]:
    """Read the filters of a detector on histograms of gradients.

    Args:
        content: The file from the end of the detection window's description on.

    Returns:
        Where the filters begin; the filters, float64, a row each, its bias last.

    Raises:
        WeightsError: A damaged file.
    """
    reader = _Reader(content)
    reader.real()  # strength of the regularisation
    reader.integer()  # numbers a filter
    reader.skip_reals(2)  # overlaps from which on one of two boxes is dropped
    start, filters = reader.position, []
    for _ in range(reader.integer()):
        rows, _columns = reader.integer(), reader.integer()
        filters.append([reader.real() for _ in range(abs(rows))])
    return start, np.array(filters)


def write_dlib_filters(filters: npt.NDArray[np.float64]) -> bytes:
    """Write filters as ``read_dlib_filters`` reads them."""
    numbers = [len(filters)]
    for row in filters.tolist():
        # dlib tells this form of a matrix from a former one by negative sizes.
        numbers += [-len(row), -1]
        for value in row:
            mantissa, exponent = math.frexp(value)
            numbers += [int(mantissa * 2**53), exponent - 53]
    return b"".join(
        bytes([length | (number < 0) << 7]) + abs(number).to_bytes(length, "little")
        for number in numbers
        for length in [max(1, (abs(number).bit_length() + 7) // 8)]
    )


class _Reader:
    """A cursor over the file's content."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0

    def layers(self, input_name: str, sizes: int) -> list[DlibLayer]:
        """Read the input layer and all layers after it."""
        start = bytes([1, len(input_name)]) + input_name.encode()
        while not self.content.startswith(start, self.position):
            self.integer()  # the versions of the nested layers
        layers = [self.input(input_name, sizes)]
        while self.position < len(self.content):
            layers.append(self.layer())
            if len(layers) == 2:
                self.integer()  # samples that the input layer makes of one image
        return layers

    def layer(self) -> DlibLayer:
        """Read one layer and the bookkeeping after it."""
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
            self.skip_boolean()  # state of the training
        for _ in range(3):
            self.tensor()  # gradients and the last output, empty in a cleaned network
        return layer

    def input(self, name: str, sizes: int) -> DlibLayer:
        """Read the input layer: the mean colour in RGB, and the size if it has one."""
        self.expect(name)
        mean = np.array([self.real() for _ in range(3)], np.float32)
        return DlibLayer("input", (mean,), tuple(self.integer() for _ in range(sizes)))

    def convolution(self) -> DlibLayer:
        """Read a convolution: its biases follow its filters in one tensor."""
        parameters = self.tensor().ravel()
        count = self.integer()
        rows, columns, *rest = (self.integer() for _ in range(6))
        shape = self.alias()
        bias_shape = self.alias()
        self.skip_reals(4)  # multipliers of learning rate and weight decay
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
        """Read an affine layer: its shift follows its scale in one tensor."""
        parameters = self.tensor().ravel()
        channels = math.prod(self.alias())
        self.alias()
        self.integer()  # convolutional or fully connected
        if parameters.size != 2 * channels:
            raise self.damaged("an affine layer's weights do not fit its shape")
        return DlibLayer("affine", (parameters[:channels], parameters[channels:]))

    def normalization(self) -> DlibLayer:
        """Read a batch normalisation, as the affine layer that it amounts to after training."""
        parameters = self.tensor().ravel()
        channels = math.prod(self.alias())
        self.alias()
        self.tensor()  # means of the last batch
        self.tensor()  # inverse deviations of the last batch
        means, variances = self.tensor().ravel(), self.tensor().ravel()
        self.integer()  # number of updates of the running means
        self.integer()  # number of batches that they run over
        self.skip_reals(4)  # multipliers of learning rate and weight decay
        epsilon = np.float32(self.real())
        if not parameters.size == 2 * channels == 2 * means.size == 2 * variances.size:
            raise self.damaged("a batch normalisation's weights do not fit its shape")
        scale = parameters[:channels] / np.sqrt(variances + epsilon)
        return DlibLayer("affine", (scale, parameters[channels:] - scale * means))

    def pool(self, kind: str) -> DlibLayer:
        """Read a pool's window, stride and padding."""
        return DlibLayer(kind, (), tuple(self.integer() for _ in range(6)))

    def fully_connected(self) -> DlibLayer:
        """Read a matrix; the one of dlib's face network has no bias."""
        outputs, inputs = self.integer(), self.integer()
        parameters = self.tensor()
        self.alias()
        self.alias()
        self.integer()  # with or without bias
        self.skip_reals(4)  # multipliers of learning rate and weight decay
        if parameters.size != outputs * inputs:
            raise self.damaged("the last layer's weights do not fit its shape")
        return DlibLayer("fc", (parameters.reshape(inputs, outputs),))

    def damaged(self, reason: str) -> WeightsError:
        """Make an error that names the position."""
        return WeightsError(f"not a dlib network, or damaged, at byte {self.position}: {reason}")

    def take(self, count: int) -> bytes:
        """Read the next bytes."""
        taken = self.content[self.position : self.position + count]
        if len(taken) < count:
            raise self.damaged("the file ends too early")
        self.position += count
        return taken

    def integer(self) -> int:
        """Read an integer: a control byte, then up to eight bytes."""
        control = self.take(1)[0]
        if control & 0x70 or control & 0x0F > 8:
            raise self.damaged("an integer was expected")
        value = int.from_bytes(self.take(control & 0x0F), "little")
        return -value if control & 0x80 else value

    def real(self) -> float:
        """Read a floating-point number: mantissa times two to the exponent."""
        return math.ldexp(self.integer(), self.integer())

    def skip_reals(self, count: int) -> None:
        """Pass over floating-point numbers."""
        for _ in range(count):
            self.real()

    def skip_boolean(self) -> None:
        """Pass over a boolean: one ASCII character."""
        if self.take(1) not in b"01":
            raise self.damaged("a boolean was expected")

    def string(self) -> str:
        """Read a string: its length, then its characters."""
        return self.take(self.integer()).decode("latin-1")

    def expect(self, name: str) -> None:
        """Refuse any other string than this one."""
        received = self.string()
        if received != name:
            raise self.damaged(f"{name!r} was expected. Received: {received!r}")

    def tensor(self) -> FloatArray:
        """Read a tensor: a version, four sizes, then the values."""
        if self.integer() != 2:
            raise self.damaged("a tensor was expected")
        shape = tuple(self.integer() for _ in range(4))
        if min(shape) < 0:
            raise self.damaged("a tensor of negative size")
        values = np.frombuffer(self.take(4 * math.prod(shape)), "<f4")
        return values.reshape(shape).astype(np.float32)

    def alias(self) -> tuple[int, ...]:
        """Read the shape of a view into a tensor: a version, then four sizes."""
        if self.integer() != 1:
            raise self.damaged("the shape of a part of a tensor was expected")
        return tuple(self.integer() for _ in range(4))
