"""A writer of PyTorch's files without PyTorch: it puts a pickle together step by step."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_KINDS = {"float32": "FloatStorage", "int64": "LongStorage"}


def text(value: str) -> bytes:
    """Push a text."""
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def number(value: int) -> bytes:
    """Push a whole number."""
    return b"J" + struct.pack("<i", value)


def name(module: str, attribute: str) -> bytes:
    """Push a name of a module."""
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*parts: bytes) -> bytes:
    """Push a tuple."""
    return b"(" + b"".join(parts) + b"t"


def storage(key: str, count: int, kind: str = "FloatStorage", *view: bytes) -> bytes:
    """Push a storage."""
    parts = (text("storage"), name("torch", kind), text(key), text("cpu"), number(count), *view)
    return tuple_of(*parts) + b"Q"


def tensor(stored: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """Push a tensor on a storage."""
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = tuple_of(
        stored,
        number(offset),
        tuple_of(*map(number, shape)),
        tuple_of(*map(number, strides)),
        b"\x89",
        hooks,
    )
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def dictionary(items: Mapping[str, bytes]) -> bytes:
    """Write a whole pickle of a dictionary."""
    start = b"\x80\x02" + name("collections", "OrderedDict") + b")R"
    return start + b"".join(text(key) + value + b"s" for key, value in items.items()) + b"."


def archive(pickle: bytes, storages: Mapping[str, bytes], compression: int = 0) -> bytes:
    """Write the container of PyTorch 1.6 and later."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as file:
        file.writestr("archive/data.pkl", pickle)
        file.writestr("archive/byteorder", b"little")
        for key, content in storages.items():
            file.writestr(f"archive/data/{key}", content)
        file.writestr("archive/version", b"3\n")
    return memory.getvalue()


def legacy(pickle: bytes, storages: Mapping[str, tuple[int, bytes]]) -> bytes:
    """Write the container from before PyTorch 1.6."""
    version = b"\x80\x02" + b"M\xe9\x03."
    system = b"\x80\x02}" + text("little_endian") + b"\x88s."
    keys = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
    numbers = b"".join(struct.pack("<q", count) + raw for count, raw in storages.values())
    return _MAGIC + version + system + pickle + keys + numbers


def state_dict(arrays: Mapping[str, npt.NDArray[np.generic]], *, old: bool = False) -> bytes:
    """Write arrays of float32 and int64 as a state dict, in either container."""
    items, storages = {}, {}
    for index, (key, array) in enumerate(arrays.items()):
        strides = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides)
        kind = _KINDS[array.dtype.name]
        view = (b"N",) if old else ()
        stored = storage(str(index), array.size, kind, *view)
        items[key] = tensor(stored, 0, array.shape, strides if array.ndim else ())
        storages[str(index)] = (array.size, array.tobytes())
    if old:
        return legacy(dictionary(items), storages)
    return archive(dictionary(items), {key: raw for key, (_, raw) in storages.items()})
