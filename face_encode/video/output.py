"""Output of a watched video: names drawn on its frames, an ``.mp4`` recording, and a window."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2

from face_encode.errors import VideoError
from face_encode.files import as_path, check_writable, replacing
from face_encode.outputs import SOFTWARE
from face_encode.photos.drawing import KNOWN_COLOUR, UNKNOWN_COLOUR, blur_boxes, draw_boxes
from face_encode.types import ImageArray
from face_encode.video.frames import WatchedFrame

_SUFFIX = ".mp4"
UNSETTLED_COLOUR = (120, 120, 120)

_QUIT_KEYS = (ord("q"), ord("Q"), 27)
# Qt ends the whole process where there is no screen, so a child process tries first.
_TRIAL = "import cv2; cv2.namedWindow('trial'); cv2.waitKey(1); cv2.destroyAllWindows()"
_TRIAL_SECONDS = 20


def draw_watched(frame: WatchedFrame, *, blur_unknown: bool = False) -> ImageArray:
    """Draw the followed faces on a copy of their frame.

    A face that is not settled yet has a grey box without a label.

    Args:
        frame: A frame from ``watch``.
        blur_unknown: Whether to blur every face but those of enrolled people, unsettled faces
            included.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    image = frame.image
    if blur_unknown:
        unknown = [face.box for face in frame.faces if face.name is None]
        image = blur_boxes(image, [*unknown, *frame.uncertain])
    boxes, labels, colours = [face.box for face in frame.faces], [], []
    for face in frame.faces:
        label, colour = "", UNSETTLED_COLOUR
        if face.name is not None:
            label, colour = f"{face.name} {face.similarity:.2f}", KNOWN_COLOUR
        elif face.is_live is False:
            label, colour = f"not live {face.liveness:.2f}", UNKNOWN_COLOUR
        elif face.challenge is not None:
            label = face.challenge
        elif face.is_settled:
            label, colour = "unknown", UNKNOWN_COLOUR
        if label and face.attributes is not None:
            label += f" · {face.attributes}"
        labels.append(label)
        colours.append(colour)
    return draw_boxes(image, boxes, labels, colours)


class Recorder:
    """An ``.mp4`` file (MPEG-4 Part 2, which every OpenCV writes), as a context manager.

    The recording takes the file's name when the block ends well, and is thrown away when the block
    ends with an error.
    """

    def __init__(
        self, path: str | os.PathLike[str], frames_per_second: float, *, keeps_time: bool = False
    ) -> None:
        """Check that the file can be written.

        Args:
            path: Its name ends in ``.mp4``.
            frames_per_second: The rate of the recording.
            keeps_time: Whether to repeat or drop frames, so that a second of a live source is a
                second of video at any number of frames.

        Raises:
            VideoError: Another ending, or no place to write to.
        """
        self.path: Path = as_path(path)
        if self.path.suffix.lower() != _SUFFIX:
            raise VideoError(f"a recorded video is an {_SUFFIX} file. Received: {path}")
        check_writable(self.path, VideoError)
        self._frames_per_second = frames_per_second
        self._keeps_time = keeps_time
        self._replacing = replacing(self.path, VideoError)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0

    def __enter__(self) -> Recorder:
        self._temporary = self._replacing.__enter__()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        """Finish the recording, or throw it away after an error.

        Raises:
            VideoError: There was no frame to record, or the file could not be written.
        """
        if self._writer is not None:
            self._writer.release()
            with suppress(OSError), open(self._temporary, "ab") as file:
                # A box of MPEG-4 that players pass over: its length, kind and content.
                file.write(struct.pack(">I4s", 8 + len(SOFTWARE), b"free") + SOFTWARE.encode())
        problem = self._problem() if error is None else error
        # Sees the problem as the block's error, and removes the temporary file.
        self._replacing.__exit__(None if problem is None else type(problem), problem, trace)
        if error is None and problem is not None:
            raise problem

    def write(self, image: ImageArray, seconds: float) -> None:
        """Add the next frame.

        Args:
            image: RGB, uint8, ``(H, W, 3)``; resized where it differs from the first frame's size.
            seconds: Since the beginning.

        Raises:
            VideoError: OpenCV cannot write such a video.
        """
        if self._writer is None:
            # MPEG-4 stores colours for squares of two by two pixels.
            self._size = (image.shape[1] // 2 * 2, image.shape[0] // 2 * 2)
            code, rate = cv2.VideoWriter.fourcc(*"mp4v"), self._frames_per_second
            self._writer = cv2.VideoWriter(str(self._temporary), code, rate, self._size)
            if not self._writer.isOpened():
                raise VideoError(f"cannot write {self.path}: this OpenCV writes no MPEG-4")
        picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        due = self._written + 1
        if self._keeps_time:
            due = max(self._written, round(seconds * self._frames_per_second) + 1)
        for _ in range(due - self._written):
            self._writer.write(picture)
        self._written = due

    def _problem(self) -> VideoError | None:
        """Read the file back, because OpenCV reports no failure to write."""
        if self._writer is None:
            return VideoError(f"cannot write {self.path}: there was no frame to record")
        written = cv2.VideoCapture(str(self._temporary))
        frames = written.get(cv2.CAP_PROP_FRAME_COUNT) if written.isOpened() else 0
        written.release()
        if round(frames) != self._written:
            return VideoError(f"cannot write {self.path}: is the disk full?")
        return None


class Window:
    """A window that shows frames, until it is closed or q or Escape is pressed."""

    def __init__(self, title: str) -> None:
        """Open the window.

        Raises:
            VideoError: There is no screen, or this OpenCV shows no windows.
        """
        command = [sys.executable, "-c", _TRIAL]
        try:
            subprocess.run(command, capture_output=True, timeout=_TRIAL_SECONDS, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise VideoError(
                "there is no screen to show the video on, or this OpenCV shows no windows: use "
                "--headless (from Python, take the frames themselves)"
            ) from error
        self._title = title
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._is_sized = False

    def show(self, image: ImageArray) -> None:
        """Show a frame, RGB, uint8, ``(H, W, 3)``."""
        if not self._is_sized:
            cv2.resizeWindow(self._title, image.shape[1], image.shape[0])
            self._is_sized = True
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def should_close(self) -> bool:
        """Handle the window's events; returns whether the user asked to end."""
        key = cv2.waitKey(1) & 0xFF
        closed = self._is_sized and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        return key in _QUIT_KEYS or closed

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()
