"""The routes of recognition and operation, and the description of all routes."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, Field

from face_encode.detectors.base import SMALLEST_SIDE, gives_points, notes_on
from face_encode.errors import NotEnrolledError
from face_encode.model import Face_Encode_Model, both_judged, compared_faces, nearest_faces
from face_encode.pipeline.analysis import AnalyzedPhoto
from face_encode.pipeline.embedding import NO_EMBEDDING, NO_FACE, EmbeddedPhoto
from face_encode.server.bodies import read_body
from face_encode.server.people import enrolled
from face_encode.server.problems import Problem
from face_encode.server.recognition import TOO_SLOW
from face_encode.server.schemas import (
    PERSON_PROBLEMS,
    PHOTO_PROBLEMS,
    READING_PROBLEMS,
    AnalyzeAnswer,
    EmbedAnswer,
    HealthAnswer,
    MatchAnswer,
    PersonVerifyAnswer,
    SettingsAnswer,
    VerifyAnswer,
    photo_body,
)
from face_encode.server.security import Reader, Tokens
from face_encode.server.service import Service, TheService
from face_encode.types import Embeddings, Face, Match
from face_encode.version import __version__


def unusable(photo: EmbeddedPhoto | AnalyzedPhoto) -> Problem:
    """Say why a photo cannot be used."""
    kinds = {NO_FACE: "no-face", TOO_SLOW: "photo-takes-too-long"}
    kind = kinds.get(str(photo.error), "photo-unreadable")
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
    min_face: int | None = Field(
        default=None,
        ge=SMALLEST_SIDE,
        le=10_000,
        description="Side of the smallest face to look for, in pixels of the photo; without it 40, "
        "in photos of more than 4 megapixels 80.",
    )


SearchQuery = Annotated[Search, Query()]


class Decision(BaseModel):
    """Options of the decision whether two faces are one person's."""

    model_config = ConfigDict(extra="forbid")

    threshold: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Similarity from which a face is a person's; without it the person's own, or "
        "the service's.",
    )
    min_quality: float = Field(
        default=0,
        ge=0,
        le=1,
        description="A face of lower quality matches nobody, nor one that the encoder refuses.",
    )

    def refusal(self, face: Face) -> str | None:
        """Why a face may match nobody; None where it may."""
        if face.quality is None or face.quality.reason is not None:
            return None if face.quality is None else face.quality.reason
        if face.quality.value < self.min_quality:
            return f"lower quality than {self.min_quality:g}, which was asked for"
        return None

    def allows(self, face: Face) -> bool:
        """Whether a face may match somebody: its quality suffices, and it is alive where asked."""
        is_live = face.liveness is None or face.liveness.is_live
        return is_live and self.refusal(face) is None


class Matching(Search, Decision):
    """Options of naming faces."""

    candidates: int | None = Field(
        default=None, ge=1, le=50, description="Tell this many of the nearest people, too."
    )
    challenge: str | None = Field(
        default=None,
        pattern="^[A-Za-z0-9-]{8,64}$",
        description="A word of the client's own for a camera, the same for each of its pictures: "
        "nobody in them is matched before turning the head as asked; see docs/liveness.md.",
    )


MatchQuery = Annotated[Matching, Query()]
DecisionQuery = Annotated[Decision, Query()]


async def _faces_in(
    request: Request, service: Service, search: Search
) -> tuple[Sequence[Face], Embeddings, list[str]]:
    """Return the faces of the photo sent, their embeddings, and remarks on it."""
    limits = service.settings.limits
    detector = service.recogniser.detector(search.thorough, search.min_face)
    body = await read_body(request, ["photo"], [], limits)
    most = min(search.max_faces or limits.faces, limits.faces)
    photo = await service.recogniser.embed(body.photo("photo"), most, detector)
    if photo.error not in (None, NO_FACE, NO_EMBEDDING):
        raise unusable(photo)
    notes = [*photo.notes, *notes_on(detector, *photo.size)]
    return photo.faces[: len(photo.embeddings)], photo.embeddings, notes


@recognition_router.post(
    "/match",
    response_model=MatchAnswer,
    response_model_exclude_unset=True,
    openapi_extra=photo_body("photo"),
)
async def match(
    request: Request, service: TheService, author: Reader, matching: MatchQuery
) -> dict[str, Any]:
    """Name the faces in a photo; a photo without a face has an empty list."""
    if matching.challenge is not None and not gives_points(service.model.detector):
        raise Problem(
            422,
            "no-challenges",
            "The turn of a head is seen by a detector's points, which yunet and retinaface give: "
            f"start the service with --detector yunet. Received: {service.model.detector.name!r}.",
        )
    faces, embeddings, notes = await _faces_in(request, service, matching)
    # Off the event loop: among many thousand people a search takes milliseconds.
    named = await asyncio.to_thread(_named, service, faces, embeddings, matching) if faces else []
    if matching.challenge is not None:
        camera, moment = (author.name, matching.challenge), time.monotonic()
        same_person = service.model.verification_threshold
        asked = service.challenges.ask(camera, faces, embeddings, moment, same_person)
        for described, words in zip(named, asked, strict=True):
            described["challenge"] = words
            described["is_match"] = described["is_match"] and words is None
    return {"faces": named, "notes": notes}


