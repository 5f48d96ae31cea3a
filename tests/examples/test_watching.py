"""The examples that act on the events of ``face-encode watch``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from face_encode.video import Webhook
from tests.conftest import EXAMPLES
from tests.video.test_events import receiving


def event(kind: str, name: str | None) -> dict[str, object]:
    return {"source": "front door", "event": kind, "id": "a-1", "name": name}


def test_a_door_opens_once_for_those_who_may(tmp_path: Path) -> None:
    events = [
        event("started", None),
        event("arrived", None),
        event("arrived", "Bruno"),
        event("renamed", "Ada Lovelace"),
        event("left", "Ada Lovelace"),
        event("arrived", "Ada Lovelace"),
    ]
    opened = tmp_path / "opened"
    script = f"open({str(opened)!r}, 'a').write('x')"
    command = [sys.executable, str(EXAMPLES / "open_door.py"), "Ada Lovelace", "Mei", "--"]
    lines = "".join(json.dumps(each) + "\n" for each in events)
    done = subprocess.run(
        [*command, sys.executable, "-c", script], input=lines, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "front door: opens for Ada Lovelace\n"
    assert opened.read_text() == "x"
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


def test_a_message_is_sent_for_an_arrival(tmp_path: Path) -> None:
    secret = "of-the-test"
    with receiving(codes=[503]) as (chat, chat_url):
        process = subprocess.Popen(
            [sys.executable, EXAMPLES / "send_message.py", "0", chat_url],
            env={**os.environ, "FACE_ENCODE_WEBHOOK_SECRET": secret},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[-1]
            stranger = Webhook(url, queue=tmp_path / "other.sqlite", secret="another")
            stranger.write(event("arrived", "Nobody"))
            webhook = Webhook(url, queue=tmp_path / "queue.sqlite", secret=secret)
            for each in (event("arrived", "Ada"), event("left", "Ada"), event("arrived", None)):
                webhook.write(each)
            deadline = time.monotonic() + 60
            while len(chat.messages) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            webhook.close()
            stranger.close()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
    texts = [body.decode() for _, body in chat.messages]
    # The chat was away at first: the message came again.
    assert texts == ["Ada is at front door", "Somebody unknown is at front door"]
