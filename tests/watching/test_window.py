from __future__ import annotations

import sys

import pytest

from face_encode.errors import VideoError
from face_encode.video.output import Window


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is a screen without DISPLAY")
@pytest.mark.parametrize("display", [None, ":97"])
def test_without_a_screen_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, display: str | None
) -> None:
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    if display is not None:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(VideoError, match=r"no screen .* use --headless"):
        Window("nowhere")
