"""The page's view of the people: enrol, rename, delete, and see it by the camera."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import APIResponse, Locator, Page, Route, expect

from benchmarks import serving
from tests.conftest import VERIFY_DATASET
from tests.server.page.conftest import ENROLLED, NewPage, wait_for
from tests.server.page.running import WRITE_TOKEN, RunningService
from tests.server.page.test_identify import plates

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("leave_it_as_it_was")]

ELIN = [VERIFY_DATASET / "Elin_Sorrel" / f"{number}.jpg" for number in (1, 2)]


def row(page: Page, name: str) -> Locator:
    return page.locator("#people .person").filter(has=page.get_by_text(name, exact=True))


def enrol(page: Page, name: str) -> None:
    page.get_by_label("Name", exact=True).fill(name)
    page.locator("#enrol-files").set_input_files(ELIN)
    page.get_by_role("button", name="Enrol 2 photos").click()
    expect(page.locator("#enrol-report h3")).to_have_text(f"{name} · 2 photos enrolled")


def test_enrol_identify_live_rename_delete(new_page: NewPage, service: RunningService) -> None:
    page = new_page(view="people")
    names = page.locator("#people .person .name")
    expect(names).to_have_text([*ENROLLED])
    enrol(page, "Elin Sorrel")
    expect(names).to_have_text([*ENROLLED, "Elin Sorrel"])
    expect(row(page, "Elin Sorrel")).to_contain_text("2 photos")
    # The service keeps a small picture here; the others were enrolled from a folder.
    expect(row(page, "Elin Sorrel").locator(".portrait img")).to_be_visible()
    assert service.names() == [*ENROLLED, "Elin Sorrel"]

    faces = page.locator("#faces .face-name")
    page.get_by_role("link", name="Identify").click()
    page.get_by_role("button", name="Use the camera").click()
    expect(faces).to_have_text(["Elin Sorrel", "unknown"])
    expect(page.locator("#announcer")).to_have_text("Elin Sorrel and one unknown person.")
    known, unknown = plates(page)
    assert known is not None and unknown is not None
    assert known < 0.5 < unknown

    page.get_by_role("link", name="People").click()
    row(page, "Elin Sorrel").get_by_role("button", name="Rename").click()
    dialog = page.get_by_role("dialog")
    # The dialog stays, and says that the name is taken.
    dialog.get_by_label("New name").fill("Ada_Mirova")
    dialog.get_by_role("button", name="Rename").click()
    expect(dialog.get_by_role("alert")).to_contain_text("enrolled already")
    dialog.get_by_label("New name").fill("Elin of the North")
    dialog.get_by_role("button", name="Rename").click()
    expect(names).to_have_text([*ENROLLED, "Elin of the North"])
    expect(row(page, "Elin of the North").get_by_role("button", name="Rename")).to_be_focused()

    page.get_by_role("link", name="Identify").click()
    page.get_by_role("button", name="Use the camera").click()
    expect(faces).to_have_text(["Elin of the North", "unknown"])

    page.get_by_role("link", name="People").click()
    delete = row(page, "Elin of the North").get_by_role("button", name="Delete")
    delete.click()
    expect(dialog).to_contain_text("learnt from 2 photos. This can be undone for as long as")
    dialog.get_by_role("button", name="Keep").click()
    expect(delete).to_be_focused()
    assert "Elin of the North" in service.names()
    delete.click()
    dialog.get_by_role("button", name="Delete").click()
    expect(names).to_have_text([*ENROLLED])
    assert service.names() == [*ENROLLED]

    page.get_by_role("link", name="Identify").click()
    page.get_by_role("button", name="Use the camera").click()
    expect(faces).to_have_text(["unknown", "unknown"])
    assert plates(page)[0] is None


def test_report_row_by_row(new_page: NewPage) -> None:
    page = new_page(view="people")
    broken = {"name": "half.jpg", "mimeType": "image/jpeg", "buffer": ELIN[0].read_bytes()[:900]}
    page.get_by_label("Name", exact=True).fill("Elin")
    files = page.locator("#enrol-files")
    files.set_input_files(broken)  # type: ignore[arg-type]
    page.get_by_role("button", name="Enrol 1 photo").click()
    rows = page.locator("#enrol-report .row")
    # Nothing is lost where nothing could be enrolled: the photos stay, to be mended.
    expect(page.locator("#enrol-messages").get_by_role("alert")).to_contain_text("None of the 1")
    expect(rows).to_contain_text(["half.jpg"])
    expect(page.locator("#enrol-shots .shot")).to_have_count(1)

    files.set_input_files([*ELIN, VERIFY_DATASET / "Ada_Mirova" / "1.jpg"])
    page.get_by_role("button", name="Enrol 4 photos").click()
    page.get_by_role("dialog").get_by_label("Enrol this photo").check()
    page.get_by_role("dialog").get_by_role("button", name="Go on").click()
    expect(page.locator("#enrol-report h3")).to_have_text("Elin · 3 photos enrolled")
    # Two photos of one name are told apart.
    expect(rows.locator(".row-photo")).to_have_text(["half.jpg", "1.jpg", "2.jpg", "1 (2).jpg"])
    expect(page.locator("#enrol-report .row.bad")).to_contain_text(["half.jpg"])
    notes = page.locator("#enrol-report .row.note")
    expect(notes.filter(has_text="Ada_Mirova").first).to_contain_text("1 (2).jpg")
    expect(page.locator("#enrol-report")).to_be_focused()


def test_enrol_from_the_camera(new_page: NewPage, service: RunningService) -> None:
    page = new_page(view="people")
    page.get_by_role("button", name="Take photos").click()
    dialog = page.get_by_role("dialog", name="Take photos")
    shoot = dialog.get_by_role("button", name="Take a photo")
    for count in (1, 2, 3):
        shoot.click()
        expect(dialog.locator(".shot")).to_have_count(count)
    dialog.get_by_role("button", name="Leave out camera 2.jpg").click()
    dialog.get_by_role("button", name="Use 2 photos").click()
    expect(page.locator("#enrol-shots .shot")).to_have_count(2)
    assert page.evaluate("document.getElementById('camera-video').srcObject") is None
    page.get_by_role("button", name="Enrol 2 photos").click()
    expect(page.locator("#enrol-name-error")).to_have_text("A name is needed.")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.keyboard.type("Of the camera")
    page.keyboard.press("Enter")
    # Two people are in the picture, and the service cannot know which is meant.
    faces = page.get_by_role("dialog").get_by_label("Face 2 of 2, from the left")
    expect(faces).to_have_count(2)
    for face in faces.all():
        face.check()
    page.get_by_role("dialog").get_by_role("button", name="Go on").click()
    expect(page.locator("#enrol-report h3")).to_have_text("Of the camera · 2 photos enrolled")
    assert "Of the camera" in service.names()


def test_row_that_stays_keeps_the_focus(new_page: NewPage, service: RunningService) -> None:
    page = new_page(view="people")
    names = page.locator("#people .person .name")
    enrol(page, "Adam")
    expect(names).to_have_text(["Ada_Mirova", "Adam", "Bruno_Castell"])
    page.get_by_role("link", name="Identify").click()
    expect(page.locator("#people-view")).to_be_hidden()
    held: list[Route] = []
    page.route("**/v1/people", lambda route: held.append(route))
    page.get_by_role("link", name="People").click()
    wait_for(page, held)
    # What was known before can be used until the answer is there, and when it comes.
    rename = row(page, "Bruno_Castell").get_by_role("button", name="Rename")
    rename.focus()
    service.remove("Adam")
    held[0].continue_()
    expect(names).to_have_text([*ENROLLED])
    expect(rename).to_be_focused()


def test_answer_that_is_overtaken_is_passed_over(new_page: NewPage) -> None:
    page = new_page()
    held: list[tuple[Route, APIResponse]] = []
    page.route("**/v1/people", lambda route: held.append((route, route.fetch())), times=1)
    page.get_by_role("link", name="People").click()
    wait_for(page, held)
    enrol(page, "Elin")
    names = page.locator("#people .person .name")
    expect(names).to_have_text([*ENROLLED, "Elin"])
    ((route, answer),) = held
    with page.expect_request_finished():
        route.fulfill(response=answer)
    # Time to do the wrong thing.
    page.evaluate("() => new Promise((resolve) => { setTimeout(resolve, 200); })")
    expect(names).to_have_text([*ENROLLED, "Elin"])


def test_dialog_that_is_opened_again_at_once(new_page: NewPage, service: RunningService) -> None:
    page = new_page(view="people")
    enrol(page, "Elin")
    delete = row(page, "Elin").get_by_role("button", name="Delete")
    # Faster than the browser draws, and so tells that the dialog was closed.
    delete.evaluate(
        """(button) => {
          button.click();
          document.getElementById("delete-cancel").click();
          button.click();
        }"""
    )
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Keep")).to_be_focused()
    assert "Elin" in service.names()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator("#people .person .name")).to_have_text([*ENROLLED])
    assert service.names() == [*ENROLLED]


def test_rename_called_off_too_late(new_page: NewPage) -> None:
    page = new_page(view="people")
    enrol(page, "Elin")
    held: list[Route] = []
    page.route("**/v1/people/*", lambda route: held.append(route))
    dialog, names = page.get_by_role("dialog"), page.locator("#people .person .name")
    for name, told in (("Elin Sorrel", False), ("Ada_Mirova", True)):
        page.get_by_role("button", name=re.compile("^Rename Elin")).click()
        dialog.get_by_label("New name").fill(name)
        page.keyboard.press("Enter")
        wait_for(page, held)
        page.keyboard.press("Escape")
        # Another dialog than the one that the answer belongs to.
        page.get_by_role("button", name="Rename Bruno_Castell").click()
        dialog.get_by_label("New name").fill("Bruno C.")
        held.pop().continue_()
        if told:
            expect(page.locator("#people-messages")).to_contain_text("enrolled already")
        expect(names).to_have_text([*ENROLLED, "Elin Sorrel"])
        expect(dialog.get_by_label("New name")).to_have_value("Bruno C.")
        expect(page.locator("#name-error")).to_be_hidden()
        dialog.get_by_role("button", name="Leave it").click()


def test_focus_that_has_moved_on_stays(new_page: NewPage) -> None:
    page = new_page(view="people")
    enrol(page, "Elin")
    held: list[Route] = []
    page.route("**/v1/people/*", lambda route: held.append(route))
    row(page, "Elin").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    wait_for(page, held)
    page.get_by_label("Name", exact=True).focus()
    held[0].continue_()
    expect(page.locator("#announcer")).to_have_text("Elin is deleted.")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()


def test_names_of_every_kind(new_page: NewPage) -> None:
    page = new_page(view="people")
    names = page.locator("#people .person .name")
    for name in ("<img src=x onerror=alert(1)>", "مريم بنت علي", "王小明 & Ωmega?#%"):
        enrol(page, name)
        expect(names.filter(has_text=name)).to_have_text([name])
        assert page.locator("#people .person .name *").count() == 0
        row(page, name).get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(names).to_have_text([*ENROLLED])
    page.get_by_label("Name", exact=True).fill("../etc/passwd")
    page.locator("#enrol-files").set_input_files(ELIN[0])
    page.get_by_role("button", name="Enrol 1 photo").click()
    expect(page.locator("#enrol-messages").get_by_role("alert")).to_contain_text("slash")


def test_by_keyboard_alone(new_page: NewPage, service: RunningService) -> None:
    page = new_page()
    press = page.keyboard.press

    def tab_to(target: Locator) -> None:
        for _ in range(40):
            if target.evaluate("(element) => element === document.activeElement"):
                break
            press("Tab")
        expect(target).to_be_focused()
        # The focus is visible to people who work by keyboard.
        outline = target.evaluate("(element) => getComputedStyle(element).outlineStyle")
        assert outline != "none" or target.get_attribute("id") == "main"

    press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    tab_to(page.get_by_role("link", name="People"))
    press("Enter")
    expect(page.get_by_role("heading", name="People", level=1)).to_be_focused()
    tab_to(page.get_by_label("Name", exact=True))
    page.keyboard.type("Elin")
    choose = page.get_by_role("button", name="Choose photos")
    tab_to(choose)
    with page.expect_file_chooser() as chooser:
        press("Space")
    chooser.value.set_files(ELIN[:1])
    tab_to(page.get_by_role("button", name="Enrol 1 photo"))
    press("Enter")
    expect(page.locator("#enrol-report")).to_be_focused()
    assert "Elin" in service.names()

    delete = page.get_by_role("button", name="Delete Elin")
    for _ in range(40):
        if delete.evaluate("(element) => element === document.activeElement"):
            break
        press("Shift+Tab")
    press("Enter")
    # The harmless answer has the focus, and Escape is it too.
    expect(page.get_by_role("dialog").get_by_role("button", name="Keep")).to_be_focused()
    press("Escape")
    expect(delete).to_be_focused()
    press("Space")
    press("Tab")
    press("Enter")
    expect(page.get_by_role("button", name="Delete Bruno_Castell")).to_be_focused()
    assert service.names() == [*ENROLLED]


def photos_shown(page: Page) -> Locator:
    return page.locator("#people .photo-source")


def test_photo_in_the_wrong_place_is_put_right(new_page: NewPage, service: RunningService) -> None:
    page = new_page(view="people")
    page.get_by_label("Name", exact=True).fill("Elin")
    bruno = VERIFY_DATASET / "Bruno_Castell" / "4.jpg"
    page.locator("#enrol-files").set_input_files([*ELIN, bruno])
    page.get_by_role("button", name="Enrol 3 photos").click()
    page.get_by_role("dialog").get_by_label("Enrol this photo").check()
    page.get_by_role("dialog").get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Elin 3 photos").click()
    expect(photos_shown(page)).to_have_text(["1.jpg", "2.jpg", "4.jpg"])
    # The faces are shown, as they are looked at.
    expect(page.get_by_alt_text("The face in 4.jpg")).to_be_visible()
    expect(row(page, "Elin").locator(".photo").first).to_contain_text(re.compile(r"\d{4}"))

    page.get_by_role("button", name="Remove 4.jpg of Elin").click()
    expect(photos_shown(page)).to_have_text(["1.jpg", "2.jpg"])
    message = page.locator("#people-messages")
    expect(message).to_contain_text("4.jpg is no longer a photo of Elin.")
    expect(page.get_by_role("button", name="Elin 2 photos")).to_be_focused()
    message.get_by_role("button", name="Undo").click()
    expect(page.locator("#announcer")).to_have_text("Undone.")
    expect(photos_shown(page)).to_have_text(["1.jpg", "2.jpg", "4.jpg"])

    page.get_by_role("button", name="Show as the picture: 2.jpg of Elin").click()
    expect(message).to_contain_text("2.jpg is the picture of Elin now.")

    page.get_by_role("button", name="Move 4.jpg of Elin", exact=True).click()
    dialog = page.get_by_role("dialog", name="Move 4.jpg")
    dialog.get_by_label("Person").fill("Bruno/Castell")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("slash")
    dialog.get_by_label("Person").fill("Bruno the Second")
    page.keyboard.press("Enter")
    expect(message).to_contain_text("4.jpg is a photo of Bruno the Second now.")
    expect(row(page, "Bruno the Second")).to_contain_text("1 photo")

    # Two names of one person are merged; a dialog that is called off changes nothing.
    merge = row(page, "Bruno the Second").get_by_role("button", name="Merge")
    merge.click()
    page.keyboard.press("Escape")
    expect(merge).to_be_focused()
    merge.click()
    page.get_by_label("The name that stays").fill("Elin")
    page.get_by_role("dialog").get_by_role("button", name="Merge").click()
    expect(message).to_contain_text("Bruno the Second and Elin are one person now, Elin.")
    expect(photos_shown(page)).to_have_text(["1.jpg", "2.jpg", "4.jpg"])
    message.get_by_role("button", name="Undo").click()
    expect(row(page, "Bruno the Second")).to_contain_text("1 photo")
    assert service.names() == ["Ada_Mirova", "Bruno the Second", "Bruno_Castell", "Elin"]

    # Closed again.
    page.get_by_role("button", name="Elin 2 photos").click()
    expect(photos_shown(page)).to_have_count(0)


def test_deleted_person_comes_back(new_page: NewPage, service: RunningService) -> None:
    page = new_page(view="people")
    enrol(page, "Elin")
    row(page, "Elin").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    names, message = page.locator("#people .person .name"), page.locator("#people-messages")
    expect(names).to_have_text([*ENROLLED])
    # The way back is not lost with one answer.
    busy = {"Retry-After": "1"}
    page.route(
        "**/v1/undo*", lambda route: route.fulfill(status=429, headers=busy, json={}), times=1
    )
    message.get_by_role("button", name="Undo").click()
    expect(message.get_by_role("alert")).to_contain_text("429")
    message.get_by_role("button", name="Try again").click()
    expect(names).to_have_text([*ENROLLED, "Elin"])
    assert service.names() == [*ENROLLED, "Elin"]


def test_a_person_gets_a_threshold(new_page: NewPage, service: RunningService) -> None:
    page = new_page(view="people")
    enrol(page, "Elin")
    row(page, "Elin").get_by_role("button", name="Elin 2 photos").click()
    threshold = row(page, "Elin").get_by_role("button", name="Threshold of Elin")
    expect(row(page, "Elin")).to_contain_text("from the same similarity on as everybody")
    dialog = page.get_by_role("dialog", name="Threshold of Elin")
    for wrong, told in (("high", "such as 0.93"), ("2", "within -1..1")):
        threshold.click()
        dialog.locator("#name-input").fill(wrong)
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_contain_text(told)
        page.keyboard.press("Escape")
    threshold.click()
    dialog.locator("#name-input").fill("0,999")
    page.keyboard.press("Enter")
    expect(row(page, "Elin")).to_contain_text("named from 0.999 on")
    expect(page.locator("#people-messages")).to_contain_text("from a similarity of 0.999 on")
    expect(threshold).to_be_focused()
    assert service.ask("GET", "v1/people/Elin")["threshold"] == 0.999
    page.get_by_role("link", name="Identify").click()
    page.locator("#identify-file").set_input_files(VERIFY_DATASET / "Elin_Sorrel" / "3.jpg")
    expect(page.locator("#faces .face-name")).to_have_text(["unknown"])
    expect(page.locator("#faces")).to_contain_text("of whom 0.999 is asked")
    page.get_by_role("link", name="People").click()
    threshold.click()
    expect(dialog.locator("#name-input")).to_have_value("0.999")
    dialog.locator("#name-input").fill("")
    page.keyboard.press("Enter")
    expect(page.locator("#people-messages")).to_contain_text("Elin is named as everybody.")
    expect(row(page, "Elin")).not_to_contain_text("named from")
    assert service.ask("GET", "v1/people/Elin")["threshold"] is None
    page.locator("#people-messages").get_by_role("button", name="Undo").click()
    expect(row(page, "Elin")).to_contain_text("named from 0.999 on")


def test_names_are_found(new_page: NewPage, service: RunningService) -> None:
    client = serving.Client(service.port, WRITE_TOKEN)
    for number in range(7):
        name = f"Elin {number}" if number < 5 else f"Jos\u00e9 {number}"
        photo = [("photos", ELIN[0].read_bytes())]
        assert client.post("/v1/people", photo, {"name": name}).status == 200
    client.close()
    page = new_page(view="people")
    names = page.locator("#people .person .name")
    expect(page.locator("#list-heading")).to_have_text("9 people enrolled")
    search = page.get_by_label("Find a name")
    search.fill("JOSE\u0301")
    expect(names).to_have_text(["Jos\u00e9 5", "Jos\u00e9 6"])
    search.fill("nobody")
    expect(page.locator("#people-state")).to_have_text("Nobody of that name.")
    # The rest of a long list comes when it is asked for.
    page.route(
        "**/v1/people",
        lambda route: route.continue_(url=f"{route.request.url}?count=4"),
        times=1,
    )
    search.fill("")
    expect(names).to_have_count(4)
    page.get_by_role("button", name="Show more").click()
    expect(names).to_have_count(9)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


_COLOURS = """async (image) => {
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [8, 8];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, 8, 8);
  return [...context.getImageData(0, 0, 8, 8).data].join();
}"""


def test_chosen_picture_is_shown(new_page: NewPage) -> None:
    page = new_page(view="people")
    enrol(page, "Elin")
    picture, message = row(page, "Elin").locator(".portrait img"), page.locator("#people-messages")
    page.get_by_role("button", name="Elin 2 photos").click()
    shown = set()
    for number in (1, 2):
        page.get_by_role("button", name=f"Show as the picture: {number}.jpg of Elin").click()
        expect(message).to_contain_text(f"{number}.jpg is the picture of Elin now.")
        expect(picture).to_be_visible()
        shown.add(picture.evaluate(_COLOURS))
    assert len(shown) == 2


def test_whoever_was_deleted_elsewhere_is_no_longer_listed(
    new_page: NewPage, service: RunningService
) -> None:
    page = new_page(view="people")
    names, message = page.locator("#people .person .name"), page.locator("#people-messages")
    buttons = ("Elin 2 photos", "Delete Elin", "Rename Elin", "Remove 1.jpg of Elin")
    for button in buttons:
        enrol(page, "Elin")
        expect(names).to_have_text([*ENROLLED, "Elin"])
        if button.startswith("Remove"):
            page.get_by_role("button", name="Elin 2 photos").click()
            expect(page.get_by_role("button", name=button)).to_be_visible()
        service.remove("Elin")
        page.get_by_role("button", name=button).click()
        if button.startswith("Delete"):
            page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        elif button.startswith("Rename"):
            page.get_by_label("New name").fill("Elin Sorrel")
            page.keyboard.press("Enter")
            expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
            page.keyboard.press("Escape")
        expect(names).to_have_text([*ENROLLED])
        if not button.startswith("Rename"):
            expect(message.get_by_role("alert")).to_be_visible()
