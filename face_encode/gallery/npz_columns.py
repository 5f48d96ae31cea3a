"""The people of a gallery as the arrays of its ``.npz`` file, and back, checked.

Version 1 of the file holds float32 embeddings that are searched by cosine, and a name a row.
Version 2 may hold int8 ones with their ``centre``, or another metric. Version 3 holds each name
once, and what would have to be calculated from all rows before a search.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.files import Arrays
from face_encode.gallery.checking import check_embeddings, check_labels, check_shape
from face_encode.gallery.codes import Coded, farthest
from face_encode.gallery.digests import DigestColumn, pack_digests
from face_encode.gallery.enrolled import Enrolled
from face_encode.gallery.names import check_names
from face_encode.quantization import Quantizer

VERSION = 3
_ANCESTRAL = 2

REQUIRED_COLUMNS: dict[str, tuple[str, int]] = {"embeddings": ("fi", 2)}
"""The arrays that people always take; see ``ArchiveForm``."""

OPTIONAL_COLUMNS: dict[str, tuple[str, int]] = {
    # Of int8, and of an index.
    "centre": ("f", 1),
    "reach": ("f", 0),
    "index_codes": ("i", 2),
    "index_steps": ("f", 1),
    "blur": ("f", 0),
    # Up to version 2 names, since then people, in UTF-8 and a line each, and owners.
    "names": ("U", 1),
    "people": ("u", 1),
    "owners": ("i", 1),
    "scales": ("f", 1),
    # One of these two.
    "digests": ("U", 1),
    "packed_digests": ("u", 2),
}
"""Those that they take too, by the version of the file and by what is kept."""

LONG_COLUMNS = (
    "embeddings",
    "scales",
    "owners",
    "packed_digests",
    "index_codes",
    "index_steps",
)
"""Those of numbers that are as long as the gallery: where it is large, they are mapped."""


def arrays_of(enrolled: Enrolled) -> Arrays:
    """The arrays of the newest version that people are written as."""
    arrays: Arrays = {
        "people": np.frombuffer("\n".join(enrolled.people).encode(), np.uint8),
        "owners": enrolled.owners,
        "packed_digests" if enrolled.digests.ndim == 2 else "digests": enrolled.digests,
        "scales": enrolled.scales,
        "embeddings": enrolled.rows,
    }
    if enrolled.quantizer is not None:
        arrays["centre"] = enrolled.quantizer.centre
        arrays["reach"] = np.array(enrolled.reach)
    if (index := enrolled.index) is not None:
        arrays["centre"] = index.quantizer.centre
        arrays["reach"] = np.array(index.reach)
        arrays["blur"] = np.array(index.blur)
        arrays["index_steps"] = index.steps
        arrays["index_codes"] = index.codes
    return arrays


def enrolled_of(stored: Arrays) -> Enrolled:
    """The people that the arrays of a file, of any version, stand for.

    Raises:
        InputError: An array is missing, or they do not fit together.
    """
    is_old = int(stored["format_version"]) <= _ANCESTRAL
    return _old_enrolled(stored) if is_old else _enrolled(stored)


def _old_enrolled(stored: Arrays) -> Enrolled:
    """The people of versions 1 and 2: a name and a digest a row, and nothing prepared."""
    rows, names = stored["embeddings"], _present(stored, "names").tolist()
    digests = _present(stored, "digests").tolist()
    digests = check_labels(names, digests)
    size = rows.shape[1]
    if rows.dtype.kind == "f":
        return Enrolled.nobody(size).joined(names, check_embeddings(rows, names, size), digests)
    check_shape(rows.shape, names, size)
    quantizer = _quantizer(stored, rows)
    if quantizer is None:
        return Enrolled.nobody(rows.shape[1], int8=True)
    place_of: dict[str, int] = {}
    owners = [place_of.setdefault(name, len(place_of)) for name in names]
    steps = quantizer.steps(rows)
    return Enrolled(
        rows,
        steps,
        np.array(owners, np.int32),
        tuple(place_of),
        pack_digests(digests),
        quantizer,
        farthest(rows, steps),
    )


def _enrolled(stored: Arrays) -> Enrolled:
    """The people of version 3; the rows themselves are not looked at."""
    rows, scales, owners = (_present(stored, name) for name in ("embeddings", "scales", "owners"))
    digests: DigestColumn | None = stored.get("packed_digests", stored.get("digests"))
    if digests is None:
        raise InputError("it holds no array 'digests'")
    if not len(rows) == len(scales) == len(owners) == len(digests):
        raise InputError(
            "embeddings, scales, owners and digests are as many. "
            f"Received: {len(rows)}, {len(scales)}, {len(owners)} and {len(digests)}"
        )
    people = _people(_present(stored, "people"))
    quantizer = _quantizer(stored, rows) if rows.dtype.kind == "i" else None
    _check_scales(scales, may_be_zero=quantizer is not None)
    if rows.flags.writeable:
        # What is mapped is not read beforehand; a search tells of it.
        scales_of = _lengths if quantizer is None else quantizer.steps
        expected = scales_of(rows)
        _check_scales(expected, may_be_zero=quantizer is not None)
        if not np.allclose(expected, scales, rtol=1e-5, atol=0):
            raise InputError("an embedding is as long as its scale says; at least one is not")
    if len(rows) and not 0 <= int(owners.min()) <= int(owners.max()) < len(people):
        raise InputError(f"an embedding is somebody's of {len(people)} people; one is not")
    reach = _within_2(stored, "reach") if quantizer is not None else 0.0
    enrolled = Enrolled(
        rows if rows.dtype.kind == "i" else np.asarray(rows, np.float32),
        np.asarray(scales, np.float32),
        np.asarray(owners, np.int32),
        people,
        digests,
        quantizer,
        reach,
        _index(stored, rows) if "index_codes" in stored else None,
    )
    if not enrolled.counts.all():
        raise InputError("each person has at least one embedding; at least one has none")
    return enrolled


def _lengths(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The lengths of float32 embeddings."""
    # What float32 cannot hold becomes infinite, and is refused as that.
    with np.errstate(over="ignore"):
        return np.asarray(np.linalg.norm(np.asarray(rows, np.float32), axis=1))


