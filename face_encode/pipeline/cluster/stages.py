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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from face_encode.detectors.base import Detector, notes_on
from face_encode.encoders.contract import save_encoder
from face_encode.encoders.encoder import BATCH_SIZE, Encoder
from face_encode.encoders.engines import KERAS
from face_encode.errors import ClusterError, FaceEncodeError, InputError
from face_encode.photos.folders import Location, in_a_line
from face_encode.photos.reading import MAX_BYTES
from face_encode.pipeline.cluster.parts import Part, chunks
from face_encode.pipeline.embedding import (
    PhotoCrops,
    encode_together,
    face_numbers,
    faces_of_numbers,
    find_in_photos,
)
from face_encode.pipeline.embedding_table import EmbeddingSettings
from face_encode.pipeline.parquet import table_of
from face_encode.pipeline.workers import prefetched
from face_encode.types import CropRecipe, check_counts, check_number
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
        folder: Location,
        detector: Detector,
        recipe: CropRecipe,
        max_faces: int | None,
    ) -> None:
        """Take the detector, which loads its model at the first photo.

        Args:
            release: The release of this package on the machine that gives the work.
            folder: The folder of the photos.
            detector: Finds the faces.
            recipe: How they are cut out.
            max_faces: At most this many faces of each photo, largest first; None for all.

        Raises:
            ClusterError: This machine has another release.
        """
        import cv2

        _check_release(release)
        # An actor takes one core.
        cv2.setNumThreads(1)
        self._folder, self._recipe, self._detector = folder, recipe, detector
        self._find = partial(
            find_in_photos, detector=detector, recipe=recipe, max_faces=max_faces, digests=True
        )

    def __call__(self, photos: Any) -> Any:
        """From a table of names to one of crops, a row a photo.

        Raises:
            ClusterError: The store gave none of several photos, for reasons of its own.
        """
        names = photos["photo"].to_pylist()
        if self._folder.is_local:
            files = (self._folder.local / name for name in names)
            found = self._find(files)
        else:
            found = list(self._find_in_store(names))
        found = [
            replace(each, notes=(*each.notes, *notes_on(self._detector, *each.size)))
            for each in found
        ]
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
                reason = f"cannot be read: {in_a_line(content)}"
                if isinstance(content, FileNotFoundError):
                    reason = "no such file"
                crops = np.empty((0, self._recipe.height, self._recipe.width, 3), np.uint8)
                yield PhotoCrops(name, (), crops, error=reason)
            else:
                yield from self._find([(name, content)])


class FaceEncoding:
    """Encodes crops."""

    def __init__(
        self,
        release: str,
        saved_encoder: Any,
        settings: EmbeddingSettings,
        batch_size: int | None,
    ) -> None:
        """Load the encoder from Ray's reference to the content of its ``.keras`` file.

        Raises:
            ClusterError: This machine has another release, or makes another encoder of the file.
        """
        _check_release(release)
        import ray

        # Otherwise the first actor takes all memory of a GPU that several share.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        _keep_to_one_core()
        from face_encode.encoders.registry import load_encoder

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
        rows = encode_together(found, self._encoder, self._batch_size)
        import pyarrow

        counts = [max(1, len(each.embeddings)) for each in rows]
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


def _read_ahead(folder: Location, names: Sequence[str]) -> Iterator[tuple[str, bytes | OSError]]:
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


def _read(photo: Location) -> bytes | OSError:
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

    faces = [face_numbers(each.faces[: len(each.crops)]).tobytes() for each in found]
    return pyarrow.StructArray.from_arrays(
        [
            pyarrow.array([each.digest for each in found], pyarrow.string()),
            pyarrow.array([each.error for each in found], pyarrow.string()),
            pyarrow.array(faces, pyarrow.binary()),
            pyarrow.array([each.crops.tobytes() for each in found], pyarrow.large_binary()),
            pyarrow.array([each.notes for each in found], pyarrow.list_(pyarrow.string())),
        ],
        ["digest", "error", "faces", "crops", "notes"],
    )


def _unpacked(
    names: Sequence[str], found: Sequence[dict[str, Any]], recipe: CropRecipe
) -> list[PhotoCrops]:
    """The photos that ``_packed`` has made a column of."""
    return [
        PhotoCrops(
            name,
            faces_of_numbers(each["faces"]),
            np.frombuffer(each["crops"], np.uint8).reshape(-1, recipe.height, recipe.width, 3),
            error=each["error"],
            digest=each["digest"],
            notes=tuple(each["notes"]),
        )
        for name, each in zip(names, found, strict=True)
    ]


# Photos of one task: their crops are some 20 MB. Fewer where there are few photos, so that every
# actor gets some.
_MAX_PHOTOS_A_TASK = 256
_TASKS_AN_ACTOR = 4
# Of the processor cores of a cluster without GPUs, those that encode; finding faces takes longer.
_ENCODING_SHARE = 1 / 3
# A new node of a cloud takes some minutes, and is found by the next run.
_MAX_SECONDS_WITHOUT_NODE = 120.0


