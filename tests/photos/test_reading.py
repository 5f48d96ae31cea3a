"""Reading photos; what is broken or odd is in ``tests/broken_inputs``."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from face_encode import downloads
from face_encode.downloads import DownloadError
from face_encode.errors import ImageError, InputError
from face_encode.photos import reading
from face_encode.photos.folders import is_photo
from face_encode.photos.reading import (
    as_rgb,
    content_digest,
    decode_base64,
    decode_image,
    local_photo,
    read_image,
    read_photo,
)
from tests.conftest import EXAMPLES

PHOTO = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def test_rgb_stays_as_it_is_without_a_copy() -> None:
    np.testing.assert_array_equal(as_rgb(PHOTO), PHOTO)
    assert np.shares_memory(as_rgb(PHOTO), PHOTO)


def test_grey_becomes_rgb() -> None:
    grey = PHOTO[:, :, 0]
    for image in (grey, grey[:, :, np.newaxis]):
        rgb = as_rgb(image)
        assert rgb.shape == PHOTO.shape
        for channel in range(3):
            np.testing.assert_array_equal(rgb[:, :, channel], grey)


def test_of_rgba_the_alpha_is_dropped() -> None:
    rgba = np.dstack([PHOTO, np.full((6, 8), 9, np.uint8)])
    np.testing.assert_array_equal(as_rgb(rgba), PHOTO)


def test_the_result_is_contiguous_and_the_photo_unchanged() -> None:
    before = PHOTO.copy()
    flipped = as_rgb(PHOTO[:, ::-1])
    assert flipped.flags.c_contiguous
    np.testing.assert_array_equal(flipped, before[:, ::-1])
    np.testing.assert_array_equal(PHOTO, before)


def test_a_photo_is_read_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        image = read_image(path)
        np.testing.assert_array_equal(image, PHOTO)
        assert image.flags.writeable


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files cannot be counted")
def test_the_file_is_closed_again(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))
    errors = []
    read_image(tmp_path / "a.png")
    # An error that is kept keeps whatever its frames hold.
    for name in ("b.png", "none.png"):
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        errors.append(caught.value)
    content_digest(tmp_path / "a.png")
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_limits_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PHOTO).save(path)
    size = path.stat().st_size
    monkeypatch.setattr(reading, "MAX_PIXELS", 48)
    monkeypatch.setattr(reading, "MAX_BYTES", size)
    assert read_image(path).shape == (6, 8, 3)
    monkeypatch.setattr(reading, "MAX_PIXELS", 47)
    with pytest.raises(ImageError, match=r"at most 47 pixels are allowed \(8x6 pixels\)"):
        read_image(path)
    monkeypatch.setattr(reading, "MAX_BYTES", size - 1)
    with pytest.raises(ImageError, match=r"at most [0-9]+ bytes"):
        read_image(path)


def test_a_large_photo_below_the_limit_gives_no_warning(tmp_path: Path) -> None:
    # Pillow warns from half the limit on; 90 megapixels of one bit are a small file.
    Image.new("1", (10_000, 9_000)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.png").shape == (9_000, 10_000, 3)


class _Meeting(Image.Image):
    """A photo whose decoding begins, tells that, and waits for something."""

    begun: threading.Event
    awaited: threading.Event
    met = False

    def load(self) -> Any:
        self.begun.set()
        self.met = self.awaited.wait(60)
        return super().load()


def test_photos_decoded_at_once_leave_a_programs_warnings_as_they_are() -> None:
    before = list(warnings.filters)
    photos = [_Meeting(), _Meeting()]
    for photo in photos:
        photo.__dict__.update(Image.fromarray(PHOTO).__dict__)
        photo.begun, photo.awaited = threading.Event(), threading.Event()
    first, second = (threading.Thread(target=decode_image, args=(photo,)) for photo in photos)
    # The second begins within the first and ends after it.
    photos[0].awaited = photos[1].begun
    first.start()
    photos[0].begun.wait()
    second.start()
    first.join()
    photos[1].awaited.set()
    second.join()
    assert warnings.filters == before
    assert photos[0].met, "a photo waits for another's decoding"


def test_a_transparent_colour_of_16_bits_is_not_taken_for_one_of_8() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (16, 16, 16)).save(stream, "PNG", transparency=(0x8010,) * 3)
    assert (decode_image(stream.getvalue()) == 16).all()


FORKING = """
import os, sys, threading, warnings
from PIL import Image
from face_encode.photos.reading import decode_image
before, begun = list(warnings.filters), threading.Event()
class Slow(Image.Image):
    def load(self):
        begun.set()
        threading.Event().wait(0.5)
        return super().load()
