"""Photos with an age, a gender or an expression to learn, as rules read them off the photos' paths.

Public sets write what a photo shows into its name or its folder's, each in its own way. A rule is a
regular expression of such paths, so that a set, or a folder of your own, needs no code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.attributes.answers import ANSWERS, EXPRESSIONS, GENDERS, PARTS, YEARS
from face_encode.detectors.base import Detector
from face_encode.errors import DatasetError, ImageError, InputError
from face_encode.files import as_path
from face_encode.photos.folders import photos_below
from face_encode.photos.reading import content_digest, read_image
from face_encode.terminal import with_progress
from face_encode.training.data import Rows, crop_photos, screen
from face_encode.types import CropRecipe, ImageArray, LeftOut

SPLITS = ("train", "validation", "test")
UNKNOWN = -1

# Pixels beyond the crop on every side, as a share of its side: room to turn and move it.
_ROOM = 0.125
# Side of the grey thumbnails by which doubles are found.
_THUMBNAIL = 16
# Ages are learnt as a bell over the years; labels and looks are less exact for older people.
_SPREAD, _SPREAD_PER_YEAR = 1.5, 0.04


@dataclass(frozen=True)
class LabelRule:
    """What the photos of a pattern show.

    Attributes:
        photos: Regular expression that fits a photo's whole path, from its folder's name on.
        labels: ``age``, ``gender``, ``expression``, ``group`` (for the report only) or ``split``
            -> the value; or what the group of that name in the expression may hold -> the value.
            Without an entry, what that group holds is the value.
        frame: For photos that are cut out faces already: left, top and side of the square that
            corresponds to the network's crop, as shares of the photo's width. None for photos in
            which the face is looked for.
    """

    photos: str
    labels: Mapping[str, Any]
    frame: tuple[float, float, float] | None = None

    def read(self, photo: str) -> dict[str, str] | None:
        """The labels of a photo; None where the pattern does not fit its path.

        Raises:
            InputError: The pattern is no regular expression, or finds what has no value.
        """
        try:
            found = re.fullmatch(self.photos, photo)
        except re.error as error:
            raise InputError(f"no regular expression: {self.photos!r} ({error})") from error
        if found is None:
            return None
        values = {name: text for name, text in found.groupdict().items() if text is not None}
        for name, value in self.labels.items():
            if isinstance(value, Mapping):
                if values.get(name) not in value:
                    raise InputError(
                        f"{photo}: {name} is one of {', '.join(value)}. "
                        f"Received: {values.get(name)!r}"
                    )
                values[name] = value[values[name]]
            else:
                values[name] = value
        return values

    def cut(self, image: ImageArray, recipe: CropRecipe, room: int = 0) -> ImageArray:
        """Map the frame onto a network's crop, and pixels around it; beyond the photo its edge.

        Args:
            image: RGB, uint8, ``(H, W, 3)``.
            recipe: The network's.
            room: Pixels around the crop.

        Returns:
            uint8 ``(height + 2 * room, width + 2 * room, 3)``.
        """
        assert self.frame is not None
        left, top, side = (share * image.shape[1] for share in self.frame)
        scale = recipe.height / side
        # The middle of the first pixel lies half a pixel within.
        shift = [(0.5 - start) * scale + room - 0.5 for start in (left, top)]
        transform = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        size = (recipe.width + 2 * room, recipe.height + 2 * room)
        crop = cv2.warpAffine(
            image, transform, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(crop, np.uint8)


@dataclass(frozen=True, eq=False)
class LabelledFaces:
    """Faces with what they show.

    Attributes:
        crops: uint8 ``(N, side, side, 3)``: the network's crop with room to move.
        ages: int64 ``(N,)``, years; ``UNKNOWN`` where it is not.
        genders: int64 ``(N,)``, indices into ``GENDERS``, or ``UNKNOWN``.
        expressions: int64 ``(N,)``, indices into ``EXPRESSIONS``, or ``UNKNOWN``.
        splits: int64 ``(N,)``, indices into ``SPLITS``.
        groups: str ``(N,)``, of the report; empty where there is none.
        photos: str ``(N,)``, paths from the folder's name on.
        files: Each photo's file.
        digests: str ``(N,)``, SHA-256 of the file.
        left_out: The photos that a rule fits, and that cannot be read, show no face or lie beside
            the folders; and folders that cannot be listed.
    """

    crops: ImageArray
    ages: npt.NDArray[np.int64]
    genders: npt.NDArray[np.int64]
    expressions: npt.NDArray[np.int64]
    splits: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    photos: npt.NDArray[np.str_]
    files: tuple[Path, ...]
    digests: npt.NDArray[np.str_]
    left_out: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        return len(self.crops)

    def part(self, rows: Rows) -> LabelledFaces:
        """Some rows."""
        files = tuple(self.files[row] for row in rows)
        arrays = {name: getattr(self, name)[rows] for name in _ARRAYS}
        return replace(self, files=files, **arrays)

    def rows_of(self, split: str) -> Rows:
        """The rows of one of ``SPLITS``."""
        return np.flatnonzero(self.splits == SPLITS.index(split))

    def targets(self, smoothing: float) -> npt.NDArray[np.float32]:
        """What a network is to answer, float32 ``(N, ANSWERS)``.

        Each part is a distribution, or 0 where the label is unknown.

        Args:
            smoothing: Share of the probability that is spread evenly over all expressions; of the
                genders half of it.
        """
        targets = np.zeros((len(self), ANSWERS), np.float32)
        known = self.ages != UNKNOWN
        ages = self.ages[known, np.newaxis]
        bells = np.exp(-0.5 * ((YEARS - ages) / (_SPREAD + _SPREAD_PER_YEAR * ages)) ** 2)
        targets[known, PARTS["age"]] = bells / bells.sum(axis=1, keepdims=True)
        for name, labels, share in (
            ("gender", self.genders, smoothing / 2),
            ("expression", self.expressions, smoothing),
        ):
            known, part = labels != UNKNOWN, targets[:, PARTS[name]]
            part[known] = share / part.shape[1]
            part[known, labels[known]] += 1 - share
        return targets


_ARRAYS = ("crops", "ages", "genders", "expressions", "splits", "groups", "photos", "digests")


def with_room(recipe: CropRecipe) -> CropRecipe:
    """The recipe of crops with room: a frame of pixels around the recipe's own."""
    room = round(_ROOM * recipe.height)
    side = recipe.height + 2 * room
    # dlib's chip of padding p shows 1 + 2p times the face.
    margin = ((1 + 2 * recipe.margin) * side / recipe.height - 1) / 2
    return CropRecipe("dlib_chip", side, side, margin)


