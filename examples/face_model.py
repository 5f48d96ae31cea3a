"""A statistical model of faces: draws people who do not exist, and further photos of them.

The model is an active appearance model (Cootes, Edwards and Taylor, 2001): one linear model covers
the colours of a face after it was warped onto the mean face, and the warp itself. Three additions:

* It is split into an even (mirror-symmetric) and an odd part, which is what a principal component
  analysis of the photos and their mirror images finds: the odd part holds turned heads and light
  from one side.
* A matte (the signed distance from the outline of head and hair) is modelled along, so that a
  drawn head can be put in front of any background.
* Within-person and between-people covariances are separate (probabilistic linear discriminant
  analysis; Prince and Elder, 2007), so that one draw gives the person and a second one the photo.

A file of the model holds means, components and covariances. It holds no photo.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

# The frame that faces are aligned to, in pixels: eyes 44 apart, midway between them (87.5, 92).
FRAME_WIDTH, FRAME_HEIGHT = 176, 208
EYE_DISTANCE, EYE_ROW = 44.0, 92.0
PARTS = ("even", "odd")
# How many pixels of the frame one sample of a channel covers: only luma needs every pixel.
CHANNEL_STEP = {"luma": 1, "chroma": 4, "flow": 4, "matte": 2}
BAND_DEVIATIONS = (1.0, 2.0, 4.0)
# An upper bound: restoring more of the fine detail than this turns ringing into wrinkles.
LARGEST_GAIN = 2.2
FORMAT = "face_encode invented people 1"


class FaceModelError(ValueError):
    """The photos or the model file cannot be used; the message says why."""


@dataclass(frozen=True, eq=False)
class Person:
    """Who somebody is: coefficients of the even and of the odd part."""

    even: NDArray[np.float64]
    odd: NDArray[np.float64]


def mirror(samples: FloatArray, is_flow: bool) -> FloatArray:
    """Mirror (count, rows, columns[, 2]) samples left to right; a flow also changes its sign."""
    mirrored: FloatArray = samples[:, :, ::-1].copy()
    if is_flow:
        mirrored[..., 0] *= -1
    return mirrored


def whole_from_half(half: FloatArray, part: str, is_flow: bool) -> FloatArray:
    """Complete left halves (count, rows, columns[, 2]) of even or odd samples to whole ones."""
    sign = 1.0 if part == "even" else -1.0
    return np.concatenate([half, np.float32(sign) * mirror(half, is_flow)], axis=2)


def split_bands(luma: FloatArray) -> list[FloatArray]:
    """Split off the fine bands of a luma picture: differences of Gaussians, finest first."""
    bands, finer = [], luma
    for deviation in BAND_DEVIATIONS:
        coarser = np.asarray(cv2.GaussianBlur(luma, (0, 0), deviation), np.float32)
        bands.append(finer - coarser)
        finer = coarser
    return bands


def draw_normal(
    generator: np.random.Generator, covariance: FloatArray, temperature: float
) -> NDArray[np.float64]:
    """Draw from N(0, temperature² covariance); negative eigenvalues count as zero."""
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    weights = np.sqrt(np.maximum(values, 0)) * generator.standard_normal(len(values))
    return np.asarray(temperature * (vectors @ weights), np.float64)


@dataclass(frozen=True, eq=False)
class FaceModel:
    """The learned model.

    Attributes:
        means: float32 left half of the mean of each channel (even part; the odd one is nought).
        components: by part and channel, float32 left halves (components, rows, columns[, 2]).
        within: by part, float32 (components, components) covariance of one person's photos.
        between: by part, the covariance of people; for the even part around their group's centre.
        centres: float32 (groups, components) of the even part: kinds of people, so that rare
            kinds can be drawn as often as the common ones.
        gains: float32 (bands, rows, columns) left halves, every 4th pixel: how much stronger each
            fine band is in photos than in the truncated model.
    """

    means: Mapping[str, FloatArray]
    components: Mapping[tuple[str, str], FloatArray]
    within: Mapping[str, FloatArray]
    between: Mapping[str, FloatArray]
    centres: FloatArray
    gains: FloatArray

    def draw_person(
        self, generator: np.random.Generator, group: int, temperature: float = 0.9
    ) -> Person:
        """Draw somebody new of a group (0 up to the number of centres)."""
        even = draw_normal(generator, self.between["even"], temperature)
        odd = draw_normal(generator, self.between["odd"], 0.8 * temperature)
        return Person(even=self.centres[group].astype(np.float64) + even, odd=odd)

    def draw_photo(
        self, generator: np.random.Generator, person: Person, temperature: float = 0.6
    ) -> Person:
        """Draw the coefficients of one photo of a person: light, expression and pose change."""
        return Person(
            even=person.even + draw_normal(generator, self.within["even"], temperature),
            odd=person.odd + draw_normal(generator, self.within["odd"], temperature),
        )

    def render(
        self, photo: Person, enlargement: int = 2, detail: float = 1.0
    ) -> tuple[FloatArray, FloatArray]:
        """Render a head.

        Args:
            photo: Coefficients, from `draw_photo`.
            enlargement: Pixels of the answer to one pixel of the model's frame.
            detail: 0 leaves the fine bands as the truncated model has them, which is soft; 1
                brings them to the strength that they have in photos.

        Returns:
            RGB float32 (height, width, 3), 0..255, and the signed distance from the head's
            outline in frame pixels, float32 (height, width), positive inside.
        """
        channel = {name: self._channel(photo, name) for name in CHANNEL_STEP}
        luma: NDArray[Any] = channel["luma"]
        bands = split_bands(luma)
        for band, half in zip(bands, self.gains, strict=True):
            gain = whole_from_half(half[None], "even", False)[0]
            clipped = np.clip(gain, 1, LARGEST_GAIN)
            excess = cv2.resize(clipped, (FRAME_WIDTH, FRAME_HEIGHT)) - 1
            luma = np.asarray(luma + band * (detail * excess), np.float32)
        size = (FRAME_WIDTH * enlargement, FRAME_HEIGHT * enlargement)
        planes = {
            name: cv2.resize(plane, size, interpolation=cv2.INTER_CUBIC)
            for name, plane in {**channel, "luma": luma}.items()
        }
        # The flow says where in the photo a point of the mean face lies; painting needs the
        # inverse, which a few fixed-point steps find since the flow is smooth.
        rows, columns = np.mgrid[: size[1], : size[0]].astype(np.float32)
        source_x, source_y = columns.copy(), rows.copy()
        for _ in range(6):
            flow = enlargement * cv2.remap(planes["flow"], source_x, source_y, cv2.INTER_LINEAR,
                                           borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
            source_x, source_y = columns - flow[..., 0], rows - flow[..., 1]
        luma, chroma, matte = (
            cv2.remap(planes[name], source_x, source_y, cv2.INTER_CUBIC,
                      borderMode=cv2.BORDER_REPLICATE)
            for name in ("luma", "chroma", "matte")
        )  # fmt: skip
        red_excess, blue_excess = chroma[..., 0] - 128, chroma[..., 1] - 128
        picture = np.dstack(  # ITU-R BT.601, as OpenCV's YCrCb
            [
                luma + 1.403 * red_excess,
                luma - 0.714 * red_excess - 0.344 * blue_excess,
                luma + 1.773 * blue_excess,
            ]
        )
        return np.clip(picture, 0, 255).astype(np.float32), np.asarray(matte, np.float32)

    def _channel(self, photo: Person, name: str) -> FloatArray:
        is_flow = name == "flow"
        total = whole_from_half(self.means[name][None], "even", is_flow)[0]
        for part, coefficients in (("even", photo.even), ("odd", photo.odd)):
            half = np.tensordot(coefficients.astype(np.float32), self.components[part, name], 1)
            total = total + whole_from_half(half[None], part, is_flow)[0]
        return np.asarray(total, np.float32)

    def save(self, path: Path) -> None:
        """Write the model as a compressed .npz without pickles, components as 8-bit integers."""
        arrays: dict[str, NDArray[Any]] = {"format": np.array(FORMAT)}
        for name, mean in self.means.items():
            arrays[f"mean_{name}"] = mean.astype(np.float32)
        for (part, name), components in self.components.items():
            flat = np.abs(components.reshape(len(components), -1))
            step = np.maximum(flat.max(axis=1), 1e-6) / 127
            shaped = step.reshape((-1,) + (1,) * (components.ndim - 1))
            arrays[f"components_{part}_{name}"] = np.rint(components / shaped).astype(np.int8)
            arrays[f"step_{part}_{name}"] = step.astype(np.float32)
        for part in PARTS:
            arrays[f"within_{part}"] = self.within[part].astype(np.float32)
            arrays[f"between_{part}"] = self.between[part].astype(np.float32)
        arrays["centres"] = self.centres.astype(np.float32)
        arrays["gains"] = self.gains.astype(np.float16)
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_face_model(path: Path) -> FaceModel:
    """Read a model that `FaceModel.save` wrote.

    Raises:
        FaceModelError: There is no such file, or it is something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["format"]) != FORMAT:
                raise FaceModelError(f"{path} is another version. Received: {file['format']}")
            components = {}
            for part in PARTS:
                for name in CHANNEL_STEP:
                    stored = file[f"components_{part}_{name}"].astype(np.float32)
                    step = file[f"step_{part}_{name}"]
                    shape = (-1,) + (1,) * (stored.ndim - 1)
                    components[part, name] = stored * step.reshape(shape)
            return FaceModel(
                means={name: file[f"mean_{name}"] for name in CHANNEL_STEP},
                components=components,
                within={part: file[f"within_{part}"] for part in PARTS},
                between={part: file[f"between_{part}"] for part in PARTS},
                centres=file["centres"],
                gains=file["gains"].astype(np.float32),
            )
    except FileNotFoundError:
        raise FaceModelError(f"There is no face model at {path}") from None
    except FaceModelError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise FaceModelError(f"{path} is not a face model: {error}") from error
