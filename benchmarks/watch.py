"""How many frames a second ``face-encode watch`` takes, by detector.

    python -m benchmarks.watch [--frames 250] [--detectors haar dlib_hog ...] [--threads 2]

A video of 640x360 with two of the invented people, who move all the time, is made, then watched
end to end: decoded, faces found, followed and named, boxes and names drawn, and recorded again.
Beside the frames a second stands the processor time a frame, over all cores, which other work on
the machine disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from face_encode import Face_Encode_Model, read_image
from face_encode.types import ImageArray
from face_encode.video.frames import Frame
from face_encode.video.output import Recorder
from face_encode.video.session import Outlets, Session
from face_encode.video.sources import RecordedVideo
from face_encode.video.watcher import Watcher, WatchSettings, video_detector

_PEOPLE = Path(__file__).parent.parent / "verify_dataset"
_WIDTH, _HEIGHT, _FRAMES_PER_SECOND = 640, 360, 25.0
_DETECTORS = ("haar", "dlib_hog", "dlib", "mtcnn", "dlib_cnn")


class Timed:
    """A video whose frames are timed: from when one is given to when the next is asked for."""

    is_live = False

    def __init__(self, path: Path) -> None:
        self._video = RecordedVideo.of_file(path)
        self.name, self.frames_per_second = self._video.name, self._video.frames_per_second
        self.took: list[float] = []

    def frames(self) -> Iterator[Frame | None]:
        """The frames; decoding counts, too."""
        began = time.perf_counter()
        for frame in self._video.frames():
            yield frame
            self.took.append(time.perf_counter() - began)
            began = time.perf_counter()

    def close(self) -> None:
        """Close the video."""
        self._video.close()


def two_people(number: int) -> ImageArray:
    """One frame of the video."""
    picture = np.full((_HEIGHT, _WIDTH, 3), 110, np.uint8)
    picture += np.random.default_rng(number).integers(0, 12, (_HEIGHT, _WIDTH, 1), np.uint8)
    for person, (left, height) in {
        "Ada_Mirova/3.jpg": (60 + 50 * np.sin(number / 20), 240 + 30 * np.sin(number / 31)),
        "Bruno_Castell/2.jpg": (380 + 40 * np.cos(number / 17), 230),
    }.items():
        photo = read_image(_PEOPLE / person)
        size = (round(photo.shape[1] * height / photo.shape[0]), round(height))
        small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        at = round(left)
        picture[60 : 60 + size[1], at : at + size[0]] = small
    return picture


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the video, watch it with each detector, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--detectors", nargs="+", default=list(_DETECTORS))
    parser.add_argument("--threads", type=int, default=2, help="of OpenCV")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(options.threads)
    model = Face_Encode_Model()
    model.fit_dataset(_PEOPLE, progress=False)
    print("| detector | frames a second | processor time a frame | slowest of 20 frames | named |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "two people.mp4")
        with Recorder(video, _FRAMES_PER_SECOND) as recorder:
            for number in range(options.frames):
                recorder.write(two_people(number), number / _FRAMES_PER_SECOND)
        for name in options.detectors:
            print(_row(name, video, model, Path(folder, "out.mp4")), flush=True)


def _row(name: str, video: Path, model: Face_Encode_Model, output: Path) -> str:
    """Watch the video with one detector; the row of the table."""
    detector = video_detector(name)
    # Load what the detector loads at its first photo before the clock starts.
    detector.detect(two_people(0))
    source = Timed(video)
    watcher = Watcher(model, detector, WatchSettings())
    recorder = Recorder(output, source.frames_per_second)
    began = time.process_time()
    report = Session(source, watcher, Outlets(recorder=recorder)).run()
    used = (time.process_time() - began) / report.frames
    source.close()
    slow = statistics.quantiles(source.took, n=20)[-1] if len(source.took) > 1 else 0.0
    named = ", ".join(sorted(each.name or "unknown" for each in report.appearances))
    return (
        f"| `{name}` | {report.frames / report.elapsed:.0f} | {1000 * used:.0f} ms | "
        f"{1000 * slow:.0f} ms | {named} |"
    )


if __name__ == "__main__":
    main()
