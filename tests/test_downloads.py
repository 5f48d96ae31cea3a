"""Downloads from a real server on loopback, with everything that goes wrong on the way."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import urllib3

from face_encode import downloads
from face_encode.downloads import DownloadError
from tests.loopback import Served, serving

CONTENT = np.random.RandomState(0).bytes(1_000_003)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[Served]:
    with serving(Served(CONTENT)) as served:
        yield served


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "weights.bin"


def download(served: Served, path: Path, **options: object) -> None:
    """Without waiting, and without drawing."""
    settings = {"wait_seconds": 0.01, "show_progress": False, "timeout_seconds": 15.0} | options
    downloads.download_file(served.url, path, **settings)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("sha256", [None, DIGEST])
def test_a_file_arrives_whole_and_alone(server: Served, path: Path, sha256: str | None) -> None:
    download(server, path, sha256=sha256)
    assert path.read_bytes() == CONTENT
    assert left(path) == {path.name}
    assert server.asked == [None]


def test_a_file_that_is_there_is_left_alone(server: Served, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    download(server, path)
    assert path.read_text() == "mine"
    assert server.asked == []


def test_a_cut_off_download_goes_on_where_it_stopped(server: Served, path: Path) -> None:
    server.cut_after = [400_000, 700_000]
    download(server, path, sha256=DIGEST)
    assert path.read_bytes() == CONTENT
    assert_went_on(server, 400_000, 700_000)


def test_a_later_run_goes_on_too(server: Served, path: Path) -> None:
    server.cut_after = [400_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "ATTEMPTS", 1)
        with pytest.raises(DownloadError, match="the connection breaks"):
            download(server, path)
    assert left(path) == {"weights.bin.part", "weights.bin.part.json"}
    download(server, path)
    assert path.read_bytes() == CONTENT
    assert_went_on(server, 400_000)
    assert left(path) == {path.name}


def test_a_process_that_is_killed_leaves_a_part_and_the_next_one_goes_on(
    server: Served, path: Path
) -> None:
    server.silent_after = [600_000]
    program = (
        "import sys; from pathlib import Path; from face_encode.downloads import download_file; "
        "download_file(sys.argv[1], Path(sys.argv[2]), show_progress=False)"
    )
    child = subprocess.Popen([sys.executable, "-c", program, server.url, str(path)])
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
    download(server, path, sha256=DIGEST)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={begun}-"]


def test_two_versions_are_never_joined(server: Served, path: Path) -> None:
    server.cut_after = [400_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "ATTEMPTS", 1)
        with pytest.raises(DownloadError):
            download(server, path)
    server.content, server.tag = CONTENT[::-1], '"two"'
    download(server, path)
    assert path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("change", [{"ranges": False}, {"tag": None}, {"tag": 'W/"weak"'}])
def test_a_server_without_parts_sends_the_whole_again(
    server: Served, path: Path, change: dict[str, object]
) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    server.cut_after = [400_000]
    download(server, path, sha256=DIGEST)
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_server_that_sends_less_than_was_asked_for_is_asked_again(
    server: Served, path: Path
) -> None:
    server.cut_after, server.most_a_part = [400_000], 200_000
    download(server, path)
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 5


def test_what_leads_to_no_address_is_told(path: Path) -> None:
    for url in ("http://[x", f"http://{'a' * 300}.test/"):
        with pytest.raises(DownloadError):
            downloads.download_file(url, path, show_progress=False, wait_seconds=0)


@pytest.mark.skipif(not hasattr(urllib3.HTTPResponse, "shutdown"), reason="urllib3 before 2.3")
def test_a_download_that_takes_too_long_leaves_no_thread(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(downloads.PRIVATE_VARIABLE, "1")
    # A byte now and then: no block is ever full.
    server.content, server.pause_seconds = b"x" * 10, 60
    before = set(threading.enumerate())
    with pytest.raises(DownloadError, match="not there within"):
        downloads.download_bytes(server.url, max_bytes=10**7, seconds=1)
    for thread in set(threading.enumerate()) - before:
        if thread.name == "face_encode download":
            thread.join(timeout=30)
            assert not thread.is_alive()


def test_a_part_that_is_whole_already_is_taken(server: Served, path: Path) -> None:
    download(server, path)
    path.rename(path.with_name("weights.bin.part"))
    path.with_name("weights.bin.part.json").write_text(
        f'{{"url": "{server.url}", "version": "\\"one\\""}}'
    )
    download(server, path, sha256=DIGEST)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000003-"]


@pytest.mark.parametrize("note", ["", "[]", '{"url": "elsewhere", "version": "x"}', "\0"])
def test_a_part_of_unknown_origin_is_not_used(server: Served, path: Path, note: str) -> None:
    path.parent.mkdir()
    path.with_name("weights.bin.part").write_bytes(b"something else")
    path.with_name("weights.bin.part.json").write_text(note)
    download(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]


def test_another_file_is_refused_and_not_kept(server: Served, path: Path) -> None:
    with pytest.raises(DownloadError, match=f"expected SHA-256 {'0' * 64}. Received: {DIGEST}"):
        download(server, path, sha256="0" * 64)
    assert left(path) == set()


def test_a_missing_file_is_told_at_once(server: Served, path: Path) -> None:
    server.statuses = [404] * 9
    with pytest.raises(DownloadError, match="the server answers 404 Not Found"):
        download(server, path)
    assert len(server.asked) == 1
    assert left(path) == set()


def test_a_server_in_trouble_is_asked_again(server: Served, path: Path) -> None:
    server.statuses = [503, 429]
    download(server, path)
    assert path.read_bytes() == CONTENT
    server.statuses = [503] * 9
    with pytest.raises(DownloadError, match="the server answers 503"):
        download(server, path.with_name("other"))
    assert len(server.asked) == 3 + downloads.ATTEMPTS


def test_a_silent_server_is_left_and_asked_for_the_rest(server: Served, path: Path) -> None:
    server.silent_after = [500_000]
    download(server, path, timeout_seconds=2, sha256=DIGEST)
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 2 and server.asked[1] is not None


def test_a_server_that_stays_silent_is_given_up(server: Served, path: Path) -> None:
    server.silent_after = [0] * 9
    with pytest.raises(DownloadError, match="falls silent"):
        download(server, path, timeout_seconds=0.2)


def test_a_slow_server_may_take_longer_than_the_longest_silence(server: Served, path: Path) -> None:
    server.pause_seconds = 0.3
    download(server, path, timeout_seconds=2)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]


@pytest.mark.parametrize("with_length", [True, False])
def test_a_file_that_is_too_large_is_refused(server: Served, path: Path, with_length: bool) -> None:
    server.with_length = with_length
    with pytest.raises(DownloadError, match=r"larger than 500,000 bytes"):
        download(server, path, max_bytes=500_000)
    assert left(path) == set()


def test_nobody_there_is_told_in_words(path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        served = Served(b"", url=f"http://127.0.0.1:{free.getsockname()[1]}/x")
    with pytest.raises(DownloadError, match=r"cannot be reached \(is this machine online\?\)"):
        download(served, path)


def test_two_at_once_download_once(server: Served, path: Path) -> None:
    server.pause_seconds = 0.02
    failures: list[Exception] = []

    def guarded(action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            failures.append(error)

    threads = [
        threading.Thread(target=guarded, args=(lambda: download(server, path),)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_bytes() == CONTENT
    assert server.asked == [None]


def test_a_place_that_cannot_be_written_is_told(server: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match=r"cannot be written: (not a directory|file exists)"):
        download(server, tmp_path / "file" / "weights.bin")


def test_the_progress_is_shown_on_standard_error(
    server: Served, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download(server, path, show_progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "weights.bin" in captured.err and "1.0/1.0" in captured.err
