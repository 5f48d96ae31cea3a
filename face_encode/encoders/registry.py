"""The table of known encoders, and ``load_encoder``, which opens any encoder."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from face_encode.encoders.arcface import ARCFACE_CONTRACT, arcface
from face_encode.encoders.combined import combined_contract, combined_model
from face_encode.encoders.contract import (
    ATTRIBUTES_MEMBER,
    EncoderContract,
    original_contract,
    read_contract,
    read_member,
    read_quality_head,
    save_encoder,
)
from face_encode.encoders.deepid import DEEPID_CONTRACT, deepid
from face_encode.encoders.dlib_resnet import (
    DLIB_RESNET_CONTRACT,
    DLIB_RESNET_SINGLE_CONTRACT,
    dlib_resnet,
)
from face_encode.encoders.encoder import Encoder, image_shape
from face_encode.encoders.engines import (
    AUTOMATIC,
    FASTEST,
    KERAS,
    check_engine,
    start_engine,
)
from face_encode.encoders.facenet import (
    FACENET128_CONTRACT,
    FACENET512_CONTRACT,
    FACENET_CASIA_CONTRACT,
    FACENET_VGGFACE2_CONTRACT,
    deepface_facenet512,
    facenet128,
    facenet512,
)
from face_encode.encoders.facenet_files import check_keras_archive
from face_encode.encoders.ghostfacenet import GHOSTFACENET_CONTRACT, ghostfacenet
from face_encode.encoders.mobilefacenet import (
    MOBILEFACENET_CONTRACT,
    MOBILEFACENET_SINGLE_CONTRACT,
    mobilefacenet,
)
from face_encode.encoders.openface import OPENFACE_CONTRACT, openface
from face_encode.encoders.quality import QualityHead
from face_encode.encoders.sface import SFACE_CONTRACT, sface
from face_encode.encoders.vgg_face import VGG_FACE_CONTRACT, vgg_face
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


Given = TypeVar("Given")


@dataclass(frozen=True)
class ConvertedEncoder:
    """A known encoder that is built from its authors' weights file and cached as ``.keras``.

    Attributes:
        contract: How the encoder is used.
        build: From the content of the weights file to the Keras model.
        weights: The file's name in ``KNOWN_WEIGHTS``.
    """

    contract: EncoderContract
    build: Callable[[bytes], keras.Model]
    weights: str

    @property
    def origin(self) -> str:
        """Where the weights come from: an address, or a package and its source."""
        weights = KNOWN_WEIGHTS[self.weights]
        return weights.url or f"package {weights.package} ({weights.source})"

    @property
    def files(self) -> tuple[str, ...]:
        """Names in ``KNOWN_WEIGHTS`` of the files that it is made of."""
        return (self.weights,)

    @property
    def is_present(self) -> bool:
        """Whether the encoder opens without a download."""
        try:
            digest = expected_digest(self.weights)
            # os.path, here and below: pathlib raises where a cache cannot be looked into.
            converted = digest is not None and os.path.isfile(self._converted_path(digest))
            return converted or os.path.isfile(installed_path(self.weights))
        except WeightsError:
            return False

    def open(
        self,
        weights: str | os.PathLike[str] | None,
        engine: str,
        accept_licence: bool = False,
    ) -> Encoder:
        """Open the encoder, from the cache if its weights were converted before.

        Args:
            weights: The weights file; None for the installed or downloaded one.
            engine: As for ``load_encoder``.
            accept_licence: As for ``load_encoder``.
        """
        expected = None if weights is not None else expected_digest(self.weights)
        if expected is not None:
            cached = _open_cached(self._converted_path(expected), engine)
            if cached is not None:
                return cached
        content = read_verified(self.weights, weights, accept_licence=accept_licence)
        import_keras()
        try:
            model = self.build(content)
        except WeightsError as error:
            path = weights if weights is not None else installed_path(self.weights)
            is_first_use = weights is None and expected is None
            advice = "; delete it to have it downloaded again" if is_first_use else ""
            raise WeightsError(f"{path}: {error}{advice}") from error
        digest = hashlib.sha256(content).hexdigest()
        if weights is None:
            pin_digest(self.weights, digest)
        stored = self._quality_head()
        head = QualityHead.from_bytes(stored) if stored else None
        opened = Encoder(model, self.contract, head)
        # A file given by its path, of no published SHA-256, would never be looked up again.
        if weights is None or KNOWN_WEIGHTS[self.weights].sha256 is not None:
            return _open_saved(opened, self._converted_path(digest), engine)
        return _on_engine(engine, None, lambda: opened, head)

    def _quality_head(self) -> bytes:
        """The content of the quality head's file, which is part of this package; may be empty."""
        path = Path(__file__).with_name("quality_heads") / f"{self.weights}.npz"
        return path.read_bytes() if path.is_file() else b""

    def _converted_path(self, digest: str) -> Path:
        """The cached file: of weights with this SHA-256, contract, quality head and release."""
        return _cache_path(self.contract, digest + hashlib.sha256(self._quality_head()).hexdigest())


