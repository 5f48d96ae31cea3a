"""What others say about the photos to train on: other networks' embeddings, or people's votes.

Labels are coarse, some are wrong, and many are missing. A head is fitted from the hints to the
labels, four times, each time without a quarter of the photos; what it says about these, which it
has not seen, is learnt beside their labels, or instead of them. That is distillation (Hinton and
others, "Distilling the Knowledge in a Neural Network", 2015, https://arxiv.org/abs/1503.02531)
from a teacher that cannot know a wrong label by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from face_encode.errors import EmbeddingFileError
from face_encode.files import open_regular
from face_encode.pipeline.embedding_file import read_embeddings


class Hints(NamedTuple):
    """What a file says about photos.

    Attributes:
        file: The file.
        digests: The SHA-256 of the photos' files, ``(M,)``.
        numbers: What is said about each, float32 ``(M, H)``.
    """

    file: Path
    digests: npt.NDArray[np.str_]
    numbers: npt.NDArray[np.float32]


_FOLDS, _EPOCHS, _BATCH, _RATE, _DECAY = 4, 14, 256, 1e-3, 0.05
_UNITS, _DROPOUT = (384, 192), (0.1, 0.5, 0.3)


def read_hints(file: Path) -> Hints:
    """Read what ``face-encode embed --faces largest`` writes, or an ``.npz`` file made by hand.

    The latter has two arrays: ``digests``, the SHA-256 of each photo's file, and ``embeddings``,
    its numbers, such as people's votes.

    Raises:
        EmbeddingFileError: The file cannot be read, or is of another kind.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    made_by_hand = _read_plain(file) if file.suffix == ".npz" else None
    if made_by_hand is None:
        table = read_embeddings(file)
        digests, numbers = table.digests, table.embeddings
    else:
        digests, numbers = made_by_hand
    is_fitting = digests.ndim == 1 and numbers.ndim == 2 and len(digests) == len(numbers)
    if not is_fitting or not numbers.shape[1] or not np.isfinite(numbers).all():
        raise EmbeddingFileError(
            f"hints are a digest and at least one number a photo, each finite. Received: {file} "
            f"with digests of the shape {digests.shape} and embeddings of the shape {numbers.shape}"
        )
    # Doubles of a photo have the same numbers; several faces of one have not.
    _, first, photo = np.unique(digests, return_index=True, return_inverse=True)
    if not np.allclose(numbers, numbers[first[photo]], atol=1e-3):
        raise EmbeddingFileError(
            "hints are one row a photo, as face-encode embed --faces largest writes them. "
            f"Received: {file}, in which a photo has several that differ"
        )
    return Hints(file, digests, numbers)


def _read_plain(file: Path) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float32]] | None:
    """Digests and numbers of an ``.npz`` file made by hand; None where ``embed`` made it."""
    try:
        with open_regular(file) as opened, np.load(opened, allow_pickle=False) as stored:
            if "format_version" in stored:
                return None
            return stored["digests"], np.asarray(stored["embeddings"], np.float32)
    # numpy raises whatever a damaged file trips over.
    except Exception as error:
        raise EmbeddingFileError(
            f"hints are embeddings as face-encode embed writes them, or an .npz file with the "
            f"arrays digests and embeddings. Received: {file} ({error})"
        ) from error


def hints_about(digests: Sequence[str], told: Hints) -> npt.NDArray[np.float32]:
    """Bring hints into the order of the photos.

    Args:
        digests: Of the photos, ``(N,)``; empty ones are of photos that no hint is wanted about.
        told: Of some photos.

    Returns:
        ``(N, H)``, centred and scaled; NaN where nothing is known.

    Raises:
        EmbeddingFileError: Hints that are about none of the photos.
    """
    rows = {digest: row for row, digest in enumerate(digests) if digest}
    found = np.array([rows.get(str(digest), -1) for digest in told.digests], np.int64)
    known = found >= 0
    if not known.any():
        raise EmbeddingFileError(
            f"hints are about photos to train on. Received: {told.file}, about {len(found)} others"
        )
    hints = np.full((len(digests), told.numbers.shape[1]), np.nan, np.float32)
    hints[found[known]] = told.numbers[known]
    # One scale for all: numbers that hardly differ say little.
    hints -= np.nanmean(hints, axis=0)
    return hints / max(float(np.nanstd(hints)), 1e-6)


def soften(
    targets: npt.NDArray[np.float32],
    several: Sequence[npt.NDArray[np.float32]],
    parts: Sequence[slice],
    loss: Callable[[Any, Any], Any],
    seed: int,
) -> npt.NDArray[np.float32]:
    """Average what is to be learnt with what the hints say.

    Args:
        targets: ``(N, A)``; a part of a row is a distribution, or 0 where its label is unknown.
        several: Hints of ``hints_about``, ``(N, H)`` each. What several say is averaged.
        parts: Where in a row the distributions are.
        loss: Of targets and logits.
        seed: The same seed gives the same result.

    Returns:
        New targets, ``(N, A)``. Without a label, what the hints say counts half.
    """
    import keras

    said, heads = np.zeros_like(targets), np.zeros((len(targets), len(parts)))
    for hints in several:
        known = np.flatnonzero(~np.isnan(hints).any(axis=1))
        folds = np.random.default_rng(seed).integers(0, _FOLDS, len(known))
        for fold in range(_FOLDS):
            learnt, asked = known[folds != fold], known[folds == fold]
            if not len(learnt) or not len(asked):
                continue
            head = _head(hints.shape[1], targets.shape[1], len(learnt), loss, seed)
            head.fit(hints[learnt], targets[learnt], _BATCH, _EPOCHS, verbose=0)
            logits = head.predict(hints[asked], batch_size=4096, verbose=0)
            for index, part in enumerate(parts):
                if targets[learnt, part].any():
                    said[asked, part] += keras.ops.convert_to_numpy(
                        keras.ops.softmax(logits[:, part], axis=-1)
                    )
                    heads[asked, index] += 1
    softened: npt.NDArray[np.float32] = targets.copy()
    for index, part in enumerate(parts):
        told = heads[:, index] > 0
        mean = said[told, part] / heads[told, index, np.newaxis]
        softened[told, part] = (targets[told, part] + mean) / 2
    return softened


def _head(hints: int, answers: int, photos: int, loss: Callable[[Any, Any], Any], seed: int) -> Any:
    """A head to fit."""
    import keras

    from face_encode.training.fitting import without_xla

    keras.utils.set_random_seed(seed)
    tensor = given = keras.Input((hints,))
    for units, dropout in zip(_UNITS, _DROPOUT, strict=False):
        tensor = keras.layers.Dropout(dropout)(tensor)
        tensor = keras.layers.Dense(units, "relu")(tensor)
    tensor = keras.layers.Dropout(_DROPOUT[-1])(tensor)
    head = keras.Model(given, keras.layers.Dense(answers)(tensor))
    steps = _EPOCHS * -(-photos // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_RATE, steps)
    head.compile(keras.optimizers.AdamW(rate, weight_decay=_DECAY), loss, jit_compile=without_xla())
    return head
