"""What the commands share: options, opening the models they describe, and lists."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_encode.errors import ImageError, InputError
from face_encode.outputs import SOFTWARE, check_output, is_ours
from face_encode.terminal import print_safely, printable

if TYPE_CHECKING:
    from face_encode.detectors.base import Detector
    from face_encode.encoders.encoder import Encoder
    from face_encode.model import Face_Encode_Model
    from face_encode.photos.drawing import Marks
    from face_encode.pipeline.folder import EmbeddingReport


# Rows of a long list that a terminal gets; JSON gets all.
ROWS_SHOWN = 20

_DETECTOR_HELP = (
    "what finds the faces: dlib (the default), haar, mtcnn … as face-encode models lists"
)


def print_notes(results: Sequence[dict[str, Any]]) -> None:
    """Print the remarks on photos, which results have in ``notes``."""
    for result in results:
        for note in result["notes"]:
            print(printable(f"note: {result['photo']}: {note}"))


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_encoder_option(parser: argparse._ActionsContainer) -> None:
    """Add ``--model`` and ``--encoder-engine``."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="offline (the default), fast or accurate, each an encoder with a detector; a known "
        "encoder, as face-encode models lists; or a .keras file",
    )
    parser.add_argument(
        "--encoder-engine",
        metavar="NAME",
        help="what runs the encoder: tensorflow (Keras itself), onnx, openvino, int8, or auto (the "
        "default): onnx where it gives what Keras gives, else Keras; fastest (the default of "
        "--model fast): int8 where its embeddings are near enough, else auto",
    )


def add_detector_option(
    parser: argparse._ActionsContainer,
    help_text: str = _DETECTOR_HELP,
) -> None:
    """Add ``--detector``."""
    parser.add_argument("--detector", metavar="NAME", help=help_text)


def add_min_face_option(parser: argparse._ActionsContainer) -> None:
    """Add ``--min-face``."""
    parser.add_argument(
        "--min-face",
        type=_face_side,
        metavar="N",
        help="side of the smallest face that is looked for, in pixels of the photo (default: 40, "
        "in photos of more than 4 megapixels 80)",
    )


def _face_side(text: str) -> int:
    """Parse the side of the smallest face: at least what a detector takes."""
    from face_encode.detectors.base import SMALLEST_SIDE

    return positive(text, SMALLEST_SIDE)


def add_any_quality_option(parser: argparse._ActionsContainer) -> None:
    """Add ``--any-quality``."""
    parser.add_argument(
        "--any-quality",
        action="store_true",
        help="enrol also photos whose face is not to be trusted: blurred, covered, dark …",
    )


def add_liveness_option(
    parser: argparse._ActionsContainer, effect: str = ", which matches nobody"
) -> None:
    """Add ``--liveness``, also under the name that it has for a door; ``effect`` of a copy."""
    parser.add_argument(
        "--liveness",
        "--require-live",
        action="store_true",
        help=f"judge if each face is alive, or a photo or a screen held up{effect}",
    )


def add_event_options(parser: argparse._ActionsContainer) -> None:
    """Add ``--events``, ``--webhook``, ``--mqtt`` and ``--event-crops``."""
    parser.add_argument(
        "--events",
        metavar="FILE.jsonl",
        help="append a line of JSON when somebody arrives, gets a name and leaves; - prints the "
        "lines in place of everything else",
    )
    parser.add_argument(
        "--webhook",
        metavar="URL",
        help="post the events there, until they arrive; FACE_ENCODE_WEBHOOK_SECRET in the "
        "environment signs them",
    )
    parser.add_argument(
        "--mqtt",
        metavar="URL",
        help="publish the events and who is there, also for Home Assistant (mqtt://HOST)",
    )
    parser.add_argument(
        "--event-crops",
        action="store_true",
        help="put the face into events, as a JPEG in base64",
    )


def add_keep_unknown_option(parser: argparse._ActionsContainer, more: str = "") -> None:
    """Add ``--keep-unknown``; ``more`` is said of its default."""
    parser.add_argument(
        "--keep-unknown",
        type=days,
        metavar="DAYS",
        help="know strangers again, as unknown-7, for so many days after they were last seen, also "
        f"before other cameras: a gallery database keeps their faces (default: 3{more})",
    )


