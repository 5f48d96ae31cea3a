"""Several real programs at one store."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest

from face_encode.gallery.opening import open_gallery
from tests.gallery import enrolling
from tests.gallery.common import SIXTEEN
from tests.gallery.enrolling import IN_A_STEP, digests_of

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

STEPS = 8


def started(uri: str, who: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(enrolling.__file__)), uri, who, str(STEPS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture(params=["embedded", "server"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "embedded":
        return str(tmp_path / "people.db")
    return f"{request.getfixturevalue('milvus_server')}#t{uuid.uuid4().hex}"


def test_programs_that_enrol_at_once_lose_nothing_also_where_one_is_killed(uri: str) -> None:
    # Both make the gallery, too: there is none yet.
    with started(uri, "ann") as ann, started(uri, "ben") as ben:
        assert ann.stdout is not None
        for step in range(3):
            assert ann.stdout.readline() == f"step {step}\n"
        ann.kill()
        assert ben.wait() == 0
    gallery = open_gallery(uri, encoder=SIXTEEN)
    held = set(gallery.known_photos("eyes"))
    # What was acknowledged is there, whatever became of the rest.
    assert held >= {*digests_of("ben", STEPS), *digests_of("ann", 3)}
    with started(uri, "ann") as again:
        assert again.wait() == 0
    people = gallery.rows()
    assert Counter(people.digests.tolist()) == Counter(
        digests_of("ann", STEPS) + digests_of("ben", STEPS)
    )
    half = STEPS * IN_A_STEP // 2
    assert gallery.people() == {"both": 2 * half, "ann": half, "ben": half}
    found = gallery.search(people.embeddings)
    assert [match.name for (match,) in found] == people.names.tolist()
