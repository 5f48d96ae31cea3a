"""The service behind a real nginx, as the documentation sets it up."""

from __future__ import annotations

import datetime
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.serving import RunningService
from tests.conftest import EXAMPLES, REPOSITORY, VERIFY_DATASET

HOST = "faces.example.org"
_NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(_NGINX is None, reason="nginx is not installed"),
]


def write_certificate(folder: Path) -> None:
    """A certificate of the host's own, for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


class Proxy:
    """The documentation's nginx in front of a service, with other ports and places."""

    def __init__(self, folder: Path, service_port: int) -> None:
        assert _NGINX is not None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder = folder
        write_certificate(folder)
        (block,) = re.findall(
            r"```nginx\n(.*?)```", (REPOSITORY / "docs" / "deploy.md").read_text(), re.DOTALL
        )
        for written, here in (
            ("listen 8443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
            (f"/etc/letsencrypt/live/{HOST}/", f"{folder}/"),
            ("http://127.0.0.1:8000/", f"http://127.0.0.1:{service_port}/"),
        ):
            assert written in block
            block = block.replace(written, here)
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        # Started by root, nginx would work as a user who may not read the tests' folder.
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log;\n"
            f"events {{}}\nhttp {{ access_log off; {temporary}\n{block}}}\n"
        )
        command = [_NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")]
        self._process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Send a request as a browser does that was given the proxy's address."""
        trust = ssl.create_default_context(cafile=str(self.folder / "fullchain.pem"))
        connection = http.client.HTTPSConnection(HOST, self.port, context=trust, timeout=60)
        plain = socket.create_connection(("127.0.0.1", self.port), 60)
        connection.sock = trust.wrap_socket(plain, server_hostname=HOST)
        own = {key.replace("_", "-"): value for key, value in headers.items()}
        connection.request(method, path, body, own)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module", params=[True, False], ids=["named", "not named"])
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Proxy, bool]]:
    """The proxy, and whether the service was told its name."""
    folder = tmp_path_factory.mktemp("proxy")
    shutil.copytree(VERIFY_DATASET / "Ada_Mirova", folder / "people" / "Ada_Mirova")
    options = ["--people", str(folder / "people"), "--detector", "dlib_hog"]
    if request.param:
        options += ["--allowed-host", HOST]
    with RunningService(*options, environment={"FACE_ENCODE_TOKEN": "secret-of-the-test"}) as one:
        proxy = Proxy(folder, one.port)
        yield proxy, request.param
        proxy.close()


def test_photos_from_the_page_are_named_behind_a_proxy(proxied: tuple[Proxy, bool]) -> None:
    proxy, is_named = proxied
    photo = (EXAMPLES / "ada_mirova.jpg").read_bytes()
    parts = (
        b'--b\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + photo + b"\r\n--b--\r\n"
    )
    headers = {
        "Origin": f"https://{HOST}:{proxy.port}",
        "Sec_Fetch_Site": "same-origin",
        "Content_Type": "multipart/form-data; boundary=b",
        "Authorization": "Bearer secret-of-the-test",
    }
    status, content = proxy.ask("POST", "/faces/v1/match", parts, **headers)
    if is_named:
        assert (status, b"Ada_Mirova" in content) == (200, True)
    else:
        # Nobody told the service: it says what to change.
        assert (status, b"--allowed-host" in content) == (421, True)


def test_what_is_refused_unread_is_answered_behind_a_proxy(proxied: tuple[Proxy, bool]) -> None:
    proxy, is_named = proxied
    # More than the buffers between nginx and the service hold: it is still sending when refused.
    body = b"-" * 8_000_000
    headers = {
        "Origin": "https://elsewhere.example:8443",
        "Content_Type": "multipart/form-data; boundary=b",
    }
    for _ in range(5):
        status, content = proxy.ask("POST", "/faces/v1/match", body, **headers)
        assert (status, b"--allowed-host" in content) == (403 if is_named else 421, True)
    if is_named:
        # Nor where a token is missing.
        status, content = proxy.ask("POST", "/faces/v1/match", body, Content_Type="text/plain")
        assert (status, b"token" in content) == (401, True)


def test_the_page_and_its_files_are_there_below_a_path(proxied: tuple[Proxy, bool]) -> None:
    proxy, is_named = proxied
    if not is_named:
        return
    status, content = proxy.ask("GET", "/faces/")
    assert status == 200
    files = re.findall(rb'(?:src|href)="([^"#][^"]*)"', content)
    assert files and not any(file.startswith((b"/", b"http")) for file in files)
    for file in files:
        status, _ = proxy.ask("GET", f"/faces/{file.decode()}")
        assert status == 200, file
    assert proxy.ask("GET", "/faces/metrics")[0] == 403
