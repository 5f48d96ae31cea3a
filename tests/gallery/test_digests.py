from __future__ import annotations

import hashlib

import numpy as np
import pytest

from face_encode.gallery.columns import digest_texts, join_digests, pack_digests

FULL = [hashlib.sha256(bytes([number])).hexdigest() for number in range(3)]


@pytest.mark.parametrize(
    ("digests", "width"),
    [([], 0), (["", ""], 0), (FULL, 32), ([FULL[0], "", FULL[1]], 32), (["ab", "cd"], 1)],
)
def test_hexadecimal_digests_are_packed(digests: list[str], width: int) -> None:
    packed = pack_digests(digests)
    assert packed.dtype == np.uint8
    assert packed.shape == (len(digests), width)
    assert digest_texts(packed).tolist() == digests


@pytest.mark.parametrize(
    "digests",
    [["a", "b"], ["ab", "cdef"], ["AB"], ["a b", "c"], ["ü"], ["00"], ["ab ", "cd"], ["zz"]],
)
def test_others_stay_as_they_are(digests: list[str]) -> None:
    packed = pack_digests(digests)
    assert packed.ndim == 1
    assert digest_texts(packed).tolist() == digests


@pytest.mark.parametrize("first", [[], [""], FULL, ["a"], ["ab"]])
@pytest.mark.parametrize("second", [[], ["", ""], FULL[:1], ["bcd"]])
def test_joining_keeps_each(first: list[str], second: list[str]) -> None:
    joined = join_digests(pack_digests(first), pack_digests(second))
    assert digest_texts(joined).tolist() == first + second