def check_event_file(options: argparse.Namespace, inputs: Sequence[str] = ()) -> None:
    """Refuse a file of events that is a file of another kind, which appending would spoil.

    With ``--overwrite`` that file is removed.

    Raises:
        InputError: There is a file that may not be replaced.
    """
    if options.events in (None, "-"):
        return
    overwrite = getattr(options, "overwrite", False)
    path = check_output(options.events, "event file", inputs=inputs, overwrite=overwrite)
    if overwrite and path.is_file() and not is_ours(path, "event file"):
        path.unlink()


def add_attributes_option(parser: argparse._ActionsContainer, where: str = "") -> None:
    """Add ``--attributes``; ``where`` else they are told."""
    parser.add_argument(
        "--attributes",
        action="store_true",
        help=f"tell age, gender and expression, in the picture and in the events{where}",
    )


def add_threshold_option(parser: argparse._ActionsContainer) -> None:
    """Add ``--threshold``."""
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="cosine similarity from which two faces count as one person",
    )


def add_work_options(parser: argparse._ActionsContainer) -> None:
    """Add ``--workers``, ``--batch-size`` and ``--restart``, for commands that can resume."""
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="processes that read photos and find faces (default: one a core, for few photos none)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="faces that go through the encoder together (default: 32)",
    )
    parser.add_argument(
        "--restart", action="store_true", help="start over instead of resuming an interrupted run"
    )


@contextmanager
def resumption_notice() -> Iterator[None]:
    """Say at Ctrl-C that the same command resumes the run."""
    try:
        yield
    except KeyboardInterrupt:
        print("face-encode: the same command goes on from here", file=sys.stderr)
        raise


def positive(text: str, least: int = 1) -> int:
    """Parse a whole number of at least ``least``."""
    with suppress(ValueError):
        number = int(text)
        if number >= least:
            return number
    raise argparse.ArgumentTypeError(f"a whole number, at least {least}, not {text!r}")


def days(text: str) -> float:
    """Parse a number of days, 0 or more."""
    from face_encode.gallery.unknown import MAX_DAYS, check_keep_days

    with suppress(ValueError, InputError):
        return check_keep_days(float(text))
    raise argparse.ArgumentTypeError(f"a number of days within 0..{MAX_DAYS}, not {text!r}")


def print_json(value: Any) -> None:
    """Print JSON, with letters of any script unescaped where the output can show them."""
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    print(json.dumps(value, indent=2, ensure_ascii=ascii_only))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: as wide as the terminal, or with whole lines into a pipe."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=SIMPLE_HEAD)
    for row in rows:
        # Text, because a name with square brackets in it is no markup.
        table.add_row(*(Text(printable(cell)) for cell in row))
    wide = None if sys.stdout.isatty() else 400
    Console(width=wide, soft_wrap=False).print(table)


def add_model_options(
    parser: argparse.ArgumentParser, *, threshold: bool = True, workers: bool = False
) -> None:
    """Add ``--model``, ``--encoder-engine`` and ``--detector``, and the options asked for."""
    group = parser.add_argument_group("model")
    add_encoder_option(group)
    add_detector_option(group)
    add_min_face_option(group)
    if threshold:
        add_threshold_option(group)
    if workers:
        group.add_argument(
            "--workers",
            type=positive,
            metavar="N",
            help="processes that read photos and find faces",
        )


def add_people(model: Face_Encode_Model, people: str, *, approximate: bool = False) -> None:
    """Enrol a folder of people, or open a gallery; print the photos that were left out.

    Args:
        model: Its gallery is replaced.
        people: A folder with a sub-folder a person, or a gallery: a ``.sqlite`` or ``.npz`` file,
            or one in Milvus.
        approximate: Whether to search a gallery's file by an approximate index.

    Raises:
        InputError: An approximate index of a folder.
    """
    from face_encode.gallery.opening import names_gallery

    if names_gallery(people):
        model.load_gallery(people, approximate=approximate)
        return
    if approximate:
        raise InputError(f"an approximate index is of a gallery's file. Received: {people}")
    for item in model.fit_dataset(people).left_out:
        row = printable(f"{item.photo}: {item.reason}")
        print(f"face-encode: left out: {row}", file=sys.stderr)


def open_detector(options: argparse.Namespace) -> Detector:
    """Open the detector that the options name, or that of a named choice of encoder."""
    from face_encode.detectors.registry import load_detector
    from face_encode.encoders.registry import detector_for

    detector = detector_for(getattr(options, "model", None), options.detector)
    return load_detector(detector, min_face=getattr(options, "min_face", None))


def open_model(options: argparse.Namespace) -> Face_Encode_Model:
    """Open the model that the options describe."""
    from face_encode.model import Face_Encode_Model

    threshold = getattr(options, "threshold", None)
    return Face_Encode_Model(
        options.model, open_detector(options), threshold, engine=options.encoder_engine
    )


