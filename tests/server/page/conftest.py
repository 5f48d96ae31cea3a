"""Fixtures of the page's tests: a real service, a real browser, and a camera with a film."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sized
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.server.page.running import WRITE_TOKEN, RunningService, film

ENROLLED = ("Ada_Mirova", "Bruno_Castell")

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    # Every request to another host fails.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
# On a busy machine a browser, a service and its processes share few cores.
_PATIENCE_MILLISECONDS = 60_000
_START_MILLISECONDS = 180_000
expect.set_options(timeout=_PATIENCE_MILLISECONDS)

NewPage = Callable[..., Page]
NewBrowser = Callable[..., Browser]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that knows two of the invented people; a test leaves it as it was."""
    folder = tmp_path_factory.mktemp("service") / "people"
    for name in ENROLLED:
        shutil.copytree(VERIFY_DATASET / name, folder / name)
    running = RunningService(folder)
    with running:
        yield running


@pytest.fixture
def leave_it_as_it_was(service: RunningService) -> Iterator[None]:
    """Delete the people that a test has enrolled."""
    yield
    for name in service.names():
        if name not in ENROLLED:
            service.remove(name)


@pytest.fixture(scope="session")
def two_people_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Elin on the left, a stranger on the right."""
    photos = [VERIFY_DATASET / "Elin_Sorrel" / "4.jpg", EXAMPLES / "stranger.jpg"]
    return film(tmp_path_factory.mktemp("film") / "two_people.mjpeg", photos)


# A module at a time: Playwright keeps an event loop, which would be in the way of other tests.
@pytest.fixture(scope="module")
def new_browser() -> Iterator[NewBrowser]:
    """Starts a browser with further flags and options."""
    executable = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if executable is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with sync_playwright() as playwright:
        yield lambda *flags, **options: playwright.chromium.launch(
            executable_path=executable,
            args=[*FLAGS, *flags],
            timeout=_START_MILLISECONDS,
            **options,
        )


@pytest.fixture(scope="module")
def browser(new_browser: NewBrowser, two_people_film: Path) -> Browser:
    """A browser whose camera shows the film."""
    return new_browser(f"--use-file-for-fake-video-capture={two_people_film}")


@pytest.fixture
def new_page(service: RunningService, browser: Browser) -> Iterator[NewPage]:
    """Opens the page; in the end nothing was asked of another host, and no script failed."""
    contexts: list[BrowserContext] = []
    addresses: set[str] = set()
    asked: list[str] = []
    faults: list[str] = []

    def opened(
        *,
        token: str | None = WRITE_TOKEN,
        view: str = "identify",
        by: Browser = browser,
        at: RunningService = service,
        **options: object,
    ) -> Page:
        context = by.new_context(**{"permissions": ["camera"], **options})  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(_PATIENCE_MILLISECONDS)
        context.on("request", lambda request: asked.append(request.url))
        context.on("weberror", lambda error: faults.append(str(error.error)))
        context.on(
            "console",
            lambda message: faults.append(message.text) if _is_fault(message) else None,
        )
        if token is not None:
            context.add_init_script(
                # The empty page that a tab begins with has no storage.
                "if (location.protocol === 'http:' && !sessionStorage.getItem('face_encode.token'))"
                f" sessionStorage.setItem('face_encode.token', '{token}');"
            )
        page = context.new_page()
        # Playwright catches the choice of files only where somebody listens. It tells the browser
        # so without waiting: asked for together with a key press, the key may come first, and the
        # choice then opens unseen.
        page.on("filechooser", lambda chooser: None)
        addresses.add(at.address)
        page.goto(f"{at.address}#{view}")
        return page

    yield opened
    for context in contexts:
        context.close()
    own = (*addresses, "blob:", "data:")
    assert asked
    assert [url for url in asked if not url.startswith(own)] == []
    assert faults == []


def wait_for(page: Page, caught: Sized) -> None:
    """Wait until something was caught."""
    for _ in range(3_000):
        if len(caught) > 0:
            break
        page.wait_for_timeout(20)
    assert len(caught) > 0


def _is_fault(message: ConsoleMessage) -> bool:
    # The browser reports every answer that is an error; the tests look at those themselves.
    return message.type == "error" and not message.text.startswith("Failed to load resource")
