"""Batches of people and triplets."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from face_encode.errors import DatasetError, InputError
from face_encode.training.augmentation import Augmentation
from face_encode.training.batches import (
    PeopleBatches,
    PhotoBatches,
    random_triplets,
    triplet_dataset,
)
from face_encode.training.triplet import TripletModel

# Twelve people with five photos, ten with one.
PEOPLE = np.concatenate([np.repeat(np.arange(12), 5), np.arange(12, 22)])
IMAGES = np.arange(len(PEOPLE), dtype=np.float32)[:, None]


def test_a_batch_holds_several_photos_of_each_and_single_ones_besides() -> None:
    batches = PeopleBatches(IMAGES, PEOPLE, people_a_batch=4, photos_a_person=3, seed=1)
    assert len(batches) == 3
    seen = []
    for index in range(3):
        images, people = batches[index]
        np.testing.assert_array_equal(PEOPLE[images[:, 0].astype(int)], people)
        assert len(set(images[:, 0])) == 12
        names, counts = np.unique(people, return_counts=True)
        assert counts.tolist() == [3] * 4
        seen += names.tolist()
    assert sorted(seen) == list(range(12))


def test_room_in_a_batch_goes_to_people_with_one_photo() -> None:
    batches = PeopleBatches(IMAGES, PEOPLE, people_a_batch=4, photos_a_person=7)
    people = batches[0][1]
    counts = np.bincount(people, minlength=22)
    assert (counts[counts > 1] == 5).all()
    assert np.sum(counts == 1) == 8
    assert len(people) == 28


def test_batches_depend_on_seed_epoch_and_place_only() -> None:
    def rows(seed: int, epoch: int, index: int) -> list[float]:
        batches = PeopleBatches(IMAGES, PEOPLE, people_a_batch=4, seed=seed)
        for _ in range(epoch):
            batches.on_epoch_end()
        return list(batches[index][0][:, 0])

    assert rows(0, 2, 1) == rows(0, 2, 1)
    assert rows(0, 2, 1) != rows(1, 2, 1)
    assert rows(0, 2, 1) != rows(0, 1, 1)


def test_people_are_numbered_so_that_float32_tells_them_apart() -> None:
    batches = PeopleBatches(IMAGES, PEOPLE + 2**40, people_a_batch=4, seed=1)
    images, people = batches[0]
    np.testing.assert_array_equal(PEOPLE[images[:, 0].astype(int)], people)


def test_views_are_drawn_and_augmentation_is_applied() -> None:
    views = np.stack([IMAGES, IMAGES + 1000], axis=1)
    batches = PhotoBatches(
        views, PEOPLE, batch_size=40, has_views=True, augment=lambda images, seed: -images
    )
    images, _ = batches[0]
    assert (images <= 0).all()
    assert 5 < np.sum(images <= -1000) < 35


def test_every_photo_comes_once_an_epoch() -> None:
    batches = PhotoBatches(IMAGES, PEOPLE, batch_size=32)
    rows = np.concatenate([batches[index][0][:, 0] for index in range(len(batches))])
    assert len(rows) == 96
    assert set(rows) == set(range(70))


def test_photos_are_drawn_by_weight() -> None:
    weights = np.zeros(70)
    weights[[3, 60]] = 1.0, 3.0
    batches = PhotoBatches(IMAGES, PEOPLE, batch_size=100, weights=weights, steps=7)
    assert len(batches) == 7
    rows = np.concatenate([batches[index][0][:, 0] for index in range(7)])
    assert set(rows) == {3, 60}
    assert 0.65 < np.mean(rows == 60) < 0.85


def test_random_triplets_are_triplets() -> None:
    anchors, positives, negatives = random_triplets(PEOPLE, 500, seed=2)
    assert (PEOPLE[anchors] == PEOPLE[positives]).all()
    assert (anchors != positives).all()
    assert (PEOPLE[anchors] != PEOPLE[negatives]).all()
    # Who has one photo is negative only, and does get his turn.
    assert PEOPLE[anchors].max() < 12
    assert PEOPLE[negatives].max() >= 12


def test_a_tf_data_pipeline_of_augmented_triplets_trains() -> None:
    pytest.importorskip("tensorflow")
    crops = np.random.default_rng(0).integers(0, 256, (len(PEOPLE), 12, 12, 3)).astype(np.uint8)
    with pytest.raises(InputError, match=r"batch size.*Received: 0"):
        triplet_dataset(crops, PEOPLE, count=20, batch_size=0)
    dataset = triplet_dataset(crops, PEOPLE, count=20, batch_size=8, augment=Augmentation())
    assert len(dataset) == 3
    first, second = (next(iter(dataset))[0].numpy() for _ in range(2))
    assert first.shape == (8, 12, 12, 3)
    assert np.abs(first - second).max() > 1
    network = keras.Sequential(
        [keras.Input((12, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    model = TripletModel(network)
    model.compile(optimizer="adam")
    assert np.isfinite(model.fit(dataset, epochs=2, verbose=0).history["loss"]).all()


def test_views_differ_little_and_repeatably() -> None:
    crops = np.zeros((6, 40, 40, 3), np.uint8)
    crops[:, 10:20, 8:16] = 200
    augment = Augmentation()
    views = keras.ops.convert_to_numpy(augment(crops, 3))
    np.testing.assert_array_equal(views, keras.ops.convert_to_numpy(augment(crops, 3)))
    assert np.abs(views - keras.ops.convert_to_numpy(augment(crops, 4))).max() > 1
    assert views.dtype == np.float32
    assert views.min() >= 0
    assert views.max() <= 255
    nothing = Augmentation(0, 0, 0, 0, 0, flip=False)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(nothing(crops, 1)), crops, atol=1e-3)
    flipped = keras.ops.convert_to_numpy(Augmentation(0, 0, 0, 0, 0)(crops, 1))
    kinds = [np.allclose(view, crops[0], atol=1e-3) for view in flipped]
    mirrored = [np.allclose(view, crops[0, :, ::-1], atol=1e-3) for view in flipped]
    assert all(a != b for a, b in zip(kinds, mirrored, strict=True))
    assert any(kinds)
    assert any(mirrored)


def test_what_gives_no_triplet_is_refused() -> None:
    with pytest.raises(DatasetError, match="two photos"):
        random_triplets(np.arange(5), 3)
    with pytest.raises(DatasetError, match="at least 2 people"):
        PeopleBatches(IMAGES[:5], PEOPLE[:5])
    with pytest.raises(InputError, match="Received: 1 people"):
        PeopleBatches(IMAGES, PEOPLE, people_a_batch=1)
    with pytest.raises(InputError, match=r"number of triplets.*Received: -1"):
        random_triplets(PEOPLE, -1)
    with pytest.raises(InputError, match="Received: batch size 0"):
        PhotoBatches(IMAGES, PEOPLE, batch_size=0)
