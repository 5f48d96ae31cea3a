from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from face_encode.errors import InputError, MissingExtraError, VideoError
from face_encode.video.events import EventFile, PrintedEvents, Webhook, signature_is_right
from face_encode.video.mqtt import MqttEvents
from tests.conftest import REPOSITORY
from tests.full_disk import full_disk


def lines(path: Path) -> list[object]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "events.jsonl"
    for name in ("Ada", "王小明"):
        events = EventFile(path)
        events.write({"name": name})
        assert lines(path)[-1] == {"name": name}  # there at once, not only at the end
        events.close()
    assert lines(path) == [{"name": "Ada"}, {"name": "王小明"}]


def test_a_files_name_that_is_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    event = {"source": "video \udcff.mp4", "name": "王小明"}
    events = EventFile(path)
    events.write(event)
    events.close()
    assert lines(path) == [event]


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"name": "Ada"}\n{"na')
    events = EventFile(path)
    events.write({"name": "Bob"})
    events.close()
    assert path.read_text().splitlines()[0] == '{"name": "Ada"}'
    assert path.read_text().splitlines()[-1] == '{"name": "Bob"}'


def test_a_kill_cuts_off_the_last_line_at_most(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    script = (
        "import sys\n"
        "from face_encode.video.events import EventFile\n"
        "events = EventFile(sys.argv[1])\n"
        "while True: events.write({'name': 'A' * 3000})\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while (not path.exists() or path.stat().st_size < 100_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.wait()
    # The kernel may stop a killed process' write between two pages of memory.
    *whole, last = path.read_text().split("\n")
    assert len(whole) > 30
    assert all(json.loads(line) == {"name": "A" * 3000} for line in whole)
    events = EventFile(path)
    events.write({"name": "Bob"})
    events.close()
    assert path.read_text().split("\n") == [*whole, *[last] * bool(last), '{"name": "Bob"}', ""]


def test_a_place_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="it is a folder"):
        EventFile(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(VideoError, match="is no folder"):
        EventFile(tmp_path / "file" / "events.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_is_an_error() -> None:
    events = EventFile("/dev/full")
    with pytest.raises(VideoError, match="cannot write /dev/full: no space left"):
        events.write({"name": "Ada"})
    events.close()


def test_after_a_full_disk_a_new_line_begins(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = EventFile(path)
    events.write({"name": "Ada"})
    with (
        full_disk(path.stat().st_size + 5),
        pytest.raises(VideoError, match=f"cannot write {path}"),
    ):
        events.write({"name": "Bob"})
    with full_disk(path.stat().st_size), pytest.raises(VideoError, match=f"cannot write {path}"):
        events.write({"name": "Cleo"})
    events.write({"name": "Dora"})
    events.write({"name": "Eve"})
    events.close()
    assert path.read_text().split("\n") == [
        '{"name": "Ada"}',
        '{"nam',
        '{"name": "Dora"}',
        '{"name": "Eve"}',
        "",
    ]


def wait_until(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_printed_lines_are_there_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    events = PrintedEvents()
    events.write({"name": "王小明"})
    assert capsys.readouterr().out == '{"name": "王小明"}\n'
    events.close()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_printed_lines_are_json_whatever_the_output_can_show(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding))
    event = {"source": "video \udcff.mp4", "name": "Zoë 王小明 \U0001f600"}
    PrintedEvents().write(event)
    assert json.loads(content.getvalue().decode(encoding)) == event


class Receiver(ThreadingHTTPServer):
    """Takes the messages of a webhook; answers with the next of these codes, at last with 200."""

    def __init__(self, port: int, codes: list[int]) -> None:
        self.codes = codes
        self.messages: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", port), _Answering)

    @property
    def taken(self) -> list[Any]:
        return [json.loads(body) for _, body in self.messages]


class _Answering(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        code = self.server.codes.pop(0) if self.server.codes else 200
        if code == 200:
            headers = {key.lower(): value for key, value in self.headers.items()}
            self.server.messages.append((headers, body))
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiving(port: int = 0, codes: list[int] | None = None) -> Iterator[tuple[Receiver, str]]:
    with Receiver(port, codes or []) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}/hook/key-in-path"
        finally:
            server.shutdown()
            thread.join()


def test_a_webhook_gets_every_event_in_order_and_signed(tmp_path: Path) -> None:
    secret = "whsec_" + base64.b64encode(b"some thirty-two bytes of a secret").decode()
    with receiving() as (server, url):
        webhook = Webhook(url, queue=tmp_path / "queue.sqlite", secret=secret)
        for number in range(20):
            webhook.write({"number": number, "name": "王小明"})
        wait_until(lambda: len(server.messages) == 20)
        webhook.close()
    assert [each["number"] for each in server.taken] == list(range(20))
    headers, body = server.messages[0]
    assert signature_is_right(secret, headers, body)
    assert not signature_is_right(secret, headers, body + b" ")
    assert not signature_is_right("another", headers, body)
    assert not signature_is_right(secret, {**headers, "webhook-timestamp": "0"}, body)
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 120
    assert len({headers["webhook-id"] for headers, _ in server.messages}) == 20
    assert (tmp_path / "queue.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_message_that_did_not_arrive_is_sent_again(tmp_path: Path) -> None:
    said: list[str] = []
    with receiving(codes=[503, 302, 429]) as (server, url):
        webhook = Webhook(url, queue=tmp_path / "queue.sqlite", report=said.append)
        webhook.write({"number": 1})
        webhook.write({"number": 2})
        wait_until(lambda: len(server.messages) == 2)
        webhook.close()
    assert [each["number"] for each in server.taken] == [1, 2]
    assert said == [
        "webhook 127.0.0.1: answered with 503; messages wait, and are sent again",
        "webhook 127.0.0.1: messages arrive again",
    ]


def test_a_refused_message_holds_up_no_other(tmp_path: Path) -> None:
    said: list[str] = []
    with receiving(codes=[400]) as (server, url):
        webhook = Webhook(url, queue=tmp_path / "queue.sqlite", report=said.append)
        webhook.write({"number": 1})
        webhook.write({"number": 2})
        wait_until(lambda: len(server.messages) == 1)
        webhook.close()
    assert server.taken == [{"number": 2}]
    assert said == ["webhook 127.0.0.1: refused a message with 400; given up"]


def test_a_kill_loses_nothing_that_waits_for_a_receiver(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url, queue = f"http://127.0.0.1:{port}/hook/key-in-path", tmp_path / "queue.sqlite"
    script = (
        "import os, signal, sys\n"
        "from face_encode.video.events import Webhook\n"
        "webhook = Webhook(sys.argv[1], queue=sys.argv[2])\n"
        "for number in range(30): webhook.write({'number': number})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    arguments = [sys.executable, "-c", script, url, str(queue)]
    assert subprocess.run(arguments, cwd=REPOSITORY, check=False).returncode == -9
    with receiving(port) as (server, _):
        webhook = Webhook(url, queue=queue)
        webhook.write({"number": 30})
        wait_until(lambda: len(server.messages) == 31)
        webhook.close()
    assert [each["number"] for each in server.taken] == list(range(31))


def test_an_end_while_the_receiver_is_away_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("face_encode.video.events._CLOSE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said: list[str] = []
    url = f"http://127.0.0.1:{port}/hook/key-in-path"
    webhook = Webhook(url, queue=tmp_path / "queue.sqlite", report=said.append)
    webhook.write({"number": 1})
    webhook.close()
    assert "key-in-path" not in "".join(said)
    with receiving(port) as (server, _):
        webhook = Webhook(url, queue=tmp_path / "queue.sqlite")
        wait_until(lambda: server.taken == [{"number": 1}])
        webhook.close()


@pytest.mark.parametrize("trouble", ["host", "lock"])
def test_what_keeps_messages_from_being_sent_is_told_and_tried_again(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("face_encode.video.events._CLOSE_SECONDS", 0.0)
    queue = tmp_path / "queue.sqlite"
    lock = tmp_path / "queue.sqlite.lock"
    if trouble == "lock":
        lock.mkdir()
    said: list[str] = []
    with receiving() as (server, url):
        # A name whose part is empty is refused by what looks names up, not by requests.
        url = "http://a..b/" if trouble == "host" else url
        webhook = Webhook(url, queue=queue, report=said.append)
        webhook.write({"number": 1})
        wait_until(lambda: said)
        if trouble == "lock":
            assert "cannot be locked" in said[0]
            lock.rmdir()
            wait_until(lambda: server.taken == [{"number": 1}])
        else:
            assert said[0].startswith("webhook a..b: no answer")
            assert webhook._thread.is_alive()
        webhook.close()


@pytest.mark.parametrize("url", ["ftp://host/", "http://", "host", "http://[/"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="begins with http:// or https:// and a host"):
        Webhook(url, queue=tmp_path / "queue.sqlite")
    with pytest.raises(InputError, match="mqtt:// or mqtts://"):
        MqttEvents(url, "camera")


def test_a_queue_or_secret_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no database at all, but some text of more than a few bytes")
    with pytest.raises(VideoError, match="cannot write the webhook's queue"):
        Webhook("http://127.0.0.1:9/", queue=tmp_path / "note.txt")
    with pytest.raises(InputError, match="goes on in base64"):
        Webhook("http://127.0.0.1:9/", queue=tmp_path / "queue.sqlite", secret="whsec_no base64!")


def test_mqtt_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(MissingExtraError, match=r"face_encode\[mqtt\]"):
        MqttEvents("mqtt://127.0.0.1", "camera")


def test_a_broker_that_does_not_answer_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said: list[str] = []
    events = MqttEvents(f"mqtt://127.0.0.1:{port}", "camera", report=said.append)
    wait_until(lambda: said)
    events.close()
    assert said == ["MQTT broker 127.0.0.1: does not answer; trying again"]


_BROKER = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


class Broker:
    """A real broker on loopback, that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._settings = folder / "mosquitto.conf"
        self._settings.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        self.start()

    def start(self) -> None:
        assert _BROKER is not None
        self._process = subprocess.Popen([_BROKER, "-c", str(self._settings)])

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until(listens)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


class Listener:
    """Hears every message of a broker."""

    def __init__(self, port: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.heard: list[tuple[str, str]] = []
        self._is_ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._is_ready.set()
        self._client.on_message = lambda _, __, message: self.heard.append(
            (message.topic, message.payload.decode())
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._is_ready.wait(60)

    def last(self, topic: str) -> Any:
        """The last payload of a topic, or None; JSON where it is an object."""
        said = [payload for heard, payload in self.heard if heard == topic]
        return None if not said else json.loads(said[-1]) if said[-1][0] == "{" else said[-1]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def happened(kind: str, name: str | None, number: int) -> Mapping[str, Any]:
    return {"source": "front door", "event": kind, "id": f"run-{number}", "name": name}


@pytest.mark.slow
@pytest.mark.skipif(_BROKER is None, reason="mosquitto is not installed")
def test_mqtt_says_who_is_there_and_introduces_itself(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    try:
        with closing(Listener(broker.port)) as listener:
            said: list[str] = []
            events = MqttEvents(f"mqtt://127.0.0.1:{broker.port}", "Front door", report=said.append)
            events.write(happened("arrived", "Ada", 1))
            events.write(happened("arrived", None, 2))
            topic = "face_encode/front_door"
            there = {"names": ["Ada"], "unknown": 1, "count": 2}
            wait_until(lambda: listener.last(f"{topic}/people") == there)
            assert listener.last(f"{topic}/presence") == "ON"
            events.write(happened("renamed", "Mei", 2))
            events.write(happened("left", "Ada", 1))
            there = {"names": ["Mei"], "unknown": 0, "count": 1}
            wait_until(lambda: listener.last(f"{topic}/people") == there)
            assert listener.last(f"{topic}/event") == dict(happened("left", "Ada", 1))
            wait_until(lambda: listener.last(f"{topic}/availability") == "online")
            found = "homeassistant/binary_sensor/face_encode_front_door/presence/config"
            wait_until(lambda: listener.last(found) is not None)
            settings = listener.last(found)
            assert settings["state_topic"] == f"{topic}/presence"
            assert settings["availability_topic"] == f"{topic}/availability"
            events.write(happened("left", "Mei", 2))
            wait_until(lambda: listener.last(f"{topic}/presence") == "OFF")
            events.close()
            wait_until(lambda: listener.last(f"{topic}/availability") == "offline")
            assert said == ["MQTT broker 127.0.0.1: connected"]
    finally:
        broker.stop()


@pytest.mark.slow
@pytest.mark.skipif(_BROKER is None, reason="mosquitto is not installed")
def test_what_happened_while_the_broker_was_away_is_published_later(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    said: list[str] = []
    events = MqttEvents(f"mqtt://127.0.0.1:{broker.port}", "Front door", report=said.append)
    wait_until(lambda: len(said) == 1)
    broker.stop()
    wait_until(lambda: len(said) == 2)
    events.write(happened("arrived", "Ada", 1))
    broker.start()
    try:
        with closing(Listener(broker.port)) as listener:
            there = {"names": ["Ada"], "unknown": 0, "count": 1}
            wait_until(lambda: listener.last("face_encode/front_door/people") == there)
            events.close()
    finally:
        broker.stop()
    assert "lost" in said[1] and "connected" in said[2]
