from __future__ import annotations

from fastapi.testclient import TestClient

from face_encode.model import Face_Encode_Model
from face_encode.version import __version__
from tests.conftest import EXAMPLES

ADA = (EXAMPLES / "ada_mirova.jpg").read_bytes()


def test_health_is_told_to_everybody(client: TestClient) -> None:
    for path in ("/healthz", "/readyz"):
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_settings_are_those_of_the_model(
    client: TestClient, fitted_model: Face_Encode_Model
) -> None:
    client.post("/v1/match", files={"photo": ADA})
    told = client.get("/v1/settings").json()
    assert told["version"] == __version__
    assert told["encoder"] == fitted_model.encoder.name
    assert told["detector"] == fitted_model.detector.name
    assert (told["people"], told["photos"]) == (6, len(fitted_model.gallery))
    assert told["threshold"] == fitted_model.threshold
    assert told["threshold_from"] == "encoder"
    assert told["calibration"] is None
    assert told["limits"]["photos"] == 20
    assert (told["needs_token"], told["may_write"]) == (False, True)
    latency = told["latency"]["POST /v1/match"]
    assert 0 < latency["p50_milliseconds"] <= latency["p99_milliseconds"]


def test_numbers_are_counted_by_pattern_and_never_by_name(client: TestClient) -> None:
    client.get("/v1/people/Ada_Mirova")
    client.get("/v1/people/Nobody")
    client.request("BREW", "/v1/people/Nobody")
    client.get("/nobody/knows/this")
    text = client.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    person = 'face_encode_requests_total{{method="GET",route="/v1/people/{{name}}",status="{}"}}'
    assert float(lines[person.format(200)]) >= 1
    assert float(lines[person.format(404)]) >= 1
    assert float(lines["face_encode_people"]) == 6
    assert float(lines["process_resident_memory_bytes"]) > 1e8
    assert "Ada_Mirova" not in text and "Nobody" not in text and "nobody" not in text
    assert "BREW" not in text