@dataclass(frozen=True)
class ShippedEncoder:
    """A known encoder whose ``.keras`` file comes with this package.

    Attributes:
        name: The file's name, without its ending.
        origin: Where the weights come from.
    """

    name: str
    origin: str = "this package (trained by this project, see weights/README.md)"

    is_present = True
    files: ClassVar[tuple[str, ...]] = ()

    @property
    def path(self) -> Path:
        """The file.

        Raises:
            ModelFileError: It is neither beside the package nor installed.
        """
        # A clone's own weights first: an installed release may be another one.
        folders = [Path(__file__).parents[2] / "weights"]
        spec = importlib.util.find_spec("face_encode_weights")
        if spec is not None:
            folders += map(Path, spec.submodule_search_locations or ())
        for folder in folders:
            if (folder / f"{self.name}.keras").is_file():
                return folder / f"{self.name}.keras"
        raise ModelFileError(
            f"the file {self.name}.keras, which comes with face_encode, is missing; install the "
            f"package again. Looked in: {', '.join(map(str, folders))}"
        )

    @property
    def contract(self) -> EncoderContract:
        """How the encoder is used, read from the file."""
        contract = read_contract(self.path)
        assert contract is not None
        return contract

    def open(
        self,
        weights: str | os.PathLike[str] | None,
        engine: str,
        accept_licence: bool = False,
    ) -> Encoder:
        """Open the encoder; arguments as for ``load_encoder``. Its licence allows every use."""
        _refuse_weights(self.name, weights)
        return open_file(self.path, engine)


@dataclass(frozen=True)
class CombinedEncoder:
    """Several known encoders as one.

    Attributes:
        parts: Their names, in the order of their crops.
        weights: The weight of each one's similarity, in units of its spread.
        calibrated: What was measured for all together, fields of the contract by their names.
    """

    parts: tuple[str, ...]
    weights: tuple[float, ...]
    calibrated: tuple[tuple[str, Any], ...] = ()

    @property
    def origin(self) -> str:
        """Where the weights come from: those of each part."""
        return "; ".join(KNOWN_ENCODERS[part].origin for part in self.parts)

    @property
    def files(self) -> tuple[str, ...]:
        """Names in ``KNOWN_WEIGHTS`` of the files that it is made of."""
        return tuple(file for part in self.parts for file in KNOWN_ENCODERS[part].files)

    @property
    def is_present(self) -> bool:
        """Whether the encoder opens without a download."""
        return all(KNOWN_ENCODERS[part].is_present for part in self.parts)

    @property
    def contract(self) -> EncoderContract:
        """How the encoder is used."""
        contracts = [KNOWN_ENCODERS[part].contract for part in self.parts]
        return replace(combined_contract(contracts, self.weights), **dict(self.calibrated))

    def open(
        self,
        weights: str | os.PathLike[str] | None,
        engine: str,
        accept_licence: bool = False,
    ) -> Encoder:
        """Open the encoder, from the cache if it was put together before.

        Arguments as for ``load_encoder``.
        """
        contract = self.contract
        _refuse_weights(contract.name, weights)
        path = self._combined_path()
        cached = None if path is None else _open_cached(path, engine)
        if cached is not None:
            return cached
        opened = [KNOWN_ENCODERS[part].open(None, KERAS, accept_licence) for part in self.parts]
        contracts = [part.contract for part in opened]
        model = combined_model([part.model for part in opened], contracts, self.weights)
        heads = [part.quality_head for part in opened if part.quality_head is not None]
        head = QualityHead.side_by_side(heads) if len(heads) == len(opened) else None
        # The digests of all parts are known now.
        path = self._combined_path()
        assert path is not None
        return _open_saved(Encoder(model, contract, head), path, engine)

    def _combined_path(self) -> Path | None:
        """The cached file; None if the weights of a part were never used."""
        made_of = [str(self.weights)]
        for part in map(KNOWN_ENCODERS.__getitem__, self.parts):
            assert isinstance(part, ConvertedEncoder)
            digest = expected_digest(part.weights)
            if digest is None:
                return None
            made_of.append(part._converted_path(digest).name)
        return _cache_path(self.contract, *made_of)


