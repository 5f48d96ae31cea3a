"""The command ``face-encode``: parses, calls, prints."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_encode.errors import FaceEncodeError, ImageError
from face_encode.evaluation.commands import add_commands as add_evaluation_commands
from face_encode.version import __version__

if TYPE_CHECKING:
    from face_encode.model import Face_Encode_Model
    from face_encode.types import EnrolmentReport

# What is left out or remarked on is told in full in JSON; a terminal gets the first so many.
_ROWS_SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words behind the command's name; None takes the program's own.

    Returns:
        0 done; 1 an error of ours, told in one line on standard error. Wrong usage ends the
        program with 2.
    """
    # TensorFlow writes pages of notices to standard error; this is a program, not a library, so
    # it may say so for the whole process.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may hold bytes that are no text, and a terminal may lack its letters.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except FaceEncodeError as error:
        print(f"face-encode: {_printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("face-encode: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="face-encode", description="Recognise people by their faces."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    enroll = commands.add_parser(
        "enroll",
        help="enrol a folder of people into a gallery file",
        description="Enrol a folder with one sub-folder a person into a gallery file. A gallery "
        "that exists becomes what the folder holds; only photos that changed are encoded.",
    )
    enroll.add_argument("people", metavar="PEOPLE_DIR", help="a folder with a sub-folder a person")
    enroll.add_argument(
        "-g", "--gallery", metavar="GALLERY.npz", required=True, help="the gallery file to write"
    )
    enroll.add_argument(
        "--add", action="store_true", help="keep the gallery's people who are not in the folder"
    )
    enroll.add_argument("--json", action="store_true", help="print the report as JSON")
    enroll.add_argument("--workers", type=_positive, metavar="N", help="processes that find faces")
    _add_model_options(enroll)
    enroll.set_defaults(run=_enroll)

    match = commands.add_parser(
        "match",
        help="name the faces in photos",
        description="Name the faces in photos by the people of a folder or a gallery file.",
    )
    match.add_argument("people", metavar="PEOPLE", help="a folder of people, or a gallery file")
    match.add_argument("photos", metavar="PHOTO", nargs="+", help="photos to name the faces of")
    match.add_argument("--json", action="store_true", help="print the result as JSON")
    match.add_argument(
        "--max-faces",
        type=_positive,
        default=None,
        metavar="N",
        help="name the N largest faces of each photo only (default: all)",
    )
    match.add_argument(
        "--annotate", metavar="OUT_DIR", help="write the photos there, with boxes and names drawn"
    )
    _add_model_options(match)
    match.set_defaults(run=_match)

    verify = commands.add_parser(
        "verify",
        help="say whether two photos show the same person",
        description="Compare the largest faces of two photos.",
    )
    verify.add_argument("photo_a", metavar="PHOTO_A")
    verify.add_argument("photo_b", metavar="PHOTO_B")
    verify.add_argument("--json", action="store_true", help="print the result as JSON")
    _add_model_options(verify)
    verify.set_defaults(run=_verify)

    remove = commands.add_parser("remove", help="take a person out of a gallery file")
    remove.add_argument("gallery", metavar="GALLERY.npz")
    remove.add_argument("name", metavar="NAME")
    _add_model_options(remove)
    remove.set_defaults(run=_remove)

    models = commands.add_parser(
        "models", help="list the known encoders and detectors, their sources and licences"
    )
    models.add_argument("--json", action="store_true", help="print the list as JSON")
    models.set_defaults(run=_models)

    add_evaluation_commands(commands)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    """The choices that every command with a model has."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", metavar="MODEL", help="a known encoder or a .keras file")
    group.add_argument("--detector", metavar="NAME", help="a known detector")
    group.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="cosine similarity from which two faces count as one person",
    )


def _positive(text: str) -> int:
    """A whole number from 1 on."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"a whole number, at least 1, not {text!r}")
    return number


def _printable(text: str) -> str:
    """A text in one line, with control characters, which steer a terminal, spelt out."""
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        else character
        for character in text
    )


def _open_model(options: argparse.Namespace) -> Face_Encode_Model:
    """The model that the options describe."""
    from face_encode.model import Face_Encode_Model

    with _without_native_notices():
        import keras  # noqa: F401 - imports TensorFlow, or whatever Keras runs on

    return Face_Encode_Model(options.model, options.detector, options.threshold)


