"""Who enrols photos: this package, face_recognition, DeepFace; see ``contestant.py``.

Each is asked with ``{"folder": …, "photos": […]}``, a folder of people and the photos in it, and
answers with the seconds and the number of faces embedded.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from multiprocessing.synchronize import Barrier
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.photo_folders import FACE_RECOGNITION_LINE
from benchmarks.scale.contestant import Answer, Handler, MissingContestantError, answer_requests

if TYPE_CHECKING:
    from multiprocessing.pool import Pool

DEEPFACE_LINE = "pip install --no-deps deepface retina-face tf-keras && " + (
    "pip install flask gdown pandas requests tqdm beautifulsoup4"
)
# Photos that a process of a pool takes at once: few, so that both finish together.
_CHUNK = 4

Embed: TypeAlias = Callable[[str], int]
"""Embeds the face of one photo; gives how many it found, 0 or 1."""

# The function of a process of a pool: what its initializer made ready.
_embed_here: Embed | None = None


def face_encode(options: Answer) -> Handler:
    """This package, as it comes: ``fit_dataset`` on all cores."""
    from face_encode import Face_Encode_Model, load_encoder
    from face_encode.detectors.registry import load_detector

    encoder = load_encoder(options.get("encoder"))
    detector = load_detector(options.get("detector"))

    def enrol(request: Answer) -> Answer:
        if "about" in request:
            return {"engine": encoder.engine}
        # A new model each time: one that has the photos already would not encode them again.
        model = Face_Encode_Model(encoder, detector)
        start = time.perf_counter()
        report = model.fit_dataset(request["folder"], progress=False)
        return {"seconds": time.perf_counter() - start, "faces": report.enrolled}

    return enrol


def one_by_one(make_ready: Callable[[], Embed], options: Answer) -> Handler:
    """A library that takes photo after photo, in one process or, a part each, in several."""
    processes = options.get("processes", 1)
    if processes == 1:
        embed = make_ready()
        return _timed(lambda photos: sum(map(embed, photos)))
    # Fails here, where it can be told, and not in every process of the pool.
    make_ready()
    # Clean processes, as macOS and Windows start them, too; a forked one might hold locks.
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    pool: Pool = context.Pool(processes, _start_in_pool, (make_ready, barrier))
    # Start-up is not counted: no process may still be loading when the first turn begins.
    barrier.wait(timeout=300)

    def embed_all(photos: Sequence[str]) -> int:
        return sum(pool.imap_unordered(_embed_in_pool, photos, chunksize=_CHUNK))

    return _timed(embed_all)


def face_recognition_ready() -> Embed:
    """``face_recognition``: read, find the faces, embed the largest."""
    _need("face_recognition", FACE_RECOGNITION_LINE)
    _need("pkg_resources", FACE_RECOGNITION_LINE)
    import face_recognition

    def embed(photo: str) -> int:
        image = face_recognition.load_image_file(photo)
        found = face_recognition.face_locations(image)
        if not found:
            return 0
        largest = max(found, key=lambda box: (box[2] - box[0]) * (box[1] - box[3]))
        return len(face_recognition.face_encodings(image, [largest]))

    return embed


def deepface_ready() -> Embed:
    """DeepFace's ``represent`` with its Dlib model and its dlib detector.

    ``DEEPFACE_HOME`` has to name a folder with the weights; see ``deepface_home``.
    """
    for module in ("deepface", "tf_keras"):
        _need(module, DEEPFACE_LINE)
    from deepface import DeepFace

    def embed(photo: str) -> int:
        try:
            faces = DeepFace.represent(
                photo, model_name="Dlib", detector_backend="dlib", max_faces=1
            )
        except ValueError:  # its way to say that there is no face
            return 0
        return len(faces)

    return embed


def _timed(embed_all: Callable[[Sequence[str]], int]) -> Handler:
    def handle(request: Answer) -> Answer:
        start = time.perf_counter()
        faces = embed_all(request["photos"])
        return {"seconds": time.perf_counter() - start, "faces": faces}

    return handle


def _need(module: str, line: str) -> None:
    """Check that a package is installed.

    Raises:
        MissingContestantError: It is not; says how to get it.
    """
    if find_spec(module) is None:
        raise MissingContestantError(f"{module} is missing, install it by: {line}")


def _start_in_pool(make_ready: Callable[[], Embed], barrier: Barrier) -> None:
    global _embed_here
    _embed_here = make_ready()
    import cv2

    cv2.setNumThreads(1)
    barrier.wait(timeout=300)


def _embed_in_pool(photo: str) -> int:
    assert _embed_here is not None
    return _embed_here(photo)


KINDS: dict[str, Callable[[Answer], Handler]] = {
    "face_encode": face_encode,
    "face_recognition": partial(one_by_one, face_recognition_ready),
    "deepface": partial(one_by_one, deepface_ready),
}


if __name__ == "__main__":
    answer_requests(KINDS)
