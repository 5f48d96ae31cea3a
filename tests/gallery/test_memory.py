from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.calibration import Calibration
from face_encode.errors import GalleryError, InputError, WrongEncoderError
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.names import check_name
from face_encode.gallery.opening import open_gallery


@dataclass(frozen=True)
class Identity:
    """What a gallery knows of an encoder."""

    name: str = "one"
    fingerprint: str = "f1"
    embedding_size: int = 2


def vectors(*rows: tuple[float, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(rows, np.float32)


@pytest.fixture
def gallery() -> MemoryGallery:
    filled = MemoryGallery(Identity())
    filled.add(["Ada", "Bo", "Ada"], vectors((1, 0), (0, 2), (3, 3)), ["a", "b", "c"])
    return filled


def test_holds_what_was_added(gallery: MemoryGallery) -> None:
    assert len(gallery) == 3
    assert gallery.people() == {"Ada": 2, "Bo": 1}
    assert gallery.names.tolist() == ["Ada", "Bo", "Ada"]
    assert gallery.embeddings.dtype == np.float32
    np.testing.assert_array_equal(gallery.embeddings, vectors((1, 0), (0, 2), (3, 3)))


def test_a_search_gives_each_person_once_by_the_nearest_embedding(gallery: MemoryGallery) -> None:
    # Against (1, 0): Ada's are at 0 and 45 degrees, Bo's at 90.
    # Against (0, 5): Bo's is at 0 degrees, Ada's nearest at 45.
    found = gallery.search(vectors((1, 0), (0, 5)), k=5)
    half = np.sqrt(0.5)
    assert [[match.name for match in row] for row in found] == [["Ada", "Bo"], ["Bo", "Ada"]]
    values = [[match.similarity for match in row] for row in found]
    np.testing.assert_allclose(values, [[1, 0], [1, half]], atol=1e-6)
    assert gallery.search(vectors((0, 5))) == [found[1][:1]]


def test_a_search_equals_the_plain_calculation() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(500, 8)).astype(np.float32)
    names = [f"p{number}" for number in rng.integers(0, 60, 500)]
    gallery = MemoryGallery(Identity(embedding_size=8))
    gallery.add(names, embeddings)
    probes = rng.normal(size=(40, 8)).astype(np.float32)
    for probe, found in zip(probes, gallery.search(probes, k=3), strict=True):
        cosine = embeddings @ probe / np.linalg.norm(embeddings, axis=1) / np.linalg.norm(probe)
        best = dict.fromkeys(names, -2.0)
        for name, value in zip(names, cosine.tolist(), strict=True):
            best[name] = max(best[name], value)
        expected = sorted(best.items(), key=lambda item: -item[1])[:3]
        assert [match.name for match in found] == [name for name, _ in expected]
        assert [match.similarity for match in found] == pytest.approx([v for _, v in expected])


def test_similarities_stay_within_their_range() -> None:
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(300, 2)).astype(np.float32)
    gallery = MemoryGallery(Identity())
    gallery.add([str(index) for index in range(300)], embeddings)
    assert max(match.similarity for (match,) in gallery.search(embeddings)) <= 1


def test_a_search_among_nobody_finds_nobody() -> None:
    assert MemoryGallery(Identity()).search(vectors((1, 0), (0, 1))) == [[], []]


def test_a_search_for_no_face_is_empty(gallery: MemoryGallery) -> None:
    assert gallery.search(np.empty((0, 2), np.float32)) == []


def test_equally_near_people_come_in_the_order_of_their_names() -> None:
    gallery = MemoryGallery(Identity())
    gallery.add(["Cy", "Bo", "Ada"], vectors((1, 0), (1, 0), (1, 0)))
    assert [match.name for match in gallery.search(vectors((1, 0)), k=3)[0]] == ["Ada", "Bo", "Cy"]
    assert gallery.search(vectors((1, 0)))[0][0].name == "Ada"


def test_removing_a_person_leaves_the_others_as_they_are(gallery: MemoryGallery) -> None:
    assert gallery.remove("Ada") == 2
    assert gallery.people() == {"Bo": 1}
    np.testing.assert_array_equal(gallery.embeddings, vectors((0, 2)))
    assert gallery.search(vectors((1, 0)))[0][0].name == "Bo"
    with pytest.raises(GalleryError, match="nobody named 'Ada'"):
        gallery.remove("Ada")


def test_replacing_all_is_one_step(gallery: MemoryGallery) -> None:
    with pytest.raises(InputError):
        gallery.replace_all(["Cy"], vectors((np.nan, 0)), ["x"])
    assert gallery.people() == {"Ada": 2, "Bo": 1}
    gallery.replace_all(["Cy"], vectors((1, 0)), ["x"])
    assert gallery.people() == {"Cy": 1}


