from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError
from face_encode.gallery.base import Gallery
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.milvus import MilvusGallery
from face_encode.gallery.milvus_store import milvus_address, open_store
from face_encode.gallery.opening import open_gallery
from tests.gallery.calibrations import BY_HAND
from tests.gallery.common import SIXTEEN, Identity, vectors

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "people.db"
    yield path
    open_store(milvus_address(path)).close()


@pytest.fixture
def collection() -> str:
    """A name that no other test uses on the server."""
    return f"t{uuid.uuid4().hex}"


@pytest.mark.parametrize("kind", ["folder", pytest.param("server", marks=pytest.mark.slow)])
def test_500_probes_get_the_same_names_in_memory_and_in_milvus(
    kind: str, request: pytest.FixtureRequest, path: Path, collection: str
) -> None:
    identity = Identity(embedding_size=64)
    random = np.random.default_rng(3)
    # A large mean, people around it, and photos around each of them: as faces' embeddings are.
    people = random.normal(size=64) + 0.5 * random.normal(size=(400, 64))
    names = [f"p{number}" for number in random.integers(0, 400, 1500)]
    of_person = np.array([people[int(name[1:])] for name in names])
    embeddings = (of_person + 0.3 * random.normal(size=of_person.shape)).astype(np.float32)
    probes = people[random.integers(0, 400, 500)] + 0.4 * random.normal(size=(500, 64))
    memory = open_gallery(encoder=identity)
    uri = path if kind == "folder" else request.getfixturevalue("milvus_server")
    in_milvus = open_gallery(uri, encoder=identity, collection=collection)
    answers = []
    for gallery in (memory, in_milvus):
        gallery.add(names, embeddings)
        answers.append(gallery.search(probes.astype(np.float32), k=3))
    for expected, found in zip(*answers, strict=True):
        assert [match.name for match in found] == [match.name for match in expected]
        similarities = [match.similarity for match in expected]
        assert [match.similarity for match in found] == pytest.approx(similarities, abs=1e-6)


def test_what_others_enrol_meanwhile_is_not_replaced(
    path: Path, milvus_server: str, collection: str
) -> None:
    for uri in (path, f"{milvus_server}#{collection}"):
        ours, others = (open_gallery(uri, encoder=Identity()) for _ in range(2))
        ours.add(["Ada", "Bo"], vectors((1, 0), (0, 1)), ["a", "b"])
        everybody, ada = ours.mark(), ours.mark(["Ada"])
        others.add(["Ada", "Cy"], vectors((1, 1), (2, 1)), ["c", "d"])
        ours.replace(["Ada"], vectors((3, 1)), ["e"], "same people", mark=ada)
        assert ours.people() == {"Bo": 1, "Ada": 2, "Cy": 1}
        ours.replace(["Di"], vectors((4, 1)), ["f"], "all", mark=everybody)
        assert others.people() == {"Ada": 2, "Cy": 1, "Di": 1}
        # Without a mark it is everybody.
        ours.replace(["Di"], vectors((4, 1)), ["f"], "all")
        assert others.people() == {"Di": 1}


def test_a_replacement_cut_off_loses_nobody_and_is_ended_by_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = open_gallery(path, encoder=Identity())
    gallery.add(["Ada", "Bo"], vectors((1, 0), (0, 1)), ["a", "b"])

    def cut_off(gallery: MilvusGallery, ids: object) -> None:
        raise GalleryError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(MilvusGallery, "_delete", cut_off)
        with pytest.raises(GalleryError, match="cut off"):
            gallery.replace(["Ada"], vectors((1, 1)), ["c"], "same people")
        with pytest.raises(GalleryError, match="cut off"):
            gallery.rename("Bo", "Bob")
    gallery = open_gallery(path, encoder=Identity())
    assert gallery.people() == {"Ada": 2, "Bo": 1, "Bob": 1}
    gallery.replace(["Ada"], vectors((1, 1)), ["c"], "same people")
    assert gallery.rename("Bo", "Bob") == 1
    assert gallery.people() == {"Bob": 1, "Ada": 1}


def test_several_galleries_share_a_store(path: Path) -> None:
    one = open_gallery(path, encoder=Identity(), collection="one")
    two = open_gallery(path, encoder=Identity("two", "f2"), collection="two")
    one.add(["Ada"], vectors((1, 0)))
    two.add(["Bo"], vectors((1, 0)))
    one.close()
    assert one.people() == {"Ada": 1}
    assert two.people() == {"Bo": 1}


