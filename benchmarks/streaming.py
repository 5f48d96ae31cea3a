"""A camera on loopback: a real HTTP server that sends motion JPEG, and can be cut off."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import cv2

from face_encode.types import ImageArray

_BOUNDARY = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
_HEADER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n"
    b"Connection: close\r\n\r\n"
)


class StreamServer:
    """Sends the frames of a function of the time, again and again, at a rate."""

    def __init__(self, frame_at: Callable[[int], ImageArray], frames_per_second: float) -> None:
        self._frame_at = frame_at
        self._wait = 1 / frames_per_second
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        self._stopping = False
        self.refuses = False
        self.connections = 0
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}/video.mjpg"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while not self._stopping:
            with suppress(OSError):
                client, _ = self._listening.accept()
                if self.refuses:
                    client.close()
                    continue
                self.connections += 1
                self._clients.append(client)
                threading.Thread(target=self._send, args=(client,), daemon=True).start()

    def _send(self, client: socket.socket) -> None:
        with suppress(OSError):
            client.recv(4096)
            client.sendall(_HEADER)
            number = 0
            while True:
                bgr = cv2.cvtColor(self._frame_at(number), cv2.COLOR_RGB2BGR)
                jpeg = cv2.imencode(".jpg", bgr)[1].tobytes()
                client.sendall(_BOUNDARY % len(jpeg) + jpeg + b"\r\n")
                number += 1
                time.sleep(self._wait)

    def cut_off(self) -> None:
        """Break off every connection, as a cable that is pulled."""
        for client in self._clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            client.close()
        self._clients.clear()

    def close(self) -> None:
        """Stop listening and sending."""
        self._stopping = True
        self.cut_off()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@contextmanager
def streaming(
    frame_at: Callable[[int], ImageArray], frames_per_second: float = 25.0
) -> Iterator[StreamServer]:
    """A server that lives as long as the block."""
    server = StreamServer(frame_at, frames_per_second)
    try:
        yield server
    finally:
        server.close()