slow = Slow()
slow.__dict__.update(Image.new("RGB", (4, 4)).__dict__)
thread = threading.Thread(target=decode_image, args=(slow,))
thread.start()
begun.wait()
child = os.fork()
if not child:
    decode_image(Image.new("RGB", (4, 4)))
    os._exit(7 if warnings.filters == before else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process")
def test_a_process_forked_while_a_photo_is_decoded_decodes() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr.decode()


def test_a_digest_goes_by_content_alone(tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(3_000_000)
    (tmp_path / "a.jpg").write_bytes(content)
    (tmp_path / "b.png").write_bytes(content)
    assert content_digest(tmp_path / "a.jpg") == hashlib.sha256(content).hexdigest()
    assert content_digest(tmp_path / "a.jpg") == content_digest(str(tmp_path / "b.png"))


def test_a_digest_of_an_array_goes_by_shape_and_type_too() -> None:
    assert content_digest(PHOTO) == content_digest(np.asfortranarray(PHOTO.copy()))
    digests = {
        content_digest(PHOTO),
        content_digest(PHOTO.reshape(8, 6, 3)),
        content_digest(PHOTO.view(np.int8)),
        content_digest(255 - PHOTO),
    }
    assert len(digests) == 4


def test_bytes_are_decoded_like_files(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(decode_image(content), PHOTO)
    with pytest.raises(ImageError, match=r"hers: too large .* at most 47 pixels"):
        decode_image(content, "hers", max_pixels=47)
    with pytest.raises(ImageError, match="the photo: an empty file"):
        decode_image(b"")


def a_photo() -> Image.Image:
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    return Image.fromarray(np.stack(np.broadcast_arrays(ramp, ramp[:48, np.newaxis], ramp[:1]), -1))


def heic_of(photo: Image.Image, **settings: Any) -> bytes:
    import pillow_heif

    stream = io.BytesIO()
    pillow_heif.from_pillow(photo).save(stream, **settings)
    return stream.getvalue()


def test_photos_of_telephones_are_read(tmp_path: Path) -> None:
    photo = a_photo()
    expected = np.asarray(photo).astype(int)
    stream = io.BytesIO()
    photo.save(stream, "AVIF", quality=90)
    for name, content in (
        ("phone.heic", heic_of(photo, quality=90)),
        ("phone.jpg", heic_of(photo, quality=90)),
        ("phone.avif", stream.getvalue()),
    ):
        (tmp_path / name).write_bytes(content)
        for read in (read_image(tmp_path / name), decode_image(content)):
            assert read.shape == (48, 64, 3)
            assert np.abs(read - expected).mean() < 4


@pytest.mark.parametrize("brand", ["heim", "heis", "hevc", "hevx", "hevm", "hevs"])
def test_heic_is_read_by_each_of_its_names(brand: str, tmp_path: Path) -> None:
    content = heic_of(a_photo(), quality=90)
    (tmp_path / "phone").write_bytes(content[:8] + brand.encode() + content[12:])
    assert is_photo(tmp_path / "phone")
    np.testing.assert_array_equal(read_image(tmp_path / "phone"), decode_image(content))


def test_a_heic_photo_taken_sideways_is_turned_upright(tmp_path: Path) -> None:
    photo = a_photo()
    exif = Image.Exif()
    exif[0x0112] = 6  # The telephone was turned; the picture is to be turned clockwise by 90.
    (tmp_path / "phone.heic").write_bytes(heic_of(photo, quality=90, exif=exif.tobytes()))
    read = read_image(tmp_path / "phone.heic")
    expected = np.rot90(np.asarray(photo), -1).astype(int)
    assert read.shape == (64, 48, 3)
    assert np.abs(read - expected).mean() < 4


@pytest.mark.parametrize("any_format", [False, True])
def test_avif_under_the_name_that_heic_has_too_is_read(any_format: bool) -> None:
    file = io.BytesIO()
    a_photo().save(file, "AVIF")
    content = file.getvalue()
    renamed = content.replace(b"ftypavif", b"ftypmif1", 1)
    assert renamed != content
    expected = decode_image(content, any_format=any_format)
    assert np.array_equal(decode_image(renamed, any_format=any_format), expected)


def test_a_heic_photo_that_is_cut_off_or_too_large_is_refused() -> None:
    content = heic_of(a_photo(), quality=90)
    for length in (20, 200, len(content) - 20):
        with pytest.raises(ImageError, match=r"damaged|known format"):
            decode_image(content[:length])
    with pytest.raises(ImageError, match="too large"):
        decode_image(content, max_pixels=48 * 64 - 1)


def test_bytes_from_outside_reach_few_decoders(tmp_path: Path) -> None:
    # Read from a file of one's own, refused from a stranger.
    Image.fromarray(PHOTO).save(tmp_path / "a.pcx")
    np.testing.assert_array_equal(read_image(tmp_path / "a.pcx"), PHOTO)
    with pytest.raises(ImageError, match="not a photo in a known format"):
        decode_image((tmp_path / "a.pcx").read_bytes())


def test_pillows_images_become_rgb() -> None:
    np.testing.assert_array_equal(decode_image(Image.fromarray(PHOTO)), PHOTO)
    grey = decode_image(Image.fromarray(PHOTO).convert("L"))
    assert grey.shape == PHOTO.shape
    assert grey.dtype == np.uint8


def encoded(array: Any = PHOTO, form: str = "PNG") -> bytes:
    written = io.BytesIO()
    Image.fromarray(array).save(written, form)
    return written.getvalue()


PNG = encoded()
BASE64 = base64.b64encode(PNG).decode()

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by the path."""

    answers: ClassVar[dict[str, Answer]] = {
        "/photo.png": lambda it: it.send(PNG),
        "/redirected": lambda it: it.redirect("/photo.png"),
        "/redirected1": lambda it: it.redirect("/photo.png"),
        "/redirected2": lambda it: it.redirect("/redirected1"),
        "/loop": lambda it: it.redirect("/loop"),
        "/to-a-file": lambda it: it.redirect("file:///etc/hostname"),
        "/missing": lambda it: it.send(b"nothing", 404),
        "/text": lambda it: it.send(b"<html>a page</html>"),
        "/cut-off": lambda it: it.send(PNG[:-40], length=len(PNG)),
        "/empty": lambda it: it.send(b""),
        "/part": lambda it: it.send(PNG, code=206),
        "/drip": lambda it: it.drip(),
        "/flood": lambda it: it.flood(),
    }
    stop: ClassVar[threading.Event]

    def do_GET(self) -> None:
        try:
            self.answers[self.path.partition("?")[0]](self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep the tests' output clean."""

    def send(self, content: bytes, code: int = 200, length: int | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def redirect(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def drip(self) -> None:
        """A byte now and then, within every time limit on a single read."""
        self.send_response(200)
        self.end_headers()
        while not self.stop.wait(0.05):
            self.wfile.write(b"x")
            self.wfile.flush()

    def flood(self) -> None:
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(bytes(1 << 16))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    Handler.stop = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        Handler.stop.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost,::1,0.0.0.0,2130706433")
    monkeypatch.setenv(downloads.PRIVATE_VARIABLE, "1")


@pytest.mark.parametrize(
    "form",
    [
        PHOTO,
        PNG,
        bytearray(PNG),
        memoryview(PNG),
        BASE64,
        "\n".join(BASE64[start : start + 76] for start in range(0, len(BASE64), 76)),
        f"data:image/png;base64,{BASE64}",
        f"DATA:image/png;charset=x;BASE64,{BASE64}",
        Image.fromarray(PHOTO),
        Image.fromarray(PHOTO).convert("RGBA"),
    ],
    ids=lambda form: type(form).__name__,
)
def test_every_form_gives_the_same_pixels(form: Any) -> None:
    image = read_photo(form)
    np.testing.assert_array_equal(image, PHOTO)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(local_photo(form), PHOTO)


def test_files_are_read_by_path_and_when_open(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    for form in (path, str(path)):
        np.testing.assert_array_equal(read_photo(form), PHOTO)
        # A folder of a million photos is not read just to be passed on.
        assert local_photo(form) == (path if form is path else Path(path))
    with open(path, "rb") as file:
        np.testing.assert_array_equal(read_photo(file), PHOTO)
    np.testing.assert_array_equal(read_photo(io.BytesIO(PNG)), PHOTO)


def test_the_base64_of_a_jpeg_is_no_path() -> None:
    # It begins with a slash: "/9j/4AAQ".
    text = base64.b64encode(encoded(form="JPEG")).decode()
    assert text.startswith("/9j/")
    assert read_photo(text).shape == PHOTO.shape


def test_a_file_named_like_base64_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "a" * 64
    (tmp_path / name).write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_photo(name), PHOTO)


def test_pillows_images_are_turned_upright_and_not_changed(tmp_path: Path) -> None:
    turned = Image.fromarray(PHOTO)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as photo:
        np.testing.assert_array_equal(read_photo(photo), np.rot90(PHOTO, -1))
        assert photo.size == (8, 6)


@pytest.mark.parametrize(
    ("form", "error", "message"),
    [
        (None, InputError, "Received: NoneType"),
        (7, InputError, "Received: int"),
        ([PHOTO], InputError, "Received: list"),
        ("", InputError, "not empty"),
        (b"", ImageError, "an empty file"),
        (b"no photo at all", ImageError, "the bytes received: not a photo"),
        (PNG[:-40], ImageError, "the bytes received: damaged or cut off"),
        (base64.b64encode(b"no photo" * 20).decode(), ImageError, "the base64 received: not a ph"),
        ("no-such-file.jpg", ImageError, "no-such-file.jpg: no such file"),
        ("x" * 5_000_000 + "!", InputError, "not base64"),
        ("data:image/png,abc", InputError, "in base64"),
        ("data:image/png;base64,a!", InputError, "not base64"),
        ("file:///etc/hostname", InputError, "http and https alone"),
        ("ftp://127.0.0.1/a.png", InputError, "http and https alone"),
        (io.StringIO("text"), InputError, "mode 'rb'"),
        (PHOTO.astype(float), InputError, "uint8"),
        (PHOTO[0, 0], InputError, "shape"),
        (Image.new("F", (2, 2)), ImageError, "floating-point"),
    ],
)
def test_what_is_none_is_told(form: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        read_photo(form)
    # A megabyte of base64 in an error helps nobody.
    assert len(str(caught.value)) < 300


def test_a_closed_file_is_told() -> None:
    file = io.BytesIO(PNG)
    file.close()
    with pytest.raises(ImageError, match="cannot be read"):
        read_photo(file)


def test_a_bomb_is_refused_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("face_encode.photos.reading.MAX_PIXELS", 47)
    for form in (PNG, BASE64, Image.fromarray(PHOTO)):
        with pytest.raises(ImageError, match="at most 47 pixels"):
            read_photo(form)
    monkeypatch.setattr("face_encode.photos.reading.MAX_BYTES", len(PNG) - 1)
    files: list[Any] = [PNG, io.BytesIO(PNG)]
    for form in files:
        with pytest.raises(ImageError, match="too large to be a photo"):
            read_photo(form)


def test_addresses_are_fetched(server: str) -> None:
    for address in ("/photo.png", "/photo.png?size=large", "/redirected"):
        np.testing.assert_array_equal(read_photo(server + address), PHOTO)
    np.testing.assert_array_equal(read_photo(server.upper() + "/photo.png"), PHOTO)


def test_addresses_can_be_turned_off(server: str) -> None:
    with pytest.raises(InputError, match="not fetched here"):
        read_photo(f"{server}/photo.png", urls=False)
    np.testing.assert_array_equal(read_photo(BASE64, urls=False), PHOTO)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "2130706433", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"],
)
def test_addresses_of_this_machine_are_refused_unless_allowed(
    host: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"http://{host}:{server.rpartition(':')[2]}/photo.png"
    np.testing.assert_array_equal(read_photo(address), PHOTO)
    monkeypatch.delenv(downloads.PRIVATE_VARIABLE)
    with pytest.raises(ImageError, match=r"private network; to allow these, set .*=1"):
        read_photo(address)


def test_a_refused_name_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(downloads.PRIVATE_VARIABLE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        with pytest.raises(ImageError, match="private network"):
            read_photo(f"http://localhost:{listener.getsockname()[1]}/photo.png")
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize(
    "number",
    [
        *("10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "::1", "fe80::1%eth0", "fd00::1", "ff02::1"),
        *("::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::1"),
    ],
)
def test_numbers_that_are_none_of_the_internet(number: str) -> None:
    with pytest.raises(DownloadError, match="of this machine or of a private network"):
        downloads._check_public(number)
    for public in ("9.9.9.9", "2620:fe::fe", "64:ff9b::9.9.9.9"):
        downloads._check_public(public)


@pytest.mark.parametrize("hops", [1, 2])
def test_each_address_of_a_redirection_is_checked(
    hops: int, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(downloads.PRIVATE_VARIABLE)
    checked, check = [], downloads._check_public

    def as_if_elsewhere(number: str) -> None:
        """The first hops lead to this machine as if it were on the internet."""
        checked.append(number)
        if len(checked) > 3 * hops:
            check(number)

    monkeypatch.setattr(downloads, "_check_public", as_if_elsewhere)
    with pytest.raises(ImageError, match=r"127\.0\.0\.1 is an address of this machine"):
        read_photo(f"{server}/redirected{hops}")
    assert len(checked) == 3 * hops + 1


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/missing", "the server answers 404"),
        ("/text", "/text: not a photo in a known format"),
        ("/cut-off", "/cut-off: "),
        ("/empty", "an empty file"),
        ("/part", "a part that nobody asked for"),
        ("/loop", "more than 3 redirections"),
        ("/to-a-file", "cannot be fetched (InvalidSchema)"),
    ],
)
def test_what_comes_instead_of_a_photo_is_told(server: str, address: str, message: str) -> None:
    with pytest.raises(ImageError, match=re.escape(message)):
        read_photo(server + address)


@pytest.mark.parametrize(
    "address", ["http://", "http://127.0.0.1:1/a.png", "http://a b/", "http://[/", "http://x:y/"]
)
def test_addresses_that_lead_nowhere_are_told(address: str) -> None:
    with pytest.raises(ImageError, match="cannot be fetched"):
        read_photo(address)


def test_passwords_and_queries_are_not_shown(server: str) -> None:
    host = server.removeprefix("http://")
    with pytest.raises(ImageError) as caught:
        read_photo(f"http://user:secret@{host}/missing?token=secret")
    assert f"{host}/missing" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_drips_is_left(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "DOWNLOAD_SECONDS", 0.4)
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"not there within 0\.4 seconds"):
        read_photo(f"{server}/drip")
    assert time.monotonic() - start < 20


def test_a_flood_is_stopped(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_DOWNLOAD_BYTES", 1_000_000)
    with pytest.raises(ImageError, match="larger than 1,000,000 bytes"):
        read_photo(f"{server}/flood")


def test_base64_is_decoded_alone() -> None:
    assert decode_base64(BASE64) == PNG
    assert decode_base64(f"data:;base64,{BASE64}") == PNG


def jpeg(**options: Any) -> bytes:
    with Image.open(EXAMPLES / "group.jpg") as photo:
        written = io.BytesIO()
        photo.save(written, "JPEG", **options)
    return written.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}])
def test_a_jpeg_without_its_end_is_read_with_a_note(options: dict[str, Any]) -> None:
    whole = jpeg(**options)
    expected = decode_image(whole).astype(int)
    for missing in (1, 2, 10, len(whole) // 100):
        for any_format in (False, True):
            notes: list[str] = []
            cut = decode_image(whole[:-missing], any_format=any_format, notes=notes)
            assert notes == ["the end of the file is missing; almost all of the photo is there"]
            # What is missing of a baseline JPEG are the last rows, of a progressive one details.
            assert np.abs(cut[:-32] - expected[:-32]).mean() < 1
    notes = []
    decode_image(whole, notes=notes)
    assert notes == []


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_a_jpeg_without_much_of_it_is_refused(options: dict[str, Any], share: float) -> None:
    whole = jpeg(**options)
    with pytest.raises(ImageError, match="damaged or cut off"):
        decode_image(whole[: int(len(whole) * share)])


def test_where_the_end_is_missing_the_photo_stands_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = jpeg(exif=exif)
    assert decode_image(whole[:-2]).shape == decode_image(whole).shape == (900, 400, 3)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_than_16_bits_are_stretched_with_a_note(bits: int, tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    most = 2**bits - 1
    values = np.linspace(0, most, 256).round().astype(np.uint16)
    Image.fromarray(np.repeat(values[np.newaxis], 4, axis=0)).save(path)
    notes: list[str] = []
    image = decode_image(path.read_bytes(), notes=notes)
    assert notes == [f"{bits} of its 16 bits are used; brightened to their range"]
    np.testing.assert_allclose(image[0, :, 0], np.arange(256), atol=1)


def test_a_black_photo_of_16_bits_stays_black(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "black.png")
    notes: list[str] = []
    assert not decode_image((tmp_path / "black.png").read_bytes(), notes=notes).any()
    assert notes == []


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_is_told_of_a_float_photo_leads_to_one_that_is_taken(kind: Any) -> None:
    with pytest.raises(InputError) as caught:
        as_rgb((PHOTO / 255).astype(kind))
    (told,) = re.findall(r"for values of 0..1: (.*)\. Received", str(caught.value))
    taken = eval(told, {"numpy": np, "photo": (PHOTO / 255).astype(kind)})
    np.testing.assert_array_equal(as_rgb(taken), PHOTO)
