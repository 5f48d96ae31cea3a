"""Writes a video: under a temporary name, and in its place only when it is whole."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import cv2

from face_encode.errors import VideoError
from face_encode.files import as_path, check_writable, replacing
from face_encode.photos.drawing import KNOWN_COLOUR, UNKNOWN_COLOUR, blur_boxes, draw_boxes
from face_encode.types import ImageArray
from face_encode.video.frames import WatchedFrame

SUFFIX = ".mp4"


class Recorder:
    """An ``.mp4`` file (MPEG-4 Part 2, which every OpenCV writes).

    As a context manager: what was recorded is finished and takes the file's name when the block
    ends well, and is thrown away where it ends with an error.
    """

    def __init__(
        self, path: str | os.PathLike[str], frames_per_second: float, *, keeps_time: bool = False
    ) -> None:
        """Check that it can be written.

        Args:
            path: Its name ends in ``.mp4``.
            frames_per_second: Of the video.
            keeps_time: Whether a frame is written again, or left out, so that a second of a live
                source is a second of video however many frames it had.

        Raises:
            VideoError: Another ending, or no place to write to.
        """
        self.path: Path = as_path(path)
        if self.path.suffix.lower() != SUFFIX:
            raise VideoError(f"a recorded video is an {SUFFIX} file. Received: {path}")
        check_writable(self.path, VideoError)
        self._frames_per_second = frames_per_second
        self._keeps_time = keeps_time
        self._stack = ExitStack()
        self._temporary: Path | None = None
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0

    def __enter__(self) -> Recorder:
        """Begin."""
        self._temporary = self._stack.enter_context(replacing(self.path, VideoError))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file, and give it its name; or throw it away.

        Raises:
            VideoError: Nothing was recorded, or it could not be written.
        """
        if self._writer is not None:
            self._writer.release()
        problem = error if error is not None else self._problem()
        if problem is None:
            self._stack.close()
            return
        # The temporary file is removed by the manager that made it, which has to see an error.
        self._stack.__exit__(type(problem), problem, problem.__traceback__)
        if error is None:
            raise problem

    def write(self, image: ImageArray, seconds: float) -> None:
        """Take the next frame.

        Args:
            image: RGB, uint8, ``(H, W, 3)``; of another size than the first, it is resized.
            seconds: Since the beginning.

        Raises:
            VideoError: OpenCV cannot write such a video.
        """
        if self._writer is None:
            self._writer = self._open(image)
        picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if (picture.shape[1], picture.shape[0]) != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        due = self._written + 1
        if self._keeps_time:
            due = max(self._written, round(seconds * self._frames_per_second) + 1)
        for _ in range(due - self._written):
            self._writer.write(picture)
        self._written = due

    def _open(self, image: ImageArray) -> cv2.VideoWriter:
        """Begin the file at the size of the first frame."""
        # MPEG-4 stores colours for squares of two by two pixels.
        self._size = (image.shape[1] // 2 * 2, image.shape[0] // 2 * 2)
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(self._temporary), code, self._frames_per_second, self._size)
        if not writer.isOpened():
            raise VideoError(f"cannot write {self.path}: this OpenCV writes no MPEG-4")
        return writer

    def _problem(self) -> VideoError | None:
        """Why the file is not what it should be. OpenCV itself never says that writing failed."""
        if self._writer is None:
            return VideoError(f"cannot write {self.path}: there was no frame to record")
        check = cv2.VideoCapture(str(self._temporary))
        whole = check.isOpened() and round(check.get(cv2.CAP_PROP_FRAME_COUNT)) == self._written
        check.release()
        return None if whole else VideoError(f"cannot write {self.path}: is the disk full?")


_QUIT_KEYS = (ord("q"), ord("Q"), 27)
# Qt ends the whole process where there is no screen, so another one tries.
_TRIAL = "import cv2; cv2.namedWindow('trial'); cv2.waitKey(1); cv2.destroyAllWindows()"
_TRIAL_SECONDS = 20


class Window:
    """Shows frames; the letter q, Escape or closing it asks for the end."""

    def __init__(self, title: str) -> None:
        """Open it.

        Raises:
            VideoError: There is no screen, or this OpenCV shows no windows.
        """
        _check_screen()
        self._title = title
        cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._is_sized = False

    def show(self, image: ImageArray) -> None:
        """Show a frame, RGB, uint8, ``(H, W, 3)``."""
        if not self._is_sized:
            cv2.resizeWindow(self._title, image.shape[1], image.shape[0])
            self._is_sized = True
        cv2.imshow(self._title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def is_to_end(self) -> bool:
        """Look after the window, and tell whether somebody asked for the end."""
        key = cv2.waitKey(1) & 0xFF
        closed = self._is_sized and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        return key in _QUIT_KEYS or closed

    def close(self) -> None:
        """Close it."""
        cv2.destroyAllWindows()


def _check_screen() -> None:
    """Refuse to open a window where there is no screen."""
    try:
        trial = subprocess.run(
            [sys.executable, "-c", _TRIAL],
            capture_output=True,
            timeout=_TRIAL_SECONDS,
            env=os.environ,
            check=False,
        )
        is_there = trial.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        is_there = False
    if not is_there:
        raise VideoError(
            "there is no screen to show the video on, or this OpenCV shows no windows: use "
            "--headless (from Python, take the frames themselves)"
        )


UNSETTLED_COLOUR = (120, 120, 120)


def draw_watched(frame: WatchedFrame, *, blur_unknown: bool = False) -> ImageArray:
    """Draw the faces followed on a copy of their frame.

    A face that nobody can be named for yet has a grey box without a label.

    Args:
        frame: What ``watch`` gives.
        blur_unknown: Whether to blur every face but those of enrolled people, also while it is
            not settled who they are.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    image = frame.image
    if blur_unknown:
        unknown = [face.box for face in frame.faces if face.name is None]
        image = blur_boxes(image, [*unknown, *frame.uncertain])
    labels, colours = [], []
    for face in frame.faces:
        if face.name is not None:
            labels.append(f"{face.name} {face.similarity:.2f}")
            colours.append(KNOWN_COLOUR)
        elif face.is_settled:
            labels.append("unknown")
            colours.append(UNKNOWN_COLOUR)
        else:
            labels.append("")
            colours.append(UNSETTLED_COLOUR)
    return draw_boxes(image, [face.box for face in frame.faces], labels, colours)
