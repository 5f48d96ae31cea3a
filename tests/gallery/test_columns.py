from __future__ import annotations

import hashlib

import numpy as np
import pytest

from face_encode.gallery.columns import Enrolled, digest_texts, join_digests, pack_digests
from tests.gallery.common import like_faces


@pytest.fixture
def columns() -> Enrolled:
    first = Enrolled.nobody(16).joined(["Bo", "Ada", "Bo"], like_faces(3), ["aa", "bb", "cc"])
    return first.joined(["Cy", "Ada"], like_faces(2, seed=1), ["", "dd"])


def test_people_are_listed_once_in_the_order_of_enrolment(columns: Enrolled) -> None:
    assert columns.people == ("Bo", "Ada", "Cy")
    assert columns.owners.tolist() == [0, 1, 0, 2, 1]
    assert columns.counts.tolist() == [2, 2, 1]
    assert columns.names.tolist() == ["Bo", "Ada", "Bo", "Cy", "Ada"]
    assert columns.digest_texts.tolist() == ["aa", "bb", "cc", "", "dd"]
    np.testing.assert_array_equal(
        columns.scales, np.linalg.norm(columns.rows.astype(np.float32), axis=1)
    )


@pytest.mark.parametrize("kind", ["float32", "int8", "indexed"])
def test_without_some_the_others_stay_as_they_are(columns: Enrolled, kind: str) -> None:
    columns = {"int8": columns.quantized, "indexed": columns.indexed}.get(kind, lambda: columns)()
    fewer = columns.without(["Bo", "nobody"])
    assert fewer.people == ("Ada", "Cy")
    assert fewer.names.tolist() == ["Ada", "Cy", "Ada"]
    assert fewer.digest_texts.tolist() == ["bb", "", "dd"]
    np.testing.assert_array_equal(fewer.rows, columns.rows[[1, 3, 4]])
    np.testing.assert_array_equal(fewer.scales, columns.scales[[1, 3, 4]])
    if columns.coded is not None and fewer.coded is not None:
        np.testing.assert_array_equal(fewer.coded.codes, columns.coded.codes[[1, 3, 4]])
    assert columns.without(["nobody"]) is columns
    assert len(columns.without(["Ada", "Bo", "Cy"])) == 0


def test_an_index_grows_with_the_people(columns: Enrolled) -> None:
    more = columns.indexed().joined(["Di"], like_faces(1, seed=2), [""])
    assert more.coded is not None
    assert more.coded.codes.shape == (6, 16)
    assert more.indexed() is more
    np.testing.assert_array_equal(more.quantized().rows, more.coded.codes)


def test_a_renamed_person_stays_in_the_same_place(columns: Enrolled) -> None:
    renamed = columns.renamed("Ada", "Eve")
    assert renamed.people == ("Bo", "Eve", "Cy")
    assert columns.people == ("Bo", "Ada", "Cy")
    assert renamed.rows is columns.rows


def test_nobody_more_is_the_same(columns: Enrolled) -> None:
    assert columns.joined([], np.empty((0, 16), np.float32), []) is columns


def test_who_comes_after_all_are_gone_is_coded_as_they_were(columns: Enrolled) -> None:
    codes = columns.quantized()
    nobody = Enrolled.nobody(16, int8=True, quantizer=codes.quantizer)
    assert (len(nobody), nobody.people, nobody.is_int8) == (0, (), True)
    again = nobody.joined(["Bo"], codes.embeddings[:1], [""])
    np.testing.assert_array_equal(again.rows, codes.rows[:1])


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
