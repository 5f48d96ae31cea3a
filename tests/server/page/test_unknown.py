"""The page's view of people without a name: named with one click, merged, dismissed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.page.conftest import ENROLLED, NewPage, wait_for
from tests.server.page.running import READ_TOKEN, RunningService

pytestmark = pytest.mark.browser

ELIN = [VERIFY_DATASET / "Elin_Sorrel" / f"{number}.jpg" for number in (1, 2)]
MEI = VERIFY_DATASET / "Mei_Oshara" / "1.jpg"
STRANGER = EXAMPLES / "stranger.jpg"


@pytest.fixture(autouse=True)
def strangers(service: RunningService) -> Iterator[list[str]]:
    """Elin, seen twice, Mei and somebody else, in the order in which they were seen."""
    service.see(*ELIN)
    service.see(MEI, camera="yard")
    service.see(STRANGER)
    yield service.unknown()[::-1]
    service.dismiss_all()
    for name in service.names():
        if name not in ENROLLED:
            service.remove(name)


def card(page: Page, unknown: str) -> Locator:
    heading = page.get_by_role("heading", name=unknown, exact=True)
    return page.locator("#unknown .stranger").filter(has=heading)


def shown(page: Page) -> Locator:
    return page.locator("#unknown h2")


def test_a_stranger_is_named_with_one_click(
    new_page: NewPage, service: RunningService, strangers: list[str]
) -> None:
    elin, mei, other = strangers
    page = new_page(view="unknown")
    expect(shown(page)).to_have_text([other, mei, elin])
    expect(
        card(page, elin).get_by_alt_text(re.compile(f"^A face of {elin}, front door"))
    ).to_have_count(2)
    expect(card(page, elin)).to_contain_text("Seen 2 times")
    expect(card(page, mei)).to_contain_text("yard")
    expect(card(page, mei)).to_contain_text("unless seen again")

    # What is typed elsewhere stays.
    page.get_by_label(f"Name of {mei}").fill("Mei")
    field = page.get_by_label(f"Name of {elin}")
    field.focus()
    page.keyboard.press("Enter")
    expect(card(page, elin).get_by_role("alert")).to_have_text("A name is needed.")
    field.fill("Elin/Sorrel")
    page.keyboard.press("Enter")
    expect(card(page, elin).get_by_role("alert")).to_contain_text("slash")
    expect(field).to_be_focused()
    field.fill("Elin")
    card(page, elin).get_by_role("button", name="Name", exact=True).click()
    expect(shown(page)).to_have_text([other, mei])
    message = page.locator("#unknown-messages")
    expect(message).to_contain_text(f"{elin} is Elin now: 2 photos enrolled.")
    expect(page.get_by_label(f"Name of {mei}")).to_be_focused()
    expect(page.get_by_label(f"Name of {mei}")).to_have_value("Mei")
    assert service.names() == [*ENROLLED, "Elin"]

    # From now on she is known.
    page.get_by_role("link", name="Identify").click()
    page.locator("#identify-file").set_input_files(VERIFY_DATASET / "Elin_Sorrel" / "3.jpg")
    expect(page.locator("#faces .face-name")).to_have_text(["Elin"])
    page.get_by_role("link", name="People").click()
    expect(page.locator("#people .person .name")).to_have_text([*ENROLLED, "Elin"])
    page.get_by_role("link", name="Unknown").click()

    # Named by mistake, and taken back.
    expect(page.get_by_label(f"Name of {mei}")).to_have_value("Mei")
    page.get_by_label(f"Name of {mei}").focus()
    page.keyboard.press("Enter")
    expect(shown(page)).to_have_text([other])
    message.get_by_role("button", name="Undo").click()
    expect(shown(page)).to_have_text([mei, other])
    expect(page.locator("#announcer")).to_have_text("Undone.")
    assert service.names() == [*ENROLLED, "Elin"]


def test_two_who_are_one_are_merged_and_the_rest_dismissed(
    new_page: NewPage, service: RunningService, strangers: list[str]
) -> None:
    elin, mei, other = strangers
    page = new_page(view="unknown")
    merge = card(page, mei).get_by_role("button", name=f"Merge {mei}")
    merge.click()
    page.keyboard.press("Escape")
    expect(merge).to_be_focused()
    merge.click()
    dialog = page.get_by_role("dialog")
    stays = dialog.get_by_label("The one who stays")
    stays.fill("Mei")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("unknown-7 or so")
    stays.fill(elin)
    dialog.get_by_role("button", name="Merge").click()
    expect(shown(page)).to_have_text([other, elin])
    expect(card(page, elin).locator("img")).to_have_count(3)
    expect(page.locator("#announcer")).to_have_text(f"{mei} and {elin} are one person now, {elin}.")

    dismiss = page.get_by_role("button", name=f"Dismiss {elin}")
    dismiss.click()
    expect(page.get_by_role("dialog")).to_contain_text("3 faces are deleted, for good.")
    page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    expect(dismiss).to_be_focused()
    assert service.unknown() == [other, elin]
    for unknown in (elin, other):
        page.get_by_role("button", name=f"Dismiss {unknown}").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.locator("#announcer")).to_have_text(f"{unknown} is dismissed.")
    expect(page.locator("#unknown-state")).to_contain_text("Nobody.")
    expect(page.locator("#unknown-heading")).to_be_focused()
    assert service.unknown() == []


def test_a_token_that_reads_looks_and_changes_nothing(
    new_page: NewPage, strangers: list[str]
) -> None:
    page = new_page(view="unknown", token=READ_TOKEN)
    expect(shown(page)).to_have_count(3)
    expect(page.locator("#unknown-messages")).to_contain_text("takes a write token")
    assert page.locator("#unknown button, #unknown input").count() == 0


def test_many_are_shown_in_parts(new_page: NewPage, strangers: list[str]) -> None:
    page = new_page()
    asked: list[Route] = []

    def two_at_most(route: Route) -> None:
        asked.append(route)
        # As if somebody had come in between: the last of the first part is the next one's first.
        address = route.request.url.replace("start=2", "start=1")
        joint = "&" if "?" in address else "?"
        route.continue_(url=f"{address}{joint}count=2")

    page.route(re.compile(r"/v1/unknown(\?start=\d+)?$"), two_at_most)
    page.get_by_role("link", name="Unknown").click()
    wait_for(page, asked)
    expect(shown(page)).to_have_text(strangers[:0:-1])
    page.get_by_role("button", name="Show more").click()
    expect(shown(page)).to_have_text(strangers[::-1])
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_name_that_is_typed_stays_when_the_person_is_seen_again(
    new_page: NewPage, service: RunningService, strangers: list[str]
) -> None:
    elin, mei, _ = strangers
    page = new_page(view="unknown")
    field = page.get_by_label(f"Name of {mei}")
    field.fill("Mei Oshara")
    held: list[Route] = []
    page.route("**/name", lambda route: held.append(route), times=1)
    page.get_by_label(f"Name of {elin}").fill("Elin")
    page.keyboard.press("Enter")
    wait_for(page, held)
    service.see(MEI.with_name("2.jpg"))
    field.focus()
    held[0].continue_()
    message = page.locator("#unknown-messages")
    expect(message).to_contain_text(f"{elin} is Elin now")
    expect(card(page, mei)).to_contain_text("Seen 2 times")
    expect(field).to_have_value("Mei Oshara")
    expect(field).to_be_focused()
    # The way back is not lost with one answer.
    page.route("**/v1/undo*", lambda route: route.abort(), times=1)
    message.get_by_role("button", name="Undo").click()
    expect(message.get_by_role("alert")).to_contain_text("The service does not answer.")
    message.get_by_role("button", name="Try again").click()
    expect(card(page, elin)).to_be_visible()


def test_whoever_is_gone_is_no_longer_listed(
    new_page: NewPage, service: RunningService, strangers: list[str]
) -> None:
    elin, mei, other = strangers
    page = new_page(view="unknown")
    expect(shown(page)).to_have_text([other, mei, elin])
    alert = page.locator("#unknown-messages").get_by_role("alert")
    service.ask("DELETE", f"v1/unknown/{elin}")
    page.get_by_label(f"Name of {elin}").fill("Elin")
    page.keyboard.press("Enter")
    expect(alert).to_contain_text(elin)
    expect(shown(page)).to_have_text([other, mei])
    service.ask("DELETE", f"v1/unknown/{mei}")
    page.get_by_role("button", name=f"Dismiss {mei}").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(alert).to_contain_text(mei)
    expect(shown(page)).to_have_text([other])
