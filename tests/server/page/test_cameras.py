"""The view of the cameras, of a service that watches real streams."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from benchmarks.streaming import StreamServer, streaming
from face_encode.photos.reading import read_image
from face_encode.types import ImageArray
from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.page.conftest import ENROLLED, NewPage
from tests.server.page.running import READ_TOKEN, RunningService
from tests.server.page.test_looks import SCHEMES, WORST_CONTRAST
from tests.video.test_sources import saying

pytestmark = pytest.mark.browser

# A disk that is full, where the system has one.
FULL = Path("/dev/full")


class Streams(NamedTuple):
    """Ada at the front, a stranger in the yard."""

    front: StreamServer
    yard: StreamServer


def moving(photo: Path) -> list[ImageArray]:
    """A face that sways a little, in a wide picture."""
    face = np.ascontiguousarray(read_image(photo))[:360, :392]
    frames = []
    for step in (0, 4, 8, 4):
        frame = np.full((400, 640, 3), 150, np.uint8)
        frame[20 : 20 + len(face), 100 + step : 100 + step + face.shape[1]] = face
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def streams() -> Iterator[Streams]:
    ada = moving(VERIFY_DATASET / "Ada_Mirova" / "1.jpg")
    stranger = moving(EXAMPLES / "stranger.jpg")
    with (
        streaming(lambda number: ada[number % 4], 5) as front,
        streaming(lambda number: stranger[number % 4], 5) as yard,
    ):
        yield Streams(front, yard)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, streams: Streams) -> Iterator[RunningService]:
    """A service with three cameras; of one it does not have the password."""
    folder = tmp_path_factory.mktemp("watching") / "people"
    for name in ENROLLED:
        shutil.copytree(VERIFY_DATASET / name, folder / name)
    refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
    with saying(refusal) as port:
        sources = {
            "front": streams.front.address,
            "back yard": streams.yard.address,
            "gate": f"http://ada:wrong@127.0.0.1:{port}/",
        }
        options = [word for each in sources.items() for word in ("--camera", "=".join(each))]
        if FULL.exists():
            options += ["--events", str(FULL)]
        running = RunningService(folder, *options)
        with running:
            yield running


def card(page: Page, name: str) -> Locator:
    return page.locator(f'.watched[data-name="{name}"]')


def test_who_is_there(new_page: NewPage, service: RunningService, streams: Streams) -> None:
    page = new_page(view="cameras", token=READ_TOKEN)
    front, yard, gate = (card(page, name) for name in ("front", "back yard", "gate"))
    expect(front.locator(".there")).to_have_text("Ada_Mirova")
    expect(yard.locator(".there")).to_have_text("unknown-1")
    expect(yard.locator(".there li")).to_have_attribute("data-known", "false")
    expect(front.locator(".watched-state")).to_contain_text("Live, ")
    if FULL.exists():
        expect(front.locator(".watched-state")).to_contain_text("; events not written: ")
        (line,) = [line for line in service.lines if "front: events are lost" in line]
        assert line.endswith(f"cannot write {FULL}: no space left on device")
    expect(gate.locator(".watched-state")).to_have_text("Wrong name or password (401)")
    expect(gate.locator(".there")).to_have_text("Who is there cannot be told.")
    picture = page.get_by_alt_text("front: Ada_Mirova")
    expect(picture).to_be_visible()
    # One picture after the other.
    first = picture.get_attribute("src")
    expect(picture).not_to_have_attribute("src", first or "")
    assert picture.evaluate("(image) => image.naturalWidth") == 640
    events = page.locator("#camera-events")
    expect(events).to_contain_text("Ada_Mirova is there, front")
    expect(events).to_contain_text("unknown-1 is there, back yard")

    streams.front.refuses = True
    streams.front.cut_off()
    expect(front.locator(".watched-state")).to_contain_text("Away since")
    expect(front.locator(".there")).to_have_text("Who is there cannot be told.")
    expect(events).to_contain_text("Ada_Mirova has left, front")
    expect(page.locator("#announcer")).to_contain_text("Ada_Mirova has left, front.")
    expect(yard.locator(".watched-state")).to_contain_text("Live, ")
    streams.front.refuses = False
    expect(front.locator(".there")).to_have_text("Ada_Mirova")
    expect(front.locator(".watched-state")).to_contain_text("Live, ")
    assert "wrong" not in page.content().replace("wrong-password", "")


# As when the connection is lost in the middle of a picture.
CUT_OFF_ONCE = """() => {
  const blob = Response.prototype.blob;
  Response.prototype.blob = function () {
    Response.prototype.blob = blob;
    document.body.dataset.cut = "off";
    return Promise.reject(new TypeError("network error"));
  };
}"""


def test_a_picture_that_is_cut_off_is_not_the_last_one(
    new_page: NewPage, service: RunningService
) -> None:
    page = new_page(view="cameras")
    pictures = [card(page, name).locator("img") for name in ("front", "back yard")]
    for picture in pictures:
        expect(picture).to_have_attribute("src", re.compile("blob:"))
    page.evaluate(CUT_OFF_ONCE)
    expect(page.locator("body[data-cut=off]")).to_be_attached()
    # Each goes on, that of the camera that was cut off, too.
    for picture in pictures:
        last = picture.get_attribute("src")
        expect(picture).not_to_have_attribute("src", last or "")


def test_nothing_is_asked_where_nobody_looks(new_page: NewPage, service: RunningService) -> None:
    page = new_page(view="cameras")
    expect(card(page, "front").locator("img")).to_be_visible()
    page.get_by_role("link", name="Quality").click()
    expect(page.locator(".tile")).to_have_count(7)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    # Longer than between two questions.
    page.evaluate("() => new Promise((resolve) => { setTimeout(resolve, 1500); })")
    assert asked == []
    page.get_by_role("link", name="Cameras").click()
    with page.expect_response(lambda response: "/frame.jpg" in response.url):
        pass


def test_every_width_and_scheme(new_page: NewPage, service: RunningService) -> None:
    page = new_page(view="cameras", reduced_motion="reduce")
    expect(card(page, "front").locator(".there")).to_have_text("Ada_Mirova")
    expect(card(page, "gate").locator(".watched-state")).to_have_text(
        "Wrong name or password (401)"
    )
    for scheme, width in product(SCHEMES, (1280, 360)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 760})
        taken, there = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert taken <= there
        contrast, text = page.evaluate(WORST_CONTRAST)
        assert contrast >= 4.5, f"{text!r} has a contrast of {contrast:.2f}"
    # By name, for those who listen.
    for name in ("front", "back yard", "gate"):
        expect(page.get_by_role("heading", name=name)).to_be_visible()
        expect(page.get_by_role("list", name=f"Who is there, {name}")).to_be_attached()
