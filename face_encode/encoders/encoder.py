"""An encoder: a Keras model together with the contract by which it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from face_encode.encoders.compilation import Forward, compile_forward
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.engines import KERAS, ConvertedNetwork
from face_encode.encoders.quality import Qualities, QualityHead, split_quality, with_quality
from face_encode.errors import InputError, ModelFileError
from face_encode.forking import use_keras
from face_encode.types import Embeddings, ImageArray, check_count

if TYPE_CHECKING:
    import keras

# Larger batches no longer get faster on a CPU and take memory in proportion.
BATCH_SIZE = 32


class Encoder:
    """Turns crops of faces into embeddings.

    Attributes:
        contract: How the encoder is used.
        engine: The engine that runs it: ``"tensorflow"``, which is Keras on its configured backend,
            or another one's name.
        quality_head: Judges its embeddings; None for an encoder that does not.
    """

    def __init__(
        self,
        model: keras.Model,
        contract: EncoderContract,
        quality_head: QualityHead | None = None,
    ) -> None:
        """Make an encoder of a Keras model and its contract; Keras runs it.

        Args:
            model: ``(N, height, width, 3)`` in, ``(N, D)`` out.
            contract: How the model is used.
            quality_head: Judges the embeddings; None for an encoder that does not.

        Raises:
            ModelFileError: The model is not one image in, one vector out, or does not take crops of
                the contract's size; or the head takes other features than the model has.
        """
        use_keras()
        _check_shapes(model, contract)
        self._judged = with_quality(model, quality_head, contract.crop)
        self.quality_head = quality_head
        self.contract = contract
        self.engine = KERAS
        self._load_model: Callable[[], keras.Model] = lambda: model

    @classmethod
    def on_engine(
        cls,
        engine: str,
        forward: Forward,
        network: ConvertedNetwork,
        load_model: Callable[[], keras.Model],
        quality_head: QualityHead | None = None,
    ) -> Encoder:
        """Make an encoder that another engine than Keras runs.

        Args:
            engine: The engine's name.
            forward: The forward pass, mirror image and quality head included.
            network: The encoder's network.
            load_model: Loads the Keras model, when it is first used.
            quality_head: The head that the forward pass includes.
        """
        encoder = cls.__new__(cls)
        encoder.contract = network.contract
        encoder.quality_head = quality_head
        encoder.engine = engine
        encoder._load_model = load_model
        encoder._forward = forward
        encoder.embedding_size = network.embedding_size
        encoder.fingerprint = network.fingerprint
        return encoder

    def __repr__(self) -> str:
        return f"Encoder({self.name!r}, {self.contract.crop} -> {self.embedding_size})"

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self.contract.name

    @cached_property
    def model(self) -> keras.Model:
        """The Keras model: ``(N, height, width, 3)`` in, ``(N, D)`` out."""
        return self._load_model()

    @cached_property
    def embedding_size(self) -> int:
        """Length D of an embedding."""
        return int(self.model.output_shape[-1])

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, the same for encoders that embed alike.

        A hash of the layers' types, the weights, and the part of the contract that changes an
        embedding; not of the file's name or date, which change when it is copied, nor of the
        threshold, which may be calibrated again, nor of the engine. The layers' settings, such as
        strides and activations, are not part of it: networks that differ in these alone have the
        same fingerprint, and embed differently.
        """
        digest = hashlib.sha256()
        used = {
            "crop": self.contract.crop.as_dict(),
            "pixel_range": self.contract.pixel_range,
            "mirror": self.contract.mirror,
            "layers": [type(layer).__name__ for layer in self.model.layers],
        }
        digest.update(json.dumps(used, sort_keys=True).encode())
        for weight in self.model.get_weights():
            digest.update(str(weight.shape).encode())
            digest.update(np.ascontiguousarray(weight).tobytes())
        return digest.hexdigest()[:16]

    def encode(self, crops: ImageArray, *, batch_size: int = BATCH_SIZE) -> Embeddings:
        """Embed crops of faces, in batches; see ``embed``.

        Returns:
            float32 ``(N, D)``, not normalised.
        """
        return self.embed(crops, batch_size=batch_size)[0]

    def embed(
        self, crops: ImageArray, *, batch_size: int = BATCH_SIZE
    ) -> tuple[Embeddings, Qualities | None]:
        """Embed crops of faces, in batches, and judge how far the embeddings can be trusted.

        Args:
            crops: RGB, uint8, ``(N, height, width, 3)``, cut out by the contract's crop recipe.
            batch_size: At most this many crops go through the network at once.

        Returns:
            Embeddings, float32 ``(N, D)``, not normalised; and qualities, float32 ``(N,)``, within
            0..1: about 1 where the embedding is that of a good photo, about 0 where it is no nearer
            to the person than a stranger's. Below the contract's ``quality_threshold`` it is not
            to be trusted. None for an encoder without a quality head.

        Raises:
            InputError: Another shape or type; or ``batch_size`` is no count.
            EngineError: Keras runs the encoder, and this process is forked from one that used it.
        """
        check_count(batch_size, "batch_size")
        if self.engine == KERAS:
            use_keras()
        shape = (self.contract.crop.height, self.contract.crop.width, 3)
        is_array = isinstance(crops, np.ndarray)
        if not is_array or crops.dtype != np.uint8 or crops.shape[1:] != shape:
            received = f"{crops.dtype} {crops.shape}" if is_array else type(crops).__name__
            raise InputError(
                f"encoder {self.name!r} takes uint8 crops of shape "
                f"(N, {shape[0]}, {shape[1]}, 3). Received: {received}"
            )
        batches = [
            self._forward(crops[start : start + batch_size])
            for start in range(0, len(crops), batch_size)
        ]
        columns = self.embedding_size + (self.quality_head is not None)
        output = np.concatenate([*batches, np.empty((0, columns), np.float32)])
        return split_quality(output, self.embedding_size)

    @cached_property
    def _forward(self) -> Forward:
        return compile_forward(self._judged, self.contract)


