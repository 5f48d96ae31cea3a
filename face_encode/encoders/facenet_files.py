"""Reads the tensors that PyTorch saved into a file, with nothing but numpy.

The file is a pickle beside the numbers of its tensors; the pickle is followed, not run, by
:mod:`face_encode.encoders.facenet_files`.

Two containers hold the pickle: since PyTorch 1.6 a zip archive with the numbers of each storage
in a member of its own, stored without compression; before, five pickles in a row (a magic number, a
version, the machine's habits, the object, the storages' names) and then the numbers of each
storage behind a count. Source: ``torch/serialization.py`` and ``torch/_utils.py``.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from face_encode.errors import WeightsError

STORAGE_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""numpy's type for the numbers of each kind of storage; bfloat16, which numpy lacks, as uint16."""

_MARK = object()
_PLAIN_VALUES = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "LONG4",
    "BINFLOAT",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
}


@dataclass(frozen=True)
class _Global:
    """A name in the file: text, nothing more."""

    name: str


@dataclass(frozen=True)
class TorchStorage:
    """Numbers that one or more tensors lie in."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class TorchTensor:
    """A view of a storage: where it starts, its shape, and its steps in numbers."""

    storage: TorchStorage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def follow_pickle(stream: io.BytesIO, seen: dict[str, TorchStorage] | None = None) -> Any:
    """Follow one pickle up to its end.

    Args:
        stream: Left right behind the pickle.
        seen: Takes up the storages that the pickle names, by their keys.

    Returns:
        Dictionaries, lists, tuples, numbers and text, with each tensor as a ``TorchTensor``.

    Raises:
        WeightsError: It takes a step that no dictionary of tensors takes, or asks for a name.
    """
    return _Interpreter({} if seen is None else seen).follow(stream)


class _Interpreter:
    """A stack and a memo, as the format asks for."""

    def __init__(self, seen: dict[str, TorchStorage]) -> None:
        self.seen = seen
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def follow(self, stream: io.BytesIO) -> Any:
        """The steps one after the other; the value on top of the stack at the end."""
        steps: dict[str, Callable[[Any], None]] = {
            "GLOBAL": lambda name: self.push(_Global(name.replace(" ", "."))),
            "STACK_GLOBAL": self.name_from_stack,
            "MARK": lambda _: self.push(_MARK),
            "EMPTY_DICT": lambda _: self.push({}),
            "EMPTY_LIST": lambda _: self.push([]),
            "EMPTY_TUPLE": lambda _: self.push(()),
            "NONE": lambda _: self.push(None),
            "NEWTRUE": lambda _: self.push(True),
            "NEWFALSE": lambda _: self.push(False),
            "TUPLE": lambda _: self.push(tuple(self.above_mark())),
            "TUPLE1": lambda _: self.push(tuple(self.take(1))),
            "TUPLE2": lambda _: self.push(tuple(self.take(2))),
            "TUPLE3": lambda _: self.push(tuple(self.take(3))),
            "APPEND": lambda _: self.append(self.take(1)),
            "APPENDS": lambda _: self.append(self.above_mark()),
            "SETITEM": lambda _: self.set_items(self.take(2)),
            "SETITEMS": lambda _: self.set_items(self.above_mark()),
            "MEMOIZE": lambda _: self.remember(len(self.memo)),
            "REDUCE": lambda _: self.push(self.made(*self.take(2))),
            "BUILD": lambda _: self.pass_over_attributes(),
            "BINPERSID": lambda _: self.push(self.storage(self.take(1)[0])),
        }
        for opcode, argument, _ in pickletools.genops(stream):
            name = opcode.name
            if name == "STOP":
                (value,) = self.take(1)
                return value
            if name in ("PROTO", "FRAME"):
                continue
            if name in ("BINPUT", "LONG_BINPUT") and isinstance(argument, int):
                self.remember(argument)
            elif name in ("BINGET", "LONG_BINGET"):
                if argument not in self.memo:
                    raise WeightsError("its pickle refers to what is not there")
                self.push(self.memo[argument])
            elif name in _PLAIN_VALUES:
                self.push(argument)
            elif name in steps:
                steps[name](argument)
            else:
                raise WeightsError(f"no dictionary of tensors takes the pickle's step {name}")
        raise WeightsError("its pickle ends too early")

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def take(self, count: int) -> list[Any]:
        """Take values off the stack, the deepest first."""
        if len(self.stack) < count:
            raise WeightsError("its pickle takes more than it made")
        taken = self.stack[-count:]
        del self.stack[-count:]
        if any(value is _MARK for value in taken):
            raise WeightsError("its pickle has a mark out of place")
        return taken

    def above_mark(self) -> list[Any]:
        """Take the values down to the last mark."""
        place = next((i for i in reversed(range(len(self.stack))) if self.stack[i] is _MARK), -1)
        if place < 0:
            raise WeightsError("its pickle lacks a mark")
        taken = self.stack[place + 1 :]
        del self.stack[place:]
        return taken

    def remember(self, index: int) -> None:
        """Note the value on top of the stack."""
        (value,) = self.take(1)
        self.memo[index] = value
        self.push(value)

    def name_from_stack(self, _: Any) -> None:
        """A module and a name in it."""
        module, name = self.take(2)
        self.push(_Global(f"{module}.{name}"))

    def append(self, values: list[Any]) -> None:
        """Append to the list on top of the stack."""
        (target,) = self.take(1)
        if not isinstance(target, list):
            raise WeightsError("its pickle appends to what is no list")
        target.extend(values)
        self.push(target)

    def set_items(self, values: list[Any]) -> None:
        """Set items of the dictionary on top of the stack."""
        (target,) = self.take(1)
        keys = values[::2]
        plain = all(isinstance(key, str | int) for key in keys)
        if not isinstance(target, dict) or len(values) % 2 or not plain:
            raise WeightsError("its pickle sets items of what is no dictionary of names")
        target.update(zip(keys, values[1::2], strict=True))
        self.push(target)

    def pass_over_attributes(self) -> None:
        """A state dict's attributes are notes on versions of layers; no tensor is among them."""
        target, _ = self.take(2)
        if not isinstance(target, dict):
            raise WeightsError("its pickle gives attributes to what is no dictionary")
        self.push(target)

    def made(self, maker: Any, arguments: Any) -> Any:
        """What the known names stand for."""
        known = isinstance(maker, _Global) and isinstance(arguments, tuple)
        match maker.name if known else "":
            case "collections.OrderedDict" if arguments == ():
                return {}
            case "torch._utils._rebuild_tensor_v2" if len(arguments) in (6, 7):
                return _tensor(*arguments[:4])
            case "torch._utils._rebuild_parameter" if isinstance(arguments[0], TorchTensor):
                return arguments[0]
        shown = maker.name if isinstance(maker, _Global) else repr(maker)
        raise WeightsError(f"it asks for {shown}, which is no part of a dictionary of tensors")

    def storage(self, identifier: Any) -> TorchStorage:
        """``("storage", type, key, device, count)``, and in the old container a view, None."""
        match identifier:
            case ("storage", _Global(name), str(key), str(), int(count), *view) if (
                view in ([], [None]) and count >= 0
            ):
                package, _, kind = name.rpartition(".")
                if package == "torch" and kind in STORAGE_TYPES:
                    return self.seen.setdefault(key, TorchStorage(kind, key, count))
                raise WeightsError(
                    f"its numbers are of one of {', '.join(STORAGE_TYPES)}. Received: {name}"
                )
        raise WeightsError(f"a storage of an unknown form: {identifier!r:.200}")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> TorchTensor:
    """A tensor, checked to be made of whole numbers."""
    numbers = [offset]
    for part in (shape, strides):
        if not isinstance(part, tuple):
            raise WeightsError("a tensor's shape is a tuple")
        numbers.extend(part)
    whole = all(type(number) is int and number >= 0 for number in numbers)
    if not isinstance(storage, TorchStorage) or not whole or len(shape) != len(strides):
        raise WeightsError(f"a tensor of shape {shape!r} and strides {strides!r}")
    return TorchTensor(storage, offset, shape, strides)


