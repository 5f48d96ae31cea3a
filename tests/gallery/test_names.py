from __future__ import annotations

from typing import Any

import pytest

from face_encode.errors import InputError
from face_encode.gallery.names import check_name


@pytest.mark.parametrize("name", ["Ada", "Ada Lovelace", "王小明", "O'Brien-Ñ", "نیم\u200cفاصله"])
def test_names_of_any_script_are_allowed(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[2J", "\ud800", None, 3])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(InputError, match="a person's name is text"):
        check_name(name)
