"""The engine ray on a cluster of two nodes, compared with the engine of this machine."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import (
    ClusterError,
    DatasetError,
    EmbeddingFileError,
    InputError,
    MissingExtraError,
)
from face_encode.photos.folders import Location, list_photos, location_of
from face_encode.pipeline.cluster.parts import divide
from face_encode.pipeline.cluster.run import check_ray, connected, embed_folder_on_ray
from face_encode.pipeline.cluster.stages import Actors
from face_encode.pipeline.embedding_file import CONTENTS, part_name, read_embeddings, write_part
from face_encode.pipeline.folder import embed_folder
from tests.pipeline.cluster.finding import NotingDetector, noted

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
compute = pytest.importorskip("pyarrow.compute")
pytest.importorskip("ray")

# On the four cores of the two nodes there is no room for all three on one.
ACTORS = Actors(finding=2, encoding=1)


@pytest.fixture(scope="module")
def local(photos: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this machine's engine gives."""
    path = tmp_path_factory.mktemp("local") / "embeddings.parquet"
    report = embed_folder(
        photos, path, load_detector("dlib_hog"), encoder, workers=1, progress=False
    )
    assert (report.photos, len(report.left_out)) == (16, 3)
    assert [note.split(":")[0] for note in report.notes] == ["group.jpg"]
    return path


def assert_same(table: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """The same columns, metadata and rows, in the same order; embeddings within 1e-6."""
    assert table.schema.equals(expected.schema, check_metadata=True)
    # Other faces in a batch change the last digits of float32.
    others = [name for name in table.column_names if name not in ("embedding", "quality")]
    assert table.select(others).equals(expected.select(others))
    given, wanted = (
        [np.nan if each is None else each for each in both["quality"].to_pylist()]
        for both in (table, expected)
    )
    np.testing.assert_allclose(given, wanted, atol=1e-4)
    given, wanted = (each["embedding"].to_pylist() for each in (table, expected))
    assert [row is None for row in given] == [row is None for row in wanted]
    for row, other in zip(given, wanted, strict=True):
        if row is not None:
            np.testing.assert_allclose(row, other, atol=tolerance)


def leave_parts(photos: Location, local: Path, work: Location, photos_per_part: int) -> list[str]:
    """What a run leaves that was killed before its last step; the names of the parts."""
    table, listing = parquet.read_table(local), list_photos(photos)
    settings = read_embeddings(local).settings
    parts = divide(listing, settings, photos_per_part)
    for part in parts:
        names = pyarrow.array(listing.names[part.start : part.stop])
        rows = table.filter(compute.is_in(table["photo"], names))
        write_part(work.below(part.name), settings, [rows])
    return [part.name for part in parts]


# Before any test that connects this process to a cluster.


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtraError, match=r'pip install "face_encode\[ray\]"'):
        check_ray()