Array = npt.NDArray[Any]

_ZIP_START = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


def read_state_dict(content: bytes) -> dict[str, Array]:
    """Read a dictionary of tensors, as ``torch.save(model.state_dict(), path)`` writes it.

    Args:
        content: The whole file, in either of PyTorch's containers.

    Returns:
        Each tensor by its name: whole numbers and booleans as they are, float16 and bfloat16 as
        float32, float32 and float64 as they are.

    Raises:
        WeightsError: No such file, damaged, or with anything but tensors in it.
    """
    try:
        if content.startswith(_ZIP_START):
            value, storages = _read_archive(content)
        else:
            value, storages = _read_legacy(content)
    except WeightsError as error:
        raise WeightsError(f"not a file of PyTorch tensors, or damaged: {error}") from error
    # What pickletools and zipfile trip over in a damaged file: struct.error, UnicodeDecodeError,
    # BadZipFile, NotImplementedError …
    except Exception as error:
        raise WeightsError(f"not a file of PyTorch tensors, or damaged: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(
            "a PyTorch weights file holds a dictionary of tensors (a 'state dict'). "
            f"Received: {type(value).__name__.lstrip('_').lower()}"
        )
    tensors = {}
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, TorchTensor):
            raise WeightsError(
                "a PyTorch weights file holds tensors by their names and nothing else. "
                f"Received: {name!r}: {type(tensor).__name__.lstrip('_').lower()}"
            )
        if tensor.storage.key not in storages:
            raise WeightsError(f"the numbers of {name!r} are missing from the PyTorch file")
        tensors[name] = _materialize(name, tensor, storages[tensor.storage.key])
    return tensors


