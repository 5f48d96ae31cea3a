"""``face-encode watch``: the faces in a camera, a stream or a video file, followed and named."""

from __future__ import annotations

import argparse
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from face_encode.cli.options import (
    add_attributes_option,
    add_detector_option,
    add_encoder_option,
    add_event_options,
    add_json_option,
    add_keep_unknown_option,
    add_liveness_option,
    add_people,
    add_threshold_option,
    check_event_file,
    open_model,
    positive,
    print_json,
)
from face_encode.errors import GalleryError, InputError
from face_encode.outputs import add_overwrite_option, check_output
from face_encode.terminal import print_line, print_notice, printable

if TYPE_CHECKING:
    from face_encode.model import Face_Encode_Model
    from face_encode.video.events import EventSink
    from face_encode.video.presence import PresenceEvent, Strangers
    from face_encode.video.session import Outlets, SessionReport
    from face_encode.video.sources import Source

_SAID = {"arrived": "is there", "renamed": "is who was unknown"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Follow the faces in a camera, a stream or a video file, and name them by the people of a "
        "folder or a gallery. The letter q, Ctrl-C and the end of the video end the command and "
        "leave a complete recording. A lost camera is retried."
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a webcam's number (0), an address (rtsp://, http://) or a video file",
    )
    parser.add_argument(
        "--people", metavar="PEOPLE", required=True, help="a folder of people, or a gallery"
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--output", metavar="FILE.mp4", help="record the video there, with boxes and names drawn"
    )
    add_event_options(results)
    add_keep_unknown_option(results, ", and with --blur-unknown 0, which keeps nothing")
    results.add_argument("--headless", action="store_true", help="show no window")
    results.add_argument(
        "--blur-unknown", action="store_true", help="blur every face but those of enrolled people"
    )
    add_overwrite_option(results)
    add_json_option(parser)
    looking = parser.add_argument_group("looking")
    add_encoder_option(looking)
    help_text = (
        "a known detector, for the video (default: haar, which needs no download; yunet is the "
        "fastest)"
    )
    add_detector_option(looking, help_text)
    add_threshold_option(looking)
    add_liveness_option(looking)
    help_text = (
        "name people only after they have turned their head to a side chosen at random, as no "
        "photo can (with the detector yunet, where none is chosen)"
    )
    looking.add_argument("--challenge", action="store_true", help=help_text)
    add_attributes_option(looking)
    counted = partial(looking.add_argument, type=positive)
    help_text = (
        "run the detector on every Nth frame, and follow the faces in the others (default: 3)"
    )
    counted("--every", metavar="N", default=3, help=help_text)
    help_text = (
        "shrink frames to this width for the detector: a larger width finds smaller faces, in more "
        "time (default for haar: 640 live, 1280 for a file)"
    )
    counted("--look-width", metavar="PIXELS", help=help_text)
    help_text = "name only faces at least this wide (default: 40)"
    counted("--smallest-face", metavar="PIXELS", default=40, help=help_text)
    timed = partial(looking.add_argument, type=_seconds, metavar="S")
    timed("--max-seconds", help="stop after this many seconds of video")
    help_text = "an absence shorter than this does not end an appearance (default: 1.5)"
    timed("--merge-seconds", default=1.5, help=help_text)
    timed("--give-up-seconds", default=60.0, help="how long to retry a lost camera (default: 60)")


def run(options: argparse.Namespace) -> int:
    """Open everything, watch, and report."""
    if options.json and options.events == "-":
        raise InputError("--json and --events - both print to standard output: use one of them")
    # OpenCV and FFmpeg print their complaints about a stream; a command may silence them for the
    # whole process.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    from face_encode.attributes.network import load_attributes
    from face_encode.video.session import Session
    from face_encode.video.sources import Patience, open_source
    from face_encode.video.watcher import Watcher, WatchSettings, video_detector

    settings = WatchSettings(
        detect_every=options.every,
        smallest_face=options.smallest_face,
        liveness=options.liveness,
        challenge=options.challenge,
    )
    if options.challenge and options.detector is None:
        options.detector = "yunet"
    with ExitStack() as stack:
        # The source and the outputs come before the model, whose loading takes seconds: they fail
        # at once.
        patience = Patience(in_all=options.give_up_seconds)
        source = open_source(options.source, patience=patience, report=print_notice)
        stack.callback(source.close)
        detector = video_detector(options.detector, options.look_width, is_live=source.is_live)
        # --detector is for the video; the people's photos get the default detector.
        options.detector = None
        outlets = _open_outlets(options, source, stack)
        model = open_model(options)
        add_people(model, options.people)
        strangers = _strangers(options, model, source)
        settings = replace(settings, keep_sights=strangers is not None)
        session = Session(
            source,
            Watcher(model, detector, settings, load_attributes() if options.attributes else None),
            outlets,
            max_seconds=options.max_seconds,
            unseen_seconds=options.merge_seconds,
            strangers=strangers,
        )
        with _stop_at_signals() as should_stop:
            report = session.run(should_stop)
    if options.json:
        print_json(report.as_dict())
    elif options.events != "-":
        _print_summary(report)
    if report.error is not None:
        raise report.error
    return 0


