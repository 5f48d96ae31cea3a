"""An unknown face of a photo that is enrolled: called off late, undone, by keyboard."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import EXAMPLES
from tests.server.page.conftest import ENROLLED, NewPage, wait_for
from tests.server.page.running import READ_TOKEN, RunningService

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("leave_it_as_it_was")]

STRANGER = EXAMPLES / "stranger.jpg"


def enrol_late(page: Page) -> Route:
    """Enrol the stranger, and call it off when it is on its way; what is sent is held back."""
    held: list[Route] = []
    page.route("**/v1/people", lambda route: held.append(route), times=1)
    page.get_by_role("button", name="Enrol this face").click()
    dialog = page.locator("#name-dialog")
    dialog.get_by_label("Name").fill("Cleo")
    dialog.get_by_role("button", name="Enrol").click()
    wait_for(page, held)
    dialog.get_by_role("button", name="Leave it").click()
    return held[0]


def test_late_enrolment_leaves_what_is_shown_by_then(new_page: NewPage) -> None:
    page = new_page()
    photo, names = page.locator("#identify-file"), page.locator("#faces .face-name")
    message = page.locator("#identify-messages")
    photo.set_input_files(STRANGER)
    sent = enrol_late(page)
    photo.set_input_files(EXAMPLES / "ada_mirova.jpg")
    expect(names).to_have_text(["Ada_Mirova"])
    sent.continue_()
    expect(message).to_contain_text("Cleo is enrolled.")
    expect(names).to_have_text(["Ada_Mirova"])
    message.get_by_role("button", name="Undo").click()
    expect(page.locator("#announcer")).to_have_text("Undone.")
    expect(names).to_have_text(["Ada_Mirova"])

    photo.set_input_files(STRANGER)
    sent = enrol_late(page)
    page.get_by_role("button", name="Use the camera").click()
    expect(page.locator("#faces .face")).to_have_count(2)
    sent.continue_()
    expect(message).to_contain_text("Cleo is enrolled.")
    with page.expect_response("**/v1/match*"), page.expect_response("**/v1/match*"):
        pass
    expect(page.locator("#stage")).to_have_attribute("data-state", "live")
    # It can be taken back, too, while the camera goes on.
    message.get_by_role("button", name="Undo").click()
    expect(page.locator("#announcer")).to_have_text("Undone.")
    expect(page.locator("#stage")).to_have_attribute("data-state", "live")


def test_undo_that_failed_is_tried_again_and_the_focus_stays(
    new_page: NewPage, service: RunningService
) -> None:
    page = new_page()
    names, message = page.locator("#faces .face-name"), page.locator("#identify-messages")
    choose = page.get_by_role("button", name="Choose a photo")
    page.locator("#identify-file").set_input_files(STRANGER)
    page.get_by_role("button", name="Enrol this face").press("Enter")
    page.keyboard.type("Cleo")
    page.keyboard.press("Enter")
    expect(message).to_contain_text("Cleo is enrolled.")
    expect(choose).to_be_focused()
    page.route("**/v1/undo*", lambda route: route.abort(), times=1)
    message.get_by_role("button", name="Undo").press("Enter")
    expect(message.get_by_role("alert")).to_contain_text("The service does not answer.")
    assert service.names() == [*ENROLLED, "Cleo"]
    message.get_by_role("button", name="Try again").press("Enter")
    expect(page.locator("#announcer")).to_have_text("Undone.")
    expect(names).to_have_text(["unknown"])
    expect(choose).to_be_focused()
    assert service.names() == [*ENROLLED]


def test_question_that_is_left_with_the_view_enrols_nobody(
    new_page: NewPage, service: RunningService
) -> None:
    page = new_page()
    page.locator("#identify-file").set_input_files(EXAMPLES / "group.jpg")
    page.get_by_role("button", name="Enrol this face").first.click()
    page.locator("#name-dialog").get_by_label("Name").fill("Ada_Mirova")
    page.keyboard.press("Enter")
    question = page.get_by_role("dialog", name="Before they are enrolled")
    expect(question).to_be_visible()
    # A browser tells of the close with its next frame.
    page.evaluate(
        """async () => {
          location.hash = "#verify";
          for (let frame = 0; frame < 3; frame += 1) await new Promise(requestAnimationFrame);
        }"""
    )
    expect(question).to_be_hidden()
    # Nobody looks at that photo again.
    page.get_by_role("link", name="Identify").click()
    page.locator("#identify-file").set_input_files(EXAMPLES / "ada_mirova.jpg")
    expect(page.locator("#faces .face-name")).to_have_text(["Ada_Mirova"])
    expect(page.locator("#identify-messages")).to_be_empty()
    assert service.names() == [*ENROLLED]


def test_nobody_is_enrolled_by_a_token_that_reads(new_page: NewPage) -> None:
    page = new_page(token=READ_TOKEN)
    page.locator("#identify-file").set_input_files(STRANGER)
    expect(page.locator("#faces .face-name")).to_have_text(["unknown"])
    expect(page.get_by_role("button", name="Enrol this face")).to_have_count(0)


def test_of_two_questions_the_last_one_is_asked(new_page: NewPage, service: RunningService) -> None:
    page = new_page(view="people")
    held: list[Route] = []
    page.route("**/v1/people/check", lambda route: held.append(route), times=1)
    page.get_by_label("Name", exact=True).fill("Elin")
    page.locator("#enrol-files").set_input_files(EXAMPLES / "ada_mirova.jpg")
    page.get_by_role("button", name="Enrol 1 photo").click()
    wait_for(page, held)
    page.get_by_role("link", name="Identify").click()
    page.locator("#identify-file").set_input_files(EXAMPLES / "group.jpg")
    page.get_by_role("button", name="Enrol this face").first.click()
    page.locator("#name-dialog").get_by_label("Name").fill("Ada_Mirova")
    page.keyboard.press("Enter")
    question = page.get_by_role("dialog", name="Before they are enrolled")
    expect(question.locator(".doubt h3")).to_have_text(["group.jpg"])
    held[0].continue_()
    expect(question.locator(".doubt h3")).to_have_text(["ada_mirova.jpg"])
    expect(question.get_by_label("Enrol this photo")).not_to_be_checked()
    question.get_by_role("button", name="Back").click()
    assert service.names() == [*ENROLLED]
