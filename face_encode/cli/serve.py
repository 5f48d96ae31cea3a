"""``face-encode serve``: the HTTP service and its page."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from face_encode.cli.options import (
    add_attributes_option,
    add_detector_option,
    add_encoder_option,
    add_event_options,
    add_keep_unknown_option,
    add_liveness_option,
    add_min_face_option,
    add_threshold_option,
    check_event_file,
    open_detector,
    positive,
)
from face_encode.errors import InputError, MissingExtraError
from face_encode.terminal import print_line

if TYPE_CHECKING:
    from face_encode.gallery.database import DatabaseGallery
    from face_encode.model import Face_Encode_Model
    from face_encode.server.security import Tokens
    from face_encode.server.settings import ServerSettings
    from face_encode.video.camera_process import CameraProcess

CAMERAS_VARIABLE = "FACE_ENCODE_CAMERAS"

SUMMARY = "answer over HTTP, with a page for browsers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Serve recognition over HTTP, with a page for browsers. Tokens come from the environment, "
        "FACE_ENCODE_TOKEN and, to separate reading from changing people, "
        "FACE_ENCODE_WRITE_TOKEN, or from a file."
    )
    parser.add_argument(
        "--people",
        metavar="PEOPLE",
        required=True,
        help="a gallery database, PEOPLE.sqlite, made if there is none; or a folder of people, "
        "which is enrolled once, into PEOPLE.sqlite beside it",
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine only")
    parser.add_argument(
        "--port", type=_port, default=8000, help="default: 8000; 0 takes a free one"
    )
    parser.add_argument(
        "--token-file", metavar="FILE", help="lines of a client's name, read or write, and a token"
    )
    parser.add_argument(
        "--allowed-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a further name that browsers reach the service by, such as a reverse proxy's",
    )
    parser.add_argument(
        "--keep-crops",
        action="store_true",
        help="keep the face of each photo, to show it, and to embed it by another encoder later",
    )
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="processes that find faces (default: cores)"
    )
    model = parser.add_argument_group("model")
    add_encoder_option(model)
    add_detector_option(model)
    add_min_face_option(model)
    add_threshold_option(model)
    add_liveness_option(model)
    cameras = parser.add_argument_group(
        "cameras",
        "The people before cameras, named live. What holds a password may be in the environment "
        f"instead: {CAMERAS_VARIABLE}, the same NAME=SOURCE with blanks between them.",
    )
    cameras.add_argument(
        "--camera",
        metavar="NAME=SOURCE",
        action="append",
        default=[],
        help="watch a webcam by its number (desk=0) or a stream (front=rtsp://HOST/…)",
    )
    add_event_options(cameras)
    add_keep_unknown_option(cameras)
    add_attributes_option(cameras, ", and of the faces of a photo on the page")
    limits = parser.add_argument_group("limits")
    for option, (help_text, _) in _LIMITS.items():
        limits.add_argument(f"--max-{option}", type=positive, metavar="N", help=help_text)


_LIMITS = {
    "body-megabytes": ("of one request", ("body_bytes", 1_000_000)),
    "megapixels": ("of one photo", ("pixels", 1_000_000)),
    "photos": ("of one enrolment", ("photos", 1)),
    "faces": ("of one photo", ("faces", 1)),
    "body-seconds": ("until a request has arrived", ("body_seconds", 1)),
    "header-seconds": ("until a request's headers have arrived", ("header_seconds", 1)),
    "request-seconds": ("until it is answered", ("request_seconds", 1)),
    "photo-seconds": ("until the faces of one photo are found", ("photo_seconds", 1)),
    "requests": ("answered at once", ("requests_in_flight", 1)),
    "connections": ("open at once", ("connections", 1)),
}


def run(options: argparse.Namespace) -> int:
    """Open the model and the people, and serve until a signal ends it."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingExtraError(
            'serving needs FastAPI and Uvicorn: pip install "face_encode[server]"'
        ) from error
    from face_encode.server.security import tokens_from

    tokens = tokens_from(options.token_file)
    path = gallery_path(options.people)
    settings = settings_from(options)
    check_exposure(settings, tokens)
    sources = cameras_from(options)
    # It would log a line for each broken body, which the client hears of anyway.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    from face_encode.server.application import make_application
    from face_encode.server.limits import limited_protocol

    class AnnouncedServer(uvicorn.Server):
        """Prints its address once it listens."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                host, port = listener.getsockname()[:2]
                address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                people = len(model.gallery.people())
                print_line(f"serving {people} people of {path} at http://{address}")

    with ExitStack() as opened:
        # Before the seconds of loading: a port that is taken is the likeliest mistake.
        listener = opened.enter_context(bound(settings.host, settings.port))
        model, gallery = _open_model(options, path)
        opened.enter_context(closing(gallery))
        _enrol_folder(options, path, model, gallery)
        cameras = None
        if sources:
            cameras = opened.enter_context(closing(_watching(options, sources, path)))
        if tokens and not tokens.can_write:
            print_line("no write token is set: nobody can change the people")
        configuration = uvicorn.Config(
            make_application(model, settings, tokens, cameras=cameras),
            http=limited_protocol(settings.limits),
            ws="none",
            # Paths hold people's names; changes are in the gallery's audit, numbers in the metrics.
            access_log=False,
            server_header=False,
            log_level="warning",
            timeout_graceful_shutdown=settings.limits.request_seconds,
        )
        server = AnnouncedServer(configuration)
        server.run([listener])
    return 0 if server.started else 1


def gallery_path(people: str) -> Path:
    """Return the path of the gallery database: that of the option, or the one beside a folder.

    Raises:
        InputError: The people are in a gallery of another kind, or in a folder without a name.
    """
    from face_encode.files import as_path
    from face_encode.gallery.database_file import DATABASE_SUFFIX, is_database
    from face_encode.gallery.milvus_store import is_milvus, milvus_address

    if is_milvus(people):
        raise InputError(
            "the service keeps its people in a gallery database: copy them from Milvus into one "
            f"(see docs/galleries.md). Received: {milvus_address(people).label}"
        )
    path = as_path(people)
    # os.path, because pathlib raises where the path cannot be looked at.
    if os.path.isdir(path):
        # In full, because "." and ".." are no names.
        folder = Path(os.path.abspath(path))
        if not folder.name:
            raise InputError(
                "the gallery database lies beside the folder of people, by its name: give a "
                f"folder with a name, or the path of a {DATABASE_SUFFIX} file. Received: {people}"
            )
        return folder.with_name(f"{folder.name}{DATABASE_SUFFIX}")
    if is_database(path):
        return path
    database = path.with_suffix(DATABASE_SUFFIX)
    hint = f": face-encode import {path} {database}" if path.suffix == ".npz" else ""
    raise InputError(
        f"the service keeps its people in a gallery database, a file that ends in "
        f"{DATABASE_SUFFIX}{hint}. Received: {people}"
    )


def settings_from(options: argparse.Namespace) -> ServerSettings:
    """Return the settings of the options.

    Raises:
        InputError: A limit is out of range.
    """
    from face_encode.server.settings import Limits, ServerSettings

    limits = {
        field: value * unit
        for option, (_, (field, unit)) in _LIMITS.items()
        if (value := getattr(options, f"max_{option.replace('-', '_')}")) is not None
    }
    return ServerSettings(
        host=options.host,
        port=options.port,
        allowed_hosts=tuple(options.allowed_host),
        keep_crops=options.keep_crops,
        workers=options.workers or os.cpu_count() or 1,
        require_live=options.liveness,
        show_attributes=options.attributes,
        limits=Limits(**limits),
    )


def cameras_from(options: argparse.Namespace) -> dict[str, str]:
    """Return the cameras of the options and the environment: name -> source.

    Raises:
        InputError: A text is no camera, two have one name, or there are options of cameras and no
            camera. Messages repeat no source, because it may hold a password.
    """
    from face_encode.gallery.base import folded_name
    from face_encode.server.bodies import person_name
    from face_encode.video.cameras import check_camera

    sources: dict[str, str] = {}
    for text in [*options.camera, *os.environ.get(CAMERAS_VARIABLE, "").split()]:
        name, _, source = text.partition("=")
        try:
            name = person_name(name)
        except InputError:
            name = ""
        if not name or not source:
            raise InputError(
                "a camera is NAME=SOURCE, such as front=rtsp://…, its name like a person's. "
                "Received: something else, not repeated here, because it may hold a password"
            )
        for other in sources:
            if folded_name(other) == folded_name(name):
                raise InputError(f"two cameras have one name. Received: {other!r} and {name!r}")
        check_camera(name, source)
        sources[name] = source
    about = ("events", "webhook", "mqtt", "event_crops", "keep_unknown")
    given = [each for each in about if getattr(options, each) not in (None, False)]
    if given and not sources:
        option = given[0].replace("_", "-")
        raise InputError(f"--{option} is about cameras, and there is no --camera")
    check_event_file(options)
    return sources


def check_exposure(settings: ServerSettings, tokens: Tokens) -> None:
    """Refuse to serve other machines without tokens.

    Raises:
        InputError: Other machines would reach the service, and there are no tokens.
    """
    if tokens:
        return
    if not settings.is_loopback:
        raise InputError(
            f"at {settings.host} other machines reach the service, so it takes a token: set "
            "FACE_ENCODE_TOKEN, and FACE_ENCODE_WRITE_TOKEN if not every client may change people, "
            "or give --token-file. Received: neither"
        )
    if settings.allowed_hosts:
        raise InputError(
            f"reached as {settings.allowed_hosts[0]}, through a proxy, the service takes a token: "
            "set FACE_ENCODE_TOKEN and FACE_ENCODE_WRITE_TOKEN, or give --token-file. "
            "Received: neither"
        )


def bound(host: str, port: int) -> socket.socket:
    """Bind a socket that does not listen yet, so that no client waits while models load.

    Raises:
        InputError: There is no such address here, or it is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with ExitStack() as opened:
            listener = opened.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            opened.pop_all()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot serve at {host}, port {port}: {reason}") from error
    return listener


