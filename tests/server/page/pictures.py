"""Takes the pictures of the page that the documentation shows, of invented people.

``python -m tests.server.page.pictures`` takes all of them, into ``docs``; with names behind it only
those. A further view is a function that brings it about, and a row in ``PICTURES``.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import EXAMPLES, REPOSITORY, VERIFY_DATASET
from tests.server.page.conftest import CHROMIUMS, FLAGS
from tests.server.page.running import WRITE_TOKEN, RunningService, film

DOCS = REPOSITORY / "docs"
GROUP = EXAMPLES / "group.jpg"
STRANGER = EXAMPLES / "stranger.jpg"
MAX_BYTES = 150_000

DESKTOP, PHONE = (1200, 780), (390, 780)


def identify(page: Page, service: RunningService) -> None:
    page.locator("#identify-file").set_input_files(GROUP)
    expect(page.locator("#faces .face")).to_have_count(5)
    if service.ask("GET", "v1/settings")["shows_attributes"]:
        expect(page.locator("#faces-caution")).to_be_visible()


def camera(page: Page, service: RunningService) -> None:
    page.get_by_role("button", name="Use the camera").click()
    expect(page.locator("#faces .face-name")).to_have_text(["Elin_Sorrel", "unknown"])


def people(page: Page, service: RunningService) -> None:
    page.get_by_role("button", name="Ada_Mirova 4 photos").click()
    expect(page.locator("#people .photo-face img")).to_have_count(4)
    expect(page.locator("#people .portrait img").first).to_be_visible()


def people_list(page: Page, service: RunningService) -> None:
    expect(page.locator("#people .portrait img").first).to_be_visible()


def asking(page: Page, service: RunningService) -> None:
    page.get_by_label("Name", exact=True).fill("Noor Halim")
    wrong = VERIFY_DATASET / "Teo_Varga" / "2.jpg"
    page.locator("#enrol-files").set_input_files([GROUP, STRANGER, wrong])
    page.locator("#enrol-submit").click()
    expect(page.locator("#doubts canvas")).to_have_count(6)
    # The pictures are drawn with the next frames.
    page.wait_for_function(
        """() => [...document.querySelectorAll("#doubts canvas")].every((canvas) => canvas
          .getContext("2d").getImageData(0, 0, 112, 112).data.some((value) => value > 0))"""
    )


def unknown(page: Page, service: RunningService) -> None:
    elin, mei, teo = (VERIFY_DATASET / name for name in ("Elin_Sorrel", "Mei_Oshara", "Teo_Varga"))
    service.see(elin / "1.jpg", elin / "2.jpg", mei / "1.jpg", mei / "2.jpg", mei / "3.jpg")
    service.see(teo / "1.jpg", STRANGER, camera="yard")
    page.reload()
    expect(page.locator("#unknown .stranger")).to_have_count(4)
    expect(page.locator("#unknown img").first).to_be_visible()


def verify(page: Page, service: RunningService) -> None:
    for slot, photo in (("a", 1), ("b", 3)):
        file = VERIFY_DATASET / "Mei_Oshara" / f"{photo}.jpg"
        page.locator(f"#verify-file-{slot}").set_input_files(file)
    expect(page.locator("#verdict")).to_contain_text("The same person")


def quality(page: Page, service: RunningService) -> None:
    expect(page.locator(".tile")).to_have_count(7)


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        name: That of its file, ``docs/page_NAME.png``.
        view: The view that is opened.
        prepare: Brings about what is shown.
        scheme: Light or dark.
        size: Width and height of the window.
        options: Of the service.
        enrolled: Whom it knows.
    """

    name: str
    view: str
    prepare: Callable[[Page, RunningService], None]
    scheme: Literal["light", "dark"] = "light"
    size: tuple[int, int] = DESKTOP
    options: tuple[str, ...] = ()
    enrolled: tuple[str, ...] = tuple(sorted(path.name for path in VERIFY_DATASET.iterdir()))


PICTURES = (
    Picture("identify", "identify", identify),
    Picture("identify_dark", "identify", identify, "dark"),
    Picture("camera", "identify", camera, size=(1200, 840)),
    Picture("people", "people", people),
    Picture("people_dark_phone", "people", people_list, "dark", PHONE),
    Picture("asking", "people", asking, size=(1200, 900)),
    Picture("asking_phone", "people", asking, size=PHONE),
    Picture("unknown", "unknown", unknown, enrolled=("Ada_Mirova", "Bruno_Castell")),
    Picture("verify", "verify", verify, size=(1200, 1010)),
    Picture("verify_dark_phone", "verify", verify, "dark", PHONE),
    Picture("quality", "quality", quality),
    Picture("looks", "identify", identify, size=(1200, 1240), options=("--attributes",)),
)


def take(picture: Picture, browser: Browser, service: RunningService) -> None:
    """Take a picture, of at most ``MAX_BYTES``."""
    width, height = picture.size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=picture.scheme,
        permissions=["camera"],
        reduced_motion="reduce",
    )
    context.set_default_timeout(120_000)
    context.add_init_script(
        f"if (location.protocol === 'http:') sessionStorage['face_encode.token'] = '{WRITE_TOKEN}'"
    )
    page = context.new_page()
    page.goto(f"{service.address}#{picture.view}")
    picture.prepare(page, service)
    # The address names an element, to which the browser may have scrolled.
    page.evaluate("scrollTo(0, 0)")
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    path = DOCS / f"page_{picture.name}.png"
    # As many colours as the size allows.
    for colours in (256, 128, 64, 32):
        shown.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= MAX_BYTES:
            break
    print(f"{path}: {path.stat().st_size:,} bytes")


def main(names: Sequence[str]) -> None:
    """Take the pictures of these names, or all."""
    wanted = [picture for picture in PICTURES if not names or picture.name in names]
    executable = next(filter(None, map(shutil.which, CHROMIUMS)))
    expect.set_options(timeout=120_000)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        before_it = [VERIFY_DATASET / "Elin_Sorrel" / "4.jpg", STRANGER]
        shown = film(folder / "film.mjpeg", before_it)
        browser = playwright.chromium.launch(
            executable_path=executable, args=[*FLAGS, f"--use-file-for-fake-video-capture={shown}"]
        )
        services = sorted({(picture.options, picture.enrolled) for picture in wanted})
        for number, (options, enrolled) in enumerate(services):
            for name in enrolled:
                place = folder / str(number) / "people" / name
                shutil.copytree(VERIFY_DATASET / name, place)
            with RunningService(folder / str(number) / "people", *options) as service:
                for picture in wanted:
                    if (picture.options, picture.enrolled) == (options, enrolled):
                        take(picture, browser, service)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
