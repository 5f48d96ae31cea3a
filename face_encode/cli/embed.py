"""``face-encode embed``: the embeddings of a folder of photos, in a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from face_encode.cli.cluster import add_cluster_options, check_engine_options, embedding_on_cluster
from face_encode.cli.opening import add_model_options, open_model
from face_encode.terminal import (
    ROWS_SHOWN,
    add_json_option,
    add_work_options,
    print_json,
    printable,
    telling_of_resumption,
)

if TYPE_CHECKING:
    from face_encode.pipeline.folder import EmbeddingReport


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
    add_work_options(parser)
    add_cluster_options(parser)
    add_json_option(parser)
    add_model_options(parser, threshold=False)


def run(options: argparse.Namespace) -> int:
    """Embed, write, and report."""
    check_engine_options(options)
    with telling_of_resumption():
        report = _embed(options)
    if options.json:
        left_out = [{"photo": photo, "reason": reason} for photo, reason in report.left_out]
        counts = {"photos": report.photos, "faces": report.faces, "resumed": report.resumed}
        print_json({**counts, "left_out": left_out, "output": options.output})
    else:
        print(report)
        for photo, reason in report.left_out[:ROWS_SHOWN]:
            print(printable(f"  left out: {photo}: {reason}"))
        if len(report.left_out) > ROWS_SHOWN:
            more = len(report.left_out) - ROWS_SHOWN
            print(f"  … and {more:,} more (--json tells all, and so does the file)")
        print(f"embeddings: {options.output}")
    # The file is there all the same, and tells of every photo why.
    return 0 if report.faces else 1


def _embed(options: argparse.Namespace) -> EmbeddingReport:
    """Embed, wherever the options say."""
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
    """``embed_folder`` with what is chosen for this machine alone."""
    from face_encode.files import as_path
    from face_encode.pipeline.embedding_file import check_embeddings_path
    from face_encode.pipeline.folder import embed_folder

    check_embeddings_path(as_path(options.output))
    return partial(embed_folder, workers=options.workers, batch_size=options.batch_size)