def _check_scales(scales: npt.NDArray[Any], *, may_be_zero: bool) -> None:
    """Refuse scales that no embeddings have."""
    least = 0 if may_be_zero else np.finfo(np.float32).smallest_subnormal
    if not (np.isfinite(scales).all() and (scales >= least).all()):
        raise InputError("an embedding is finite and not all zeros; at least one is not")


def _index(stored: Arrays, rows: npt.NDArray[Any]) -> Coded:
    """The codes of float32 rows."""
    codes, steps = stored["index_codes"], _present(stored, "index_steps")
    quantizer = _quantizer(stored, codes)
    if quantizer is None or codes.shape != rows.shape or len(steps) != len(rows):
        raise InputError(
            f"an index has as many codes as there are embeddings, {rows.shape}. "
            f"Received: {codes.shape} and {len(steps)} steps"
        )
    if not (np.isfinite(steps).all() and (steps >= 0).all()):
        raise InputError("the steps of an index are finite and not negative; at least one is")
    reach, blur = _within_2(stored, "reach"), _within_2(stored, "blur")
    return Coded(codes, np.asarray(steps, np.float32), quantizer, reach, blur)


def _within_2(stored: Arrays, name: str) -> float:
    """A distance of vectors of length 1 at the most."""
    value = float(_present(stored, name))
    if not 0 <= value <= 2:
        raise InputError(f"{name!r} lies within 0..2. Received: {value}")
    return value


def _present(stored: Arrays, name: str) -> npt.NDArray[Any]:
    """An array that this version of file holds."""
    if name not in stored:
        raise InputError(f"it holds no array {name!r}")
    return stored[name]


def _people(lines: npt.NDArray[Any]) -> tuple[str, ...]:
    """The names in their bytes, a line each."""
    try:
        text = lines.astype(np.uint8).tobytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the names are not UTF-8: {error}") from error
    people = tuple(text.split("\n")) if text else ()
    check_names(people)
    if len(set(people)) != len(people):
        raise InputError("each person is listed once; somebody is listed twice")
    return people


def _quantizer(stored: Arrays, codes: npt.NDArray[Any]) -> Quantizer | None:
    """What the codes stand for; None where there are none and no centre."""
    if codes.dtype != np.int8:
        raise InputError(f"whole numbers as embeddings are int8. Received: {codes.dtype}")
    centre = stored.get("centre")
    if len(codes) and (centre is None or centre.shape != codes.shape[1:]):
        received = "none" if centre is None else f"shape {centre.shape}"
        raise InputError(
            f"int8 embeddings have a 'centre' of shape {codes.shape[1:]}. Received: {received}"
        )
    return None if centre is None else Quantizer(np.asarray(centre, np.float32))
