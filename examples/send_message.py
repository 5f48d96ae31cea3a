"""Send a message when somebody arrives: receives the webhook of ``face-encode watch``.

    export FACE_ENCODE_WEBHOOK_SECRET=$(openssl rand -base64 32)
    python examples/send_message.py 8765 https://ntfy.sh/my-front-door &
    face-encode watch 0 --people people.sqlite --headless --webhook http://127.0.0.1:8765/

The message is posted as plain text, as ntfy.sh and many chats take it. Where that fails, the answer
is 502, so that the sender keeps the event and comes again.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from face_encode.video import signature_is_right

MAX_BYTES = 1_000_000


class Receiver(BaseHTTPRequestHandler):
    """Answers the posts of the webhook."""

    secret = ""
    message_url = ""

    def do_POST(self) -> None:
        """Check who sends, and pass on who has arrived."""
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BYTES:
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not signature_is_right(self.secret, headers, body):
            self.send_error(401)
            return
        event = json.loads(body)
        if event["event"] == "arrived":
            text = f"{event['name'] or 'Somebody unknown'} is at {event['source']}"
            try:
                urllib.request.urlopen(self.message_url, text.encode(), timeout=10).close()
            except OSError:
                self.send_error(502)
                return
        self.send_response(204)
        self.end_headers()


def main(port: str, message_url: str) -> None:
    """Receive until interrupted."""
    Receiver.secret = os.environ["FACE_ENCODE_WEBHOOK_SECRET"]
    Receiver.message_url = message_url
    with ThreadingHTTPServer(("127.0.0.1", int(port)), Receiver) as server:
        print(f"waiting at http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
