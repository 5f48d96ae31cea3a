"""What a view leaves behind when another one is shown: nothing that is not true any more."""

from __future__ import annotations

import pytest
from playwright.sync_api import Route, expect

from tests.server.page.conftest import ENROLLED, NewBrowser, NewPage, wait_for
from tests.server.page.running import RunningService

pytestmark = pytest.mark.browser


def test_dialogs_close_with_their_view(new_page: NewPage, service: RunningService) -> None:
    page = new_page()
    dialog, heading = page.get_by_role("dialog"), page.get_by_role("heading", name="Who is this?")
    for view, button in (
        ("People", "Take photos"),
        ("Verify", "Take the first photo with the camera"),
        ("People", "Rename Ada_Mirova"),
        ("People", "Delete Ada_Mirova"),
    ):
        page.get_by_role("link", name=view).click()
        page.get_by_role("button", name=button).click()
        expect(dialog).to_be_visible()
        if button.startswith("Take"):
            expect(dialog.get_by_role("button", name="Take a photo")).to_be_enabled()
        # As one does on a phone to be rid of a dialog.
        page.go_back()
        expect(dialog).to_be_hidden()
        expect(heading).to_be_focused()
        expect(page.locator("#camera-video")).to_have_js_property("srcObject", None)
    assert service.names() == [*ENROLLED]


def test_camera_that_is_off_promises_nothing(new_page: NewPage) -> None:
    page = new_page()
    busy = {"Retry-After": "60"}
    page.route("**/v1/match*", lambda route: route.fulfill(status=429, headers=busy, json={}))
    page.get_by_role("button", name="Use the camera").click()
    messages = page.locator("#identify-messages")
    expect(messages).to_contain_text("The camera goes on in a moment.")
    page.get_by_role("link", name="Verify").click()
    page.get_by_role("link", name="Identify").click()
    expect(page.locator("#faces-empty")).to_have_text("The camera is off.")
    expect(messages).to_be_empty()


def test_service_that_is_back_is_not_said_to_be_away(new_page: NewPage) -> None:
    page = new_page(view="verify")
    page.context.set_offline(True)
    page.get_by_role("link", name="Identify").click()
    messages = page.locator("#identify-messages")
    expect(messages.get_by_role("alert")).to_contain_text("The service does not answer")
    page.get_by_role("link", name="Verify").click()
    page.context.set_offline(False)
    page.get_by_role("link", name="Identify").click()
    expect(messages).to_be_empty()


def test_failure_of_an_earlier_visit_takes_nothing_away(new_page: NewPage) -> None:
    page = new_page(view="verify")
    held: list[Route] = []
    page.route("**/v1/settings", lambda route: held.append(route), times=1)
    page.get_by_role("link", name="Quality").click()
    wait_for(page, held)
    page.get_by_role("link", name="Verify").click()
    page.get_by_role("link", name="Quality").click()
    expect(page.locator(".tile")).to_have_count(7)
    held[0].abort()
    # Time to do the wrong thing.
    page.evaluate("() => new Promise((resolve) => { setTimeout(resolve, 200); })")
    expect(page.locator(".tile")).to_have_count(7)
    expect(page.locator("#quality-messages")).to_be_empty()


def test_cameras_are_watched_again_on_the_way_back(
    new_page: NewPage, new_browser: NewBrowser
) -> None:
    keeping = new_browser(ignore_default_args=["--disable-back-forward-cache"])
    page = new_page(view="cameras", by=keeping)
    expect(page.locator("#cameras-state")).to_contain_text("watches no camera")
    page.evaluate("addEventListener('pageshow', (event) => { window.isKept = event.persisted; })")
    page.evaluate("location.href = 'docs'")
    page.wait_for_url("**/docs*")
    page.go_back(wait_until="commit")
    # The browser has kept the page as it was left.
    page.wait_for_function("() => window.isKept === true")
    with page.expect_response("**/v1/cameras"):
        pass
    keeping.close()


def test_address_of_no_view_shows_the_first(new_page: NewPage) -> None:
    page = new_page(view="toString")
    expect(page.get_by_role("heading", name="Who is this?")).to_be_visible()
