"""Augmented views with the teachers' answers, made once and kept on disk.

Teachers that are many times larger than their student would otherwise take most of the time of
each training step. Here they are asked once about each view, and the student sees the views as
often as there is time for. A view is a master crop, moved and lit; teachers and student each see
it cut out by their own recipe. Views are made in rounds, one view of each photo a round; an
interrupted run resumes after its last whole round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.detectors.alignment import crop_faces
from face_encode.encoders.conversion import convert
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import ENGINES, open_openvino
from face_encode.errors import InputError, ModelFileError
from face_encode.files import replacing
from face_encode.gallery.distances import unit_length
from face_encode.terminal import with_progress
from face_encode.training.augmentation import Augmentation
from face_encode.training.data import FaceCrops, Rows, load_kept, moved
from face_encode.types import CropRecipe, Embeddings, Face, ImageArray

_CHUNK = 256
# Pixels of a view beyond the student's crop, as a share of its side: room to move.
_ROOM = 0.05
# Of a second look at a view.
_LIGHT = 0.1
# Views from a face of few pixels, and how few, as a share of the crop's.
_SMALL_SHARE, _SMALLEST, _LEAST_SMALL = 0.2, 0.3, 0.7
# Largest change of a colour, largest loss of colour, and share of the views without any.
_TINT, _PALE, _GREY_SHARE = 0.06, 0.25, 0.06

Ask = Callable[[ImageArray], Embeddings]
"""From crops by a teacher's recipe, uint8, to embeddings ``(N, D)``."""


@dataclass(frozen=True, eq=False)
class Teachers:
    """One encoder, or several whose embeddings are learnt side by side.

    Attributes:
        encoders: The teachers.
        ask: Each teacher's function from crops to embeddings.
    """

    encoders: tuple[Encoder, ...]
    ask: tuple[Ask, ...]

    @classmethod
    def of(cls, encoders: Sequence[Encoder], fast: bool = False) -> Teachers:
        """Take encoders; with ``fast``, OpenVINO runs them in bfloat16 where it is installed."""
        ask = (in_bfloat16(each) if fast else each.encode for each in encoders)
        return cls(tuple(encoders), tuple(ask))

    @property
    def recipes(self) -> list[CropRecipe]:
        """How each teacher's crops are cut out."""
        return [encoder.contract.crop for encoder in self.encoders]

    def embed(self, crops: Sequence[ImageArray]) -> Embeddings:
        """Each teacher's embeddings of its own crops ``(N, ...)``, of length 1, side by side."""
        answers = zip(self.ask, crops, strict=True)
        return np.concatenate([unit_length(ask(part)) for ask, part in answers], axis=1)

    def embed_photos(self, data: FaceCrops, rows: Rows) -> Embeddings:
        """The embeddings of photos as they are, from their master crops."""
        parts = []
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            parts.append(self.embed([cut_out(data, part, recipe) for recipe in self.recipes]))
        return np.concatenate(parts)


def in_bfloat16(encoder: Encoder) -> Ask:
    """An encoder as OpenVINO runs it in bfloat16; as it is, where OpenVINO is not installed."""
    if not ENGINES["openvino"].is_installed:
        return encoder.encode
    import loky

    content = convert(encoder.model, encoder.contract, "onnx", mirror=encoder.contract.mirror)
    return open_openvino(content, int(loky.cpu_count()), "bf16")


def cut_out(data: FaceCrops, rows: Rows, recipe: CropRecipe) -> ImageArray:
    """Crops by a recipe, uint8 ``(N, height, width, 3)``, from master crops."""
    result = np.empty((len(rows), recipe.height, recipe.width, 3), np.uint8)
    for target, row in zip(result, rows, strict=True):
        target[:] = crop_faces(np.asarray(data.crops[row]), [data.faces[row]], recipe)[0]
    return result


