"""Commands for the people in a gallery: listing, correcting, undoing and forgetting them.

They change rows only, and so need no encoder: what a gallery's file says of its own will do. Most
are for a gallery database; of other galleries people can be listed, renamed and removed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from face_encode.cli.options import (
    ROWS_SHOWN,
    add_encoder_option,
    add_json_option,
    add_model_options,
    positive,
    print_json,
    print_table,
)
from face_encode.errors import GalleryError, InputError
from face_encode.files import for_owner, make_private_folder
from face_encode.outputs import add_overwrite_option, check_output
from face_encode.terminal import print_safely, printable

if TYPE_CHECKING:
    from face_encode.gallery.audit import Change
    from face_encode.gallery.base import Gallery
    from face_encode.gallery.database import DatabaseGallery

_GALLERY_HELP = "a gallery: people.sqlite, an .npz file, or one in Milvus"
_DATABASE_HELP = "a gallery database: people.sqlite"
_NAME_HELP = "a person; case, spacing and Unicode form do not matter"


@contextmanager
def _opened(options: argparse.Namespace) -> Iterator[Gallery]:
    """Open any gallery, with the encoder only where its store does not say which one it is."""
    from face_encode.encoders.registry import load_encoder
    from face_encode.gallery.milvus_store import is_milvus
    from face_encode.gallery.opening import check_kept, open_gallery

    check_kept(options.gallery)
    encoder = None
    if is_milvus(options.gallery) or options.model is not None:
        encoder = load_encoder(options.model, engine=options.encoder_engine)
    with closing(open_gallery(options.gallery, encoder=encoder, metric=None, create=False)) as it:
        yield it


def check_database(gallery: str) -> None:
    """Refuse a name that is not that of a gallery database.

    Raises:
        GalleryError: It is another kind of gallery.
    """
    from face_encode.gallery.database_file import is_database
    from face_encode.gallery.opening import check_kept, gallery_label

    check_kept(gallery)
    if not is_database(gallery):
        raise GalleryError(
            "only a gallery database, people.sqlite, can do that; face-encode import copies an "
            f".npz file into one. Received: {gallery_label(gallery)}"
        )


@contextmanager
def opened_database(gallery: str) -> Iterator[DatabaseGallery]:
    """Open a gallery database without its encoder.

    Raises:
        GalleryError: It is another kind of gallery, or cannot be opened.
    """
    from face_encode.gallery.database import DatabaseGallery

    check_database(gallery)
    with closing(DatabaseGallery(gallery, create=False, metric=None)) as database:
        yield database


def add_index_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Make searches of a large gallery faster: by int8 codes, which find the same people; or by "
        "an approximate index, which may miss some. Either lies beside a gallery database, and is "
        "built again when the people have changed; of an .npz file the codes are part."
    )
    parser.add_argument("gallery", metavar="GALLERY", help="people.sqlite, or an .npz file")
    parser.add_argument(
        "--approximate",
        action="store_true",
        help='build an approximate index (pip install "face_encode[index]")',
    )


def run_index(options: argparse.Namespace) -> int:
    """Build the index, save it, and print the counts."""
    from face_encode.gallery.database_file import is_database
    from face_encode.gallery.milvus_store import is_milvus
    from face_encode.gallery.opening import gallery_label, load_gallery

    if is_milvus(options.gallery):
        raise GalleryError(
            "what is indexed is a gallery's file; one in Milvus has an index of Milvus's own "
            f"(see docs/galleries.md). Received: {gallery_label(options.gallery)}"
        )
    if is_database(options.gallery):
        with opened_database(options.gallery) as database:
            if database.is_encrypted:
                raise GalleryError(
                    f"{options.gallery} is encrypted, and an index beside it would not be: with "
                    "--approximate, match builds one in memory"
                )
            database.build_index(approximate=options.approximate)
            photos, people = len(database), len(database.people())
    else:
        gallery = load_gallery(options.gallery)
        gallery.build_index(approximate=options.approximate)
        gallery.save()
        photos, people = len(gallery), len(gallery.people())
    print_safely(f"{photos} photos of {people} people indexed: {options.gallery}")
    return 0


def add_people_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = "List the people in a gallery, in the order of enrolment."
    parser.add_argument("gallery", metavar="GALLERY", help=_GALLERY_HELP)
    parser.add_argument("--search", metavar="PART", help="only names that contain this")
    parser.add_argument(
        "--start", type=positive, default=1, metavar="N", help="begin with the Nth person"
    )
    parser.add_argument(
        "--count", type=positive, metavar="N", help="at most N people (default: all)"
    )
    add_json_option(parser)
    add_encoder_option(parser)


def run_people(options: argparse.Namespace) -> int:
    """List the people."""
    from face_encode.gallery.base import folded_name

    with _opened(options) as gallery:
        people, thresholds = gallery.people(), gallery.thresholds
    if options.search is not None:
        part = folded_name(options.search)
        people = {name: count for name, count in people.items() if part in folded_name(name)}
    begin = options.start - 1
    shown = list(people.items())[begin : None if options.count is None else begin + options.count]
    if options.json:
        print_json(
            [
                {"name": name, "photos": count, "threshold": thresholds.get(name)}
                for name, count in shown
            ]
        )
        return 0
    rows = [[name, str(count)] for name, count in shown]
    columns = ["person", "photos"]
    if thresholds:
        columns.append("own threshold")
        rows = [[*row, f"{thresholds[row[0]]:g}" if row[0] in thresholds else ""] for row in rows]
    print_table(columns, rows)
    print(f"{len(shown)} of {len(people)} people, {sum(people.values())} photos")
    return 0


def add_photos_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = "List a person's photos: number, quality, date, source, and their crops."
    parser.add_argument("gallery", metavar="GALLERY", help=_DATABASE_HELP)
    parser.add_argument("name", metavar="NAME", help=_NAME_HELP)
    parser.add_argument(
        "--save-crops", metavar="DIR", help="write the crops that are kept there, as NUMBER.jpg"
    )
    add_overwrite_option(parser)
    add_json_option(parser)


def run_photos(options: argparse.Namespace) -> int:
    """List the photos, and save their crops where asked to."""
    with opened_database(options.gallery) as gallery:
        photos = gallery.photos(options.name)
        if options.save_crops is not None:
            crops = ((f"{photo.id}.jpg", gallery.crop(photo.id)) for photo in photos)
            _save_crops(Path(options.save_crops), crops, overwrite=options.overwrite)
    if options.json:
        print_json([photo.as_dict() for photo in photos])
        return 0
    rows = [
        [
            str(photo.id),
            "" if photo.quality is None else f"{photo.quality:.2f}",
            photo.enrolled_at[:16].replace("T", " "),
            photo.source,
            "yes" if photo.has_crop else "no",
        ]
        for photo in photos
    ]
    print_table(["photo", "quality", "enrolled", "source", "crop"], rows)
    return 0


def _save_crops(
    folder: Path, crops: Iterable[tuple[str, bytes | None]], *, overwrite: bool
) -> None:
    """Write crops into a folder, by their paths in it; what is None is left out.

    Raises:
        GalleryError: The folder cannot be written to.
    """
    try:
        make_private_folder(folder)
        for path, crop in crops:
            target = folder / path
            # Crops carry no mark; the same one may be there from the last time.
            if crop is None or (target.exists() and target.read_bytes() == crop):
                continue
            make_private_folder(target.parent)
            check_output(target, "picture", overwrite=overwrite)
            with open(target, "wb", opener=for_owner) as file:
                file.write(crop)
    except OSError as error:
        raise GalleryError(f"cannot write to {folder}: {error.strerror}") from error


def add_unknown_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "List the people without a name, whom face-encode watch has seen or face-encode cluster "
        "has found in photos, those who were seen last first; merge or dismiss some."
    )
    parser.add_argument("gallery", metavar="GALLERY", help=_DATABASE_HELP)
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--merge",
        nargs=2,
        metavar=("GROUP", "INTO"),
        help="make one person of two, unknown-8 and unknown-7; the second stays",
    )
    change.add_argument(
        "--dismiss",
        nargs="+",
        metavar="GROUP",
        help="delete somebody's faces; seen again, the person gets a new number",
    )
    parser.add_argument(
        "--save-crops", metavar="DIR", help="write the faces there, as unknown-7/NUMBER.jpg"
    )
    add_overwrite_option(parser)
    add_json_option(parser)


def run_unknown(options: argparse.Namespace) -> int:
    """Change what is asked for, and list who is there then."""
    from face_encode.gallery.base import unknown_number

    with opened_database(options.gallery) as gallery:
        if options.merge is not None:
            gallery.unknown.merge(*map(unknown_number, options.merge))
        for number in map(unknown_number, options.dismiss or ()):
            gallery.unknown.dismiss(number)
        groups, total = gallery.unknown.groups()
        if options.save_crops is not None:
            crops = (
                (f"{group.id}/{face.id}.jpg", gallery.unknown.crop(face.id))
                for group in groups
                for face in group.faces
            )
            _save_crops(Path(options.save_crops), crops, overwrite=options.overwrite)
    if options.json:
        print_json([group.as_dict() for group in groups])
        return 0
    rows = [
        [
            group.id,
            str(group.seen),
            str(len(group.faces)),
            group.last_seen[:16].replace("T", " "),
            group.expires_at[:16].replace("T", " "),
            ", ".join(sorted({face.source for face in group.faces})[:3]),
        ]
        for group in groups
    ]
    print_table(["who", "seen", "faces kept", "last seen (UTC)", "kept until", "where"], rows)
    print(f'{total} without a name; face-encode name unknown-7 "Ada" -g GALLERY names one')
    return 0


def add_name_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Give somebody unknown a name: the faces that are kept become photos of that person, new "
        "or known. face-encode undo takes it back."
    )
    parser.add_argument("unknown", metavar="GROUP", help="unknown-7, as face-encode unknown lists")
    parser.add_argument("name", metavar="NAME", help="the person")
    parser.add_argument(
        "-g",
        "--gallery",
        metavar="GALLERY",
        default="people.sqlite",
        help=f"{_DATABASE_HELP} (default: people.sqlite here)",
    )


def run_name(options: argparse.Namespace) -> int:
    """Name."""
    from face_encode.gallery.base import unknown_number

    number = unknown_number(options.unknown)
    with opened_database(options.gallery) as gallery:
        name, photos = gallery.unknown.name(number, options.name)
        count = len(gallery.photos(name))
    print(printable(f"{options.unknown} is {name}: {photos} photos enrolled, {count} in all"))
    return 0


def add_remove_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Take a person, or single photos, out of a gallery; the others stay as they are."
    )
    parser.add_argument("gallery", metavar="GALLERY", help=_GALLERY_HELP)
    parser.add_argument("name", metavar="NAME", nargs="?", help=_NAME_HELP)
    parser.add_argument(
        "--photo",
        type=positive,
        nargs="+",
        metavar="NUMBER",
        help="photos of a gallery database, as face-encode photos numbers them",
    )
    add_model_options(parser)


def run_remove(options: argparse.Namespace) -> int:
    """Remove, save, and print how many photos remain."""
    if (options.name is None) == (options.photo is None):
        raise InputError("remove takes a person's name or --photo, one of the two")
    if options.photo is not None:
        with opened_database(options.gallery) as database:
            removed = database.remove_photos(options.photo)
            remain = sum(database.people().values())
        told = ", ".join(f"{len(photos)} of {name}" for name, photos in removed.items())
        print(printable(f"photos removed: {told}; {remain} remain"))
        return 0
    with _opened(options) as gallery:
        count = gallery.remove(options.name)
        remain = sum(gallery.people().values())
    print(printable(f"{options.name} removed: {count} photos; {remain} remain"))
    return 0


def add_move_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = "Make photos those of another person, known or new."
    parser.add_argument("gallery", metavar="GALLERY", help=_DATABASE_HELP)
    parser.add_argument(
        "photos",
        type=positive,
        nargs="+",
        metavar="NUMBER",
        help="photos, as face-encode photos numbers them",
    )
    parser.add_argument("--to", required=True, metavar="NAME", help="whose photos they are")


def run_move(options: argparse.Namespace) -> int:
    """Move the photos."""
    with opened_database(options.gallery) as gallery:
        name = gallery.move_photos(options.photos, options.to)
        count = len(gallery.photos(name))
    print(printable(f"{len(set(options.photos))} photos moved: {name} has {count}"))
    return 0


def add_rename_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = "Rename a person; two names of one person are made one by merge."
    parser.add_argument("gallery", metavar="GALLERY", help=_GALLERY_HELP)
    parser.add_argument("name", metavar="NAME", help=_NAME_HELP)
    parser.add_argument("new_name", metavar="NEW_NAME")
    add_encoder_option(parser)


def run_rename(options: argparse.Namespace) -> int:
    """Rename."""
    with _opened(options) as gallery:
        count = gallery.rename(options.name, options.new_name)
    print(printable(f"{options.name} is {options.new_name} now: {count} photos"))
    return 0


def add_threshold_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Give a person a threshold of the person's own: the similarity from which a face is this "
        "person's, whatever holds for the others."
    )
    parser.add_argument("gallery", metavar="GALLERY", help="people.sqlite, or an .npz file")
    parser.add_argument("name", metavar="NAME", help=_NAME_HELP)
    parser.add_argument(
        "threshold",
        metavar="THRESHOLD",
        help="a cosine similarity, -1 to 1; or none, as everybody else",
    )
    add_encoder_option(parser)


def run_threshold(options: argparse.Namespace) -> int:
    """Set the threshold, or take it away."""
    try:
        threshold = None if options.threshold == "none" else float(options.threshold)
    except ValueError as error:
        raise InputError(
            f"a threshold is a number within -1..1, or none. Received: {options.threshold}"
        ) from error
    with _opened(options) as gallery:
        gallery.set_threshold(options.name, threshold)
    told = "as everybody" if threshold is None else f"from a similarity of {threshold:g} on"
    print(printable(f"{options.name} is named {told}"))
    return 0


def add_merge_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = "Make one person of two names."
    parser.add_argument("gallery", metavar="GALLERY", help=_DATABASE_HELP)
    parser.add_argument("name", metavar="NAME", help="the name that goes")
    parser.add_argument("into", metavar="INTO", help="the name that stays")


def run_merge(options: argparse.Namespace) -> int:
    """Merge."""
    with opened_database(options.gallery) as gallery:
        count = gallery.merge(options.name, options.into)
        into = gallery.find_name(options.into)
    print(printable(f"{options.name} is part of {into} now: {count} photos"))
    return 0


def add_undo_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Undo a change of a gallery. Photos that were removed cannot be brought back by another "
        "program than the one that removed them: enrol them again."
    )
    parser.add_argument("gallery", metavar="GALLERY", help=_DATABASE_HELP)
    parser.add_argument(
        "change",
        metavar="CHANGE",
        type=positive,
        nargs="?",
        help="its number, as face-encode history lists it (default: the last one not undone yet)",
    )


def run_undo(options: argparse.Namespace) -> int:
    """Undo."""
    with opened_database(options.gallery) as gallery:
        change = gallery.undo(options.change)
    print(printable(f"undone: change {change.id}, {_told(change)}"))
    return 0


def add_history_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = "List the changes of a gallery, the last one last."
    parser.add_argument("gallery", metavar="GALLERY", help=_DATABASE_HELP)
    parser.add_argument(
        "-n",
        type=positive,
        metavar="N",
        help=f"the last N changes (default: {ROWS_SHOWN}; with --json all)",
    )
    add_json_option(parser)


def run_history(options: argparse.Namespace) -> int:
    """List the changes."""
    count = options.n or (None if options.json else ROWS_SHOWN)
    with opened_database(options.gallery) as gallery:
        changes = gallery.changes(count=None if count is None else -count)
    if options.json:
        print_json([change.as_dict() for change in changes])
        return 0
    rows = [
        [
            str(change.id),
            change.time[:19].replace("T", " "),
            " ".join(filter(None, (change.author.name, change.author.address))),
            _told(change),
        ]
        for change in changes
    ]
    print_table(["change", "time (UTC)", "by", "what"], rows)
    return 0


def _told(change: Change) -> str:
    """A change in words."""
    from face_encode.gallery.base import unknown_id

    words: list[str] = [change.action, *map(unknown_id, change.unknown)]
    if change.undoes is not None:
        words.append(f"{change.undoes}:")
    if change.renamed is not None:
        words.append(" to ".join(change.renamed))
    if change.threshold is not None:
        former, new = (
            "none" if value is None else f"{value:g}"
            for value in (change.threshold.former, change.threshold.new)
        )
        words.append(f"{change.threshold.name}: {former} to {new}")
    for sign, people in (("-", change.removed), ("+", change.added)):
        told = [f"{name} {sign}{len(photos)}" for name, photos in people.items()]
        if len(told) > ROWS_SHOWN:
            told[ROWS_SHOWN:] = [f"… {len(told) - ROWS_SHOWN} more"]
        words += [", ".join(told)] if told else []
    return " ".join(words)


def add_forget_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Remove a person and every trace of that person from a gallery's file: photos, crops, the "
        "note, names in the audit, what interrupted runs have left, indices, and free pages. It "
        "cannot be undone."
    )
    parser.add_argument("gallery", metavar="GALLERY", help=_DATABASE_HELP)
    parser.add_argument("name", metavar="NAME", help=_NAME_HELP)


def run_forget(options: argparse.Namespace) -> int:
    """Forget, and say what that does not reach."""
    from face_encode.gallery.base import unknown_id

    with opened_database(options.gallery) as gallery:
        photos = [photo.id for photo in gallery.photos(options.name)]
        alike = gallery.unknown.most_like(gallery.embeddings_of(photos))
        count = gallery.forget(options.name)
    print(printable(f"{options.name} forgotten: {count} photos"))
    if alike:
        told = ", ".join(f"{unknown_id(number)} ({near:.3f})" for number, near in alike)
        print(
            f"people without a name who are most like that person, by similarity: {told}; "
            "face-encode unknown GALLERY --dismiss GROUP deletes one"
        )
    print(
        "not reached, yours to clear: the photos themselves, backups and copies of the file, "
        "exports, recordings and event files, other programs' logs, and what a running service "
        "keeps to undo its own changes until it ends"
    )
    return 0


def add_rekey_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Encrypt everything in a gallery that tells of people under the first key in "
        'FACE_ENCODE_GALLERY_KEY, "NEW,OLD"; the others decrypt what is encrypted so far. Stop '
        "the service meanwhile."
    )
    parser.add_argument("gallery", metavar="GALLERY", help=_DATABASE_HELP)


def run_rekey(options: argparse.Namespace) -> int:
    """Encrypt under the first key."""
    with opened_database(options.gallery) as gallery:
        gallery.rekey()
    print_safely(f"{options.gallery} is encrypted under the first key")
    return 0
