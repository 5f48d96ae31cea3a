"""The routes: recognition, people, operation, and the description of them all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from html import escape
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from face_encode.errors import GalleryError, InputError
from face_encode.pipeline.embedding import NO_EMBEDDING, NO_FACE, EmbeddedPhoto
from face_encode.server.audit import Author
from face_encode.server.bodies import person_name, read_body
from face_encode.server.metrics import Metrics
from face_encode.server.people import Change, Enrol, People, PeopleStore, Remove, Rename
from face_encode.server.problems import Problem
from face_encode.server.recognition import Recogniser
from face_encode.server.schemas import (
    CHANGE_PROBLEMS,
    NAME_BODY,
    PERSON_PROBLEMS,
    PHOTO_PROBLEMS,
    READING_PROBLEMS,
    EmbedAnswer,
    EnrolmentAnswer,
    HealthAnswer,
    MatchAnswer,
    PeopleAnswer,
    Person,
    RemovalAnswer,
    SettingsAnswer,
    VerifyAnswer,
    photo_body,
)
from face_encode.server.security import Reader, Tokens, Writer
from face_encode.server.settings import ServerSettings
from face_encode.types import Embeddings, EnrolmentReport, Face
from face_encode.version import __version__


@dataclass(frozen=True, eq=False)
class Service:
    """A running service.

    Attributes:
        recogniser: Embeds photos.
        store: Holds the people.
        settings: The settings that the service was started with.
        metrics: The service's numbers.
    """

    recogniser: Recogniser
    store: PeopleStore
    settings: ServerSettings
    metrics: Metrics

    async def change(self, change: Change, author: Author) -> Any:
        """Make a change, and wait until it is on disk.

        Raises:
            Problem: The change is impossible, or cannot be saved.
        """
        # Shielded: the change is made even if the request's time is over in the meantime.
        try:
            return await asyncio.shield(asyncio.wrap_future(self.store.submit(change, author)))
        except GalleryError as error:
            taken = "already" in str(error)
            status, kind = (409, "name-taken") if taken else (404, "nobody-of-that-name")
            raise Problem(status, kind, f"{error}.") from error


def running_service(request: Request) -> Service:
    """Return the service of a request."""
    return cast(Service, request.app.state.service)


TheService = Annotated[Service, Depends(running_service)]


def checked_name(value: object) -> str:
    """Return the form in which a person's name is enrolled.

    Raises:
        Problem: The value is no name.
    """
    try:
        return person_name(value)
    except InputError as error:
        raise Problem(422, "not-a-name", f"{error}.") from error


def enrolled_name(people: People, name: str) -> str:
    """Return the name of the enrolled person that a path names.

    Raises:
        Problem: There is no such person.
    """
    # A gallery from elsewhere may hold names in another form than the service enrols.
    if name in people.photos:
        return name
    with suppress(InputError):
        if (normal := person_name(name)) in people.photos:
            return normal
    raise Problem(404, "nobody-of-that-name", "Nobody of that name is enrolled.")


def unusable(photo: EmbeddedPhoto) -> Problem:
    """Say why a photo cannot be used."""
    kind = "no-face" if photo.error == NO_FACE else "photo-unreadable"
    return Problem(422, kind, f"{photo.photo}: {photo.error}.")


recognition_router = APIRouter(prefix="/v1", tags=["recognition"], responses=PHOTO_PROBLEMS)


class Search(BaseModel):
    """Options of detection; a misspelt option is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")

    max_faces: int | None = Field(
        default=None, ge=1, le=1000, description="At most this many faces, largest first."
    )
    thorough: bool = Field(
        default=True, description="False: no slower detector where the fast one finds nothing."
    )


SearchQuery = Annotated[Search, Query()]


async def _faces_in(
    request: Request, service: Service, search: Search
) -> tuple[Sequence[Face], Embeddings]:
    """Return the faces of the photo sent, and their embeddings."""
    limits = service.settings.limits
    body = await read_body(request, ["photo"], [], limits)
    _, photo = await service.recogniser.embed(
        body.photo("photo"),
        min(search.max_faces or limits.faces, limits.faces),
        thorough=search.thorough,
    )
    if photo.error not in (None, NO_FACE, NO_EMBEDDING):
        raise unusable(photo)
    return photo.faces[: len(photo.embeddings)], photo.embeddings


