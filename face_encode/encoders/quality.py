"""Quality: how far an embedding can be trusted, by a head on the encoder's own features.

A network that recognises faces maps what it cannot read to a place of its own: a blurred or covered
face lies near all other blurred or covered faces, so that strangers become alike. The features
before the last layer with weights still tell such faces from good ones. A network of one hidden
layer on them learns how near the embedding stays to that of the same face undamaged, as CR-FIQA
(Boutros et al., 2023) and SER-FIQ (Terhorst et al., 2020) understand quality. It is part of the
graph that is compiled or converted, so that every engine runs both in one pass.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError, ModelFileError
from face_encode.types import Embeddings

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


def with_quality(model: keras.Model, head: QualityHead | None) -> keras.Model:
    """A model that also gives the logit of the quality, behind the embedding's numbers.

    Args:
        model: ``(N, height, width, 3)`` in, ``(N, D)`` out.
        head: The head; None gives the model back as it is.

    Returns:
        The same in, ``(N, D + 1)`` out, with the model's own weights.

    Raises:
        ModelFileError: The head takes other features than the model has.
    """
    if head is None:
        return model
    import keras

    features = last_features(model)
    if features.shape[-1] != len(head.kernel):
        raise ModelFileError(
            f"the quality head of {model.name!r} takes {features.shape[-1]} features. "
            f"Received: a head for {len(head.kernel)}"
        )
    hidden = keras.layers.Dense(len(head.bias), "relu", dtype="float32", name="quality_hidden")
    logit = keras.layers.Dense(1, dtype="float32", name="quality_logit")
    both = keras.layers.Concatenate(dtype="float32", name="embedding_and_quality")
    judged = keras.Model(model.inputs[0], both([model.output, logit(hidden(features))]))
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
