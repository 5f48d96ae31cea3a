"""Recipes: what they say, and what they may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from face_encode.errors import InputError
from face_encode.training.distillation import SETTINGS, Distillation, read_recipe

SHIPPED = Path(__file__).parents[2] / "weights" / "vgg_embedding.json"


def test_the_shipped_recipe_is_one() -> None:
    recipe = read_recipe(SHIPPED)
    work = Distillation(Path("people"), Path("vgg_embedding.keras"), **recipe.settings)
    assert recipe.teacher == "dlib_resnet"
    assert work.sides[-1] >= 32
    assert work.test == 0.2


def test_a_recipe_sets_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"about": "a try", "sides": [32, 40], "margin": 0, "width": 1}))
    recipe = read_recipe(path)
    assert (recipe.teacher, recipe.detector) == (None, None)
    assert recipe.settings == {"sides": (32, 40), "margin": 0, "width": 1}


def test_every_setting_can_be_checked(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    for name in SETTINGS:
        path.write_text(json.dumps({name: {}}))
        with pytest.raises(InputError, match=rf"'{name}' is .*Received: \{{\}}"):
            read_recipe(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"side": [32]}, "Received: 'side'"),
        ({"sides": [32, "48"]}, "'sides' is tuple"),
        ({"batch_size": True}, "'batch_size' is int"),
        ({"mixed_precision": 1}, "'mixed_precision' is bool"),
        ({"teacher": 3}, "'teacher' is a name"),
        ({"data": "elsewhere"}, "Received: 'data'"),
        ([], "one JSON object"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_recipe(path)


def test_no_file_and_no_json_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_recipe(tmp_path / "recipe.json")
    (tmp_path / "recipe.json").write_text("sides: 32")
    with pytest.raises(InputError, match="no JSON"):
        read_recipe(tmp_path / "recipe.json")