DEFAULT_ENCODER = "dlib_resnet"

KNOWN_ENCODERS: dict[str, ConvertedEncoder | ShippedEncoder | CombinedEncoder] = {
    "dlib_resnet": ConvertedEncoder(DLIB_RESNET_CONTRACT, dlib_resnet, "dlib_resnet"),
    "dlib_resnet_single": ConvertedEncoder(DLIB_RESNET_SINGLE_CONTRACT, dlib_resnet, "dlib_resnet"),
    "mobilefacenet": ConvertedEncoder(MOBILEFACENET_CONTRACT, mobilefacenet, "mobilefacenet"),
    "mobilefacenet_single": ConvertedEncoder(
        MOBILEFACENET_SINGLE_CONTRACT, mobilefacenet, "mobilefacenet"
    ),
    "dlib_resnet+mobilefacenet": CombinedEncoder(
        ("dlib_resnet", "mobilefacenet"),
        # Measured on people whom no network of this project saw: the best of such weights.
        (0.35, 0.65),
        # On the same pairs as the parts' own: 99.3 % of the pairs of one person reach it.
        (
            ("threshold", 0.691),
            ("false_match_rate", 1e-3),
            ("thresholds", ((1e-4, 0.726), (1e-5, 0.761))),
            ("euclidean_threshold", 0.778),
        ),
    ),
    "facenet_vggface2": ConvertedEncoder(
        FACENET_VGGFACE2_CONTRACT, partial(facenet512, "facenet_vggface2"), "facenet_vggface2"
    ),
    "facenet_casia": ConvertedEncoder(
        FACENET_CASIA_CONTRACT, partial(facenet512, "facenet_casia"), "facenet_casia"
    ),
    "facenet128": ConvertedEncoder(FACENET128_CONTRACT, facenet128, "facenet128"),
    "facenet512": ConvertedEncoder(FACENET512_CONTRACT, deepface_facenet512, "facenet512"),
    "arcface": ConvertedEncoder(ARCFACE_CONTRACT, arcface, "arcface"),
    "sface": ConvertedEncoder(SFACE_CONTRACT, sface, "sface"),
    "ghostfacenet": ConvertedEncoder(GHOSTFACENET_CONTRACT, ghostfacenet, "ghostfacenet"),
    "vgg_face": ConvertedEncoder(VGG_FACE_CONTRACT, vgg_face, "vgg_face"),
    "openface": ConvertedEncoder(OPENFACE_CONTRACT, openface, "openface"),
    "deepid": ConvertedEncoder(DEEPID_CONTRACT, deepid, "deepid"),
    "vgg_embedding": ShippedEncoder("vgg_embedding"),
}
"""The encoders that ``load_encoder`` opens by name."""


@dataclass(frozen=True)
class Choice:
    """An encoder and a detector that go together, under a name to remember.

    Attributes:
        encoder: The encoder's name in ``KNOWN_ENCODERS``.
        detector: The detector's name in ``KNOWN_DETECTORS``.
        summary: What it is for, in a line.
        accuracy: Share of the 2,200 pairs of LFW's View 1 (training) that are judged right, at the
            best single threshold.
        found: Share of the pairs of one person that are found, by the false match rate, on the
            3,443 photos of these pairs.
        milliseconds: Processor time of one core for a photo of 250x250 pixels, from the file to
            the embedding.
        megabytes: Size of the weights.
        engine: What runs the encoder where nobody says otherwise.
    """

    encoder: str
    detector: str
    summary: str
    accuracy: float
    found: tuple[tuple[float, float], ...]
    milliseconds: float
    megabytes: float
    engine: str = AUTOMATIC


