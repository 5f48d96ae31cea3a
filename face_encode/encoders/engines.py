"""Engines: the libraries that can run an encoder's network in the place of Keras.

Beside ``NAME.onnx`` lies ``NAME.onnx.json``, which holds its SHA-256, what would otherwise have to
be asked of Keras, and how each engine compared. So an encoder starts without Keras once its
network was converted. Whatever does not fit is made again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import filelock
import numpy as np
import numpy.typing as npt

from face_encode.encoders.compilation import Forward
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.conversion import (
    can_convert_to_onnx,
    convert,
    converters,
    first_line_of,
    release_of,
)
from face_encode.errors import EngineError, InputError, MissingExtraError, ModelFileError
from face_encode.files import open_regular, replacing
from face_encode.types import CropRecipe, Embeddings, ImageArray
from face_encode.version import __version__
from face_encode.weights import cache_folder

if TYPE_CHECKING:
    from face_encode.encoders.encoder import Encoder

Network: TypeAlias = Callable[[ImageArray], Embeddings]
"""From uint8 ``(N, height, width, 3)``, N at least 1, to float32 ``(N, D)``, one row an image,
without the mirror image. Any number of threads may call it at once."""

# Few enough that what passes from layer to layer stays in the processor's cache, many enough
# that a call's own cost does not count: measured best from 4 to 16.
IMAGES_A_PIECE = 8


class OpenNetwork(Protocol):
    """Opens a network for an engine."""

    def __call__(self, content: bytes, threads: int) -> Network:
        """Open a network.

        Args:
            content: An ONNX file whose one input takes uint8 ``(N, height, width, 3)``.
            threads: How many processor cores to use.
        """


@dataclass(frozen=True)
class Engine:
    """A row in the table of engines.

    Attributes:
        name: What it is chosen by.
        module: The import name of its library.
        distribution: The name by which its library is installed.
        extra: The extra of this package that installs it.
        open: Opens a network.
    """

    name: str
    module: str
    distribution: str
    extra: str
    open: OpenNetwork

    @property
    def is_installed(self) -> bool:
        """Whether its library is there; nothing is imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def release(self) -> str:
        """Name and version of its library; nothing is imported."""
        return release_of(self.distribution)


