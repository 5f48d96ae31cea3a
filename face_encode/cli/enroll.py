"""``face-encode enroll``: a folder of people into a gallery file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from face_encode.cli.options import (
    ROWS_SHOWN,
    add_any_quality_option,
    add_json_option,
    add_model_options,
    add_work_options,
    open_model,
    print_json,
    print_table,
    resumption_notice,
)
from face_encode.terminal import print_safely, printable

if TYPE_CHECKING:
    from face_encode.types import EnrolmentReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Enrol a folder with one sub-folder a person into a gallery. A gallery file that exists "
        "becomes what the folder holds; only photos that changed are encoded. A gallery in Milvus "
        "is shared: people who are not in the folder stay in it. A run that was interrupted or "
        "killed is continued by the same command."
    )
    parser.add_argument("people", metavar="PEOPLE_DIR", help="a folder with a sub-folder a person")
    parser.add_argument(
        "-g",
        "--gallery",
        metavar="GALLERY",
        required=True,
        help="the gallery to write: people.sqlite, an .npz file, a .db folder (Milvus Lite) or a "
        "Milvus server's http:// address",
    )
    parser.add_argument(
        "--add", action="store_true", help="keep the gallery's people who are not in the folder"
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="keep a byte a number of each embedding instead of four; a gallery stays so",
    )
    parser.add_argument(
        "--keep-crops",
        action="store_true",
        help="keep a crop of each photo in a gallery database, for another encoder later",
    )
    parser.add_argument(
        "--refuse-mistakes",
        action="store_true",
        help="leave out photos that look like somebody else than the person of their folder",
    )
    add_any_quality_option(parser)
    add_work_options(parser)
    add_json_option(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Enrol, save, and report."""
    from face_encode.errors import GalleryError
    from face_encode.files import as_path, check_writable
    from face_encode.gallery.database import DatabaseGallery
    from face_encode.gallery.milvus_store import is_milvus
    from face_encode.gallery.opening import check_kept, gallery_label, open_gallery
    from face_encode.photos.folders import list_people
    from face_encode.pipeline.enrolment import (
        checkpoint_path,
        enrol_people,
        enrolment_checkpoint,
        with_listing,
    )

    check_kept(options.gallery)
    if as_path(options.gallery).suffix == ".npz":
        check_writable(as_path(options.gallery), GalleryError)
    listed = list_people(options.people)
    model = open_model(options)
    gallery = open_gallery(options.gallery, encoder=model.encoder, int8=options.int8)
    # What others keep in a shared gallery is not this folder's to take out.
    adds = options.add or is_milvus(options.gallery)
    before = set() if adds else set(gallery.people())
    path = checkpoint_path(options.gallery, options.people)
    unfinished = enrolment_checkpoint(
        gallery,
        path,
        model.detector,
        model.encoder,
        keep_crops=options.keep_crops,
        restart=options.restart,
    )
    with resumption_notice(), unfinished as checkpoint:
        report = enrol_people(
            listed.people,
            gallery,
            model.detector,
            model.encoder,
            replaces="same people" if adds else "all",
            workers=options.workers,
            batch_size=options.batch_size,
            checkpoint=checkpoint,
            keep_crops=options.keep_crops,
            refuse_mistakes=options.refuse_mistakes,
            check_quality=not options.any_quality,
        )
        if not isinstance(gallery, DatabaseGallery):
            gallery.close()
        checkpoint.remove()
    report = with_listing(report, listed)
    gone = sorted(before - {name for name, count in report.per_person.items() if count})
    if options.json:
        more = {"no_longer_enrolled": gone, "precision": gallery.precision}
        print_json(_report_as_dict(report) | more)
    else:
        _print_report(report, gone)
        print(printable(f"gallery: {gallery_label(options.gallery)}"))
    return 0


def _report_as_dict(report: EnrolmentReport) -> dict[str, Any]:
    """Convert the report to plain JSON values."""
    return {
        "enrolled": report.enrolled,
        "reused": report.reused,
        "resumed": report.resumed,
        "per_person": dict(report.per_person),
        "left_out": [
            {"photo": item.photo, "name": item.name, "reason": item.reason}
            for item in report.left_out
        ],
        "notes": list(report.notes),
        "others": report.others,
    }


def _print_report(report: EnrolmentReport, gone: Sequence[str]) -> None:
    """Print the report: a table where it is short, and the photos left out."""
    if len(report.per_person) <= ROWS_SHOWN:
        rows = [[name, str(count)] for name, count in report.per_person.items()]
        print_table(["person", "photos"], rows)
    lines = str(report).splitlines()
    print_safely("\n".join(lines[: ROWS_SHOWN + 1]))
    if len(lines) > ROWS_SHOWN + 1:
        print(f"  … and {len(lines) - ROWS_SHOWN - 1} more (--json tells all)")
    if gone:
        print_safely(f"no longer enrolled: {', '.join(gone)}")
