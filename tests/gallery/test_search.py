from __future__ import annotations

import dataclasses
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from face_encode.errors import GalleryError
from face_encode.gallery import search
from face_encode.gallery.base import Ranking
from face_encode.gallery.columns import Enrolled
from face_encode.gallery.distances import Metric
from face_encode.gallery.search import Groups, search_enrolled, similarities_of
from face_encode.types import Embeddings
from tests.gallery.common import like_faces


@pytest.fixture(params=["short", "long"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to search, whatever the gallery's size."""
    limit = 1 << 60 if request.param == "short" else -1
    monkeypatch.setattr(search, "_FEW_SIMILARITIES", limit)
    return str(request.param)


def enrolled(count: int, people: int, size: int = 16, kind: str = "float32") -> Enrolled:
    names = [f"p{number % people:05d}" for number in range(count)]
    columns = Enrolled.nobody(size, int8=kind == "int8")
    columns = columns.joined(names, like_faces(count, size=size), [""] * count)
    return columns.indexed() if kind == "indexed" else columns


def plain(
    columns: Enrolled, probe: npt.NDArray[Any], k: int, ranking: Ranking, metric: Metric
) -> list[tuple[str, float]]:
    """The nearest people, by the definition and in double precision."""
    rows, one = columns.embeddings.astype(np.float64), probe.astype(np.float64)
    if metric == "euclidean":
        values = -np.linalg.norm(rows - one, axis=1)
    else:
        values = rows @ one / np.linalg.norm(rows, axis=1) / np.linalg.norm(one)
    of: dict[str, list[float]] = {}
    for name, value in zip(columns.names.tolist(), values.tolist(), strict=True):
        of.setdefault(name, []).append(value)
    fold = max if ranking == "best" else np.mean
    near = {name: float(fold(each)) for name, each in of.items()}
    return sorted(near.items(), key=lambda item: (-round(item[1], 7), item[0]))[:k]


@pytest.mark.parametrize("ranking", ["best", "mean"])
@pytest.mark.parametrize(
    ("kind", "metric"),
    [("float32", "cosine"), ("float32", "euclidean"), ("int8", "cosine"), ("indexed", "cosine")],
)
@pytest.mark.parametrize("probes", [1, 3, 7, 9])
def test_a_search_finds_what_the_definition_says(
    kind: str, metric: Metric, ranking: Ranking, probes: int, way: str
) -> None:
    columns = enrolled(1_333, 400, kind=kind)
    asked = like_faces(probes, seed=5)
    for k in (1, 4, 500):
        found = search_enrolled(columns, asked, k, ranking, metric)
        for probe, matches in zip(asked, found, strict=True):
            expected = plain(columns, probe, k, ranking, metric)
            assert [match.name for match in matches] == [name for name, _ in expected]
            values = [match.similarity for match in matches]
            np.testing.assert_allclose(values, [value for _, value in expected], atol=2e-6)


@pytest.mark.parametrize("kind", ["float32", "int8", "indexed"])
def test_many_blocks_are_worked_on_by_all_cores(kind: str) -> None:
    # More rows than one block has, the last neither full nor even.
    columns = enrolled(140_001, 50_000, size=8, kind=kind)
    asked = like_faces(2, size=8, seed=5)
    for probe in asked:
        (matches,) = search_enrolled(columns, probe[np.newaxis], 3)
        values = columns.embeddings @ probe / np.linalg.norm(columns.embeddings, axis=1)
        best = np.argsort(-values)[:3]
        assert [match.name for match in matches] == columns.names[best].tolist()
        similarities = values[best] / np.linalg.norm(probe)
        np.testing.assert_allclose([m.similarity for m in matches], similarities, atol=1e-6)
    assert search_enrolled(columns, asked, 3)[1] == matches


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_and_many_threads_search_too() -> None:
    columns = enrolled(140_001, 50_000, size=8, kind="int8")
    asked = like_faces(8, size=8, seed=5)
    expected = [search_enrolled(columns, probe[np.newaxis], 3) for probe in asked]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda probe: search_enrolled(columns, probe[None], 3), asked))
    assert found == expected
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a search that waits for threads that are not there would last for ever
        os._exit(0 if search_enrolled(columns, asked[:1], 3) == expected[0] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_index_of_codes_changes_no_answer() -> None:
    columns = enrolled(5_000, 2_000, size=128)
    indexed = columns.indexed()
    asked = like_faces(60, size=128, seed=5)
    assert search_enrolled(indexed, asked, 5) == search_enrolled(columns, asked, 5)
    # It is looked through, and not passed over: whoever has changed since then is not found.
    rows = columns.rows.copy()
    lengths = np.linalg.norm(asked, axis=1)
    rows[:60] = asked * (columns.scales[:60] / lengths)[:, np.newaxis]
    changed, behind = (dataclasses.replace(each, rows=rows) for each in (columns, indexed))
    anew = [matches[0].similarity for matches in search_enrolled(changed, asked, 1)]
    assert anew == pytest.approx([1] * 60, abs=1e-6)
    assert sum(matches[0].similarity < 0.99 for matches in search_enrolled(behind, asked, 1)) > 30


@pytest.mark.parametrize("kind", ["int8", "indexed"])
def test_many_who_are_nearly_as_near_are_told_apart(kind: str) -> None:
    # A crowd within less than what codes can tell apart, so that most groups hold a candidate.
    random = np.random.default_rng(0)
    middle = random.normal(size=128)
    crowd = (middle + 0.02 * random.normal(size=(20_000, 128))).astype(np.float32)
    others = random.normal(size=(20_000, 128)).astype(np.float32)
    embeddings = np.concatenate([crowd, others])[random.permutation(40_000)]
    names = [f"person {row}" for row in range(len(embeddings))]
    columns = Enrolled.nobody(128).joined(names, embeddings, [""] * len(embeddings))
    columns = columns.quantized() if kind == "int8" else columns.indexed()
    probes = (middle + 0.02 * random.normal(size=(3, 128))).astype(np.float32)
    kept = columns.embeddings.astype(np.float64)
    kept /= np.linalg.norm(kept, axis=1, keepdims=True)
    for probe in probes:
        (matches,) = search_enrolled(columns, probe[np.newaxis], 3)
        values = kept @ (probe / np.linalg.norm(probe.astype(np.float64)))
        best = np.argsort(-values)[:3]
        assert [match.name for match in matches] == [names[row] for row in best]


def test_where_one_person_has_nearly_all_photos_the_others_are_found_too(way: str) -> None:
    rng = np.random.default_rng(0)
    near = np.array([1, 0, 0, 0]) + 0.01 * rng.normal(size=(3_000, 4))
    far = rng.normal(size=(5, 4)) - np.array([3, 0, 0, 0])
    names = ["Ada"] * 3_000 + ["Bo", "Cy", "Di", "Ed", "Flo"]
    columns = Enrolled.nobody(4).joined(
        names, np.concatenate([near, far]).astype(np.float32), [""] * 3_005
    )
    (matches,) = search_enrolled(columns, np.array([[1, 0, 0, 0]], np.float32), 6)
    assert sorted(match.name for match in matches) == ["Ada", "Bo", "Cy", "Di", "Ed", "Flo"]
    assert matches[0].name == "Ada"


def test_the_same_photo_is_as_near_wherever_it_lies(way: str) -> None:
    one = like_faces(1, size=128)[0]
    rows = like_faces(1_000, size=128, seed=1)
    rows[[3, 500, 999]] = one
    names = [f"p{number:03d}" for number in range(1_000)]
    columns = Enrolled.nobody(128).joined(names, rows, [""] * 1_000)
    for kind in (columns, columns.indexed(), columns.quantized()):
        (matches,) = search_enrolled(kind, one[np.newaxis], 3)
        assert [match.name for match in matches] == ["p003", "p500", "p999"]
        assert len({match.similarity for match in matches}) == 1


def test_a_probe_of_zeros_is_as_near_to_everybody(way: str) -> None:
    asked: Embeddings = np.zeros((1, 16), np.float32)
    for kind in ("float32", "int8", "indexed"):
        (matches,) = search_enrolled(enrolled(200, 50, kind=kind), asked, 2)
        assert [match.name for match in matches] == ["p00000", "p00001"]
        assert matches[0].similarity == matches[1].similarity == 0


@pytest.mark.parametrize("ranking", ["best", "mean"])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_damaged_embeddings_are_told_of(metric: Metric, ranking: Ranking, way: str) -> None:
    columns = enrolled(200, 50)
    rows = columns.rows.copy()
    rows[77, 3] = np.nan
    damaged = dataclasses.replace(columns, rows=rows)
    with pytest.raises(GalleryError, match="damaged"):
        search_enrolled(damaged, like_faces(1), 1, ranking, metric)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 127, 128, 640, 700, 1_281])
