"""What every gallery does, wherever it is kept: the same tests on each kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError, WrongEncoderError
from face_encode.gallery.memory import MemoryGallery
from tests.gallery.calibrations import BY_HAND
from tests.gallery.common import SIXTEEN, Identity, vectors
from tests.gallery.stores import Store

HALF = np.sqrt(0.5)


def test_an_empty_gallery(store: Store) -> None:
    gallery = store.open(Identity())
    for _ in range(2):
        assert len(gallery) == 0
        assert gallery.people() == {}
        assert gallery.embeddings.shape == (0, 2)
        assert gallery.names.tolist() == []
        assert gallery.search(vectors((1, 0), (0, 1))) == [[], []]
        assert gallery.known_photos("eyes") == {}
        assert gallery.detector_name == ""
        assert gallery.calibration is None
        with pytest.raises(GalleryError, match="nobody named 'Ada'"):
            gallery.remove("Ada")
        with pytest.raises(GalleryError, match="nobody named 'Ada'"):
            gallery.rename("Ada", "Bo")
        gallery = store.again(gallery)


def test_holds_what_was_added(store: Store) -> None:
    gallery = store.filled()
    for _ in range(2):
        assert len(gallery) == 3
        assert gallery.people() == {"Ada": 2, "Bo": 1}
        assert gallery.names.tolist() == ["Ada", "Bo", "Ada"]
        store.assert_holds(gallery, (1, 0), (0, 2), (3, 3))
        assert gallery.encoder_name == "one"
        assert gallery.encoder_fingerprint == "f1"
        assert gallery.precision == ("int8" if store.int8 else "float32")
        assert gallery.metric == "cosine"
        gallery = store.again(gallery)


def test_adding_nobody_changes_nothing(store: Store) -> None:
    gallery = store.filled()
    gallery.add([], np.empty((0, 2), np.float32))
    assert gallery.people() == {"Ada": 2, "Bo": 1}


def test_the_same_photo_again(store: Store) -> None:
    gallery = store.filled()
    gallery.add(["Ada", "Bo"], vectors((1, 0), (1, 0)), ["a", "a"])
    expected = {"Ada": 2, "Bo": 2} if store.holds_once else {"Ada": 3, "Bo": 2}
    assert gallery.people() == expected
    # Without a digest nothing is known to be the same.
    gallery.add(["Cy", "Cy"], vectors((1, 0), (1, 0)))
    gallery.add(["Cy"], vectors((1, 0)), [""])
    assert gallery.people() == {**expected, "Cy": 3}


def test_a_search_gives_each_person_once_by_the_nearest_embedding(store: Store) -> None:
    # Against (1, 0): Ada's are at 0 and 45 degrees, Bo's at 90.
    # Against (0, 5): Bo's is at 0 degrees, Ada's nearest at 45.
    gallery = store.again(store.filled())
    found = gallery.search(vectors((1, 0), (0, 5)), k=5)
    assert [[match.name for match in row] for row in found] == [["Ada", "Bo"], ["Bo", "Ada"]]
    values = [[match.similarity for match in row] for row in found]
    np.testing.assert_allclose(values, [[1, 0], [1, HALF]], atol=store.tolerance)
    assert gallery.search(vectors((0, 5))) == [found[1][:1]]
    assert gallery.search(np.empty((0, 2), np.float32)) == []


def test_a_search_by_the_mean_of_a_persons_photos(store: Store) -> None:
    gallery = store.filled()
    found = gallery.search(vectors((1, 0), (0, 1)), k=2, ranking="mean")
    assert [[match.name for match in row] for row in found] == [["Ada", "Bo"], ["Bo", "Ada"]]
    values = [[match.similarity for match in row] for row in found]
    expected = [[(1 + HALF) / 2, 0], [1, HALF / 2]]
    np.testing.assert_allclose(values, expected, atol=store.tolerance)


def test_a_search_equals_the_plain_calculation(store: Store) -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(300, 16)).astype(np.float32)
    # One person has so many that the others are far behind.
    names = ["crowd" if number < 150 else f"p{number % 40}" for number in range(300)]
    embeddings[:150] = embeddings[0] + 0.01 * embeddings[:150]
    gallery = store.open(SIXTEEN)
    gallery.add(names[:200], embeddings[:200])
    gallery.add(names[200:], embeddings[200:])
    probes = np.concatenate([embeddings[:2], rng.normal(size=(20, 16))]).astype(np.float32)
    for probe, found in zip(probes, gallery.search(probes, k=7), strict=True):
        cosine = embeddings @ probe / np.linalg.norm(embeddings, axis=1) / np.linalg.norm(probe)
        best = dict.fromkeys(names, -2.0)
        for name, value in zip(names, cosine.tolist(), strict=True):
            best[name] = max(best[name], value)
        expected = sorted(best.items(), key=lambda item: -item[1])[:7]
        similarities = [match.similarity for match in found]
        assert similarities == pytest.approx([v for _, v in expected], abs=store.tolerance)
        if not store.int8:
            assert [match.name for match in found] == [name for name, _ in expected]


def test_similarities_stay_within_their_range(store: Store) -> None:
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(300, 2)).astype(np.float32)
    gallery = store.open(Identity())
    gallery.add([str(index) for index in range(300)], embeddings)
    assert max(match.similarity for (match,) in gallery.search(embeddings)) <= 1


def test_equally_near_people_come_in_the_order_of_their_names(store: Store) -> None:
    gallery = store.open(Identity())
    gallery.add(["Cy", "Bo", "Ada"], vectors((1, 0), (1, 0), (1, 0)))
    assert [match.name for match in gallery.search(vectors((1, 0)), k=3)[0]] == ["Ada", "Bo", "Cy"]
    assert gallery.search(vectors((1, 0)))[0][0].name == "Ada"


def test_removing_a_person_leaves_the_others_as_they_are(store: Store) -> None:
    gallery = store.filled()
    assert gallery.remove("Ada") == 2
    for _ in range(2):
        assert gallery.people() == {"Bo": 1}
        store.assert_holds(gallery, (0, 2))
        assert gallery.search(vectors((1, 0)))[0][0].name == "Bo"
        with pytest.raises(GalleryError, match="nobody named 'Ada'"):
            gallery.remove("Ada")
        gallery = store.again(gallery)
    gallery.remove("Bo")
    assert gallery.search(vectors((1, 0))) == [[]]


def test_renaming_a_person(store: Store) -> None:
    gallery = store.filled()
    gallery.add(["Ada"], vectors((1, 1)))
    assert gallery.rename("Ada", "Ada Lovelace, Countess") == 3
    for _ in range(2):
        assert gallery.people() == {"Ada Lovelace, Countess": 3, "Bo": 1}
        assert sorted(gallery.known_photos("", store.asked("a", "b", "c"))) == ["a", "b", "c"]
        gallery = store.again(gallery)
    with pytest.raises(GalleryError, match="'Bo' is enrolled already"):
        gallery.rename("Ada Lovelace, Countess", "Bo")
    with pytest.raises(InputError, match="name"):
        gallery.rename("Bo", " ")
    assert gallery.rename("Bo", "Bo") == 1
    assert gallery.people() == {"Ada Lovelace, Countess": 3, "Bo": 1}


def test_replacing_all_is_one_step(store: Store) -> None:
    gallery = store.filled()
    with pytest.raises(InputError):
        gallery.replace(["Cy"], vectors((np.nan, 0)), ["x"])
    assert gallery.people() == {"Ada": 2, "Bo": 1}
    gallery.replace(["Cy", "Ada"], vectors((1, 0), (1, 0)), ["x", "a"])
    assert store.again(gallery).people() == {"Cy": 1, "Ada": 1}


def test_replacing_some_leaves_the_others_as_they_are(store: Store) -> None:
    gallery = store.filled()
    mark = gallery.mark(["Ada", "Bo"])
    # None of Bo's photos could be used, so Bo stays though marked.
    gallery.replace(["Ada"], vectors((5, 5)), ["d"], "same people", mark=mark)
    assert gallery.names.tolist() == ["Bo", "Ada"]
    store.assert_holds(gallery, (0, 2), (5, 5))
    gallery.replace(["Ada"], vectors((6, 5)), ["e"], "nothing")
    assert gallery.people() == {"Bo": 1, "Ada": 2}
    assert sorted(gallery.known_photos("", store.asked("b", "d", "e", "a"))) == ["b", "d", "e"]


def test_known_photos_are_those_of_the_detector(store: Store) -> None:
    gallery = store.open(Identity())
    gallery.replace(["Ada", "Bo"], vectors((1, 0), (0, 1)), ["a", ""], detector_name="eyes")
    gallery = store.again(gallery)
    assert gallery.detector_name == "eyes"
    known = gallery.known_photos("eyes", store.asked("a"))
    assert list(known) == ["a"]
    np.testing.assert_allclose(known["a"], [1, 0], atol=store.tolerance)
    assert "a" in gallery.known_photos("eyes", {"a", "x"})
    assert gallery.known_photos("nose", store.asked("a")) == {}
    gallery.replace(["Ada"], vectors((1, 1)), ["b"], "nothing", detector_name="eyes")
    assert sorted(gallery.known_photos("eyes", store.asked("a", "b"))) == ["a", "b"]
    gallery.replace(["Cy"], vectors((1, 1)), ["c"], "nothing", detector_name="nose")
    # Of several detectors none can be named for all.
    assert gallery.detector_name == ""
    assert "c" not in gallery.known_photos("eyes", store.asked("c"))


NAMES = [
    "Élodie 王 سارا\u200cجان",
    "a' or 1=1",
    'a" or id != "',
    "back\\slash\\",
    "100% _like_ %",
    "{name}",
    "  spaces  ",
    "x" * 1000,
    "🙂",
]


def test_any_name_is_a_name(store: Store) -> None:
    gallery = store.filled()
    around = np.linspace(1, 2, len(NAMES))
    gallery.add(NAMES, np.stack([-np.cos(around), -np.sin(around)], axis=1), NAMES)
    gallery = store.again(gallery)
    # A database shows names without spaces around them, and finds them with any.
    shown = [gallery.find_name(name) or "" for name in NAMES]
    assert [name.strip() for name in shown] == [name.strip() for name in NAMES]
    assert gallery.people() == {"Ada": 2, "Bo": 1, **dict.fromkeys(shown, 1)}
    for name, match in zip(shown, gallery.search(gallery.embeddings[3:]), strict=True):
        assert match[0].name == name
        digest = NAMES[shown.index(name)]
        assert digest in gallery.known_photos("", {digest})
        assert gallery.rename(name, name + "!") == 1
        assert gallery.rename(name + "!", name) == 1
        assert gallery.remove(name) == 1
        assert name not in gallery.people()
    assert gallery.people() == {"Ada": 2, "Bo": 1}


@pytest.mark.parametrize(
    ("names", "embeddings", "digests", "message"),
    [
        (["A"], vectors((1, 2), (3, 4)), None, r"shape \(1, 2\)"),
        (["A"], vectors((1, 2, 3)), None, r"shape \(1, 2\)"),
        (["A"], vectors((np.inf, 2)), None, "finite"),
        (["A"], vectors((0, 0)), None, "zeros"),
        ([""], vectors((1, 2)), None, "name"),
        (["A\n"], vectors((1, 2)), None, "control characters"),
        (["\ud800"], vectors((1, 2)), None, "control characters"),
        (["A"], vectors((1, 2)), ["x", "y"], "digests"),
        (["A"], [["one", "two"]], None, "array of numbers"),
    ],
)
def test_what_cannot_be_enrolled_is_refused(
    names: list[str], embeddings: Any, digests: list[str] | None, message: str, store: Store
) -> None:
    gallery = store.open(Identity())
    with pytest.raises(InputError, match=message):
        gallery.add(names, embeddings, digests)
    assert len(gallery) == 0


def test_what_cannot_be_searched_for_is_refused(store: Store) -> None:
    gallery = store.filled()
    for probes in (vectors((1, 2, 3)), np.zeros(2, np.float32)):
        with pytest.raises(InputError, match=r"shape \(m, 2\)"):
            gallery.search(probes)
    with pytest.raises(InputError, match="finite"):
        gallery.search(vectors((np.nan, 1)))
    with pytest.raises(InputError, match="k is a whole number"):
        gallery.search(vectors((1, 2)), k=0)
    with pytest.raises(InputError, match="ranking"):
        gallery.search(vectors((1, 2)), ranking="worst")  # type: ignore[arg-type]


def test_its_rows_make_a_gallery_that_changes_apart(store: Store) -> None:
    gallery = store.filled()
    rows = gallery.rows()
    copied = MemoryGallery.from_rows(rows, Identity())
    copied.remove("Ada")
    assert gallery.people() == {"Ada": 2, "Bo": 1}
    gallery.remove("Bo")
    assert copied.people() == {"Bo": 1}
    assert copied.digests.tolist() == (["b"] if store.keeps_digests else [""])
    assert rows.names.tolist() == ["Ada", "Bo", "Ada"]
    assert rows.digests.tolist() == (["a", "b", "c"] if store.keeps_digests else [""] * 3)
    assert (rows.detector_name, rows.metric, rows.calibration) == ("", "cosine", None)
    assert rows.embeddings.dtype == np.float32 and rows.embeddings.shape == (3, 2)
    assert len(store.again(gallery).rows().names) == 2


def test_an_empty_gallery_has_no_rows(store: Store) -> None:
    rows = store.open(Identity()).rows()
    assert (rows.names.shape, rows.embeddings.shape, rows.digests.shape) == ((0,), (0, 2), (0,))
    assert len(MemoryGallery.from_rows(rows, Identity())) == 0


def test_another_encoders_gallery_is_refused_by_both_names(store: Store) -> None:
    if not store.is_kept:
        pytest.skip("it ends with the program")
    store.filled().close()
    with pytest.raises(WrongEncoderError, match=r"'one' \(f1\).*'two' \(f2\)"):
        store.open(Identity("two", "f2"))


def test_a_calibration_is_kept(store: Store) -> None:
    gallery = store.filled()
    gallery.calibration = BY_HAND
    assert gallery.rows().calibration == BY_HAND
    if store.is_kept:
        gallery = store.again(store.again(gallery))
        assert gallery.calibration == BY_HAND
        gallery.calibration = None
        gallery = store.again(gallery)
        assert gallery.calibration is None
