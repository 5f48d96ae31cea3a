"""A video is watched while other programs change the gallery database."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.streaming import streaming
from face_encode.encoders.encoder import Encoder
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.memory import MemoryGallery
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.video.frames import WatchedFace
from face_encode.video.watcher import watch
from tests.conftest import VERIFY_DATASET

COMMAND = str(Path(sys.executable).with_name("face-encode"))


def test_a_watcher_sees_within_a_second_whom_others_enrol_rename_and_remove(
    encoder: Encoder, fitted_model: Face_Encode_Model, tmp_path: Path
) -> None:
    people = fitted_model.gallery.rows()
    is_ada = people.names == "Ada_Mirova"
    ada = MemoryGallery(encoder)
    ada.add(["Ada_Mirova"] * int(is_ada.sum()), people.embeddings[is_ada])
    ada.save(tmp_path / "ada.npz")
    path = str(tmp_path / "people.sqlite")
    model = Face_Encode_Model(encoder)
    model.gallery = DatabaseGallery(path, encoder)
    model.gallery.add(people.names[~is_ada].tolist(), people.embeddings[~is_ada])
    photo = np.ascontiguousarray(read_image(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")[:, :392])

    with (
        streaming(lambda _: photo, 10) as server,
        contextlib.closing(watch(server.address, model, "dlib_hog")) as frames,
    ):

        def first(wanted: Callable[[WatchedFace], bool]) -> WatchedFace:
            """The face in the next frame for which this holds."""
            for frame in frames:
                for face in frame.faces:
                    if wanted(face):
                        return face
            raise AssertionError("the stream has ended")

        def seen_after(*command: str) -> WatchedFace:
            """The face a second after another program has ended, watched all the while."""
            with subprocess.Popen([COMMAND, *command], stdout=subprocess.PIPE) as other:
                first(lambda face: other.poll() is not None)
                assert other.returncode == 0
            ended = time.monotonic()
            begun = ended

            def is_later(face: WatchedFace) -> bool:
                # A frame counts by when the work on it began.
                nonlocal begun
                is_so, begun = begun - ended > 1, time.monotonic()
                return is_so

            return first(is_later)

        stranger = first(lambda face: face.is_settled)
        assert stranger.name is None
        enrolled = seen_after("import", str(tmp_path / "ada.npz"), path)
        assert (enrolled.track, enrolled.name) == (stranger.track, "Ada_Mirova")
        doubted = seen_after("threshold", path, "ada_mirova", "1")
        assert (doubted.track, doubted.name) == (stranger.track, None)
        trusted = seen_after("threshold", path, "ada_mirova", "none")
        assert (trusted.track, trusted.name) == (stranger.track, "Ada_Mirova")
        renamed = seen_after("rename", path, "ada_mirova", "Countess")
        assert (renamed.track, renamed.name) == (stranger.track, "Countess")
        forgotten = seen_after("forget", path, "countess")
        assert (forgotten.track, forgotten.name) == (stranger.track, None)