CHOICES = {
    "offline": Choice(
        "dlib_resnet",
        "dlib",
        "the default: all weights come with the installation",
        accuracy=0.9927,
        found=((1e-3, 0.943), (1e-4, 0.823)),
        milliseconds=17,
        megabytes=23,
    ),
    "fast": Choice(
        "mobilefacenet_single",
        "yunet",
        "the least time, small and lying faces too",
        accuracy=0.9936,
        found=((1e-3, 0.982), (1e-4, 0.966)),
        milliseconds=5.7,
        megabytes=4.3,
        engine=FASTEST,
    ),
    "accurate": Choice(
        "dlib_resnet+mobilefacenet",
        "retinaface",
        "the fewest mistakes, most of all on turned heads",
        accuracy=0.9955,
        found=((1e-3, 0.979), (1e-4, 0.969)),
        milliseconds=37,
        megabytes=28,
    ),
}
"""Encoders with their detectors, by names that ``Face_Encode_Model`` and ``--model`` take."""


def detector_for(encoder: object, detector: Given) -> Given | str:
    """The detector given; else that of a named choice; else None, for the default.

    Args:
        encoder: As ``load_encoder`` takes it, or an open one.
        detector: The detector that the user gave, or None.
    """
    if detector is None and isinstance(encoder, str) and encoder in CHOICES:
        return CHOICES[encoder].detector
    return detector


def load_encoder(
    name_or_path: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    engine: str | None = None,
    *,
    accept_licence: bool = False,
) -> Encoder:
    """Open an encoder.

    Args:
        name_or_path: One of ``CHOICES`` or ``KNOWN_ENCODERS``; or several of the latter with
            ``+`` between them, as one; or the path of a ``.keras`` file, with a contract inside or
            else used by the original project's conventions; or None for the most accurate encoder
            that needs no download.
        weights: For a name, the original weights file, if it is not in its usual place. It is
            checked against the SHA-256 if the authors publish one.
        engine: What runs the encoder. ``"tensorflow"`` is Keras itself, on its configured backend;
            ``"onnx"`` and ``"openvino"`` run a converted copy, which is cached; ``"auto"`` is the
            first of these two that is installed, if its embeddings are within 1e-3 of Keras', else
            Keras. ``"int8"`` runs a copy in whole numbers, in less than half the time, whose
            embeddings have a cosine of at least 0.98 with those of Keras; ``"fastest"`` is
            ``"int8"`` where that holds, else ``"auto"``. None is the engine of a choice, else
            ``"auto"``.
        accept_licence: Whether you accept a licence that does not allow every use, such as
            non-commercial use only, so that the weights may be downloaded. The environment
            variable ``FACE_ENCODE_ACCEPT_LICENCE``, names with commas between them, says the same.

    Raises:
        ModelFileError: No such name or file, or the file holds no encoder.
        WeightsError: The known weights are missing or have another content than expected, or their
            licence has to be accepted first.
        InputError: No such engine.
        MissingExtraError: The engine is not installed.
        EngineError: The engine asked for cannot run the encoder, or its embeddings differ from
            those of Keras by more than is said above.
    """
    choice = CHOICES.get(name_or_path) if isinstance(name_or_path, str) else None
    engine = engine or (AUTOMATIC if choice is None else choice.engine)
    check_engine(engine)
    if name_or_path is None:
        name_or_path = DEFAULT_ENCODER
    if choice is not None:
        name_or_path = choice.encoder
    if isinstance(name_or_path, str) and name_or_path in KNOWN_ENCODERS:
        return KNOWN_ENCODERS[name_or_path].open(weights, engine, accept_licence)
    is_path = isinstance(name_or_path, str | os.PathLike)
    if not is_path or Path(name_or_path).suffix != ".keras":
        parts = name_or_path.split("+") if isinstance(name_or_path, str) else []
        known = all(isinstance(KNOWN_ENCODERS.get(part), ConvertedEncoder) for part in parts)
        if len(parts) > 1 and known:
            combined = CombinedEncoder(tuple(parts), (1 / len(parts),) * len(parts))
            return combined.open(weights, engine, accept_licence)
        raise ModelFileError(
            f"an encoder is one of {', '.join((*CHOICES, *KNOWN_ENCODERS))}, or several of the "
            f"latter with + between them, or the path of a .keras file. Received: {name_or_path!r}"
        )
    path = as_path(name_or_path)
    _refuse_weights(path, weights)
    if read_member(path, ATTRIBUTES_MEMBER, bytes) is not None:
        raise ModelFileError(
            f"{path} tells age, gender and expression; it does not tell people apart. analyze "
            "takes it"
        )
    return open_file(path, engine)


