"""Alignment: from a photo and a face in it to the crop that an encoder takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.types import Box, CropRecipe, Face, ImageArray
from face_encode.weights import installed_path

if TYPE_CHECKING:
    import dlib

# Places in ArcFace's frame of 112x112 pixels (Deng et al., 2019), x and y: centres of the eyes, tip
# of the nose, corners of the mouth.
ARCFACE_SIDE = 112
ARCFACE_POINTS = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
)
# dlib's five landmarks in the same frame, in dlib's order: medians over 221 photos whose transform
# was fitted to MTCNN's points.
DLIB_LANDMARKS_IN_ARCFACE = np.array(
    [(80.18, 52.95), (66.37, 53.41), (31.56, 53.47), (45.19, 53.74), (55.95, 79.97)]
)
# Places in OpenFace's frame of 96x96 pixels (its align_dlib.py), and dlib's landmarks that belong
# there: the outer corners of the eyes and the base of the nose.
OPENFACE_SIDE = 96
OPENFACE_PLACES = np.array([(18.639, 16.25), (75.73, 15.184), (47.515, 49.386)])
_OPENFACE_LANDMARKS = [2, 0, 4]

# Pixels of a photo to one of the crop, in each direction, at which the crop is nearest to the mean
# of the areas that its pixels cover. Measured on photos with noise: with 1 or 2 it is further off.
_OVERSAMPLING = 1.5

_predictor: dlib.shape_predictor | None = None


def crop_faces(image: ImageArray, faces: Sequence[Face], recipe: CropRecipe) -> ImageArray:
    """Cut faces out of a photo by an encoder's recipe.

    Args:
        image: RGB, uint8, ``(H, W, 3)``, at full size.
        faces: Faces in it.
        recipe: The encoder's.

    Returns:
        uint8 ``(N, recipe.height, recipe.width, 3)``.
    """
    crop = _METHODS[recipe.method]
    crops = np.empty((len(faces), recipe.height, recipe.width, 3), np.uint8)
    for index, face in enumerate(faces):
        crops[index] = crop(image, face, recipe)
    return crops


def crop_whole(image: ImageArray, recipe: CropRecipe) -> ImageArray:
    """Resize a whole photo to a crop, for photos that are crops of a face already.

    Returns:
        uint8 ``(recipe.height, recipe.width, 3)``.
    """
    if not recipe.parts:
        return _resize(image, recipe)
    return _stack([crop_whole(image, part) for part in recipe.parts], recipe)


# A portrait shows this share of the box around it on every side, enough for every crop recipe, and
# has at most so many pixels a side, more than any encoder sees.
_AROUND, _PORTRAIT_SIDE, _PORTRAIT_QUALITY = 0.6, 320, 92


def make_portrait(image: ImageArray, face: Face) -> bytes:
    """Cut a face out with what surrounds it, upright, so that any encoder can embed it later.

    Args:
        image: RGB, uint8, ``(H, W, 3)``.
        face: The face.

    Returns:
        A JPEG of at most 320 x 320 pixels.
    """
    margin_x, margin_y = (round(side * _AROUND) for side in (face.box.width, face.box.height))
    left, top = max(0, face.box.left - margin_x), max(0, face.box.top - margin_y)
    right, bottom = (
        face.box.left + face.box.width + margin_x,
        face.box.top + face.box.height + margin_y,
    )
    part = np.rot90(image[top:bottom, left:right], -face.rotation // 90)
    scale = min(1.0, _PORTRAIT_SIDE / max(part.shape[:2]))
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    small = cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode(
        ".jpg",
        cv2.cvtColor(small, cv2.COLOR_RGB2BGR),
        [cv2.IMWRITE_JPEG_QUALITY, _PORTRAIT_QUALITY],
    )
    return bytes(content)


def find_landmarks(image: ImageArray, box: Box, rotation: int = 0) -> npt.NDArray[np.float32]:
    """Find the five landmarks of a face by dlib's model (Kazemi and Sullivan, 2014).

    Args:
        image: RGB, uint8, ``(H, W, 3)``.
        box: The face, as a dlib detector frames it.
        rotation: As ``Face.rotation``; the landmarks are in the photo as it is.

    Returns:
        float32 ``(5, 2)``, x and y in pixels: whole numbers, as dlib gives them.
    """
    import dlib

    global _predictor
    if _predictor is None:
        _predictor = dlib.shape_predictor(str(installed_path("dlib_landmarks_5")))
    left = top = 0
    if rotation:
        # The model looks no further than this; a whole photo would take long to turn.
        left, top = max(0, box.left - box.width), max(0, box.top - box.height)
        image = image[top : box.top + 2 * box.height, left : box.left + 2 * box.width]
        box = Box(box.left - left, box.top - top, box.width, box.height)
    for _ in range(rotation // 90):
        box = Box(len(image) - box.top - box.height, box.left, box.height, box.width)
        image = np.rot90(image, -1)
    shape = _predictor(np.ascontiguousarray(image), _rectangle(box))
    landmarks = np.array([(point.x, point.y) for point in shape.parts()], np.float32)
    for _ in range(rotation // 90):
        landmarks = np.stack([landmarks[:, 1], image.shape[1] - 1 - landmarks[:, 0]], axis=1)
        image = np.rot90(image)
    return landmarks + np.array((left, top), np.float32)


def landmarks_of(image: ImageArray, face: Face) -> npt.NDArray[np.float32]:
    """The face's landmarks; found now where the detector gave none."""
    if face.landmarks is not None:
        return face.landmarks
    return find_landmarks(image, face.box, face.rotation)