def read_faces(
    folders: Sequence[Path],
    rules: Sequence[LabelRule],
    recipe: CropRecipe,
    detector: Detector,
    *,
    same_photo: float,
    progress: bool = True,
) -> LabelledFaces:
    """Read folders of photos, with their labels, and split them.

    A photo that no rule fits is passed over. Of photos with the same content one is used, one to be
    measured on first, and none where their labels differ. Where a rule gives no split, a photo's
    content decides: a tenth is tested on, a tenth validates. Photos to train on that look like one
    that is held out, or like each other, are left out.

    Args:
        folders: Of photos, or with sub-folders of photos.
        rules: The first that fits a photo counts.
        recipe: The network's, a ``dlib_chip``.
        detector: Finds the faces.
        same_photo: Correlation of two thumbnails from which they are of one photo.
        progress: Whether to show progress bars.

    Raises:
        DatasetError: No photo is left to train on or to validate.
        InputError: A label that is none.
    """
    parts = [_read_folder(folder, rules, recipe, detector, progress) for folder in folders]
    faces = replace(
        parts[0],
        files=tuple(file for part in parts for file in part.files),
        left_out=tuple(photo for part in parts for photo in part.left_out),
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS},
    )
    faces = faces.part(_distinct(faces))
    train = faces.rows_of("train")
    held_out = np.concatenate([faces.rows_of("validation"), faces.rows_of("test")])
    if not len(train) or not len(faces.rows_of("validation")):
        reasons = Counter(photo.reason for photo in faces.left_out).most_common(1)
        raise DatasetError(
            "there are photos to train on and photos to validate. Received: "
            f"{len(train)} and {len(faces.rows_of('validation'))}"
            + "".join(
                f"; {len(faces.left_out)} are left out, {count} of them: {reason}"
                for reason, count in reasons
            )
        )
    thumbnails = _thumbnails(faces.crops)
    (train,) = screen([thumbnails], [train], thumbnails[held_out], same_photo, same_photo)
    if not len(train):
        raise DatasetError(
            "every photo to train on looks like one that is held out. "
            f"Received: same_photo {same_photo}"
        )
    return faces.part(np.sort(np.concatenate([train, held_out])))


