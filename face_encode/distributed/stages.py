"""The two stages that photos pass on a cluster, each an actor that loads its model once.

A stage takes and gives pyarrow's tables: names of photos, then crops, then rows of embeddings. The
photos themselves never travel between machines: they are read where their faces are found, the next
ones while one is at work.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from face_encode.bulk import faces_of
from face_encode.detectors.detector import Detector
from face_encode.embedding_files.arrow import table_of
from face_encode.embedding_files.table import EmbeddingSettings
from face_encode.encoders.encoder import BATCH_SIZE
from face_encode.encoders.engines import KERAS
from face_encode.errors import ClusterError
from face_encode.finding import PhotoCrops, find_in_content, find_in_photos
from face_encode.images import MAX_BYTES
from face_encode.pipeline import encode_together
from face_encode.storage import Place, in_a_line
from face_encode.types import Box, CropRecipe, Face
from face_encode.version import __version__

# Photos that are on their way from a store while one is searched for faces.
_READ_AHEAD = 8
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.5


class FaceFinding:
    """Reads photos and cuts the faces out."""

    def __init__(
        self,
        release: str,
        folder: Place,
        detector: Detector,
        recipe: CropRecipe,
        max_faces: int | None,
    ) -> None:
        """Take the detector; it loads its model at the first photo.

        Args:
            release: Of this package, on the machine that gives the work.
            folder: Where the photos lie.
            detector: Finds the faces.
            recipe: How they are cut out.
            max_faces: The largest so many of each photo; None for all.

        Raises:
            ClusterError: This machine has another release.
        """
        import cv2

        _check_release(release)
        # An actor takes one core.
        cv2.setNumThreads(1)
        self._folder, self._detector, self._recipe = folder, detector, recipe
        self._max_faces = max_faces

    def __call__(self, photos: Any) -> Any:
        """From a table of names to one of crops, a row a photo.

        Raises:
            ClusterError: The store gave none of several photos, for reasons of its own.
        """
        names = photos["photo"].to_pylist()
        if self._folder.is_local:
            files = (self._folder.local / name for name in names)
            found = find_in_photos(
                files, self._detector, self._recipe, self._max_faces, digests=True
            )
        else:
            found = list(self._find_in_store(names))
        return (
            photos.select(["part"])
            .append_column("photo", photos["photo"])
            .append_column("found", _packed(found))
        )

    def _find_in_store(self, names: Sequence[str]) -> Iterator[PhotoCrops]:
        """Search each photo while the next ones are on their way."""
        failures = 0
        for name, content in _read_ahead(self._folder, names):
            if isinstance(content, OSError):
                failures += 1
                if failures == len(names) > 1 and not isinstance(content, FileNotFoundError):
                    # Written down as damaged, they would not be looked at again.
                    raise ClusterError(
                        f"{self._folder} gives none of {len(names)} photos: {in_a_line(content)}. "
                        "The same command goes on from here"
                    )
                nothing = find_in_content(b"", name, self._detector, self._recipe, self._max_faces)
                reason = "no such file" if isinstance(content, FileNotFoundError) else None
                yield PhotoCrops(
                    name, (), nothing.crops, error=reason or f"cannot be read: {in_a_line(content)}"
                )
                continue
            yield find_in_content(content, name, self._detector, self._recipe, self._max_faces)


class FaceEncoding:
    """Encodes crops."""

    def __init__(
        self,
        release: str,
        saved_encoder: Any,
        settings: EmbeddingSettings,
        batch_size: int | None,
    ) -> None:
        """Load the encoder.

        Args:
            release: Of this package, on the machine that gives the work.
            saved_encoder: Ray's reference to the content of its ``.keras`` file.
            settings: What the embeddings are made by.
            batch_size: Faces that go through the network together; None for ``BATCH_SIZE``.

        Raises:
            ClusterError: This machine has another release, or makes another encoder of the file.
        """
        _check_release(release)
        import ray

        # Otherwise the first actor takes all memory of a GPU that several share.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        _keep_to_one_core()
        from face_encode.encoders.loading import load_encoder

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "encoder.keras"
            path.write_bytes(ray.get(saved_encoder))
            # Not the engine that the caller chose: another would be converted on every node, and in
            # batches on one core none is much faster.
            self._encoder = load_encoder(path, engine=KERAS)
        if self._encoder.fingerprint != settings.fingerprint:
            raise ClusterError(
                f"the encoder arrived with fingerprint {self._encoder.fingerprint}, not "
                f"{settings.fingerprint}: have the same release of Keras on every node"
            )
        self._settings = settings
        self._batch_size = BATCH_SIZE if batch_size is None else batch_size

    def __call__(self, crops: Any) -> Any:
        """From a table of crops to one of embeddings, a row a face or a failed photo."""
        names = crops["photo"].to_pylist()
        found = _unpacked(names, crops["found"].to_pylist(), self._encoder.contract.crop)
        rows = [
            faces_of(photo, name)
            for photo, name in zip(
                encode_together(found, self._encoder, self._batch_size), names, strict=True
            )
        ]
        import pyarrow

        counts = [max(1, len(each.boxes)) for each in rows]
        parts = np.repeat(crops["part"].to_numpy(), counts)
        return table_of(rows, self._settings, None).append_column("part", pyarrow.array(parts))


def _check_release(release: str) -> None:
    if release != __version__:
        raise ClusterError(
            f"every node needs the same release of face_encode: {release} gives the work. "
            f"Received: a node with {__version__}"
        )


def _keep_to_one_core() -> None:
    """Keep the network to the one core of this actor, instead of a thread for each there is."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)


