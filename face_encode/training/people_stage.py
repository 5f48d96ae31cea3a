"""The last stage of a distillation: the Siamese system's, with the people themselves as labels.

A student can only come near its teacher's opinion; who is on the photos is the truth. From few
people, though, a network learns those people rather than faces, so what this stage made is kept
only where other people are told apart better for it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from face_encode.training.augmentation import Augmentation
from face_encode.training.batches import PeopleBatches
from face_encode.training.fitting import (
    Judge,
    Progress,
    Schedule,
    Watch,
    fit_watched,
    without_xla,
)
from face_encode.training.losses import MinedTripletLoss
from face_encode.types import ImageArray

_PEOPLE_A_BATCH, _PHOTOS_A_PERSON = 24, 4
# Crops are aligned, so what the finished network will see differs little in place and angle.
_VIEWS = Augmentation(turn=5.0, zoom=0.04, shift=0.03, brightness=0.08, contrast=0.15)


def train_on_people(
    model: keras.Model,
    crops: ImageArray,
    people: npt.NDArray[np.int64],
    judge: Judge,
    *,
    epochs: int,
    learning_rate: float,
    folder: Path,
    run_key: str,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Progress:
    """Train a whole network on semi-hard triplets of people; leave it at its best.

    Args:
        model: Crops in, embeddings out, without batch normalisation among its convolutions: of
            few people in a batch, their statistics would be wrong for everybody else.
        crops: uint8 ``(N, height, width, 3)`` of the model's size.
        people: int ``(N,)``.
        judge: Measures the network on other people; ``score`` decides, and ``standard_error`` is
            how much better than the untouched network an epoch has to be.
        epochs: The most; each person with several photos comes once in each.
        learning_rate: To begin with; it falls to 0 by a cosine.
        folder: For checkpoint and log.
        run_key: What the stage depends on.
        seed: The same seed gives the same batches.
        say: Told of each epoch, in a line.

    Returns:
        The epochs; ``best_epoch`` is 0 where the network was left as it was.
    """

    def view(images: ImageArray, draw: int) -> npt.NDArray[np.float32]:
        pixels: npt.NDArray[np.float32] = keras.ops.convert_to_numpy(_VIEWS(images, draw))
        return pixels

    batches = PeopleBatches(
        crops,
        people,
        people_a_batch=_PEOPLE_A_BATCH,
        photos_a_person=_PHOTOS_A_PERSON,
        seed=seed,
        augment=view,
    )
    model.compile(
        keras.optimizers.Adam(learning_rate), loss=MinedTripletLoss(), jit_compile=without_xla()
    )
    schedule = Schedule(
        epochs=epochs,
        learning_rate=learning_rate,
        cosine=True,
        least_gain=judge()["standard_error"],
    )
    watch = Watch(judge, schedule, folder / "people.npz", folder / "people.csv", run_key, say=say)
    return fit_watched(model, batches, watch)
