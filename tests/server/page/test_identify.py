"""The page's first view: photos and the camera."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import EXAMPLES
from tests.server.page.conftest import ENROLLED, NewBrowser, NewPage, wait_for
from tests.server.page.running import FILM_SIZE, RunningService

pytestmark = pytest.mark.browser

# As drawing.js fills the plates of names.
KNOWN_PLATE = (13, 116, 87)
UNKNOWN_PLATE = (245, 176, 79)

_CENTRES = """([canvas, colours]) => {
  const { width, height } = canvas;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  return colours.map(([red, green, blue]) => {
    let [count, across] = [0, 0];
    for (let at = 0; at < pixels.length; at += 4) {
      if (pixels[at] === red && pixels[at + 1] === green && pixels[at + 2] === blue) {
        count += 1;
        across += (at / 4) % width;
      }
    }
    return count < 200 ? null : across / count / width;
  });
}"""


def plates(page: Page) -> list[float | None]:
    """Where the plates of known and of unknown people lie, from 0, left, to 1; None: nowhere."""
    canvas = page.locator("#stage-overlay").element_handle()
    found: list[float | None] = page.evaluate(_CENTRES, [canvas, [KNOWN_PLATE, UNKNOWN_PLATE]])
    return found


def test_photo(new_page: NewPage) -> None:
    page = new_page()
    expect(page.get_by_text("Drop a photo here")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a photo").click()
    chooser.value.set_files(EXAMPLES / "group.jpg")
    faces = page.locator("#faces .face")
    # From left to right: enrolled people by name, the others as unknown.
    expect(faces.locator(".face-name")).to_have_text(
        ["Ada_Mirova", "Bruno_Castell", "unknown", "unknown", "unknown"]
    )
    expect(faces.nth(0)).to_contain_text(re.compile(r"similarity 0\.9\d\d"))
    expect(faces.nth(4)).to_contain_text("nearest is")
    expect(page.get_by_role("status").first).to_have_text(
        "Ada_Mirova, Bruno_Castell, and 3 unknown people."
    )
    known, unknown = plates(page)
    assert known is not None and unknown is not None
    assert known < 0.4 < 0.5 < unknown
    # Not by colour alone.
    icons = faces.locator(".face-name use")
    assert icons.first.get_attribute("href") != icons.last.get_attribute("href")


def test_photos_that_hold_nothing(new_page: NewPage, tmp_path: Path) -> None:
    page = new_page()
    photo = page.locator("#identify-file")
    message = page.locator("#identify-messages")

    photo.set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"hello"})
    expect(message.get_by_role("alert")).to_contain_text("That is no photo: notes.txt")

    broken = (EXAMPLES / "stranger.jpg").read_bytes()[:2_000]
    photo.set_input_files({"name": "half.jpg", "mimeType": "image/jpeg", "buffer": broken})
    # In the service's own words, with a way to go on.
    expect(message.get_by_role("alert")).to_contain_text(re.compile("damaged or cut off"))
    expect(message.get_by_role("button", name="Try again")).to_be_visible()

    with page.expect_response("**/v1/match*"):
        meadow = tmp_path / "meadow.png"
        page.screenshot(path=meadow, clip={"x": 0, "y": 0, "width": 200, "height": 150})
        photo.set_input_files(meadow)
    expect(page.locator("#faces-empty")).to_contain_text("There is no face in this photo")
    expect(message).to_be_empty()
    expect(page.locator("#faces .face")).to_have_count(0)


def test_an_unknown_face_of_a_group_is_enrolled_and_undone(
    new_page: NewPage, service: RunningService
) -> None:
    page = new_page()
    page.locator("#identify-file").set_input_files(EXAMPLES / "group.jpg")
    faces = page.locator("#faces .face")
    expect(faces).to_have_count(5)
    offers = faces.get_by_role("button", name="Enrol this face")
    # Not for those who are known.
    expect(offers).to_have_count(3)
    expect(faces.first.get_by_role("button")).to_have_count(0)
    offers.first.click()
    dialog = page.locator("#name-dialog")
    expect(dialog).to_contain_text("Enrol this face")
    dialog.get_by_label("Name").fill("Cleo")
    dialog.get_by_role("button", name="Enrol").click()
    expect(faces.nth(2).locator(".face-name")).to_have_text("Cleo")
    # Only the face that was meant.
    expect(faces.locator(".face-name", has_text="unknown")).to_have_count(2)
    assert service.names() == [*ENROLLED, "Cleo"]
    message = page.locator("#identify-messages")
    expect(message).to_contain_text("Cleo is enrolled.")
    message.get_by_role("button", name="Undo").click()
    expect(faces.locator(".face-name", has_text="unknown")).to_have_count(3)
    assert service.names() == [*ENROLLED]


def test_a_photo_that_the_browser_cannot_show_is_no_black_field(new_page: NewPage) -> None:
    import pillow_heif
    from PIL import Image

    with Image.open(EXAMPLES / "ada_mirova.jpg") as photo, io.BytesIO() as file:
        pillow_heif.from_pillow(photo).save(file, quality=90)
        content = file.getvalue()
    page = new_page()
    page.locator("#identify-file").set_input_files(
        {"name": "IMG_0001.HEIC", "mimeType": "image/heic", "buffer": content}
    )
    # The service reads it all the same.
    expect(page.locator("#faces .face-name")).to_have_text(["Ada_Mirova"])
    expect(page.locator("#stage-unshown")).to_have_text("IMG_0001.HEIC: no picture here")
    expect(page.locator("#stage-photo")).to_be_hidden()
    colour = "getComputedStyle(document.getElementById('stage')).backgroundColor"
    assert page.evaluate(colour) != "rgb(29, 26, 23)"
    page.locator("#identify-file").set_input_files(
        {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no photo"}
    )
    expect(page.locator("#identify-messages").get_by_role("alert")).to_be_visible()
    expect(page.locator("#stage-unshown")).to_have_text("broken.jpg: no picture here")


def test_dropped_and_pasted(new_page: NewPage) -> None:
    page = new_page()
    transfer = """async ([kind, place, bytes, name]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/jpeg" }));
      const event = kind === "drop"
        ? new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true })
        : new ClipboardEvent(kind, { clipboardData: data, bubbles: true, cancelable: true });
      document.querySelector(place).dispatchEvent(event);
    }"""
    for kind, place, photo, name in (
        ("drop", "#stage", EXAMPLES / "ada_mirova.jpg", "Ada_Mirova"),
        ("paste", "body", EXAMPLES / "bruno_castell.jpg", "Bruno_Castell"),
    ):
        page.evaluate(transfer, [kind, place, list(photo.read_bytes()), photo.name])
        expect(page.locator("#faces .face-name")).to_have_text([name])


def test_large_photo_is_shrunk_before_it_is_sent(new_page: NewPage, tmp_path: Path) -> None:
    from PIL import Image

    large = tmp_path / "large.jpg"
    with Image.open(EXAMPLES / "group.jpg") as group:
        # More pixels than the service reads.
        group.resize((9_000, 4_000)).save(large, quality=70)
    page = new_page()
    page.locator("#identify-file").set_input_files(large)
    expect(page.locator("#faces .face")).to_have_count(5)
    expect(page.locator("#faces .face-name").first).to_have_text("Ada_Mirova")


def test_smallest_face(new_page: NewPage) -> None:
    page = new_page()
    smallest, message = page.get_by_label("Smallest face"), page.locator("#identify-messages")
    smallest.select_option("20 pixels")
    with page.expect_response("**/v1/match?*min_face=20"):
        page.locator("#identify-file").set_input_files(EXAMPLES / "group.jpg")
    # The detector of this service has one size, and the page says so.
    expect(message.get_by_role("alert")).to_contain_text("'dlib_hog' has no min_face")
    # The same photo again.
    with page.expect_response("**/v1/match*"):
        smallest.select_option("as usual")
    expect(page.locator("#faces .face")).to_have_count(5)
    expect(message).to_be_empty()


def test_camera_refused(new_page: NewPage) -> None:
    page = new_page(permissions=[])
    button = page.get_by_role("button", name="Use the camera")
    button.click()
    alert = page.locator("#identify-messages").get_by_role("alert")
    expect(alert).to_contain_text("does not let this page use the camera")
    expect(button).to_have_attribute("aria-pressed", "false")
    # What was refused can be allowed later, and a photo works without.
    page.context.grant_permissions(["camera"])
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "live")
    page.locator("#identify-file").set_input_files(EXAMPLES / "ada_mirova.jpg")
    expect(page.locator("#faces .face-name")).to_have_text(["Ada_Mirova"])
    expect(page.get_by_role("button", name="Use the camera")).to_be_visible()


def test_camera_missing(new_page: NewPage, new_browser: NewBrowser) -> None:
    without = new_browser("--use-fake-device-for-media-stream=device-count=0")
    page = new_page(by=without)
    page.get_by_role("button", name="Use the camera").click()
    alert = page.locator("#identify-messages").get_by_role("alert")
    expect(alert).to_contain_text("No camera was found")
    without.close()


def test_camera_goes_off_with_the_view(new_page: NewPage) -> None:
    page = new_page()
    page.get_by_role("button", name="Use the camera").click()
    expect(page.locator("#faces .face")).to_have_count(2)
    expect(page.locator("#live-rate")).to_contain_text("ms")
    page.evaluate("window.stream = document.getElementById('stage-video').srcObject")
    page.get_by_role("link", name="Verify").click()
    expect(page.get_by_role("heading", name="The same person?")).to_be_visible()
    assert page.evaluate("window.stream.getTracks().map((track) => track.readyState)") == ["ended"]
    page.get_by_role("link", name="Identify").click()
    expect(page.locator("#faces-empty")).to_have_text("The camera is off.")


def test_service_out_of_reach(new_page: NewPage) -> None:
    page = new_page()
    page.context.set_offline(True)
    page.locator("#identify-file").set_input_files(EXAMPLES / "ada_mirova.jpg")
    alert = page.locator("#identify-messages").get_by_role("alert")
    expect(alert).to_contain_text("The service does not answer")
    page.context.set_offline(False)
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator("#faces .face-name")).to_have_text(["Ada_Mirova"])
    expect(page.locator("#identify-messages")).to_be_empty()


def test_camera_that_does_not_open_leaves_the_photo(new_page: NewPage) -> None:
    page = new_page(permissions=[])
    held: list[Route] = []
    page.route("**/v1/match*", lambda route: held.append(route))
    page.locator("#identify-file").set_input_files(EXAMPLES / "ada_mirova.jpg")
    wait_for(page, held)
    page.get_by_role("button", name="Use the camera").click()
    expect(page.locator("#identify-messages").get_by_role("alert")).to_contain_text(
        "use the camera"
    )
    held[0].continue_()
    expect(page.locator("#faces .face-name")).to_have_text(["Ada_Mirova"])
    expect(page.locator("#stage")).to_have_attribute("data-state", "photo")


def test_photo_that_comes_too_late_leaves_the_camera_its_shape(new_page: NewPage) -> None:
    page = new_page()
    page.evaluate(
        """() => {
          const decode = HTMLImageElement.prototype.decode;
          HTMLImageElement.prototype.decode = async function () {
            const decoded = decode.call(this);
            await Promise.allSettled([decoded, new Promise((go) => { window.goOn = go; })]);
            return decoded;
          };
        }"""
    )
    page.locator("#identify-file").set_input_files(EXAMPLES / "ada_mirova.jpg")
    page.wait_for_function("() => window.goOn !== undefined")
    page.get_by_role("button", name="Use the camera").click()
    expect(page.locator("#stage")).to_have_attribute("data-state", "live")
    shape = "document.querySelector('.identify-picture').style.getPropertyValue('--shape')"
    camera = page.evaluate(shape)
    page.evaluate("() => new Promise((resolve) => { window.goOn(); setTimeout(resolve, 200); })")
    assert page.evaluate(shape) == camera == str(FILM_SIZE[0] / FILM_SIZE[1])


def test_what_went_wrong_is_in_sight_on_a_phone(new_page: NewPage) -> None:
    for width, height in ((360, 640), (390, 664)):
        page = new_page(viewport={"width": width, "height": height})
        film = {"name": "clip.mp4", "mimeType": "video/mp4", "buffer": b"no photo"}
        page.locator("#identify-file").set_input_files(film)  # type: ignore[arg-type]
        alert = page.locator("#identify-messages").get_by_role("alert")
        expect(alert).to_be_in_viewport(ratio=1)
        message, bar = alert.bounding_box(), page.locator(".views").bounding_box()
        assert message is not None and bar is not None
        assert message["y"] + message["height"] < bar["y"]
