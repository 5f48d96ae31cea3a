"""The cameras of a service, in a process of their own."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from face_encode.errors import FaceEncodeError, InputError, VideoError
from face_encode.gallery.unknown import KEEP_DAYS
from face_encode.pipeline.workers import ONE_THREAD
from face_encode.terminal import print_notice

if TYPE_CHECKING:
    from loky.backend.process import LokyProcess

    from face_encode.video.cameras import Cameras
    from face_encode.video.events import EventSink

# A core for the networks; FFmpeg decodes beside it. OpenCV and FFmpeg print their complaints about
# a stream, unless told otherwise before they are loaded.
_ENVIRONMENT = {
    **ONE_THREAD,
    "LOKY_MAX_CPU_COUNT": "1",
    "OPENCV_LOG_LEVEL": os.environ.get("OPENCV_LOG_LEVEL", "FATAL"),
    "OPENCV_FFMPEG_LOGLEVEL": os.environ.get("OPENCV_FFMPEG_LOGLEVEL", "-8"),
}
# Of ten frames a second, five go through the detector.
_DETECT_EVERY = 2
_ANSWER_SECONDS = 5.0
# How often one who waits for the process looks whether that is still wanted.
_LOOK_SECONDS = 0.5
# Until a process that has ended is started again; after a start that failed, longer.
_RESTART_SECONDS, _FAILED_SECONDS = 1.0, 30.0
# The end of the process takes the time of its cameras and of what waits for the webhook.
_CLOSE_SECONDS = 20.0

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CameraSettings:
    """The cameras of a service, and what their process needs.

    Attributes:
        sources: Name of each camera -> a webcam's number, its device file, or an address, which may
            hold a password.
        people: The gallery database.
        model: The encoder, as for ``Face_Encode_Model``; None for the default.
        engine: What runs the encoder.
        threshold: Similarity that names a face; None for the calibration's or the encoder's.
        detector: Finds the faces; None for the default, ``"haar"``.
        liveness: Whether what is not alive gets no name.
        attributes: Whether events tell age, gender and expression.
        events: A file of events, or ``-`` for standard output.
        webhook: An address that gets the events.
        mqtt: A broker that gets the events, under each camera's name.
        event_crops: Whether events carry the face.
        keep_days: For how many days strangers are known again; 0 keeps nothing of them.
    """

    sources: Mapping[str, str] = field(repr=False)
    people: Path
    model: str | None = None
    engine: str = "auto"
    threshold: float | None = None
    detector: str | None = None
    liveness: bool = False
    attributes: bool = False
    events: str | None = None
    webhook: str | None = field(default=None, repr=False)
    mqtt: str | None = field(default=None, repr=False)
    event_crops: bool = False
    keep_days: float = KEEP_DAYS


class CameraProcess:
    """Runs ``Cameras`` in a process of its own, and asks it.

    So a fault in the libraries that decode video ends no service, and no camera keeps Python's lock
    from a request. A process that ends is started again. It has the same priority as the others:
    looking too seldom, it would take people for gone who are there.
    """

    def __init__(self, settings: CameraSettings) -> None:
        """Take the settings.

        Raises:
            InputError: A source is no camera.
        """
        from face_encode.video.cameras import check_camera

        for name, source in settings.sources.items():
            check_camera(name, source)
        self._settings = settings
        self._closing = threading.Event()
        self._connection: Connection | None = None
        self._process: LokyProcess | None = None
        self._asked = 0
        # One question at a time, and none of those who wait in the threads of other requests.
        self._asker = ThreadPoolExecutor(1, "cameras")
        self._keeper = threading.Thread(target=self._keep, name="cameras' process", daemon=True)

    @property
    def names(self) -> tuple[str, ...]:
        """The cameras' names."""
        return tuple(self._settings.sources)

    def start(self) -> None:
        """Start the process, and wait until it watches; the cameras may be away.

        Raises:
            FaceEncodeError: The process cannot do its work.
        """
        self._start()
        self._keeper.start()

    def close(self) -> None:
        """End the process: events of those who are there are written, and sent if possible."""
        self._closing.set()
        self._asker.shutdown(cancel_futures=True)
        if self._connection is not None:
            # Its end tells the process to finish.
            self._connection.close()
        if self._keeper.is_alive():
            self._keeper.join(_CLOSE_SECONDS)
        process = self._process
        if process is not None and process.is_alive():
            # It answers no other signal while it is stuck.
            os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    def states(self) -> Future[list[dict[str, Any]]]:
        """See ``Cameras.states``; the future raises a VideoError while there is no process."""
        return self._asker.submit(self._ask, "states")

    def picture(self, name: str, width: int, annotated: bool) -> Future[bytes | None]:
        """See ``Cameras.picture``; the future raises a VideoError while there is no process."""
        return self._asker.submit(self._ask, "picture", name, width, annotated)

    def events(self, since: int, count: int) -> Future[list[dict[str, Any]]]:
        """See ``Cameras.events``; the future raises a VideoError while there is no process."""
        return self._asker.submit(self._ask, "events", since, count)

    def _ask(self, question: str, *arguments: Any) -> Any:
        """Ask the process; in the thread for that."""
        connection = self._connection
        self._asked += 1
        with suppress(OSError, EOFError, ValueError):
            if connection is not None:
                connection.send((self._asked, question, arguments))
                while connection.poll(_ANSWER_SECONDS):
                    number, answer = connection.recv()
                    # An earlier answer may have come too late.
                    if number == self._asked:
                        return answer
        raise VideoError("the process of the cameras does not answer; it may be starting")

    def _start(self) -> None:
        """Start a process, and wait until it watches.

        Raises:
            FaceEncodeError: It cannot.
        """
        from loky.backend import get_context

        # A clean process, as those of photos; the standard library's would run the user's own
        # script again.
        context = get_context("loky")
        own, other = context.Pipe()
        process: LokyProcess = context.Process(
            target=_watch,
            name="cameras",
            args=(self._settings, other),
            env=_ENVIRONMENT,
            daemon=True,
        )
        process.start()
        other.close()
        self._process = process
        while not own.poll(_LOOK_SECONDS):
            if self._closing.is_set():
                own.close()
                return
        try:
            problem = own.recv()
        except EOFError:
            process.join()
            problem = VideoError(
                f"the process of the cameras ended while it started, with code {process.exitcode}"
            )
        if problem is not None:
            own.close()
            raise problem
        self._connection = own
        if self._closing.is_set():
            own.close()

    def _keep(self) -> None:
        """Start the process again whenever it has failed; what the thread runs."""
        while True:
            assert self._process is not None
            self._process.join()
            if self._closing.wait(_RESTART_SECONDS):
                return
            self._connection = None
            code = self._process.exitcode
            _LOG.error("the process of the cameras ended with code %s", code)
            if code == 0:
                # Asked to, by a signal to it alone.
                return
            try:
                self._start()
            # The second where the machine has no room for a process.
            except (FaceEncodeError, OSError) as error:
                _LOG.error("the cameras cannot be watched: %s", error)
                if self._closing.wait(_FAILED_SECONDS):
                    return


