"""From a Keras model to a file that runs without Keras: ONNX, or TensorFlow Lite.

Keras exports from TensorFlow alone with batches of any size. On another backend the conversion
is left to a process of its own, in which Keras runs on TensorFlow.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from face_encode.encoders.contract import EncoderContract, read_contract, save_encoder
from face_encode.encoders.engines.engine import first_line_of, release_of
from face_encode.errors import EngineError, MissingExtraError
from face_encode.terminal import without_native_notices

if TYPE_CHECKING:
    import keras

FileFormat = Literal["onnx", "tflite"]

INPUT_NAME = "crops"
OUTPUT_NAME = "embeddings"

_ONNX_CONVERTERS = ("tf2onnx", "onnx")


def can_convert_to_onnx() -> bool:
    """Whether what converts to ONNX is installed; nothing is imported."""
    return all(importlib.util.find_spec(module) for module in _ONNX_CONVERTERS)


def converters() -> str:
    """Names and versions of what converts; nothing is imported."""
    return ", ".join(map(release_of, ("keras", "tensorflow", *_ONNX_CONVERTERS)))


def convert(
    model: keras.Model,
    contract: EncoderContract,
    file_format: FileFormat,
    *,
    mirror: bool,
    extra: str = "export",
) -> bytes:
    """Convert an encoder's network, with the pixels' scaling before it.

    Args:
        model: ``(N, height, width, 3)`` in, ``(N, D)`` out.
        contract: How the model is used.
        file_format: ONNX, or TensorFlow Lite.
        mirror: Whether the mean over a crop and its mirror image becomes part of it.
        extra: The extra of this package that is advised where a converter is missing.

    Returns:
        The content of a file that takes uint8 crops ``(N, height, width, 3)``, any N from 1 on.

    Raises:
        MissingExtraError: A converter is not installed.
        EngineError: The converter fails.
    """
    if file_format == "onnx" and not can_convert_to_onnx():
        raise MissingExtraError(
            f'converting to ONNX needs tf2onnx and onnx: pip install "face_encode[{extra}]"'
        )
    import keras

    try:
        with tempfile.TemporaryDirectory(prefix="face_encode-") as folder:
            output = Path(folder, f"network.{file_format}")
            if keras.backend.backend() == "tensorflow":
                _export(model, contract, output, mirror=mirror)
            else:
                _export_elsewhere(model, contract, output, mirror=mirror)
            return output.read_bytes()
    except EngineError:
        raise
    # The converters raise whatever a foreign graph trips over.
    except Exception as error:
        raise EngineError(
            f"the encoder {contract.name!r} cannot be converted to {file_format}: "
            f"{first_line_of(error)}"
        ) from error


def _export(model: keras.Model, contract: EncoderContract, output: Path, *, mirror: bool) -> None:
    """Write the file from Keras on TensorFlow."""
    import numpy as np

    whole = _whole_network(model, contract, mirror=mirror)
    # Keras exports what has been called.
    whole(np.zeros((1, *whole.input_shape[1:]), np.uint8))
    with warnings.catch_warnings(), without_native_notices():
        warnings.simplefilter("ignore")
        if output.suffix == ".onnx":
            whole.export(str(output), format="onnx", verbose=False)
            _rename_ends(output)
        else:
            whole.export(str(output), format="litert", verbose=False)


def _whole_network(model: keras.Model, contract: EncoderContract, *, mirror: bool) -> keras.Model:
    """The network from uint8 crops on, as one Keras model."""
    import keras

    height, width = contract.crop.height, contract.crop.width
    crops = keras.Input((height, width, 3), dtype="uint8", name=INPUT_NAME)
    pixels: Any = keras.layers.Rescaling(contract.pixel_range[1] / 255)(crops)
    if not mirror:
        return keras.Model(crops, model(pixels))
    both = keras.ops.stack([pixels, pixels[:, :, ::-1]], axis=1)
    embeddings = model(keras.ops.reshape(both, (-1, height, width, 3)))
    pairs = keras.ops.reshape(embeddings, (-1, 2, embeddings.shape[-1]))
    return keras.Model(crops, keras.ops.mean(pairs, axis=1))


def _rename_ends(path: Path) -> None:
    """Call the output what it is; Keras leaves it the name of TensorFlow's last node."""
    import onnx

    network = onnx.load(str(path))
    (former,) = (output.name for output in network.graph.output)
    for node in network.graph.node:
        node.output[:] = [OUTPUT_NAME if name == former else name for name in node.output]
        node.input[:] = [OUTPUT_NAME if name == former else name for name in node.input]
    network.graph.output[0].name = OUTPUT_NAME
    for end in (network.graph.input[0], network.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(network, str(path))


def _export_elsewhere(
    model: keras.Model, contract: EncoderContract, output: Path, *, mirror: bool
) -> None:
    """Write the file by a process in which Keras runs on TensorFlow."""
    source = output.with_name("network.keras")
    save_encoder(model, source, contract)
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(source), str(output), *(["mirror"] * mirror)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not output.is_file():
        last_line = next(reversed(done.stderr.strip().splitlines()), f"exit {done.returncode}")
        raise EngineError(
            f"the encoder {contract.name!r} cannot be converted to {output.suffix[1:]} by Keras "
            f"on TensorFlow: {last_line}"
        )


def _main(source: str, output: str, *mirror: str) -> None:
    """What the process of its own does."""
    import keras

    contract = read_contract(source)
    assert contract is not None
    model = keras.saving.load_model(source, compile=False, safe_mode=True)
    _export(model, contract, Path(output), mirror=bool(mirror))


if __name__ == "__main__":
    _main(*sys.argv[1:])