@recognition_router.post(
    "/match",
    response_model=MatchAnswer,
    response_model_exclude_unset=True,
    openapi_extra=photo_body("photo"),
)
async def match(
    request: Request, service: TheService, author: Reader, search: SearchQuery
) -> dict[str, Any]:
    """Name the faces in a photo; a photo without a face has an empty list."""
    faces, embeddings = await _faces_in(request, service, search)
    people = service.store.people
    if not people.photos:
        unknown = {"name": None, "similarity": None, "is_match": False}
        return {"faces": [{**unknown, "bounding_box": face.box.as_dict()} for face in faces]}
    if not faces:
        return {"faces": []}
    # Off the event loop: among many thousand people a search takes milliseconds.
    found = await asyncio.to_thread(people.model.gallery.search, embeddings)
    return {
        "faces": [
            people.model.describe(matches[0], face.box.as_dict(), face.quality)
            for matches, face in zip(found, faces, strict=True)
        ]
    }


@recognition_router.post(
    "/verify", response_model=VerifyAnswer, openapi_extra=photo_body("photo_a", "photo_b")
)
async def verify(request: Request, service: TheService, author: Reader) -> dict[str, Any]:
    """Compare the largest faces of two photos: one person?"""
    body = await read_body(request, ["photo_a", "photo_b"], [], service.settings.limits)
    pairs = await service.recogniser.embed_all([body.photo("photo_a"), body.photo("photo_b")], 1)
    a, b = (photo for _, photo in pairs)
    if a.error is not None or b.error is not None:
        raise unusable(b if a.error is None else a)
    model = service.store.people.model
    similarity, is_match = model.compare_encodings(a.embeddings[0], b.embeddings[0])
    judged = [photo.faces[0].quality for photo in (a, b)]
    reasons = [quality and quality.reason for quality in judged]
    return {
        "similarity": similarity,
        "threshold": model.verification_threshold,
        "is_match": is_match and not any(reasons),
        "qualities": [quality and quality.value for quality in judged],
        "quality_reasons": reasons,
        "bounding_box_a": a.faces[0].box.as_dict(),
        "bounding_box_b": b.faces[0].box.as_dict(),
    }


@recognition_router.post("/embed", response_model=EmbedAnswer, openapi_extra=photo_body("photo"))
async def embed(
    request: Request, service: TheService, author: Reader, search: SearchQuery
) -> dict[str, Any]:
    """Return the embeddings of the faces in a photo."""
    faces, embeddings = await _faces_in(request, service, search)
    encoder = service.store.people.model.encoder
    return {
        "encoder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "faces": [
            {"embedding": embedding.tolist(), "bounding_box": face.box.as_dict()}
            for embedding, face in zip(embeddings, faces, strict=True)
        ],
    }


people_router = APIRouter(prefix="/v1/people", tags=["people"])


@people_router.get("", response_model=PeopleAnswer, responses=READING_PROBLEMS)
async def everybody(service: TheService, author: Reader) -> dict[str, Any]:
    """List the enrolled people, by name."""
    names = sorted(service.store.people.photos)
    return {"people": [_described(service, name) for name in names]}


@people_router.post(
    "",
    response_model=EnrolmentAnswer,
    responses=CHANGE_PROBLEMS,
    openapi_extra=photo_body("photos", named=True),
)
async def enrol(request: Request, service: TheService, author: Writer) -> dict[str, Any]:
    """Enrol photos of a person, new or known, by the largest face of each."""
    body = await read_body(request, ["photos", "photo"], ["name"], service.settings.limits)
    name = checked_name(body.texts.get("name"))
    sent = [*body.photos.get("photos", []), *body.photos.get("photo", [])]
    if not sent:
        raise Problem(422, "photo-missing", "The field 'photos' holds at least one photo.")
    # The largest face is embedded; the others are counted for a note.
    pairs = await service.recogniser.embed_all(sent, 1)
    first_part = service.recogniser.recipe.first_of
    usable = [first_part(crops.crops)[0] for crops, photo in pairs if photo.error is None]
    change = Enrol(
        name,
        [photo for _, photo in pairs],
        [hashlib.sha256(photo.content).hexdigest() for photo in sent],
        usable[0] if usable and service.settings.keep_crops else None,
    )
    report: EnrolmentReport = await service.change(change, author)
    return {
        "name": name,
        "enrolled": report.enrolled,
        "reused": report.reused,
        "left_out": [{"photo": row.photo, "reason": row.reason} for row in report.left_out],
        "notes": list(report.notes),
    }


@people_router.get("/{name}", response_model=Person, responses=PERSON_PROBLEMS)
async def person(name: str, service: TheService, author: Reader) -> dict[str, Any]:
    """Describe one person."""
    return _described(service, enrolled_name(service.store.people, name))


