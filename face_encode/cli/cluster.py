"""The options of ``face-encode embed`` for a Ray cluster, and what they choose."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from face_encode.console import positive
from face_encode.errors import InputError

if TYPE_CHECKING:
    from face_encode.bulk import EmbeddingReport

_ON_A_CLUSTER = ("address", "parts", "photos_per_part", "finders", "encoders", "gpus_per_actor")


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """``--engine`` and the options that belong to the engine ray."""
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="where: on this machine (default), or on a Ray cluster "
        "(pip install 'face_encode[ray]')",
    )
    group = parser.add_argument_group("with --engine ray")
    group.add_argument(
        "--address",
        metavar="ADDRESS",
        help="HOST:PORT of the cluster's head, auto for the one on this machine, local to start "
        "one here (default: RAY_ADDRESS, or local)",
    )
    group.add_argument(
        "--parts",
        action="store_true",
        default=None,
        help="write a folder of Parquet files instead of one file",
    )
    group.add_argument(
        "--photos-per-part",
        type=positive,
        metavar="N",
        help="photos that are written, and after a kill done again, together (default: 32,768)",
    )
    group.add_argument(
        "--finders",
        type=positive,
        metavar="N",
        help="actors that find faces, a core each (default: the cores that are left)",
    )
    group.add_argument(
        "--encoders",
        type=positive,
        metavar="N",
        help="actors that encode (default: all GPUs with --gpus-per-actor, else a third of the "
        "cores)",
    )
    group.add_argument(
        "--gpus-per-actor",
        type=float,
        metavar="X",
        help="GPUs of an actor that encodes; 0.5 lets two share one (default: 0)",
    )


def check_engine_options(options: argparse.Namespace) -> None:
    """Refuse options that the engine does not have, before the seconds that loading takes.

    Raises:
        EmbeddingFileError: The engine ray cannot write there.
        InputError: Options, or an address of photos, of the other engine.
        MissingExtraError: Ray is not installed.
    """
    from face_encode.encoders.engines import AUTOMATIC, KERAS
    from face_encode.storage import is_address, place_of

    if options.engine == "ray":
        from face_encode.distributed.embedding import check_output

        if options.workers is not None:
            raise InputError(
                "--workers is for --engine local; on a cluster it is --finders and --encoders"
            )
        if options.encoder_engine not in (AUTOMATIC, KERAS):
            raise InputError(
                f"on a cluster Keras runs the encoder. Received: {options.encoder_engine}"
            )
        options.encoder_engine = KERAS
        place_of(options.folder)
        check_output(place_of(options.output), parts=bool(options.parts))
        return
    for name in _ON_A_CLUSTER:
        if getattr(options, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} needs --engine ray")
    for given in (options.folder, options.output):
        if is_address(given):
            raise InputError(f"an address needs --engine ray. Received: {given!r}")


def embedding_on_cluster(options: argparse.Namespace) -> Callable[..., EmbeddingReport]:
    """``embed_folder_on_ray`` with what is chosen for a cluster alone."""
    from face_encode.distributed.embedding import PHOTOS_PER_PART, embed_folder_on_ray
    from face_encode.distributed.stream import Actors

    return partial(
        embed_folder_on_ray,
        parts=bool(options.parts),
        photos_per_part=options.photos_per_part or PHOTOS_PER_PART,
        address=options.address,
        actors=Actors(
            finding=options.finders,
            encoding=options.encoders,
            gpus_each=options.gpus_per_actor or 0.0,
            batch_size=options.batch_size,
        ),
    )
