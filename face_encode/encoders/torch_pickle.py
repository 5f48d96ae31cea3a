"""Follows a pickle of tensors without running it.

A pickle is a program: whoever runs it with ``pickle`` runs what its author wanted. Here nothing
is unpickled. ``pickletools`` of the standard library splits the program into its steps without
running any, and the interpreter below knows only those steps that a dictionary of tensors takes.
No name in it is ever looked up or called: a name is kept as text, and three of them are known (an
ordered dictionary, a tensor on its storage, a parameter); any other one is refused.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
