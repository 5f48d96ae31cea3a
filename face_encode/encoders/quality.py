"""Quality: how far an embedding can be trusted, by a head on the encoder's own features.

A network that recognises faces maps what it cannot read to a place of its own: a blurred or covered
face lies near all other blurred or covered faces, so that strangers become alike. The features
before the last layer with weights still tell such faces from good ones. A network of one hidden
layer on them learns how near the embedding stays to that of the same face undamaged, as CR-FIQA
(Boutros et al., 2023) and SER-FIQ (Terhorst et al., 2020) understand quality. It is part of the
graph that is compiled or converted, so that every engine runs both in one pass. Of several encoders
as one, each part's head judges, and the mean of their logits counts.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError, ModelFileError
from face_encode.types import CropRecipe, Embeddings

if TYPE_CHECKING:
    import keras

Qualities: TypeAlias = npt.NDArray[np.float32]
"""float32, shape ``(N,)``, within 0..1."""


@dataclass(frozen=True, eq=False)
class QualityHead:
    """The weights of a quality head: a hidden layer with relu, and one number, the logit.

    Attributes:
        kernel: float32 ``(F, H)``, of the hidden layer.
        bias: float32 ``(H,)``.
        output: float32 ``(H, 1)``, of the logit.
        offset: float32 ``(1,)``.
    """

    kernel: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    output: npt.NDArray[np.float32]
    offset: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        hidden = self.kernel.shape[-1:]
        shapes = [getattr(self, each.name).shape for each in fields(self)]
        if self.kernel.ndim != 2 or shapes[1:] != [hidden, (*hidden, 1), (1,)]:
            raise InputError(
                "a quality head is arrays of shapes (F, H), (H,), (H, 1) and (1,). "
                f"Received: {', '.join(map(str, shapes))}"
            )
        if not all(np.isfinite(getattr(self, each.name)).all() for each in fields(self)):
            raise InputError("the weights of a quality head are finite")

    def to_bytes(self) -> bytes:
        """The weights as an ``.npz`` file, the kernel rounded to float16."""
        arrays = {each.name: getattr(self, each.name) for each in fields(self)}
        file = io.BytesIO()
        np.savez(file, **{**arrays, "kernel": self.kernel.astype(np.float16)})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> QualityHead:
        """Read what ``to_bytes`` wrote.

        Raises:
            ModelFileError: Another file, or a damaged one.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                # ``to_bytes`` packs nothing, and a small file must not expand to a huge one.
                if sum(member.file_size for member in archive.zip.infolist()) > len(content):
                    raise ValueError("its arrays are packed")
                return cls(**{name: archive[name].astype(np.float32) for name in archive.files})
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, InputError) as error:
            raise ModelFileError(f"the quality head is damaged: {error}") from error

    @classmethod
    def side_by_side(cls, heads: Sequence[QualityHead]) -> QualityHead:
        """One head for the features of several, one behind the other: the mean of their logits."""
        kernel = np.zeros(np.sum([head.kernel.shape for head in heads], axis=0), np.float32)
        row = column = 0
        for head in heads:
            rows, columns = head.kernel.shape
            kernel[row : row + rows, column : column + columns] = head.kernel
            row, column = row + rows, column + columns
        return cls(
            kernel,
            np.concatenate([head.bias for head in heads]),
            np.concatenate([head.output / len(heads) for head in heads]),
            np.mean([head.offset for head in heads], axis=0),
        )


def last_features(model: keras.Model) -> Any:
    """The features that a model's last layer with weights takes, as a Keras tensor ``(N, F)``.

    Raises:
        ModelFileError: The model has no layer with weights, or its layers are not a graph.
    """
    import keras

    layers = [layer for layer in model.layers if layer.weights]
    try:
        return keras.layers.Flatten(name="quality_features")(layers[-1].input)
    except (IndexError, AttributeError, ValueError) as error:
        raise ModelFileError(
            f"a quality head takes the features before the last layer with weights of a Keras "
            f"graph; the model {model.name!r} has none: {error}"
        ) from error


def with_features(model: keras.Model, crop: CropRecipe) -> keras.Model:
    """A model that also gives the features that a quality head takes.

    Args:
        model: ``(N, height, width, 3)`` in, ``(N, D)`` out.
        crop: What it takes; for a stack, the model holds a network a part.

    Returns:
        The same in; ``[(N, D), (N, F)]`` out, ``last_features`` of the model or, one behind the
        other, of its networks.

    Raises:
        ModelFileError: There are no such features.
    """
    import keras

    if not crop.parts:
        return keras.Model(model.inputs[0], [model.output, last_features(model)])
    features: dict[str, Any] = {}

    def call(layer: Any, *inputs: Any, **settings: Any) -> Any:
        """Call a layer; of a network, keep the features too."""
        if not isinstance(layer, keras.Model):
            return layer(*inputs, **settings)
        told = keras.Model(layer.inputs[0], [layer.output, last_features(layer)])
        output, features[layer.name] = told(*inputs)
        return output

    # The layers themselves, not copies of them, in another graph.
    same = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    # They are called in no order that is promised.
    ordered = [features[layer.name] for layer in model.layers if layer.name in features]
    both = keras.layers.Concatenate(dtype="float32", name="features_side_by_side")(ordered)
    return keras.Model(same.inputs[0], [same.output, both])


def with_quality(model: keras.Model, head: QualityHead | None, crop: CropRecipe) -> keras.Model:
    """A model that also gives the logit of the quality, behind the embedding's numbers.

    Args:
        model: As for ``with_features``.
        head: The head; None gives the model back as it is.
        crop: As for ``with_features``.

    Returns:
        The same in, ``(N, D + 1)`` out, with the model's own weights.

    Raises:
        ModelFileError: The head takes other features than the model has.
    """
    if head is None:
        return model
    import keras

    told = with_features(model, crop)
    embedding, features = told.outputs
    if features.shape[-1] != len(head.kernel):
        raise ModelFileError(
            f"the quality head of {model.name!r} takes {features.shape[-1]} features. "
            f"Received: a head for {len(head.kernel)}"
        )
    hidden = keras.layers.Dense(len(head.bias), "relu", dtype="float32", name="quality_hidden")
    logit = keras.layers.Dense(1, dtype="float32", name="quality_logit")
    both = keras.layers.Concatenate(dtype="float32", name="embedding_and_quality")
    judged = keras.Model(told.inputs[0], both([embedding, logit(hidden(features))]))
    hidden.set_weights([head.kernel, head.bias])
    logit.set_weights([head.output, head.offset])
    return judged


def split_quality(output: Embeddings, embedding_size: int) -> tuple[Embeddings, Qualities | None]:
    """Part what a model ``with_quality`` gives.

    Args:
        output: float32 ``(N, D + 1)``, or ``(N, D)`` of a model without a head.
        embedding_size: D.

    Returns:
        Embeddings float32 ``(N, D)``, and qualities float32 ``(N,)``, or None without a head.
    """
    if output.shape[1] == embedding_size:
        return output, None
    with np.errstate(over="ignore"):
        qualities = np.asarray(1 / (1 + np.exp(-output[:, embedding_size])), np.float32)
    return np.ascontiguousarray(output[:, :embedding_size]), qualities
