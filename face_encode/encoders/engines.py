"""Engines: the libraries that run an encoder's network in place of Keras.

A network is converted to ONNX and compared with Keras once, then cached with everything else about
the encoder that only Keras knows. From then on the encoder starts without Keras.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import platform
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from face_encode.encoders.compilation import Forward, compile_forward
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.conversion import (
    INPUT_NAME,
    convert,
    first_line_of,
    is_passing,
    release_of,
)
from face_encode.encoders.int8 import (
    MAX_QUALITY_DIFFERENCE,
    MIN_COSINE,
    invented_faces,
    quantize,
    smallest_cosine,
)
from face_encode.encoders.quality import Qualities, QualityHead, split_quality, with_quality
from face_encode.errors import EngineError, InputError, MissingExtraError
from face_encode.forking import never_destroy_after_fork
from face_encode.terminal import import_onnx_runtime
from face_encode.types import CropRecipe, Embeddings, ImageArray
from face_encode.version import __version__
from face_encode.weights import cached

if TYPE_CHECKING:
    import keras

AUTOMATIC = "auto"
FASTEST = "fastest"
"""``"int8"`` where its embeddings stay near enough, else ``"auto"``."""
KERAS = "tensorflow"
"""Keras itself, on its configured backend."""

MAX_DIFFERENCE = 1e-3
"""How far an embedding may be from the one that Keras gives; see ``largest_difference``."""

MAX_PIECE = 8
"""Images that a core works on at once: few enough that their activations stay in its cache, many
enough that a call's own cost does not count. Measured: 4 to 16 are the fastest."""

Network: TypeAlias = Callable[[ImageArray], Embeddings]
"""From uint8 ``(N, height, width, 3)``, N at least 1, to float32 ``(N, D)``, without the mirror
image; ``(N, D + 1)`` with a quality head. Any number of threads may call it at once."""

LoadKeras: TypeAlias = "Callable[[], tuple[keras.Model, EncoderContract, str, QualityHead | None]]"
"""Loads an encoder's Keras model, contract, fingerprint and quality head."""

_FILE_VERSION = "5"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Engine:
    """A library that runs a network from an ONNX file.

    Attributes:
        name: The engine's name, and the extra of this package that installs it.
        library: The name by which the library is installed and imported.
        open: From the content of an ONNX file and a number of processor cores to the network.
        is_rounded: Whether it runs the network rounded to int8, whose embeddings are near those of
            Keras but not the same.
    """

    name: str
    library: str
    open: Callable[[bytes, int], Network]
    is_rounded: bool = False

    @property
    def is_installed(self) -> bool:
        """Whether the library is installed; nothing is imported."""
        return importlib.util.find_spec(self.library) is not None


@dataclass(frozen=True, eq=False)
class ConvertedNetwork:
    """An encoder's network for one engine, with everything else that only Keras knows.

    Attributes:
        contract: How the encoder is used.
        fingerprint: The encoder's fingerprint.
        embedding_size: Length D of an embedding.
        refusal: Why the engine may not run the network; empty if it may.
        content: The ONNX file, without the mirror image, with the quality head if there is one.
    """

    contract: EncoderContract
    fingerprint: str
    embedding_size: int
    refusal: str
    content: bytes


def open_onnx_runtime(content: bytes, cores: int) -> Network:
    """Open an ONNX file's network in ONNX Runtime, on the processor."""
    onnxruntime = import_onnx_runtime()

    def open_session(threads: int) -> Network:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        return lambda images: np.asarray(session.run(None, {INPUT_NAME: images})[0], np.float32)

    together = open_session(cores)
    if cores == 1:
        return together
    alone = open_session(1)
    pool = ThreadPoolExecutor(cores, thread_name_prefix="face_encode-onnx")

    def run(images: ImageArray) -> Embeddings:
        if len(images) < cores:
            return together(images)
        return np.concatenate(list(pool.map(alone, pieces_of(images, cores))))

    return run


