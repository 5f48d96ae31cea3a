"""A reader of PyTorch's weights files that takes numbers only, without PyTorch.

A file of PyTorch is a pickle beside the numbers of its tensors. A pickle is a program; here it is
followed step by step, never run: only the steps of a dictionary of tensors are known, names are
text, and nothing is imported or called. A harmful file is refused at its first other step.

Two containers hold the pickle: since PyTorch 1.6 a zip archive, with the numbers of each storage in
an uncompressed member of its own; before, five pickles in a row (a magic number, a version, the
machine's number formats, the object, the storages' names), then the numbers of each storage after a
count. Source: ``torch/serialization.py`` and ``torch/_utils.py``.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import WeightsError, shown

Array = npt.NDArray[Any]

# numpy's type for the numbers of each kind of storage; bfloat16, which numpy lacks, as uint16.
_STORAGE_TYPES = {
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
_ZIP_START = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
# The pickle of a network with a thousand tensors takes some 200 kB.
_MAX_PICKLE_BYTES = 16_000_000
# numpy's own limit until its version 2, and far above any network's.
_MAX_DIMENSIONS = 32

_MARK = object()
_VALUE_STEPS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}


@dataclass(frozen=True)
class _Global:
    """A name in a pickle: text, nothing more."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """Numbers that one or more tensors lie in."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage: its start, its shape, and its strides in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _WrongContentError(WeightsError):
    """A whole file, of something else than expected."""


def read_state_dict(content: bytes, most_numbers: int) -> dict[str, Array]:
    """Read a dictionary of tensors, as ``torch.save(model.state_dict(), path)`` writes it.

    Args:
        content: The whole file, in either of PyTorch's containers.
        most_numbers: The numbers that the expected network's tensors hold together, rounded up. A
            file with more is refused before they are read: some kilobytes may stand for any
            number of tensors that share the same bytes.

    Returns:
        Each tensor by its name: whole numbers and booleans as they are, float16 and bfloat16 as
        float32, float32 and float64 as they are.

    Raises:
        WeightsError: No such file, damaged, or with anything but tensors in it.
    """
    try:
        read = _read_archive if content.startswith(_ZIP_START) else _read_legacy
        value, storages = read(content, most_numbers)
    except _WrongContentError:
        raise
    # pickletools and zipfile raise, besides our own, whatever a damaged file trips over:
    # struct.error, UnicodeDecodeError, BadZipFile, NotImplementedError …
    except Exception as error:
        raise WeightsError(f"not a file of PyTorch tensors, or damaged: {error!s:.300}") from error
    tensors = {}
    for name, tensor in value.items():
        if tensor.storage.key not in storages:
            raise WeightsError(f"the numbers of {shown(name)} are missing from the PyTorch file")
        try:
            tensors[name] = _materialize(name, tensor, storages[tensor.storage.key])
        # Of an empty tensor, or one of length 1, a stride or a length may be of any size.
        except (OverflowError, ValueError) as error:
            raise WeightsError(
                f"{shown(name)} of shape {tensor.shape} is damaged: {error}"
            ) from error
    return tensors


def _check_tensors(value: Any, most_numbers: int) -> dict[str, _Tensor]:
    """Refuse what is no dictionary of tensors, or of more numbers than expected."""
    if not isinstance(value, dict):
        raise _WrongContentError(
            "a PyTorch weights file holds a dictionary of tensors (a 'state dict'). "
            f"Received: {type(value).__name__.lstrip('_').lower()}"
        )
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise _WrongContentError(
                "a PyTorch weights file holds tensors by their names and nothing else. "
                f"Received: {shown(name)}: {type(tensor).__name__.lstrip('_').lower()}"
            )
    # A storage may be larger than the tensors in it, and tensors may share one: both are counted.
    stored = {tensor.storage.key: tensor.storage.count for tensor in value.values()}
    for count in (sum(stored.values()), sum(math.prod(each.shape) for each in value.values())):
        if count > most_numbers:
            raise _WrongContentError(
                f"the expected network has at most {most_numbers:,} numbers. "
                f"Received: a file with {count:,}"
            )
    return value


