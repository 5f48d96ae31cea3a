"""The settings of a distillation, and recipes: files that hold them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from face_encode.errors import InputError, ModelFileError
from face_encode.files import as_path, open_regular, reason_of
from face_encode.types import check_number

# The least of a number above 0, and the most of one without a bound of its own.
_ABOVE_0, _MANY = 1e-9, 1_000_000_000
# Settings of the trainings, in numbers -> the least and the most.
_RANGES: Mapping[str, tuple[float, float]] = {
    "batch_size": (2, 65_536),
    "degradations": (1, 1000),
    "dropout": (0, 0.99),
    "embedding_size": (1, 65_536),
    "epochs": (1, _MANY),
    "expressions": (0.01, 0.99),
    "factor": (0, 1),
    "false_match_rate": (_ABOVE_0, 1 - _ABOVE_0),
    "frozen": (0, 4),
    "gender_accuracy": (0, 1),
    "head_units": (1, 65_536),
    "hidden": (1, 65_536),
    "hours": (_ABOVE_0, _MANY),
    "judged": (1, _MANY),
    "learning_rate": (_ABOVE_0, 1e38),  # float32 holds no more
    "margin": (0, 2),
    "mixup": (0, 1),
    "patience": (1, _MANY),
    "people_epochs": (0, _MANY),
    "people_learning_rate": (_ABOVE_0, 1e38),
    "photos": (2, _MANY),
    "probed": (0, _MANY),
    "refused": (0, 1),
    "same_photo": (0, 1),
    "screen": (-1, 1),
    "seed": (0, 2**32 - 1),
    "side": (32, 512),
    "sides": (32, 512),
    "smoothing": (0, 1),
    "steps": (1, _MANY),
    "test": (_ABOVE_0, 1 - _ABOVE_0),
    "validation": (_ABOVE_0, 1 - _ABOVE_0),
    "views": (1, 1000),
    "weight_decay": (0, 1),
    "weights": (0, _MANY),
    "width": (1 / 32, 8),
    "widths": (1 / 32, 8),
}


def check_ranges(settings: object, **others: tuple[float, float]) -> None:
    """Refuse settings of which a number is out of its range, or NaN.

    Args:
        settings: Of a training. Each is a number, several, or None, which is in any range.
        **others: Settings whose range is not the one that they have in most trainings.

    Raises:
        InputError: See above.
    """
    for name, (least, most) in {**_RANGES, **others}.items():
        value = getattr(settings, name, None)
        several = list(value.values()) if isinstance(value, dict) else value
        for number in several if isinstance(several, list | tuple) else (several,):
            if number is not None:
                check_number(number, name, least, most)


@dataclass(frozen=True)
class DistillConfig:
    """Settings of a distillation.

    Attributes:
        data: Folders: first one with a sub-folder a person, of whom some are held out; then any
            others, of people or, without sub-folders, of photos of unnamed people.
        output: The ``.keras`` file to write; views, checkpoints and logs lie beside it, in a
            folder of the same name ending in ``.training``.
        sides: Rows and columns of the student's input in each stage, not falling; the last is
            the finished student's.
        widths: Width of the student's convolutions in each stage, each a whole multiple of the
            one before; 1.0 is VGG16.
        epochs: Epochs of each stage; with ``hours``, its share of the time.
        steps: Batches an epoch.
        hours: Train for this time instead of a number of epochs.
        views: Views of each photo.
        crop: How the student's crops are cut out, a method of ``CropRecipe``; None for the first
            teacher's.
        margin: The margin of the student's crop; None for the first teacher's. With a tighter
            crop, the face fills more of few pixels.
        embedding_size: Length of the student's embedding; None for the first teacher's. Longer
            answers are brought to it by principal components.
        begin: An earlier student to continue from, ``student.keras`` in its run's folder; it is
            widened first where the width is a multiple of its own. None starts from random
            weights.
        new_teachers: Whether that student had other teachers: its last layer is then solved for
            these, in closed form.
        batch_size: Photos a step.
        optimizer: ``"muon"`` or ``"adamw"``.
        learning_rate: The highest learning rate, after a warm-up; it falls to 0 by one cosine over
            all stages.
        weight_decay: The optimizer's weight decay.
        mixup: Share of the views that are mixed with another.
        weights: How often photos are drawn: pattern of a path, from its folder's name on -> factor;
            a photo's factors are multiplied, and 0 leaves it out.
        screen: Two cosine similarities of the teachers' embeddings: above the first, two photos
            are the same photo, above the second the same person. Doubles, and photos of people
            held out in the further folders, are then left out. Empty for no screening.
        people_epochs: Epochs of a last stage on triplets of the people themselves, which is kept
            only if it helps; 0 leaves it out.
        people_learning_rate: The highest learning rate of that stage, by Adam.
        mixed_precision: Whether the student computes in bfloat16 and, on a CPU with OpenVINO, the
            teachers too.
        validation: Share of the first folder's people to choose the best epoch and the threshold
            by.
        test: Share of the first folder's people to report on.
        false_match_rate: The rate that the threshold is calibrated for.
        seed: The same seed gives the same result.
        data_name: Name of the photos in the contract; None for the folders' names.
        licence: Licence in the contract; None for the first teacher's.
    """

    data: tuple[Path, ...]
    output: Path
    sides: tuple[int, ...] = (48, 48, 64)
    widths: tuple[float, ...] = (0.25, 0.5, 0.5)
    epochs: tuple[int, ...] = (40, 40, 20)
    steps: int = 256
    hours: float | None = None
    views: int = 3
    crop: Literal["box", "dlib_chip", "arcface"] | None = None
    margin: float | None = None
    embedding_size: int | None = None
    begin: Path | None = None
    new_teachers: bool = False
    batch_size: int = 128
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = 6e-3
    weight_decay: float = 0.02
    mixup: float = 0.35
    weights: dict[str, float] = field(default_factory=dict)
    screen: tuple[float, ...] = ()
    people_epochs: int = 0
    people_learning_rate: float = 1e-4
    mixed_precision: bool = False
    validation: float = 0.15
    test: float = 0.2
    false_match_rate: float = 1e-3
    seed: int = 0
    data_name: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        if self.output.suffix != ".keras":
            raise ModelFileError(f"a model file's name ends in .keras. Received: {self.output}")
        if not self.data:
            raise InputError("a student learns from at least one folder. Received: none")
        stages = {len(self.sides), len(self.widths), len(self.epochs)}
        if len(stages) > 1 or not self.sides:
            raise InputError(
                "each stage has a side, a width and a number of epochs. Received: sides "
                f"{self.sides}, widths {self.widths}, epochs {self.epochs}"
            )
        check_ranges(self)
        if list(self.sides) != sorted(self.sides) or list(self.widths) != sorted(self.widths):
            raise InputError(
                "sides and widths do not fall from stage to stage. "
                f"Received: {self.sides}, {self.widths}"
            )
        if len(self.screen) not in (0, 2):
            raise InputError(
                "photos are screened by two cosine similarities, of one photo and of one person. "
                f"Received: {self.screen}"
            )
        if self.optimizer not in ("muon", "adamw"):
            raise InputError(f"the optimizer is one of muon, adamw. Received: {self.optimizer!r}")

    @property
    def run_folder(self) -> Path:
        """Folder of views, checkpoints and logs."""
        return self.output.with_suffix(".training")


SETTINGS = {
    one.name: str(one.type)
    for one in fields(DistillConfig)
    if one.name not in ("data", "output", "begin")
}
"""Names of the settings of a recipe -> their types."""

# The kinds of a setting's values, by the first of these names in its type.
_KINDS = {"float": int | float, "int": int, "bool": bool, "str": str, "Literal": str}


@dataclass(frozen=True)
class Recipe:
    """How to train a student, apart from the photos.

    Attributes:
        teachers: The encoders whose embeddings are learnt, as ``load_encoder`` takes them; empty
            for the default.
        detector: The detector, as ``load_detector`` takes it; None for the default.
        settings: Arguments of ``DistillConfig``.
    """

    teachers: tuple[str, ...] = ()
    detector: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Args:
        path: A JSON file with one object, whose keys are ``teacher`` (a name or a list of
            names), ``detector`` and the names of the settings; ``about`` is a comment and ignored.

    Raises:
        InputError: The file cannot be read, is no JSON object, or has an unknown setting or one
            of the wrong type.
    """
    path = as_path(path)
    content = read_object(path)
    teachers, detector = content.pop("teacher", []), content.pop("detector", None)
    teachers = [teachers] if isinstance(teachers, str) else teachers
    if not isinstance(teachers, list) or not all(isinstance(each, str) for each in teachers):
        raise InputError(f"{path}: 'teacher' is a name or a list of names. Received: {teachers!r}")
    if not isinstance(detector, str | None):
        raise InputError(f"{path}: 'detector' is a name. Received: {detector!r}")
    for name, value in content.items():
        check_setting(path, name, value, SETTINGS, ("teacher", "detector"))
    settings = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return Recipe(tuple(teachers), detector, settings)


