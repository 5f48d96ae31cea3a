"""The routes of people without a name: strangers of cameras, faces of a folder of photos."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from face_encode.errors import InputError
from face_encode.gallery.base import unknown_id, unknown_number
from face_encode.server.bodies import read_body
from face_encode.server.people import checked_name
from face_encode.server.problems import Problem
from face_encode.server.schemas import (
    CHANGE_PROBLEMS,
    LIST_PROBLEMS,
    MAX_NUMBER,
    PERSON_PROBLEMS,
    ChangedAnswer,
    ChangedUnknown,
    UnknownAnswer,
    text_body,
)
from face_encode.server.security import Reader, Writer
from face_encode.server.service import TheService

unknown_router = APIRouter(prefix="/v1/unknown", tags=["unknown people"])

_MISSING = "nobody-unknown-of-that-number"


def _number(text: object) -> int:
    """The number of a group that is called so.

    Raises:
        Problem: Nobody is ever called so.
    """
    try:
        return unknown_number(str(text))
    except InputError as error:
        raise Problem(404, _MISSING, f"{error}.") from error


@unknown_router.get("", response_model=UnknownAnswer, responses=LIST_PROBLEMS)
def everybody_unknown(
    service: TheService,
    author: Reader,
    start: Annotated[int, Query(ge=0, le=MAX_NUMBER, description="How many to skip.")] = 0,
    count: Annotated[int, Query(ge=1, le=1_000, description="At most this many.")] = 100,
) -> dict[str, Any]:
    """List the people without a name, those who were seen last first."""
    groups, total = service.gallery.unknown.groups(start, count)
    return {"people": [group.as_dict() for group in groups], "total": total}


@unknown_router.get(
    "/faces/{face}/crop",
    responses={**PERSON_PROBLEMS, 200: {"content": {"image/jpeg": {}}}},
    response_class=Response,
)
def unknown_crop(
    face: Annotated[int, Path(ge=1, le=MAX_NUMBER)], service: TheService, author: Reader
) -> Response:
    """Return a face of somebody without a name."""
    content = service.gallery.unknown.crop(face)
    if content is None:
        raise Problem(404, "no-crop", "There is no such face, or its time is over.")
    return Response(content, media_type="image/jpeg")


@unknown_router.post(
    "/{unknown}/name",
    response_model=ChangedAnswer,
    responses=CHANGE_PROBLEMS,
    openapi_extra=text_body("name"),
)
async def name_unknown(
    unknown: str, request: Request, service: TheService, author: Writer
) -> dict[str, Any]:
    """Give somebody a name: the faces become photos of that person, new or known."""
    body = await read_body(request, [], ["name"], service.settings.limits)
    wanted, number = checked_name(body.texts.get("name")), _number(unknown)

    (name, photos), change = await service.change(
        author, lambda gallery: gallery.unknown.name(number, wanted), missing=_MISSING
    )
    return {"name": name, "photos": photos, "change": change}


@unknown_router.post(
    "/{unknown}/merge",
    response_model=ChangedUnknown,
    responses=CHANGE_PROBLEMS,
    openapi_extra=text_body("into"),
)
async def merge_unknown(
    unknown: str, request: Request, service: TheService, author: Writer
) -> dict[str, Any]:
    """Make one person of two without a name: the one of the path goes, ``into`` stays."""
    body = await read_body(request, [], ["into"], service.settings.limits)
    number, into = _number(unknown), _number(body.texts.get("into"))
    _, change = await service.change(
        author,
        lambda gallery: gallery.unknown.merge(number, into),
        missing=_MISSING,
        conflict="one-person-already",
    )
    return {"id": unknown_id(into), "change": change}


@unknown_router.delete("/{unknown}", response_model=ChangedUnknown, responses=PERSON_PROBLEMS)
async def dismiss_unknown(unknown: str, service: TheService, author: Writer) -> dict[str, Any]:
    """Delete somebody without a name; seen again, the person gets a new number."""
    number = _number(unknown)
    _, change = await service.change(
        author, lambda gallery: gallery.unknown.dismiss(number), missing=_MISSING
    )
    return {"id": unknown_id(number), "change": change}
