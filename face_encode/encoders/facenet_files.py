"""Readers of weights files: HDF5 of Keras 2, and ONNX. PyTorch's are read by ``torch_file``."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from face_encode.errors import WeightsError, shown

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """A layer of a weights file of Keras.

    Attributes:
        name: The layer's name.
        arrays: float32, by the last part of their names: ``kernel``, ``moving_mean`` …
    """

    name: str
    arrays: dict[str, npt.NDArray[np.float32]]


# Weights rounded to float16 and packed take half of their size, zeros next to nothing.
_MAX_EXPANSION = 100


@contextmanager
def open_hdf5(source: bytes | str | os.PathLike[str]) -> Iterator[h5py.Group]:
    """Open an HDF5 file whose arrays lie in the file itself, and are no larger than it.

    HDF5 knows arrays that lie in other files of the disk (external storage, external links, virtual
    arrays), links that lead anywhere, and arrays of any size without a number stored. Keras writes
    none of these.

    Args:
        source: The file's content, or its path.

    Yields:
        The group of the weights: that of a whole model, or the file itself.

    Raises:
        WeightsError: A file of another kind, or with anything in it that Keras does not write.
    """
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    with h5py.File(opened, "r") as file:
        _check_hdf5(file, size)
        yield file.get("model_weights", file)


def _check_hdf5(file: h5py.File, size: int) -> None:
    """Refuse what reads other files, or takes more memory than the file has bytes."""
    total, seen, waiting = 0, set(), [("", file)]
    while waiting:
        path, group = waiting.pop()
        for name in group:
            inside = f"{path}/{name}"
            if not isinstance(link := group.get(name, getlink=True), h5py.HardLink):
                raise WeightsError(
                    f"{shown(inside)} is a link to elsewhere ({type(link).__name__})"
                )
            item = group[name]
            place = h5py.h5o.get_info(item.id).addr
            if place in seen:
                raise WeightsError(f"{shown(inside)} has two names")
            seen.add(place)
            if isinstance(item, h5py.Group):
                waiting.append((inside, item))
            elif not isinstance(item, h5py.Dataset):
                raise WeightsError(f"{shown(inside)} is neither a group nor an array")
            elif item.external or item.is_virtual:
                raise WeightsError(f"the numbers of {shown(inside)} lie in other files")
            else:
                total += item.nbytes
    if total > size:
        raise WeightsError(f"arrays of {total:,} bytes in a file of {size:,}")


def check_keras_archive(path: Path) -> None:
    """Refuse a ``.keras`` file that expands beyond measure, or whose weights read other files.

    Keras itself looks for the latter from 3.13 on.

    Raises:
        WeightsError: As for ``open_hdf5``, or too large; zipfile and h5py raise types of their own.
    """
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
        if total > (most := _MAX_EXPANSION * path.stat().st_size):
            raise WeightsError(f"it expands to {total:,} bytes, more than {most:,}")
        with open_hdf5(archive.read("model.weights.h5")):
            pass


def read_keras_layers(content: bytes) -> list[StoredLayer]:
    """Read the layers that have weights from a file that Keras 2 wrote, in the model's order.

    Args:
        content: The whole file.

    Raises:
        WeightsError: No such file, or damaged.
    """
    try:
        with open_hdf5(content) as root:
            if "layer_names" not in root.attrs:
                raise WeightsError(
                    "a weights file of Keras (.h5) lists its layers. "
                    f"Received: a file with {sorted(root)[:5]}"
                )
            layers = []
            left = len(content)
            for name in decoded(root.attrs["layer_names"]):
                group = root[name]
                arrays = {}
                # The names are paths such as ``conv1/kernel:0``.
                for path in decoded(group.attrs["weight_names"]):
                    array = group[path]
                    left -= array.nbytes
                    if left < 0:
                        raise WeightsError("its layers name the same arrays again and again")
                    part = path.rpartition("/")[2].partition(":")[0]
                    arrays[part] = np.asarray(array, np.float32)
                if arrays:
                    layers.append(StoredLayer(name, arrays))
            return layers
    except WeightsError:
        raise
    # h5py raises whatever a damaged file trips over: OSError, RuntimeError, KeyError …
    except Exception as error:
        raise WeightsError(
            f"not an HDF5 weights file of Keras, or damaged: {error!s:.300}"
        ) from error


def load_keras_weights(model: keras.Model, content: bytes) -> None:
    """Set a model's weights from a file that Keras 2 wrote for the same network.

    The layers are matched by their order, as Keras 2 itself matches them: their names may come from
    a counter.

    Args:
        model: Its layers with weights in the order of the original's.
        content: The whole file.

    Raises:
        WeightsError: No such file, damaged, or of a network with other layers or shapes.
    """
    stored = read_keras_layers(content)
    layers = [layer for layer in model.layers if layer.weights]
    if len(stored) != len(layers):
        raise WeightsError(
            f"the network {model.name!r} has {len(layers)} layers with weights. "
            f"Received: a file with {len(stored)}"
        )
    planned = []
    for layer, source in zip(layers, stored, strict=True):
        # Keras 2 called the kernel of a depthwise convolution by another name.
        arrays = {part.removeprefix("depthwise_"): each for part, each in source.arrays.items()}
        expected = {weight.name: tuple(weight.shape) for weight in layer.weights}
        received = {part: array.shape for part, array in arrays.items()}
        if received != expected:
            raise WeightsError(
                f"layer {layer.name!r} of the network {model.name!r} takes {expected}. "
                f"Received: layer {source.name!r} with {received}"
            )
        planned.append((layer, [arrays[part] for part in expected]))
    for layer, weights in planned:
        layer.set_weights(weights)


def read_onnx_graph(content: bytes) -> tuple[list[Any], dict[str, npt.NDArray[np.float32]]]:
    """Read a network in ONNX: its nodes, and its floating-point arrays by their names.

    Args:
        content: The whole file.

    Returns:
        The nodes (``onnx.NodeProto``) in the order of execution, and the arrays as float32.

    Raises:
        WeightsError: No such file, or damaged.
    """
    import onnx

    try:
        graph = onnx.load_model_from_string(content).graph
        arrays = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    # protobuf and numpy raise whatever a damaged file trips over.
    except Exception as error:
        raise WeightsError(f"not an ONNX file, or damaged: {error}") from error
    if not graph.node:
        raise WeightsError("not an ONNX file, or damaged: it holds no network")
    return list(graph.node), {
        name: array.astype(np.float32) for name, array in arrays.items() if array.dtype.kind == "f"
    }


def decoded(names: Iterable[bytes | str]) -> list[str]:
    """Decode names, which are bytes or text, depending on the version of h5py that wrote them."""
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