def _rectangle(box: Box) -> dlib.rectangle:
    """Convert a box to dlib's, whose right and bottom are the last pixels inside."""
    import dlib

    right, bottom = box.left + box.width - 1, box.top + box.height - 1
    return dlib.rectangle(box.left, box.top, right, bottom)


def _crop_dlib_chip(image: ImageArray, face: Face, recipe: CropRecipe) -> ImageArray:
    """Cut out dlib's own chip, so that its network sees the pixels that it was trained on."""
    import dlib

    points = [dlib.point(round(float(x)), round(float(y))) for x, y in landmarks_of(image, face)]
    shape = dlib.full_object_detection(_rectangle(face.box), points)
    chip = dlib.get_face_chip(image, shape, size=recipe.height, padding=recipe.margin)
    return cast(ImageArray, chip)


def _crop_arcface(image: ImageArray, face: Face, recipe: CropRecipe) -> ImageArray:
    """Map the face onto ArcFace's frame."""
    if face.points is None:
        face = replace(face, landmarks=landmarks_of(image, face))
    return _warp(image, arcface_transform(face, recipe), recipe.height)


def arcface_transform(face: Face, recipe: CropRecipe) -> npt.NDArray[np.float64]:
    """The transform ``(2, 3)`` from a photo to the crop of a face in it, by an ArcFace recipe.

    One transform for the detector's points and dlib's landmarks together serves best. Of 709 pairs
    of a head turned far aside and the same person from the front, MobileFaceNet takes for one
    person at a false match rate of 1e-3 (1e-4): by dlib's landmarks 96.2 % (91.5), by YuNet's
    points 94.9 (87.2), by both 97.2 (91.8); by RetinaFace's points 97.6 (92.9), with landmarks
    97.2 (94.4). Choosing one of the two by the head's turn is no better. benchmarks/ALIGNMENT.md

    Raises:
        InputError: The face has neither points nor landmarks.
    """
    sets = ((face.points, ARCFACE_POINTS), (face.landmarks, DLIB_LANDMARKS_IN_ARCFACE))
    known = [(points, places) for points, places in sets if points is not None]
    if not known:
        raise InputError("a face is aligned by five points. Received: one without points")
    points, places = (np.concatenate(each) for each in zip(*known, strict=True))
    scale = recipe.height / (ARCFACE_SIDE * (1 + 2 * recipe.margin))
    return similarity_transform(points, (places + ARCFACE_SIDE * recipe.margin) * scale)


def _warp(image: ImageArray, transform: npt.NDArray[np.float64], side: int) -> ImageArray:
    """Map a photo onto a square by a linear transform; large faces without aliasing.

    Between the pixels of the crop, ``cv2.warpAffine`` passes over those of a large face. So the
    face's part of the photo is first shrunk, areas averaged, until that no longer happens.
    """
    factor = 1 / (_OVERSAMPLING * math.hypot(*transform[:, 0]))
    if factor > 1:
        corners = np.array([(0, 0, 1), (side, 0, 1), (0, side, 1), (side, side, 1)])
        corners = corners @ cv2.invertAffineTransform(transform).T
        ends = image.shape[1::-1]
        first = np.clip(corners.min(axis=0) - 2 * factor, 0, ends).astype(int)
        last = np.clip(corners.max(axis=0) + 2 * factor, 0, ends).astype(int)
        if (last > first).all():
            before = last - first
            after = np.maximum(1, np.rint(before / factor)).astype(int)
            image = image[first[1] : last[1], first[0] : last[0]]
            image = cast(ImageArray, cv2.resize(image, after, interpolation=cv2.INTER_AREA))
            # From the shrunk part to the photo: the middle of the first pixel is at 0.
            scale = before / after
            shift = first + (scale - 1) / 2
            transform = np.column_stack(
                [transform[:, :2] * scale, transform[:, :2] @ shift + transform[:, 2]]
            )
    crop = cv2.warpAffine(image, transform, (side, side), flags=cv2.INTER_LINEAR)
    return cast(ImageArray, crop)


