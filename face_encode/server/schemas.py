"""The answers, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid")


class BoundingBox(Answer):
    """Pixels of the photo as it is shown, upright; clamped to it."""

    x: int
    y: int
    width: int
    height: int


class MatchedFace(Answer):
    """A face and the enrolled person nearest to it."""

    name: str | None = Field(description="The nearest person; null where nobody is enrolled.")
    similarity: float | None = Field(description="Cosine similarity to that person, -1 to 1.")
    is_match: bool = Field(description="False: the person is unknown, whatever the name.")
    bounding_box: BoundingBox
    probability: float | None = Field(
        default=None, description="That the two are one person; with a calibrated gallery only."
    )


class MatchAnswer(Answer):
    """The faces of a photo, the largest first."""

    faces: list[MatchedFace]


class VerifyAnswer(Answer):
    """Whether the largest faces of two photos are one person's."""

    similarity: float
    threshold: float
    is_match: bool
    bounding_box_a: BoundingBox
    bounding_box_b: BoundingBox


class EmbeddedFace(Answer):
    """A face and its embedding, as the network gives it: not of length 1."""

    embedding: list[float]
    bounding_box: BoundingBox


class EmbedAnswer(Answer):
    """The embeddings of a photo's faces, the largest first."""

    encoder: str
    fingerprint: str = Field(description="The same exactly for encoders that embed alike.")
    faces: list[EmbeddedFace]


class Person(Answer):
    """An enrolled person."""

    name: str
    photos: int
    thumbnail: bool = Field(description="Whether a small picture is kept.")


class PeopleAnswer(Answer):
    """Everybody enrolled, by name."""

    people: list[Person]


class LeftOutPhoto(Answer):
    """A photo that was not enrolled."""

    photo: str
    reason: str


class EnrolmentAnswer(Answer):
    """What became of each photo of an enrolment."""

    name: str = Field(description="As it is enrolled: trimmed, in Unicode's form NFC.")
    enrolled: int = Field(description="Photos that are enrolled now, those from before included.")
    reused: int = Field(description="Those of them that were enrolled already.")
    left_out: list[LeftOutPhoto]
    notes: list[str] = Field(description="Likely mistakes, such as a blurred face.")


class RemovalAnswer(Answer):
    """A person was removed."""

    name: str
    photos: int


class HealthAnswer(Answer):
    """The service runs."""

    status: str


class SettingsAnswer(Answer):
    """How the service recognises, and how fast."""

    version: str
    encoder: str
    fingerprint: str
    detector: str
    people: int
    photos: int
    threshold: float = Field(description="Similarity from which a face is named.")
    verification_threshold: float = Field(description="The same for a comparison of two photos.")
    threshold_from: str = Field(description="Where it comes from: set, calibration or encoder.")
    calibration: dict[str, Any] | None
    limits: dict[str, int]
    keeps_crops: bool
    needs_token: bool
    may_write: bool = Field(description="Whether the token of this request may change the people.")
    latency: dict[str, dict[str, float]]


class ProblemAnswer(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that an operation may answer with, for the OpenAPI document."""
    schema = {"$ref": "#/components/schemas/ProblemAnswer"}
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {"application/problem+json": {"schema": schema}},
        }
        for status in statuses
    }


_MEANINGS = {
    400: "No valid HTTP request.",
    401: "A token is missing or unknown.",
    403: "The token may only read, or another web page asks.",
    404: "Nobody of that name is enrolled, or no picture is kept.",
    408: "The request arrives too slowly.",
    409: "Somebody of the new name is enrolled already.",
    413: "The body is too large.",
    415: "Another media type.",
    421: "The service is not reached under this name.",
    422: "The request is not valid, or a photo cannot be used.",
    429: "Too much at once; Retry-After says when to come back.",
    503: "Overloaded, or a change could not be saved; nothing was changed.",
}

READING_PROBLEMS = _problems(401, 403, 421, 429, 503)
PHOTO_PROBLEMS = _problems(401, 403, 408, 413, 415, 421, 422, 429, 503)
PERSON_PROBLEMS = _problems(401, 403, 404, 421, 422, 429, 503)
CHANGE_PROBLEMS = _problems(401, 403, 404, 408, 409, 413, 415, 421, 422, 429, 503)


def photo_body(*fields: str, several: bool = False, text: str | None = None) -> dict[str, Any]:
    """The OpenAPI description of a body with photos, in both of its forms.

    Args:
        fields: Fields that hold one photo each.
        several: Whether there is the field ``photos``.
        text: A field that holds text.
    """

    def form(content: dict[str, str]) -> dict[str, Any]:
        photo = {"type": "string", **content}
        properties: dict[str, Any] = dict.fromkeys(fields, photo)
        required = list(fields)
        if several:
            properties["photos"] = {"type": "array", "items": photo, "minItems": 1}
            required.append("photos")
        if text is not None:
            properties[text] = {"type": "string", "minLength": 1, "maxLength": 200}
            required.append(text)
        return {
            "schema": {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            }
        }

    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": form({"format": "binary"}),
                "application/json": form({"contentEncoding": "base64"}),
            },
        }
    }
