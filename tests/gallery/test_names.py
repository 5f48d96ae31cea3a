"""The one rule for people's names: what is seen, and what is compared."""

from __future__ import annotations

import numpy as np
import pytest

from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError
from face_encode.gallery.base import check_name, folded_name, one_name_a_person, shown_form
from face_encode.gallery.memory import MemoryGallery


@pytest.mark.parametrize(
    "name",
    [
        *("Ada\u200e", "\u200fAda", "A\u061cda", "Ad\u202ea", "\u2066Ada\u2069", "A\u200bda"),
        *(
            "Ada\u2060",
            "\ufeffAda",
            "A\u00adda",
            "Ada\u3164",
            "Ada\u2800",
            "Ada\u180e",
            "ADA\u034f",
        ),
    ],
)
def test_what_is_not_seen_makes_no_other_name(name: str) -> None:
    assert shown_form(name).casefold() == "ada"
    assert folded_name(name) == folded_name("Ada")


@pytest.mark.parametrize(
    "name", ["\u0410da", "Ad\u0430", "\u0391da", "Ada\u200d", "A\u200cda", "Ada\ufe0f", "ＡＤＡ"]
)
def test_what_looks_alike_is_compared_as_alike(name: str) -> None:
    assert folded_name(name) == folded_name("Ada")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Ада", "Ada"),
        ("Ωmega", "Omega"),
        ("Ева", "Eba"),
        ("Ada", "Adӓ"),
    ],
)
def test_names_of_other_scripts_stay_names_of_their_own(name: str, other: str) -> None:
    assert folded_name(name) != folded_name(other)


def test_joiners_stay_in_names_that_are_written_with_them() -> None:
    for name in ("می\u200cخواهم", "👩🏽\u200d🚀", "क्\u200dष"):
        assert shown_form(name) == name


@pytest.mark.parametrize("name", ["\u200e", " \u200b ", "\u3164", "\u200d", "\ufe0f", ""])
def test_a_name_that_shows_nothing_is_none(name: str) -> None:
    with pytest.raises(InputError, match="a person's name is text"):
        check_name(name)


def test_a_look_alike_is_the_person_who_is_enrolled(tiny: Encoder) -> None:
    gallery = MemoryGallery(tiny)
    gallery.add(["Ada"], np.ones((1, 4), np.float32))
    names, notes = one_name_a_person(["\u0410da", "Bo\u200e"], gallery)
    assert names == {"\u0410da": "Ada", "Bo\u200e": "Bo"}
    assert len(notes) == 2