@dataclass(frozen=True)
class Actors:
    """How many actors work, and on what.

    Attributes:
        finding: Actors that find faces, one core each; None for the rest of the cores.
        encoding: Actors that encode; None for one a GPU where they have GPUs, and otherwise for a
            third of the cores.
        gpus_each: GPUs of an actor that encodes; a fraction lets several share one.
        batch_size: Faces that go through the encoder together; None for its own choice.
    """

    finding: int | None = None
    encoding: int | None = None
    gpus_each: float = 0.0
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: No whole number from 1 on; or GPUs that no machine can share out so.
        """
        check_counts(finding=self.finding, encoding=self.encoding, batch_size=self.batch_size)
        gpus = check_number(self.gpus_each, "gpus_each", 0)
        if gpus > 1 and not gpus.is_integer():
            raise InputError(
                "an actor takes no GPU (0), a fraction of one, or a whole number. "
                f"Received: {self.gpus_each}"
            )

    def settled(self, cores: int, gpus: float) -> tuple[int, int]:
        """How many actors find and how many encode on a cluster of these cores and GPUs.

        Raises:
            ClusterError: It is too small for them.
        """
        if self.gpus_each and gpus < self.gpus_each:
            raise ClusterError(
                f"actors of {self.gpus_each:g} GPUs need a node that has them, now. "
                f"Received: a cluster with {gpus:g} GPUs"
            )
        if self.encoding is not None:
            encoding = self.encoding
        elif self.gpus_each:
            encoding = int(gpus / self.gpus_each)
        else:
            encoding = max(1, round(cores * _ENCODING_SHARE))
        finding = max(1, cores - encoding) if self.finding is None else self.finding
        if finding + encoding > cores:
            raise ClusterError(
                f"{finding} actors that find faces and {encoding} that encode take a core each. "
                f"Received: a cluster with {cores}"
            )
        if encoding * self.gpus_each > gpus:
            raise ClusterError(
                f"{encoding} actors of {self.gpus_each:g} GPUs. Received: a cluster with {gpus:g}"
            )
        return finding, encoding


def embedded_tables(
    ray: Any,
    folder: Location,
    names: Sequence[str],
    parts: Sequence[Part],
    detector: Detector,
    encoder: Encoder,
    settings: EmbeddingSettings,
    actors: Actors,
) -> Iterator[Any]:
    """Embed the photos of some parts, out of the names of all in a folder, on a cluster.

    Returns:
        pyarrow's tables in the order of the names, with a further column ``part``, each of one
        part only.

    Raises:
        ClusterError: The cluster is too small, or its work cannot go on.
    """
    found = ray.cluster_resources()
    cores = int(found.get("CPU", 0))
    finding, encoding = actors.settled(cores, float(found.get("GPU", 0)))
    photos = sum(map(len, parts))
    size = min(_MAX_PHOTOS_A_TASK, -(-photos // (_TASKS_AN_ACTOR * finding)))
    saved = ray.put(_saved(encoder))
    max_faces = None if settings.faces == "all" else 1
    finder = (__version__, folder, detector, encoder.contract.crop, max_faces)
    embedder = (__version__, saved, settings, actors.batch_size)
    stages = (
        (FaceFinding, finder, finding, 0.0),
        (FaceEncoding, embedder, encoding, actors.gpus_each),
    )
    stream = ray.data.from_arrow(list(chunks(parts, names, size)))
    for stage, arguments, count, gpus in stages:
        stream = stream.map_batches(
            stage,
            fn_constructor_args=arguments,
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(size=count),
            num_cpus=1,
            num_gpus=gpus,
        )
    context = stream.context
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    tables = iter(stream.iter_batches(batch_size=None, batch_format="pyarrow"))
    try:
        yield from prefetched(tables, 1, while_waiting=_watching(ray, cores))
    except ray.exceptions.RayError as error:
        raise _told(error) from error


def _watching(ray: Any, cores: int) -> Callable[[float], None]:
    """A watch that ends the waiting for photos that will not come, because a node is gone.

    Ray starts an actor of a lost node again where there is a core for it, and otherwise waits for
    a new node without end.
    """

    def watch(seconds: float) -> None:
        left = int(ray.cluster_resources().get("CPU", 0))
        if seconds >= _MAX_SECONDS_WITHOUT_NODE and left < cores:
            raise ClusterError(
                f"a node was lost, {left} cores are left of {cores}, and no photo came in "
                f"{seconds:.0f} seconds. The same command goes on from the parts that are written"
            )

    return watch


def _saved(encoder: Encoder) -> bytes:
    """The encoder as the content of a ``.keras`` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.keras"
        save_encoder(encoder.model, path, encoder.contract, quality_head=encoder.quality_head)
        return path.read_bytes()


def _told(error: BaseException) -> FaceEncodeError:
    """The error of ours for one that ended the work."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, FaceEncodeError):
            return ClusterError(next(iter(str(cause).splitlines()), type(cause).__name__))
        cause = getattr(cause, "cause", None) or cause.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return ClusterError(
        f"the cluster's work ended: {lines[-1].strip() if lines else type(error).__name__}. "
        "The same command goes on from the parts that are written"
    )
