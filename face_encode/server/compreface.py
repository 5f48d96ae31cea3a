"""The routes of CompreFace's recognition service, for programs that speak to one.

Addresses, answers and codes of errors are those of CompreFace 1.2:
https://github.com/exadel-inc/CompreFace/blob/master/docs/Rest-API-description.md
What is not the same is told in docs/coming_from/compreface.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from face_encode.errors import GalleryError, InputError, NotEnrolledError
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.people_rows import EnrolledPhoto
from face_encode.model import Face_Encode_Model
from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.server.bodies import read_body
from face_encode.server.people import PhotoNumber, checked_name, enrol_sent, enrolled
from face_encode.server.problems import Problem, gallery_problem, validation_problem
from face_encode.server.routes import unusable
from face_encode.server.schemas import MAX_NUMBER, Answer, photo_body, text_body
from face_encode.server.security import Reader, Writer
from face_encode.server.service import Service, TheService
from face_encode.types import Face

# Kind of problem -> status and CompreFace's code of it.
_CODES = {
    "token-unknown": (401, 10),
    "no-crop": (404, 11),
    "token-missing": (401, 20),
    "photo-unreadable": (400, 21),
    "no-face": (400, 28),
    "several-faces": (400, 31),
    "read-only-token": (403, 32),
    "photo-missing": (400, 34),
    "nobody-of-that-name": (404, 42),
    "name-taken": (400, 43),
    "no-such-photo": (404, 44),
}
_NOT_VALID, _UNDEFINED = 26, 0


class CompreFaceRoute(APIRoute):
    """Answers errors in CompreFace's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler; dependencies, such as the token's, are resolved inside it."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except Problem as error:
                problem = error
            except RequestValidationError as error:
                problem = validation_problem(error)
            except GalleryError as error:
                problem = gallery_problem(error)
            status = 400 if problem.status == 422 else problem.status
            status, code = _CODES.get(
                problem.kind, (status, _NOT_VALID if status == 400 else _UNDEFINED)
            )
            content = {"message": problem.body["detail"], "code": code}
            return JSONResponse(content, status, problem.headers)

        return answer


class CompreFaceError(BaseModel):
    """An error, as CompreFace tells it."""

    message: str
    code: int = Field(description="CompreFace's number of the error; 28: no face found.")


_ERROR = {
    "model": CompreFaceError,
    "description": "The request is refused. Limits and foreign web pages answer as problem+json.",
    "content": {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}
    },
}

compreface_router = APIRouter(
    prefix="/api/v1/recognition",
    tags=["CompreFace"],
    route_class=CompreFaceRoute,
    responses={"4XX": _ERROR, "5XX": _ERROR},
)


class FaceBox(Answer):
    """A rectangle in pixels of the photo as it is shown, upright."""

    probability: float = Field(description="Always 1: the detectors give no probability.")
    x_min: int
    y_min: int
    x_max: int
    y_max: int


class Subject(Answer):
    """An enrolled person, by name."""

    subject: str


class SimilarSubject(Subject):
    """An enrolled person who is in the photo."""

    similarity: float = Field(description="Cosine similarity, at least the service's threshold.")


class RecognizedFace(Answer):
    """A face and who it is."""

    box: FaceBox
    subjects: list[SimilarSubject] = Field(description="Empty for a face that is unknown.")


class RecognizeAnswer(Answer):
    """The faces of a photo, largest first."""

    result: list[RecognizedFace]


class ComparedFace(Answer):
    """A face beside that of an enrolled photo."""

    box: FaceBox
    similarity: float = Field(description="Cosine similarity; 0 where it is not that person.")


class VerifyFaceAnswer(Answer):
    """The faces of a photo beside an enrolled one, largest first."""

    result: list[ComparedFace]


class SavedFace(Subject):
    """An enrolled photo."""

    image_id: str = Field(description="Its number.")


class FacesAnswer(Answer):
    """A page of the enrolled photos."""

    faces: list[SavedFace]
    page_number: int
    page_size: int
    total_pages: int
    total_elements: int


class DeletedAnswer(Answer):
    """How many photos or people were removed."""

    deleted: int


class UpdatedAnswer(Answer):
    """A person was renamed, or merged with the one of the new name."""

    updated: bool


class SubjectsAnswer(Answer):
    """The names of the enrolled people."""

    subjects: list[str]


class Detection(BaseModel):
    """CompreFace's options of detection."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(
        default=0, ge=0, le=MAX_NUMBER, description="At most this many faces, largest first; 0: all"
    )
    det_prob_threshold: float = Field(default=0, ge=0, le=1, description="Without effect here.")
    face_plugins: str = Field(default="", description="Without effect here.")
    status: bool = Field(default=False, description="Without effect here.")


class Recognition(Detection):
    """CompreFace's options of recognition."""

    prediction_count: int = Field(
        default=1, ge=1, le=1_000, description="At most this many people for each face."
    )