def image_shape(model: keras.Model, name: str) -> tuple[int | None, int | None]:
    """Read the height and width of the one image that a model takes; None if any will do.

    Args:
        model: Any Keras model.
        name: The model's name in an error.

    Raises:
        ModelFileError: The model is not one RGB image in.
    """
    try:
        shape = model.input_shape
    except (AttributeError, ValueError) as error:
        raise ModelFileError(
            f"{name}: the model has no fixed input shape ({error}); call it once on an image "
            "before saving it"
        ) from error
    if isinstance(shape, list | dict) and len(shape) != 1:
        raise ModelFileError(
            f"{name}: an encoder takes one image; this model takes {len(shape)} inputs. Of a "
            "Siamese network, give the embedding network inside it"
        )
    if isinstance(shape, list):
        shape = shape[0]
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3:
        raise ModelFileError(
            f"{name}: an encoder takes RGB images of shape (N, height, width, 3). "
            f"Received: a model with input shape {shape}"
        )
    return shape[1], shape[2]


def _check_shapes(model: keras.Model, contract: EncoderContract) -> None:
    """Refuse a model that is not one image in, one vector out."""
    received = image_shape(model, contract.name)
    output_shape = model.output_shape
    if not isinstance(output_shape, tuple) or len(output_shape) != 2 or output_shape[1] is None:
        raise ModelFileError(
            f"{contract.name}: an encoder gives one vector an image, shape (N, D). "
            f"Received: a model with output shape {output_shape}"
        )
    expected = (contract.crop.height, contract.crop.width)
    if any(have not in (None, want) for have, want in zip(received, expected, strict=True)):
        raise ModelFileError(
            f"{contract.name}: the contract says crops of {expected[0]}x{expected[1]}, the "
            f"model takes {received[0]}x{received[1]}"
        )
