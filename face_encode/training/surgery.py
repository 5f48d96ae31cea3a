"""Network surgery: rewrite a trained network as another one that computes the same.

All operations work on chains, networks whose layers follow one another without branches, as
``face_encode.encoders.vgg16.vgg_embedding`` builds them.
"""

from __future__ import annotations

import itertools
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError

# A layer to copy, the copy's configuration, and its weights.
_Part: TypeAlias = tuple[keras.layers.Layer, dict[str, Any], list[npt.NDArray[Any]]]


def fold_batch_normalization(model: keras.Model) -> keras.Model:
    """Fold each batch normalisation into the linear convolution or dense layer before it.

    At inference both are affine, so one layer computes what two did; an activation layer behind
    them is folded in as well. VGG16 trained with batch normalisation becomes plain VGG16 again.
    A batch normalisation behind an activation, as in the original project's head, stays. The new
    model computes in float32 and gives the same embeddings up to rounding.

    Raises:
        InputError: The model is not a chain.
    """
    waiting = chain_of(model)
    parts: list[_Part] = []
    while waiting:
        layer = waiting.pop(0)
        config, weights = {**layer.get_config(), "dtype": "float32"}, layer.get_weights()
        is_linear = (
            isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
            and layer.activation is keras.activations.linear
        )
        if is_linear and waiting and isinstance(waiting[0], keras.layers.BatchNormalization):
            config["use_bias"], weights = True, _folded_weights(layer, waiting.pop(0))
            if waiting and isinstance(waiting[0], keras.layers.Activation):
                config["activation"] = waiting.pop(0).get_config()["activation"]
        parts.append((layer, config, weights))
    return _build_chain(parts, model.input_shape[1:], model.name)


def resize_input(model: keras.Model, height: int, width: int) -> keras.Model:
    """Rebuild a chain with one Flatten for another input size, with its weights.

    Convolutions take any size. The dense layer behind the flattening has a weight for each place
    of the feature map: its kernel is stretched to the new map bilinearly and divided by the growth
    in area, so that an even feature map gives the same answer as before.

    Raises:
        InputError: The model is not a chain, or does not flatten straight into a dense layer.
    """
    layers = chain_of(model)
    names = [type(layer).__name__ for layer in layers]
    if "Flatten" not in names[:-1] or names[names.index("Flatten") + 1] != "Dense":
        raise InputError(f"the network flattens its features into a dense layer. Received: {names}")
    flatten = names.index("Flatten")
    old_map = layers[flatten].input.shape[1:]
    new_map = (None, height, width, 3)
    for layer in layers[:flatten]:
        new_map = layer.compute_output_shape(new_map)
    parts = [(layer, layer.get_config(), layer.get_weights()) for layer in layers]
    weights = parts[flatten + 1][2]
    stretched = _stretch(weights[0].reshape(*old_map, -1), new_map[1], new_map[2])
    weights[0] = stretched.reshape(-1, weights[0].shape[-1])
    return _build_chain(parts, (height, width, 3), model.name)


def widen(model: keras.Model, factor: int, seed: int = 0) -> keras.Model:
    """Multiply the channels of every convolution of a chain, without changing what it computes.

    Net2Net (Chen, Goodfellow and Shlens, 2016, https://arxiv.org/abs/1511.05641): each channel is
    copied, and the next layer's weights for it are divided among the copies. They are divided
    unevenly, at random, because equal copies would stay equal in training.

    Args:
        model: A chain of convolutions, normalisations and poolings that flattens into a dense
            layer; the layers from there on keep their size.
        factor: Number of copies of each channel, at least 1.
        seed: The same seed gives the same division.

    Raises:
        InputError: The factor is below 1, or the model is not such a chain.
    """
    if factor < 1:
        raise InputError(f"a network is widened by a factor of 1 or more. Received: {factor}")
    random = np.random.default_rng(seed)
    layers = chain_of(model)
    parts: list[_Part] = []
    is_wide = False
    for index, layer in enumerate(layers):
        config, weights = layer.get_config(), layer.get_weights()
        if isinstance(layer, keras.layers.Conv2D):
            if is_wide:
                weights[0] = _divided(weights[0], factor, random)
            config["filters"] *= factor
            weights = [np.tile(weight, factor) for weight in weights]
            is_wide = True
        elif isinstance(layer, keras.layers.Dense) and is_wide:
            before = layers[index - 1]
            if not isinstance(before, keras.layers.Flatten):
                raise InputError(
                    "the network flattens its features into a dense layer. Received: a dense "
                    f"layer behind {before.name!r}"
                )
            # Behind the flattening, the channels are the innermost of the inputs.
            units = weights[0].shape[-1]
            by_place = weights[0].reshape(-1, before.input.shape[-1], units)
            weights[0] = _divided(by_place, factor, random).reshape(-1, units)
            is_wide = False
        elif is_wide:
            weights = [np.tile(weight, factor) for weight in weights]
        parts.append((layer, config, weights))
    return _build_chain(parts, model.input_shape[1:], model.name)


