"""Conversion of a Keras model to a file that runs without Keras: ONNX, or TensorFlow Lite.

Only on TensorFlow does Keras export batches of any size. On another backend, a second process, in
which Keras runs on TensorFlow, converts.
"""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from face_encode.encoders.contract import EncoderContract, read_contract, save_encoder
from face_encode.errors import EngineError, MissingExtraError
from face_encode.terminal import without_native_notices

if TYPE_CHECKING:
    import keras

FileFormat = Literal["onnx", "tflite"]

INPUT_NAME = "crops"
OUTPUT_NAME = "embeddings"

ONNX_CONVERTERS = ("tf2onnx", "onnx")
# The status with which the second process ends where the converter refuses a network; Python ends
# by 1, and by 2, where it could not even start.
_CANNOT_CONVERT = 3


def convert(
    model: keras.Model, contract: EncoderContract, file_format: FileFormat, *, mirror: bool
) -> bytes:
    """Convert an encoder's network, with the pixels' scaling before it.

    Args:
        model: ``(N, height, width, 3)`` in, ``(N, D)`` out.
        contract: How the model is used.
        file_format: ONNX, or TensorFlow Lite.
        mirror: Whether the mean over a crop and its mirror image is part of the file.

    Returns:
        The content of a file that takes uint8 crops ``(N, height, width, 3)``, any N from 1 on.

    Raises:
        MissingExtraError: A converter is not installed.
        EngineError: The converter fails.
    """
    if file_format == "onnx":
        require("converting to ONNX", ONNX_CONVERTERS)
    import keras

    is_tensorflow = keras.backend.backend() == "tensorflow"
    try:
        with tempfile.TemporaryDirectory(prefix="face_encode-") as folder:
            output = Path(folder, f"network.{file_format}")
            (_export if is_tensorflow else _export_elsewhere)(model, contract, output, mirror)
            return output.read_bytes()
    # The converters raise whatever a foreign graph trips over.
    except Exception as error:
        raise EngineError(
            f"the encoder {contract.name!r} cannot be converted to {file_format}: "
            f"{first_line_of(error)}"
        ) from error


def require(purpose: str, libraries: Iterable[str]) -> None:
    """Refuse work for which a library is missing; nothing is imported.

    Raises:
        MissingExtraError: One of the libraries is not installed.
    """
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{purpose} needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        )


def release_of(distribution: str) -> str:
    """Name and version of an installed distribution; nothing is imported."""
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return f"no {distribution}"


def first_line_of(error: Exception) -> str:
    """The first line of another library's error; its type if it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def is_passing(error: BaseException | None) -> bool:
    """Whether an error says something of this moment: a full disk, no memory, a killed process."""
    # The last is TensorFlow's word for the first two.
    return isinstance(error, OSError | MemoryError) or (
        type(error).__name__ == "ResourceExhaustedError"
    )


def _export(model: keras.Model, contract: EncoderContract, output: Path, mirror: bool) -> None:
    """Write the file from Keras on TensorFlow."""
    import keras
    import numpy as np

    height, width = contract.crop.height, contract.crop.width
    crops = keras.Input((height, width, 3), dtype="uint8", name=INPUT_NAME)
    pixels: Any = keras.layers.Rescaling(contract.pixel_range[1] / 255)(crops)
    if mirror:
        both = keras.ops.stack([pixels, pixels[:, :, ::-1]], axis=1)
        embeddings = model(keras.ops.reshape(both, (-1, height, width, 3)))
        pairs = keras.ops.reshape(embeddings, (-1, 2, embeddings.shape[-1]))
        whole = keras.Model(crops, keras.ops.mean(pairs, axis=1))
    else:
        whole = keras.Model(crops, model(pixels))
    # Keras exports only a model that was called.
    whole(np.zeros((1, height, width, 3), np.uint8))
    with warnings.catch_warnings(), without_native_notices(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if output.suffix == ".onnx":
            whole.export(str(output), format="onnx", verbose=False)
            _tidy(output)
        else:
            import tensorflow as tf

            # Keras itself writes TensorFlow Lite from 3.13 on, which Python 3.10 does not get.
            folder = str(output.with_name("saved_model"))
            whole.export(folder, verbose=False)
            output.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def _tidy(path: Path) -> None:
    """Name the output and the batch dimension, and let colours be scaled where that is fast."""
    import onnx

    network = onnx.load(str(path))
    # Keras leaves them TensorFlow's names.
    (output,), (source,) = network.graph.output, network.graph.input
    for node in network.graph.node:
        for names in (node.input, node.output):
            names[:] = [OUTPUT_NAME if name == output.name else name for name in names]
    output.name = OUTPUT_NAME
    for end in (source, output):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
    _scale_planes(network.graph)
    onnx.save(network, str(path))


def _scale_planes(graph: Any) -> None:
    """Scale the crops' colours plane by plane, where the first convolution takes planes.

    Keras scales colours that lie side by side, which are then transposed to planes. ONNX Runtime
    takes 0.3 ms a crop for that, and 0.05 the other way round.
    """
    from onnx import helper, numpy_helper

    nodes = graph.node
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    place = next((at for at, node in enumerate(nodes) if node.op_type == "Transpose"), 0)
    while place and nodes[place - 1].op_type in ("Mul", "Add"):
        scaling, transposition = nodes[place - 1], nodes[place]
        numbers = constants.get(scaling.input[1])
        readers = [node for node in nodes if scaling.output[0] in node.input]
        order = list(transposition.attribute[0].ints)
        if numbers is None or numbers.size not in (1, 3):
            return
        if readers != [transposition] or order != [0, 3, 1, 2]:
            return
        planes, name = f"{scaling.output[0]}_planes", f"{scaling.output[0]}_numbers"
        graph.initializer.append(numpy_helper.from_array(numbers.reshape(-1, 1, 1), name))
        scaled = helper.make_node(scaling.op_type, [planes, name], transposition.output)
        transposed = helper.make_node("Transpose", [scaling.input[0]], [planes], perm=order)
        nodes[place].CopyFrom(scaled)
        nodes[place - 1].CopyFrom(transposed)
        place -= 1


def _export_elsewhere(
    model: keras.Model, contract: EncoderContract, output: Path, mirror: bool
) -> None:
    """Write the file in a second process, in which Keras runs on TensorFlow."""
    source = output.with_name("network.keras")
    save_encoder(model, source, contract)
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(source), str(output), *["mirror"] * mirror],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not output.is_file():
        last_line = next(reversed(done.stderr.strip().splitlines()), f"exit {done.returncode}")
        # An exit that the process did not choose itself, as of one that was killed, passes.
        error_type = EngineError if done.returncode == _CANNOT_CONVERT else ChildProcessError
        raise error_type(f"Keras on TensorFlow fails: {last_line}")


def _main(source: str, output: str, *mirror: str) -> None:
    try:
        import keras

        contract = read_contract(source)
        assert contract is not None
        model = keras.saving.load_model(source, compile=False, safe_mode=True)
        _export(model, contract, Path(output), bool(mirror))
    except Exception as error:
        if is_passing(error):
            raise
        print(first_line_of(error), file=sys.stderr)
        sys.exit(_CANNOT_CONVERT)


if __name__ == "__main__":
    _main(*sys.argv[1:])
