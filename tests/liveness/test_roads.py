"""Liveness on the roads to an answer: what is not alive matches nobody, and the answer says so."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path

import pytest

from face_encode import cli, extract_faces, verify
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError
from face_encode.functions import analyze
from face_encode.liveness.judging import LivenessJudge
from face_encode.model import Face_Encode_Model
from face_encode.photos.reading import read_image
from face_encode.pipeline.embedding import embed_photos
from tests.conftest import EXAMPLES, VERIFY_DATASET

GROUP = EXAMPLES / "group.jpg"
PAIR = [VERIFY_DATASET / "Ada_Mirova" / name for name in ("1.jpg", "2.jpg")]


@pytest.fixture(params=[True, False], ids=["alive", "not alive"])
def is_live(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def judge(
    drawn_judge: LivenessJudge, is_live: bool, monkeypatch: pytest.MonkeyPatch
) -> LivenessJudge:
    """The judge of every new model: it takes all faces for alive, or none."""
    judge = copy(drawn_judge)
    judge.threshold = 0.0 if is_live else 1.0
    for module in ("model", "functions", "liveness.judging"):
        monkeypatch.setattr(f"face_encode.{module}.default_judge", lambda *engine: judge)
    return judge


@pytest.fixture
def model(
    encoder: Encoder, fitted_model: Face_Encode_Model, judge: LivenessJudge
) -> Face_Encode_Model:
    """A model with the invented people enrolled and this judge."""
    model = Face_Encode_Model(encoder)
    model.gallery = fitted_model.gallery
    return model


def test_match_image_judges_where_asked_to(model: Face_Encode_Model, is_live: bool) -> None:
    group = read_image(GROUP)
    plain = model.match_image(group, n_max_faces=None)
    judged = model.match_image(group, n_max_faces=None, liveness=True)
    assert all("liveness" not in face for face in plain)
    assert sum(face["is_match"] for face in plain) >= 3
    for before, after in zip(plain, judged, strict=True):
        assert after["is_live"] is is_live
        assert 0 < after["liveness"] < 1
        assert after["is_match"] is (before["is_match"] and is_live)
        assert after["name"] == before["name"]
        assert after["quality"] == before["quality"]


def test_another_judge_may_take_its_place(
    model: Face_Encode_Model, drawn_judge: LivenessJudge, is_live: bool
) -> None:
    model.liveness_judge = copy(drawn_judge)
    model.liveness_judge.threshold = 1.0 if is_live else 0.0
    (face,) = model.match_image(read_image(PAIR[0]), liveness=True)
    assert face["is_live"] is not is_live


def test_a_crop_alone_cannot_be_judged(model: Face_Encode_Model) -> None:
    crop = extract_faces(PAIR[0])[0]["face"]
    with pytest.raises(InputError, match=r"whole photo. Received: detect_faces=False"):
        model.match_image(crop, detect_faces=False, liveness=True)
    with pytest.raises(InputError, match="whole photo"):
        verify(crop, crop, detect_faces=False, liveness=True)


@pytest.mark.usefixtures("judge")
def test_verify_and_extract_faces_judge(is_live: bool) -> None:
    plain, judged = verify(*PAIR), verify(*PAIR, liveness=True)
    assert plain["is_match"]
    assert judged["is_match"] is is_live
    assert judged["is_live"] == [is_live] * 2
    assert all(0 < value < 1 for value in judged["liveness"])
    assert judged.keys() - plain.keys() == {"liveness", "is_live"}
    (face,) = extract_faces(PAIR[0], liveness=True)
    assert (face["liveness"], face["is_live"]) == (judged["liveness"][0], is_live)
    assert "liveness" not in extract_faces(PAIR[0])[0]


@pytest.mark.usefixtures("judge")
def test_analyze_judges_and_tells_the_rest_all_the_same(
    is_live: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ((plain,),) = [photo["faces"] for photo in analyze(PAIR[0])]
    ((judged,),) = [photo["faces"] for photo in analyze(PAIR[0], liveness=True)]
    life = {name: judged.pop(name) for name in ("liveness", "is_live")}
    assert judged == plain
    assert life["is_live"] is is_live and 0 < life["liveness"] < 1
    assert cli.main(["analyze", str(PAIR[0]), "--liveness"]) == 0
    told = capsys.readouterr().out
    assert f"{life['liveness']:.2f}" in told and ("(not live)" in told) is not is_live
    parquet = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "faces.parquet"
    assert cli.main(["analyze", str(PAIR[0].parent), "--liveness", "-o", str(output)]) == 0
    row = next(row for row in parquet.read_table(output).to_pylist() if row["photo"] == "1.jpg")
    assert (row["liveness"], row["is_live"]) == (pytest.approx(life["liveness"]), is_live)


def test_many_photos_are_judged_as_each_alone(
    model: Face_Encode_Model, judge: LivenessJudge, tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    photos = [GROUP, tmp_path / "broken.jpg", *PAIR]
    embedded = list(
        embed_photos(photos, model.detector, model.encoder, max_faces=None, judge=judge, workers=2)
    )
    assert embedded[1].error is not None
    for path, photo in zip(photos, embedded, strict=True):
        if photo.error is None:
            alone = model.match_image(read_image(path), n_max_faces=None, liveness=True)
            told = [face.liveness.value for face in photo.faces if face.liveness]
            assert told == pytest.approx([face["liveness"] for face in alone], abs=1e-4)
    faces = embed_photos(photos, model.detector, model.encoder)
    assert all(face.liveness is None for photo in faces for face in photo.faces)


@pytest.mark.usefixtures("judge")
@pytest.mark.parametrize("option", ["--liveness", "--require-live"])
def test_the_commands_judge(is_live: bool, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    people, photo, other = str(VERIFY_DATASET), *map(str, PAIR)
    assert cli.main(["match", people, photo, option, "--json"]) == 0
    ((face,),) = [row["faces"] for row in json.loads(capsys.readouterr().out)]
    assert (face["is_live"], face["is_match"]) == (is_live, is_live)
    assert cli.main(["verify", photo, other, option, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["is_live"], told["is_match"]) == ([is_live] * 2, is_live)
    assert cli.main(["match", people, photo, option]) == 0
    assert ("unknown (not live, liveness 0." in capsys.readouterr().out) is not is_live
    assert cli.main(["verify", photo, other, option]) == 0
    told = capsys.readouterr().out
    assert ("cannot be told" in told and "1.jpg: not live (liveness 0." in told) is not is_live