def test_each_row_is_in_one_group_and_the_highest_of_each_is_noted(rows: int) -> None:
    groups = Groups(rows, height=256)
    every = np.concatenate([groups.rows_of(np.array([g])) for g in range(groups.count)])
    assert sorted(every.tolist()) == list(range(rows))
    np.testing.assert_array_equal(groups.rows_of(np.arange(groups.count)), every)
    values = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    highest = np.full((groups.count, 3), np.nan, np.float32)
    for start in range(0, rows, 256):
        block = slice(start, min(start + 256, rows))
        groups.note_highest(values[block], block, highest)
    for group in range(groups.count):
        expected = values[groups.rows_of(np.array([group]))].max(axis=0)
        np.testing.assert_array_equal(highest[group], expected)


@pytest.mark.parametrize(
    ("kind", "metric", "size", "at_most"),
    [
        ("float32", "cosine", 128, 1e-5),
        ("float32", "cosine", 512, 4e-5),
        ("float32", "euclidean", 128, 0.3),
        ("int8", "cosine", 128, 0.02),
        ("indexed", "cosine", 128, 0.03),
    ],
)
@pytest.mark.parametrize("probes", [1, 2, 9])
def test_the_rough_look_is_off_by_the_slack_at_the_most(
    kind: str, metric: Metric, size: int, at_most: float, probes: int
) -> None:
    rows = like_faces(3_001, size=size)
    columns = Enrolled.nobody(size, int8=kind == "int8").joined(
        ["Ada"] * len(rows), rows, [""] * len(rows)
    )
    if kind == "indexed":
        columns = columns.indexed()
    # Among them some who are enrolled: distances near zero are the hardest.
    asked = np.concatenate([like_faces(probes, size=size, seed=3), rows[:1]])[-probes:]
    similarities = similarities_of(columns, asked, metric)
    rough = similarities.rough(similarities.scores(slice(0, len(rows))))
    assert rough.dtype == np.float32
    for probe in range(probes):
        exact = similarities.exact(probe, np.arange(len(rows)))
        off = np.abs(rough[:, probe] - exact).max()
        assert off <= similarities.slack[probe] <= at_most


