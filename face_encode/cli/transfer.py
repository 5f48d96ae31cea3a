"""``face-encode import`` and ``reembed``: people from elsewhere, and by another encoder."""

from __future__ import annotations

import argparse
import os

from face_encode.cli.gallery import opened_database
from face_encode.cli.options import (
    add_any_quality_option,
    add_json_option,
    add_model_options,
    open_models,
    print_json,
    print_lines,
)
from face_encode.errors import GalleryError, InputError
from face_encode.terminal import print_safely


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Copy people into a gallery database. Who is there already has the photos of the source "
        "afterwards; the others stay."
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="an .npz gallery; a .parquet file or a folder of crops that face-encode export wrote; "
        "or what face-encode embed wrote of a folder of people",
    )
    parser.add_argument("target", metavar="TARGET", help="the gallery database: people.sqlite")
    add_any_quality_option(parser)
    add_json_option(parser)
    add_model_options(parser, threshold=False, workers=True)


def run_import(options: argparse.Namespace) -> int:
    """Copy, and report."""
    from face_encode.gallery.database_file import is_database

    if not is_database(options.target):
        raise GalleryError(
            f"people are imported into a gallery database, people.sqlite. Received: "
            f"{options.target}"
        )
    if os.path.isdir(options.source):
        photos, people, notes = _import_crops(options)
    else:
        from face_encode.pipeline.importing import import_people

        photos, people, notes = import_people(
            options.source, options.target, check_quality=not options.any_quality
        )
    if options.json:
        print_json({"photos": photos, "people": people, "notes": notes})
        return 0
    print_safely(f"{photos} photos of {people} people imported: {options.target}")
    print_lines("notes", notes)
    return 0


def _import_crops(options: argparse.Namespace) -> tuple[int, int, list[str]]:
    """Embed and enrol a folder of crops; returns photos, people and notes."""
    from contextlib import closing
    from pathlib import Path
    from urllib.parse import unquote

    from face_encode.gallery.database import DatabaseGallery
    from face_encode.photos.folders import list_people
    from face_encode.pipeline.enrolment import enrol_people, with_listing

    listed = list_people(options.source)
    people: dict[str, list[Path]] = {}
    for name, photos in listed.people.items():
        # Ada and %41da are one person.
        people.setdefault(unquote(name), []).extend(photos)
    detector, encoder = open_models(options)
    with closing(DatabaseGallery(options.target, encoder)) as gallery:
        report = enrol_people(
            people,
            gallery,
            detector,
            encoder,
            replaces="same people",
            workers=options.workers,
            keep_crops=True,
            check_quality=not options.any_quality,
        )
    report = with_listing(report, listed)
    notes = [f"{item.photo}: {item.reason}" for item in report.left_out] + list(report.notes)
    return report.enrolled, sum(map(bool, report.per_person.values())), notes


def export_people(source: str, output: str, person: str | None, *, as_json: bool) -> int:
    """Write a gallery, or one person of it, as a file or folder that other programs read."""
    from face_encode.files import as_path, replacing
    from face_encode.gallery.export import export_crops, export_parquet, export_person
    from face_encode.gallery.memory import MemoryGallery

    target = as_path(output)
    if (person is not None) != (target.suffix == ".zip"):
        raise InputError(
            "a person's whole data are a .zip file: --person NAME -o NAME.zip. Everybody is "
            f"exported as .npz, .parquet or a folder of crops. Received: {output}"
        )
    without: list[str] = []
    with opened_database(source) as gallery:
        if person is not None:
            with replacing(target, GalleryError) as temporary:
                count = export_person(gallery, person, temporary)
        elif target.suffix == ".parquet":
            count = export_parquet(gallery, target)
        elif target.suffix == ".npz":
            rows = gallery.rows()
            MemoryGallery.from_rows(rows, gallery.encoder).save(target)
            count = len(rows.names)
        elif target.suffix == ".sqlite":
            gallery.copy_to(target)
            count = sum(gallery.people().values())
        elif not target.suffix:
            count, photos = export_crops(gallery, target)
            without = [f"{photo.name}: photo {photo.id} {photo.source}" for photo in photos]
        else:
            raise InputError(
                "a gallery is exported as .sqlite, .npz, .parquet, or a folder of crops, a name "
                f"without an ending. Received: {output}"
            )
        is_plain = gallery.is_encrypted and target.suffix != ".sqlite"
    if as_json:
        print_json({"output": output, "photos": count, "without_crop": without})
        return 0
    print_safely(f"{output}: {count} photos" + (", not encrypted" if is_plain else ""))
    print_lines("no crop is kept of", without)
    return 0


def add_reembed_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Embed everybody in a gallery database again by another encoder, from the crops that "
        "enroll --keep-crops keeps, and list who has to be photographed again."
    )
    parser.add_argument("gallery", metavar="GALLERY", help="a gallery database: people.sqlite")
    parser.add_argument(
        "--leave-out",
        action="store_true",
        help="remove the people of whom no photo can be embedded again, instead of refusing",
    )
    add_any_quality_option(parser)
    add_json_option(parser)
    add_model_options(parser, threshold=False, workers=True)


def run_reembed(options: argparse.Namespace) -> int:
    """Embed again, and report."""
    from face_encode.pipeline.reembedding import reembed

    with opened_database(options.gallery) as gallery:
        detector, encoder = open_models(options)
        changed, report = reembed(
            gallery,
            detector,
            encoder,
            leave_out=options.leave_out,
            check_quality=not options.any_quality,
            workers=options.workers,
        )
        changed.close()
    if options.json:
        print_json(
            {
                "embedded": report.embedded,
                "encoder": encoder.name,
                "left_out": [
                    {"name": photo.name, "photo": photo.id, "source": photo.source, "reason": why}
                    for photo, why in report.left_out
                ],
                "lost": list(report.lost),
            }
        )
        return 0
    print_safely(f"{report.embedded} photos embedded by {encoder.name}: {options.gallery}")
    print_lines(
        "photos that are no longer in the gallery",
        [f"{photo.name}: photo {photo.id} {photo.source}: {why}" for photo, why in report.left_out],
    )
    print_lines("to be photographed again", list(report.lost))
    return 0
