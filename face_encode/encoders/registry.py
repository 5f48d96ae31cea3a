"""The table of encoders, and the one function that opens any of them."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from face_encode.encoders.contract import (
    EncoderContract,
    original_contract,
    read_contract,
    save_encoder,
)
from face_encode.encoders.dlib_resnet import (
    DLIB_RESNET_CONTRACT,
    DLIB_RESNET_SINGLE_CONTRACT,
    dlib_resnet,
)
from face_encode.encoders.encoder import Encoder, image_shape
from face_encode.encoders.engines import AUTOMATIC, KERAS, check_engine, start_engine
from face_encode.encoders.facenet import (
    FACENET128_CONTRACT,
    FACENET_CASIA_CONTRACT,
    FACENET_VGGFACE2_CONTRACT,
    facenet128,
    facenet_casia,
    facenet_vggface2,
)
from face_encode.errors import InputError, ModelFileError, WeightsError
from face_encode.files import as_path, open_regular, reason_of
from face_encode.terminal import import_keras
from face_encode.version import __version__
from face_encode.weights import (
    KNOWN_WEIGHTS,
    cache_folder,
    expected_digest,
    installed_path,
    pin_digest,
    read_verified,
)

if TYPE_CHECKING:
    import keras

SHIPPED_ENCODERS = ("vgg_embedding",)
"""Names of the encoders whose files come with the package."""

_PACKAGE = "face_encode_weights"


def shipped_path(name: str) -> Path:
    """Where the file of a shipped encoder lies.

    Args:
        name: One of :data:`SHIPPED_ENCODERS`.

    Raises:
        ModelFileError: It is neither beside the package nor installed.
    """
    # A clone's own weights first: an installed release may be another one.
    folders = [Path(__file__).parents[2] / "weights"]
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is not None:
        folders += [Path(folder) for folder in spec.submodule_search_locations or ()]
    for folder in folders:
        if (folder / f"{name}.keras").is_file():
            return folder / f"{name}.keras"
    raise ModelFileError(
        f"the file {name}.keras, which comes with face_encode, is missing; install the package "
        f"again. Looked in: {', '.join(map(str, folders))}"
    )


DEFAULT_ENCODER = "dlib_resnet"


@dataclass(frozen=True)
class KnownEncoder:
    """An encoder that is known by name.

    Attributes:
        contract: How it is used.
        build: From the content of its original weights file to the Keras model.
        weights: Its row in ``KNOWN_WEIGHTS``.
    """

    contract: EncoderContract
    build: Callable[[bytes], keras.Model]
    weights: str


KNOWN_ENCODERS = {
    "dlib_resnet": KnownEncoder(DLIB_RESNET_CONTRACT, dlib_resnet, "dlib_resnet"),
    "dlib_resnet_single": KnownEncoder(DLIB_RESNET_SINGLE_CONTRACT, dlib_resnet, "dlib_resnet"),
    "facenet_vggface2": KnownEncoder(
        FACENET_VGGFACE2_CONTRACT, facenet_vggface2, "facenet_vggface2"
    ),
    "facenet_casia": KnownEncoder(FACENET_CASIA_CONTRACT, facenet_casia, "facenet_casia"),
    "facenet128": KnownEncoder(FACENET128_CONTRACT, facenet128, "facenet128"),
}


def load_encoder(
    name_or_path: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    engine: str = AUTOMATIC,
) -> Encoder:
    """Open an encoder.

    Args:
        name_or_path: One of :func:`encoder_names`; or the path of a ``.keras`` file, with a
            contract inside or else used by the original project's conventions; or None for the
            most accurate encoder that needs no download.
        weights: For a known name, its original weights file where that lies elsewhere than
            expected. It is checked against the SHA-256 where its makers publish one.
        engine: What runs it. ``"tensorflow"`` is Keras itself, on whatever backend it has;
            ``"onnx"`` and ``"openvino"`` run a converted copy, which is cached; ``"auto"`` is the
            first of these two that is installed if its embeddings are within 1e-3 of Keras', else
            Keras.

    Raises:
        ModelFileError: No such name or file, or the file holds no encoder.
        WeightsError: The known weights are missing or not what they should be.
        InputError: No such engine.
        MissingExtraError: The engine is not installed.
        EngineError: The engine asked for cannot run the encoder, or its embeddings are further
            than that from those of Keras.
    """
    check_engine(engine)
    if name_or_path is None:
        name_or_path = DEFAULT_ENCODER
    if isinstance(name_or_path, str) and name_or_path in SHIPPED_ENCODERS:
        _refuse_weights(name_or_path, weights)
        return _open_file(shipped_path(name_or_path), engine)
    if isinstance(name_or_path, str) and name_or_path in KNOWN_ENCODERS:
        return _open_known(KNOWN_ENCODERS[name_or_path], weights, engine)
    is_path = isinstance(name_or_path, str | os.PathLike)
    if not is_path or Path(name_or_path).suffix != ".keras":
        raise ModelFileError(
            f"an encoder is one of {', '.join(encoder_names())}, or the path of a .keras file. "
            f"Received: {name_or_path!r}"
        )
    path = as_path(name_or_path)
    _refuse_weights(path, weights)
    return _open_file(path, engine)


def as_encoder(
    encoder: str | os.PathLike[str] | Encoder | None, engine: str | None = None
) -> Encoder:
    """An encoder as it was given, or opened.

    Args:
        encoder: One that is open; or what :func:`load_encoder` takes.
        engine: What runs it, as :func:`load_encoder` takes it; None for ``"auto"``.

    Raises:
        InputError: Another engine than that of the encoder given.
        FaceEncodeError: As for :func:`load_encoder`.
    """
    if not isinstance(encoder, Encoder):
        return load_encoder(encoder, engine=engine or AUTOMATIC)
    if engine not in (None, AUTOMATIC, encoder.engine):
        raise InputError(
            "an encoder that is open already has its engine, "
            f"{encoder.engine!r}; choose it by load_encoder(..., engine=...). "
            f"Received: {engine!r}"
        )
    return encoder


def encoder_names() -> tuple[str, ...]:
    """The names that :func:`load_encoder` takes: encoders shipped and encoders converted."""
    return (*KNOWN_ENCODERS, *SHIPPED_ENCODERS)


def _refuse_weights(what: str | Path, weights: str | os.PathLike[str] | None) -> None:
    if weights is not None:
        raise ModelFileError(
            f"{what} carries its own weights; 'weights' is for encoders that are converted"
        )


def is_at_hand(name: str) -> bool:
    """Whether a known encoder can be opened without a download.

    Args:
        name: One of ``KNOWN_ENCODERS``.
    """
    known = KNOWN_ENCODERS[name]
    try:
        digest = expected_digest(known.weights)
        converted = digest is not None and _converted_path(known, digest).is_file()
        return converted or installed_path(known.weights).is_file()
    except WeightsError:
        return False


def _open_known(
    known: KnownEncoder, weights: str | os.PathLike[str] | None, engine: str
) -> Encoder:
    """Open a known encoder, from the cache where its weights were converted before."""
    expected = None if weights is not None else expected_digest(known.weights)
    if expected is not None:
        cached = _converted_path(known, expected)
        if cached.is_file():
            try:
                return _open_file(cached, engine)
            except ModelFileError:
                # The cache is no place for anything that cannot be made again.
                cached.unlink(missing_ok=True)
    content = read_verified(known.weights, weights)
    import_keras()
    try:
        model = known.build(content)
    except WeightsError as error:
        path = weights if weights is not None else installed_path(known.weights)
        advice = "; delete it to have it downloaded again" if expected is None else ""
        raise WeightsError(f"{path}: {error}{advice if weights is None else ''}") from error
    digest = hashlib.sha256(content).hexdigest()
    if weights is None:
        pin_digest(known.weights, digest)
    # A file from anywhere would not be found again in the cache.
    if weights is None or KNOWN_WEIGHTS[known.weights].sha256 is not None:
        # A read-only home costs the conversion at each start, nothing else.
        saved = _converted_path(known, digest)
        with suppress(ModelFileError):
            save_encoder(model, saved, known.contract)
        if saved.is_file():
            return _open_file(saved, engine, Encoder(model, known.contract))
    return _on_engine(engine, None, lambda: Encoder(model, known.contract))


def _converted_path(known: KnownEncoder, digest: str) -> Path:
    """Where the converted weights are kept.

    A file made from other weights, or by a release that used them otherwise, is another file.
    """
    made_of = digest + known.contract.to_json() + __version__
    name = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    return cache_folder() / f"{known.contract.name}-{name}.keras"


def _open_file(path: Path, engine: str, opened: Encoder | None = None) -> Encoder:
    """Open a ``.keras`` file on an engine.

    Args:
        path: The file.
        engine: What runs it.
        opened: The encoder on Keras, where it is open already.
    """
    contract = read_contract(path)
    if engine == KERAS:
        return opened or _load_file(path, contract)
    digest = _digest(path)

    def keras_encoder() -> Encoder:
        if opened is not None:
            return opened
        # Keras may be asked for long after the start, and the file be another by then.
        if _digest(path) != digest:
            raise ModelFileError(f"{path} was changed since the encoder was opened; open it anew")
        return _load_file(path, contract)

    name = path.stem if contract is None else contract.name
    return _on_engine(engine, (name, digest), keras_encoder)


def _on_engine(
    engine: str, cache_key: tuple[str, str] | None, keras_encoder: Callable[[], Encoder]
) -> Encoder:
    """An encoder on the engine asked for, or chosen."""
    # A conversion takes the encoder on Keras, and what uses it afterwards should not load it again.
    keras_encoder = cache(keras_encoder)

    def load_keras() -> tuple[keras.Model, EncoderContract, str]:
        encoder = keras_encoder()
        return encoder.model, encoder.contract, encoder.fingerprint

    started = start_engine(engine, cache_key, load_keras)
    if started is None:
        return keras_encoder()
    return Encoder.on_engine(*started, lambda: keras_encoder().model)


def _digest(path: Path) -> str:
    """SHA-256 of a model file."""
    try:
        with open_regular(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {path}: {reason_of(error)}") from error


def _load_file(path: Path, contract: EncoderContract | None) -> Encoder:
    """Load a ``.keras`` file by Keras, with its contract, or the original's conventions."""
    import_keras()
    import keras

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras raises whatever a foreign file trips over, from KeyError to its own types.
    except Exception as error:
        # Keras puts the cause, such as a layer that it does not know, behind pages of the graph.
        cause = str(error).rpartition("Exception encountered: ")[2].strip()
        first_line = next(iter(cause.splitlines()), type(error).__name__)
        raise ModelFileError(f"Keras cannot load {path}: {first_line}") from error
    if contract is None:
        height, width = image_shape(model, str(path))
        if height is None or width is None:
            raise ModelFileError(
                f"{path} has no contract inside, and its input is not of one fixed size, so "
                f"the size of its crops cannot be told. Received: {height}x{width}"
            )
        contract = original_contract(path.stem, height, width)
    return Encoder(model, contract)