def _named(
    service: Service, faces: Sequence[Face], embeddings: Embeddings, matching: Matching
) -> list[dict[str, Any]]:
    """Name faces; while nobody is enrolled, each has the name None."""
    model, count = service.model, matching.candidates
    found = model.gallery.search(embeddings, count or 1)
    named = _nearest(model, faces, found)
    for described, face, embedding, matches in zip(named, faces, embeddings, found, strict=True):
        refusal = matching.refusal(face)
        if "quality_reason" in described:
            described["quality_reason"] = refusal
        if matching.threshold is not None:
            described.pop("threshold", None)
            described["is_match"] = bool(matches) and matches[0].similarity >= matching.threshold
        described["is_match"] = described["is_match"] and matching.allows(face)
        if count is not None:
            described["candidates"] = list(_candidates(service, matches, embedding))
    return named


def _candidates(
    service: Service, matches: Sequence[Match], embedding: Embeddings
) -> Iterator[dict[str, Any]]:
    """People whom a face is like, each with the photo that is nearest."""
    for match in matches:
        # Somebody may be removed between the search and this.
        with suppress(NotEnrolledError):
            photo, _ = service.gallery.nearest_photo(match.name, embedding)
            yield {
                "name": match.name,
                "similarity": match.similarity,
                "photo": photo.id,
                "has_crop": photo.has_crop,
            }


def _nearest(
    model: Face_Encode_Model, faces: Sequence[Face], found: Sequence[Sequence[Match]]
) -> list[dict[str, Any]]:
    """Describe faces and the nearest people as ``match_image`` does."""
    unknown = {"name": None, "similarity": None, "is_match": False}
    return [
        model.describe(matches[0], face)
        if matches
        else {
            **unknown,
            "bounding_box": face.box.as_dict(),
            "rotation": face.rotation,
            **(face.judgement() if face.quality or face.liveness else {}),
        }
        for matches, face in zip(found, faces, strict=True)
    ]


@recognition_router.post(
    "/verify",
    response_model=VerifyAnswer,
    response_model_exclude_unset=True,
    openapi_extra=photo_body("photo_a", "photo_b"),
)
async def verify(
    request: Request, service: TheService, author: Reader, decision: DecisionQuery
) -> dict[str, Any]:
    """Compare the faces of two photos: is somebody on both?"""
    limits = service.settings.limits
    body = await read_body(request, ["photo_a", "photo_b"], [], limits)
    sent = [body.photo("photo_a"), body.photo("photo_b")]
    a, b = await service.recogniser.embed_all(sent, limits.faces)
    if a.error is not None or b.error is not None:
        raise unusable(b if a.error is None else a)
    model = service.model
    numbers = nearest_faces((a.embeddings, b.embeddings), (a.faces, b.faces))
    similarity, _ = model.compare_encodings(a.embeddings[numbers[0]], b.embeddings[numbers[1]])
    faces = [photo.faces[number] for photo, number in zip((a, b), numbers, strict=True)]
    refusals = [decision.refusal(face) for face in faces]
    threshold = decision.threshold
    threshold = model.verification_threshold if threshold is None else threshold
    return {
        "similarity": similarity,
        "threshold": threshold,
        "is_match": similarity >= threshold and all(map(decision.allows, faces)),
        **compared_faces(numbers, (len(a.faces), len(b.faces))),
        **both_judged(faces),
        "quality_reasons": refusals,
        "bounding_box_a": faces[0].box.as_dict(),
        "bounding_box_b": faces[1].box.as_dict(),
        "notes": [
            f"{photo.photo}: {note}"
            for photo in (a, b)
            for note in (*photo.notes, *notes_on(model.detector, *photo.size))
        ],
    }