def _watch(settings: CameraSettings, connection: Connection) -> None:
    """Watch the cameras and answer questions; what the process runs."""
    # Ctrl-C reaches this process too, but ends the service, which closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: connection.close())
    with ExitStack() as stack:
        try:
            cameras = _opened(settings, stack)
        except FaceEncodeError as error:
            connection.send(error)
            sys.exit(1)
        with suppress(EOFError, OSError):
            connection.send(None)
            while True:
                number, question, arguments = connection.recv()
                connection.send((number, getattr(cameras, question)(*arguments)))


def _opened(settings: CameraSettings, stack: ExitStack) -> Cameras:
    """Open model, gallery and outlets, and begin to watch; the stack closes them."""
    import cv2

    from face_encode.attributes.network import load_attributes
    from face_encode.gallery.database import DatabaseGallery
    from face_encode.model import Face_Encode_Model
    from face_encode.video.cameras import Cameras
    from face_encode.video.events import open_sinks
    from face_encode.video.watcher import WatchSettings, video_detector

    cv2.setNumThreads(1)
    sinks: dict[str, list[EventSink]] = {name: [] for name in settings.sources}
    for shared in open_sinks(settings.events, settings.webhook, report=print_notice):
        stack.callback(shared.close)
        for own in sinks.values():
            own.append(shared)
    if settings.mqtt is not None:
        for name, broker in _brokers(settings.mqtt, settings.sources):
            stack.callback(broker.close)
            sinks[name].append(broker)
    model = Face_Encode_Model(settings.model, threshold=settings.threshold, engine=settings.engine)
    model.gallery = DatabaseGallery(settings.people, model.encoder)
    stack.callback(model.gallery.close)
    cameras = Cameras(
        settings.sources,
        model,
        video_detector(settings.detector),
        settings=WatchSettings(detect_every=_DETECT_EVERY, liveness=settings.liveness),
        attributes=load_attributes() if settings.attributes else None,
        sinks=sinks,
        event_crops=settings.event_crops,
        keep_days=settings.keep_days,
        report=print_notice,
    )
    stack.callback(cameras.close)
    return cameras


def _brokers(url: str, names: Iterable[str]) -> Iterator[tuple[str, EventSink]]:
    """Connect to the broker for each camera: it is a device of its own there.

    Raises:
        InputError: Two cameras would be one device.
    """
    from face_encode.video.mqtt import MqttEvents, topic_part

    devices: dict[str, str] = {}
    for name in names:
        other = devices.setdefault(topic_part(name), name)
        if other != name:
            raise InputError(
                "in MQTT's topics the cameras' names differ in letters a to z and digits. "
                f"Received: {other!r} and {name!r}"
            )
        yield name, MqttEvents(url, name, report=print_notice)
