"""The page of a service that knows more people than it lists at once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from playwright.sync_api import Route, expect

from benchmarks import serving
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.unknown import Sight
from tests.conftest import VERIFY_DATASET
from tests.server.page.conftest import NewPage, wait_for
from tests.server.page.running import WRITE_TOKEN, RunningService

pytestmark = pytest.mark.browser

PEOPLE, STRANGERS = 1_200, 103
PHOTO = VERIFY_DATASET / "Elin_Sorrel" / "1.jpg"


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with many people, and many without a name."""
    folder = tmp_path_factory.mktemp("crowd") / "people"
    shutil.copytree(VERIFY_DATASET / "Ada_Mirova", folder / "Zoe")
    with RunningService(folder) as running:
        with closing(DatabaseGallery(running.database, create=False, metric=None)) as gallery:
            size = gallery.snapshot().enrolled.embeddings_of(np.array([0])).shape[1]
            draw = np.random.default_rng(0)
            all_of_them = draw.normal(size=(PEOPLE + STRANGERS, size)).astype(np.float32)
            all_of_them /= np.linalg.norm(all_of_them, axis=1, keepdims=True)
            gallery.add([f"Person {number:04d}" for number in range(PEOPLE)], all_of_them[:PEOPLE])
            details = PhotoDetails("door", quality=0.9, crop=PHOTO.read_bytes())
            for each in all_of_them[PEOPLE:]:
                gallery.unknown.see(Sight(each, details), 0.9)
        yield running


def test_long_list_stays_as_long_as_it_is(new_page: NewPage, crowd: RunningService) -> None:
    page = new_page(view="people", at=crowd)
    rows = page.locator("#people .person")
    expect(rows).to_have_count(1_000)
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(PEOPLE + 1)
    page.get_by_role("button", name="Person 1150 1 photo").click()
    row = page.locator('[data-name="Person 1150"]')
    expect(row.locator(".photo")).to_have_count(1)
    row.get_by_role("button", name="Threshold of Person 1150").click()
    page.locator("#name-input").fill("0.9")
    page.keyboard.press("Enter")
    expect(page.locator("#people-messages")).to_contain_text("from a similarity of 0.9 on")
    expect(row).to_contain_text("named from 0.9 on")
    expect(row.locator(".photo")).to_have_count(1)
    expect(rows).to_have_count(PEOPLE + 1)
    expect(row.get_by_role("button", name="Threshold of Person 1150")).to_be_focused()


def test_nobody_is_listed_twice(new_page: NewPage, crowd: RunningService) -> None:
    page = new_page(view="people", at=crowd)
    expect(page.locator("#people .person")).to_have_count(1_000)
    client = serving.Client(crowd.port, WRITE_TOKEN)
    assert (
        client.post("/v1/people", [("photos", PHOTO.read_bytes())], {"name": "Aaron"}).status == 200
    )
    client.close()
    page.get_by_role("button", name="Show more").click()
    # Listed anew: she is the first.
    expect(page.locator("#people .person")).to_have_count(PEOPLE + 2)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()
    names = page.locator("#people .person").evaluate_all(
        "(all) => all.map((row) => row.dataset.name)"
    )
    assert len(set(names)) == PEOPLE + 2 and names[0] == "Aaron"
    crowd.remove("Aaron")


def test_more_of_a_search_holds_no_rows_of_before(new_page: NewPage, crowd: RunningService) -> None:
    page = new_page(view="people", at=crowd)
    rows = page.locator("#people .person")
    expect(rows).to_have_count(1_000)
    held: list[Route] = []
    page.route("**/v1/people?search=*", lambda route: held.append(route), times=1)
    page.get_by_label("Find a name").fill("Person 11")
    wait_for(page, held)
    with page.expect_response("**/v1/people?search=*"):
        page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(100)
    expect(rows.first).to_contain_text("Person 1100")


def test_strangers_stay_as_many_as_they_are(new_page: NewPage, crowd: RunningService) -> None:
    page = new_page(view="unknown", at=crowd)
    cards = page.locator("#unknown .stranger")
    expect(cards).to_have_count(100)
    page.get_by_role("button", name="Show more").click()
    expect(cards).to_have_count(STRANGERS)
    cards.last.get_by_role("button", name="Dismiss").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#unknown-messages")).to_contain_text("is dismissed.")
    expect(cards).to_have_count(STRANGERS - 1)
