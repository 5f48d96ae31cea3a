"""Several encoders as one: embeddings side by side, so that one cosine adds all similarities.

The similarities of two encoders have different units: between strangers those of ``dlib_resnet``
lie within 0.84 ± 0.034, those of ``mobilefacenet`` within 0.01 ± 0.103. Each is divided by its own
spread, weighted, and added: the usual normalisation before scores are fused (Jain, Nandakumar and
Ross, 2005). The embeddings are scaled for that once: of length 1 each, times the root of its weight
over its spread, they make one vector, whose cosine is the weighted mean of the similarities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from face_encode.encoders.contract import EncoderContract
from face_encode.errors import ModelFileError
from face_encode.types import CropRecipe

if TYPE_CHECKING:
    import keras


def combined_contract(
    parts: Sequence[EncoderContract], weights: Sequence[float]
) -> EncoderContract:
    """Make the contract of several encoders as one.

    Its threshold is the weighted mean of theirs, which fewer strangers reach than they reach each
    part's alone; it is not calibrated. Its quality threshold is the mean of theirs, as their
    qualities are averaged: in logits.

    Args:
        parts: At least two contracts, all with or all without the mirror image.
        weights: The weight of each part's similarity, in units of its spread.

    Raises:
        ModelFileError: These encoders cannot be taken together.
    """
    name = "+".join(part.name for part in parts)
    unknown = [part.name for part in parts if part.spread is None]
    if unknown:
        raise ModelFileError(
            f"{name}: encoders are taken together in units of the spread of their similarities "
            f"between strangers, which was not measured for {', '.join(unknown)}"
        )
    if len({part.name for part in parts}) < len(parts) or len({part.mirror for part in parts}) > 1:
        raise ModelFileError(
            f"{name}: encoders that are taken together differ, and all or none of them average the "
            f"mirror image. Received: mirror image {', '.join(str(part.mirror) for part in parts)}"
        )
    shares = _shares(parts, weights)
    threshold = sum(share * part.threshold for share, part in zip(shares, parts, strict=True))
    bounds = [part.quality_threshold for part in parts if part.quality_threshold is not None]
    # The mean of the logits, as the head takes it of the qualities.
    odds = math.prod(bound / (1 - bound) for bound in bounds) ** (1 / len(parts))
    return EncoderContract(
        name,
        CropRecipe.stacked([part.crop for part in parts]),
        threshold=threshold,
        mirror=parts[0].mirror,
        quality_threshold=round(odds / (1 + odds), 3) if len(bounds) == len(parts) else None,
        trained_on="; ".join(f"{part.name}: {part.trained_on}" for part in parts),
        licence="; ".join(f"{part.name}: {part.licence}" for part in parts),
    )


def combined_model(
    models: Sequence[keras.Model], parts: Sequence[EncoderContract], weights: Sequence[float]
) -> keras.Model:
    """Build the network of several encoders as one.

    Args:
        models: The parts' networks, which all take pixels of 0..255.
        parts: Their contracts.
        weights: As for ``combined_contract``.

    Returns:
        RGB 0..255, the crops of all parts stacked, float32 ``(N, height, width, 3)`` in; float32
        ``(N, D)`` out, D the sum of the parts', of length 1.
    """
    import keras

    crop = CropRecipe.stacked([part.crop for part in parts])
    inputs = keras.Input((crop.height, crop.width, 3), name="rgb")
    ends, factors = [], []
    shares = _shares(parts, weights)
    for model, part, (rows, columns), share in zip(
        models, parts, crop.places(), shares, strict=True
    ):
        cut = (rows.start, crop.height - rows.stop), (columns.start, crop.width - columns.stop)
        name = part.name
        x = model(keras.layers.Cropping2D(cut, name=f"{name}_crop")(inputs))
        ends.append(keras.layers.UnitNormalization(name=f"{name}_unit_length")(x))
        factors.append(np.full(ends[-1].shape[-1], share**0.5))
    whole = keras.layers.Concatenate(name="side_by_side")(ends)
    # A layer with weights, because these make the fingerprint, and settings do not.
    scale = keras.layers.Dense(whole.shape[-1], use_bias=False, name="shares")
    model = keras.Model(inputs, scale(whole), name="_and_".join(part.name for part in parts))
    scale.set_weights([np.diag(np.concatenate(factors))])
    return model


def _shares(parts: Sequence[EncoderContract], weights: Sequence[float]) -> list[float]:
    """The share of each part's cosine in that of the whole: weights over spreads, summing to 1."""
    factors = [weight / (part.spread or 1.0) for weight, part in zip(weights, parts, strict=True)]
    return [factor / sum(factors) for factor in factors]