@people_router.patch(
    "/{name}", response_model=Person, responses=CHANGE_PROBLEMS, openapi_extra=NAME_BODY
)
async def rename(
    name: str, request: Request, service: TheService, author: Writer
) -> dict[str, Any]:
    """Rename a person."""
    body = await read_body(request, [], ["name"], service.settings.limits)
    new_name = checked_name(body.texts.get("name"))
    photos = await service.change(
        Rename(enrolled_name(service.store.people, name), new_name), author
    )
    return {**_described(service, new_name), "photos": photos}


@people_router.delete("/{name}", response_model=RemovalAnswer, responses=PERSON_PROBLEMS)
async def remove(name: str, service: TheService, author: Writer) -> dict[str, Any]:
    """Remove a person for good."""
    enrolled = enrolled_name(service.store.people, name)
    return {"name": enrolled, "photos": await service.change(Remove(enrolled), author)}


@people_router.get(
    "/{name}/thumbnail",
    responses={**PERSON_PROBLEMS, 200: {"content": {"image/jpeg": {}}}},
    response_class=Response,
)
async def thumbnail(name: str, service: TheService, author: Reader) -> Response:
    """Return a small picture of a person, where one is kept."""
    enrolled = enrolled_name(service.store.people, name)
    crops = service.store.crops
    content = None if crops is None else await asyncio.to_thread(crops.read, enrolled)
    if content is None:
        raise Problem(404, "no-thumbnail", "No picture of this person is kept.")
    return Response(content, media_type="image/jpeg")


def _described(service: Service, name: str) -> dict[str, Any]:
    store = service.store
    has_thumbnail = store.crops is not None and store.crops.has(name)
    return {"name": name, "photos": store.people.photos.get(name, 0), "thumbnail": has_thumbnail}


operation_router = APIRouter(tags=["operation"])


@operation_router.get("/healthz", response_model=HealthAnswer)
async def health() -> dict[str, str]:
    """Say that the service runs."""
    return {"status": "ok"}


@operation_router.get(
    "/readyz", response_model=HealthAnswer, responses={503: READING_PROBLEMS[503]}
)
async def ready(service: TheService) -> dict[str, str]:
    """Say whether the service takes work and can save changes."""
    if service.store.failing:
        raise Problem(503, "not-saving", "The last change of the people could not be saved.")
    if service.recogniser.pool.is_full:
        raise Problem(503, "too-busy", "Too many photos are waiting.")
    return {"status": "ok"}


@operation_router.get(
    "/metrics", responses={**READING_PROBLEMS, 200: {"content": {"text/plain": {}}}}
)
async def metrics(service: TheService, author: Reader) -> Response:
    """Return the numbers of the service in Prometheus' format."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@operation_router.get("/v1/settings", response_model=SettingsAnswer, responses=READING_PROBLEMS)
async def settings(request: Request, service: TheService, author: Reader) -> dict[str, Any]:
    """Return how the service recognises faces, and how fast."""
    people = service.store.people
    model, calibration = people.model, people.model.gallery.calibration
    tokens: Tokens = request.app.state.tokens
    return {
        "version": __version__,
        "encoder": model.encoder.name,
        "fingerprint": model.encoder.fingerprint,
        "detector": model.detector.name,
        "people": len(people.photos),
        "photos": len(model.gallery),
        "threshold": model.threshold,
        "verification_threshold": model.verification_threshold,
        "threshold_from": model.threshold_source,
        "calibration": None if calibration is None else asdict(calibration),
        "limits": asdict(service.settings.limits),
        "keeps_crops": service.settings.keep_crops,
        "needs_token": bool(tokens),
        "may_write": tokens.may_write(author.token),
        "latency": service.metrics.latency(),
    }


@operation_router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def documentation(request: Request) -> HTMLResponse:
    """Show the OpenAPI document as a page that loads nothing.

    FastAPI's own page loads Swagger UI from another host, which neither a machine without network
    nor our content security policy allows.
    """
    document = request.app.openapi()
    title, description = (escape(document["info"][key]) for key in ("title", "description"))
    page = [
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><h1>{title}</h1><p>{description}</p>"
        '<p>For programs: <a href="openapi.json">openapi.json</a>. An example:</p>'
        f"<pre>curl -F photo=@party.jpg {escape(str(request.base_url))}v1/match</pre>"
    ]
    parts = {
        f"{method.upper()} {path}": operation
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    } | document["components"]["schemas"]
    for heading, part in parts.items():
        text = escape(json.dumps(part, indent=1, ensure_ascii=False), quote=False)
        text = re.sub(r"#/components/schemas/(\w+)", r'<a href="#\1">\1</a>', text)
        page.append(
            f'<h2 id="{heading}"><code>{heading}</code></h2>'
            f"<p>{escape(part.get('description', ''))}</p>"
            f"<details><summary>OpenAPI</summary><pre>{text}</pre></details>"
        )
    return HTMLResponse("\n".join(page))
