"""The interface against its own description, by requests that schemathesis generates."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.serving import Client, RunningService
from tests.server.hostile import READ, TOKENS, WRITE

pytest.importorskip("schemathesis")

import hypothesis
import schemathesis
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

if TYPE_CHECKING:
    from schemathesis import Case

pytestmark = pytest.mark.slow

# The same requests each time, made up from the description; a few minutes by hand with
# FACE_ENCODE_FUZZ_EXAMPLES=200.
EXAMPLES = int(os.environ.get("FACE_ENCODE_FUZZ_EXAMPLES", "5"))


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("fuzzed")
    options = (
        "--people",
        str(folder / "people.sqlite"),
        "--detector",
        "dlib_hog",
        "--workers",
        "1",
    )
    with RunningService(*options, environment=TOKENS) as service:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{service.port}/openapi.json")
        # No worker was lost, and none is busy with what nobody waits for.
        with closing(Client(service.port, READ)) as client:
            numbers = client.request("GET", "/metrics").content.decode()
        assert "\nface_encode_photo_processes_ready 1.0\n" in numbers
        assert "\nface_encode_photos_waiting 0.0\n" in numbers
    # Not one request brought the service to write of an error.
    assert [line for line in service.lines if "Traceback" in line or "ERROR" in line] == []


_OF_PEOPLE = (
    "/v1/people",
    "/v1/photos",
    "/v1/unknown",
    "/v1/changes",
    "/v1/undo",
    "/api/v1/recognition",
)


def test_every_operation_answers_as_it_is_described(schema: Any) -> None:
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) >= 26
    for operation in operations:
        is_of_people = operation.path.startswith(_OF_PEOPLE)
        headers = {"Authorization": f"Bearer {WRITE if is_of_people else READ}"}
        # Not by schemathesis' own plugin, which pytest's latest release does not load.
        assert ask(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), headers)
        ask(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), headers)


def ask(cases: Any, headers: dict[str, str]) -> int:
    """Make up requests for one operation, and check the answers; gives how many they were."""
    asked = 0

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=cases)
    def answers(case: Case[Any]) -> None:
        nonlocal asked
        asked += 1
        # Random bytes are what the description allows, and no photo all the same.
        case.call_and_validate(headers=headers, excluded_checks=[checks.positive_data_acceptance])

    # An operation that takes nothing has no wrong requests.
    with suppress(hypothesis.errors.Unsatisfiable):
        answers()
    return asked
