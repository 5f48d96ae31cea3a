from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from face_encode.errors import DatasetError
from face_encode.evaluation.clustering import b_cubed
from face_encode.photos.folders import people_in


def test_unnamed_photos_become_folders_that_can_be_enrolled(
    run: Any, several: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("scipy")
    photos, output = tmp_path / "photos", tmp_path / "people"
    (photos / "deeper").mkdir(parents=True)
    for person in several[:5]:
        for number, photo in enumerate(sorted(person.iterdir())[:4]):
            folder = photos / "deeper" if number % 2 else photos
            (folder / f"{person.name}-{number}.jpg").symlink_to(photo)
    told = run("cluster", photos, "-o", output, "--json")
    assert told["photos"] == 20
    rows = [
        (Path(face["photo"]).stem.rsplit("-", 1)[0], person["name"])
        for person in told["people"]
        for face in person["faces"]
        if face["bounding_box"]["width"] > 60
    ]
    assert b_cubed([name for name, _ in rows], [group for _, group in rows]).f > 0.9
    written = people_in(output)
    assert {name: len(files) for name, files in written.items()} == {
        person["name"]: len(person["faces"]) for person in told["people"]
    }
    with pytest.raises(DatasetError, match="new or an empty folder"):
        run("cluster", photos, "-o", output)


def test_a_folder_without_photos_is_refused(run: Any, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DatasetError, match="no photo"):
        run("cluster", tmp_path / "photos", "-o", tmp_path / "out")