def _read_ahead(folder: Place, names: Sequence[str]) -> Iterator[tuple[str, bytes | OSError]]:
    """Each photo's content, or why the store does not give it, in their order."""
    with ThreadPoolExecutor(_READ_AHEAD) as readers:
        waiting: deque[tuple[str, Future[bytes | OSError]]] = deque()
        for name in names:
            waiting.append((name, readers.submit(_read, folder.below(name))))
            if len(waiting) > _READ_AHEAD:
                first, content = waiting.popleft()
                yield first, content.result()
        for first, content in waiting:
            yield first, content.result()


def _read(photo: Place) -> bytes | OSError:
    """A photo's content; a store that falters is asked again."""
    for attempt in range(_ATTEMPTS):
        try:
            return photo.read(MAX_BYTES + 1)
        except (FileNotFoundError, PermissionError) as error:
            return error
        except OSError as error:
            last = error
            time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
    return last


def _packed(found: Sequence[PhotoCrops]) -> Any:
    """Photos with their crops as a column of pyarrow's."""
    import pyarrow

    def flat(values: Sequence[Sequence[float]], kind: Any) -> Any:
        return pyarrow.array(values, pyarrow.list_(kind))

    boxes = [
        [
            side
            for face in each.faces[: len(each.crops)]
            for side in (face.box.left, face.box.top, face.box.width, face.box.height)
        ]
        for each in found
    ]
    scores = [[face.score for face in each.faces[: len(each.crops)]] for each in found]
    return pyarrow.StructArray.from_arrays(
        [
            pyarrow.array([each.digest for each in found], pyarrow.string()),
            pyarrow.array([each.error for each in found], pyarrow.string()),
            flat(boxes, pyarrow.int32()),
            flat(scores, pyarrow.float32()),
            pyarrow.array([each.crops.tobytes() for each in found], pyarrow.large_binary()),
        ],
        ["digest", "error", "boxes", "scores", "crops"],
    )


def _unpacked(
    names: Sequence[str], found: Sequence[dict[str, Any]], recipe: CropRecipe
) -> list[PhotoCrops]:
    """The way back."""
    return [
        PhotoCrops(
            name,
            tuple(
                Face(Box(*each["boxes"][stop - 4 : stop]), score)
                for stop, score in zip(
                    accumulate([4] * len(each["scores"])), each["scores"], strict=True
                )
            ),
            np.frombuffer(each["crops"], np.uint8).reshape(-1, recipe.height, recipe.width, 3),
            error=each["error"],
            digest=each["digest"],
        )
        for name, each in zip(names, found, strict=True)
    ]
