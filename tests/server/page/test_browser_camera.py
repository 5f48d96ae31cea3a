"""The browser's camera where it is slow, taken away, or asked for twice."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import EXAMPLES
from tests.server.page.conftest import NewPage, wait_for

pytestmark = pytest.mark.browser

# The first camera that is asked for opens when the test says so.
_HOLD_THE_FIRST = """() => {
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  let count = 0;
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    count += 1;
    if (count > 1) return open(wanted);
    await new Promise((go) => { window.goOn = go; });
    window.late = await open(wanted);
    return window.late;
  };
}"""
_LATE_IS_OFF = "() => window.late?.getTracks().every((track) => track.readyState === 'ended')"


def open_late(page: Page) -> None:
    page.evaluate("window.goOn()")
    page.wait_for_function(_LATE_IS_OFF)


def test_camera_that_opens_too_late_leaves_the_next_one_on(new_page: NewPage) -> None:
    page = new_page()
    page.evaluate(_HOLD_THE_FIRST)
    for _ in range(3):
        page.locator("#toggle-camera").click()
    expect(page.locator("#faces .face")).to_have_count(2)
    open_late(page)
    assert page.evaluate("document.getElementById('stage-video').srcObject?.active")
    with page.expect_response("**/v1/match*"), page.expect_response("**/v1/match*"):
        pass
    expect(page.locator("#stage")).to_have_attribute("data-state", "live")
    expect(page.locator("#faces .face")).to_have_count(2)
    expect(page.locator("#identify-messages")).to_be_empty()


def test_dialog_opened_again_has_its_camera(new_page: NewPage) -> None:
    page = new_page(view="people")
    page.evaluate(_HOLD_THE_FIRST)
    page.get_by_role("button", name="Take photos").click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Take photos").click()
    expect(page.locator("#camera-shoot")).to_be_enabled()
    open_late(page)
    assert page.evaluate("document.getElementById('camera-video').srcObject?.active")
    page.locator("#camera-shoot").click()
    expect(page.locator("#camera-shots .shot")).to_have_count(1)
    expect(page.locator("#camera-messages")).to_be_empty()


def test_camera_that_goes_away_takes_no_more_photos(new_page: NewPage) -> None:
    page = new_page(view="people")
    page.get_by_role("button", name="Take photos").click()
    shoot = page.locator("#camera-shoot")
    shoot.click()
    expect(page.locator("#camera-shots .shot")).to_have_count(1)
    # As the browser tells of one that was unplugged.
    page.evaluate(
        """() => {
          for (const track of document.getElementById("camera-video").srcObject.getTracks()) {
            track.stop();
            track.dispatchEvent(new Event("ended"));
          }
        }"""
    )
    alert = page.locator("#camera-messages").get_by_role("alert")
    expect(alert).to_contain_text("The camera went away.")
    expect(shoot).to_be_disabled()
    alert.get_by_role("button", name="Try again").click()
    shoot.click()
    page.get_by_role("button", name="Use 2 photos").click()
    expect(page.locator("#enrol-shots .shot")).to_have_count(2)


def test_camera_goes_on_after_the_service_was_busy(new_page: NewPage) -> None:
    page = new_page()
    page.get_by_role("button", name="Use the camera").click()
    expect(page.locator("#faces .face")).to_have_count(2)
    page.route(
        "**/v1/match*",
        lambda route: route.fulfill(status=503, headers={"Retry-After": "5"}, json={}),
        times=1,
    )
    messages = page.locator("#identify-messages")
    expect(messages).to_contain_text("The camera goes on in a moment.")
    with page.expect_response("**/v1/match*"):
        pass
    expect(messages).to_be_empty()
    expect(page.locator("#faces .face")).to_have_count(2)


def test_choice_of_a_camera_keeps_the_focus(new_page: NewPage) -> None:
    page = new_page()
    # There is one in this browser, which stands for another one, too.
    page.evaluate(
        """() => {
          const { mediaDevices } = navigator;
          const open = mediaDevices.getUserMedia.bind(mediaDevices);
          const list = mediaDevices.enumerateDevices.bind(mediaDevices);
          window.opened = 0;
          mediaDevices.getUserMedia = async () => {
            const stream = await open({ video: true });
            // A camera takes its time, in which the browser draws.
            for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
            window.opened += 1;
            return stream;
          };
          mediaDevices.enumerateDevices = async () => [
            ...await list(), { kind: "videoinput", deviceId: "second", label: "Second" },
          ];
        }"""
    )
    page.locator("#toggle-camera").click()
    choice = page.locator("#camera-select")
    expect(choice).to_be_visible()
    choice.focus()
    choice.press("ArrowDown")
    page.wait_for_function("() => window.opened === 2")
    expect(page.locator("#faces .face")).to_have_count(2)
    expect(choice).to_be_focused()


def test_photo_stays_to_be_enrolled_where_the_camera_was_refused(new_page: NewPage) -> None:
    page = new_page()
    page.evaluate(
        """() => {
          navigator.mediaDevices.getUserMedia = () => new Promise((_, refuse) => {
            window.refuse = () => refuse(new DOMException("no", "NotAllowedError"));
          });
        }"""
    )
    held: list[Route] = []
    page.route("**/v1/match*", lambda route: held.append(route))
    page.locator("#identify-file").set_input_files(EXAMPLES / "stranger.jpg")
    wait_for(page, held)
    # The answer comes while the browser asks whether the page may use the camera.
    page.locator("#toggle-camera").click()
    held[0].continue_()
    expect(page.locator("#faces .face")).to_have_count(1)
    page.evaluate("window.refuse()")
    expect(page.locator("#identify-messages")).to_contain_text("use the camera")
    expect(page.get_by_role("button", name="Enrol this face")).to_be_visible()
