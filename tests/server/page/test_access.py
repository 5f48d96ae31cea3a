"""The page's tokens: who may look, and who may change."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.conftest import EXAMPLES
from tests.server.page.conftest import ENROLLED, NewPage
from tests.server.page.running import READ_TOKEN, WRITE_TOKEN

pytestmark = pytest.mark.browser


def test_token_is_asked_for(new_page: NewPage) -> None:
    page = new_page(token=None, view="people")
    dialog = page.get_by_role("dialog", name="A token, please")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Token").fill("not-the-right-one-000000")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("does not take this token")
    dialog.get_by_label("Token").fill(WRITE_TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#people .person .name")).to_have_text([*ENROLLED])
    expect(dialog).to_be_hidden()

    page.reload()
    expect(page.locator("#people .person .name")).to_have_text([*ENROLLED])
    # It is kept in this tab alone, and nowhere for longer.
    assert page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
    assert WRITE_TOKEN not in page.url
    page.get_by_role("button", name="Forget the token").click()
    expect(dialog).to_be_visible()
    expect(page.locator("#people .person")).to_have_count(0)


def test_without_a_token(new_page: NewPage) -> None:
    page = new_page(token=None)
    page.get_by_role("dialog").get_by_role("button", name="Not now").click()
    alert = page.locator("#identify-messages").get_by_role("alert")
    expect(alert).to_contain_text("only those who hold its token")
    alert.get_by_role("button", name="Try again").click()
    page.get_by_role("dialog").get_by_label("Token").fill(READ_TOKEN)
    page.keyboard.press("Enter")
    expect(alert).to_be_hidden()
    page.locator("#identify-file").set_input_files(EXAMPLES / "ada_mirova.jpg")
    expect(page.locator("#faces .face-name")).to_have_text(["Ada_Mirova"])


def test_token_that_may_only_read(new_page: NewPage) -> None:
    page = new_page(token=READ_TOKEN, view="people")
    expect(page.locator("#people .person .name")).to_have_text([*ENROLLED])
    expect(page.get_by_text("You may look at the people, not change them")).to_be_visible()
    # Nobody is offered what would be refused.
    expect(page.locator("#enrol-form")).to_be_hidden()
    expect(page.locator("#people .person-buttons")).to_have_count(0)
    page.get_by_role("button", name=f"{ENROLLED[0]} 4 photos").click()
    expect(page.locator("#people .photo-source").first).to_have_text("1.jpg")
    expect(page.locator("#people .photo-buttons")).to_have_count(0)
    page.get_by_role("button", name="Use another token").click()
    page.get_by_role("dialog").get_by_label("Token").fill(WRITE_TOKEN)
    page.keyboard.press("Enter")
    expect(page.locator("#enrol-form")).to_be_visible()
    expect(page.get_by_role("button", name="Delete Ada_Mirova")).to_be_visible()


def test_token_with_an_invisible_sign_is_not_kept(new_page: NewPage) -> None:
    page = new_page(token=None, view="people")
    dialog = page.get_by_role("dialog", name="A token, please")
    for wrong in (f"{WRITE_TOKEN}\u200b", "пароль-0123456789"):
        dialog.get_by_label("Token").fill(wrong)
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("plain letters, digits and signs alone")
        expect(dialog.get_by_label("Token")).to_have_value("")
    dialog.get_by_label("Token").fill(f" {WRITE_TOKEN} ")
    page.keyboard.press("Enter")
    expect(page.locator("#people .person .name")).to_have_text([*ENROLLED])
