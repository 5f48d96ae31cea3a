"""Backbones: encoders cut into features and a projection, the heads put on top, and first weights.

Retraining a head keeps the features, which took millions of photos to learn, and learns only how
to turn them into an embedding.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import KERAS
from face_encode.encoders.registry import load_encoder
from face_encode.encoders.vgg16 import add_mlp_head, load_vggface_weights, vgg16_backbone
from face_encode.errors import InputError
from face_encode.training.surgery import chain_of
from face_encode.types import CropRecipe, Embeddings, ImageArray

_LINEAR_CORRECTION = "linear_correction"
_VGG16_SIDE = 150

# The layers of a head; the features are the output of the last other layer.
_HEAD_LAYERS = (
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.Dense,
    keras.layers.Dropout,
    keras.layers.ReLU,
    keras.layers.UnitNormalization,
)


@dataclass(frozen=True, eq=False)
class Backbone:
    """An encoder in two parts.

    Attributes:
        features: Crops in, features ``(N, F)`` out.
        projection: Features in, the encoder's own embedding out; None where the features
            themselves are its embedding.
        contract: How the encoder is used.
    """

    features: keras.Model
    projection: keras.Model | None
    contract: EncoderContract

    @property
    def feature_count(self) -> int:
        """Number F of features."""
        return int(self.features.output_shape[-1])

    def extract(self, crops: ImageArray) -> Embeddings:
        """Features of uint8 crops ``(N, height, width, 3)``: float32 ``(N, F)``.

        The mirror image is left out: a head is not linear, so the mean over both is taken of its
        embeddings.
        """
        return self._encoder.encode(crops)

    @cached_property
    def _encoder(self) -> Encoder:
        contract = self.contract
        plain = EncoderContract(
            contract.name, contract.crop, threshold=0, pixel_range=contract.pixel_range
        )
        return Encoder(self.features, plain)

    def project(self, features: Embeddings) -> Embeddings:
        """The encoder's own embeddings, float32 ``(N, D)``, of features ``(N, F)``."""
        if self.projection is None:
            return features
        projected = self.projection.predict(features, batch_size=4096, verbose=0)
        return np.asarray(projected, np.float32)

    def embed(self, crops: ImageArray) -> Embeddings:
        """Embeddings of crops by the encoder that was cut: float32 ``(N, D)``."""
        views = [crops, crops[:, :, ::-1]] if self.contract.mirror else [crops]
        embeddings = [self.project(self.extract(view)) for view in views]
        return np.asarray(np.mean(embeddings, axis=0, dtype=np.float32))


def open_backbone(
    name_or_path: str | os.PathLike[str], weights: str | os.PathLike[str] | None = None
) -> Backbone:
    """Open a backbone.

    Args:
        name_or_path: Anything that ``load_encoder`` takes; or ``vgg16``, the original project's
            with its VGGFace weights, which are downloaded at their first use.
        weights: The weights file of a backbone known by name, where it lies elsewhere.

    Raises:
        ModelFileError: No such encoder.
        WeightsError: The weights are missing or not what they should be.
    """
    if os.fspath(name_or_path) != "vgg16":
        return split_encoder(load_encoder(name_or_path, weights, engine=KERAS))
    model = vgg16_backbone((_VGG16_SIDE, _VGG16_SIDE, 3))
    load_vggface_weights(model, weights)
    contract = EncoderContract(
        name="vgg16",
        crop=CropRecipe("dlib_chip", _VGG16_SIDE, _VGG16_SIDE, margin=0.25),
        threshold=0.7,
        trained_on="VGGFace, 2.6 million photos of 2,622 people, by its authors",
        licence="non-commercial (University of Oxford, VGGFace)",
    )
    return Backbone(model, None, contract)


def split_encoder(encoder: Encoder) -> Backbone:
    """Cut an encoder behind its last layer that is not part of a head.

    dlib's network is cut between its pooling and its dense layer, the original project's VGG16
    behind its flattening. Behind these features follow the means over the feature maps of every
    resolution: details that the last layers drop, because they did not matter for the photos
    trained on, may matter for others. The model itself is left as it is.
    """
    model = encoder.model
    layers = list(model.layers)
    end = len(layers)
    while (
        end > 1
        and isinstance(layers[end - 1], _HEAD_LAYERS)
        and layers[end - 1].input is layers[end - 2].output
        and len(layers[end - 1].input.shape) == 2
    ):
        end -= 1
    own_head = layers[end:]
    # The last layer in the list need not be the one that gives the model's output.
    if not own_head or layers[-1].output is not model.output:
        return Backbone(model, None, encoder.contract)
    last = layers[end - 1].output
    everything = [last, *_pooled_maps(model, layers[1 : end - 1])]
    joined = keras.layers.Concatenate(name="all_features")(everything)
    features = keras.Model(model.input, joined, name=f"{model.name}_features")
    given = keras.Input(features.output_shape[1:], name="features")
    tensor = given[:, : last.shape[-1]]
    for layer in own_head:
        copy = type(layer).from_config(layer.get_config())
        tensor = copy(tensor)
        copy.set_weights(layer.get_weights())
    projection = keras.Model(given, tensor, name=f"{model.name}_projection")
    return Backbone(features, projection, encoder.contract)