@contextmanager
def _without_native_notices() -> Iterator[None]:
    """Keep what native code writes to standard error off it; Python's errors pass as ever.

    TensorFlow 2.21 greets with four lines that none of its own switches turns off.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _enroll(options: argparse.Namespace) -> int:
    """``face-encode enroll``."""
    from face_encode.enrolment import enrol_people
    from face_encode.files import as_path
    from face_encode.gallery.npz_file import check_file_name
    from face_encode.images import people_in

    gallery_path = as_path(options.gallery)
    check_file_name(gallery_path)
    people = people_in(options.people)
    model = _open_model(options)
    # os.path, because pathlib raises where the path cannot be looked at.
    if os.path.exists(gallery_path):
        model.load_gallery(gallery_path)
    before = set(model.gallery.people())
    report = enrol_people(
        people,
        model.gallery,
        model.detector,
        model.encoder,
        replaces="same people" if options.add else "all",
        workers=options.workers,
    )
    model.save_gallery(gallery_path)
    gone = sorted(before - set(model.gallery.people()))
    if options.json:
        _print_json(_report_as_dict(report) | {"no_longer_enrolled": gone})
    else:
        _print_report(report, gone)
        print(f"gallery: {gallery_path}")
    return 0


def _report_as_dict(report: EnrolmentReport) -> dict[str, Any]:
    """The report as plain JSON values."""
    return {
        "enrolled": report.enrolled,
        "reused": report.reused,
        "per_person": dict(report.per_person),
        "left_out": [
            {"photo": item.photo, "name": item.name, "reason": item.reason}
            for item in report.left_out
        ],
        "notes": list(report.notes),
    }


def _print_report(report: EnrolmentReport, gone: Sequence[str]) -> None:
    """The report for people: a table where it is short, and what was left out."""
    if len(report.per_person) <= _ROWS_SHOWN:
        rows = [[name, str(count)] for name, count in report.per_person.items()]
        _print_table(["person", "photos"], rows)
    lines = str(report).splitlines()
    print("\n".join(lines[: _ROWS_SHOWN + 1]))
    if len(lines) > _ROWS_SHOWN + 1:
        print(f"  … and {len(lines) - _ROWS_SHOWN - 1} more (--json tells all)")
    if gone:
        print(f"no longer enrolled: {', '.join(gone)}")


def _match(options: argparse.Namespace) -> int:
    """``face-encode match``."""
    from face_encode.pipeline import NO_FACE, embed_photos
    from face_encode.progress import tracked

    model = _open_model(options)
    if Path(options.people).suffix == ".npz":
        model.load_gallery(options.people)
    else:
        report = model.fit_dataset(options.people)
        for item in report.left_out:
            row = _printable(f"{item.photo}: {item.reason}")
            print(f"face-encode: left out: {row}", file=sys.stderr)
    embedded = embed_photos(
        options.photos, model.detector, model.encoder, max_faces=options.max_faces
    )
    results: list[dict[str, Any]] = []
    for photo in tracked(embedded, len(options.photos), "Matching"):
        found = model.gallery.search(photo.embeddings)
        faces = [
            model.describe(matches[0], face.box.as_dict())
            for matches, face in zip(found, photo.faces, strict=False)
        ]
        # A photo without a face is a fine photo: it has an empty list, not an error.
        error = None if photo.error == NO_FACE else photo.error
        results.append({"photo": photo.photo, "faces": faces, "error": error})
    if options.annotate is not None:
        _annotate(model, results, Path(options.annotate))
    if options.json:
        _print_json(results)
    else:
        _print_matches(results)
    # A broken photo among others is a row; only where there is nothing but those has the
    # command failed.
    if all(result["error"] is not None for result in results):
        raise ImageError(f"none of the {len(results)} photos can be read")
    return 0


def _annotate(model: Face_Encode_Model, results: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write the photos with boxes and names drawn; photos of the same name are numbered."""
    from PIL import Image

    from face_encode.images import read_image

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Whatever the folder, a photo is never overwritten with its own drawing.
        taken = {os.path.realpath(result["photo"]) for result in results}
        for result in results:
            if result["error"] is not None:
                continue
            stem, number = Path(result["photo"]).stem, 1
            target = os.path.realpath(folder / f"{stem}.png")
            while target in taken:
                number += 1
                target = os.path.realpath(folder / f"{stem}-{number}.png")
            taken.add(target)
            drawn = model.draw_bounding_box(read_image(result["photo"]), result["faces"])
            Image.fromarray(drawn).save(target)
    except OSError as error:
        raise ImageError(f"cannot write to {folder}: {error.strerror or error}") from error


