from __future__ import annotations

from pathlib import Path

import numpy as np

from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.pipeline.embedding import NO_FACE, embed_photos


def test_photos_come_back_in_their_order_whatever_is_wrong_with_some(
    encoder: Encoder, people_photos: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(people_photos[0].read_bytes()[:2000])
    photos = [people_photos[0], broken, people_photos[1], tmp_path / "none.jpg"]
    blank = np.zeros((90, 90, 3), np.uint8)
    results = list(embed_photos([*photos, blank], load_detector(), encoder))
    assert [result.photo for result in results] == [*map(str, photos), "array"]
    assert [len(result.embeddings) for result in results] == [1, 0, 1, 0, 0]
    assert results[0].error is None
    assert "cut off" in str(results[1].error)
    assert results[3].error == "no such file"
    assert results[4].error == NO_FACE


def test_workers_give_what_one_process_gives(encoder: Encoder, people_photos: list[Path]) -> None:
    photos = [*people_photos, *people_photos[:9]]
    alone = list(embed_photos(photos, load_detector(), encoder, workers=1))
    together = list(embed_photos(photos, load_detector(), encoder, workers=2))
    for one, other in zip(alone, together, strict=True):
        assert one.photo == other.photo
        assert [face.box for face in one.faces] == [face.box for face in other.faces]
        np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-6)