def _pooled_maps(model: keras.Model, layers: list[keras.layers.Layer]) -> list[Any]:
    """The mean over the last feature map of each resolution below the image's."""
    last_of_size: dict[tuple[int, ...], Any] = {}
    for layer in layers:
        shape = tuple(getattr(layer.output, "shape", ()))
        if len(shape) == 4 and shape[1:3] != tuple(model.input_shape[1:3]):
            last_of_size[shape[1:3]] = layer.output
    return [
        keras.layers.GlobalAveragePooling2D(name=f"mean_of_{height}x{width}")(output)
        for (height, width), output in last_of_size.items()
    ]


def build_head(
    backbone: Backbone,
    mean: Embeddings,
    deviation: Embeddings,
    *,
    embedding_size: int = 128,
    head_units: tuple[int, ...] = (512, 256, 128),
    dropout: float = 0.3,
) -> keras.Model:
    """Build the network that is trained on a backbone's features.

    It is the original project's MLP head. Where the backbone has a projection of its own, the
    head and a linear map are added to that, which stays frozen, and begin at zero: training
    starts from the encoder as it is. Mean and deviation, float32 ``(F,)``, are those of the
    features of the training photos, the deviation above 0; the embedding size is ignored where the
    backbone has a projection.
    """
    given = keras.Input((backbone.feature_count,), name="features")
    # Features of different layers differ in size by orders of magnitude; one learning rate is
    # to suit all.
    standard = keras.layers.Rescaling(
        (1 / deviation).tolist(), (-mean / deviation).tolist(), name="standard_features"
    )(given)
    projection = backbone.projection
    if projection is None:
        embeddings = add_mlp_head(standard, embedding_size, head_units, dropout)
        return keras.Model(given, embeddings, name="head")
    size = int(projection.output_shape[-1])
    learnt = add_mlp_head(standard, size, head_units, dropout, output_initializer="zeros")
    linear = keras.layers.Dense(size, kernel_initializer="zeros", name=_LINEAR_CORRECTION)(standard)
    projection.trainable = False
    embeddings = keras.layers.Add(name="projection_and_head")([projection(given), linear, learnt])
    return keras.Model(given, embeddings, name="head")


def solve_linear_correction(
    head: keras.Model,
    backbone: Backbone,
    features: Embeddings,
    targets: Embeddings,
    ridge: float = 0.3,
) -> None:
    """Set the linear map of an untrained head to the best one for target embeddings ``(N, D)``.

    Ridge regression (Hoerl and Kennard, 1970), in closed form, of the targets minus the backbone's
    own projection on the standardised features, which are given as float32 ``(N, F)``. The penalty
    is a share of the features' mean square.
    """
    layer = head.get_layer(_LINEAR_CORRECTION)
    to_standard = keras.Model(head.input, layer.input)
    standard = to_standard.predict(features, batch_size=4096, verbose=0)
    layer.set_weights(solve_ridge(standard, targets - backbone.project(features), ridge))


def solve_ridge(features: Embeddings, targets: Embeddings, ridge: float) -> list[Embeddings]:
    """Kernel ``(F, D)`` and bias ``(D,)`` that bring features ``(N, F)`` nearest to targets.

    The penalty on the kernel is a share of the features' mean square about their mean.
    """
    features = features.astype(np.float64)
    mean, target_mean = features.mean(axis=0), targets.mean(axis=0)
    features -= mean
    squares = features.T @ features
    squares += ridge * np.trace(squares) / len(squares) * np.eye(len(squares))
    kernel = np.linalg.solve(squares, features.T @ (targets - target_mean))
    return [kernel, target_mean - mean @ kernel]


def join(backbone: Backbone, head: keras.Model) -> keras.Model:
    """The whole network, crops in, embeddings out, of a backbone and a trained head.

    It consists of built-in layers only, and shares its weights with both parts.
    """
    images = keras.Input(backbone.features.input_shape[1:], name="pixels")
    return keras.Model(images, head(backbone.features(images)), name="face_embedding")


def standardize_layers(model: keras.Model, images: Any) -> None:
    """Scale and shift the fresh weights of each layer to standardised outputs on some images.

    Each convolution and dense layer is set to give, before its activation, mean 0 and variance 1
    in each channel; the last one, which gives the embeddings, a variance at which two embeddings
    lie a squared distance of about 2 apart, as two random unit vectors do. Krähenbühl and others,
    "Data-dependent Initializations of Convolutional Neural Networks", 2016,
    https://arxiv.org/abs/1511.06856.

    Args:
        model: A chain of layers, as ``face_encode.encoders.vgg16.vgg_embedding`` builds it,
            not trained yet.
        images: float ``(N, height, width, 3)``, 0..255: a sample of the training images, 32 or
            more.

    Raises:
        InputError: The model is not a chain, or a single image is given.
    """
    if len(images) < 2:
        raise InputError(f"it takes several images to tell differences. Received: {len(images)}")
    layers = chain_of(model)
    weighted = [
        layer for layer in layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    ]
    tensor = keras.ops.convert_to_tensor(np.asarray(images, np.float32))
    for layer in layers:
        if layer in weighted:
            is_embedding = layer is weighted[-1] and isinstance(layer, keras.layers.Dense)
            _standardize(layer, tensor, layer.units if is_embedding else 1)
        is_normalization = isinstance(layer, keras.layers.BatchNormalization)
        tensor = layer(tensor, training=True) if is_normalization else layer(tensor)


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
