"""Reads the layers that Keras saved into an HDF5 file, in their order.

The form is that of ``save`` and ``save_weights`` up to Keras 2 (``.h5``): a group a layer, with the
order of the layers, and of the arrays in each, in attributes. Keras itself goes by this order, not
by the names, which differ from writer to writer. Source: ``legacy_h5_format.py`` of Keras.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import h5py
import numpy as np
import numpy.typing as npt

from face_encode.errors import WeightsError


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
