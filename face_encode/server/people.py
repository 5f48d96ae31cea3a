"""The routes of the people: enrolment, their photos, changes and how they are undone."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from face_encode.errors import InputError, NotEnrolledError
from face_encode.gallery.base import one_name_a_person, unknown_id
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.export import export_person
from face_encode.gallery.mistakes import Likeness, misplaced_photos
from face_encode.gallery.people_rows import EnrolledPerson
from face_encode.gallery.thresholds import check_threshold
from face_encode.model import Face_Encode_Model
from face_encode.pipeline.embedding import EmbeddedPhoto, without_embeddings
from face_encode.pipeline.enrolment import enrol_embedded
from face_encode.server.bodies import (
    MAX_NAME_CHARACTERS,
    MAX_NOTE_CHARACTERS,
    Body,
    SentPhoto,
    person_name,
    read_body,
)
from face_encode.server.problems import Problem
from face_encode.server.schemas import (
    CHANGE_PROBLEMS,
    CONFLICT,
    LIST_PROBLEMS,
    MAX_NUMBER,
    PERSON_PROBLEMS,
    ChangedAnswer,
    ChangedPerson,
    ChangesAnswer,
    EnrolmentAnswer,
    PeopleAnswer,
    Person,
    PersonPhotos,
    RemovedAnswer,
    UndoneAnswer,
    photo_body,
    text_body,
)
from face_encode.server.security import Reader, Writer
from face_encode.server.service import Service, TheService
from face_encode.types import EnrolmentReport

_THUMBNAIL_PIXELS = 96
_THUMBNAIL_QUALITY_PERCENT = 85

people_router = APIRouter(prefix="/v1", tags=["people"])


def checked_name(value: object) -> str:
    """Return the form in which a person's name is enrolled.

    Raises:
        Problem: The value is no name.
    """
    try:
        return person_name(value)
    except InputError as error:
        raise Problem(422, "not-a-name", f"{error}.") from error


def checked_note(value: object) -> str:
    """Return a note about a person; an empty one takes the note away.

    Raises:
        Problem: The value is no text, too long, or holds a lone surrogate.
    """
    # JSON may hold halves of characters, which cannot be written as UTF-8.
    if (
        not isinstance(value, str)
        or len(value) > MAX_NOTE_CHARACTERS
        or re.search("[\ud800-\udfff]", value)
    ):
        raise Problem(
            422,
            "not-a-note",
            f"A note is text of at most {MAX_NOTE_CHARACTERS} characters, all of them whole.",
        )
    return value


async def named_photos(
    request: Request, service: Service, fields: Sequence[str] = ()
) -> tuple[str, list[SentPhoto], Body]:
    """Read a person's name and photos, at least one; and the body, which may have more fields.

    Raises:
        Problem: There is no name or no photo in it, or another field.
    """
    fields = ["name", *fields]
    body = await read_body(request, ["photos", "photo"], fields, service.settings.limits)
    name = checked_name(body.texts.get("name"))
    sent = [*body.photos.get("photos", []), *body.photos.get("photo", [])]
    if not sent:
        raise Problem(422, "photo-missing", "The field 'photos' holds at least one photo.")
    return name, sent, body


def chosen_faces(value: object, photos: int) -> list[int] | None:
    """Return which face of each photo is meant; None where nobody said.

    Args:
        value: A list from JSON, or text with commas, as multipart has it.
        photos: How many photos there are.

    Raises:
        Problem: Not a whole number for each photo.
    """
    if value is None:
        return None
    texts = value.split(",") if isinstance(value, str) else []
    if isinstance(value, list) and all(type(each) is int for each in value):
        texts = list(map(str, value))
    if len(texts) != photos or not all(re.fullmatch("[0-9]{1,3}", each) for each in texts):
        raise Problem(
            422,
            "not-faces",
            "The field 'faces' holds the number of a face for each photo, from 0, the largest, to "
            f"999. Received: {str(value)[:50]} for {photos} photos.",
        )
    return list(map(int, texts))


def checked_threshold(value: object) -> float | None:
    """Return a person's own threshold; None takes it away.

    Raises:
        Problem: The value is no number within -1..1.
    """
    try:
        return check_threshold(value)  # type: ignore[arg-type]
    except InputError as error:
        raise Problem(422, "not-a-threshold", f"{error}.") from error


def enrolled(gallery: DatabaseGallery, name: str) -> EnrolledPerson:
    """Return the person that a path names, in whatever case, spacing and Unicode form.

    Raises:
        Problem: There is no such person.
    """
    try:
        return gallery.person(name)
    except (InputError, NotEnrolledError) as error:
        raise Problem(404, "nobody-of-that-name", "Nobody of that name is enrolled.") from error


def enrol_sent(
    name: str,
    sent: Sequence[EmbeddedPhoto],
    gallery: DatabaseGallery,
    model: Face_Encode_Model,
    *,
    refuse_mistakes: bool = False,
    chosen: bool = False,
) -> EnrolmentReport:
    """Enrol further photos of a person that are not enrolled under the name yet.

    Args:
        name: The person, new or known.
        sent: The photos, with their digests.
        gallery: The gallery.
        model: The model whose detector and encoder have embedded them.
        refuse_mistakes: Whether a photo that looks like somebody else is left out.
        chosen: Whether somebody has chosen the face of each: a photo of several people may be
            enrolled for each of them.

    Raises:
        Problem: Not one photo can be enrolled.
    """
    forms, notes = one_name_a_person([name], gallery)
    own = forms[name]
    owners = gallery.enrolled_as([photo.digest for photo in sent])
    photos: list[EmbeddedPhoto] = []
    for photo in sent:
        known = owners.get(photo.digest, [])
        earlier = {each.digest for each in photos}
        if photo.error is None and (own in known or photo.digest in earlier):
            # A client that missed our answer asks again: that enrols nothing twice.
            notes.append(f"{photo.photo}: enrolled already")
            continue
        if photo.error is None and known and not chosen:
            notes.append(f"{photo.photo}: the same photo is enrolled as {known[0]}")
        refusal = photo.refusal
        photos.append(photo if refusal is None else without_embeddings(photo.photo, refusal))
    again = len(sent) - len(photos)
    if not photos:
        return EnrolmentReport(again, {own: again}, (), again, tuple(notes))
    usable = [row for row, photo in enumerate(photos) if photo.error is None]
    embeddings = np.array([photos[row].embeddings[0] for row in usable])
    misplaced: Mapping[int, Likeness] = {}
    if refuse_mistakes and usable:
        misplaced = misplaced_photos([own] * len(usable), embeddings, gallery, model.threshold)
    found = gallery.search(embeddings, k=2) if usable else []
    for place, (row, matches) in enumerate(zip(usable, found, strict=True)):
        photo = photos[row]
        if place in misplaced:
            photos[row] = without_embeddings(photo.photo, str(misplaced[place]))
            continue
        notes += [
            f"{photo.photo}: looks like {match.name}, who is enrolled too "
            f"(similarity {match.similarity:.2f}): one person under two names?"
            for match in matches
            if match.name != own and match.similarity >= model.threshold
        ]
    if all(photo.error is not None for photo in photos):
        rows = [{"photo": photo.photo, "reason": str(photo.error)} for photo in photos]
        detail = f"None of the {len(photos)} photos can be enrolled."
        raise Problem(422, "no-photo-usable", detail, left_out=rows)
    report = enrol_embedded(own, photos, gallery, model.detector, model.encoder)
    now = report.enrolled + again
    return replace(
        report, enrolled=now, per_person={own: now}, reused=again, notes=(*notes, *report.notes)
    )


def _described(person: EnrolledPerson) -> dict[str, Any]:
    """A person as the schema describes one."""
    return {
        "name": person.name,
        "photos": person.photos,
        "note": person.note,
        "threshold": person.threshold,
        "thumbnail": person.crop is not None,
    }


class PeopleList(BaseModel):
    """What part of the people is listed."""

    model_config = ConfigDict(extra="forbid")

    search: str = Field(
        default="", max_length=MAX_NAME_CHARACTERS, description="Part of a name, in any case."
    )
    start: int = Field(default=0, ge=0, le=MAX_NUMBER, description="How many to skip.")
    count: int = Field(default=1_000, ge=1, le=10_000, description="At most this many.")


@people_router.get("/people", response_model=PeopleAnswer, responses=LIST_PROBLEMS)
def everybody(
    service: TheService, author: Reader, listed: Annotated[PeopleList, Query()]
) -> dict[str, Any]:
    """List the enrolled people by name, all of them or those whose names hold a text."""
    people, total = service.gallery.find_people(listed.search, listed.start, listed.count)
    return {"people": list(map(_described, people)), "total": total}


@people_router.post(
    "/people",
    response_model=EnrolmentAnswer,
    responses=CHANGE_PROBLEMS,
    openapi_extra=photo_body("photos", named=True, chosen=True),
)
async def enrol(
    request: Request,
    service: TheService,
    author: Writer,
    refuse_mistakes: Annotated[
        bool, Query(description="Leave out photos that look like somebody else.")
    ] = False,
) -> dict[str, Any]:
    """Enrol photos of a person, new or known, by the largest face of each, or the one chosen."""
    name, sent, body = await named_photos(request, service, ["faces"])
    numbers = chosen_faces(body.texts.get("faces"), len(sent))
    photos = await service.recogniser.embed_all(
        sent, 1, portraits=service.settings.keep_crops, chosen=numbers
    )
    report, change = await service.change(
        author,
        lambda gallery: enrol_sent(
            name,
            photos,
            gallery,
            service.model,
            refuse_mistakes=refuse_mistakes,
            chosen=numbers is not None,
        ),
    )
    return {
        "name": next(iter(report.per_person)),
        "enrolled": report.enrolled,
        "reused": report.reused,
        "left_out": [{"photo": row.photo, "reason": row.reason} for row in report.left_out],
        "notes": list(report.notes),
        "change": change,
    }


@people_router.get("/people/{name}", response_model=Person, responses=PERSON_PROBLEMS)
def person(name: str, service: TheService, author: Reader) -> dict[str, Any]:
    """Describe one person."""
    return _described(enrolled(service.gallery, name))


@people_router.patch(
    "/people/{name}",
    response_model=ChangedPerson,
    responses=CHANGE_PROBLEMS,
    openapi_extra=text_body("name", "note", "threshold"),
)
async def rename(
    name: str, request: Request, service: TheService, author: Writer
) -> dict[str, Any]:
    """Rename a person, note something about a person, or set the person's own threshold."""
    fields = ["name", "note", "threshold"]
    body = await read_body(request, [], fields, service.settings.limits)
    if len(body.texts) != 1:
        detail = "The body holds one of a new 'name', a 'note' or a 'threshold'."
        raise Problem(422, "one-thing-at-a-time", detail)
    if "threshold" in body.texts:
        threshold = checked_threshold(body.texts["threshold"])

        def make(gallery: DatabaseGallery) -> EnrolledPerson:
            gallery.set_threshold(enrolled(gallery, name).name, threshold)
            return gallery.person(name)

    elif "note" in body.texts:
        note = checked_note(body.texts["note"])

        def make(gallery: DatabaseGallery) -> EnrolledPerson:
            gallery.set_note(enrolled(gallery, name).name, note)
            return gallery.person(name)

    else:
        new_name = checked_name(body.texts["name"])

        def make(gallery: DatabaseGallery) -> EnrolledPerson:
            gallery.rename(enrolled(gallery, name).name, new_name)
            return gallery.person(new_name)

    changed, change = await service.change(author, make, conflict="name-taken")
    return {**_described(changed), "change": change}


