"""The engine ray on a cluster of two nodes, compared with the engine of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.bulk import embed_folder
from face_encode.detectors.loading import load_detector
from face_encode.distributed.embedding import embed_folder_on_ray
from face_encode.distributed.stream import Actors
from face_encode.embedding_files.opening import read_embeddings
from face_encode.embedding_files.parts import CONTENTS
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, EmbeddingFileError
from face_encode.storage import place_of
from tests.distributed.finding import NotingDetector, noted

parquet = pytest.importorskip("pyarrow.parquet")

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
    return path


def assert_same(table: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """The same columns, metadata and rows, in the same order; embeddings within 1e-6."""
    assert table.schema.equals(expected.schema, check_metadata=True)
    others = [name for name in table.column_names if name != "embedding"]
    assert table.select(others).equals(expected.select(others))
    given, wanted = (each["embedding"].to_pylist() for each in (table, expected))
    assert [row is None for row in given] == [row is None for row in wanted]
    for row, other in zip(given, wanted, strict=True):
        if row is not None:
            np.testing.assert_allclose(row, other, atol=tolerance)


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


@pytest.mark.skipif(sys.platform != "linux", reason="Ray's two nodes on one machine need Linux")
def test_from_a_store_into_a_store_and_on_from_the_parts_that_are_there(
    cluster: Any, bucket: str, photos: Path, local: Path, encoder: Encoder, tmp_path: Path
) -> None:
    source, output = bucket.format("photos"), bucket.format("out/embeddings.parquet")
    folder = place_of(source)
    for path in photos.rglob("*"):
        if path.is_file():
            with folder.below(path.relative_to(photos).as_posix()).writing(DatasetError) as file:
                file.write(path.read_bytes())
    # What a run that was killed leaves: some of the parts, and no table of contents.
    options: dict[str, Any] = {"progress": False, "photos_per_part": 4, "parts": True}
    notes = tmp_path / "notes"
    notes.mkdir()
    detector = NotingDetector(notes)
    report = embed_folder_on_ray(source, output, detector, encoder, actors=ACTORS, **options)
    expected = read_embeddings(local)
    assert (report.photos, report.faces, report.resumed) == (16, len(expected), 0)
    assert report.left_out == expected.left_out
    # Neither the photo that is cut off nor the empty one gets as far as the detector.
    assert len(noted(notes)) == 14
    given = read_embeddings(output)
    assert given.photos.tolist() == expected.photos.tolist()
    assert given.digests.tolist() == expected.digests.tolist()
    assert given.settings == expected.settings and given.left_out == expected.left_out
    np.testing.assert_array_equal(given.boxes, expected.boxes)
    np.testing.assert_allclose(given.embeddings, expected.embeddings, atol=1e-6)

    target = place_of(output)
    first, *kept = [name for name in target.names() if name.startswith("part")]
    assert len(kept) == 3
    target.below(first).delete()
    target.below(CONTENTS).delete()
    with pytest.raises(EmbeddingFileError, match=r"no finished folder.*same command goes on"):
        read_embeddings(output)
    shutil.rmtree(notes)
    notes.mkdir()
    again = embed_folder_on_ray(source, output, detector, encoder, actors=ACTORS, **options)
    assert (again.photos, again.faces, again.resumed) == (16, len(expected), 12)
    assert sorted(again.left_out) == sorted(expected.left_out)
    assert len(noted(notes)) <= 4
    assert read_embeddings(output).photos.tolist() == expected.photos.tolist()