@dataclass(frozen=True, eq=False)
class Views:
    """Views of photos, and the teachers' answers about them; indexed like one array of pixels.

    Attributes:
        pixels: Arrays of views, uint8 ``(N, s, s, 3)``: the student's crop with room to move;
            memory-mapped, read-only.
        answers: One array for each of pixels, float16 ``(N, D)``: ``Teachers.embed``.
    """

    pixels: tuple[ImageArray, ...]
    answers: tuple[npt.NDArray[np.float16], ...]

    def __len__(self) -> int:
        return sum(map(len, self.pixels))

    def __add__(self, other: Views) -> Views:
        return Views(self.pixels + other.pixels, self.answers + other.answers)

    def __getitem__(self, rows: Rows) -> ImageArray:
        ends = np.cumsum([len(part) for part in self.pixels])
        parts = np.searchsorted(ends, rows, side="right")
        # One at a time, because those of a batch lie in different files.
        return np.stack(
            [
                self.pixels[part][row - ends[part]]  # counted from the end
                for part, row in zip(parts, rows, strict=True)
            ]
        )


def make_views(
    data: FaceCrops,
    rows: Rows,
    teachers: Teachers,
    recipe: CropRecipe,
    folder: Path,
    *,
    rounds: int,
    augmentation: Augmentation | None = None,
    mixup: float = 0.35,
    seed: int = 0,
    progress: bool = True,
) -> Views:
    """Make views and ask the teachers about them, or take them from an earlier run.

    Args:
        data: Master crops.
        rows: The photos to make views of.
        teachers: Are asked about each view.
        recipe: How the student's crops are cut out, at the largest size that it will see.
        folder: Where the rounds are kept; one folder for each combination of the other arguments.
        rounds: Views of each photo.
        augmentation: How views differ from the crops.
        mixup: Share of views that are mixed with another photo's (mixup, Zhang et al., 2018). The
            teachers are asked about the mixture, so targets need no mixing.
        seed: The same seed gives the same views.
        progress: Whether to show a progress bar.

    Raises:
        InputError: No photo or no round.
        ModelFileError: The views cannot be written or read.
    """
    if len(rows) < 1 or rounds < 1:
        raise InputError(
            "views are made of at least 1 photo in at least 1 round. "
            f"Received: {len(rows)} photos, {rounds} rounds"
        )
    augment = augmentation or Augmentation()
    recipes = [*teachers.recipes, with_room(recipe)]
    for number in range(rounds):
        if _path(folder, "answers", number).is_file():
            continue
        starts = range(0, len(rows), _CHUNK)
        pixels = np.empty((len(rows), recipes[-1].height, recipes[-1].width, 3), np.uint8)
        answers: list[npt.NDArray[np.float16]] = []
        # Neighbours in the folder are mostly the same person: mixed ones are to be others.
        order = np.random.default_rng([seed, number]).permutation(len(rows))
        description = f"views, round {number + 1} of {rounds}"
        for start in with_progress(starts, len(starts), description, show=progress):
            part = order[start : start + _CHUNK]
            random = np.random.default_rng([seed, number, start])
            *seen, own = _draw_views(data, rows[part], recipes, augment, mixup, random)
            answers.append(teachers.embed(seen).astype(np.float16))
            pixels[part] = own
        in_order = np.concatenate(answers)[np.argsort(order)]
        # The answers last: once they are there, the round is whole.
        for kind, array in (("pixels", pixels), ("answers", in_order)):
            with replacing(_path(folder, kind, number), ModelFileError) as temporary:
                np.save(temporary, array, allow_pickle=False)
    return Views(
        tuple(load_kept(_path(folder, "pixels", number), folder) for number in range(rounds)),
        tuple(
            np.array(load_kept(_path(folder, "answers", number), folder))
            for number in range(rounds)
        ),
    )


def with_room(recipe: CropRecipe) -> CropRecipe:
    """The recipe of a crop with room to move on all sides, at the same scale."""
    side = recipe.height + 2 * round(recipe.height * _ROOM / 2)
    margin = ((1 + 2 * recipe.margin) * side / recipe.height - 1) / 2
    return replace(recipe, height=side, width=side, margin=margin)


