"""Muon: orthogonal steps for hidden kernels, Adam's for the rest."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from face_encode.training.optimizers import Muon, orthogonal


@pytest.mark.parametrize("shape", [(20, 6), (6, 20), (7, 7)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    count = min(shape)
    left = np.linalg.qr(random.normal(size=(shape[0], count)))[0]
    right = np.linalg.qr(random.normal(size=(shape[1], count)))[0]
    matrix = (left * np.linspace(1, 5, count)) @ right.T
    result = keras.ops.convert_to_numpy(orthogonal(keras.ops.convert_to_tensor(matrix, "float32")))
    values = np.diag(left.T @ result @ right)
    assert (values > 0.65).all() and (values < 1.25).all()
    np.testing.assert_allclose((left * values) @ right.T, result, atol=1e-4)


def test_a_kernels_step_is_as_large_as_adamws() -> None:
    kernel = keras.Variable(np.zeros((3, 3, 16, 32), np.float32), name="kernel")
    optimizer = Muon(0.1)
    optimizer.build([kernel])
    gradient = np.random.default_rng(0).normal(size=kernel.shape).astype(np.float32)
    optimizer.apply([keras.ops.convert_to_tensor(1000 * gradient)])
    step = keras.ops.convert_to_numpy(kernel.value)
    # 0.2 * sqrt(144) / sqrt(144) for singular values of 1.
    assert np.sqrt((step**2).mean()) == pytest.approx(0.1 * 0.2, rel=0.25)
    assert (step * gradient).sum() < 0


def test_vectors_and_the_last_layer_are_left_to_adam() -> None:
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2, name="embedding")]
    )
    optimizer = Muon(0.01)
    optimizer.build(network.trainable_variables)
    before = [keras.ops.convert_to_numpy(each.value) for each in network.trainable_variables]
    optimizer.apply([keras.ops.ones_like(each.value) for each in network.trainable_variables])
    steps = [
        old - keras.ops.convert_to_numpy(each.value)
        for old, each in zip(before, network.trainable_variables, strict=True)
    ]
    # Adam's first step is the learning rate itself, whatever the gradient.
    for step in steps[1:]:
        np.testing.assert_allclose(step, 0.01, rtol=1e-3)
    assert np.abs(steps[0]).max() < 0.01 * 0.5


def test_it_learns_a_linear_map_and_can_be_rebuilt() -> None:
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    inputs = random.normal(size=(256, 8)).astype(np.float32)
    targets = np.tanh(inputs @ random.normal(size=(8, 4))).astype(np.float32)
    network = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(4, name="embedding")]
    )
    optimizer = Muon.from_config(Muon(0.02, weight_decay=1e-4, momentum=0.9).get_config())
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 1e-4)
    network.compile(optimizer, loss="mse", jit_compile=False)
    losses = network.fit(inputs, targets, batch_size=64, epochs=25, verbose=0).history["loss"]
    assert losses[-1] < 0.1 * losses[0]