class NewFace(BaseModel):
    """Whose photo is enrolled."""

    model_config = ConfigDict(extra="forbid")

    subject: str = Field(description="The person, new or known.")
    det_prob_threshold: float = Field(default=0, ge=0, le=1, description="Without effect here.")


class Page(BaseModel):
    """Which of the enrolled photos are listed."""

    model_config = ConfigDict(extra="forbid")

    page: int = Field(default=0, ge=0, le=MAX_NUMBER)
    size: int = Field(default=20, ge=1, le=10_000)
    subject: str | None = Field(default=None, description="Only this person's; left out: all.")


def _box(face: Face) -> dict[str, Any]:
    box = face.box
    return {
        "probability": 1,
        "x_min": box.left,
        "y_min": box.top,
        "x_max": box.left + box.width,
        "y_max": box.top + box.height,
    }


async def _embedded(request: Request, service: Service, options: Detection) -> EmbeddedPhoto:
    """Embed the faces of the photo sent.

    Only the fast detector looks: most of the pictures that a camera sends have no face.

    Raises:
        Problem: There is no face, or no photo.
    """
    limits = service.settings.limits
    body = await read_body(request, ["file"], [], limits)
    most = min(options.limit or limits.faces, limits.faces)
    detector = service.recogniser.detector(False, None)
    photo = await service.recogniser.embed(body.photo("file"), most, detector)
    if photo.error is not None:
        raise unusable(photo)
    return photo


@compreface_router.post(
    "/recognize", response_model=RecognizeAnswer, openapi_extra=photo_body("file")
)
async def recognize(
    request: Request,
    service: TheService,
    author: Reader,
    options: Annotated[Recognition, Query()],
) -> dict[str, Any]:
    """Name the faces in a photo; one without a face is the error 28."""
    photo = await _embedded(request, service, options)
    return {
        "result": await asyncio.to_thread(
            _recognized, service.model, photo, options.prediction_count
        )
    }


def _recognized(model: Face_Encode_Model, photo: EmbeddedPhoto, most: int) -> list[dict[str, Any]]:
    found = model.gallery.search(photo.embeddings, k=most)
    return [
        {
            "box": _box(face),
            "subjects": [
                {"subject": match.name, "similarity": match.similarity}
                for match in matches
                if model.describe(match, face)["is_match"]
            ],
        }
        for matches, face in zip(found, photo.faces, strict=False)
    ]


@compreface_router.post(
    "/faces/{photo}/verify", response_model=VerifyFaceAnswer, openapi_extra=photo_body("file")
)
async def verify_face(
    photo: PhotoNumber,
    request: Request,
    service: TheService,
    author: Reader,
    options: Annotated[Detection, Query()],
) -> dict[str, Any]:
    """Compare the faces in a photo with an enrolled one."""
    try:
        (known,) = await asyncio.to_thread(service.gallery.embeddings_of, [photo])
    except NotEnrolledError as error:
        raise Problem(404, "no-such-photo", f"{error}.") from error
    sent = await _embedded(request, service, options)
    result = []
    for face, embedding in zip(sent.faces, sent.embeddings, strict=False):
        similarity, is_match = service.model.compare_encodings(known, embedding)
        is_sure = is_match and face.is_trusted
        result.append({"box": _box(face), "similarity": similarity if is_sure else 0})
    return {"result": result}


@compreface_router.post(
    "/faces", status_code=201, response_model=SavedFace, openapi_extra=photo_body("file")
)
async def add_face(
    request: Request, service: TheService, author: Writer, options: Annotated[NewFace, Query()]
) -> dict[str, Any]:
    """Enrol a photo of one person, new or known; the same one again enrols nothing twice."""
    name = checked_name(options.subject)
    body = await read_body(request, ["file"], [], service.settings.limits)
    keep = service.settings.keep_crops
    photo = await service.recogniser.embed(body.photo("file"), 1, portraits=keep)
    if photo.error is not None:
        raise unusable(photo)
    if len(photo.faces) > 1:
        detail = f"{photo.photo}: one face is enrolled. Received: {len(photo.faces)} faces."
        raise Problem(422, "several-faces", detail)
    if photo.refusal is not None:
        raise Problem(422, "photo-refused", f"{photo.photo}: {photo.refusal}.")

    def make(gallery: DatabaseGallery) -> tuple[str, int]:
        report = enrol_sent(name, [photo], gallery, service.model)
        own = next(iter(report.per_person))
        if report.reused:
            return own, gallery.nearest_photo(own, photo.embeddings[0])[0].id
        return own, max(each.id for each in gallery.photos(own))

    (own, number), _ = await service.change(author, make)
    return {"image_id": str(number), "subject": own}