def _read_archive(content: bytes, most_numbers: int) -> tuple[Any, dict[str, bytes]]:
    """Read the zip container: the object, and the bytes of each storage by its key."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            # PyTorch never compresses; a small file must not expand to a huge one.
            if member.compress_type != zipfile.ZIP_STORED:
                raise WeightsError(f"the member {member.filename} is compressed")
        # Members that lie over each other would be read once each.
        total = sum(member.file_size for member in archive.infolist())
        if total > len(content):
            raise WeightsError(f"members of {total:,} bytes in a file of {len(content):,}")
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise WeightsError(f"one member data.pkl is expected. Received: {len(pickles)}")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise WeightsError("its numbers are big-endian")
        if (size := archive.getinfo(pickles[0]).file_size) > _MAX_PICKLE_BYTES:
            raise WeightsError(
                f"a pickle has {_MAX_PICKLE_BYTES:,} bytes at most. Received: {size:,}"
            )
        value = _check_tensors(
            _Interpreter().follow(io.BytesIO(archive.read(pickles[0]))), most_numbers
        )
        wanted = {tensor.storage.key for tensor in value.values()}
        storages = {
            key: archive.read(f"{root}data/{key}") for key in wanted if f"{root}data/{key}" in names
        }
    return value, storages


def _read_legacy(content: bytes, most_numbers: int) -> tuple[Any, dict[str, bytes]]:
    """Read the container from before PyTorch 1.6: the same as from the archive."""
    stream = io.BytesIO(content)
    if _Interpreter().follow(stream) != _LEGACY_MAGIC:
        raise WeightsError("PyTorch's magic number is missing")
    version, system = _Interpreter().follow(stream), _Interpreter().follow(stream)
    if version != _LEGACY_VERSION:
        raise WeightsError(f"version {_LEGACY_VERSION} is expected. Received: {shown(version)}")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise WeightsError("its numbers are big-endian")
    interpreter = _Interpreter()
    value = _check_tensors(interpreter.follow(stream), most_numbers)
    keys = _Interpreter().follow(stream)
    if not isinstance(keys, list):
        raise WeightsError("the list of storages is missing")
    storages = {}
    for key in keys:
        storage = interpreter.storages.get(key) if isinstance(key, str) else None
        if storage is None:
            raise WeightsError(f"storage {shown(key)} belongs to no tensor")
        count = int.from_bytes(stream.read(8), "little")
        if count != storage.count:
            raise WeightsError(
                f"storage {shown(key)} holds {storage.count} numbers. Received: {count}"
            )
        storages[key] = stream.read(count * np.dtype(_STORAGE_TYPES[storage.kind]).itemsize)
    if stream.read(1):
        raise WeightsError("something follows the last storage")
    return value, storages


class _Interpreter:
    """Follows one pickle, with a stack and a memo, as the format asks for.

    Attributes:
        storages: The storages that the pickle names, by their keys.
    """

    def __init__(self) -> None:
        self.storages: dict[str, _Storage] = {}
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def follow(self, stream: io.BytesIO) -> Any:
        """Follow the pickle to its end, and leave the stream there.

        Returns:
            Dictionaries, lists, tuples, numbers and text, with each tensor as a ``_Tensor``.

        Raises:
            WeightsError: A step that no dictionary of tensors takes, or a name that is none of its.
        """
        push, take, above_mark = self.stack.append, self.take, self.above_mark
        steps: dict[str, Callable[[Any], None]] = {
            "GLOBAL": lambda name: push(_Global(name.replace(" ", "."))),
            "STACK_GLOBAL": lambda _: push(self.name(*take(2))),
            "MARK": lambda _: push(_MARK),
            "EMPTY_DICT": lambda _: push({}),
            "EMPTY_LIST": lambda _: push([]),
            "EMPTY_TUPLE": lambda _: push(()),
            "NONE": lambda _: push(None),
            "NEWTRUE": lambda _: push(True),
            "NEWFALSE": lambda _: push(False),
            "TUPLE": lambda _: push(tuple(above_mark())),
            "TUPLE1": lambda _: push(tuple(take(1))),
            "TUPLE2": lambda _: push(tuple(take(2))),
            "TUPLE3": lambda _: push(tuple(take(3))),
            "APPEND": lambda _: self.append(take(1)),
            "APPENDS": lambda _: self.append(above_mark()),
            "SETITEM": lambda _: self.set_items(take(2)),
            "SETITEMS": lambda _: self.set_items(above_mark()),
            "BINPUT": self.remember,
            "LONG_BINPUT": self.remember,
            "MEMOIZE": lambda _: self.remember(len(self.memo)),
            "BINGET": lambda index: push(self.recall(index)),
            "LONG_BINGET": lambda index: push(self.recall(index)),
            "REDUCE": lambda _: push(self.call(*take(2))),
            "BUILD": lambda _: self.skip_attributes(),
            "BINPERSID": lambda _: push(self.storage(take(1)[0])),
            "PROTO": lambda _: None,
            "FRAME": lambda _: None,
            **dict.fromkeys(_VALUE_STEPS, push),
        }
        start = stream.tell()
        for opcode, argument, _ in pickletools.genops(stream):
            if stream.tell() - start > _MAX_PICKLE_BYTES:
                raise WeightsError(f"a pickle has {_MAX_PICKLE_BYTES:,} bytes at most")
            if opcode.name == "STOP":
                return take(1)[0]
            if opcode.name not in steps:
                raise WeightsError(
                    f"no dictionary of tensors takes the pickle's step {opcode.name}"
                )
            steps[opcode.name](argument)
        raise WeightsError("its pickle ends too early")

    @staticmethod
    def name(module: Any, attribute: Any) -> _Global:
        """Make a name of two texts."""
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise WeightsError("a name in its pickle is no text")
        return _Global(f"{module}.{attribute}")

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
        """Take the values down to the last mark, and the mark."""
        for depth, value in enumerate(reversed(self.stack)):
            if value is _MARK:
                taken = self.take(depth) if depth else []
                self.stack.pop()
                return taken
        raise WeightsError("its pickle lacks a mark")

    def remember(self, index: int) -> None:
        """Put the value on top of the stack into the memo."""
        (value,) = self.take(1)
        self.memo[index] = value
        self.stack.append(value)

    def recall(self, index: int) -> Any:
        """Get a value of the memo."""
        if index not in self.memo:
            raise WeightsError("its pickle refers to a missing value")
        return self.memo[index]

    def append(self, values: list[Any]) -> None:
        """Append to the list on top of the stack."""
        (target,) = self.take(1)
        if not isinstance(target, list):
            raise WeightsError("its pickle appends to no list")
        target.extend(values)
        self.stack.append(target)

    def set_items(self, values: list[Any]) -> None:
        """Set items of the dictionary on top of the stack."""
        (target,) = self.take(1)
        keys = values[::2]
        plain = all(isinstance(key, str | int) for key in keys)
        if not isinstance(target, dict) or len(values) % 2 or not plain:
            raise WeightsError("its pickle sets items of no dictionary of names")
        target.update(zip(keys, values[1::2], strict=True))
        self.stack.append(target)

    def skip_attributes(self) -> None:
        """Pass over a state dict's attributes, the versions of its layers; none is a tensor."""
        target, _ = self.take(2)
        if not isinstance(target, dict):
            raise WeightsError("its pickle gives attributes to no dictionary")
        self.stack.append(target)

    def call(self, function: Any, arguments: Any) -> Any:
        """Stand in for the call of a known name."""
        is_known = isinstance(function, _Global) and isinstance(arguments, tuple)
        match function.name if is_known else "":
            case "collections.OrderedDict" if arguments == ():
                return {}
            case "torch._utils._rebuild_tensor_v2" if len(arguments) in (6, 7):
                return _tensor(*arguments[:4])
            case "torch._utils._rebuild_parameter" if isinstance(arguments[0], _Tensor):
                return arguments[0]
        asked = f"{function.name:.200}" if isinstance(function, _Global) else shown(function)
        raise WeightsError(f"it asks for {asked}, which is no part of a dictionary of tensors")

    def storage(self, identifier: Any) -> _Storage:
        """Read ``("storage", type, key, device, count)``, before PyTorch 1.6 also a view, None."""
        match identifier:
            case ("storage", _Global(name), str(key), str(), int(count), *view) if (
                view in ([], [None]) and count >= 0
            ):
                package, _, kind = name.rpartition(".")
                if package == "torch" and kind in _STORAGE_TYPES:
                    return self.storages.setdefault(key, _Storage(kind, key, count))
                raise WeightsError(
                    f"its numbers are of one of {', '.join(_STORAGE_TYPES)}. Received: {name:.200}"
                )
        raise WeightsError(f"a storage of an unknown form: {shown(identifier)}")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> _Tensor:
    """Make a tensor, of whole numbers only."""
    if not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise WeightsError("a tensor's shape is a tuple")
    are_whole = all(type(each) is int and each >= 0 for each in (offset, *shape, *strides))
    if not isinstance(storage, _Storage) or not are_whole or len(shape) != len(strides):
        raise WeightsError(f"a tensor of shape {shown(shape)} and strides {shown(strides)}")
    if len(shape) > _MAX_DIMENSIONS or any(each >= 2**62 for each in (offset, *shape, *strides)):
        raise WeightsError(
            f"a tensor has at most {_MAX_DIMENSIONS} dimensions, and its numbers fit into 64 bits. "
            f"Received: shape {shown(shape)}, strides {shown(strides)}"
        )
    return _Tensor(storage, offset, shape, strides)


def _materialize(name: str, tensor: _Tensor, content: bytes) -> Array:
    """Copy a tensor into an array of its own."""
    storage = tensor.storage
    itemsize = np.dtype(_STORAGE_TYPES[storage.kind]).itemsize
    if len(content) != storage.count * itemsize:
        raise WeightsError(
            f"the storage of {shown(name)} holds {storage.count} numbers of {itemsize} bytes. "
            f"Received: {len(content)} bytes"
        )
    # Beyond the storage, as_strided would read other memory of this process; and a stride of 0
    # makes a tensor of any size from one number.
    size = math.prod(tensor.shape)
    last = tensor.offset + sum(
        (length - 1) * stride for length, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if size > storage.count or (size and last >= storage.count):
        raise WeightsError(f"{shown(name)} of shape {tensor.shape} reaches beyond its numbers")
    if not size:
        return np.zeros(tensor.shape, np.float32)
    numbers = np.frombuffer(content, _STORAGE_TYPES[storage.kind])
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
