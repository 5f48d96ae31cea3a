"""Folders of photos: those directly in one, those below it, and one sub-folder a person."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from face_encode.errors import DatasetError
from face_encode.files import as_path, reason_of

# HEIC and AVIF are read where Pillow can, and otherwise told rather than passed over: telephones
# write them.
PHOTO_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)


def photos_in(folder: str | os.PathLike[str]) -> list[Path]:
    """The photos directly in a folder, by suffix, sorted by name; hidden files are passed over.

    Raises:
        DatasetError: The folder is missing, is no folder, or cannot be listed.
    """
    return sorted(
        path
        for path in _visible(folder)
        if path.suffix.lower() in PHOTO_SUFFIXES and not os.path.isdir(path)
    )


def photos_below(
    folder: str | os.PathLike[str],
) -> tuple[list[str], list[tuple[str, str]]]:
    """The photos in a folder and all folders below it, by suffix.

    Hidden files and folders are passed over, and links to folders are not followed.

    Returns:
        The photos' paths relative to the folder, with ``/`` between the parts, sorted; and each
        folder below that cannot be listed, with the reason.

    Raises:
        DatasetError: The folder is missing, is no folder, or cannot be listed.
    """
    top = os.fspath(as_path(folder))
    _visible(top)  # told in the same words as for other folders
    photos: list[str] = []
    unlisted: list[tuple[str, str]] = []

    def skip(error: OSError) -> None:
        where = os.path.relpath(error.filename, top).replace(os.sep, "/")
        unlisted.append((where, reason_of(error)))

    for path, folders, files in os.walk(top, onerror=skip):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(path, top).replace(os.sep, "/")
        start = "" if inside == "." else f"{inside}/"
        photos += [
            start + name
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES
        ]
    return sorted(photos), sorted(unlisted)


def people_in(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """The photos of a folder with one sub-folder a person.

    Args:
        folder: Its sub-folders' names are the people's names; files beside them, hidden files
            and files that are no photos by their suffix are passed over.

    Returns:
        Name -> photos, both sorted. A person whose folder holds no photo has an empty list.

    Raises:
        DatasetError: The folder is missing, is no folder, or holds no sub-folder.
    """
    # os.path, because pathlib raises where a link cannot be followed or a folder not be searched.
    folders = [path for path in sorted(_visible(folder)) if os.path.isdir(path)]
    people = {path.name: photos_in(path) for path in folders}
    if not people:
        raise DatasetError(
            f"{folder}: expected one sub-folder a person, with that person's photos in it. "
            "Received: a folder without sub-folders"
        )
    if not any(people.values()):
        raise DatasetError(
            f"{folder}: no photo in any of its {len(people)} sub-folders; photos are files "
            f"ending in {', '.join(sorted(PHOTO_SUFFIXES))}"
        )
    return people


def no_photo_below(folder: object, unlisted: Sequence[tuple[str, str]] = ()) -> DatasetError:
    """What to raise where ``photos_below`` found none, with the folders that hide some.

    Args:
        folder: Where was looked.
        unlisted: Folders that cannot be listed, each with the reason.
    """
    message = f"{folder}: no photo in it or below it"
    if unlisted:
        where, reason = unlisted[0]
        message += f", and of its folders {len(unlisted)} cannot be listed: {where}: {reason}"
        message += ", …" if len(unlisted) > 1 else ""
    return DatasetError(message)


def _visible(folder: str | os.PathLike[str]) -> Iterable[Path]:
    """The entries of a folder that are not hidden."""
    folder = as_path(folder)
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError as error:
        raise DatasetError(f"{folder}: no such folder") from error
    except NotADirectoryError as error:
        raise DatasetError(f"{folder}: a file, not a folder") from error
    except OSError as error:
        raise DatasetError(f"{folder}: {reason_of(error)}") from error
