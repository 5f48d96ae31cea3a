"""How the page looks: dark and light, wide and narrow, still where that is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.page.conftest import NewPage
from tests.server.page.pictures import DOCS, MAX_BYTES, PICTURES
from tests.server.page.running import RunningService

pytestmark = pytest.mark.browser

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
VIEWS = ("identify", "people", "unknown", "cameras", "verify", "quality")

# WCAG 2.2, 1.4.3: relative luminance and contrast of the colours as the browser computes them.
WORST_CONTRAST = """() => {
  const parse = (text) => {
    const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    context.fillStyle = text;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([red, green, blue]) => [red, green, blue]
    .map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const behind = (element) => {
    for (let each = element; each !== null; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  let worst = [Infinity, "nothing"];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (texts.currentNode.data.trim() === "" || !element.checkVisibility()) continue;
    if (element.closest(":disabled, #announcer, .announcer, noscript")) continue;
    const [ink, paper] = [parse(getComputedStyle(element).color), behind(element)].map(luminance);
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (contrast < worst[0]) worst = [contrast, texts.currentNode.data.trim()];
  }
  return worst;
}"""


@pytest.fixture(autouse=True)
def strangers(service: RunningService) -> Iterator[None]:
    """Two people without a name."""
    elin = VERIFY_DATASET / "Elin_Sorrel"
    service.see(elin / "1.jpg", elin / "2.jpg", EXAMPLES / "stranger.jpg")
    yield
    service.dismiss_all()


def show(page: Page, view: str) -> None:
    page.locator(f'.views a[href="#{view}"]').click()
    # The view changes a moment after the click.
    expect(page.locator(f"#{view}-view")).to_be_visible()
    if view == "identify":
        page.locator("#identify-file").set_input_files(EXAMPLES / "group.jpg")
        expect(page.locator("#faces .face")).to_have_count(5)
    elif view == "people":
        expect(page.locator("#people .person")).to_have_count(2)
    elif view == "unknown":
        expect(page.locator("#unknown .stranger-face img")).to_have_count(3)
    elif view == "cameras":
        expect(page.locator("#cameras-state")).to_contain_text("watches no camera")
    elif view == "quality":
        expect(page.locator(".tile")).to_have_count(7)


def test_every_view(new_page: NewPage) -> None:
    # Without motion, so that no colour is measured on its way to another.
    page = new_page(reduced_motion="reduce")
    for view in VIEWS:
        show(page, view)
        for scheme, width in product(SCHEMES, (1280, 700, 360)):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": 760})
            expect(page.locator("html")).to_have_js_property("clientWidth", width)
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            brightness = sum(int(part) for part in paper[4:-1].split(",")) / 3
            assert brightness < 60 if scheme == "dark" else brightness > 200
            where = f"{view}, {scheme}, {width} pixels wide"
            taken, there = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert taken <= there, f"{where}: wider than the screen"
            contrast, text = page.evaluate(WORST_CONTRAST)
            assert contrast >= 4.5, f"{where}: {text!r} has a contrast of {contrast:.2f}"
            # No word of the navigation is broken in two.
            words = page.locator(".views a span")
            lines = words.evaluate_all("(all) => all.map((one) => one.offsetHeight)")
            assert max(lines) < 30, where
            # Fingers need room.
            buttons = page.locator(".view:not([hidden]) .button:visible")
            heights = buttons.evaluate_all("(all) => all.map((one) => one.offsetHeight)")
            assert min(heights, default=32) >= 32


def test_everything_has_a_name(new_page: NewPage) -> None:
    page = new_page()
    for view in VIEWS:
        show(page, view)
        nameless = page.evaluate(
            """[...document.querySelectorAll("button, a, select, input:not(.file-input)")]
              .filter((each) => !each.ariaLabel && !each.textContent.trim() && !each.labels?.length)
              .map((each) => each.outerHTML)"""
        )
        assert nameless == []
        assert page.locator("h1:visible").count() == 1
        assert page.locator('.views a[aria-current="page"]').count() == 1
    # The page works even under the strictest policy that a proxy may set.
    assert page.locator("script:not([src]), style, [onclick], [onload], [onerror]").count() == 0
    doubled = page.evaluate(
        """[...document.querySelectorAll("[id]")].map((each) => each.id)
          .filter((id, index, all) => all.indexOf(id) !== index)"""
    )
    assert doubled == []


def test_reduced_motion(new_page: NewPage) -> None:
    page = new_page(reduced_motion="reduce")
    moving = """[...document.querySelectorAll("*")]
      .map((each) => getComputedStyle(each))
      .filter((each) => each.animationName !== "none" || each.transitionDuration !== "0s").length"""
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0


def test_quality(new_page: NewPage, service: RunningService) -> None:
    page = new_page()
    show(page, "identify")
    show(page, "quality")
    known = service.ask("GET", "v1/settings")
    tiles = dict(
        zip(
            page.locator(".tile h2").all_text_contents(),
            page.locator(".tile-value").all_text_contents(),
            strict=True,
        )
    )
    assert tiles["Threshold"] == f"{known['threshold']:.3f}"
    assert tiles["Encoder"] == known["encoder"] == "dlib_resnet"
    assert tiles["Detector"] == known["detector"] == "dlib_hog"
    assert tiles["Enrolled"] == str(known["people"])
    assert tiles["Calibration"] == "Not calibrated"
    assert tiles["Answers in the service"].endswith(" ms")
    assert tiles["Answers in this tab"].endswith(" ms")


def test_every_picture_is_small_and_shown() -> None:
    shown = (DOCS / "page.md").read_text(encoding="utf-8")
    for picture in PICTURES:
        path = DOCS / f"page_{picture.name}.png"
        assert path.stat().st_size <= MAX_BYTES, path
        assert f"({path.name})" in shown
    # The cameras' needs a stream.
    views = {*VIEWS} - {"cameras"}
    assert {picture.view for picture in PICTURES} == views