def open_openvino(content: bytes, cores: int, precision: str = "f32") -> Network:
    """Open an ONNX file's network in OpenVINO, on the processor.

    With precision ``"bf16"`` it takes half the time on processors that have bfloat16.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(content)

    def open_requests(streams: int) -> list[Any]:
        settings = {
            "INFERENCE_NUM_THREADS": cores,
            "NUM_STREAMS": streams,
            # On processors with bfloat16 that would be the default, and 2.5e-3 off.
            "INFERENCE_PRECISION_HINT": precision,
        }
        compiled = core.compile_model(model, "CPU", settings)
        return [compiled.create_infer_request() for _ in range(streams)]

    together, divided = open_requests(1), open_requests(cores)
    # Two threads that hand over images at once have brought OpenVINO's bindings to a standstill;
    # and a batch takes all cores by itself.
    lock = threading.Lock()

    def run(images: ImageArray) -> Embeddings:
        requests = together if len(images) < cores else divided
        pieces = pieces_of(images, len(requests))
        embeddings = []
        with lock:
            for start in range(0, len(pieces), len(requests)):
                at_once = list(zip(requests, pieces[start:], strict=False))
                for request, piece in at_once:
                    # OpenVINO takes a view of a larger array to lie in one piece.
                    request.start_async([np.ascontiguousarray(piece)])
                for request, _ in at_once:
                    request.wait()
                    embeddings.append(np.array(request.get_output_tensor(0).data, np.float32))
        return np.concatenate(embeddings)

    return run


def pieces_of(images: ImageArray, cores: int) -> list[ImageArray]:
    """Divide images into pieces, each for one core.

    Cores that share the images are busy from the first layer to the last; cores that share each
    layer wait for each other at its end.
    """
    size = min(MAX_PIECE, -(-len(images) // cores))
    return [images[start : start + size] for start in range(0, len(images), size)]


# ``auto`` takes the first that is installed and not rounded.
ENGINES = {
    engine.name: engine
    for engine in (
        Engine("onnx", "onnxruntime", open_onnx_runtime),
        Engine("openvino", "openvino", open_openvino),
        Engine("int8", "onnxruntime", open_onnx_runtime, is_rounded=True),
    )
}


def engine_names() -> tuple[str, ...]:
    """The names that ``check_engine`` accepts."""
    return (AUTOMATIC, FASTEST, KERAS, *ENGINES)


def check_engine(name: str) -> None:
    """Refuse an unknown engine, or one whose library is missing.

    Raises:
        InputError: There is no such engine.
        MissingExtraError: Its library is not installed.
    """
    if name not in engine_names():
        raise InputError(f"the engine is one of {', '.join(engine_names())}. Received: {name!r}")
    if name in ENGINES and not ENGINES[name].is_installed:
        raise MissingExtraError(
            f'the engine {name!r} needs {ENGINES[name].library}: pip install "face_encode[{name}]"'
        )


def unrounded(name: str) -> str:
    """The engine for a network that is not to be rounded, where one was chosen for an encoder."""
    rounded = name == FASTEST or (name in ENGINES and ENGINES[name].is_rounded)
    return AUTOMATIC if rounded else name


def start_engine(
    name: str, cache_key: tuple[str, str] | None, load_keras: LoadKeras
) -> tuple[str, Forward, ConvertedNetwork] | None:
    """Start an engine with an encoder's network.

    Args:
        name: One of ``engine_names``, checked.
        cache_key: The encoder's name and the SHA-256 of its file; None if its network is not
            cached: then ``"auto"`` and ``"fastest"`` are Keras, which starts faster than a
            conversion ends.
        load_keras: Loads the encoder.

    Returns:
        The engine's name, the forward pass (mirror image included), and the network; None if
        Keras runs the encoder.

    Raises:
        EngineError: The engine asked for cannot run the network, its embeddings are further from
            those of Keras than allowed, or it could not be converted this time, as on a full disk.
        MissingExtraError: A library that converts the network is not installed.
    """
    is_automatic = name in (AUTOMATIC, FASTEST)
    chosen = [ENGINES[name]] if name in ENGINES else []
    if is_automatic and cache_key is not None:
        installed = [each for each in ENGINES.values() if each.is_installed]
        if name == FASTEST:
            chosen += [each for each in installed if each.is_rounded]
        chosen += [each for each in installed if not each.is_rounded][:1]
    for engine in chosen:
        try:
            network = _network(engine, cache_key, load_keras, is_automatic=is_automatic)
            if network.refusal:
                raise EngineError(network.refusal)
            return engine.name, _forward(engine, network), network
        except (EngineError, MissingExtraError) as error:
            if not is_automatic:
                raise
            others = "Keras" if engine is chosen[-1] else "another engine"
            _log.warning("%s runs the encoder: %s", others, error)
    return None


def _network(
    engine: Engine,
    cache_key: tuple[str, str] | None,
    load_keras: LoadKeras,
    *,
    is_automatic: bool,
) -> ConvertedNetwork:
    """Read the network from the cache, or convert and cache it."""
    if cache_key is None:
        return _converted(engine, *load_keras())
    # Another release of any library that takes part converts and compares again.
    releases = map(release_of, ("keras", "tensorflow", "tf2onnx", "onnx", engine.library))
    machine = (platform.machine(), _processor_features() if engine.is_rounded else "")
    used = " ".join([*cache_key, engine.name, __version__, _FILE_VERSION, *machine, *releases])
    readable = re.sub(r"[^A-Za-z0-9]", "_", cache_key[0])[:40]
    short = hashlib.sha256(used.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return cached(
        f"{readable}-{short}.network",
        lambda: _content_of(_converted(engine, *load_keras())),
        _read,
        unkept=EngineError if is_automatic else None,
    )


def _processor_features() -> str:
    """What the processor can do: not all of them round alike, and a cache may be carried along."""
    import cv2

    return str(cv2.getCPUFeaturesLine())


def _read(content: bytes) -> ConvertedNetwork:
    record, _, network = content.partition(b"\n")
    values = json.loads(record)
    contract = EncoderContract.from_json(values.pop("contract"))
    return ConvertedNetwork(contract=contract, content=network, **values)


def _content_of(network: ConvertedNetwork) -> bytes:
    """A line of JSON, and the ONNX file."""
    values = {**asdict(network), "contract": network.contract.to_json()}
    content: bytes = values.pop("content")
    return json.dumps(values).encode() + b"\n" + content


def _converted(
    engine: Engine,
    model: keras.Model,
    contract: EncoderContract,
    fingerprint: str,
    head: QualityHead | None,
) -> ConvertedNetwork:
    """Convert a network, and compare the engine with Keras.

    Raises:
        EngineError: It failed by what may be otherwise the next time, and is not to be cached.
    """
    size = int(model.output_shape[-1])
    network = ConvertedNetwork(contract, fingerprint, size, "", b"")
    try:
        faces = invented_faces(contract.crop) if engine.is_rounded else None
        judged = with_quality(model, head, contract.crop)
        network = replace(network, content=convert(judged, contract, "onnx", mirror=False))
    except EngineError as error:
        return _refused(network, error)
    if faces is None:
        probes = probe_crops(contract.crop)
    else:
        # Where this fails, as on a full disk, the next start tries again.
        network = replace(network, content=quantize(network.content, faces.measured))
        probes = faces.compared
    try:
        expected = split_quality(compile_forward(judged, contract)(probes), size)
        received = split_quality(_forward(engine, network)(probes), size)
        problem = _difference(expected, received, is_rounded=engine.is_rounded)
        if problem:
            raise EngineError(
                f"the engine {engine.name!r} ({release_of(engine.library)}) is refused for the "
                f"encoder {contract.name!r}: {problem}"
            )
    except EngineError as error:
        return _refused(network, error)
    return network


def _refused(network: ConvertedNetwork, error: EngineError) -> ConvertedNetwork:
    """The network with the reason why it may not be run, if that says something lasting of it."""
    if is_passing(error.__cause__):
        raise error
    return replace(network, refusal=str(error))


def _difference(
    expected: tuple[Embeddings, Qualities | None],
    received: tuple[Embeddings, Qualities | None],
    *,
    is_rounded: bool,
) -> str:
    """Why an engine's embeddings and qualities are too far from those of Keras; empty if not."""
    qualities = 0.0
    if expected[1] is not None and received[1] is not None:
        qualities = float(np.abs(expected[1] - received[1]).max())
    if not is_rounded:
        difference = max(largest_difference(expected[0], received[0]), qualities)
        if difference <= MAX_DIFFERENCE:  # so that NaN is refused
            return ""
        return (
            f"its embeddings may differ from those of Keras by {MAX_DIFFERENCE:g} at most. "
            f"Received: a largest difference of {difference:.2g}"
        )
    cosine = smallest_cosine(expected[0], received[0])
    if cosine >= MIN_COSINE and qualities <= MAX_QUALITY_DIFFERENCE:
        return ""
    return (
        f"its embeddings have a cosine of {MIN_COSINE:g} at least with those of Keras, and "
        f"qualities differ by {MAX_QUALITY_DIFFERENCE:g} at most. "
        f"Received: {cosine:.3g} and {qualities:.2g}"
    )