@people_router.delete(
    "/people/{name}",
    response_model=RemovedAnswer,
    response_model_exclude_unset=True,
    responses=PERSON_PROBLEMS,
)
async def remove(
    name: str,
    service: TheService,
    author: Writer,
    forget: Annotated[
        bool, Query(description="Clear every trace of the person from the file; for good.")
    ] = False,
) -> dict[str, Any]:
    """Remove a person."""

    def make(gallery: DatabaseGallery) -> dict[str, Any]:
        own = enrolled(gallery, name).name
        if not forget:
            return {"name": own, "photos": gallery.remove(own)}
        photos = [photo.id for photo in gallery.photos(own)]
        alike = gallery.unknown.most_like(gallery.embeddings_of(photos))
        unknown = [{"id": unknown_id(number), "similarity": near} for number, near in alike]
        return {"name": own, "photos": gallery.forget(own), "unknown": unknown}

    answer, change = await service.change(author, make)
    return {**answer, "change": change}


@people_router.post(
    "/people/{name}/merge",
    response_model=ChangedAnswer,
    responses=CHANGE_PROBLEMS,
    openapi_extra=text_body("into"),
)
async def merge(name: str, request: Request, service: TheService, author: Writer) -> dict[str, Any]:
    """Make one person of two names: that of the path goes, the one in ``into`` stays."""
    body = await read_body(request, [], ["into"], service.settings.limits)
    into = checked_name(body.texts.get("into"))

    def make(gallery: DatabaseGallery) -> tuple[str, int]:
        own = enrolled(gallery, into).name
        return own, gallery.merge(enrolled(gallery, name).name, own)

    (own, photos), change = await service.change(author, make, conflict="one-person-already")
    return {"name": own, "photos": photos, "change": change}


