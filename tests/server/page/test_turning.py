"""The page's challenge: before a camera whose face turns as it is asked, and before a photo."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from face_encode.detectors.registry import load_detector
from face_encode.liveness.challenge import Points
from face_encode.photos.reading import read_image
from face_encode.types import ImageArray
from tests.conftest import EXAMPLES, VERIFY_DATASET, place_weights
from tests.server.page.conftest import NewPage
from tests.server.page.running import RunningService

pytestmark = [pytest.mark.browser, pytest.mark.data]

ASKED = re.compile(r"^turn your head (left|right)$")

# A camera that shows one of a few pictures, and another once `window.turn` is called.
CAMERA = """async (photos) => {
  const pictures = {};
  for (const [name, content] of Object.entries(photos)) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    pictures[name] = await createImageBitmap(new Blob([bytes]));
  }
  let shown = pictures.ahead;
  window.turn = (name) => { shown = pictures[name]; };
  const { width, height } = shown;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  setInterval(() => canvas.getContext("2d").drawImage(shown, 0, 0), 40);
  navigator.mediaDevices.getUserMedia = async () => canvas.captureStream();
}"""

Turn = Callable[[ImageArray, Points, float], ImageArray]


def turned_head(photo: ImageArray, points: Points, degrees: float) -> ImageArray:
    """A face's picture with its head turned, as if it had the depth of one.

    Args:
        photo: The picture, of one upright face from the front.
        points: The detector's points of it.
        degrees: The turn to the right of the picture.
    """
    height, width = photo.shape[:2]
    middle, nose = points[:2].mean(axis=0), points[2]
    unit = float(np.linalg.norm(points[1] - points[0]))
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    right, down = (columns - middle[0]) / unit, (rows - middle[1]) / unit
    # In distances of the eyes: an egg, and on it a nose as high as half of that distance.
    egg = 0.9 * np.sqrt(np.clip(1 - (right / 1.3) ** 2 - ((down - 0.4) / 1.9) ** 2, 0, 1))
    tip = (nose[1] - middle[1]) / unit
    near = egg + 0.5 * np.exp(-((right / 0.18) ** 2) - ((down - tip) / 0.3) ** 2) - 0.8
    angle = np.radians(degrees)
    # What the nose hides has no place of its own.
    there = np.maximum.accumulate(right * np.cos(angle) + near * np.sin(angle), axis=1)
    source = [np.interp(right[row], there[row], columns[row]) for row in range(height)]
    across = np.stack(source).astype(np.float32)
    return np.asarray(cv2.remap(photo, across, rows.astype(np.float32), cv2.INTER_LINEAR), np.uint8)


def turned_photo(photo: ImageArray, points: Points, degrees: float) -> ImageArray:
    """A photo that is turned like a sheet in the hand, three times its width away."""
    height, width = photo.shape[:2]
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)
    angle, away = np.radians(degrees), 3 * width
    shrunk = away / (away + corners[:, :1] * np.sin(angle))
    moved = corners * (np.cos(angle), 1) * shrunk
    before, after = (
        (each + np.array((width / 2, height / 2))).astype(np.float32) for each in (corners, moved)
    )
    transform = cv2.getPerspectiveTransform(before, after)
    return np.asarray(cv2.warpPerspective(photo, transform, (width, height)), np.uint8)


def pictures(turn: Turn, degrees: float) -> dict[str, str]:
    """What the camera sees: the face ahead, and turned to each of its sides."""
    photo = np.ascontiguousarray(read_image(EXAMPLES / "bruno_castell.jpg"))
    (face,) = load_detector("yunet").detect(photo)
    assert face.points is not None
    seen = {"ahead": photo}
    # The person's left is the picture's right.
    for side, sign in (("left", 1), ("right", -1)):
        seen[side] = turn(photo, face.points, sign * degrees)
    coded = {name: cv2.imencode(".png", each[..., ::-1])[1] for name, each in seen.items()}
    return {name: base64.b64encode(each.tobytes()).decode() for name, each in coded.items()}


@pytest.fixture(scope="module")
def asking(
    tmp_path_factory: pytest.TempPathFactory, public_weights: Path
) -> Iterator[RunningService]:
    """A service whose detector sees heads turn."""
    place_weights("yunet", public_weights)
    folder = tmp_path_factory.mktemp("asking") / "people"
    shutil.copytree(VERIFY_DATASET / "Bruno_Castell", folder / "Bruno_Castell")
    with RunningService(folder, "--detector", "yunet") as running:
        yield running


def wait_for_sights(page: Page, count: int) -> None:
    for _ in range(count):
        with page.expect_response("**/v1/match?*challenge=*"):
            pass


def turn_as_asked(page: Page, name: Locator) -> str:
    """Do once what the page asks for, and look ahead again; gives what it shows then."""
    wait_for_sights(page, 7)
    words = name.inner_text()
    if ASKED.match(words):
        page.evaluate("(side) => window.turn(side)", words.split()[-1])
        wait_for_sights(page, 6)
        page.evaluate("() => window.turn('ahead')")
        wait_for_sights(page, 6)
    return name.inner_text()


def begin(page: Page, turn: Turn, degrees: float) -> Locator:
    page.evaluate(CAMERA, pictures(turn, degrees))
    page.get_by_label("Ask heads before the camera to turn").check()
    page.get_by_role("button", name="Use the camera").click()
    name = page.locator("#faces .face-name")
    expect(name).to_have_text(ASKED)
    return name


def test_a_head_that_turns_as_asked_gets_its_name(
    new_page: NewPage, asking: RunningService
) -> None:
    page = new_page(at=asking)
    name = begin(page, turned_head, 45)
    # After ten seconds another side is drawn: on a slow machine a turn may come too late.
    assert any(turn_as_asked(page, name) == "Bruno_Castell" for _ in range(20))
    # It keeps the name as long as it stays.
    wait_for_sights(page, 5)
    expect(name).to_have_text("Bruno_Castell")


def test_a_photo_that_is_turned_as_asked_gets_none(
    new_page: NewPage, asking: RunningService
) -> None:
    page = new_page(at=asking)
    name = begin(page, turned_photo, 30)
    for _ in range(4):
        assert ASKED.match(turn_as_asked(page, name))
    # By its look alone it would have one.
    page.get_by_label("Ask heads before the camera to turn").uncheck()
    expect(name).to_have_text("Bruno_Castell")
