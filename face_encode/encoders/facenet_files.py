"""A reader of HDF5 weights files of Keras 2, and the layers in them."""

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


def decoded(names: Iterable[bytes | str]) -> list[str]:
    """Decode names, which are bytes or text, depending on the version of h5py that wrote them."""
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]
