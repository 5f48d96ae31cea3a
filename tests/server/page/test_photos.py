"""Photos that come into the page in ways that hold surprises: pasted, dropped, gone meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import EXAMPLES
from tests.server.page.conftest import NewPage

pytestmark = pytest.mark.browser

ADA = EXAMPLES / "ada_mirova.jpg"

_PASTE = """([place, text, bytes]) => {
  const data = new DataTransfer();
  if (text !== "") data.setData("text/plain", text);
  data.items.add(new File([new Uint8Array(bytes)], "image.jpg", { type: "image/jpeg" }));
  const ways = { clipboardData: data, bubbles: true, cancelable: true };
  const event = new ClipboardEvent("paste", ways);
  document.querySelector(place).dispatchEvent(event);
  return event.defaultPrevented;
}"""


def paste(page: Page, place: str, text: str = "") -> bool:
    """Paste a photo, with a text; whether the page has taken it."""
    taken: bool = page.evaluate(_PASTE, [place, text, list(ADA.read_bytes())])
    return taken


def drop(page: Page, place: str, *paths: Path) -> None:
    """Drop files as a file manager does."""
    box = page.locator(place).bounding_box()
    assert box is not None
    where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **where, "data": data})


def test_pasted_text_with_a_picture_of_it_is_text(new_page: NewPage) -> None:
    page = new_page(view="people")
    expect(page.locator("#enrol-form")).to_be_visible()
    assert not paste(page, "#enrol-name", "Elin Sorrel")
    # A picture alone is a photo, and so is one that is pasted elsewhere.
    assert paste(page, "#enrol-name")
    assert paste(page, "body", "Elin Sorrel")
    expect(page.locator("#enrol-shots .shot")).to_have_count(2)


def test_paste_into_a_dialog_changes_nothing_behind_it(new_page: NewPage) -> None:
    page = new_page()
    page.locator("#identify-file").set_input_files(EXAMPLES / "stranger.jpg")
    page.get_by_role("button", name="Enrol this face").click()
    expect(page.locator("#name-dialog")).to_be_visible()
    assert not paste(page, "#name-input")
    page.keyboard.press("Escape")
    expect(page.locator("#name-dialog")).to_be_hidden()
    expect(page.locator("#faces .face-name")).to_have_text(["unknown"])
    assert paste(page, "body")
    expect(page.locator("#faces .face-name")).to_have_text(["Ada_Mirova"])


def test_folder_is_no_photo(new_page: NewPage, tmp_path: Path) -> None:
    folder = tmp_path / "holiday photos"
    folder.mkdir()
    page = new_page()
    drop(page, "#stage", folder)
    message = "That cannot be read: a folder, or moved: holiday photos"
    expect(page.locator("#identify-messages").get_by_role("alert")).to_have_text(message)
    page.get_by_role("link", name="People").click()
    expect(page.locator("#enrol-form")).to_be_visible()
    drop(page, "#enrol-drop", folder, ADA)
    expect(page.locator("#enrol-photos-error")).to_have_text(message)
    expect(page.locator("#enrol-shots img")).to_have_attribute("alt", ADA.name)


def test_photo_that_is_gone_is_told_by_its_name(new_page: NewPage, tmp_path: Path) -> None:
    moved = tmp_path / "moved.jpg"
    shutil.copy(ADA, moved)
    page = new_page(view="people")
    page.get_by_label("Name", exact=True).fill("Elin")
    page.locator("#enrol-files").set_input_files([moved, EXAMPLES / "stranger.jpg"])
    expect(page.locator("#enrol-shots .shot")).to_have_count(2)
    moved.unlink()
    page.get_by_role("button", name="Enrol 2 photos").click()
    alert = page.locator("#enrol-messages").get_by_role("alert")
    expect(alert).to_have_text(
        "Cannot be read any more: moved.jpg. Was it moved, changed or deleted?"
    )


def test_photos_keep_the_names_that_they_were_given(new_page: NewPage) -> None:
    page = new_page()
    same, names = page.evaluate(
        """async () => {
          const { withOwnNames } = await import("./photos.js");
          const long = () => new File(["x"], `${"x".repeat(84)}.jpg`);
          const photos = withOwnNames([long(), long(), long()]);
          const again = withOwnNames([...photos, long()]);
          const isSame = photos.every((photo, index) => photo === again[index]);
          return [isSame, again.map(({ name }) => name)];
        }"""
    )
    assert same
    assert len(set(names)) == 4
