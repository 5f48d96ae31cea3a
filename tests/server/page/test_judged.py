"""What else the page tells of a face where the service has it switched on: looks, and life."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.conftest import EXAMPLES, VERIFY_DATASET, place_weights
from tests.server.page.conftest import NewPage, wait_for
from tests.server.page.running import RunningService

pytestmark = pytest.mark.browser

GROUP = EXAMPLES / "group.jpg"
TOLD = re.compile(
    r"about \d+ \(\d+ to \d+\) · (woman|man|gender uncertain)(, [\w ]+\s%)?"
    r" · (\w+, [\w ]+\s%|expression uncertain)"
)


def people(folder: Path) -> Path:
    shutil.copytree(VERIFY_DATASET / "Ada_Mirova", folder / "people" / "Ada_Mirova")
    return folder / "people"


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that shows attributes."""
    with RunningService(people(tmp_path_factory.mktemp("telling")), "--attributes") as running:
        yield running


def test_looks_are_told_in_honest_words(new_page: NewPage, telling: RunningService) -> None:
    page = new_page(at=telling)
    page.locator("#identify-file").set_input_files(GROUP)
    faces = page.locator("#faces .face")
    expect(faces).to_have_count(5)
    expect(faces.filter(has_text=TOLD)).to_have_count(5)
    expect(page.locator("#faces-caution")).to_contain_text("Nothing about a person may be decided")
    expect(page.locator("#faces-caution")).not_to_contain_text("live")
    # As the service answers.
    reply = telling.send_photo("v1/analyze?max_faces=1", GROUP)
    (largest,) = reply["faces"]
    low, high = largest["age_interval"]
    about = f"about {largest['age']:.0f} ({int(low)} to "
    assert int(high) <= 101
    expect(faces.filter(has_text=about)).not_to_have_count(0)
    # They go with the photo.
    page.locator("#identify-file").set_input_files(
        {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no photo"}
    )
    expect(page.locator("#identify-messages").get_by_role("alert")).to_be_visible()
    expect(page.locator("#faces-caution")).to_be_hidden()


def test_looks_that_come_later_leave_the_focus(new_page: NewPage, telling: RunningService) -> None:
    page = new_page(at=telling)
    held: list[Route] = []
    page.route("**/v1/analyze*", lambda route: held.append(route))
    page.locator("#identify-file").set_input_files(EXAMPLES / "stranger.jpg")
    wait_for(page, held)
    offer = page.get_by_role("button", name="Enrol this face")
    offer.focus()
    held[0].continue_()
    expect(page.locator("#faces .face").filter(has_text=TOLD)).to_have_count(1)
    expect(offer).to_be_focused()


def test_looks_are_not_told_unasked(new_page: NewPage) -> None:
    page = new_page()
    with page.expect_response("**/v1/settings"):
        page.locator("#identify-file").set_input_files(GROUP)
    expect(page.locator("#faces .face")).to_have_count(5)
    expect(page.locator("#faces-caution")).to_be_hidden()
    expect(page.locator("#faces")).not_to_contain_text("about")


@pytest.mark.data
def test_life_is_told(new_page: NewPage, public_weights: Path, tmp_path: Path) -> None:
    for name in ("minifasnet_v2", "minifasnet_v1se"):
        place_weights(name, public_weights)
    with RunningService(people(tmp_path), "--require-live") as service:
        page = new_page(at=service)
        # The samples of the network's authors: a live face, and a photo of one held up.
        for photo, told in (
            ("image_T1.jpg", "looks live (liveness 0.9"),
            ("image_F1.jpg", "not live: a photo or a screen held up? (liveness 0."),
        ):
            page.locator("#identify-file").set_input_files(public_weights / photo)
            expect(page.locator("#faces .face").first).to_contain_text(told)
            expect(page.locator("#faces-caution")).to_contain_text("by one look at one picture")


@pytest.mark.data
def test_photos_before_the_camera_do_not_turn(
    new_page: NewPage, public_weights: Path, tmp_path: Path
) -> None:
    place_weights("retinaface", public_weights)
    folder = people(tmp_path)
    shutil.copytree(VERIFY_DATASET / "Elin_Sorrel", folder / "Elin_Sorrel")
    with RunningService(folder, "--detector", "retinaface") as service:
        page = new_page(at=service)
        ask = page.get_by_label("Ask heads before the camera to turn")
        ask.check()
        page.get_by_role("button", name="Use the camera").click()
        asked = re.compile("^turn your head (left|right)$")
        names = page.locator("#faces .face-name")
        expect(names).to_have_text([asked, asked])
        expect(page.locator("#announcer")).to_have_text(
            re.compile(r"Turn your head (left|right)\.")
        )
        # It is the same side picture after picture, until ten seconds are over.
        with page.expect_response("**/v1/match?*challenge=*"), page.expect_response("**/v1/match*"):
            expect(names).to_have_text([asked, asked])
        # Unasked, the photo before the camera has its name.
        ask.uncheck()
        expect(names).to_have_text(["Elin_Sorrel", "unknown"])


def test_no_turn_is_asked_for_that_cannot_be_seen(new_page: NewPage) -> None:
    page = new_page()
    page.locator("#identify-file").set_input_files(GROUP)
    expect(page.locator("#faces .face")).to_have_count(5)
    expect(page.locator("#ask-turn-choice")).to_be_hidden()
