"""Muon, an optimizer.

Muon is momentum whose matrices are made orthogonal before each step: Jordan and others, "Muon: An
optimizer for hidden layers in neural networks", 2024, https://kellerjordan.github.io/posts/muon/.
The size of the step is that of Liu and others, "Muon is Scalable for LLM Training", 2025,
https://arxiv.org/abs/2502.16982, with which AdamW's learning rates and weight decay suit it too.
Keras' own Muon leaves convolutions to AdamW; here their kernels are taken as matrices, from all
inputs of a place to the channels.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

# Coefficients of the quintic whose iteration brings all singular values near 1 (Jordan).
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
# Root mean square of AdamW's updates, in units of the learning rate (Liu).
_ADAMW_UPDATE = 0.2


@keras.saving.register_keras_serializable(package="face_encode", name="Muon")
class Muon(keras.optimizers.Optimizer):  # type: ignore[misc]
    """Muon for the kernels of hidden layers, Adam for everything else."""

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        momentum: float = 0.95,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        exclude: tuple[str, ...] = ("embedding",),
        **keywords: Any,
    ) -> None:
        """Choose the constants.

        Args:
            learning_rate: A number or a schedule, of the size that suits AdamW.
            momentum: Muon's momentum.
            beta_1: Adam's momentum.
            beta_2: Adam's decay of the mean squares.
            epsilon: Added to Adam's divisor, so that it is never 0.
            weight_decay: As for AdamW.
            exclude: Names of the layers whose kernel is left to Adam; the last layer belongs here.
            **keywords: As for every Keras optimizer.
        """
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **keywords)
        self.momentum = momentum
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.exclude = tuple(exclude)

    def build(self, variables: list[Any]) -> None:
        """Create the state: a momentum for each variable, and mean squares for Adam's."""
        if self.built:
            return
        super().build(variables)
        self.momenta = self.add_optimizer_variables(variables, "momentum")
        self.squares = [
            None
            if len(variable.shape) >= 2
            and not any(f"{part}/" in f"{variable.path}/" for part in self.exclude)
            else self.add_variable_from_reference(variable, name="square")
            for variable in variables
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        momentum, square = self.momenta[index], self.squares[index]
        if square is None:
            self.assign(momentum, momentum * self.momentum + gradient)
            # Nesterov's look ahead.
            ahead = gradient + self.momentum * ops.convert_to_tensor(momentum)
            matrix = ops.reshape(ahead, (-1, variable.shape[-1]))
            size = _ADAMW_UPDATE * math.sqrt(max(matrix.shape))
            update = ops.reshape(orthogonal(matrix), variable.shape) * size
            self.assign_sub(variable, rate * update)
            return
        step = ops.cast(self.iterations + 1, variable.dtype)
        self.assign(momentum, momentum * self.beta_1 + gradient * (1 - self.beta_1))
        self.assign(square, square * self.beta_2 + ops.square(gradient) * (1 - self.beta_2))
        mean = ops.convert_to_tensor(momentum) / (1 - ops.power(self.beta_1, step))
        deviation = ops.sqrt(ops.convert_to_tensor(square) / (1 - ops.power(self.beta_2, step)))
        self.assign_sub(variable, rate * mean / (deviation + self.epsilon))

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild the optimizer."""
        names = ("momentum", "beta_1", "beta_2", "epsilon", "exclude")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def orthogonal(matrix: Any) -> Any:
    """Bring the singular values of a matrix near 1, by Newton and Schulz's iteration.

    Each step multiplies the matrix, float ``(m, n)``, by a polynomial of its Gram matrix. The
    iteration runs on the smaller of the two Gram matrices, which gives the same result for less
    work. The singular values end between about 0.7 and 1.2, except those that were tiny.
    """
    is_wide = matrix.shape[0] < matrix.shape[1]
    tall = ops.transpose(matrix) if is_wide else matrix
    tall = tall / (ops.sqrt(ops.sum(ops.square(tall))) + 1e-7)
    gram = ops.matmul(ops.transpose(tall), tall)
    identity = ops.eye(gram.shape[0], dtype=gram.dtype)
    product = identity
    for _ in range(_ITERATIONS):
        factor = _A * identity + _B * gram + _C * ops.matmul(gram, gram)
        product = ops.matmul(product, factor)
        gram = ops.matmul(ops.matmul(factor, gram), factor)
    result = ops.matmul(tall, product)
    return ops.transpose(result) if is_wide else result
