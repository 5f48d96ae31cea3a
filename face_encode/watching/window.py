"""The window in which live video is shown."""

from __future__ import annotations

import os
import subprocess
import sys

import cv2

from face_encode.errors import VideoError
from face_encode.types import ImageArray

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
