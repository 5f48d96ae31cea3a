"""Recipes: the settings of a distillation in a file, so that it can be run again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from typing import Any

from face_encode.errors import InputError
from face_encode.files import as_path, open_regular, reason_of
from face_encode.training.settings import Distillation

SETTINGS = {
    one.name: one.type
    for one in fields(Distillation)
    if one.name not in ("data", "output", "begin")
}
"""What a recipe may set, with the type of each."""

_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "float | None": (int, float),
    "str | None": (str,),
    "bool": (bool,),
    "tuple[int, ...]": (list,),
    "Literal['muon', 'adamw']": (str,),
    'Literal["muon", "adamw"]': (str,),
}


@dataclass(frozen=True)
class Recipe:
    """How to train a student, apart from the photos.

    Attributes:
        teacher: Whose embeddings are learnt, as ``load_encoder`` takes it; None for the default.
        detector: What finds the faces, as ``load_detector`` takes it; None for the default.
        settings: Arguments of :class:`~face_encode.training.distillation.Distillation`.
    """

    teacher: str | None = None
    detector: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Args:
        path: A JSON file with one object, whose keys are ``teacher``, ``detector`` and the names
            of the settings; ``about`` is for people and passed over.

    Raises:
        InputError: The file cannot be read, is no JSON object, or sets something that there is
            not or to something that it cannot be.
    """
    path = as_path(path)
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
    names = {name: content.pop(name, None) for name in ("teacher", "detector")}
    for name, value in names.items():
        if not isinstance(value, str | None):
            raise InputError(f"{path}: {name!r} is a name. Received: {value!r}")
    for name, value in content.items():
        _check(name, value, str(path))
    settings = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return Recipe(names["teacher"], names["detector"], settings)


def _check(name: str, value: Any, path: str) -> None:
    if name not in SETTINGS:
        raise InputError(
            f"{path}: a recipe sets {', '.join(('teacher', 'detector', *SETTINGS))}. "
            f"Received: {name!r}"
        )
    kinds = _KINDS[str(SETTINGS[name])]
    # To Python, true is a whole number.
    is_kind = isinstance(value, kinds) and (isinstance(value, bool) == (bool in kinds))
    if isinstance(value, list):
        is_kind = is_kind and all(type(item) is int for item in value)
    if not is_kind:
        raise InputError(f"{path}: {name!r} is {SETTINGS[name]}. Received: {value!r}")