@pytest.mark.parametrize(
    "address", ["ray://head:10001", "head", "head:port", ":6379", "head:99999", "http://head:1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="HOST:PORT, auto or local"), connected(address):
        pass


def test_another_server_at_the_address_is_told_at_once() -> None:
    ray = pytest.importorskip("ray")
    server = ThreadingHTTPServer((ray.util.get_node_ip_address(), 0), SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    with pytest.raises(ClusterError, match=f"{address} is no head of a Ray"), connected(address):
        pass
    server.shutdown()


def test_nobody_at_the_address_is_told_at_once() -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ClusterError, match=f"nobody answers at {address}"), connected(address):
            pass
        assert time.monotonic() - began < 8


def test_who_listens_for_this_machine_alone_is_out_of_rays_reach() -> None:
    ray = pytest.importorskip("ray")
    place = ray.util.get_node_ip_address()
    if place.startswith("127."):
        pytest.skip("this machine has no other address")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        began = time.monotonic()
        with (
            pytest.raises(ClusterError, match=f"localhost:{port}, which Ray seeks at {place}: "),
            connected(f"localhost:{port}"),
        ):
            pass
        assert time.monotonic() - began < 8


@pytest.mark.parametrize("parts", [False, True], ids=["file", "parts"])
@pytest.mark.parametrize("int8", [False, True], ids=["float32", "int8"])
def test_where_all_parts_are_there_no_cluster_is_needed(
    parts: bool, int8: bool, photos: Path, local: Path, encoder: Encoder, tmp_path: Path
) -> None:
    output, detector = tmp_path / "embeddings.parquet", load_detector("dlib_hog")
    work = output if parts and not int8 else tmp_path / "embeddings.parquet.unfinished"
    leave_parts(location_of(photos), local, location_of(work), 6)
    # Of photos that are gone, or were others then.
    (work / part_name(9, "f" * 16)).write_text("a part of a former run")
    report = embed_folder_on_ray(
        photos, output, detector, encoder, int8=int8, parts=parts, photos_per_part=6,
        progress=False, address="127.0.0.1:1",
    )  # fmt: skip
    assert (report.photos, report.resumed, len(report.left_out)) == (16, 16, 3)
    given, wanted = read_embeddings(output), read_embeddings(local)
    assert given.photos.tolist() == wanted.photos.tolist()
    assert given.left_out == report.left_out == wanted.left_out
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.parquet"]
    assert output.is_dir() == parts
    if not int8:
        np.testing.assert_array_equal(given.kept, wanted.kept)
        return
    embed_folder(
        photos, tmp_path / "i.parquet", detector, encoder, int8=True, workers=1, progress=False
    )
    codes = read_embeddings(tmp_path / "i.parquet")
    assert given.settings == codes.settings
    # The means are the same but for the last bit, on which rounding may turn.
    assert np.abs(given.kept.astype(int) - codes.kept.astype(int)).max() <= 1


def test_what_cannot_be_is_refused_before_a_cluster_is_asked_for(
    photos: Path, encoder: Encoder, tmp_path: Path
) -> None:
    def embed(folder: str | Path, output: str | Path, **options: Any) -> None:
        detector = load_detector("dlib_hog")
        options = {"address": "127.0.0.1:1", "progress": False, **options}
        embed_folder_on_ray(folder, output, detector, encoder, **options)

    with pytest.raises(DatasetError, match="no such folder"):
        embed(tmp_path / "none", tmp_path / "e.parquet")
    with pytest.raises(DatasetError, match="no photo in it"):
        embed(tmp_path, tmp_path / "e.parquet")
    with pytest.raises(EmbeddingFileError, match=r"written as \.parquet"):
        embed(photos, tmp_path / "e.npz")
    with pytest.raises(InputError, match="choose one of the two"):
        embed(photos, tmp_path / "e.parquet", raw=True, int8=True)
    with pytest.raises(InputError, match="photos_per_part"):
        embed(photos, tmp_path / "e.parquet", photos_per_part=0)
    with pytest.raises(ClusterError, match=r"nobody answers at 127\.0\.0\.1:1"):
        embed(photos, tmp_path / "e.parquet")
    assert list(tmp_path.iterdir()) == []
    # A finished folder of other photos stays as it is, also where a restart is asked for.
    former = tmp_path / "former.parquet"
    former.mkdir()
    for name in (CONTENTS, part_name(1, "f" * 16)):
        (former / name).write_text("of a former run")
    for restart in (False, True):
        with pytest.raises(ClusterError, match=r"nobody answers at 127\.0\.0\.1:1"):
            embed(photos, former, parts=True, restart=restart)
    assert len(list(former.iterdir())) == 2


@pytest.mark.ray
@pytest.mark.skipif(sys.platform != "linux", reason="Ray's two nodes on one machine need Linux")
def test_two_nodes_give_what_one_machine_gives_and_lose_nothing_with_a_process(
    cluster: Any, photos: Path, local: Path, encoder: Encoder, tmp_path: Path
) -> None:
    notes, output = tmp_path / "notes", tmp_path / "cluster.parquet"
    notes.mkdir()
    killed = []

    def kill_one() -> None:
        """Kill a process that finds faces, in the middle of a photo."""
        deadline = time.monotonic() + 120
        while len(noted(notes)) < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        killed.append(noted(notes)[-1][1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    report = embed_folder_on_ray(
        photos,
        output,
        NotingDetector(notes, pause_seconds=0.2),
        encoder,
        progress=False,
        photos_per_part=5,
        actors=ACTORS,
    )
    killer.join()
    expected = read_embeddings(local)
    assert (report.photos, report.faces, report.resumed) == (16, len(expected), 0)
    assert report.left_out == expected.left_out
    assert_same(parquet.read_table(output), parquet.read_table(local))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster.parquet", "notes"]
    nodes, processes = zip(*noted(notes), strict=True)
    assert len(set(nodes)) == 2
    # The one killed, the one in its place, and the other.
    assert killed[0] in processes and len(set(processes)) >= 3


@pytest.mark.ray
@pytest.mark.skipif(sys.platform != "linux", reason="Ray's two nodes on one machine need Linux")
def test_from_a_store_into_a_store_and_on_from_the_parts_that_are_there(
    cluster: Any, bucket: str, photos: Path, local: Path, encoder: Encoder, tmp_path: Path
) -> None:
    source, output = bucket.format("photos"), bucket.format("out/embeddings.parquet")
    folder = location_of(source)
    for path in photos.rglob("*"):
        if path.is_file():
            with folder.below(path.relative_to(photos).as_posix()).writing(DatasetError) as file:
                file.write(path.read_bytes())
    # What a run leaves that was killed: one of two parts, and no table of contents.
    target = location_of(output)
    kept, lost = leave_parts(folder, local, target, 8)
    target.below(lost).delete()
    with pytest.raises(EmbeddingFileError, match=r"no finished folder.*same command goes on"):
        read_embeddings(output)
    notes = tmp_path / "notes"
    notes.mkdir()
    report = embed_folder_on_ray(
        source,
        output,
        NotingDetector(notes),
        encoder,
        progress=False,
        photos_per_part=8,
        parts=True,
        actors=Actors(finding=1, encoding=1),
    )
    expected = read_embeddings(local)
    assert (report.photos, report.faces, report.resumed) == (16, len(expected), 8)
    assert report.left_out == expected.left_out
    # Of the other eight neither the photo that is cut off nor the empty one gets to the detector.
    assert len(noted(notes)) == 6
    assert target.names() == sorted([CONTENTS, kept, lost])
    given = read_embeddings(output)
    assert given.photos.tolist() == expected.photos.tolist()
    assert given.digests.tolist() == expected.digests.tolist()
    assert given.settings == expected.settings and given.left_out == expected.left_out
    np.testing.assert_array_equal(given.boxes, expected.boxes)
    np.testing.assert_allclose(given.embeddings, expected.embeddings, atol=1e-6)