def pieces_of(images: ImageArray, cores: int) -> list[ImageArray]:
    """Divide images into pieces that a core works on by itself.

    Cores that share the images are busy from the first layer to the last; cores that share each
    layer wait for each other at its end.

    Args:
        images: ``(N, height, width, 3)``, N at least 1.
        cores: Among how many a small batch is divided.
    """
    size = min(IMAGES_A_PIECE, -(-len(images) // cores))
    return [images[start : start + size] for start in range(0, len(images), size)]


# Its own levels: 3 tells of errors only.
_ERRORS_ONLY = 3


def open_onnx_runtime(content: bytes, threads: int) -> Network:
    """Open a network in ONNX Runtime, on the processor.

    A batch of at least as many images as threads is divided among them; of a smaller one, the
    threads share each layer.

    Args:
        content: The ONNX file.
        threads: How many processor cores to use.
    """
    shared = _session(content, threads)
    if threads == 1:
        return _run_session(shared)
    one_core = _run_session(_session(content, 1))
    pool = ThreadPoolExecutor(threads, thread_name_prefix="face_encode-onnx")
    together = _run_session(shared)

    def run(images: ImageArray) -> Embeddings:
        if len(images) < threads:
            return together(images)
        return np.concatenate(list(pool.map(one_core, pieces_of(images, threads))))

    return run


def _session(content: bytes, threads: int) -> Any:
    """A session that so many cores work for."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ERRORS_ONLY
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _run_session(session: Any) -> Network:
    """A session may be run by any number of threads at once."""
    name = session.get_inputs()[0].name

    def run(images: ImageArray) -> Embeddings:
        (embeddings,) = session.run(None, {name: images})
        return np.asarray(embeddings, np.float32)

    return run


def open_openvino(content: bytes, threads: int) -> Network:
    """Open a network in OpenVINO.

    A batch of at least as many images as threads is divided among them; of a smaller one, the
    threads share each layer.

    Args:
        content: The ONNX file.
        threads: How many processor cores to use.
    """
    import openvino

    core = openvino.Core()
    network = core.read_model(content)
    divided, together = (_compiled(core, network, threads, streams) for streams in (threads, 1))
    # Two threads that hand over images at once have brought OpenVINO's bindings to a standstill;
    # and a batch takes all cores by itself.
    lock = threading.Lock()

    def run(images: ImageArray) -> Embeddings:
        with lock:
            return _run_requests(divided if len(images) >= threads else together, images)

    return run


def _compiled(core: Any, network: Any, threads: int, streams: int) -> list[Any]:
    """As many requests as run at once, each on its share of the cores."""
    compiled = core.compile_model(
        network,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            # On processors with bfloat16 that would be the default, and 2.5e-3 off.
            "INFERENCE_PRECISION_HINT": "f32",
        },
    )
    return [compiled.create_infer_request() for _ in range(streams)]


def _run_requests(requests: list[Any], images: ImageArray) -> Embeddings:
    """Divide images among requests; each of them runs one piece at a time."""
    pieces = pieces_of(images, len(requests))
    embeddings: list[Any] = []
    for number, piece in enumerate(pieces):
        if number >= len(requests):
            embeddings.append(_result(requests[number % len(requests)]))
        # A piece may be a view of a larger array; OpenVINO would take it to lie in one piece.
        requests[number % len(requests)].start_async([np.ascontiguousarray(piece)])
    for number in range(len(embeddings), len(pieces)):
        embeddings.append(_result(requests[number % len(requests)]))
    return np.concatenate(embeddings)


def _result(request: Any) -> Embeddings:
    """What a request gives when it is done; it uses the same memory again."""
    request.wait()
    return np.array(request.get_output_tensor(0).data, np.float32)


AUTOMATIC = "auto"
KERAS = "tensorflow"
"""Keras itself, on whatever backend it runs on."""

# Of two that are about as fast, the earlier is taken.
ENGINES = {
    engine.name: engine
    for engine in (
        Engine("onnx", "onnxruntime", "onnxruntime", "onnx", open_onnx_runtime),
        Engine("openvino", "openvino", "openvino", "openvino", open_openvino),
    )
}


def engine_names() -> tuple[str, ...]:
    """What may be asked for."""
    return (AUTOMATIC, KERAS, *ENGINES)


MOST_DIFFERENCE = 1e-3
"""How far an embedding may be from the one that Keras gives; see :func:`largest_difference`."""

_PROBES = 8
_ROUNDS = 6
# The first call of a turn finds the caches full of what another engine left there.
_CALLS_A_TURN = 2
# Waves from the size of a face down to that of an eye's corner, each octave half as strong: the
# spectrum of photographs falls about so (Field, 1987).
_OCTAVES = (3, 6, 12, 24, 48)


@dataclass(frozen=True)
class Parity:
    """How an engine compares with Keras.

    Attributes:
        difference: See :func:`largest_difference`.
        milliseconds: Of the forward pass of eight crops, the fastest of a few.
    """

    difference: float
    milliseconds: float

    @property
    def holds(self) -> bool:
        """Whether the engine may stand in for Keras; not so for what is no number."""
        return self.difference <= MOST_DIFFERENCE


def probe_crops(recipe: CropRecipe) -> ImageArray:
    """Eight crops, always the same, with colours, edges and textures like those of photographs.

    Args:
        recipe: Of what size.

    Returns:
        uint8 ``(8, height, width, 3)``; the last is black on one half and white on the other.
    """
    generator = np.random.default_rng(20_150_610)
    shape = (_PROBES, recipe.height, recipe.width, 3)
    pixels = np.zeros(shape)
    for strength, cells in enumerate(_OCTAVES):
        coarse = generator.standard_normal((_PROBES, cells + 1, cells + 1, 3))
        pixels += _enlarged(coarse, recipe.height, recipe.width) / 2**strength
    pixels += generator.standard_normal(shape) / 2 ** len(_OCTAVES)
    pixels = 127.5 + 60 * pixels
    pixels[-1] = 0
    pixels[-1, :, recipe.width // 2 :] = 255
    crops: ImageArray = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return crops


def _enlarged(grid: npt.NDArray[np.float64], rows: int, columns: int) -> npt.NDArray[np.float64]:
    """A grid ``(N, cells, cells, 3)`` with straight lines between its points."""
    for axis, length in ((1, rows), (2, columns)):
        places = np.linspace(0, grid.shape[axis] - 1, length)
        below = np.minimum(places.astype(int), grid.shape[axis] - 2)
        share = np.expand_dims(places - below, tuple(range(1, grid.ndim - axis)))
        first, second = np.take(grid, below, axis), np.take(grid, below + 1, axis)
        grid = np.asarray(first + share * (second - first), np.float64)
    return grid


def largest_difference(expected: Embeddings, received: Embeddings) -> float:
    """The largest difference of any number of any embedding.

    Embeddings shorter than 1 are compared as if brought to length 1: since they are compared by
    their cosine, what counts is the difference in proportion.

    Args:
        expected: As Keras gives them, float32 ``(N, D)``.
        received: As the engine gives them.

    Returns:
        0 where all are the same; not a number or infinite where an embedding is not finite, or
        of another shape.
    """
    if expected.shape != received.shape:
        return float("inf")
    lengths = np.linalg.norm(expected.astype(np.float64), axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        differences = np.abs(received.astype(np.float64) - expected) / np.minimum(lengths, 1)
    # An embedding of zeros, which has no direction, agrees with its like.
    differences[np.broadcast_to(lengths == 0, differences.shape) & (received == 0)] = 0
    return float(differences.max())


def milliseconds_in_turns(forwards: Sequence[Forward], crops: ImageArray) -> list[float]:
    """Time forward passes against each other: of each the fastest of a few.

    They take turns, so that whatever else the machine is busy with slows all of them alike.

    Args:
        forwards: Of the engines, each called before.
        crops: What :func:`probe_crops` gives.
    """
    fastest = [math.inf] * len(forwards)
    for _ in range(_ROUNDS):
        for place, forward in enumerate(forwards):
            for _ in range(_CALLS_A_TURN):
                start = time.perf_counter()
                forward(crops)
                fastest[place] = min(fastest[place], 1000 * (time.perf_counter() - start))
    return fastest


_NOTE_VERSION = 1


@dataclass(frozen=True)
class Note:
    """What is known of a converted network.

    Attributes:
        contract: The encoder's.
        fingerprint: The encoder's.
        embedding_size: The encoder's.
        converters: What converted it, or failed to.
        sha256: Of the ONNX file; None where it could not be converted.
        failure: Why it could not be converted.
        parities: How each engine compared with Keras, by its release and this machine.
        failures: Why an engine cannot run it, by the same.
    """

    contract: EncoderContract
    fingerprint: str
    embedding_size: int
    converters: str
    sha256: str | None = None
    failure: str | None = None
    parities: dict[str, Parity] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The note as text."""
        values = {**asdict(self), "contract": json.loads(self.contract.to_json())}
        return json.dumps({"note_version": _NOTE_VERSION, **values}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> Note:
        """Read a note.

        Raises:
            ValueError: It is none, or of another form.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            if values.pop("note_version") != _NOTE_VERSION:
                raise ValueError("a note of another form")
            values["contract"] = EncoderContract.from_json(json.dumps(values["contract"]))
            values["parities"] = {
                engine: Parity(float(parity["difference"]), float(parity["milliseconds"]))
                for engine, parity in values["parities"].items()
            }
            note = cls(**values)
        except (AttributeError, KeyError, TypeError, ModelFileError, RecursionError) as error:
            raise ValueError(f"no note: {error}") from error
        if not isinstance(note.fingerprint, str) or not isinstance(note.embedding_size, int):
            raise ValueError("no note")
        return note


@dataclass(frozen=True, eq=False)
class ConvertedNetwork:
    """A converted network.

    Attributes:
        note: What is known of it.
        content: The ONNX file; None where it could not be converted.
    """

    note: Note
    content: bytes | None


@dataclass(frozen=True)
class KeptPlace:
    """Where in the cache a converted network has its place.

    Attributes:
        path: Of the ONNX file.
    """

    path: Path

    @classmethod
    def of_file(cls, name: str, digest: str) -> KeptPlace:
        """The place for the network of a model file.

        Args:
            name: The encoder's.
            digest: SHA-256 of the model file. Another release converts anew.
        """
        key = f"{name} {digest} {__version__} {_NOTE_VERSION}"
        short = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return cls(cache_folder() / f"{_file_name(name)}-{short}.onnx")

    @property
    def _note_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def read(self) -> ConvertedNetwork | None:
        """The network as it is kept; None where there is none, or it is damaged."""
        try:
            with open_regular(self._note_path) as file:
                note = Note.from_json(file.read())
            if note.sha256 is None:
                return ConvertedNetwork(note, None)
            with open_regular(self.path) as file:
                content = file.read()
        except (OSError, ValueError):
            return None
        if hashlib.sha256(content).hexdigest() != note.sha256:
            return None
        return ConvertedNetwork(note, content)

    def write(self, converted: ConvertedNetwork) -> None:
        """Keep a network in the place of a former one.

        Raises:
            EngineError: The cache cannot be written to.
        """
        if converted.content is not None:
            with replacing(self.path, EngineError) as temporary:
                temporary.write_bytes(converted.content)
        self.write_note(converted.note)

    def write_note(self, note: Note) -> None:
        """Keep what else was found out.

        Raises:
            EngineError: The cache cannot be written to.
        """
        with replacing(self._note_path, EngineError) as temporary:
            temporary.write_text(note.to_json(), encoding="utf-8")

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Let one process at a time convert; gives whether the cache can be written to."""
        lock = filelock.FileLock(f"{self.path}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def _file_name(name: str) -> str:
    """A beginning for a file's name that every file system takes."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)[:40]


# Another engine has to be faster by so much to be taken before one that stands earlier in the
# table: less than that is chance, and the choice is kept.
_ABOUT_AS_FAST = 1.1
# Keras starts in seconds where the others take a fraction of one; so it has to be much faster, as
# it is on a graphics processor.
_WORTH_STARTING_KERAS = 1.5


@dataclass(frozen=True, eq=False)
class RunningEngine:
    """An engine with an encoder's network in it.

    Attributes:
        name: The engine's.
        forward: The forward pass, mirror image included.
        note: What is known of the encoder without Keras.
    """

    name: str
    forward: Forward
    note: Note


def check_engine(name: str) -> None:
    """Refuse the name of an engine that is none, or whose library is missing.

    Raises:
        InputError: There is no such engine.
        MissingExtraError: Its library is not installed.
    """
    if name not in engine_names():
        raise InputError(f"the engine is one of {', '.join(engine_names())}. Received: {name!r}")
    if name in ENGINES and not ENGINES[name].is_installed:
        engine = ENGINES[name]
        raise MissingExtraError(
            f"the engine {name!r} needs {engine.distribution}: "
            f'pip install "face_encode[{engine.extra}]"'
        )


def start_engine(
    name: str, place: KeptPlace | None, keras_encoder: Callable[[], Encoder]
) -> RunningEngine | None:
    """Start the engine for an encoder.

    The network is converted once and kept, together with how the engines compared with Keras.
    What was found out before needs no Keras.

    Args:
        name: One of :func:`engine_names`, checked.
        place: Where the converted network is kept; None where it is not: then no engine but the
            one asked for is worth converting for.
        keras_encoder: Opens the encoder on Keras.

    Returns:
        None where Keras is to run the encoder.

    Raises:
        EngineError: The engine asked for cannot run the encoder, or its embeddings are further
            from those of Keras than allowed.
        MissingExtraError: What converts the network for the engine asked for is not installed.
    """
    if name == KERAS:
        return None
    asked_for = name != AUTOMATIC
    engines = [
        engine
        for engine in ENGINES.values()
        if (engine.name == name if asked_for else engine.is_installed)
    ]
    if not engines or (place is None and not asked_for):
        return None
    kept = place.read() if place is not None else None
    if kept is None or not _tells_enough(kept.note, engines, timed=not asked_for):
        with place.alone() if place is not None else nullcontext(False) as writable:
            if not asked_for and not writable:
                return None
            # Another process may have done it in the meantime.
            kept = place.read() if place is not None else None
            if not asked_for and kept is None and not can_convert_to_onnx():
                return None
            kept = _completed(kept, engines, keras_encoder, timed=not asked_for)
            if writable and place is not None:
                place.write(kept)
    if asked_for:
        return _started(engines[0], kept)
    chosen = _fastest(kept.note, engines)
    return None if chosen is None else _started(chosen, kept)


def _here(release: str) -> str:
    """Under which name results are kept: those of another release or machine may differ."""
    return f"{release}, {_cores()} cores, {platform.machine()}"


def _cores() -> int:
    import loky

    return int(loky.cpu_count())


def _keras_release() -> str:
    """Keras and what it runs on, as far as can be told without importing it."""
    backend = os.environ.get("KERAS_BACKEND", "the backend set up")
    return f"{release_of('keras')} on {backend}, {release_of('tensorflow')}"


def _tells_enough(note: Note, engines: Sequence[Engine], *, timed: bool) -> bool:
    """Whether a choice can be made from a note."""
    if note.failure is not None:
        return note.converters == converters()
    wanted = [_here(engine.release) for engine in engines]
    if timed:
        wanted.append(_here(_keras_release()))
    return all(each in note.parities or each in note.failures for each in wanted)


def _completed(
    kept: ConvertedNetwork | None,
    engines: Sequence[Engine],
    keras_encoder: Callable[[], Encoder],
    *,
    timed: bool,
) -> ConvertedNetwork:
    """Convert what is not converted, and compare what was not compared."""
    encoder = keras_encoder()
    if kept is None or kept.note.failure is not None:
        kept = _converted(encoder, engines[0].extra)
    if kept.content is None:
        return kept
    note, content = kept.note, kept.content
    probes = probe_crops(encoder.contract.crop)
    expected = encoder.encode(probes)
    failures = dict(note.failures)
    forwards: dict[str, Forward] = {}
    differences: dict[str, float] = {}
    for engine in engines:
        here = _here(engine.release)
        # Times of different days cannot be compared: where times count, all are taken again.
        if here in failures or (here in note.parities and not timed):
            continue
        try:
            with _errors_of(engine):
                forward = _forward(engine.open(content, _cores()), encoder.contract)
                differences[here] = largest_difference(expected, forward(probes))
            forwards[here] = forward
        except EngineError as error:
            failures[here] = str(error)
    if timed:
        forwards[_here(_keras_release())], differences[_here(_keras_release())] = encoder.encode, 0
    times = milliseconds_in_turns(list(forwards.values()), probes)
    parities = note.parities | {
        here: Parity(differences[here], time) for here, time in zip(forwards, times, strict=True)
    }
    return ConvertedNetwork(replace(note, parities=parities, failures=failures), content)


def _converted(encoder: Encoder, extra: str) -> ConvertedNetwork:
    """Convert a network, or note why that cannot be done."""
    note = Note(
        contract=encoder.contract,
        fingerprint=encoder.fingerprint,
        embedding_size=encoder.embedding_size,
        converters=converters(),
    )
    try:
        content = convert(encoder.model, encoder.contract, "onnx", mirror=False, extra=extra)
    except EngineError as error:
        return ConvertedNetwork(replace(note, failure=str(error)), None)
    return ConvertedNetwork(replace(note, sha256=hashlib.sha256(content).hexdigest()), content)


def _fastest(note: Note, engines: Sequence[Engine]) -> Engine | None:
    """The fastest engine that gives what Keras gives; None where that is Keras."""
    fit = {
        engine: note.parities[_here(engine.release)].milliseconds
        for engine in engines
        if _here(engine.release) in note.parities and note.parities[_here(engine.release)].holds
    }
    if not fit:
        return None
    least = min(fit.values())
    if note.parities[_here(_keras_release())].milliseconds * _WORTH_STARTING_KERAS < least:
        return None
    return next(each for each, time in fit.items() if time <= _ABOUT_AS_FAST * least)


def _started(engine: Engine, kept: ConvertedNetwork) -> RunningEngine:
    """An engine with the network in it."""
    note, here = kept.note, _here(engine.release)
    if note.failure is not None or kept.content is None:
        raise EngineError(f"{note.failure}; so the engine {engine.name!r} cannot run it")
    if here in note.failures:
        raise EngineError(note.failures[here])
    parity = note.parities[here]
    if not parity.holds:
        raise EngineError(
            f"the engine {engine.name!r} ({engine.release}) is refused for the encoder "
            f"{note.contract.name!r}: its embeddings may differ from those of Keras by "
            f"{MOST_DIFFERENCE:g} at most. Received: a largest difference of "
            f"{parity.difference:.2g}"
        )
    with _errors_of(engine):
        network = engine.open(kept.content, _cores())
    return RunningEngine(engine.name, _forward(network, note.contract), note)


@contextmanager
def _errors_of(engine: Engine) -> Iterator[None]:
    """Turn what an engine's library raises into an error of ours."""
    try:
        yield
    # Each library raises types of its own.
    except Exception as error:
        raise EngineError(
            f"the engine {engine.name!r} ({engine.release}) cannot run this encoder: "
            f"{first_line_of(error)}"
        ) from error


def _forward(network: Network, contract: EncoderContract) -> Forward:
    """The forward pass by a network that knows nothing of mirror images."""
    if not contract.mirror:
        return network

    def forward(crops: ImageArray) -> Embeddings:
        embeddings = network(np.concatenate([crops, crops[:, :, ::-1]]))
        return np.asarray((embeddings[: len(crops)] + embeddings[len(crops) :]) / 2, np.float32)

    return forward