def _crop_openface(image: ImageArray, face: Face, recipe: CropRecipe) -> ImageArray:
    """Map three landmarks onto OpenFace's frame by the affine transform that fits them exactly."""
    points = landmarks_of(image, face)[_OPENFACE_LANDMARKS].astype(np.float32)
    scale = recipe.height / (OPENFACE_SIDE * (1 + 2 * recipe.margin))
    places = (OPENFACE_PLACES + OPENFACE_SIDE * recipe.margin) * scale
    transform = cv2.getAffineTransform(points, places.astype(np.float32))
    return _warp(image, transform.astype(np.float64), recipe.height)


def similarity_transform(
    points: npt.NDArray[np.floating[Any]], places: npt.NDArray[np.floating[Any]]
) -> npt.NDArray[np.float64]:
    """Fit the turn, scale and shift that bring points nearest to places (Umeyama, 1991).

    Args:
        points: ``(N, 2)``, x and y in the photo.
        places: ``(N, 2)``, x and y in the crop.

    Returns:
        float64 ``(2, 3)``, as ``cv2.warpAffine`` takes it.
    """
    # A turn and a scale together are one complex factor.
    source, target = (np.asarray(each, np.float64) @ (1, 1j) for each in (points, places))
    centred = source - source.mean()
    length = np.vdot(centred, centred).real
    factor = np.vdot(centred, target) / length if length > 0 else 1.0
    shift = target.mean() - factor * source.mean()
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def _crop_box(image: ImageArray, face: Face, recipe: CropRecipe) -> ImageArray:
    """Cut out the box, grown by the margin on every side as far as the photo reaches."""
    extra_width, extra_height = (
        round(side * recipe.margin) for side in (face.box.width, face.box.height)
    )
    grown = Box(
        face.box.left - extra_width,
        face.box.top - extra_height,
        face.box.width + 2 * extra_width,
        face.box.height + 2 * extra_height,
    ).clamped(image.shape[1], image.shape[0])
    rows = slice(grown.top, grown.top + grown.height)
    columns = slice(grown.left, grown.left + grown.width)
    upright = np.rot90(image[rows, columns], -face.rotation // 90)
    return _resize(np.ascontiguousarray(upright), recipe)


def _crop_surroundings(image: ImageArray, face: Face, recipe: CropRecipe) -> ImageArray:
    """Cut out the box grown by the margin, as Silent-Face-Anti-Spoofing's ``CropImage`` does.

    Where the grown box is larger than the photo, it is shrunk until it fits; where it reaches out
    of the photo, it is moved. Resized as there, too: without averaging areas.
    """
    corner, sides = np.array([(face.box.left, face.box.top), (face.box.width, face.box.height)])
    ends = np.array(image.shape[1::-1]) - 1
    grown = sides * min(1 + 2 * recipe.margin, *(ends / sides))
    centre = sides / 2 + corner
    first, last = centre - grown / 2, centre + grown / 2
    last -= np.minimum(first, 0)
    first = np.maximum(first, 0) - np.maximum(last - ends, 0)
    (left, top), (right, bottom) = first.astype(int), np.minimum(last, ends).astype(int)
    part = np.rot90(image[top : bottom + 1, left : right + 1], -face.rotation // 90)
    size = (recipe.width, recipe.height)
    return cast(ImageArray, cv2.resize(np.ascontiguousarray(part), size))


def _resize(image: ImageArray, recipe: CropRecipe) -> ImageArray:
    """Resize to the recipe's size; areas are averaged on the way down, against aliasing."""
    shrinks = image.shape[0] > recipe.height or image.shape[1] > recipe.width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cast(ImageArray, cv2.resize(image, (recipe.width, recipe.height), interpolation=method))


def _crop_stack(image: ImageArray, face: Face, recipe: CropRecipe) -> ImageArray:
    """Cut out the parts of a stack."""
    if face.points is None and face.landmarks is None:
        # Looked for once, not by each part.
        face = replace(face, landmarks=landmarks_of(image, face))
    parts = [_METHODS[part.method](image, face, part) for part in recipe.parts]
    return _stack(parts, recipe)


def _stack(parts: Sequence[ImageArray], recipe: CropRecipe) -> ImageArray:
    """Put crops one below the other."""
    stack = np.zeros((recipe.height, recipe.width, 3), np.uint8)
    for part, (rows, columns) in zip(parts, recipe.places(), strict=True):
        stack[rows, columns] = part
    return stack


_METHODS: dict[str, Callable[[ImageArray, Face, CropRecipe], ImageArray]] = {
    "box": _crop_box,
    "surroundings": _crop_surroundings,
    "dlib_chip": _crop_dlib_chip,
    "arcface": _crop_arcface,
    "stack": _crop_stack,
    "openface": _crop_openface,
}