@people_router.get(
    "/people/{name}/thumbnail",
    responses={**PERSON_PROBLEMS, 200: {"content": {"image/jpeg": {}}}},
    response_class=Response,
)
def thumbnail(name: str, service: TheService, author: Reader) -> Response:
    """Return a small picture of a person, where crops are kept."""
    crop = enrolled(service.gallery, name).crop
    content = None if crop is None else service.gallery.crop(crop)
    if content is None:
        raise Problem(404, "no-thumbnail", "No picture of this person is kept.")
    picture = Image.open(io.BytesIO(content))
    picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    small = io.BytesIO()
    picture.save(small, "JPEG", quality=_THUMBNAIL_QUALITY_PERCENT)
    return Response(small.getvalue(), media_type="image/jpeg")


@people_router.get("/people/{name}/photos", response_model=PersonPhotos, responses=PERSON_PROBLEMS)
def photos_of(name: str, service: TheService, author: Reader) -> dict[str, Any]:
    """List the photos of a person, in the order of enrolment."""
    own = enrolled(service.gallery, name).name
    shown = ("id", "source", "quality", "box", "enrolled_at", "enrolled_by", "has_crop")
    photos = [photo.as_dict() for photo in service.gallery.photos(own)]
    return {"name": own, "photos": [{key: photo[key] for key in shown} for photo in photos]}