def chain_of(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model behind its input, in order.

    Raises:
        InputError: They do not follow one another without branches.
    """
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    for before, layer in itertools.pairwise(layers):
        if layer.input is not before.output:
            raise InputError(
                f"the network is a chain of layers. Received: {model.name!r}, in which "
                f"{layer.name!r} does not take the output of {before.name!r}"
            )
    return layers


def _build_chain(parts: list[_Part], input_shape: tuple[int, ...], name: str) -> keras.Model:
    """A functional model of fresh layers in a row."""
    images = keras.Input(input_shape, name="pixels")
    copies = [type(layer).from_config(config) for layer, config, _ in parts]
    tensor = images
    for copy in copies:
        tensor = copy(tensor)
    for copy, (_, _, weights) in zip(copies, parts, strict=True):
        copy.set_weights(weights)
    return keras.Model(images, tensor, name=name)


def _folded_weights(
    layer: keras.layers.Layer, normalization: keras.layers.BatchNormalization
) -> list[npt.NDArray[np.float32]]:
    """Kernel and bias of layer and normalisation as one; both kernels end in the channels."""
    kernel, *bias = (np.asarray(weight, np.float64) for weight in layer.get_weights())
    mean = np.asarray(normalization.moving_mean, np.float64)
    variance = np.asarray(normalization.moving_variance, np.float64)
    factor = 1 / np.sqrt(variance + normalization.epsilon)
    if normalization.scale:
        factor = factor * np.asarray(normalization.gamma, np.float64)
    shift = ((bias[0] if bias else 0.0) - mean) * factor
    if normalization.center:
        shift = shift + np.asarray(normalization.beta, np.float64)
    return [(kernel * factor).astype(np.float32), shift.astype(np.float32)]


def _divided(
    kernel: npt.NDArray[np.float32], factor: int, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """A kernel ``(..., inputs, outputs)`` for copied inputs, whose copies' weights sum to it."""
    shares = random.uniform(0.5, 1.5, (factor, *kernel.shape[-2:])).astype(np.float32)
    shares /= shares.sum(axis=0)
    return np.concatenate([kernel * share for share in shares], axis=-2)


def _stretch(kernel: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Bilinear ``(h, w, channels, units)`` to ``(height, width, channels, units)``, sum kept."""

    def interpolation(old: int, new: int) -> npt.NDArray[np.float64]:
        """Matrix ``(new, old)`` of linear interpolation whose columns sum to 1."""
        few, many = sorted((old, new))
        # Centres of the finer map's cells in the coordinates of the coarser one.
        centres = np.clip((np.arange(many) + 0.5) * few / many - 0.5, 0, few - 1)
        matrix = np.maximum(1 - np.abs(centres[:, None] - np.arange(few)), 0)
        # On the way down transposed, so that no old cell lies between all the new ones.
        matrix = matrix if new >= old else matrix.T
        return np.asarray(matrix / matrix.sum(axis=0))

    rows = interpolation(kernel.shape[0], height)
    columns = interpolation(kernel.shape[1], width)
    stretched = np.einsum("yh,xw,hwcu->yxcu", rows, columns, kernel, optimize=True)
    return np.asarray(stretched, np.float32)
