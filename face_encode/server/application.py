"""The application: routes, guards and the page, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.staticfiles import StaticFiles

from face_encode.model import Face_Encode_Model
from face_encode.server import operation_routes, people_routes, recognition_routes
from face_encode.server.audit import AuditLog
from face_encode.server.crops import CropFolder
from face_encode.server.encryption import Cipher
from face_encode.server.gallery_file import GalleryFile
from face_encode.server.limits import RequestLimits
from face_encode.server.metrics import Metrics, RequestMeter
from face_encode.server.origins import OriginGuard
from face_encode.server.people_store import PeopleStore
from face_encode.server.problems import add_handlers
from face_encode.server.recognition import Recogniser
from face_encode.server.schemas import ProblemAnswer
from face_encode.server.security import Tokens
from face_encode.server.service import Service
from face_encode.server.settings import ServerSettings
from face_encode.version import __version__

_PAGE = Path(__file__).with_name("static")


def make_application(
    model: Face_Encode_Model,
    settings: ServerSettings,
    tokens: Tokens,
    cipher: Cipher | None = None,
) -> FastAPI:
    """Put a service together; its processes and threads live as long as it is served.

    Args:
        model: With the people of the gallery file enrolled.
        settings: How it is started.
        tokens: Who is let in.
        cipher: Encrypts the gallery file and the crops, if that is wanted.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def running(application: FastAPI) -> AsyncIterator[None]:
        recogniser = Recogniser(model.encoder, model.detector, settings, metrics)
        crops = CropFolder(settings.crops, cipher)
        audit = AuditLog(settings.audit_log)
        store = PeopleStore(
            model,
            GalleryFile(settings.gallery, cipher),
            audit,
            crops if settings.keep_crops else None,
            metrics.saved,
        )
        try:
            recogniser.pool.start()
            recogniser.start()
            application.state.service = Service(recogniser, store, settings, metrics)
            metrics.watch("people", "People enrolled.", lambda: len(store.people.photos))
            metrics.watch("photos", "Photos enrolled.", lambda: len(store.people.model.gallery))
            metrics.watch(
                "photos_waiting", "Photos waiting to be looked at.", lambda: recogniser.pool.waiting
            )
            yield
        finally:
            await recogniser.close()
            store.close()
            audit.close()

    application = FastAPI(
        title="face_encode",
        version=__version__,
        description="Recognises enrolled people by their faces.",
        lifespan=running,
        docs_url=None,
        redoc_url=None,
        middleware=[
            Middleware(RequestMeter, metrics),
            Middleware(
                OriginGuard,
                settings.allowed_hosts if settings.is_loopback or settings.allowed_hosts else None,
            ),
            Middleware(RequestLimits, settings.limits),
        ],
    )
    application.state.tokens = tokens
    add_handlers(application)
    application.include_router(recognition_routes.router)
    application.include_router(people_routes.router)
    application.include_router(operation_routes.router)
    _describe_problems(application)
    if _PAGE.is_dir():
        application.mount("/", StaticFiles(directory=_PAGE, html=True), name="page")
    return application


def _describe_problems(application: FastAPI) -> None:
    """Put the shape of an error into the OpenAPI document, which only the errors mention."""
    plain = application.openapi

    def described() -> dict[str, object]:
        document = plain()
        document["components"]["schemas"]["ProblemAnswer"] = ProblemAnswer.model_json_schema()
        return document

    application.openapi = described  # type: ignore[method-assign]