@people_router.get(
    "/people/{name}/export",
    responses={**PERSON_PROBLEMS, 200: {"content": {"application/zip": {}}}},
    response_class=Response,
)
def export(name: str, service: TheService, author: Writer) -> Response:
    """Return everything that is kept of a person as a zip file: a data subject's right."""
    own = enrolled(service.gallery, name).name
    content = io.BytesIO()
    export_person(service.gallery, own, content)
    headers = {"Content-Disposition": 'attachment; filename="person.zip"'}
    return Response(content.getvalue(), media_type="application/zip", headers=headers)


PhotoNumber = Annotated[int, Path(ge=1, le=MAX_NUMBER)]


@people_router.get(
    "/photos/{photo}/crop",
    responses={**PERSON_PROBLEMS, 200: {"content": {"image/jpeg": {}}}},
    response_class=Response,
)
def crop(photo: PhotoNumber, service: TheService, author: Reader) -> Response:
    """Return the face of an enrolled photo, where crops are kept."""
    content = service.gallery.crop(photo)
    if content is None:
        raise Problem(404, "no-crop", "No crop of this photo is kept.")
    return Response(content, media_type="image/jpeg")


@people_router.delete("/photos/{photo}", response_model=ChangedAnswer, responses=PERSON_PROBLEMS)
async def remove_photo(photo: PhotoNumber, service: TheService, author: Writer) -> dict[str, Any]:
    """Remove a photo; a person's last one removes the person."""
    removed, change = await service.change(
        author, lambda gallery: gallery.remove_photos([photo]), missing="no-such-photo"
    )
    return {"name": next(iter(removed)), "photos": 1, "change": change}


@people_router.post(
    "/photos/{photo}/move",
    response_model=ChangedAnswer,
    responses=CHANGE_PROBLEMS,
    openapi_extra=text_body("to"),
)
async def move_photo(
    photo: PhotoNumber, request: Request, service: TheService, author: Writer
) -> dict[str, Any]:
    """Make a photo that of another person, new or known."""
    body = await read_body(request, [], ["to"], service.settings.limits)
    to = checked_name(body.texts.get("to"))
    name, change = await service.change(
        author, lambda gallery: gallery.move_photos([photo], to), missing="no-such-photo"
    )
    return {"name": name, "photos": 1, "change": change}


@people_router.post(
    "/photos/{photo}/picture", response_model=ChangedAnswer, responses=CHANGE_PROBLEMS
)
async def set_picture(photo: PhotoNumber, service: TheService, author: Writer) -> dict[str, Any]:
    """Show the face of this photo as the person's picture."""
    name, change = await service.change(
        author,
        lambda gallery: gallery.set_picture(photo),
        missing="no-such-photo",
        conflict="no-crop",
    )
    return {"name": name, "photos": 1, "change": change}


@people_router.get("/changes", response_model=ChangesAnswer, responses=LIST_PROBLEMS)
def changes(
    service: TheService,
    author: Writer,
    since: Annotated[
        int, Query(ge=0, le=MAX_NUMBER, description="Only changes after the one of this number.")
    ] = 0,
    count: Annotated[int, Query(ge=1, le=10_000, description="At most this many.")] = 1_000,
) -> dict[str, Any]:
    """List the changes of the people and their authors, the first first."""
    found = service.gallery.changes(since, count)
    return {"changes": [change.as_dict() for change in found]}


@people_router.post("/undo", response_model=UndoneAnswer, responses=PERSON_PROBLEMS | CONFLICT)
async def undo(
    service: TheService,
    author: Writer,
    change: Annotated[
        int | None, Query(ge=1, le=MAX_NUMBER, description="Its number; left out: the last one.")
    ] = None,
) -> dict[str, Any]:
    """Undo a change of the people.

    What was removed can be put back by the service that removed it, for as long as it runs.
    """
    undone, number = await service.change(
        author,
        lambda gallery: gallery.undo(change),
        missing="no-such-change",
        conflict="cannot-be-undone",
    )
    return {"undone": undone.as_dict(), "change": number}
