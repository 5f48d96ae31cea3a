from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from face_encode.errors import GalleryError
from face_encode.gallery import milvus_embedded
from face_encode.gallery.opening import open_gallery
from tests.gallery.common import Identity, vectors

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


def test_a_damaged_store_is_told(tmp_path: Path) -> None:
    path = tmp_path / "people.db"
    gallery = open_gallery(path, encoder=Identity())
    gallery.add(["Ada"], vectors((1, 0)))
    gallery.close()
    (path / "collections" / "face_encode" / "schema.json").write_text("{")
    with pytest.raises(GalleryError, match="not valid JSON"):
        open_gallery(path, encoder=Identity())


def test_what_cannot_be_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="its folder does not exist"):
        open_gallery(tmp_path / "none" / "people.db", encoder=Identity())
    (tmp_path / "file.db").write_text("no folder")
    with pytest.raises(GalleryError, match="is a file"):
        open_gallery(tmp_path / "file.db", encoder=Identity())


def test_a_store_that_another_program_keeps_is_waited_for_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people.db"
    open_gallery(path, encoder=Identity()).add(["Ada"], vectors((1, 0)))
    milvus_embedded.embedded_store(path).close()
    code = f"from pymilvus import MilvusClient; MilvusClient({str(path)!r}); print(); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        other.stdout.readline()
        monkeypatch.setattr(milvus_embedded, "TURN_SECONDS", 0.5)
        with pytest.raises(GalleryError, match="kept open by another program"):
            open_gallery(path, encoder=Identity())
        other.kill()
    assert open_gallery(path, encoder=Identity()).people() == {"Ada": 1}