def read_object(path: Path) -> dict[str, Any]:
    """Read the object of a recipe's file, without its comment ``about``.

    Raises:
        InputError: The file cannot be read, or is no JSON object.
    """
    try:
        with open_regular(path) as file:
            content = json.loads(file.read())
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the recipe {path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"a recipe is one JSON object. Received: {type(content).__name__}")
    content.pop("about", None)
    return content


def check_setting(
    path: Path, name: str, value: Any, settings: Mapping[str, str], others: Sequence[str]
) -> None:
    """Refuse an unknown setting of a recipe, or one of the wrong type.

    Args:
        path: The recipe's.
        name: The setting's.
        value: Its value.
        settings: Names of the settings -> their types.
        others: What a recipe may hold beside them, for the message.

    Raises:
        InputError: See above.
    """
    if name not in settings:
        raise InputError(
            f"{path}: a recipe sets {', '.join((*others, *settings))}. Received: {name!r}"
        )
    if not _fits(value, settings[name]):
        raise InputError(f"{path}: {name!r} is {settings[name]}. Received: {value!r}")


def _fits(value: Any, kind: str) -> bool:
    """Whether a value of JSON is one of a setting's type."""
    outer = {"tuple": list, "dict": dict}.get(kind.split("[")[0])
    if outer is not None and not isinstance(value, outer):
        return False
    items = value.values() if isinstance(value, dict) else value if outer else [value]
    inner = next(types for name, types in _KINDS.items() if name in kind)
    # To Python, true is a whole number.
    return all(
        isinstance(item, inner) and isinstance(item, bool) == (inner is bool) for item in items
    )