def _strangers(
    options: argparse.Namespace, model: Face_Encode_Model, source: Source
) -> Strangers | None:
    """Where strangers are known again: the gallery, if it is a database that can be written to.

    Raises:
        GalleryError: It is not, and the option asks for it.
    """
    from face_encode.gallery.database import DatabaseGallery
    from face_encode.gallery.unknown import KEEP_DAYS
    from face_encode.video.presence import Strangers

    wanted, gallery = options.keep_unknown, model.gallery
    if wanted is None:
        # Who blurs strangers does not want to keep them.
        wanted = 0 if options.blur_unknown else KEEP_DAYS
    if not wanted:
        return None
    if isinstance(gallery, DatabaseGallery) and gallery.unknown.can_keep:
        return Strangers(gallery.unknown, model.threshold, source.name, wanted, print_notice)
    if options.keep_unknown is None:
        return None
    raise GalleryError(
        "strangers are kept in a gallery database, people.sqlite, that can be written to. "
        f"Received: {options.people}"
    )


def _open_outlets(options: argparse.Namespace, source: Source, stack: ExitStack) -> Outlets:
    """Open the window and the files that the options name."""
    from face_encode.video.output import Recorder, Window
    from face_encode.video.session import Outlets

    recorder, window = None, None
    if options.output is not None:
        check_output(
            options.output, "recording", inputs=[options.source], overwrite=options.overwrite
        )
        recorder = Recorder(options.output, source.frames_per_second, keeps_time=source.is_live)
    events = []
    for sink in _open_sinks(options, source):
        stack.callback(sink.close)
        events.append(sink)
    if not options.headless:
        window = Window(f"face-encode: {printable(source.name)}")
        stack.callback(window.close)
    is_silent = options.json or options.events == "-"
    return Outlets(
        window,
        recorder,
        events,
        options.event_crops,
        None if is_silent else _print_event,
        blur_unknown=options.blur_unknown,
    )


def _open_sinks(options: argparse.Namespace, source: Source) -> Iterator[EventSink]:
    """Open where the events go."""
    from face_encode.video.events import open_sinks

    check_event_file(options, [options.source])
    yield from open_sinks(options.events, options.webhook, report=print_notice)
    if options.mqtt is not None:
        from face_encode.video.mqtt import MqttEvents

        yield MqttEvents(options.mqtt, source.name, report=print_notice)


@contextmanager
def _stop_at_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether SIGINT or SIGTERM came; a second one ends at once."""
    stopped = threading.Event()
    former: dict[int, Any] = {}

    def stop(number: int, _: object) -> None:
        stopped.set()
        signal.signal(number, former[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.signal(number, stop)
    try:
        yield stopped.is_set
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)


def _print_event(event: PresenceEvent) -> None:
    """Print a line when somebody arrives, gets a name or has left."""
    stay = event.appearance
    name = stay.name or stay.unknown or "unknown"
    if event.kind != "left":
        now = stay.end
        print_line(f"{_clock(now)}  {name} {_SAID[event.kind]}")
    elif event.continued_as is None:
        best = stay.best_similarity
        similarity = "" if best is None else f"  (similarity up to {best:.3f})"
        print_line(f"{_clock(stay.begin)} to {_clock(stay.end)}  {name}{similarity}")


def _print_summary(report: SessionReport) -> None:
    """Print the counts and the speed."""
    rate = report.frames / report.elapsed if report.elapsed else 0.0
    passed_over = f", {report.passed_over} passed over" if report.passed_over else ""
    print(
        f"{report.frames} frames in {report.elapsed:.1f} seconds ({rate:.0f} a second)"
        f"{passed_over}; {len(report.appearances)} appearances, {report.encoded} faces encoded"
    )


def _clock(seconds: float) -> str:
    """Format a duration as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def _seconds(text: str) -> float:
    """Parse a number of seconds, 0 or more."""
    with suppress(ValueError):
        if 0 <= (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"a number of seconds, 0 or more, not {text!r}")
