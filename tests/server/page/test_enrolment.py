"""The page's form to enrol somebody, while an enrolment is on its way."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import VERIFY_DATASET
from tests.server.page.conftest import ENROLLED, NewPage, wait_for
from tests.server.page.running import RunningService

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("leave_it_as_it_was")]

ELIN = [VERIFY_DATASET / "Elin_Sorrel" / f"{number}.jpg" for number in (1, 2)]
MEI = VERIFY_DATASET / "Mei_Oshara" / "1.jpg"


def send(page: Page) -> Route:
    """Enrol Elin; what the page sends is held back."""
    # What is asked for next at this address is what is sent.
    expect(page.locator("#people .person .name")).to_have_text([*ENROLLED])
    held: list[Route] = []
    page.route("**/v1/people", lambda route: held.append(route), times=1)
    page.get_by_label("Name", exact=True).fill("Elin")
    page.locator("#enrol-files").set_input_files(ELIN)
    page.get_by_role("button", name="Enrol 2 photos").click()
    wait_for(page, held)
    return held[0]


def test_photos_added_meanwhile_stay(new_page: NewPage, service: RunningService) -> None:
    page = new_page(view="people")
    sent = send(page)
    photos, submit = page.locator("#enrol-shots img"), page.locator("#enrol-submit")
    page.locator("#enrol-files").set_input_files(MEI)
    expect(photos).to_have_count(3)
    expect(page.locator("#announcer")).to_have_text("1 photo to enrol.")
    # It is sent once.
    expect(submit).to_have_text("Enrolling…")
    expect(submit).to_have_attribute("aria-disabled", "true")
    sent.continue_()
    expect(page.locator("#enrol-report h3")).to_have_text("Elin · 2 photos enrolled")
    expect(photos).to_have_count(1)
    # Its name was taken when it came.
    expect(photos).to_have_attribute("alt", "1 (2).jpg")
    # Nobody is enrolled under the name of another who happens not to look.
    expect(page.get_by_label("Name", exact=True)).to_have_value("")
    page.get_by_label("Name", exact=True).fill("Mei")
    page.get_by_role("button", name="Enrol 1 photo").click()
    expect(page.locator("#enrol-report h3")).to_have_text("Mei · 1 photo enrolled")
    expect(photos).to_have_count(0)
    assert service.names() == [*ENROLLED, "Elin", "Mei"]


def test_name_given_meanwhile_stays(new_page: NewPage) -> None:
    page = new_page(view="people")
    sent = send(page)
    name = page.get_by_label("Name", exact=True)
    name.fill("M")
    sent.continue_()
    expect(page.locator("#enrol-report h3")).to_have_text("Elin · 2 photos enrolled")
    expect(page.get_by_role("button", name="Enrol", exact=True)).to_be_visible()
    # The focus stays with the person who is typing.
    page.keyboard.type("ei")
    expect(name).to_have_value("Mei")


def test_photos_that_cannot_be_enrolled_stay_with_those_added(new_page: NewPage) -> None:
    page = new_page(view="people")
    sent = send(page)
    page.locator("#enrol-files").set_input_files(MEI)
    sent.abort()
    expect(page.locator("#enrol-messages").get_by_role("alert")).to_contain_text("not answer")
    expect(page.locator("#enrol-shots img")).to_have_count(3)
    expect(page.get_by_label("Name", exact=True)).to_have_value("Elin")
    expect(page.get_by_role("button", name="Enrol 3 photos")).to_be_enabled()


def test_shot_taken_just_before_the_end_counts(new_page: NewPage) -> None:
    page = new_page(view="people")
    page.get_by_role("button", name="Take photos").click()
    page.get_by_role("button", name="Take a photo").click()
    expect(page.locator("#camera-shots .shot")).to_have_count(1)
    page.evaluate("['shoot', 'done'].map((id) => document.getElementById(`camera-${id}`).click())")
    expect(page.locator("#enrol-shots .shot")).to_have_count(2)


# As a shell, a telephone or a message gives them; the service and the browser escape or cut them.
HARD_NAMES = (
    f"{'x' * 110}.jpg",
    f"{'y' * 88}.jpg",
    'my "best".jpg',
    "100%22.jpg",
    "a\u200eb.jpg",
    "two\nlines.jpg",
    "back\\\\slash.jpg",
    "C:\\photo.jpg",
    "مریم\u200cها.jpg",
    "👩\u200d👧 d'été; a=b&c, (1).jpg",
    "\U0001f600" * 60,
    " blank .jpg",
    "nameless",
)


def test_report_tells_of_every_photo_what_became_of_it(new_page: NewPage) -> None:
    page = new_page(view="people")
    broken = ELIN[0].read_bytes()[:900]
    files = [{"name": "good.jpg", "mimeType": "image/jpeg", "buffer": ELIN[1].read_bytes()}]
    files += [{"name": name, "mimeType": "image/jpeg", "buffer": broken} for name in HARD_NAMES]
    # The same long beginning and end.
    files.append({**files[1], "name": f"{'x' * 120}.jpg"})
    page.get_by_label("Name", exact=True).fill("Elin")
    page.locator("#enrol-files").set_input_files(files)  # type: ignore[arg-type]
    page.get_by_role("button", name=f"Enrol {len(files)} photos").click()
    expect(page.locator("#enrol-report h3")).to_have_text("Elin · 1 photo enrolled")
    expect(page.locator("#enrol-report .row.good .row-photo")).to_have_text(["good.jpg"])
    # Each once, with its reason.
    expect(page.locator("#enrol-report .row")).to_have_count(len(files))
    expect(page.locator("#enrol-report").get_by_text("مریم\u200cها.jpg")).to_be_visible()


def test_photo_that_is_on_its_way_cannot_be_left_out(new_page: NewPage) -> None:
    page = new_page(view="people")
    sent = send(page)
    expect(page.get_by_role("button", name="Leave out")).to_have_count(0)
    page.locator("#enrol-files").set_input_files(MEI)
    expect(page.locator("#enrol-shots img")).to_have_count(3)
    # One that came meanwhile can.
    page.get_by_role("button", name="Leave out").click()
    expect(page.locator("#enrol-shots img")).to_have_count(2)
    sent.abort()
    expect(page.get_by_role("button", name="Leave out")).to_have_count(2)


def test_form_and_report_are_reached_beside_a_long_list(new_page: NewPage) -> None:
    page = new_page(view="people", viewport={"width": 1280, "height": 600})
    expect(page.locator("#people .person .name")).to_have_text([*ENROLLED])
    # As with many people.
    page.evaluate("document.getElementById('people').style.minHeight = '4000px'")
    photo = ELIN[0].read_bytes()
    files = [
        {"name": f"{number}.jpg", "mimeType": "image/jpeg", "buffer": photo + bytes([number])}
        for number in range(12)
    ]
    page.get_by_label("Name", exact=True).fill("Elin")
    page.locator("#enrol-files").set_input_files(files)  # type: ignore[arg-type]
    button = page.get_by_role("button", name="Enrol 12 photos")
    button.scroll_into_view_if_needed()
    expect(button).to_be_in_viewport(ratio=1)
    assert page.evaluate("scrollY") < 1000
    button.click()
    last = page.locator("#enrol-report .row").last
    last.scroll_into_view_if_needed()
    expect(last).to_be_in_viewport(ratio=1)
    assert page.evaluate("scrollY") < 1000
    page.set_viewport_size({"width": 800, "height": 600})
    panel = "document.getElementById('enrol-form')"
    assert page.evaluate(f"{panel}.scrollHeight <= {panel}.clientHeight")
