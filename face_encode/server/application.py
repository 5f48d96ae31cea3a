"""The application: routes, guards and the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np
from fastapi import Depends, FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.staticfiles import StaticFiles

from face_encode.errors import GalleryError, InputError
from face_encode.gallery.database import DatabaseGallery
from face_encode.model import Face_Encode_Model
from face_encode.server.cameras import CameraNumbers, cameras_router
from face_encode.server.checking import checking_router
from face_encode.server.compreface import compreface_router
from face_encode.server.limits import RequestLimits
from face_encode.server.metrics import Metrics, RequestMeter
from face_encode.server.people import people_router
from face_encode.server.problems import add_handlers, allowed_methods, refuse_unknown_options
from face_encode.server.recognition import Recogniser
from face_encode.server.routes import operation_router, recognition_router
from face_encode.server.schemas import ProblemAnswer
from face_encode.server.security import OriginGuard, SecurityHeaders, Tokens
from face_encode.server.service import Service
from face_encode.server.settings import ServerSettings
from face_encode.server.unknown import unknown_router
from face_encode.version import __version__
from face_encode.video.camera_process import CameraProcess

_PAGE = Path(__file__).with_name("static")
# How long a stranger may stay in the file after the time is over.
_PURGE_SECONDS = 600.0


def make_application(
    model: Face_Encode_Model,
    settings: ServerSettings,
    tokens: Tokens,
    *,
    cameras: CameraProcess | None = None,
    warm_up: bool = True,
) -> FastAPI:
    """Assemble a service; its processes and threads live as long as it is served.

    Args:
        model: The model; its gallery is a database, which other programs may have open too.
        settings: The settings.
        tokens: The tokens of the clients.
        cameras: The cameras that the service watches, started; they end with the service.
        warm_up: Whether everything that photos need is loaded before the first one.

    Raises:
        InputError: The people are not in a gallery database.
    """
    gallery = model.gallery
    if not isinstance(gallery, DatabaseGallery):
        raise InputError(
            "a service keeps its people in a gallery database: set model.gallery to "
            'open_gallery("people.sqlite", encoder=model.encoder). '
            f"Received: {type(gallery).__name__}"
        )
    # Before anybody is served: its weights may be missing.
    judge = model.liveness_judge if settings.require_live else None
    metrics = Metrics()
    if cameras is not None:
        metrics.registry.register(CameraNumbers(cameras))

    @asynccontextmanager
    async def running(application: FastAPI) -> AsyncIterator[None]:
        recogniser = Recogniser(model.encoder, model.detector, settings, metrics, judge)
        service = Service(model, gallery, recogniser, settings, metrics, cameras)
        try:
            if warm_up:
                await recogniser.load()
                # Reads the people, and prepares the search among them.
                probe = np.ones((1, model.encoder.embedding_size), np.float32)
                await asyncio.to_thread(gallery.search, probe)
            application.state.service = service
            metrics.watch(
                "people", "People enrolled.", lambda: len(gallery.snapshot().enrolled.people)
            )
            metrics.watch("photos", "Photos enrolled.", lambda: len(gallery))
            metrics.watch(
                "photos_waiting", "Photos waiting for detection.", lambda: recogniser.pool.waiting
            )
            metrics.watch(
                "photo_processes_ready",
                "Processes that read photos and find faces, but for those being replaced.",
                lambda: recogniser.pool.workers_ready,
            )
            purging = asyncio.create_task(_purge_unknown(gallery))
            yield
            purging.cancel()
        finally:
            if cameras is not None:
                await asyncio.to_thread(cameras.close)
            await recogniser.close()
            service.close()

    application = FastAPI(
        title="face_encode",
        version=__version__,
        description="Recognises enrolled people by their faces.",
        lifespan=running,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(RequestMeter, metrics),
            Middleware(SecurityHeaders),
            # Around whatever refuses a request unread: it takes in what the client still sends.
            Middleware(RequestLimits, settings.limits),
            Middleware(
                OriginGuard,
                settings.allowed_hosts if settings.is_loopback or settings.allowed_hosts else None,
            ),
        ],
    )
    application.state.tokens = tokens
    add_handlers(application)
    strict = [Depends(refuse_unknown_options)]
    application.include_router(recognition_router, dependencies=strict)
    application.include_router(people_router, dependencies=strict)
    application.include_router(unknown_router, dependencies=strict)
    application.include_router(cameras_router, dependencies=strict)
    application.include_router(checking_router, dependencies=strict)
    application.include_router(operation_router)
    application.include_router(compreface_router, dependencies=strict)
    _describe(application)
    _add_page(application)
    return application


async def _purge_unknown(gallery: DatabaseGallery) -> None:
    """Delete strangers whose time is over, also while nobody asks for anything."""
    while True:
        # Where the file cannot be written to, the next time.
        with suppress(GalleryError):
            await asyncio.to_thread(gallery.unknown.purge)
        await asyncio.sleep(_PURGE_SECONDS)


def _add_page(application: FastAPI) -> None:
    """Serve the page's files, and answer 405 rather than 404 where only the method is wrong."""
    files = StaticFiles(directory=_PAGE, html=True, check_dir=False)

    @application.get("/{path:path}", include_in_schema=False)
    async def page(path: str, request: Request) -> Response:
        if allowed_methods(application, request.url.path):
            raise HTTPException(405)
        return await files.get_response(path or ".", request.scope)


def _describe(application: FastAPI) -> None:
    """Build the OpenAPI document, with the schema of errors: FastAPI adds those of answers only.

    Before the first request: FastAPI lets threads that ask at once build it at once, and then one
    of them may fail.
    """
    document = application.openapi()
    document["components"]["schemas"]["ProblemAnswer"] = ProblemAnswer.model_json_schema()
    application.openapi = lambda: document  # type: ignore[method-assign]