def _forward(engine: Engine, network: ConvertedNetwork) -> Forward:
    """Make the forward pass on an engine, with the mirror image if the contract says so."""
    import loky

    opened: dict[int, Network] = {}

    def run(crops: ImageArray) -> Embeddings:
        try:
            # A forked process has none of the threads that a network runs on.
            if os.getpid() not in opened:
                opened[os.getpid()] = engine.open(network.content, int(loky.cpu_count()))
                never_destroy_after_fork(opened[os.getpid()])
            return opened[os.getpid()](crops)
        # Each library raises types of its own.
        except Exception as error:
            raise EngineError(
                f"the engine {engine.name!r} ({release_of(engine.library)}) cannot run this "
                f"encoder: {first_line_of(error)}"
            ) from error

    def run_both(crops: ImageArray) -> Embeddings:
        embeddings = run(np.concatenate([crops, crops[:, :, ::-1]]))
        return np.asarray((embeddings[: len(crops)] + embeddings[len(crops) :]) / 2, np.float32)

    forward = run_both if network.contract.mirror else run
    # An engine that cannot open the network fails here and not at the first face.
    crop = network.contract.crop
    forward(np.zeros((1, crop.height, crop.width, 3), np.uint8))
    return forward


def probe_crops(recipe: CropRecipe) -> ImageArray:
    """Draw eight crops, always the same, with colours, edges and textures as in photographs.

    Returns:
        uint8 ``(8, height, width, 3)``; the last is black on one half and white on the other.
    """
    import cv2

    generator = np.random.default_rng(20_150_610)
    crops = np.zeros((8, recipe.height, recipe.width, 3), np.uint8)
    for crop in crops[:-1]:
        pixels = generator.standard_normal(crop.shape) / 32
        # Waves from the size of a face down to that of an eye's corner, each octave half as
        # strong: the spectrum of photographs falls about so (Field, 1987).
        for octave in range(5):
            points = generator.standard_normal((3 * 2**octave + 1, 3 * 2**octave + 1, 3))
            pixels += cv2.resize(points, (recipe.width, recipe.height)) / 2**octave
        crop[:] = np.clip(np.rint(127.5 + 60 * pixels), 0, 255)
    crops[-1, :, recipe.width // 2 :] = 255
    return crops


def largest_difference(expected: Embeddings, received: Embeddings) -> float:
    """Find the largest difference of any number of any embedding.

    Embeddings shorter than 1 are scaled to length 1 first, since the cosine depends on the
    difference in proportion.

    Args:
        expected: From Keras, float32 ``(N, D)``.
        received: From the engine.

    Returns:
        0 if all are the same; NaN or infinite if an embedding is not finite, or the shapes differ.
    """
    if expected.shape != received.shape:
        return float("inf")
    lengths = np.linalg.norm(expected.astype(np.float64), axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        differences = np.abs(received.astype(np.float64) - expected) / np.minimum(lengths, 1)
    # An embedding of zeros, which has no direction, agrees with another of zeros.
    differences[np.broadcast_to(lengths == 0, differences.shape) & (received == 0)] = 0
    return float(differences.max())