@pytest.mark.parametrize("people", [1, 2, 24, 700, 1_333])
@pytest.mark.parametrize("probes", [0, 1, 8, 40])
def test_both_ways_give_the_same_answer(
    people: int, probes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, asked = enrolled(1_333, people, size=128), like_faces(probes, size=128, seed=5)
    for k in (1, 5, 2_000):
        monkeypatch.setattr(search, "_FEW_SIMILARITIES", 1 << 60)
        short = search_enrolled(columns, asked, k)
        monkeypatch.setattr(search, "_FEW_SIMILARITIES", -1)
        assert search_enrolled(columns, asked, k) == short
        assert [len(matches) for matches in short] == [min(k, people)] * probes


@pytest.mark.parametrize("size", [3, 128, 512, 5_000])
@pytest.mark.parametrize("probes", [0, 1, 2, 8, 9, 130])
@pytest.mark.parametrize("count", [0, 1, 5, 40])
def test_a_product_in_pieces_is_the_product(size: int, probes: int, count: int) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(count * 7, size)).astype(np.float32)
    factors = random.normal(size=(probes, size)).astype(np.float32)
    product = search._products(rows, factors)
    assert product.dtype == np.float32 and product.shape == (count * 7, probes)
    expected = rows.astype(np.float64) @ factors.T
    np.testing.assert_allclose(product, expected, rtol=0, atol=2e-5 * size**0.5)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 8])
def test_any_number_of_rows_has_the_scores_of_each(count: int) -> None:
    rows = like_faces(9, size=16)
    columns = Enrolled.nobody(16, int8=True).joined(["Ada"] * 9, rows, [""] * 9)
    similarities = similarities_of(columns, like_faces(1, size=16, seed=3), "cosine")
    one_by_one = [similarities.scores(np.array([row]))[0, 0] for row in range(count)]
    assert similarities.scores(np.arange(count))[:, 0].tolist() == one_by_one


def test_exact_is_what_the_definition_says() -> None:
    rows = np.array([(3, 4), (0, 2), (-1, 0)], np.float32)
    columns = Enrolled.nobody(2).joined(["Ada", "Bo", "Cy"], rows, ["", "", ""])
    asked, everybody = np.array([(2, 0), (0, 5)], np.float32), np.arange(3)
    cosine = similarities_of(columns, asked, "cosine")
    np.testing.assert_allclose(cosine.exact(0, everybody), [0.6, 0, -1], atol=1e-7)
    np.testing.assert_allclose(cosine.exact(1, everybody), [0.8, 1, 0], atol=1e-7)
    distance = similarities_of(columns, asked, "euclidean")
    np.testing.assert_allclose(distance.exact(0, everybody), -np.sqrt([17, 8, 9]), rtol=1e-7)
