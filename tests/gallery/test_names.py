from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from face_encode.errors import InputError
from face_encode.gallery.base import check_name, check_names


@pytest.mark.parametrize("name", ["Ada", "Ada Lovelace", "王小明", "O'Brien-Ñ", "نیم\u200cفاصله"])
def test_names_of_any_script_are_allowed(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[2J", "\ud800", None, 3])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(InputError, match="a person's name is text"):
        check_name(name)


def test_many_names_are_judged_as_one_is() -> None:
    check_names(["Ada", "نیم\u200cفاصله", "王小明"])
    check_names([])
    for name in ("", " ", "a\nb", "\x7f", "\x9f", "\ud800", "\udfff", None, 3):
        with pytest.raises(InputError, match="a person's name is text"):
            check_names(["Ada", name])  # type: ignore[list-item]


def test_every_character_is_judged_alike() -> None:
    for code in range(0x110000):
        if unicodedata.category(chr(code)) in ("Cc", "Cs"):
            with pytest.raises(InputError):
                check_names([f"a{chr(code)}"])
    check_names(
        [f"a{chr(code)}" for code in range(0x110000) if unicodedata.category(chr(code))[0] != "C"]
    )