def look(views: ImageArray, seed: int, side: int) -> npt.NDArray[np.float32]:
    """Look at views once more, in ways that hardly matter to a teacher.

    Each epoch thus shows the student new images without asking the teachers again. Of each view,
    uint8 ``(N, s, s, 3)``, a part is cut out that is the student's crop moved and scaled within
    the room around it, and resized, areas averaged on the way down; one in two is mirrored, and
    light and contrast are changed by up to a tenth. Gives float32 ``(N, side, side, 3)``, about
    0..255.
    """
    random = np.random.default_rng(seed)
    count, whole = views.shape[:2]
    least = round(whole / (1 + 1.5 * _ROOM))
    looks = np.empty((count, side, side, 3), np.float32)
    for view, target in zip(views, looks, strict=True):
        size = int(random.integers(least, whole + 1))
        top, left = random.integers(0, whole - size + 1, 2)
        method = cv2.INTER_AREA if side < size else cv2.INTER_LINEAR
        part = view[top : top + size, left : left + size]
        part = cv2.resize(part, (side, side), interpolation=method)
        target[:] = part[:, ::-1] if random.random() < 0.5 else part
    gain = random.uniform(1 - _LIGHT, 1 + _LIGHT, (count, 1, 1, 1)).astype(np.float32)
    lift = random.uniform(-_LIGHT, _LIGHT, (count, 1, 1, 1)).astype(np.float32) * 127.5
    result: npt.NDArray[np.float32] = (looks - 127.5) * gain + 127.5 + lift
    return result


def _draw_views(
    data: FaceCrops,
    rows: Rows,
    recipes: Sequence[CropRecipe],
    augment: Augmentation,
    mixup: float,
    random: np.random.Generator,
) -> list[ImageArray]:
    """Views of some photos, some mixed with another: the crops by each recipe."""
    seen = [np.empty((len(rows), recipe.height, recipe.width, 3), np.float32) for recipe in recipes]
    for number, row in enumerate(rows):
        view, face = _draw_view(np.array(data.crops[row]), data.faces[row], augment, random)
        for recipe, crops in zip(recipes, seen, strict=True):
            crops[number] = crop_faces(view, [face], recipe)[0]
    share = np.where(random.random(len(rows)) < mixup, random.random(len(rows)) / 2, 0)
    share = share[:, None, None, None].astype(np.float32)
    partner = random.permutation(len(rows))
    mixed = [crops * (1 - share) + crops[partner] * share for crops in seen]
    return [crops.round().astype(np.uint8) for crops in mixed]


def _draw_view(
    crop: ImageArray, face: Face, augment: Augmentation, random: np.random.Generator
) -> tuple[ImageArray, Face]:
    """A master crop turned, moved, mirrored, blurred and lit; and the face in it."""
    side = len(crop)
    angle = np.deg2rad(random.uniform(-augment.turn, augment.turn))
    scale = 1 + random.uniform(-augment.zoom, augment.zoom)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if augment.flip and random.random() < 0.5:
        linear = linear @ np.diag([-1.0, 1.0])
    middle = np.full(2, (side - 1) / 2)
    shift = middle - linear @ middle + random.uniform(-augment.shift, augment.shift, 2) * side
    pose = np.hstack([linear, shift[:, None]])
    if random.random() < _SMALL_SHARE:
        small = round(random.uniform(_SMALLEST, _LEAST_SMALL) * side)
        reduced = cv2.resize(crop, (small, small), interpolation=cv2.INTER_AREA)
        crop[:] = cv2.resize(reduced, (side, side), interpolation=cv2.INTER_LINEAR)
    # Cubic, because cutting out interpolates once more.
    turned = cv2.warpAffine(crop, pose, (side, side), flags=cv2.INTER_CUBIC)
    view: npt.NDArray[np.float64] = turned.astype(np.float64)
    pale = 1.0 if random.random() < _GREY_SHARE else random.uniform(0, _PALE)
    view += pale * (view.mean(axis=-1, keepdims=True) - view)
    gain = 1 + random.uniform(-augment.contrast, augment.contrast)
    tint = 1 + random.uniform(-_TINT, _TINT, 3)
    lift = random.uniform(-augment.brightness, augment.brightness) * 255
    view = (view - 127.5) * gain * tint + 127.5 + lift
    return view.round().clip(0, 255).astype(np.uint8), moved(face, pose)


def _path(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:03d}.npy"