def _read_archive(content: bytes) -> tuple[Any, dict[str, bytes]]:
    """The zip container: the object, and the bytes of each storage by its key."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            # PyTorch never compresses, and a small file shall not become a huge one.
            if member.compress_type != zipfile.ZIP_STORED:
                raise WeightsError(f"the member {member.filename} is compressed")
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(f"one member data.pkl is expected. Received: {len(pickles)}")
        root = pickles[0][: -len("data.pkl")]
        order = f"{root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise WeightsError("its numbers are big-endian")
        value = follow_pickle(io.BytesIO(archive.read(pickles[0])))
        folder = f"{root}data/"
        storages = {
            name[len(folder) :]: archive.read(name)
            for name in archive.namelist()
            if name.startswith(folder)
        }
    return value, storages


def _read_legacy(content: bytes) -> tuple[Any, dict[str, bytes]]:
    """The container from before PyTorch 1.6: the same as from the archive."""
    stream = io.BytesIO(content)
    if follow_pickle(stream) != _LEGACY_MAGIC:
        raise WeightsError("PyTorch's magic number is missing")
    version, system = follow_pickle(stream), follow_pickle(stream)
    if version != _LEGACY_VERSION:
        raise WeightsError(f"version {_LEGACY_VERSION} is expected. Received: {version!r}")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("its numbers are big-endian")
    seen: dict[str, TorchStorage] = {}
    value = follow_pickle(stream, seen)
    keys = follow_pickle(stream)
    if not isinstance(keys, list):
        raise WeightsError("the list of storages is missing")
    storages = {}
    for key in keys:
        if key not in seen:
            raise WeightsError(f"storage {key!r} belongs to no tensor")
        count = int.from_bytes(stream.read(8), "little")
        if count != seen[key].count:
            raise WeightsError(f"storage {key} holds {seen[key].count} numbers. Received: {count}")
        storages[key] = stream.read(count * np.dtype(STORAGE_TYPES[seen[key].kind]).itemsize)
    if stream.read(1):
        raise WeightsError("something follows the last storage")
    return value, storages


def _materialize(name: str, tensor: TorchTensor, content: bytes) -> Array:
    """The tensor as an array of its own."""
    storage = tensor.storage
    itemsize = np.dtype(STORAGE_TYPES[storage.kind]).itemsize
    if len(content) != storage.count * itemsize:
        raise WeightsError(
            f"the storage of {name!r} holds {storage.count} numbers of {itemsize} bytes. "
            f"Received: {len(content)} bytes"
        )
    # Beyond the storage, as_strided would read memory that is none of the file's; and a step of
    # 0 makes a tensor of any size from one number.
    size = math.prod(tensor.shape)
    last = tensor.offset + sum(
        (length - 1) * stride for length, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if size > storage.count or (size and last >= storage.count):
        raise WeightsError(f"{name!r} of shape {tensor.shape} reaches beyond its numbers")
    if not size:
        return np.zeros(tensor.shape, np.float32)
    numbers = np.frombuffer(content, STORAGE_TYPES[storage.kind])
    if storage.kind == "BFloat16Storage":
        numbers = (numbers.astype("<u4") << 16).view("<f4")
    elif storage.kind == "HalfStorage":
        numbers = numbers.astype("<f4")
    view = np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :],
        tensor.shape,
        [stride * numbers.itemsize for stride in tensor.strides],
        writeable=False,
    )
    return np.array(view, order="C")


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """One layer that has weights.

    Attributes:
        name: As its writer called it.
        arrays: float32, by the last part of their names: ``kernel``, ``moving_mean`` …
    """

    name: str
    arrays: dict[str, npt.NDArray[np.float32]]


def read_keras_layers(content: bytes) -> list[StoredLayer]:
    """Read the layers that have weights, in the order of the model that was saved.

    Args:
        content: The whole file.

    Raises:
        WeightsError: No such file, or damaged.
    """
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            root = file.get("model_weights", file)
            if "layer_names" not in root.attrs:
                raise WeightsError(
                    "a weights file of Keras (.h5) lists its layers. "
                    f"Received: a file with {sorted(root)[:5]}"
                )
            layers = [_layer(root[name], name) for name in _texts(root.attrs["layer_names"])]
    # h5py raises whatever a damaged file trips over: OSError, RuntimeError, KeyError …
    except Exception as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"not an HDF5 weights file of Keras, or damaged: {error}") from error
    return [layer for layer in layers if layer.arrays]


def _layer(group: h5py.Group, name: str) -> StoredLayer:
    """The arrays of a layer; the names are paths such as ``conv1/kernel:0``."""
    arrays = {}
    for path in _texts(group.attrs["weight_names"]):
        arrays[path.rpartition("/")[2].partition(":")[0]] = np.asarray(group[path], np.float32)
    return StoredLayer(name, arrays)


def _texts(names: Iterable[bytes | str]) -> list[str]:
    """Names are bytes or text, by the version of h5py that wrote them."""
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