@recognition_router.post(
    "/people/{name}/verify",
    response_model=PersonVerifyAnswer,
    response_model_exclude_unset=True,
    responses=PERSON_PROBLEMS,
    openapi_extra=photo_body("photo"),
)
async def verify_person(
    name: str, request: Request, service: TheService, author: Reader, decision: DecisionQuery
) -> dict[str, Any]:
    """Compare the largest face of a photo with an enrolled person's photos: is it that person?"""
    own = enrolled(service.gallery, name).name
    body = await read_body(request, ["photo"], [], service.settings.limits)
    photo = await service.recogniser.embed(body.photo("photo"), 1)
    if photo.error is not None:
        raise unusable(photo)
    model, face = service.model, photo.faces[0]
    nearest, similarity = await asyncio.to_thread(
        service.gallery.nearest_photo, own, photo.embeddings[0]
    )
    refusal = decision.refusal(face)
    chosen = (decision.threshold, service.gallery.thresholds.get(own), model.verification_threshold)
    threshold = next(each for each in chosen if each is not None)
    return {
        "name": own,
        "similarity": similarity,
        "threshold": threshold,
        "is_match": similarity >= threshold and decision.allows(face),
        "photo": nearest.id,
        "has_crop": nearest.has_crop,
        "bounding_box": face.box.as_dict(),
        **face.judgement(),
        "quality_reason": refusal,
        "notes": [*photo.notes, *notes_on(model.detector, *photo.size)],
    }


@recognition_router.post(
    "/embed",
    response_model=EmbedAnswer,
    response_model_exclude_unset=True,
    openapi_extra=photo_body("photo"),
)
async def embed(
    request: Request, service: TheService, author: Reader, search: SearchQuery
) -> dict[str, Any]:
    """Return the embeddings of the faces in a photo."""
    faces, embeddings, notes = await _faces_in(request, service, search)
    encoder = service.model.encoder
    return {
        "encoder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "faces": [
            {
                "embedding": embedding.tolist(),
                "bounding_box": face.box.as_dict(),
                **face.judgement(),
            }
            for embedding, face in zip(embeddings, faces, strict=True)
        ],
        "notes": notes,
    }


@recognition_router.post(
    "/analyze",
    response_model=AnalyzeAnswer,
    response_model_exclude_unset=True,
    openapi_extra=photo_body("photo"),
)
async def analyze(
    request: Request, service: TheService, author: Reader, search: SearchQuery
) -> dict[str, Any]:
    """Tell age, gender and expression of the faces in a photo: guesses, from looks alone."""
    limits = service.settings.limits
    detector = service.recogniser.detector(search.thorough, search.min_face)
    body = await read_body(request, ["photo"], [], limits)
    most = min(search.max_faces or limits.faces, limits.faces)
    photo = await service.recogniser.analyze(body.photo("photo"), most, detector)
    if photo.error is not None:
        raise unusable(photo)
    answer = photo.as_dict()
    return {"faces": answer["faces"], "notes": answer["notes"]}


operation_router = APIRouter(tags=["operation"])


@operation_router.get("/healthz", response_model=HealthAnswer)
async def health() -> dict[str, str]:
    """Say that the service runs."""
    return {"status": "ok"}


@operation_router.get(
    "/readyz", response_model=HealthAnswer, responses={503: READING_PROBLEMS[503]}
)
def ready(service: TheService) -> dict[str, str]:
    """Say whether the service takes work, and can read the people and save changes."""
    service.gallery.snapshot()
    if service.failing:
        raise Problem(503, "not-saving", "The last change of the people could not be saved.")
    if not service.recogniser.pool.workers_ready:
        raise Problem(503, "no-process", "The processes that read photos are being replaced.")
    if service.recogniser.pool.is_full:
        raise Problem(503, "too-busy", "Too many photos are waiting.")
    return {"status": "ok"}


@operation_router.get(
    "/metrics", responses={**READING_PROBLEMS, 200: {"content": {"text/plain": {}}}}
)
def metrics(service: TheService, author: Reader) -> Response:
    """Return the numbers of the service in Prometheus' format."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@operation_router.get("/v1/settings", response_model=SettingsAnswer, responses=READING_PROBLEMS)
def settings(request: Request, service: TheService, author: Reader) -> dict[str, Any]:
    """Return how the service recognises faces, and how fast."""
    model = service.model
    calibration = model.gallery.calibration
    tokens: Tokens = request.app.state.tokens
    return {
        "version": __version__,
        "encoder": model.encoder.name,
        "fingerprint": model.encoder.fingerprint,
        "detector": model.detector.name,
        "people": len(service.gallery.snapshot().enrolled.people),
        "photos": len(model.gallery),
        "threshold": model.threshold,
        "verification_threshold": model.verification_threshold,
        "threshold_from": model.threshold_source,
        "calibration": None if calibration is None else asdict(calibration),
        "limits": asdict(service.settings.limits),
        "keeps_crops": service.settings.keep_crops,
        "requires_live": service.settings.require_live,
        "can_challenge": gives_points(model.detector),
        "shows_attributes": service.settings.show_attributes,
        "needs_token": bool(tokens),
        "may_write": tokens.may_write(author.name),
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
