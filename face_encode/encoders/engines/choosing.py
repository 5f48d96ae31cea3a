"""Which engine runs an encoder: the one asked for, or the fastest that gives the same."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from face_encode.encoders.compilation import Forward
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.engines.conversion import can_convert_to_onnx, convert, converters
from face_encode.encoders.engines.engine import Engine, Network, first_line_of, release_of
from face_encode.encoders.engines.kept import ConvertedNetwork, KeptPlace, Note
from face_encode.encoders.engines.parity import (
    MOST_DIFFERENCE,
    Parity,
    largest_difference,
    milliseconds_in_turns,
    probe_crops,
)
from face_encode.encoders.engines.table import AUTOMATIC, ENGINES, KERAS, engine_names
from face_encode.errors import EngineError, InputError, MissingExtraError
from face_encode.types import Embeddings, ImageArray

if TYPE_CHECKING:
    from face_encode.encoders.encoder import Encoder

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
