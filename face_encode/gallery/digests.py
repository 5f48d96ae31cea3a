"""The content digests of the enrolled photos: a column as long as the gallery, kept packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.files import TextArray, text_array

DigestColumn: TypeAlias = npt.NDArray[Any]
"""uint8 ``(n, W)``, the bytes that hexadecimal digests of one length stand for, zeros where a
digest is unknown (W is 0 where all are); or a str array of n, where digests are anything else."""


def pack_digests(digests: Sequence[str]) -> DigestColumn:
    """Take digests into half the bytes that they have as text; unknown ones are empty."""
    texts = text_array(digests)
    known = texts != ""
    width = max(map(len, digests), default=0)
    packed = np.zeros((len(texts), width // 2), np.uint8)
    try:
        # Spaces, which it would pass over, make another length, and that the next line refuses.
        content = bytes.fromhex("".join(digests))
        packed[known] = np.frombuffer(content, np.uint8).reshape(-1, max(1, width // 2))
    except ValueError:
        return texts
    return packed if np.array_equal(digest_texts(packed), texts) else texts


def digest_texts(column: DigestColumn) -> TextArray:
    """The digests as text, str array of n, empty where unknown."""
    if column.ndim == 1:
        return np.asarray(column, np.str_)
    if not column.size:
        return np.full(len(column), "", np.str_)
    digits = np.frombuffer(column.tobytes().hex().encode(), f"S{2 * column.shape[1]}")
    texts = digits.astype(np.str_)
    texts[~column.any(axis=1)] = ""
    return texts


def join_digests(first: DigestColumn, second: DigestColumn) -> DigestColumn:
    """One column of two, packed where both are."""
    if first.ndim == second.ndim == 2:
        width = max(first.shape[1], second.shape[1])
        if {first.shape[1], second.shape[1]} <= {0, width}:
            joined = np.zeros((len(first) + len(second), width), np.uint8)
            joined[: len(first), : first.shape[1]] = first
            joined[len(first) :, : second.shape[1]] = second
            return joined
    return np.concatenate([digest_texts(first), digest_texts(second)])
