"""``face-encode match``, names for the faces in photos, and ``face-encode verify``."""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Sequence
from typing import Any

from face_encode.cli.options import (
    add_json_option,
    add_liveness_option,
    add_model_options,
    add_people,
    open_model,
    positive,
    print_json,
    print_notes,
    print_table,
    write_annotated,
)
from face_encode.errors import GalleryError, ImageError
from face_encode.outputs import add_overwrite_option
from face_encode.terminal import printable


def add_match_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = "Name the faces in photos by the people of a folder or a gallery."
    parser.add_argument("people", metavar="PEOPLE", help="a folder of people, or a gallery")
    parser.add_argument(
        "photos",
        metavar="PHOTO",
        nargs="+",
        help="photos to name the faces of: files, folders, or patterns",
    )
    parser.add_argument(
        "--max-faces",
        type=positive,
        metavar="N",
        help="name the N largest faces of each photo only (default: all)",
    )
    parser.add_argument(
        "--approximate",
        action="store_true",
        help="search a gallery file by an approximate index beside it, built where none fits",
    )
    parser.add_argument(
        "--annotate", metavar="OUT_DIR", help="write the photos there, with boxes and names drawn"
    )
    add_liveness_option(parser)
    add_overwrite_option(parser)
    add_json_option(parser)
    add_model_options(parser)


def run_match(options: argparse.Namespace) -> int:
    """Match, draw where asked to, and print."""
    from face_encode.detectors.base import notes_on
    from face_encode.photos.drawing import labelled_boxes
    from face_encode.pipeline.embedding import NO_FACE, embed_photos
    from face_encode.terminal import with_progress

    model = open_model(options)
    add_people(model, options.people, approximate=options.approximate)
    photos = _photos_of(options.photos)
    embedded = embed_photos(
        photos,
        model.detector,
        model.encoder,
        max_faces=options.max_faces,
        judge=model.liveness_judge if options.liveness else None,
    )
    results: list[dict[str, Any]] = []
    for photo in with_progress(embedded, len(photos), "Matching"):
        found = model.gallery.search(photo.embeddings)
        if not all(found):
            raise GalleryError("nobody is enrolled in this gallery")
        faces = [
            model.describe(matches[0], face)
            for matches, face in zip(found, photo.faces, strict=False)
        ]
        # A photo without a face is a fine photo: it has an empty list, not an error.
        error = None if photo.error == NO_FACE else photo.error
        notes = [*photo.notes, *notes_on(model.detector, *photo.size)]
        results.append({"photo": photo.photo, "faces": faces, "error": error, "notes": notes})
    if options.annotate is not None:
        write_annotated(results, options.annotate, labelled_boxes, overwrite=options.overwrite)
    if options.json:
        print_json(results)
    else:
        _print_matches(results)
    # A broken photo among others is a row; only where there is nothing but those has the
    # command failed.
    if all(result["error"] is not None for result in results):
        raise ImageError(f"none of the {len(results)} photos can be read")
    return 0


def _photos_of(words: Sequence[str]) -> list[str]:
    """The photos that words stand for: files, all in a folder and below it, or a pattern's files.

    A word that stands for nothing stays, and becomes a row with the reason.
    """
    from face_encode.photos.folders import is_photo, photos_below

    photos: list[str] = []
    for word in words:
        found = [word]
        if os.path.isdir(word):
            inside, unlisted = photos_below(word)
            # Folders that cannot be listed become rows with the reason, too.
            names = [*inside, *(name for name, _ in unlisted)]
            found = [os.path.join(word, name) for name in names]
        elif not os.path.lexists(word) and glob.has_magic(word):
            matching = sorted(glob.glob(word, recursive=True))
            found = [path for path in matching if not os.path.isdir(path) and is_photo(path)]
        photos += found or [word]
    return photos


def _print_matches(results: Sequence[dict[str, Any]]) -> None:
    """Print a row for each face, and one for each photo without a face."""
    rows = []
    for result in results:
        for face in result["faces"]:
            box = face["bounding_box"]
            rows.append(
                [
                    result["photo"],
                    _shown_name(face),
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
    print_table(header, rows)
    print_notes(results)


def _shown_name(face: dict[str, Any]) -> str:
    """The name of a face, or why it has none."""
    if reason := face.get("quality_reason"):
        return f"unknown ({reason}, quality {face['quality']:.2f})"
    if not face.get("is_live", True):
        return f"unknown (not live, liveness {face['liveness']:.2f})"
    return face["name"] if face["is_match"] else f"unknown (nearest: {face['name']})"


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = "Compare the faces of two photos: is somebody on both?"
    parser.add_argument("photo_a", metavar="PHOTO_A")
    parser.add_argument("photo_b", metavar="PHOTO_B")
    add_liveness_option(parser)
    add_json_option(parser)
    add_model_options(parser)


def run_verify(options: argparse.Namespace) -> int:
    """Compare, and print the verdict."""
    from face_encode.model import both_judged, compared_faces, nearest_faces
    from face_encode.pipeline.embedding import embed_photos

    model = open_model(options)
    photos = [options.photo_a, options.photo_b]
    judge = model.liveness_judge if options.liveness else None
    pair = list(embed_photos(photos, model.detector, model.encoder, max_faces=None, judge=judge))
    for photo in pair:
        if photo.error is not None:
            raise ImageError(f"{photo.photo}: {photo.error}")
    first, second = pair
    numbers = nearest_faces((first.embeddings, second.embeddings), (first.faces, second.faces))
    similarity, is_match = model.compare_encodings(
        first.embeddings[numbers[0]], second.embeddings[numbers[1]]
    )
    faces = [photo.faces[number] for photo, number in zip(pair, numbers, strict=True)]
    refusals = [
        f"{photo.photo}: {face.refusal}"
        for photo, face in zip(pair, faces, strict=True)
        if face.refusal
    ]
    is_match = is_match and not refusals
    if options.json:
        print_json(
            {
                "photo_a": options.photo_a,
                "photo_b": options.photo_b,
                "similarity": similarity,
                "is_match": is_match,
                "threshold": model.threshold,
                **compared_faces(numbers, (len(first.faces), len(second.faces))),
                **both_judged(faces),
            }
        )
    else:
        verdict = "the same person" if is_match else "different people"
        if refusals:
            verdict = f"cannot be told ({'; '.join(refusals)})"
        print(printable(f"{verdict}: similarity {similarity:.3f}, threshold {model.threshold:.3f}"))
        for photo, number in zip(pair, numbers, strict=True):
            if len(photo.faces) > 1:
                box = photo.faces[number].box
                print(
                    printable(
                        f"{photo.photo}: face {number + 1} of {len(photo.faces)} is the nearest, "
                        f"at {box.left},{box.top} {box.width}x{box.height}"
                    )
                )
    return 0
