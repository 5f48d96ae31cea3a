"""Batches to train on: photos, people with several photos each, and random triplets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.training.data import Rows, check_trainable
from face_encode.types import check_count

if TYPE_CHECKING:
    import tensorflow as tf

Augment: TypeAlias = Callable[[Any, int], Any]
"""Draws another view of each image ``(N, height, width, 3)``, 0..255, from a seed."""


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches that depend on seed, epoch and index only.

    A run that resumes from a checkpoint therefore sees the batches that it would have seen.

    Attributes:
        epoch: Raised by Keras after each epoch; set it to resume from a checkpoint.
    """

    def __init__(
        self,
        images: Any,
        targets: npt.NDArray[Any],
        *,
        has_views: bool,
        seed: int,
        augment: Augment | None,
        workers: int = 1,
    ) -> None:
        super().__init__(workers=workers)
        self.images = images
        self.targets = targets
        self.has_views = has_views
        self.seed = seed
        self.augment = augment
        self.epoch = 0

    def __getitem__(self, index: int) -> tuple[Any, npt.NDArray[Any]]:
        random = np.random.default_rng([self.seed, self.epoch, index])
        rows = self._rows(index, random)
        if self.has_views:
            batch = self.images[rows, random.integers(0, self.images.shape[1], len(rows))]
        else:
            batch = self.images[rows]
        if self.augment is not None:
            batch = self.augment(batch, int(random.integers(2**31)))
        return batch, self.targets[rows]

    def on_epoch_end(self) -> None:
        """Move to the next epoch's batches."""
        self.epoch += 1

    def _rows(self, index: int, random: np.random.Generator) -> Rows:
        raise NotImplementedError

    def _slice_of_epoch(self, count: int, size: int, index: int) -> Rows:
        """Part ``index`` of a permutation of ``count`` that differs in each epoch."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(count)
        # The last part is filled up from the start: batches of one size compile once.
        places = np.arange(index * size, index * size + min(size, count)) % count
        return order[places].astype(np.int64)


class PhotoBatches(_Batches):
    """Batches of photos, each photo once an epoch; or drawn by weight."""

    def __init__(
        self,
        images: Any,
        targets: npt.NDArray[Any],
        *,
        batch_size: int = 128,
        has_views: bool = False,
        seed: int = 0,
        augment: Augment | None = None,
        weights: npt.NDArray[np.float64] | None = None,
        steps: int | None = None,
        workers: int = 1,
    ) -> None:
        """Take photos, or features of photos, and their targets.

        Args:
            images: ``(N, ...)``; anything that gives such an array for an array of rows.
            targets: ``(N, ...)``.
            batch_size: Photos a batch, at least 1.
            has_views: As for ``PeopleBatches``.
            seed: As for ``PeopleBatches``.
            augment: As for ``PeopleBatches``.
            weights: How often each photo is drawn, ``(N,)``, of any sum; None takes each photo
                once an epoch.
            steps: With weights, the number of batches an epoch.
            workers: Threads that put batches together.

        Raises:
            InputError: No photo, or a batch size below 1.
        """
        super().__init__(
            images, targets, has_views=has_views, seed=seed, augment=augment, workers=workers
        )
        if batch_size < 1 or len(images) < 1:
            raise InputError(
                f"a batch holds at least 1 photo. Received: batch size {batch_size}, "
                f"{len(images)} photos"
            )
        self.batch_size = batch_size
        self.steps = steps
        self._cumulated = None if weights is None else np.cumsum(weights) / np.sum(weights)

    def __len__(self) -> int:
        return self.steps or -(-len(self.images) // self.batch_size)

    def _rows(self, index: int, random: np.random.Generator) -> Rows:
        if self._cumulated is not None:
            # Below the last sum, which rounding may leave under 1.
            drawn = random.random(self.batch_size) * self._cumulated[-1]
            rows: Rows = np.searchsorted(self._cumulated, drawn, side="right").astype(np.int64)
            return rows
        return self._slice_of_epoch(len(self.images), self.batch_size, index)


class PeopleBatches(_Batches):
    """Batches of P people times up to K photos, the rest filled with people of one photo."""

    def __init__(
        self,
        images: npt.NDArray[Any],
        people: npt.NDArray[np.int64],
        *,
        people_a_batch: int = 32,
        photos_a_person: int = 4,
        has_views: bool = False,
        seed: int = 0,
        augment: Augment | None = None,
    ) -> None:
        """Take photos, or features of photos, and who is on them.

        Args:
            images: ``(N, ...)``, or with ``has_views`` ``(N, V, ...)``.
            people: int ``(N,)``; the batches' targets, numbered anew from 0 on in their order.
            people_a_batch: P, at least 2.
            photos_a_person: K, at least 2.
            has_views: Whether the second axis of ``images`` is views of the same photo, of
                which one is drawn.
            seed: The same seed gives the same batches.
            augment: Applied to each batch of images.

        Raises:
            InputError: P or K below 2.
            DatasetError: Fewer than two people, or nobody with two photos.
        """
        # Keras casts targets to float32, in which numbers above 2**24 run together.
        people = np.unique(people, return_inverse=True)[1]
        super().__init__(images, people, has_views=has_views, seed=seed, augment=augment)
        if people_a_batch < 2 or photos_a_person < 2:
            raise InputError(
                "a batch holds at least 2 people with up to at least 2 photos. "
                f"Received: {people_a_batch} people, {photos_a_person} photos"
            )
        check_trainable(people, "training photos")
        self.people_a_batch = people_a_batch
        self.photos_a_person = photos_a_person
        rows = _rows_by_person(people)
        self._several = [photos for photos in rows if len(photos) > 1]
        self._single = np.array([photos[0] for photos in rows if len(photos) == 1], np.int64)

    def __len__(self) -> int:
        return -(-len(self._several) // self.people_a_batch)

    def _rows(self, index: int, random: np.random.Generator) -> Rows:
        chosen = self._slice_of_epoch(len(self._several), self.people_a_batch, index)
        parts = [
            random.permutation(self._several[person])[: self.photos_a_person] for person in chosen
        ]
        room = self.people_a_batch * self.photos_a_person - sum(len(part) for part in parts)
        parts.append(random.permutation(self._single)[:room])
        return np.concatenate(parts)


def random_triplets(
    people: npt.NDArray[np.int64], count: int, seed: int = 0
) -> tuple[Rows, Rows, Rows]:
    """Draw triplets at random, as the original project does.

    Args:
        people: int ``(N,)``, who is on each photo. A person with one photo is negative only.
        count: Number of triplets, at least 1.
        seed: The same seed gives the same triplets.

    Returns:
        Rows of anchors, of positives, other photos of the same people, and of negatives, photos
        of someone else; each int64 ``(count,)``.

    Raises:
        InputError: The count is below 1.
        DatasetError: Fewer than two people, or nobody with two photos.
    """
    check_count(count, "the number of triplets")
    check_trainable(people, "photos for triplets")
    random = np.random.default_rng(seed)
    several = [photos for photos in _rows_by_person(people) if len(photos) > 1]
    triplets = np.empty((count, 3), np.int64)
    for triplet in triplets:
        photos = several[random.integers(len(several))]
        triplet[:2] = random.choice(photos, 2, replace=False)
        person = people[photos[0]]
        triplet[2] = random.integers(len(people))
        while people[triplet[2]] == person:
            triplet[2] = random.integers(len(people))
    return triplets[:, 0], triplets[:, 1], triplets[:, 2]


def triplet_dataset(
    crops: npt.NDArray[np.uint8],
    people: npt.NDArray[np.int64],
    *,
    count: int,
    batch_size: int = 32,
    seed: int = 0,
    augment: Augment | None = None,
) -> tf.data.Dataset:
    """Random triplets of crops as a ``tf.data`` pipeline, for ``TripletModel.fit``.

    Args:
        crops: uint8 ``(N, height, width, 3)``; may be memory-mapped.
        people: int ``(N,)``.
        count: Triplets an epoch; every epoch has the same triplets, in the same order, in views of
            its own.
        batch_size: Triplets a batch, at least 1.
        seed: The same seed gives the same triplets and views.
        augment: Applied to each batch of each of the three.

    Returns:
        Batches ``(anchor, positive, negative)``, float32 ``(batch, height, width, 3)``, 0..255.

    Raises:
        InputError: The count or the batch size is below 1.
        DatasetError: Fewer than two people, or nobody with two photos.
    """
    import tensorflow as tf

    check_count(batch_size, "the batch size")
    triplets = np.stack(random_triplets(people, count, seed))
    starts = range(0, count, batch_size)
    epochs = itertools.count()

    def batches() -> Iterator[tuple[Any, ...]]:
        epoch = next(epochs)
        for start in starts:
            parts = [crops[rows] for rows in triplets[:, start : start + batch_size]]
            if augment is not None:
                views = np.random.default_rng([seed, epoch, start])
                parts = [augment(part, int(views.integers(2**31))) for part in parts]
            yield tuple(np.asarray(part, np.float32) for part in parts)

    signature = tuple(tf.TensorSpec((None, *crops.shape[1:]), tf.float32) for _ in range(3))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    # Keras shows the length of an epoch that it knows.
    known = dataset.apply(tf.data.experimental.assert_cardinality(len(starts)))
    return known.prefetch(tf.data.AUTOTUNE)


def _rows_by_person(people: npt.NDArray[np.int64]) -> list[Rows]:
    """The rows of each person, in the order of the people."""
    order = np.argsort(people, kind="stable")
    starts = np.flatnonzero(np.diff(people[order])) + 1
    return np.split(order, starts)