def _photos(gallery: DatabaseGallery, name: str | None) -> list[EnrolledPhoto]:
    """The photos of a person, or of everybody; none where nobody is of that name."""
    try:
        return gallery.photos(name)
    except (InputError, NotEnrolledError):
        return []


@compreface_router.get("/faces", response_model=FacesAnswer)
def faces(service: TheService, author: Reader, listed: Annotated[Page, Query()]) -> dict[str, Any]:
    """List the enrolled photos, in the order of enrolment; of an unknown person there are none."""
    photos = _photos(service.gallery, listed.subject)
    start = listed.page * listed.size
    return {
        "faces": [
            {"image_id": str(photo.id), "subject": photo.name}
            for photo in photos[start : start + listed.size]
        ],
        "page_number": listed.page,
        "page_size": listed.size,
        "total_pages": -(-len(photos) // listed.size),
        "total_elements": len(photos),
    }


def _remove_all(gallery: DatabaseGallery, name: str | None) -> dict[str, list[int]]:
    """Remove the photos of a person, or of everybody, in one change; gives them by name."""
    numbers = [photo.id for photo in _photos(gallery, name)]
    return gallery.remove_photos(numbers) if numbers else {}


@compreface_router.delete("/faces", response_model=DeletedAnswer)
async def delete_faces(
    service: TheService,
    author: Writer,
    subject: Annotated[str | None, Query(description="The person; left out: everybody.")] = None,
) -> dict[str, Any]:
    """Remove all photos of a person, or of everybody."""
    removed, _ = await service.change(author, lambda gallery: _remove_all(gallery, subject))
    return {"deleted": sum(map(len, removed.values()))}


@compreface_router.delete("/faces/{photo}", response_model=SavedFace)
async def delete_face(photo: PhotoNumber, service: TheService, author: Writer) -> dict[str, Any]:
    """Remove a photo; a person's last one removes the person."""
    removed, _ = await service.change(
        author, lambda gallery: gallery.remove_photos([photo]), missing="no-such-photo"
    )
    return {"image_id": str(photo), "subject": next(iter(removed))}


@compreface_router.get(
    "/faces/{photo}/img",
    responses={200: {"content": {"image/jpeg": {}}}},
    response_class=Response,
)
def face_image(photo: PhotoNumber, service: TheService, author: Reader) -> Response:
    """Return the face of an enrolled photo, where crops are kept."""
    content = service.gallery.crop(photo)
    if content is None:
        raise Problem(404, "no-crop", "No crop of this photo is kept.")
    return Response(content, media_type="image/jpeg")


# CompreFace's own description writes it with the slash.
@compreface_router.get("/subjects/", response_model=SubjectsAnswer, include_in_schema=False)
@compreface_router.get("/subjects", response_model=SubjectsAnswer)
def subjects(service: TheService, author: Reader) -> dict[str, Any]:
    """List the names of the enrolled people."""
    return {"subjects": list(service.gallery.people())}


@compreface_router.post(
    "/subjects", status_code=201, response_model=Subject, openapi_extra=text_body("subject")
)
async def add_subject(request: Request, service: TheService, author: Writer) -> dict[str, Any]:
    """Check that a name is free for a new person, who is there from the first photo on."""
    body = await read_body(request, [], ["subject"], service.settings.limits)
    name = checked_name(body.texts.get("subject"))
    if service.gallery.find_name(name) is not None:
        raise Problem(409, "name-taken", "Somebody of that name is enrolled already.")
    return {"subject": name}


@compreface_router.put(
    "/subjects/{name}", response_model=UpdatedAnswer, openapi_extra=text_body("subject")
)
async def rename_subject(
    name: str, request: Request, service: TheService, author: Writer
) -> dict[str, Any]:
    """Rename a person; where the new name is another person's, the two become one."""
    body = await read_body(request, [], ["subject"], service.settings.limits)
    new_name = checked_name(body.texts.get("subject"))

    def make(gallery: DatabaseGallery) -> None:
        own = enrolled(gallery, name).name
        other = gallery.find_name(new_name)
        if other is None or other == own:
            gallery.rename(own, new_name)
        else:
            gallery.merge(own, other)

    await service.change(author, make)
    return {"updated": True}


@compreface_router.delete("/subjects/{name}", response_model=Subject)
async def delete_subject(name: str, service: TheService, author: Writer) -> dict[str, Any]:
    """Remove a person."""

    def make(gallery: DatabaseGallery) -> str:
        own = enrolled(gallery, name).name
        gallery.remove(own)
        return own

    removed, _ = await service.change(author, make)
    return {"subject": removed}


@compreface_router.delete("/subjects", response_model=DeletedAnswer)
async def delete_subjects(service: TheService, author: Writer) -> dict[str, Any]:
    """Remove everybody."""
    removed, _ = await service.change(author, lambda gallery: _remove_all(gallery, None))
    return {"deleted": len(removed)}
