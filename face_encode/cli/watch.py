"""``face-encode watch``: the faces in a camera, a stream or a video file, followed and named."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from face_encode.cli.options import (
    add_detector_option,
    add_encoder_option,
    add_json_option,
    add_people,
    add_threshold_option,
    open_model,
    positive,
    print_json,
)
from face_encode.terminal import printable

if TYPE_CHECKING:
    from face_encode.video.session import Appearance, Outlets, SessionReport
    from face_encode.video.sources import Source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Follow the faces in a camera, a stream or a video file, and name them by the people of a "
        "folder or a gallery. The letter q, Ctrl-C and the end of the video end it; what was "
        "recorded until then is kept. A camera that is lost is tried again."
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
    results.add_argument(
        "--events",
        metavar="FILE.jsonl",
        help="append who was there from when to when, a line of JSON each",
    )
    results.add_argument("--headless", action="store_true", help="show no window")
    results.add_argument(
        "--blur-unknown", action="store_true", help="blur every face but those of enrolled people"
    )
    add_json_option(parser)
    looking = parser.add_argument_group("looking")
    add_encoder_option(looking)
    add_detector_option(
        looking, "a known detector, for the faces in the video (default: haar, the fastest)"
    )
    add_threshold_option(looking)
    looking.add_argument(
        "--every",
        type=positive,
        default=3,
        metavar="N",
        help="look for faces in every Nth frame, and follow them in the others (default: 3)",
    )
    looking.add_argument(
        "--look-width",
        type=positive,
        metavar="PIXELS",
        help="shrink frames to this width before faces are looked for: larger finds smaller faces, "
        "in more time (default for haar: 640 live, 1280 for a file)",
    )
    looking.add_argument(
        "--smallest-face",
        type=positive,
        default=40,
        metavar="PIXELS",
        help="name only faces at least so wide (default: 40)",
    )
    looking.add_argument(
        "--max-seconds", type=_seconds, metavar="S", help="end after so many seconds of video"
    )
    looking.add_argument(
        "--merge-seconds",
        type=_seconds,
        default=2.0,
        metavar="S",
        help="somebody who is away for less than this did not leave (default: 2)",
    )
    looking.add_argument(
        "--give-up-seconds",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="how long a camera that is lost is tried again (default: 60)",
    )


def run(options: argparse.Namespace) -> int:
    """Open everything, watch, and report."""
    # OpenCV and FFmpeg write what they think of a stream to standard error; this is a program,
    # not a library, so it may say so for the whole process.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    from face_encode.video.session import Session
    from face_encode.video.sources import Patience, open_source
    from face_encode.video.watcher import Watcher, WatchSettings, video_detector

    settings = WatchSettings(detect_every=options.every, smallest_face=options.smallest_face)
    with ExitStack() as stack:
        # Whatever cannot be opened is found out before the seconds that a model takes.
        source = open_source(
            options.source, patience=Patience(in_all=options.give_up_seconds), report=_tell
        )
        stack.callback(source.close)
        detector = video_detector(options.detector, options.look_width, is_live=source.is_live)
        # The photos of the people are searched by the thorough detector, whichever one follows the
        # video.
        options.detector = None
        outlets = _open_outlets(options, source, stack)
        model = open_model(options)
        add_people(model, options.people)
        session = Session(
            source,
            Watcher(model, detector, settings),
            outlets,
            max_seconds=options.max_seconds,
            merge_seconds=options.merge_seconds,
        )
        with _signals_as_wish() as is_to_end:
            report = session.run(is_to_end)
    if options.json:
        print_json(report.as_dict())
    else:
        _print_end(report)
    if report.error is not None:
        raise report.error
    return 0


def _open_outlets(options: argparse.Namespace, source: Source, stack: ExitStack) -> Outlets:
    """The window and files that the options ask for."""
    from face_encode.video.output import Recorder, Window
    from face_encode.video.session import EventFile, Outlets

    recorder, events, window = None, None, None
    if options.output is not None:
        rate = source.frames_per_second
        recorder = Recorder(options.output, rate, keeps_time=source.is_live)
    if options.events is not None:
        events = EventFile(options.events)
        stack.callback(events.close)
    if not options.headless:
        window = Window(f"face-encode: {printable(source.name)}")
        stack.callback(window.close)
    told = None if options.json else _print_appearance
    return Outlets(window, recorder, events, told, blur_unknown=options.blur_unknown)


@contextmanager
def _signals_as_wish() -> Iterator[Callable[[], bool]]:
    """End orderly at SIGINT or SIGTERM; a second signal ends at once.

    Gives a function that tells whether there was one.
    """
    wished = threading.Event()
    former: dict[int, Any] = {}

    def wish(number: int, _: object) -> None:
        wished.set()
        signal.signal(number, former[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.signal(number, wish)
    try:
        yield wished.is_set
    finally:
        for former_number, handler in former.items():
            signal.signal(former_number, handler)


def _tell(text: str) -> None:
    """Print the source's notices."""
    print(f"face-encode: {printable(text)}", file=sys.stderr, flush=True)


def _print_appearance(appearance: Appearance) -> None:
    """Print a line for each appearance as it ends."""
    best = appearance.best_similarity
    print(
        f"{_clock(appearance.begin)} to {_clock(appearance.end)}  "
        f"{printable(appearance.name or 'unknown')}"
        + ("" if best is None else f"  (similarity up to {best:.3f})"),
        flush=True,
    )


def _print_end(report: SessionReport) -> None:
    """Format how much was watched, and how fast."""
    rate = report.frames / report.elapsed if report.elapsed else 0.0
    passed_over = f", {report.passed_over} passed over" if report.passed_over else ""
    print(
        f"{report.frames} frames in {report.elapsed:.1f} seconds ({rate:.0f} a second)"
        f"{passed_over}; {len(report.appearances)} appearances, "
        f"{report.encoded} faces encoded"
    )


def _clock(seconds: float) -> str:
    """Format a duration as minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def _seconds(text: str) -> float:
    """Parse a number of seconds, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"a number of seconds, 0 or more, not {text!r}")
    return number
