"""Augmented views with the teacher's answers, made once and kept on disk.

A teacher that is many times larger than its student would otherwise take most of the time of each
training step. Here it is asked once about each view, and the student sees the views as often as
there is time for. Views are made in rounds, one view of each photo a round; an interrupted run
resumes after its last whole round.
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
from face_encode.terminal import with_progress
from face_encode.training.augmentation import Augmentation
from face_encode.types import Embeddings, ImageArray

_CHUNK = 256
_LIGHT = 0.1


@dataclass(frozen=True, eq=False)
class Views:
    """Views of photos, and the teacher's answers about them.

    Attributes:
        pixels: One array a round, uint8 ``(N, side, side, 3)``; memory-mapped, read-only.
        answers: One array a round, float32 ``(N, D)``: the teacher's embeddings, as its contract
            says they are computed.
    """

    pixels: tuple[ImageArray, ...]
    answers: tuple[Embeddings, ...]

    def for_student(self, side: int, share: float = 1.0) -> ImageArray:
        """The pixels of all rounds as a student sees them, one round after the other.

        Takes the side of the student's input, and the share of the view's side that it sees.
        Gives uint8 ``(rounds * N, s, s, 3)``, s being the side and room to move on all sides, as
        ``jitter`` takes it.
        """
        with_room = side + 2 * room_of(side)
        share = min(1.0, share * with_room / side)
        return np.concatenate([crop_middle(pixels, with_room, share) for pixels in self.pixels])


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
        folder: Where the rounds are kept; one folder for each combination of the other arguments.
        rounds: Views of each photo.
        side: Rows and columns that the views are kept at.
        augmentation: How views differ from the crops.
        mixup: Share of views that are mixed with another photo's (mixup, Zhang et al., 2018). The
            teacher is asked about the mixture, so targets need no mixing.
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
    # An encoder of its own: graphs that ran before stay in float32.
    ask = Encoder(teacher.model, teacher.contract).encode
    for number in range(rounds):
        if _path(folder, "answers", number).is_file():
            continue
        starts = range(0, len(crops), _CHUNK)
        pixels = np.empty((len(crops), side, side, 3), np.uint8)
        answers = np.empty((len(crops), teacher.embedding_size), np.float32)
        description = f"views, round {number + 1} of {rounds}"
        for start in with_progress(starts, len(starts), description, show=progress):
            part = slice(start, start + _CHUNK)
            views = _draw_views(np.asarray(crops[part]), augment, mixup, [seed, number, start])
            with _bfloat16_graphs() if fast else nullcontext():
                answers[part] = ask(views)
            pixels[part] = crop_middle(views, side)
        # The answers last: once they are there, the round is whole.
        for kind, array in (("pixels", pixels), ("answers", answers)):
            with replacing(_path(folder, kind, number), ModelFileError) as temporary:
                np.save(temporary, array, allow_pickle=False)
    return Views(
        tuple(_load(_path(folder, "pixels", number)) for number in range(rounds)),
        tuple(np.array(_load(_path(folder, "answers", number))) for number in range(rounds)),
    )


def crop_middle(images: ImageArray, side: int, share: float = 1.0) -> ImageArray:
    """The middle of square images, uint8 ``(N, s, s, 3)``, resized to ``(N, side, side, 3)``.

    The share of their side that is kept, above 0 and at most 1, is rounded to whole pixels; areas
    are averaged on the way down.

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


def jitter(images: ImageArray, seed: int) -> npt.NDArray[np.float32]:
    """Change each image a little, in ways that hardly matter to a teacher.

    Each epoch thus shows the student new images without asking the teacher again. One image in two
    is mirrored, each is moved by up to ``room_of`` its side in pixels, and its light and
    contrast are changed by up to a tenth. Takes uint8 ``(N, side + 2 * room, side + 2 * room, 3)``,
    gives float32 ``(N, side, side, 3)``, about 0..255.
    """
    random = np.random.default_rng(seed)
    count, whole = images.shape[:2]
    room = next(room for room in range(whole) if room_of(whole - 2 * room) == room)
    places = np.arange(whole - 2 * room)
    rows = random.integers(0, 2 * room + 1, (count, 1)) + places
    columns = random.integers(0, 2 * room + 1, (count, 1)) + places
    mirrored = random.random(count) < 0.5
    columns[mirrored] = columns[mirrored][:, ::-1]
    moved = images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    gain = random.uniform(1 - _LIGHT, 1 + _LIGHT, (count, 1, 1, 1)).astype(np.float32)
    lift = random.uniform(-_LIGHT, _LIGHT, (count, 1, 1, 1)).astype(np.float32) * 127.5
    result: npt.NDArray[np.float32] = (moved.astype(np.float32) - 127.5) * gain + 127.5 + lift
    return result


def room_of(side: int) -> int:
    """Number of pixels by which ``jitter`` may move an image of this side."""
    return side // 32


def _draw_views(
    crops: ImageArray, augment: Callable[[Any, int], Any], mixup: float, seed: list[int]
) -> ImageArray:
    """Views of a chunk of crops, some of them mixed with another."""
    random = np.random.default_rng(seed)
    pixels = augment(crops, int(random.integers(2**31)))
    views: npt.NDArray[np.float32] = keras.ops.convert_to_numpy(pixels)
    share = np.where(random.random(len(views)) < mixup, random.random(len(views)) / 2, 0)
    share = share[:, None, None, None].astype(np.float32)
    # Drawn from the whole chunk: neighbours in the folder are mostly the same person.
    partner = random.permutation(len(views))
    mixed = views * (1 - share) + views[partner] * share
    return np.asarray(mixed.round().clip(0, 255), np.uint8)


@contextmanager
def _bfloat16_graphs() -> Iterator[None]:
    """Make TensorFlow's graphs that first run in here compute in bfloat16 on a CPU."""
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
