"""The network that tells age, gender and expression, and its file.

The crop is seen twice. Halved it goes through the first four blocks of a VGG16 of half width, as
``vgg_embedding`` has them, but the first, which would take a quarter of the time, has a quarter of
the width. Whole it goes through two convolutions for what halving takes away: fine hair, lashes,
skin; they join before the second block. Then comes a hidden layer for all three attributes: one
pass a face. It is run as an encoder is, by the same engines, and its numbers take the place of the
embedding.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from face_encode.attributes.answers import ANSWERS, Calibration
from face_encode.encoders.contract import (
    ATTRIBUTES_MEMBER,
    EncoderContract,
    read_member,
    save_encoder,
)
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import FASTEST, check_engine
from face_encode.encoders.quality import QualityHead
from face_encode.encoders.registry import ShippedEncoder, open_file
from face_encode.errors import InputError, ModelFileError
from face_encode.files import as_path

if TYPE_CHECKING:
    import keras

SIDE, WIDTH, DROPOUT = 96, 0.5, 0.3
HIDDEN = 192
DEFAULT_ATTRIBUTES = "face_attributes"


class AttributeNetwork:
    """A network with the calibration of its answers.

    Attributes:
        encoder: The network; its "embeddings" are rows of ``ANSWERS`` numbers.
        calibration: What makes these numbers probabilities.
    """

    def __init__(self, encoder: Encoder, calibration: Calibration) -> None:
        """Put the two together.

        Raises:
            ModelFileError: The network gives another number of numbers.
        """
        if encoder.embedding_size != ANSWERS:
            raise ModelFileError(
                f"a network of attributes gives {ANSWERS} numbers a face. "
                f"Received: {encoder.name!r}, which gives {encoder.embedding_size}"
            )
        self.encoder = encoder
        self.calibration = calibration

    def __repr__(self) -> str:
        return f"AttributeNetwork({self.encoder.name!r})"


def build_network(side: int = SIDE, width: float = WIDTH, dropout: float = DROPOUT) -> keras.Model:
    """Build the network, with fresh weights.

    Args:
        side: Rows and columns of the crops, even, at least 64.
        width: Multiplies the channels of every convolution; 1.0 is VGG16, but for the first block,
            which has half as many.
        dropout: Share of the units dropped before each layer of the head, while training.

    Returns:
        RGB 0..255 ``(N, side, side, 3)`` in, float32 ``(N, ANSWERS)`` out: logits.

    Raises:
        InputError: Another side.
    """
    import keras

    from face_encode.encoders.vgg16 import vgg16_backbone

    check_side(side)
    blocks = vgg16_backbone(
        (side // 2, side // 2, 3),
        width,
        batch_normalization=True,
        pixels="unit",
        first_width=width / 2,
    )
    pixels = keras.Input((side, side, 3), name="pixels")
    tensor = keras.layers.AveragePooling2D(2, name="half")(pixels)
    # Layers of their own: the second block takes more channels than VGG16's.
    for layer in blocks.layers[1:]:
        if layer.name == "block2_conv1":
            tensor = keras.layers.Concatenate(name="both")([tensor, _detail(pixels, width)])
        tensor = type(layer).from_config(layer.get_config())(tensor)
        if layer.name == "block4_pool":
            break
    features = keras.layers.Flatten(name="features")(tensor)
    return keras.Model(pixels, add_head(features, dropout), name=DEFAULT_ATTRIBUTES)


def check_side(side: int) -> None:
    """Refuse crops that cannot be halved, or whose halves are too small for four blocks.

    Raises:
        InputError: Such a side.
    """
    if side < 64 or side % 2:
        raise InputError(f"side is even and at least 64. Received: {side}")


def _detail(pixels: Any, width: float) -> Any:
    """What the whole crop shows, at a quarter of its side."""
    import keras

    tensor = keras.layers.Rescaling(1 / 255, name="detail_pixels")(pixels)
    for index, (side, stride) in enumerate(((5, 2), (3, 1)), start=1):
        tensor = keras.layers.Conv2D(
            max(1, round(64 * width)),
            side,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"detail_conv{index}",
        )(tensor)
        tensor = keras.layers.BatchNormalization(name=f"detail_bn{index}")(tensor)
        tensor = keras.layers.ReLU(name=f"detail_relu{index}")(tensor)
    return keras.layers.MaxPooling2D(2, name="detail_pool")(tensor)


def add_head(features: Any, dropout: float = DROPOUT) -> Any:
    """Put the hidden layer and the layer of the answers on features ``(N, F)``."""
    import keras

    features = keras.layers.Dropout(dropout, name="dropout1")(features)
    features = keras.layers.Dense(
        HIDDEN, "relu", kernel_initializer="he_normal", dtype="float32", name="hidden"
    )(features)
    features = keras.layers.Dropout(dropout, name="dropout2")(features)
    return keras.layers.Dense(ANSWERS, dtype="float32", name="answers")(features)


def load_attributes(
    name_or_path: str | os.PathLike[str] | None = None, engine: str | None = None
) -> AttributeNetwork:
    """Open a network of attributes.

    Args:
        name_or_path: ``"face_attributes"``, which comes with this package, also for None; or the
            path of a ``.keras`` file that ``face-encode train attributes`` wrote.
        engine: What runs it, as ``load_encoder`` takes it; None for ``"fastest"``.

    Raises:
        ModelFileError: No such name or file, or a file of something else.
        InputError: No such engine.
        MissingExtraError: The engine is not installed.
        EngineError: The engine cannot run the network, or not as Keras does.
    """
    engine = engine or FASTEST
    check_engine(engine)
    if name_or_path in (None, DEFAULT_ATTRIBUTES):
        path = ShippedEncoder(DEFAULT_ATTRIBUTES).path
    else:
        assert name_or_path is not None
        path = as_path(name_or_path)
        if path.suffix != ".keras":
            raise ModelFileError(
                f"attributes are told by {DEFAULT_ATTRIBUTES!r} or the path of a .keras file. "
                f"Received: {name_or_path!r}"
            )
    calibration = read_member(path, ATTRIBUTES_MEMBER, Calibration.from_json)
    if calibration is None:
        raise ModelFileError(
            f"{path} holds no network of attributes, as face-encode train attributes writes it"
        )
    return AttributeNetwork(open_file(path, engine), calibration)


def save_attributes(
    model: keras.Model,
    path: str | os.PathLike[str],
    contract: EncoderContract,
    calibration: Calibration,
    quality_head: QualityHead | None,
) -> None:
    """Save a network with everything that its use depends on, atomically, weights as float16.

    Args:
        model: From ``build_network``, trained.
        path: The file, ending in ``.keras``.
        contract: How faces are cut out; the quality's threshold; trained on what; licence.
        calibration: The network's.
        quality_head: Judges how far its answers can be trusted.

    Raises:
        ModelFileError: The path does not end in ``.keras``, or it cannot be written to.
    """
    save_encoder(
        model,
        path,
        contract,
        half_precision=True,
        quality_head=quality_head,
        members={ATTRIBUTES_MEMBER: calibration.to_json()},
    )