def _read_folder(
    folder: Path,
    rules: Sequence[LabelRule],
    recipe: CropRecipe,
    detector: Detector,
    progress: bool,
) -> LabelledFaces:
    """The faces of one folder that a rule fits."""
    # Resolved, since the folder's name is part of each photo's: "." has none, a link another.
    folder = as_path(folder).resolve()
    name = folder.name
    inside, unlisted = photos_below(folder)
    named = {f"{name}/{path}": labels_of(f"{name}/{path}", rules) for path in inside}
    ruled = {photo: found for photo, found in named.items() if found is not None}
    roomy = with_room(recipe)
    crops: list[ImageArray] = []
    photos: list[str] = []
    digests: list[str] = []
    left_out = [
        LeftOut(str(folder / where), name, f"a folder that cannot be listed: {reason}")
        for where, reason in unlisted
    ]
    room = (roomy.height - recipe.height) // 2
    framed = {photo: rule for photo, (rule, _) in ruled.items() if rule.frame is not None}
    for photo, rule in with_progress(framed.items(), len(framed), f"reading {name}", show=progress):
        file = folder.parent / photo
        try:
            image = read_image(file)
        except ImageError as error:
            left_out.append(LeftOut(str(file), photo, str(error).removeprefix(f"{file}: ")))
            continue
        crops.append(rule.cut(image, recipe, room))
        photos.append(photo)
        digests.append(content_digest(file))
    if unframed := ruled.keys() - framed.keys():
        # Straight from the photo, as in use: crops of crops would be of another sharpness.
        found = crop_photos(folder, roomy, detector, progress=progress)
        rows = [row for row, photo in enumerate(found.photos) if photo in unframed]
        left_out += [
            photo
            for photo in found.left_out
            if f"{name}/{Path(photo.photo).relative_to(folder).as_posix()}" in unframed
        ]
        crops += [np.asarray(found.crops[row]) for row in rows]
        photos += [found.photos[row] for row in rows]
        digests += [found.digests[row] for row in rows]
    files = tuple(folder.parent / photo for photo in photos)
    labels = [ruled[photo][1] for photo in photos]
    return LabelledFaces(
        np.stack(crops) if crops else np.empty((0, roomy.height, roomy.width, 3), np.uint8),
        np.array([_age_of(each) for each in labels], np.int64),
        np.array([_index_of(each, "gender", GENDERS) for each in labels], np.int64),
        np.array([_index_of(each, "expression", EXPRESSIONS) for each in labels], np.int64),
        np.array(
            [
                SPLITS.index(split_of(each, digest))
                for each, digest in zip(labels, digests, strict=True)
            ],
            np.int64,
        ),
        np.array([each.get("group", "") for each in labels], str),
        np.array(photos, str),
        files,
        np.array(digests, str),
        tuple(left_out),
    )