def rate(text: str) -> float:
    """Parse a number between 0 and 1, both excluded."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"a number between 0 and 1, not {text!r}")
    return number


def open_models(options: argparse.Namespace) -> tuple[Detector, Encoder]:
    """Open the detector and the encoder that the options name."""
    from face_encode.encoders.registry import load_encoder

    encoder = load_encoder(options.model, engine=options.encoder_engine)
    return open_detector(options), encoder


def print_lines(title: str, lines: Sequence[str]) -> None:
    """Print the first rows of a list, under a title."""
    if not lines:
        return
    print(f"\n{title}")
    for line in lines[:ROWS_SHOWN]:
        print(f"  {printable(line)}")
    if len(lines) > ROWS_SHOWN:
        print(f"  … and {len(lines) - ROWS_SHOWN} more (--json tells all)")


def percent(share: float) -> str:
    """Format a share as percent."""
    return f"{100 * share:.2f} %"


def print_folder_report(
    report: EmbeddingReport, options: argparse.Namespace, written: str, elsewhere: str
) -> None:
    """Print what became of a folder's photos: as JSON where asked for, else the first rows.

    Args:
        report: The report.
        options: With ``json`` and ``output``.
        written: What the output is, in a word.
        elsewhere: Where all photos that were left out are told.
    """
    if options.json:
        left_out = [{"photo": photo, "reason": reason} for photo, reason in report.left_out]
        counts = {"photos": report.photos, "faces": report.faces, "resumed": report.resumed}
        told = {"left_out": left_out, "notes": list(report.notes)}
        print_json({**counts, **told, "output": options.output})
        return
    print_safely(report)
    for photo, reason in report.left_out[:ROWS_SHOWN]:
        print(printable(f"  left out: {photo}: {reason}"))
    if len(report.left_out) > ROWS_SHOWN:
        print(f"  … and {len(report.left_out) - ROWS_SHOWN:,} more ({elsewhere})")
    for note in report.notes[:ROWS_SHOWN]:
        print(printable(f"  note: {note}"))
    if len(report.notes) > ROWS_SHOWN:
        print(f"  … and {len(report.notes) - ROWS_SHOWN:,} notes more (--json tells all)")
    print_safely(f"{written}: {options.output}")


def write_annotated(
    results: Sequence[dict[str, Any]],
    folder: str,
    marks: Callable[[list[dict[str, Any]]], Marks],
    *,
    overwrite: bool,
) -> None:
    """Write photos with their faces drawn.

    Photos of the same name are numbered, also where a file of that name was not drawn here.

    Args:
        results: ``photo``, ``faces`` and ``error`` of each; one with an error is passed over.
        folder: Where to; made where it is missing.
        marks: From a photo's faces to what ``draw_boxes`` draws of them. A label that no font here
            can draw is told on standard error, by the number that stands for it in the picture.
        overwrite: Whether files that were not drawn here may be replaced.

    Raises:
        ImageError: The folder cannot be written to.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from face_encode.files import make_private_folder, replacing
    from face_encode.photos.drawing import draw_boxes, drawn_labels
    from face_encode.photos.reading import read_image

    def may_write(target: Path) -> bool:
        with suppress(InputError):
            return bool(check_output(target, "picture", overwrite=overwrite))
        return False

    try:
        make_private_folder(Path(folder))
        # Whatever the folder, a photo is never overwritten with its own drawing.
        taken = {os.path.realpath(result["photo"]) for result in results}
        for result in results:
            if result["error"] is not None:
                continue
            stem, number = Path(result["photo"]).stem, 1
            target = Path(folder, f"{stem}.png")
            while os.path.realpath(target) in taken or not may_write(target):
                number += 1
                target = Path(folder, f"{stem}-{number}.png")
            taken.add(os.path.realpath(target))
            boxes, labels, colours = marks(result["faces"])
            drawn = draw_boxes(read_image(result["photo"]), boxes, labels, colours)
            for sign, label in drawn_labels(labels)[1].items():
                print(printable(f"{target}: {sign} is {label}"), file=sys.stderr)
            mark = PngInfo()
            mark.add_text("Software", SOFTWARE)
            with replacing(target, ImageError) as temporary:
                Image.fromarray(drawn).save(temporary, pnginfo=mark)
    except OSError as error:
        raise ImageError(f"cannot write to {folder}: {error.strerror or error}") from error
