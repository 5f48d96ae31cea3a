"""Augmented views with the teacher's answers, made once and kept on disk.

A teacher that is many times larger than its student would otherwise take most of the time of each
training step. Here it is asked once about each view, and the student sees the views as often as
there is time for. Views are made in rounds, one view of each photo a round; an interrupted run
goes on behind its last whole round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import numpy.typing as npt

from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError, ModelFileError
from face_encode.files import replacing
from face_encode.terminal import tracked
from face_encode.training.augmentation import Augmentation
from face_encode.types import Embeddings, ImageArray

_CHUNK = 256
_LIGHT = 0.1


@dataclass(frozen=True, eq=False)
class Views:
    """Views of photos, and what the teacher says of them.

    Attributes:
        pixels: One array a round, uint8 ``(N, side, side, 3)``; memory-mapped, read-only.
        answers: One array a round, float32 ``(N, D)``: the teacher's embeddings, as its contract
            says they are computed.
    """

    pixels: tuple[ImageArray, ...]
    answers: tuple[Embeddings, ...]

    def prepared(self, side: int, share: float = 1.0) -> ImageArray:
        """All rounds' pixels as a student of a given size sees them, one behind the other.

        Args:
            side: Rows and columns of the student's input.
            share: How much of the view's side the student sees, about the middle, within 0..1.

        Returns:
            uint8 ``(rounds * N, s, s, 3)``, s being the side and room to move on all sides, as
            :func:`jittered` takes it.
        """
        with_room = side + 2 * room_of(side)
        share = min(1.0, share * with_room / side)
        return np.concatenate([middle_of(pixels, with_room, share) for pixels in self.pixels])


def make_views(
    crops: ImageArray,
    teacher: Encoder,
    folder: Path,
    *,
    rounds: int,
    side: int,
    augmentation: Augmentation | None = None,
    mixup: float = 0.4,
    seed: int = 0,
    fast: bool = False,
    progress: bool = True,
) -> Views:
    """Make views and ask the teacher about them, or take them from an earlier run.

    Args:
        crops: uint8 ``(N, height, width, 3)`` of the teacher's size; may be memory-mapped.
        teacher: Is asked about each view at its own size.
        folder: Where rounds lie; a folder of its own for everything that they depend on.
        rounds: Views of each photo.
        side: Rows and columns that the views are kept at.
        augmentation: How views differ from the crops.
        mixup: Share of views that are mixed with another photo's (mixup, Zhang et al., 2018). The
            teacher is asked about the mixture, so there is no target to be mixed.
        seed: The same seed gives the same views.
        fast: Whether the teacher may answer in bfloat16 where that is faster.
        progress: Whether to show a progress bar.

    Raises:
        InputError: No photo or no round.
        ModelFileError: The views cannot be written or read.
    """
    if len(crops) < 1 or rounds < 1:
        raise InputError(
            f"views are made of at least 1 photo in at least 1 round. "
            f"Received: {len(crops)} photos, {rounds} rounds"
        )
    augment = augmentation or Augmentation()
    ask = Encoder(teacher.model, teacher.contract).encode
    for number in range(rounds):
        if _path(folder, "answers", number).is_file():
            continue
        draw = _Draw(augment, mixup, (seed, number))
        starts = range(0, len(crops), _CHUNK)
        shown = tracked(
            starts, len(starts), f"views, round {number + 1} of {rounds}", show=progress
        )
        pixels = np.empty((len(crops), side, side, 3), np.uint8)
        answers = np.empty((len(crops), teacher.embedding_size), np.float32)
        for start in shown:
            part = slice(start, start + _CHUNK)
            seen = draw(np.asarray(crops[part]), start)
            with _bfloat16_graphs() if fast else nullcontext():
                answers[part] = ask(seen)
            pixels[part] = middle_of(seen, side)
        # The answers last: where they lie, the round is whole.
        for kind, array in (("pixels", pixels), ("answers", answers)):
            with replacing(_path(folder, kind, number), ModelFileError) as temporary:
                np.save(temporary, array, allow_pickle=False)
    return Views(
        tuple(_load(_path(folder, "pixels", number)) for number in range(rounds)),
        tuple(np.array(_load(_path(folder, "answers", number))) for number in range(rounds)),
    )


def middle_of(images: ImageArray, side: int, share: float = 1.0) -> ImageArray:
    """The middle of square images, resized; areas are averaged on the way down.

    Args:
        images: uint8 ``(N, s, s, 3)``.
        side: Rows and columns of the result.
        share: How much of the side is kept, above 0 and at most 1; rounded to whole pixels.

    Raises:
        InputError: The share is out of its range.
    """
    if not 0 < share <= 1:
        raise InputError(f"the share of the side lies above 0, up to 1. Received: {share}")
    whole = images.shape[1]
    margin = round(whole * (1 - share) / 2)
    inside = slice(margin, whole - margin)
    method = cv2.INTER_AREA if side < whole - 2 * margin else cv2.INTER_LINEAR
    result = np.empty((len(images), side, side, 3), np.uint8)
    for image, target in zip(images, result, strict=True):
        target[:] = cv2.resize(image[inside, inside], (side, side), interpolation=method)
    return result


def jittered(images: ImageArray, seed: int) -> npt.NDArray[np.float32]:
    """Look at each image again a little differently, in ways that a teacher hardly minds.

    It saves asking the teacher again: every look at a view is a new one to the student. One image
    in two is mirrored, each is moved by up to :func:`room_of` its side in pixels, and its light and
    contrast are changed by up to a tenth.

    Args:
        images: uint8 ``(N, side + 2 * room, side + 2 * room, 3)``.
        seed: The same seed gives the same looks.

    Returns:
        float32 ``(N, side, side, 3)``, about 0..255.
    """
    random = np.random.default_rng(seed)
    count, whole = images.shape[:2]
    room = next(room for room in range(whole) if room_of(whole - 2 * room) == room)
    places = np.arange(whole - 2 * room)
    rows = random.integers(0, 2 * room + 1, (count, 1)) + places
    columns = random.integers(0, 2 * room + 1, (count, 1)) + places
    mirrored = random.random(count) < 0.5
    columns[mirrored] = columns[mirrored][:, ::-1]
    seen = images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    gain = random.uniform(1 - _LIGHT, 1 + _LIGHT, (count, 1, 1, 1)).astype(np.float32)
    lift = random.uniform(-_LIGHT, _LIGHT, (count, 1, 1, 1)).astype(np.float32) * 127.5
    result: npt.NDArray[np.float32] = (seen.astype(np.float32) - 127.5) * gain + 127.5 + lift
    return result


def room_of(side: int) -> int:
    """By how many pixels an image of that side may be moved to look at it again."""
    return side // 32


@contextmanager
def _bfloat16_graphs() -> Iterator[None]:
    """Let TensorFlow's graphs that are first run in here compute in bfloat16 on a CPU."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    rewrite = "auto_mixed_precision_onednn_bfloat16"
    former = tf.config.optimizer.get_experimental_options().get(rewrite, False)
    tf.config.optimizer.set_experimental_options({rewrite: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({rewrite: former})


@dataclass(frozen=True)
class _Draw:
    """Draws the views of a round, chunk by chunk; each chunk by its own seed."""

    augment: Callable[[Any, int], Any]
    mixup: float
    seed: tuple[int, int]

    def __call__(self, crops: ImageArray, start: int) -> ImageArray:
        random = np.random.default_rng([*self.seed, start])
        pixels = self.augment(crops, int(random.integers(2**31)))
        views: npt.NDArray[np.float32] = keras.ops.convert_to_numpy(pixels)
        share = np.where(random.random(len(views)) < self.mixup, random.random(len(views)) / 2, 0)
        share = share[:, None, None, None].astype(np.float32)
        # Drawn from the whole chunk, or a person's neighbour in the folder would be all one meets.
        partner = random.permutation(len(views))
        mixed = views * (1 - share) + views[partner] * share
        rounded: ImageArray = mixed.round().clip(0, 255).astype(np.uint8)
        return rounded


def _path(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:03d}.npy"


def _load(path: Path) -> npt.NDArray[Any]:
    try:
        loaded: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelFileError(
            f"the views are damaged; delete {path.parent} and run again ({error})"
        ) from error
    return loaded
