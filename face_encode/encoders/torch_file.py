"""Reads the tensors that PyTorch saved into a file, with nothing but numpy.

The file is a pickle beside the numbers of its tensors; the pickle is followed, not run, by
:mod:`face_encode.encoders.torch_pickle`.

Two containers hold the pickle: since PyTorch 1.6 a zip archive with the numbers of each storage
in a member of its own, stored without compression; before, five pickles in a row (a magic number, a
version, the machine's habits, the object, the storages' names) and then the numbers of each
storage behind a count. Source: ``torch/serialization.py`` and ``torch/_utils.py``.
"""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.encoders.torch_pickle import (
    STORAGE_TYPES,
    TorchStorage,
    TorchTensor,
    follow_pickle,
)
from face_encode.errors import WeightsError

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