def test_a_saved_gallery_is_read_as_it_was(gallery: MemoryGallery, tmp_path: Path) -> None:
    gallery.detector_name = "eyes"
    gallery.add(["Élodie 王 سارا\u200cجان"], vectors((1, 1)))
    path = tmp_path / "people.npz"
    gallery.save(path)
    loaded = MemoryGallery.load(path, Identity())
    np.testing.assert_array_equal(loaded.embeddings, gallery.embeddings)
    assert loaded.names.tolist() == gallery.names.tolist()
    assert loaded.digests.tolist() == ["a", "b", "c", ""]
    assert sorted(loaded.known_photos("eyes")) == ["a", "b", "c"]
    assert loaded.known_photos("nose") == {}
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_gallery_can_be_saved(tmp_path: Path) -> None:
    MemoryGallery(Identity()).save(tmp_path / "nobody.npz")
    assert len(MemoryGallery.load(tmp_path / "nobody.npz", Identity())) == 0


def test_another_encoders_gallery_is_refused_by_both_names(
    gallery: MemoryGallery, tmp_path: Path
) -> None:
    gallery.save(tmp_path / "people.npz")
    with pytest.raises(WrongEncoderError, match=r"'one' \(f1\).*'two' \(f2\)"):
        MemoryGallery.load(tmp_path / "people.npz", Identity("two", "f2"))


@pytest.mark.parametrize(
    ("names", "embeddings", "digests", "message"),
    [
        (["A"], vectors((1, 2), (3, 4)), None, r"shape \(1, 2\)"),
        (["A"], vectors((1, 2, 3)), None, r"shape \(1, 2\)"),
        (["A"], vectors((np.inf, 2)), None, "finite"),
        (["A"], vectors((0, 0)), None, "zeros"),
        ([""], vectors((1, 2)), None, "name"),
        (["A\n"], vectors((1, 2)), None, "control characters"),
        (["A"], vectors((1, 2)), ["x", "y"], "digests"),
    ],
)
def test_what_cannot_be_enrolled_is_refused(
    names: list[str], embeddings: Any, digests: list[str] | None, message: str
) -> None:
    gallery = MemoryGallery(Identity())
    with pytest.raises(InputError, match=message):
        gallery.add(names, embeddings, digests)
    assert len(gallery) == 0


def test_a_search_by_another_length_is_refused(gallery: MemoryGallery) -> None:
    with pytest.raises(InputError, match=r"shape \(m, 2\)"):
        gallery.search(vectors((1, 2, 3)))
    with pytest.raises(InputError, match="k is a whole number"):
        gallery.search(vectors((1, 2)), k=0)


@pytest.mark.parametrize("name", ["Ada", "Ada Lovelace", "王小明", "O'Brien-Ñ", "نیم\u200cفاصله"])
def test_names_of_any_script_are_allowed(name: str) -> None:
    check_name(name)
    gallery = MemoryGallery(Identity())
    gallery.add([name], vectors((1, 2)))
    assert gallery.people() == {name: 1}


def test_opening_by_a_path_reads_and_close_writes(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    first = open_gallery(path, encoder=Identity())
    first.add(["Ada"], vectors((1, 0)))
    first.close()
    second = open_gallery(path, encoder=Identity())
    assert second.people() == {"Ada": 1}
    written = path.stat().st_mtime_ns
    second.close()  # nothing changed, nothing written
    assert path.stat().st_mtime_ns == written


def test_opening_in_memory() -> None:
    for uri in (None, ":memory:"):
        gallery = open_gallery(uri, encoder=Identity())
        gallery.close()
        with pytest.raises(GalleryError, match="not opened from a file"):
            gallery.save()


def test_opening_another_kind_is_refused() -> None:
    with pytest.raises(GalleryError, match=r"\.npz file\. Received: people\.pkl"):
        open_gallery("people.pkl", encoder=Identity())


def test_a_calibration_is_kept_and_files_without_one_are_read(
    gallery: MemoryGallery, tmp_path: Path
) -> None:
    learnt = Calibration(
        false_match_rate=0.01,
        people=10,
        photos=100,
        enrolled=(1, 100),
        thresholds=(0.5, 0.7),
        tail_scale=0.1,
        slopes=(20.0, 40.0),
        midpoints=(0.5, 0.7),
        verification_interval=(0.4, 0.6),
        search_interval=(0.6, 0.8),
        extrapolated=False,
    )
    path = tmp_path / "people.npz"
    gallery.save(path)
    assert MemoryGallery.load(path, Identity()).calibration is None
    with np.load(path) as archive:
        older = {name: archive[name] for name in archive.files if name != "calibration"}
    np.savez(path, **older)
    assert MemoryGallery.load(path, Identity()).calibration is None
    gallery.calibration = learnt
    gallery.save(path)
    assert MemoryGallery.load(path, Identity()).calibration == learnt
    np.savez(path, **older, calibration=np.array("{}"))
    with pytest.raises(GalleryError, match="calibration is damaged"):
        MemoryGallery.load(path, Identity())