def labels_of(photo: str, rules: Sequence[LabelRule]) -> tuple[LabelRule, dict[str, str]] | None:
    """The first rule that fits a photo's path, and the labels; None where none does.

    Raises:
        InputError: As for ``LabelRule.read``.
    """
    for rule in rules:
        if (labels := rule.read(photo)) is not None:
            return rule, labels
    return None


def split_of(labels: Mapping[str, str], digest: str) -> str:
    """The split of the labels; else by the content, so that it stays where photos are added.

    Args:
        labels: Of a photo.
        digest: SHA-256 of its file.

    Raises:
        InputError: A split that is none of ``SPLITS``.
    """
    if "split" in labels:
        return SPLITS[_index_of(labels, "split", SPLITS)]
    return {0: "test", 1: "validation"}.get(int(digest[:8], 16) % 10, "train")


def _age_of(labels: Mapping[str, str]) -> int:
    if "age" not in labels:
        return UNKNOWN
    if not labels["age"].isascii() or not labels["age"].isdigit():
        raise InputError(f"an age is a whole number of years. Received: {labels['age']!r}")
    return min(int(labels["age"]), int(YEARS[-1]))


def _index_of(labels: Mapping[str, str], name: str, values: Sequence[str]) -> int:
    if name not in labels:
        return UNKNOWN
    if labels[name] not in values:
        raise InputError(f"{name} is one of {', '.join(values)}. Received: {labels[name]!r}")
    return values.index(labels[name])


def _distinct(faces: LabelledFaces) -> Rows:
    """One row of each content, the one most held out; none where the labels differ."""
    labels = np.stack([faces.ages, faces.genders, faces.expressions], axis=1)
    chosen: dict[str, int] = {}
    unclear = set()
    for row in np.argsort(-faces.splits, kind="stable").tolist():
        first = chosen.setdefault(str(faces.digests[row]), row)
        if (labels[first] != labels[row]).any():
            unclear.add(str(faces.digests[row]))
    return np.array(sorted(row for key, row in chosen.items() if key not in unclear), np.int64)


def _thumbnails(crops: ImageArray) -> npt.NDArray[np.float32]:
    """Grey thumbnails without their mean, of length 1, ``(N, pixels)``."""
    small = np.stack(
        [
            cv2.resize(
                cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY),
                (_THUMBNAIL, _THUMBNAIL),
                interpolation=cv2.INTER_AREA,
            )
            for crop in crops
        ]
    )
    flat = small.reshape(len(small), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(lengths, 1e-6), np.float32)


def rule_of(values: Any) -> LabelRule:
    """Read a rule of a recipe: an object with ``photos``, labels, and perhaps a ``frame``.

    Raises:
        InputError: No such object.
    """
    allowed = ("photos", "age", "gender", "expression", "group", "split", "frame")
    if not isinstance(values, dict) or not isinstance(values.get("photos"), str):
        raise InputError(f"a rule is an object with a pattern, 'photos'. Received: {values!r}")
    if unknown := set(values) - set(allowed):
        raise InputError(f"a rule sets {', '.join(allowed)}. Received: {sorted(unknown)}")
    frame = values.get("frame")
    is_frame = (
        isinstance(frame, list)
        and len(frame) == 3
        and all(isinstance(each, int | float) for each in frame)
    )
    if frame is not None and not (is_frame and frame[2] > 0):
        raise InputError(f"a frame is left, top and side, above 0. Received: {frame!r}")
    labels = {name: value for name, value in values.items() if name not in ("photos", "frame")}
    for name, value in labels.items():
        texts = value.values() if isinstance(value, dict) else [value]
        if not all(isinstance(each, str) for each in texts):
            raise InputError(f"{name} is text, or an object of texts. Received: {value!r}")
    if frame is None:
        return LabelRule(values["photos"], labels)
    left, top, side = map(float, frame)
    return LabelRule(values["photos"], labels, (left, top, side))
