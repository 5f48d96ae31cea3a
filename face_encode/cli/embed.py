"""``face-encode embed``: the embeddings of a folder of photos, in a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from face_encode.cli.options import (
    add_json_option,
    add_model_options,
    add_work_options,
    open_model,
    positive,
    print_folder_report,
    resumption_notice,
)
from face_encode.errors import InputError
from face_encode.outputs import add_overwrite_option, check_output

if TYPE_CHECKING:
    from face_encode.pipeline.folder import EmbeddingReport

_ON_A_CLUSTER = ("address", "parts", "photos_per_part", "finders", "encoders", "gpus_per_actor")


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--engine`` and the options of the engine ray."""
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
    from face_encode.photos.folders import is_address, location_of

    if options.engine == "ray":
        from face_encode.pipeline.cluster.run import check_output as check_cluster_output

        if options.workers is not None:
            raise InputError(
                "--workers is for --engine local; on a cluster it is --finders and --encoders"
            )
        if options.encoder_engine not in (None, AUTOMATIC, KERAS):
            raise InputError(
                f"on a cluster Keras runs the encoder. Received: {options.encoder_engine}"
            )
        options.encoder_engine = KERAS
        location_of(options.folder)
        output = location_of(options.output)
        check_cluster_output(output, parts=bool(options.parts), overwrite=options.overwrite)
        if output.is_local:
            check_output(output.path, "file of embeddings", overwrite=options.overwrite)
        return
    for name in _ON_A_CLUSTER:
        if getattr(options, name) is not None:
            raise InputError(f"--{name.replace('_', '-')} needs --engine ray")
    for given in (options.folder, options.output):
        if is_address(given):
            raise InputError(f"an address needs --engine ray. Received: {given!r}")


def embedding_on_cluster(options: argparse.Namespace) -> Callable[..., EmbeddingReport]:
    """Bind the cluster's options to ``embed_folder_on_ray``."""
    from face_encode.pipeline.cluster.run import PHOTOS_PER_PART, embed_folder_on_ray
    from face_encode.pipeline.cluster.stages import Actors

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Embed the faces of all photos in a folder and below it. A run that was interrupted or "
        "killed is continued by the same command."
    )
    parser.add_argument(
        "folder",
        metavar="DIR",
        help="photos, in sub-folders too; with --engine ray also an address, s3://bucket/photos",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="the file to write: .npz, or .parquet (pip install 'face_encode[parquet]')",
    )
    parser.add_argument(
        "--faces",
        choices=("all", "largest"),
        default="all",
        help="all faces of a photo, or its largest (default: all)",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--raw",
        action="store_true",
        help="embeddings as the network gives them (default: brought to length 1)",
    )
    form.add_argument(
        "--int8", action="store_true", help="a byte a number instead of four, of length 1"
    )
    add_overwrite_option(parser)
    add_work_options(parser)
    add_cluster_options(parser)
    add_json_option(parser)
    add_model_options(parser, threshold=False)


def run(options: argparse.Namespace) -> int:
    """Embed, write, and report."""
    check_engine_options(options)
    with resumption_notice():
        report = _embed(options)
    told = "--json tells all, and so does the file"
    print_folder_report(report, options, "embeddings", told)
    # The file is written all the same, with the reason for every photo.
    return 0 if report.faces else 1


def _embed(options: argparse.Namespace) -> EmbeddingReport:
    """Embed the folder on the engine that the options name."""
    # What can be refused is, before the seconds that loading a model takes.
    embed = embedding_on_cluster(options) if options.engine == "ray" else _embedding_here(options)
    model = open_model(options)
    return embed(
        options.folder,
        options.output,
        model.detector,
        model.encoder,
        faces=options.faces,
        raw=options.raw,
        int8=options.int8,
        restart=options.restart,
    )


def _embedding_here(options: argparse.Namespace) -> Callable[..., EmbeddingReport]:
    """Bind this machine's options to ``embed_folder``."""
    from face_encode.files import as_path
    from face_encode.pipeline.embedding_file import check_embeddings_path
    from face_encode.pipeline.folder import embed_folder

    check_embeddings_path(as_path(options.output))
    check_output(options.output, "file of embeddings", overwrite=options.overwrite)
    return partial(embed_folder, workers=options.workers, batch_size=options.batch_size)