def test_by_euclidean_distance_lengths_count(path: Path) -> None:
    gallery = open_gallery(path, encoder=Identity(), metric="euclidean")
    in_memory = open_gallery(encoder=Identity(), metric="euclidean")
    probes = vectors((0, 5), (2, 2), (1, 0))
    for each in (gallery, in_memory):
        each.add(["Ada", "Bo", "Ada"], vectors((1, 0), (0, 2), (3, 3)))
    for one, other in zip(gallery.search(probes, k=2), in_memory.search(probes, k=2), strict=True):
        assert [match.name for match in one] == [match.name for match in other]
        values = [match.similarity for match in other]
        assert [match.similarity for match in one] == pytest.approx(values, abs=1e-6)
    with pytest.raises(GalleryError, match="by the metric 'euclidean', here it is 'cosine'"):
        open_gallery(path, encoder=Identity())
    assert open_gallery(path, encoder=Identity(), metric=None).metric == "euclidean"
    assert gallery.rows().metric == "euclidean"


def test_an_export_and_an_import_keep_everything(path: Path, tmp_path: Path) -> None:
    gallery = open_gallery(path, encoder=Identity())
    gallery.replace(["Bo", "Ada"], vectors((1, 0), (0, 2)), ["a", ""], detector_name="eyes")
    gallery.calibration = BY_HAND
    MemoryGallery.from_rows(gallery.rows(), Identity()).save(tmp_path / "people.npz")
    people = open_gallery(tmp_path / "people.npz", encoder=Identity()).rows()
    assert people.calibration == BY_HAND
    again = open_gallery(tmp_path / "again.db", encoder=Identity())
    again.replace(
        people.names.tolist(),
        people.embeddings,
        people.digests.tolist(),
        detector_name=people.detector_name,
    )
    assert again.names.tolist() == ["Bo", "Ada"]
    np.testing.assert_array_equal(again.embeddings, gallery.embeddings)
    assert sorted(again.known_photos("eyes")) == ["a"]


def test_it_may_have_to_exist(path: Path, milvus_server: str, collection: str) -> None:
    for uri in (path, f"{milvus_server}#{collection}"):
        with pytest.raises(GalleryError, match="there is no gallery"):
            open_gallery(uri, encoder=Identity(), create=False)
        # Looking makes nothing, and the first people do.
        open_gallery(uri, encoder=Identity()).close()
        assert not path.exists()
        open_gallery(uri, encoder=Identity()).add(["Ada"], vectors((1, 0)))
        assert len(open_gallery(uri, encoder=Identity(), create=False)) == 1
        path = path.with_name("other.db")


def test_int8_is_refused(path: Path) -> None:
    with pytest.raises(GalleryError, match="keeps float32"):
        open_gallery(path, encoder=Identity(), int8=True)


def test_a_name_too_long_for_milvus_is_refused(path: Path) -> None:
    gallery = open_gallery(path, encoder=Identity())
    with pytest.raises(InputError, match="at most 65,535 bytes"):
        gallery.add(["Ada", "é" * 40_000], vectors((1, 0), (1, 1)))
    assert len(gallery) == 0


def test_anothers_collection_is_refused(milvus_server: str, collection: str) -> None:
    from pymilvus import MilvusClient

    client = MilvusClient(milvus_server)
    client.create_collection(collection, dimension=2)
    with pytest.raises(GalleryError, match="a collection, but no gallery of face_encode"):
        open_gallery(milvus_server, encoder=Identity(), collection=collection)
    assert client.has_collection(collection)
    client.close()


def test_a_later_releases_gallery_is_refused(milvus_server: str, collection: str) -> None:
    from pymilvus import MilvusClient

    open_gallery(milvus_server, encoder=Identity(), collection=collection).add(
        ["Ada"], vectors((1, 0))
    )
    client = MilvusClient(milvus_server)
    client.alter_collection_properties(collection, {"face_encode.format_version": "2"})
    with pytest.raises(GalleryError, match=r"by a later release of face_encode \(format 2\)"):
        open_gallery(milvus_server, encoder=Identity(), collection=collection)
    client.close()


def test_it_is_a_gallery(path: Path) -> None:
    gallery: Gallery = MilvusGallery(path, SIXTEEN)
    assert gallery.is_shared
    assert repr(gallery) == f"MilvusGallery({str(path)!r})"
