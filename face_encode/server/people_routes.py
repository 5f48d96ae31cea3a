"""``/v1/people``: who is enrolled, and changes of that."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from fastapi import APIRouter, Request, Response

from face_encode.server.bodies import read_body
from face_encode.server.changes import Enrol, Remove, Rename
from face_encode.server.problems import Problem
from face_encode.server.schemas import (
    CHANGE_PROBLEMS,
    PERSON_PROBLEMS,
    READING_PROBLEMS,
    EnrolmentAnswer,
    PeopleAnswer,
    Person,
    RemovalAnswer,
    photo_body,
)
from face_encode.server.security import Reader, Writer
from face_encode.server.service import Service, TheService, checked_name, enrolled_name
from face_encode.types import EnrolmentReport

router = APIRouter(prefix="/v1/people", tags=["people"])

_NEW_NAME = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 200}},
                    "required": ["name"],
                    "additionalProperties": False,
                }
            }
        },
    }
}


@router.get("", response_model=PeopleAnswer, responses=READING_PROBLEMS)
async def everybody(service: TheService, author: Reader) -> dict[str, Any]:
    """Tell who is enrolled, by name."""
    photos = service.store.people.photos
    return {"people": [_described(service, name) for name in sorted(photos)]}


@router.post(
    "",
    response_model=EnrolmentAnswer,
    responses=CHANGE_PROBLEMS,
    openapi_extra=photo_body(several=True, text="name"),
)
async def enrol(request: Request, service: TheService, author: Writer) -> dict[str, Any]:
    """Enrol photos of a person, new or known, by the largest face of each."""
    body = await read_body(request, ["photos", "photo"], ["name"], service.settings.limits)
    name = checked_name(body.texts.get("name"))
    sent = [*body.photos.get("photos", []), *body.photos.get("photo", [])]
    if not sent:
        raise Problem(422, "photo-missing", "The field 'photos' holds at least one photo.")
    # All faces are counted, one is embedded: a note tells of the others.
    pairs = await service.recogniser.embed_all(sent, 1)
    usable = [crops.crops[0] for crops, photo in pairs if photo.error is None]
    keeps = service.settings.keep_crops and usable
    change = Enrol(
        name,
        [photo for _, photo in pairs],
        [hashlib.sha256(photo.content).hexdigest() for photo in sent],
        usable[0] if keeps else None,
    )
    report: EnrolmentReport = await service.change(change, author)
    return {
        "name": name,
        "enrolled": report.enrolled,
        "reused": report.reused,
        "left_out": [{"photo": row.photo, "reason": row.reason} for row in report.left_out],
        "notes": list(report.notes),
    }


@router.get("/{name}", response_model=Person, responses=PERSON_PROBLEMS)
async def person(name: str, service: TheService, author: Reader) -> dict[str, Any]:
    """Tell of one person."""
    return _described(service, enrolled_name(service.store.people, name))


@router.patch("/{name}", response_model=Person, responses=CHANGE_PROBLEMS, openapi_extra=_NEW_NAME)
async def rename(
    name: str, request: Request, service: TheService, author: Writer
) -> dict[str, Any]:
    """Call a person otherwise."""
    body = await read_body(request, [], ["name"], service.settings.limits)
    new_name = checked_name(body.texts.get("name"))
    photos = await service.change(
        Rename(enrolled_name(service.store.people, name), new_name), author
    )
    return {"name": new_name, "photos": photos, "thumbnail": _has_thumbnail(service, new_name)}


@router.delete("/{name}", response_model=RemovalAnswer, responses=PERSON_PROBLEMS)
async def remove(name: str, service: TheService, author: Writer) -> dict[str, Any]:
    """Take a person out, for good."""
    enrolled = enrolled_name(service.store.people, name)
    return {"name": enrolled, "photos": await service.change(Remove(enrolled), author)}


@router.get(
    "/{name}/thumbnail",
    responses={**PERSON_PROBLEMS, 200: {"content": {"image/jpeg": {}}}},
    response_class=Response,
)
async def thumbnail(name: str, service: TheService, author: Reader) -> Response:
    """Show a small picture of a person, where one is kept."""
    enrolled = enrolled_name(service.store.people, name)
    crops = service.store.crops
    content = None if crops is None else await asyncio.to_thread(crops.of, enrolled)
    if content is None:
        raise Problem(404, "no-thumbnail", "No picture of this person is kept.")
    return Response(content, media_type="image/jpeg")


def _described(service: Service, name: str) -> dict[str, Any]:
    photos = service.store.people.photos.get(name, 0)
    return {"name": name, "photos": photos, "thumbnail": _has_thumbnail(service, name)}


def _has_thumbnail(service: Service, name: str) -> bool:
    return service.store.crops is not None and service.store.crops.has(name)
