"""What the page asks before it enrols: likely mistakes, and which face of a group is meant."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.page.conftest import ENROLLED, NewPage
from tests.server.page.running import RunningService

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("leave_it_as_it_was")]

ELIN = [VERIFY_DATASET / "Elin_Sorrel" / f"{number}.jpg" for number in (1, 2)]
ADA = VERIFY_DATASET / "Ada_Mirova" / "3.jpg"
GROUP = EXAMPLES / "group.jpg"

# Whether something is drawn on a canvas.
_IS_DRAWN = """(canvas) => canvas.getContext("2d")
  .getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0)"""


def ask(page: Page, name: str, *photos: object) -> Locator:
    page.get_by_label("Name", exact=True).fill(name)
    page.locator("#enrol-files").set_input_files(list(photos))  # type: ignore[arg-type]
    page.locator("#enrol-submit").click()
    dialog = page.get_by_role("dialog", name="Before they are enrolled")
    expect(dialog).to_be_visible()
    return dialog


def test_a_likely_mistake_is_asked_about_before_it_is_enrolled(
    new_page: NewPage, service: RunningService
) -> None:
    page = new_page(view="people")
    dialog = ask(page, "Elin", *ELIN, ADA)
    # Nothing is said of photos that are all right.
    expect(dialog.locator(".doubt h3")).to_have_text(["3.jpg"])
    expect(dialog.locator(".row-text")).to_contain_text(
        ["looks like Ada_Mirova (similarity", "unlike every other photo of Elin"]
    )
    page.wait_for_function(_IS_DRAWN, arg=dialog.locator("canvas").element_handle())
    assert service.names() == [*ENROLLED]
    wish = dialog.get_by_label("Enrol this photo")
    expect(wish).not_to_be_checked()
    dialog.get_by_role("button", name="Go on").click()
    expect(page.locator("#enrol-report h3")).to_have_text("Elin · 2 photos enrolled")
    left_out = page.locator("#enrol-report .row.bad")
    expect(left_out).to_contain_text("left out, as you chose")
    expect(left_out.locator(".row-photo")).to_have_text("3.jpg")
    # Who knows better is not kept from it.
    dialog = ask(page, "Elin", ADA)
    dialog.get_by_label("Enrol this photo").check()
    dialog.get_by_role("button", name="Go on").click()
    expect(page.locator("#enrol-report h3")).to_have_text("Elin · 1 photo enrolled")


def test_called_off_nothing_is_enrolled_and_the_photos_stay(
    new_page: NewPage, service: RunningService
) -> None:
    page = new_page(view="people")
    dialog = ask(page, "Elin", ADA)
    dialog.get_by_role("button", name="Back").click()
    expect(page.locator("#enrol-messages")).to_contain_text("Nobody was enrolled.")
    expect(page.locator("#enrol-shots .shot")).to_have_count(1)
    expect(page.get_by_label("Name", exact=True)).to_have_value("Elin")
    # Nor where nothing is left.
    page.locator("#enrol-submit").click()
    dialog.get_by_role("button", name="Go on").click()
    expect(page.locator("#enrol-messages")).to_contain_text("Nobody was enrolled.")
    page.locator("#enrol-submit").click()
    expect(dialog).to_be_visible()
    page.go_back()
    expect(dialog).to_be_hidden()
    assert service.names() == [*ENROLLED]


def test_a_face_of_a_group_is_chosen_by_keyboard(
    new_page: NewPage, service: RunningService
) -> None:
    page = new_page(view="people")
    dialog = ask(page, "Cleo", GROUP)
    faces = dialog.get_by_role("radio")
    expect(faces).to_have_count(5)
    for canvas in dialog.locator("canvas").all():
        page.wait_for_function(_IS_DRAWN, arg=canvas.element_handle())
    first = dialog.get_by_label("Face 1 of 5, from the left")
    first.focus()
    page.keyboard.press("Space")
    # That is Ada, and the question says so.
    expect(dialog.locator(".row-text")).to_contain_text(["looks like Ada_Mirova"])
    expect(dialog.get_by_label("Enrol this photo")).not_to_be_checked()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(dialog.get_by_label("Face 3 of 5, from the left")).to_be_checked()
    expect(dialog.get_by_label("Enrol this photo")).to_be_checked()
    expect(dialog.locator(".row-text")).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.locator("#enrol-report h3")).to_have_text("Cleo · 1 photo enrolled")
    (photo,) = service.ask("GET", "v1/people/Cleo/photos")["photos"]
    assert photo["source"] == "group.jpg"
    page.get_by_role("link", name="Identify").click()
    page.locator("#identify-file").set_input_files(GROUP)
    names = page.locator("#faces .face-name")
    expect(names).to_have_text([*ENROLLED, "Cleo", "unknown", "unknown"])


def test_the_face_that_is_like_the_others_is_proposed(new_page: NewPage) -> None:
    page = new_page(view="people")
    dialog = ask(page, "Bruno_Castell", GROUP)
    expect(dialog.get_by_label("Face 2 of 5, from the left")).to_be_checked()
    expect(dialog.get_by_label("Enrol this photo")).to_be_checked()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_an_unknown_face_under_the_name_of_another_is_asked_about(
    new_page: NewPage, service: RunningService
) -> None:
    page = new_page()
    page.locator("#identify-file").set_input_files(GROUP)
    offer = page.locator("#faces").get_by_role("button", name="Enrol this face").first
    offer.click()
    name = page.locator("#name-dialog")
    name.get_by_label("Name").fill("Ada_Mirova")
    name.get_by_role("button", name="Enrol").click()
    dialog = page.get_by_role("dialog", name="Before they are enrolled")
    expect(dialog.locator(".row-text")).to_contain_text(["unlike every other photo of Ada_Mirova"])
    # Which face is meant was said already.
    expect(dialog.get_by_role("radio")).to_have_count(0)
    dialog.get_by_role("button", name="Back").click()
    expect(name).to_be_hidden()
    assert service.ask("GET", "v1/people/Ada_Mirova")["photos"] == 4
