"""What every gallery asks of embeddings, names and probes, wherever it keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.distances import Metric
from face_encode.errors import GalleryError, InputError
from face_encode.gallery.names import check_names
from face_encode.types import Embeddings


def check_embeddings(embeddings: Any, names: Sequence[str], size: int) -> Embeddings:
    """Embeddings that are to be enrolled, as float32 ``(n, D)``.

    Args:
        embeddings: Of n people.
        names: n names.
        size: D.

    Raises:
        InputError: Another number or length of embeddings, or one that is not finite or is all
            zeros.
    """
    added = _float32(embeddings)
    check_shape(added.shape, names, size)
    lengths = np.linalg.norm(added, axis=1)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise InputError("an embedding is finite and not all zeros; at least one is not")
    return added


def check_undamaged(values: npt.NDArray[np.floating]) -> None:
    """Refuse what only damaged embeddings give: a file that is mapped is not read beforehand.

    Args:
        values: Embeddings that are enrolled, or similarities to them.

    Raises:
        GalleryError: A value is not finite.
    """
    if not np.isfinite(values).all():
        raise GalleryError("the gallery is damaged: an embedding in it is not finite")


def check_shape(shape: tuple[int, ...], names: Sequence[str], size: int) -> None:
    """Refuse embeddings of another number than of names, or of another length than ``size``.

    Raises:
        InputError: Such ones.
    """
    if shape != (len(names), size):
        raise InputError(
            f"{len(names)} names take embeddings of shape ({len(names)}, {size}). "
            f"Received: shape {shape}"
        )


def check_labels(names: Sequence[str], digests: Sequence[str] | None) -> Sequence[str]:
    """The digests of photos, one for each of the names; empty ones where there are none.

    Raises:
        InputError: A name that is none, or another number of digests.
    """
    check_names(names)
    digests = [""] * len(names) if digests is None else digests
    if len(digests) != len(names):
        raise InputError(f"{len(names)} names take as many digests. Received: {len(digests)}")
    return digests


def check_probes(embeddings: Any, size: int) -> Embeddings:
    """Embeddings that are searched for, as float32 ``(m, D)``, D being ``size``.

    Raises:
        InputError: Another length of embedding, or one that is not finite.
    """
    probes = _float32(embeddings)
    if probes.ndim != 2 or probes.shape[1] != size:
        raise InputError(
            f"this gallery takes embeddings of shape (m, {size}). Received: shape {probes.shape}"
        )
    if not np.isfinite(probes).all():
        raise InputError("an embedding is finite; at least one is not")
    return probes


def check_cosine(metric: Metric, what: str) -> None:
    """Refuse what knows directions only where a search looks at lengths.

    Args:
        metric: The gallery's.
        what: What that is, and what it does with directions, in two words.

    Raises:
        InputError: A search by Euclidean distance.
    """
    if metric != "cosine":
        raise InputError(
            f"{what} the direction of an embedding only, which is enough for the metric "
            f"'cosine'. Received: a gallery of the metric {metric!r}"
        )


def _float32(embeddings: Any) -> Embeddings:
    """Embeddings as float32."""
    try:
        # What float32 cannot hold becomes infinite, and is refused as that.
        with np.errstate(over="ignore"):
            return np.asarray(embeddings, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"embeddings are an array of numbers: {error}") from error
