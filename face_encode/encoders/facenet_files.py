"""Readers of weights files: HDF5 of Keras 2, and ONNX. PyTorch's are read by ``torch_file``."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from face_encode.errors import WeightsError

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


def read_keras_layers(content: bytes) -> list[StoredLayer]:
    """Read the layers that have weights from a file that Keras 2 wrote, in the model's order.

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
            layers = []
            for name in decoded(root.attrs["layer_names"]):
                group = root[name]
                # The names are paths such as ``conv1/kernel:0``.
                arrays = {
                    path.rpartition("/")[2].partition(":")[0]: np.asarray(group[path], np.float32)
                    for path in decoded(group.attrs["weight_names"])
                }
                if arrays:
                    layers.append(StoredLayer(name, arrays))
            return layers
    except WeightsError:
        raise
    # h5py raises whatever a damaged file trips over: OSError, RuntimeError, KeyError …
    except Exception as error:
        raise WeightsError(f"not an HDF5 weights file of Keras, or damaged: {error}") from error


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
