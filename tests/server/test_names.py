from __future__ import annotations

import pytest

from face_encode.errors import InputError
from face_encode.server.bodies import person_name


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("Ada", "Ada"),
        ("  Ada Lovelace\u00a0", "Ada Lovelace"),
        ("Zoe\u0308", "Zoë"),
        ("王小明", "王小明"),
        ("نیلوفر\u200cها", "نیلوفر\u200cها"),
        ("O'Brien-Smith, Jr.", "O'Brien-Smith, Jr."),
        ("x" * 200, "x" * 200),
        ("100 %? #1 & <b>", "100 %? #1 & <b>"),
    ],
)
def test_names_of_any_script(sent: str, name: str) -> None:
    assert person_name(sent) == name


NONE = ["", " ", "\u00a0", "a/b", "a\\b", ".", "..", ".a", "a\0", "a\nb", "a\x7f", "a\u2028b"]
NONE += ["\u202ea", "a\u2066", "\ud800", "x" * 201, "x" * 10**6, "\ue000", "\uffff"]


@pytest.mark.parametrize("sent", [*NONE, None, 1, b"a", ["a"], {}])
def test_what_is_no_name(sent: object) -> None:
    with pytest.raises(InputError, match="a person's name") as told:
        person_name(sent)
    assert len(str(told.value)) < 400