def _open_model(
    options: argparse.Namespace, path: Path
) -> tuple[Face_Encode_Model, DatabaseGallery]:
    """Open the model, and the gallery that holds its people."""
    from face_encode.gallery.audit import Author
    from face_encode.gallery.database import DatabaseGallery
    from face_encode.model import Face_Encode_Model

    model = Face_Encode_Model(
        options.model, open_detector(options), options.threshold, engine=options.encoder_engine
    )
    gallery = DatabaseGallery(path, model.encoder, author=Author("face-encode serve"))
    model.gallery = gallery
    return model, gallery


def _enrol_folder(
    options: argparse.Namespace, path: Path, model: Face_Encode_Model, gallery: DatabaseGallery
) -> None:
    """Enrol the people where they are a folder, and nobody ever was enrolled."""
    folder = Path(options.people)
    if folder == path:
        return
    if gallery.changes(count=1):
        print_line(f"{folder} is enrolled in {path} already: that is served")
    else:
        report = model.fit_dataset(folder, keep_crops=options.keep_crops)
        print_line(str(report).replace("\n", ";"))


def _watching(options: argparse.Namespace, sources: dict[str, str], path: Path) -> CameraProcess:
    """Start to watch the cameras."""
    from face_encode.gallery.unknown import KEEP_DAYS
    from face_encode.video.camera_process import CameraProcess, CameraSettings

    cameras = CameraProcess(
        CameraSettings(
            sources,
            path,
            model=options.model,
            engine=options.encoder_engine,
            threshold=options.threshold,
            detector=options.detector,
            liveness=options.liveness,
            attributes=options.attributes,
            events=options.events,
            webhook=options.webhook,
            mqtt=options.mqtt,
            event_crops=options.event_crops,
            keep_days=KEEP_DAYS if options.keep_unknown is None else options.keep_unknown,
        )
    )
    cameras.start()
    return cameras


def _port(text: str) -> int:
    """Parse a port number."""
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"a whole number within 0..65535, not {text!r}")
    return int(text)
