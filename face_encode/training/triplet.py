"""The Siamese network of the triplet loss.

One embedding network sees an anchor, a positive (the same person) and a negative (someone
else). The loss pulls the first two together and pushes the third away until it is farther by a
margin: Schroff, Kalenichenko and Philbin, "FaceNet: A Unified Embedding for Face Recognition
and Clustering", 2015, https://arxiv.org/abs/1503.03832.

It runs on every Keras backend: only ``compute_loss`` is overridden, and Keras supplies the
training step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from face_encode.errors import InputError
from face_encode.types import check_number


@keras.saving.register_keras_serializable(package="face_encode", name="DistanceLayer")
class DistanceLayer(keras.layers.Layer):  # type: ignore[misc]
    """Squared Euclidean distances from the anchor to the positive and to the negative."""

    def call(self, anchor: Any, positive: Any, negative: Any) -> tuple[Any, Any]:
        """Measure both distances.

        Args:
            anchor: Embeddings, float ``(N, D)``.
            positive: Embeddings of the same people, ``(N, D)``.
            negative: Embeddings of other people, ``(N, D)``.

        Returns:
            Anchor to positive and anchor to negative, each ``(N,)`` and at least 0.
        """
        return (
            keras.ops.sum(keras.ops.square(anchor - positive), axis=-1),
            keras.ops.sum(keras.ops.square(anchor - negative), axis=-1),
        )

    def compute_output_shape(
        self,
        anchor_shape: tuple[int | None, ...],
        positive_shape: tuple[int | None, ...],
        negative_shape: tuple[int | None, ...],
    ) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
        """One distance a triplet, twice."""
        return anchor_shape[:-1], anchor_shape[:-1]


@keras.saving.register_keras_serializable(package="face_encode", name="TripletModel")
class TripletModel(keras.Model):  # type: ignore[misc]
    """Siamese model that trains an embedding network on triplets.

    ``fit([anchor, positive, negative])`` and ``evaluate`` take three arrays of images, or a
    dataset whose batches are such triplets. They report ``loss``, the mean of
    ``max(d(anchor, positive) - d(anchor, negative) + margin, 0)`` over squared distances, and
    ``accuracy``, the share of triplets whose positive is strictly nearer than the negative.

    Attributes:
        embedding_network: The network that is trained; ``(N, height, width, 3)`` in, ``(N, D)``
            out. Save it by itself to use it as an encoder.
        margin: By how much the negative is to be farther than the positive, as a squared
            distance.
    """

    def __init__(
        self, embedding_network: keras.Model, margin: float = 0.5, **keywords: Any
    ) -> None:
        """Wrap an embedding network.

        Args:
            embedding_network: A Keras model that gives one vector an image.
            margin: A number above 0.
            **keywords: Arguments of every Keras model, such as ``name``.

        Raises:
            InputError: The margin is not a number above 0, or the network is no Keras model.
        """
        if not isinstance(embedding_network, keras.Model):
            raise InputError(
                "the embedding network is a Keras model. "
                f"Received: {type(embedding_network).__name__}"
            )
        super().__init__(**keywords)
        self.embedding_network = embedding_network
        self.margin = check_number(margin, "the margin", 0, ends=False)
        self.distance_layer = DistanceLayer(name="distances")
        self.accuracy = keras.metrics.Mean(name="accuracy")

    def call(self, inputs: Any, training: bool = False) -> tuple[Any, Any]:
        """Distances of a batch of triplets.

        Args:
            inputs: Anchor, positive and negative images, three times ``(N, height, width, 3)``.
            training: Whether dropout and batch normalisation behave as in training.

        Returns:
            Anchor to positive and anchor to negative, each ``(N,)``.
        """
        # One pass over all three: batch normalisation then sees one set of statistics. Three
        # passes would centre anchors, positives and negatives each on a mean of its own.
        embeddings = self.embedding_network(
            keras.ops.concatenate(list(inputs), axis=0), training=training
        )
        anchor, positive, negative = keras.ops.split(embeddings, 3, axis=0)
        return self.distance_layer(anchor, positive, negative)  # type: ignore[no-any-return]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The triplet loss of a batch, plus the penalties of the layers' regularizers."""
        positive_distance, negative_distance = y_pred
        loss = keras.ops.mean(keras.ops.relu(positive_distance - negative_distance + self.margin))
        for penalty in self.losses:
            loss = loss + keras.ops.cast(penalty, loss.dtype)
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Add a batch to the triplet accuracy, and return the metrics."""
        positive_distance, negative_distance = y_pred
        self.accuracy.update_state(keras.ops.cast(positive_distance < negative_distance, "float32"))
        return self.get_metrics_result()  # type: ignore[no-any-return]

    def fit(self, x: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Train, as ``keras.Model.fit`` does.

        Args:
            x: ``[anchor, positive, negative]``, or a dataset of such batches: a
                ``tf.data.Dataset``, a ``keras.utils.PyDataset`` or a generator.
            *arguments: Passed on.
            **keywords: Passed on; ``validation_data`` takes the same kinds as ``x``.
        """
        if keywords.get("validation_data") is not None:
            keywords["validation_data"] = _one_input(keywords["validation_data"], wrapped=True)
        return super().fit(_one_input(x), *arguments, **keywords)

    def evaluate(self, x: Any = None, *arguments: Any, **keywords: Any) -> Any:
        """Measure loss and accuracy, as ``keras.Model.evaluate`` does; ``x`` as for ``fit``."""
        return super().evaluate(_one_input(x), *arguments, **keywords)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild the model."""
        return {
            **super().get_config(),
            "embedding_network": keras.saving.serialize_keras_object(self.embedding_network),
            "margin": self.margin,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> TripletModel:
        """Rebuild from ``get_config``."""
        config = dict(config)
        config["embedding_network"] = keras.saving.deserialize_keras_object(
            config["embedding_network"], custom_objects=custom_objects
        )
        return cls(**config)


def _one_input(data: Any, wrapped: bool = False) -> Any:
    """Triplets as one input of the model.

    Keras reads a batch of three as (input, target, sample weight); here all three are input.
    """
    if isinstance(data, keras.utils.PyDataset):
        return _TripletBatches(data)
    if hasattr(data, "element_spec"):  # a tf.data.Dataset; TensorFlow may not be installed
        return data.map(lambda *batch: (_as_triplet(batch),))
    if isinstance(data, Iterator):
        return ((_as_triplet(batch),) for batch in data)
    if isinstance(data, list | tuple) and len(data) == 3:
        return (tuple(data),) if wrapped else tuple(data)
    return data


def _as_triplet(batch: Any) -> Any:
    """The triplet of a batch, whether or not it is one input already."""
    return tuple(batch[0]) if len(batch) == 1 else tuple(batch)


class _TripletBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of another dataset, each triplet as one input."""

    def __init__(self, batches: keras.utils.PyDataset) -> None:
        super().__init__(
            workers=batches.workers,
            use_multiprocessing=batches.use_multiprocessing,
            max_queue_size=batches.max_queue_size,
        )
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple[Any]:
        return (_as_triplet(self._batches[index]),)

    def on_epoch_end(self) -> None:
        self._batches.on_epoch_end()
