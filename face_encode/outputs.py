"""Output files of the commands: the one rule by which a file that exists may be replaced.

A file is replaced only where its content shows that this package wrote it, as the same kind of
file, and where it is no input of the same command. Everything else takes ``--overwrite``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from face_encode.errors import InputError
from face_encode.files import as_path, open_regular

SOFTWARE = "face_encode"
"""What pictures and recordings name as the program that wrote them."""

# One of these is in the first or the last bytes of a file of each kind: there archives list their
# members, and Parquet (key and value with their lengths before them) and SQLite say whose they are.
_MARKS = {
    "file of embeddings": (b"left_out_reasons.npy", b"\x0bface_encode"),
    "gallery": (
        b"encoder_fingerprint.npy",
        b"face_encode people",
        b"CREATE TABLE gallery (key TEXT",
    ),
    "person's archive": (b"person.json",),
    "encoder": (b"face_encode.json", b'"largest_difference_from_keras"'),
    "table of attributes": (b"\x16face_encode_attributes",),
    "network of attributes": (b"face_encode_attributes.json",),
    "quality head": (b"offset.npy",),
    "report": (b'name="generator" content="face_encode"',),
    # A text of PNG, a comment of JPEG, a box of MPEG-4.
    "picture": (b"Software\0face_encode", b"\xff\xfe\x00\x0dface_encode"),
    "recording": (b"freeface_encode",),
    "event file": (
        b'", "event": "started", "time": "',
        b'", "event": "arrived", "id": "',
        b'", "event": "left", "id": "',
    ),
}
# A network of attributes has an encoder's contract inside, too.
_NOT_MARKS = {"encoder": _MARKS["network of attributes"]}
# Files that carry no mark; the JSON beside them does.
_NOTED = (".onnx", ".tflite")
_LOOKED_AT_BYTES = 262_144


def add_overwrite_option(parser: argparse._ActionsContainer) -> None:
    """Add ``--overwrite``."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace also a file that this program did not write, or that is an input",
    )


def check_output(
    path: str | os.PathLike[str],
    kind: str,
    *,
    inputs: Iterable[str | os.PathLike[str]] = (),
    overwrite: bool = False,
) -> Path:
    """Refuse an output that would replace something else, before the work.

    Args:
        path: The file to write.
        kind: What will be written: one of the kinds above.
        inputs: The files that the command reads; names that are no paths are passed over.
        overwrite: Whether the user asked for it.

    Returns:
        The path.

    Raises:
        InputError: There is a file that may not be replaced.
    """
    path = as_path(path)
    # A folder is refused where the file is written; an empty file holds nothing to lose.
    if overwrite or not os.path.lexists(path) or os.path.isdir(path) or is_empty(path):
        return path
    real = os.path.realpath(path)
    if real in {os.path.realpath(each) for each in inputs if "\0" not in os.fspath(each)}:
        raise InputError(
            f"{path} is an input of this command; --overwrite replaces it all the same"
        )
    if not is_ours(path, kind):
        raise InputError(
            f"{path} exists and is no {kind} that face-encode wrote; --overwrite replaces it"
        )
    return path


def is_empty(path: Path) -> bool:
    """Whether a file has no content, or a link leads nowhere."""
    return not os.path.exists(path) or os.path.getsize(path) == 0


def is_ours(path: Path, kind: str) -> bool:
    """Whether a file's content shows that this package wrote it, as this kind of file."""
    if path.suffix in _NOTED:
        path = path.with_name(f"{path.name}.json")
    try:
        with open_regular(path) as file:
            ends = file.read(_LOOKED_AT_BYTES)
            file.seek(max(len(ends), os.fstat(file.fileno()).st_size - _LOOKED_AT_BYTES))
            ends += file.read(_LOOKED_AT_BYTES)
    except OSError:
        return False
    is_other = any(mark in ends for mark in _NOT_MARKS.get(kind, ()))
    return not is_other and any(mark in ends for mark in _MARKS[kind])
