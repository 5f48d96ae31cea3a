"""``/v1/match``, ``/v1/verify`` and ``/v1/embed``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from face_encode.server.bodies import read_body
from face_encode.server.recognition import readable, with_face
from face_encode.server.schemas import (
    PHOTO_PROBLEMS,
    EmbedAnswer,
    MatchAnswer,
    VerifyAnswer,
    photo_body,
)
from face_encode.server.security import Reader
from face_encode.server.service import Service, TheService
from face_encode.types import Embeddings, Face

router = APIRouter(prefix="/v1", tags=["recognition"], responses=PHOTO_PROBLEMS)


class Search(BaseModel):
    """How faces are looked for; an option that is misspelt is refused, not passed over."""

    model_config = ConfigDict(extra="forbid")

    max_faces: int | None = Field(
        default=None, ge=1, le=1000, description="The largest so many faces only."
    )
    thorough: bool = Field(
        default=True,
        description="False: no slower detector looks where the fast one finds nothing.",
    )


SearchQuery = Annotated[Search, Query()]


async def _faces_in(
    request: Request, service: Service, search: Search
) -> tuple[Sequence[Face], Embeddings]:
    """The faces of the photo sent, and their embeddings."""
    limits = service.settings.limits
    body = await read_body(request, ["photo"], [], limits)
    most = min(search.max_faces or limits.faces, limits.faces)
    _, photo = await service.recogniser.embed(body.photo("photo"), most, thorough=search.thorough)
    return readable(photo).faces[: len(photo.embeddings)], photo.embeddings


@router.post(
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
            people.model.describe(matches[0], face.box.as_dict())
            for matches, face in zip(found, faces, strict=True)
        ]
    }


@router.post(
    "/verify",
    response_model=VerifyAnswer,
    openapi_extra=photo_body("photo_a", "photo_b"),
)
async def verify(request: Request, service: TheService, author: Reader) -> dict[str, Any]:
    """Say whether the largest faces of two photos are one person's."""
    body = await read_body(request, ["photo_a", "photo_b"], [], service.settings.limits)
    pair = await service.recogniser.embed_all([body.photo("photo_a"), body.photo("photo_b")], 1)
    a, b = (with_face(photo) for _, photo in pair)
    model = service.store.people.model
    similarity, is_match = model.compare_encodings(a.embeddings[0], b.embeddings[0])
    return {
        "similarity": similarity,
        "threshold": model.verification_threshold,
        "is_match": is_match,
        "bounding_box_a": a.faces[0].box.as_dict(),
        "bounding_box_b": b.faces[0].box.as_dict(),
    }


@router.post("/embed", response_model=EmbedAnswer, openapi_extra=photo_body("photo"))
async def embed(
    request: Request, service: TheService, author: Reader, search: SearchQuery
) -> dict[str, Any]:
    """Give the embeddings of the faces in a photo."""
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
