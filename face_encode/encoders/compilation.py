"""Compilation of an encoder's forward pass, once, by the means of the Keras backend.

``model.predict`` sets up a data pipeline on every call, which costs several times the network
itself for a single face.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from face_encode.encoders.contract import EncoderContract
from face_encode.types import Embeddings, ImageArray

if TYPE_CHECKING:
    import keras

Forward: TypeAlias = Callable[[ImageArray], Embeddings]

# As constants of the graph, weights take about nine times their size in memory, since TensorFlow
# keeps a copy at each stage of compilation. Above this size the gain is not worth that: the network
# computes for so long that it does not matter how its weights come in.
_MAX_FROZEN_BYTES = 32 * 1024 * 1024


def compile_forward(model: keras.Model, contract: EncoderContract) -> Forward:
    """Compile a model for any number of crops, with the scaling and mirroring of its contract.

    Args:
        model: ``(N, height, width, 3)`` in, ``(N, D)`` out. Whether later changes of its weights
            show in the result is not defined.
        contract: How the model is used.

    Returns:
        A function from uint8 ``(N, height, width, 3)``, N at least 1, to float32 ``(N, D)``. Any
        number of threads may call it at once.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _compile_tensorflow(model, contract)
    if backend == "jax":
        return _compile_jax(model, contract)
    forward = _forward(lambda pixels: model(pixels, training=False), contract)
    return lambda crops: keras.ops.convert_to_numpy(forward(crops)).astype(np.float32)


def _forward(network: Callable[[Any], Any], contract: EncoderContract) -> Callable[[Any], Any]:
    """Make a function from crops to embeddings, in the backend's own tensors."""
    import keras

    scale = contract.pixel_range[1] / 255.0

    def forward(crops: Any) -> Any:
        pixels = keras.ops.cast(crops, "float32")
        if scale != 1.0:
            pixels = pixels * scale
        if not contract.mirror:
            return network(pixels)
        # One batch of both halves: small batches leave most of a processor idle.
        both = keras.ops.concatenate([pixels, keras.ops.flip(pixels, axis=2)])
        embeddings = network(both)
        half = keras.ops.shape(crops)[0]
        return (embeddings[:half] + embeddings[half:]) / 2

    return forward


def _compile_tensorflow(model: keras.Model, contract: EncoderContract) -> Forward:
    """Compile a graph in which the weights are constants, if they are small enough.

    Before every call, TensorFlow reorders the weights of a convolution for the processor, unless
    they are known never to change. For a single face through dlib's network that is a quarter of
    the time. (XLA is slower here: it does not use oneDNN.)
    """
    import tensorflow as tf

    trainable, others = (
        [variable.value.numpy() for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    )
    small = sum(array.nbytes for array in (*trainable, *others)) <= _MAX_FROZEN_BYTES

    def network(pixels: Any) -> Any:
        if not small:
            return model(pixels, training=False)
        constants = ([tf.constant(array) for array in arrays] for arrays in (trainable, others))
        return model.stateless_call(*constants, pixels, training=False)[0]

    crop = contract.crop
    signature = [tf.TensorSpec((None, crop.height, crop.width, 3), tf.uint8)]
    compiled = tf.function(_forward(network, contract), input_signature=signature)
    return lambda crops: np.asarray(compiled(crops), np.float32)


def _compile_jax(model: keras.Model, contract: EncoderContract) -> Forward:
    """Compile by XLA, which compiles each shape separately: batches are padded to powers of two."""
    import jax

    jitted = jax.jit(_forward(lambda pixels: model(pixels, training=False), contract))

    def run(crops: ImageArray) -> Embeddings:
        padded = 1 << (len(crops) - 1).bit_length()
        full = np.concatenate([crops, np.repeat(crops[-1:], padded - len(crops), axis=0)])
        return np.asarray(jitted(full), np.float32)[: len(crops)]

    return run
