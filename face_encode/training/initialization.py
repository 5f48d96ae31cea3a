"""Initial weights that suit the data: what lets deep plain networks learn from the first step.

Through thirteen convolutions with relu, random weights make any two images look almost alike, and
a training begins by wasting hundreds of steps on what all images have in common.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from face_encode.errors import InputError
from face_encode.training.surgery import chain_of


def standardize_layers(model: keras.Model, images: Any) -> None:
    """Scale and shift the fresh weights of each layer to standardised outputs on some images.

    Each convolution and dense layer is set to give, before its activation, mean 0 and variance 1
    in each channel; the last one, which gives the embeddings, such a variance that two embeddings
    lie a squared distance of about 2 apart, as two random unit vectors do. So Krähenbühl and
    others, "Data-dependent Initializations of Convolutional Neural Networks", 2016,
    https://arxiv.org/abs/1511.06856.

    Args:
        model: A chain of layers, as :func:`face_encode.encoders.vgg16.vgg_embedding` builds it,
            not trained yet.
        images: float ``(N, height, width, 3)``, 0..255: a sample of what it will be trained on,
            32 or more.

    Raises:
        InputError: The model is not a chain, or a single image is given.
    """
    if len(images) < 2:
        raise InputError(f"it takes several images to tell differences. Received: {len(images)}")
    layers = chain_of(model)
    weighted = [layer for layer in layers if isinstance(layer, _WEIGHTED)]
    tensor = keras.ops.convert_to_tensor(np.asarray(images, np.float32))
    for layer in layers:
        if isinstance(layer, _WEIGHTED):
            last = layer is weighted[-1]
            _standardize(layer, tensor, layer.units if last and _is_dense(layer) else 1)
        tensor = layer(tensor, training=True) if _is_normalization(layer) else layer(tensor)


_WEIGHTED = (keras.layers.Conv2D, keras.layers.Dense)


def _is_dense(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Dense)


def _is_normalization(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def _standardize(layer: keras.layers.Layer, tensor: Any, parts: int) -> None:
    """Set a layer's outputs for a tensor to mean 0 and variance 1 / ``parts``, by channel."""
    activation, layer.activation = layer.activation, keras.activations.linear
    outputs = np.asarray(keras.ops.convert_to_numpy(layer(tensor)), np.float64)
    layer.activation = activation
    axes = tuple(range(outputs.ndim - 1))
    mean, deviation = outputs.mean(axis=axes), outputs.std(axis=axes)
    # A channel that is the same for all images stays as it is.
    factor = np.where(deviation > 1e-6, 1 / np.maximum(deviation, 1e-6), 1) / np.sqrt(parts)
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel * factor, (bias - mean) * factor])