def _print_matches(results: Sequence[dict[str, Any]]) -> None:
    """A row a face, and a row a photo without any."""
    rows = []
    for result in results:
        for face in result["faces"]:
            box = face["bounding_box"]
            rows.append(
                [
                    result["photo"],
                    face["name"] if face["is_match"] else f"unknown (nearest: {face['name']})",
                    f"{face['similarity']:.3f}",
                    f"{face['probability']:.0%}" if "probability" in face else "",
                    f"{box['x']},{box['y']} {box['width']}x{box['height']}",
                ]
            )
        if not result["faces"]:
            rows.append([result["photo"], result["error"] or "no face found", "", "", ""])
    header = ["photo", "name", "similarity", "probability", "box"]
    if not any(row[3] for row in rows):
        # Only a calibrated gallery knows it.
        header.pop(3)
        rows = [[*row[:3], row[4]] for row in rows]
    _print_table(header, rows)


def _verify(options: argparse.Namespace) -> int:
    """``face-encode verify``."""
    from face_encode.pipeline import embed_photos

    model = _open_model(options)
    pair = list(embed_photos([options.photo_a, options.photo_b], model.detector, model.encoder))
    for photo in pair:
        if photo.error is not None:
            raise ImageError(f"{photo.photo}: {photo.error}")
    similarity, is_match = model.compare_encodings(pair[0].embeddings[0], pair[1].embeddings[0])
    if options.json:
        _print_json(
            {
                "photo_a": options.photo_a,
                "photo_b": options.photo_b,
                "similarity": similarity,
                "is_match": is_match,
                "threshold": model.threshold,
            }
        )
    else:
        verdict = "the same person" if is_match else "different people"
        print(f"{verdict}: similarity {similarity:.3f}, threshold {model.threshold:.3f}")
    return 0


def _remove(options: argparse.Namespace) -> int:
    """``face-encode remove``."""
    model = _open_model(options)
    model.load_gallery(options.gallery)
    count = model.remove_person(options.name)
    model.save_gallery(options.gallery)
    print(f"{options.name} removed: {count} photos; {len(model.gallery)} remain")
    return 0


def _models(options: argparse.Namespace) -> int:
    """``face-encode models``."""
    from face_encode.detectors.loading import DEFAULT_DETECTOR, KNOWN_DETECTORS
    from face_encode.encoders.loading import DEFAULT_ENCODER, KNOWN_ENCODERS
    from face_encode.weights import KNOWN_WEIGHTS

    encoders = []
    for name, known in KNOWN_ENCODERS.items():
        weights, crop = KNOWN_WEIGHTS[known.weights], known.contract.crop
        encoders.append(
            {
                "name": name,
                "default": name == DEFAULT_ENCODER,
                "crop": f"{crop.method} {crop.height}x{crop.width}",
                "threshold": known.contract.threshold,
                "weights": f"package {weights.package} ({weights.source})",
                "licence": weights.licence,
            }
        )
    detectors = [
        {
            "name": name,
            "default": name == DEFAULT_DETECTOR,
            "summary": known.summary,
            "licence": known.licence,
        }
        for name, known in KNOWN_DETECTORS.items()
    ]
    if options.json:
        _print_json({"encoders": encoders, "detectors": detectors})
        return 0
    for title, rows in (("encoders", encoders), ("detectors", detectors)):
        print(
            f"{title} (* the default; a .keras file is an encoder too)"
            if title == "encoders"
            else f"\n{title} (* the default)"
        )
        columns = [key for key in rows[0] if key != "default"]
        _print_table(
            columns,
            [
                [f"{row[key]}{' *' if key == 'name' and row['default'] else ''}" for key in columns]
                for row in rows
            ],
        )
    return 0


def _print_json(value: Any) -> None:
    """JSON on standard output, alone, with letters of any script as they are."""
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    print(json.dumps(value, indent=2, ensure_ascii=ascii_only))


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; whole lines into a pipe, as wide as the terminal on one."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=SIMPLE_HEAD)
    for row in rows:
        # Text, because a name with square brackets in it is no markup.
        table.add_row(*(Text(_printable(cell)) for cell in row))
    wide = None if sys.stdout.isatty() else 400
    Console(width=wide, soft_wrap=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
