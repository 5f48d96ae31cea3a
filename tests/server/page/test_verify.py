"""The page's view of two photos."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.page.conftest import NewPage, wait_for

pytestmark = pytest.mark.browser

ADA = EXAMPLES / "ada_mirova.jpg"
ADA_AGAIN = VERIFY_DATASET / "Ada_Mirova" / "4.jpg"
STRANGER = EXAMPLES / "stranger.jpg"


def test_verify(new_page: NewPage) -> None:
    page = new_page(view="verify")
    verdict = page.locator("#verdict .verdict-word")
    page.locator("#verify-file-a").set_input_files(ADA)
    expect(page.get_by_alt_text("ada_mirova.jpg")).to_be_visible()
    expect(verdict).to_be_hidden()
    for second, word in (
        (ADA_AGAIN, "The same person"),
        (STRANGER, "Not the same person"),
    ):
        page.locator("#verify-file-b").set_input_files(second)
        expect(verdict).to_have_text(word)
        expect(page.locator("#announcer")).to_contain_text(f"{word}. Similarity 0.")
    # A photo without a face is the service's to refuse.
    blank = page.locator(".masthead").screenshot()
    page.locator("#verify-file-b").set_input_files(
        {"name": "blank.png", "mimeType": "image/png", "buffer": blank}
    )
    expect(page.locator("#verify-messages").get_by_role("alert")).to_contain_text("face")
    expect(verdict).to_be_hidden()


def outlined(page: Page) -> list[bool]:
    """Whether a box is drawn over each of the two photos."""
    drawn: list[bool] = page.locator("#verify-view canvas").evaluate_all(
        """(all) => all.map((canvas) => canvas.width > 0 && canvas.getContext("2d")
          .getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0))"""
    )
    return drawn


def test_comparison_goes_on_while_another_view_is_shown(new_page: NewPage) -> None:
    page = new_page(view="verify")
    verdict = page.locator("#verdict .verdict-word")
    held: list[Route] = []
    page.route("**/v1/verify", lambda route: held.append(route))

    def leave() -> None:
        page.get_by_role("link", name="Quality").click()
        expect(page.locator("#verify-view")).to_be_hidden()

    # The answer comes when the view is shown again,
    page.locator("#verify-file-a").set_input_files(ADA)
    page.locator("#verify-file-b").set_input_files(ADA_AGAIN)
    wait_for(page, held)
    leave()
    page.get_by_role("link", name="Verify").click()
    expect(verdict).to_have_text("Comparing…")
    held.pop().continue_()
    expect(verdict).to_have_text("The same person")
    # or while it is hidden.
    page.locator("#verify-file-b").set_input_files(STRANGER)
    wait_for(page, held)
    leave()
    with page.expect_request_finished(lambda request: request.url.endswith("/v1/verify")):
        held.pop().continue_()
    page.get_by_role("link", name="Verify").click()
    expect(verdict).to_have_text("Not the same person")
    page.wait_for_function("() => document.querySelector('#slot-a canvas').width > 0")
    assert outlined(page) == [True, True]


def test_photo_chosen_last_is_the_one(new_page: NewPage) -> None:
    page = new_page(view="verify")
    # As a large photo, which takes its time to be shrunk.
    page.evaluate(
        """() => {
          const shrink = window.createImageBitmap;
          window.createImageBitmap = async (photo) => {
            if (photo.name === "large.jpg") await new Promise((go) => { window.goOn = go; });
            return shrink(photo);
          };
        }"""
    )
    photos = page.locator("#verify-file-a")
    large = {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": STRANGER.read_bytes()}
    photos.set_input_files(large)  # type: ignore[arg-type]
    page.wait_for_function("() => window.goOn !== undefined")
    photos.set_input_files(ADA)
    expect(page.get_by_alt_text("ada_mirova.jpg")).to_be_visible()
    # Time to do the wrong thing.
    page.evaluate("() => new Promise((resolve) => { window.goOn(); setTimeout(resolve, 200); })")
    expect(page.locator("#slot-a img")).to_have_attribute("alt", "ada_mirova.jpg")
