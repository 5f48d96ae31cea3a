"""A service that requires life: what is not alive matches nobody, but may be enrolled."""

from __future__ import annotations

import copy

import pytest
from fastapi.testclient import TestClient

from face_encode.liveness.judging import LivenessJudge
from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.conftest import Serve

ADA = (EXAMPLES / "ada_mirova.jpg").read_bytes()
ENROLLED = VERIFY_DATASET / "Ada_Mirova" / "1.jpg"


@pytest.mark.parametrize("is_live", [True, False])
def test_what_is_not_alive_matches_nobody(
    serve: Serve, drawn_judge: LivenessJudge, is_live: bool
) -> None:
    judge = copy.copy(drawn_judge)
    judge.threshold = 0.0 if is_live else 1.0
    with serve(judge=judge) as client:
        nobody = client.post("/v1/match", files={"photo": ADA}).json()["faces"][0]
        assert (nobody["name"], nobody["is_live"]) == (None, is_live)
        # A document is enrolled from a photo of it.
        sent = {"photos": ("1.jpg", ENROLLED.read_bytes())}
        enrolled = client.post("/v1/people", data={"name": "Ada"}, files=sent)
        assert enrolled.json()["enrolled"] == 1
        (face,) = client.post("/v1/match", files={"photo": ADA}).json()["faces"]
        assert face["name"] == "Ada"
        assert (face["is_live"], face["is_match"]) == (is_live, is_live)
        assert face["liveness"] == nobody["liveness"]
        told = client.post("/v1/verify", files={"photo_a": ADA, "photo_b": ADA}).json()
        assert (told["is_live"], told["is_match"]) == ([is_live] * 2, is_live)
        of_ada = "/v1/people/Ada/verify"
        told = client.post(of_ada, files={"photo": ADA}).json()
        assert (told["is_live"], told["is_match"]) == (is_live, is_live)
        # What a request asks for besides does not change that.
        for path in ("/v1/match", of_ada):
            query = {"threshold": 0.1, "min_quality": 0}
            told = client.post(path, params=query, files={"photo": ADA}).json()
            assert told.get("faces", [told])[0]["is_match"] is is_live
        (embedded,) = client.post("/v1/embed", files={"photo": ADA}).json()["faces"]
        assert embedded["is_live"] is is_live
        (looks,) = client.post("/v1/analyze", files={"photo": ADA}).json()["faces"]
        assert (looks["is_live"], looks["liveness"]) == (is_live, embedded["liveness"])
        assert looks["age"] is not None
        assert client.get("/v1/settings").json()["requires_live"] is True


def test_life_is_not_judged_unasked(client: TestClient) -> None:
    (face,) = client.post("/v1/match", files={"photo": ADA}).json()["faces"]
    assert "liveness" not in face
    (looks,) = client.post("/v1/analyze", files={"photo": ADA}).json()["faces"]
    assert "liveness" not in looks
    told = client.post("/v1/verify", files={"photo_a": ADA, "photo_b": ADA}).json()
    assert "liveness" not in told
    assert client.get("/v1/settings").json()["requires_live"] is False
