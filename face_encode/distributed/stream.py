"""The stream of photos through a cluster: names in, rows of embeddings out, in their order."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from face_encode.detectors.base import Detector
from face_encode.distributed.parts import Part, chunks
from face_encode.distributed.stages import FaceEncoding, FaceFinding
from face_encode.embedding_files.table import EmbeddingSettings
from face_encode.encoders.contract import save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.errors import ClusterError, FaceEncodeError, InputError
from face_encode.photos.folders import Place
from face_encode.prefetching import prefetched
from face_encode.types import check_count
from face_encode.version import __version__

# Photos of one task, at most: their crops are some 20 MB. Fewer where there are few photos, so that
# every actor gets some.
_MOST_PHOTOS_A_TASK = 256
_TASKS_AN_ACTOR = 4
# Of the processor cores of a cluster without GPUs, those that encode; finding faces takes longer.
_ENCODING_SHARE = 1 / 3
# A new node of a cloud takes some minutes, and is found by the next run.
_MOST_SECONDS_WITHOUT_NODE = 120.0


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
        for name in ("finding", "encoding", "batch_size"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name)
        whole = float(self.gpus_each).is_integer()
        if not (0 <= self.gpus_each < float("inf")) or (self.gpus_each > 1 and not whole):
            raise InputError(
                "an actor takes no GPU (0), a fraction of one, or a whole number. "
                f"Received: {self.gpus_each}"
            )

    def settled(self, cores: int, gpus: float) -> tuple[int, int]:
        """How many find and how many encode on a cluster.

        Args:
            cores: Its processor cores.
            gpus: Its GPUs.

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
    folder: Place,
    names: Sequence[str],
    parts: Sequence[Part],
    detector: Detector,
    encoder: Encoder,
    settings: EmbeddingSettings,
    actors: Actors,
) -> Iterator[Any]:
    """The rows of some parts as they come from the cluster, in the order of the names.

    Args:
        ray: The module, connected.
        folder: Where the photos lie.
        names: Of all photos.
        parts: Those to embed.
        detector: Finds the faces.
        encoder: Embeds them.
        settings: What the embeddings are made by.
        actors: How many.

    Returns:
        pyarrow's tables with a further column ``part``, each of one part only.

    Raises:
        ClusterError: The cluster is too small, or its work cannot go on.
    """
    found = ray.cluster_resources()
    cores = int(found.get("CPU", 0))
    finding, encoding = actors.settled(cores, float(found.get("GPU", 0)))
    photos = sum(map(len, parts))
    size = min(_MOST_PHOTOS_A_TASK, -(-photos // (_TASKS_AN_ACTOR * finding)))
    saved = ray.put(_saved(encoder))
    finder = (
        __version__,
        folder,
        detector,
        encoder.contract.crop,
        None if settings.faces == "all" else 1,
    )
    stages = (
        (FaceFinding, finder, finding, 0.0),
        (
            FaceEncoding,
            (__version__, saved, settings, actors.batch_size),
            encoding,
            actors.gpus_each,
        ),
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
    """What ends the waiting for photos that will not come, because a node is gone.

    Ray starts an actor of a lost node again where there is a core for it, and otherwise waits for
    a new node, for ever.

    Args:
        ray: The module, connected.
        cores: Of the cluster when the work began.
    """

    def watch(seconds: float) -> None:
        left = int(ray.cluster_resources().get("CPU", 0))
        if seconds >= _MOST_SECONDS_WITHOUT_NODE and left < cores:
            raise ClusterError(
                f"a node was lost, {left} cores are left of {cores}, and no photo came in "
                f"{seconds:.0f} seconds. The same command goes on from the parts that are written"
            )

    return watch


def _saved(encoder: Encoder) -> bytes:
    """The encoder as the content of a ``.keras`` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.keras"
        save_encoder(encoder.model, path, encoder.contract)
        return path.read_bytes()


def _told(error: BaseException) -> FaceEncodeError:
    """What ended the work, as an error of ours."""
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