def as_encoder(
    encoder: str | os.PathLike[str] | Encoder | None, engine: str | None = None
) -> Encoder:
    """Take an open encoder, or open one.

    Args:
        encoder: An open encoder, or the first argument of ``load_encoder``.
        engine: As for ``load_encoder``.

    Raises:
        InputError: The engine differs from that of the open encoder.
        FaceEncodeError: As for ``load_encoder``.
    """
    if not isinstance(encoder, Encoder):
        return load_encoder(encoder, engine=engine)
    if engine not in (None, AUTOMATIC, FASTEST, encoder.engine):
        raise InputError(
            "an encoder that is open already has its engine, "
            f"{encoder.engine!r}; choose it by load_encoder(..., engine=...). "
            f"Received: {engine!r}"
        )
    return encoder


def _refuse_weights(what: str | Path, weights: str | os.PathLike[str] | None) -> None:
    if weights is not None:
        raise ModelFileError(
            f"{what} carries its own weights; 'weights' is for encoders that are converted"
        )


def _cache_path(contract: EncoderContract, *digests: str) -> Path:
    """The cached file of what was made of parts with these digests by this release."""
    made_of = "".join(digests) + contract.to_json() + __version__
    name = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    return cache_folder() / f"{contract.name}-{name}.keras"


def _open_cached(path: Path, engine: str) -> Encoder | None:
    """Open a cached ``.keras`` file; None if there is none, or a damaged one, which is deleted."""
    if not os.path.isfile(path):
        return None
    try:
        return open_file(path, engine)
    except ModelFileError:
        with suppress(OSError):
            path.unlink()
        return None


def _open_saved(opened: Encoder, path: Path, engine: str) -> Encoder:
    """Save an encoder in the cache, and open it from there on an engine."""
    # A read-only cache costs the conversion at each start, nothing else.
    try:
        save_encoder(opened.model, path, opened.contract, quality_head=opened.quality_head)
    except ModelFileError:
        return _on_engine(engine, None, lambda: opened, opened.quality_head)
    return open_file(path, engine, opened)


def open_file(path: Path, engine: str, opened: Encoder | None = None) -> Encoder:
    """Open a ``.keras`` file on an engine.

    Args:
        path: The file.
        engine: As for ``load_encoder``.
        opened: The encoder on Keras, if it is open already.
    """
    # Before the contract is read: load refuses a file that was replaced since.
    digest = "" if engine == KERAS else _digest(path)
    contract, head = read_contract(path), read_quality_head(path)
    if engine == KERAS:
        return opened or _load_file(path, contract, head)

    def load() -> Encoder:
        if opened is not None:
            return opened
        # Keras may be asked for long after the start, and the file may have changed by then.
        if _digest(path) != digest:
            raise ModelFileError(f"{path} was changed since the encoder was opened; open it again")
        return _load_file(path, contract, head)

    name = path.stem if contract is None else contract.name
    return _on_engine(engine, (name, digest), load, head)


def _on_engine(
    engine: str,
    cache_key: tuple[str, str] | None,
    load: Callable[[], Encoder],
    head: QualityHead | None,
) -> Encoder:
    """Put an encoder, whose quality head is given, on an engine, as ``start_engine`` does."""
    # A conversion loads the encoder on Keras, and so may its user afterwards.
    load = cache(load)

    def load_keras() -> tuple[keras.Model, EncoderContract, str, QualityHead | None]:
        return load().model, load().contract, load().fingerprint, head

    started = start_engine(engine, cache_key, load_keras)
    if started is None:
        return load()
    return Encoder.on_engine(*started, lambda: load().model, head)


def _digest(path: Path) -> str:
    """Hash a model file by SHA-256."""
    try:
        with open_regular(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {path}: {reason_of(error)}") from error


def _load_file(
    path: Path, contract: EncoderContract | None, head: QualityHead | None = None
) -> Encoder:
    """Load a ``.keras`` file by Keras; without a contract, by the original's conventions."""
    import_keras()
    import keras

    try:
        check_keras_archive(path)
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
    return Encoder(model, contract, head)
