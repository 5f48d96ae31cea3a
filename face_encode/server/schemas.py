"""The shapes of answers and bodies, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from face_encode.attributes.answers import EXPRESSIONS
from face_encode.server.bodies import MAX_NAME_CHARACTERS, MAX_NOTE_CHARACTERS
from face_encode.video.cameras import State

MAX_NUMBER = 2**63 - 1
"""The highest number of a photo or a change in SQLite."""

_BOX_EXAMPLE = {"x": 61, "y": 48, "width": 148, "height": 148}


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid")


class BoundingBox(Answer):
    """A rectangle in pixels of the photo as it is shown, upright; clamped to it."""

    x: int
    y: int
    width: int
    height: int


_LIVENESS = Field(
    default=None,
    description="0..1, how far the face is alive, not a photo or a screen held up; only where the "
    "service requires it.",
)
_IS_LIVE = Field(default=None, description="Whether that suffices; if not, it matches nobody.")


class Candidate(Answer):
    """An enrolled person whom a face is like."""

    name: str
    similarity: float = Field(description="Cosine similarity to the nearest photo, -1 to 1.")
    photo: int = Field(description="The number of the person's photo that is nearest.")
    has_crop: bool = Field(description="Whether GET /v1/photos/{photo}/crop shows it.")


class MatchedFace(Answer):
    """A face and the enrolled person nearest to it."""

    name: str | None = Field(description="The nearest person; null while nobody is enrolled.")
    similarity: float | None = Field(description="Cosine similarity to that person, -1 to 1.")
    is_match: bool = Field(description="False: the face is unknown, whatever the name.")
    bounding_box: BoundingBox
    rotation: int = Field(
        description="How far the photo has to be turned clockwise for the face to stand upright: "
        "0, 90, 180 or 270 degrees."
    )
    probability: float | None = Field(
        default=None, description="Probability of that person; with a calibrated gallery only."
    )
    quality: float | None = Field(
        default=None,
        description="0..1, how far the face can be trusted; with an encoder that judges it only.",
    )
    quality_reason: str | None = Field(
        default=None, description="Why it cannot be trusted and matches nobody; null if it can."
    )
    liveness: float | None = _LIVENESS
    is_live: bool | None = _IS_LIVE
    threshold: float | None = Field(
        default=None, description="The person's own threshold; only of a person who has one."
    )
    challenge: str | None = Field(
        default=None,
        description='What the person is still to do before being matched, such as "turn your head '
        'left"; null once it is done; only where the request has a challenge.',
    )
    candidates: list[Candidate] | None = Field(
        default=None, description="The nearest people, the nearest first; where asked for only."
    )


_NOTES = Field(
    description="Remarks: what was not looked for, such as faces too small for so large a photo; "
    "that the end of the file is missing."
)

_MATCH_EXAMPLE = {
    "notes": [],
    "faces": [
        {
            "name": "Ada_Mirova",
            "similarity": 0.97,
            "is_match": True,
            "bounding_box": _BOX_EXAMPLE,
            "rotation": 0,
        }
    ],
}


class MatchAnswer(Answer, json_schema_extra={"examples": [_MATCH_EXAMPLE]}):
    """The faces of a photo, largest first."""

    faces: list[MatchedFace]
    notes: list[str] = _NOTES


class VerifyAnswer(Answer):
    """Whether two photos show one person, by the two of their faces that are most alike."""

    similarity: float
    threshold: float
    is_match: bool
    bounding_box_a: BoundingBox
    bounding_box_b: BoundingBox
    faces: list[int] = Field(description="How many faces each photo has.")
    compared: list[int] = Field(
        description="The number of the face in each that the answer is about, 0 for the largest."
    )
    qualities: list[float | None] = Field(
        description="0..1, how far each face can be trusted; null with an encoder that does not "
        "judge."
    )
    quality_reasons: list[str | None] = Field(
        description="Why a face cannot be trusted, so that there is no match; null if it can."
    )
    liveness: list[float] | None = Field(
        default=None,
        description="0..1, how far each face is alive; only where the service requires it.",
    )
    is_live: list[bool] | None = Field(
        default=None, description="Whether that suffices; if not, there is no match."
    )
    notes: list[str] = _NOTES


class PersonVerifyAnswer(Answer):
    """Whether the largest face of a photo is an enrolled person's."""

    name: str
    similarity: float = Field(description="To the nearest photo of the person, -1 to 1.")
    threshold: float
    is_match: bool
    photo: int = Field(description="The number of that photo.")
    has_crop: bool = Field(description="Whether GET /v1/photos/{photo}/crop shows it.")
    bounding_box: BoundingBox
    quality: float | None = Field(
        description="0..1, how far the face can be trusted; null with an encoder that does not "
        "judge."
    )
    quality_reason: str | None = Field(
        description="Why it cannot be trusted, so that there is no match; null if it can."
    )
    liveness: float | None = _LIVENESS
    is_live: bool | None = _IS_LIVE
    notes: list[str] = _NOTES


class EmbeddedFace(Answer):
    """A face and its embedding, which is not of length 1."""

    embedding: list[float]
    bounding_box: BoundingBox
    quality: float | None = Field(
        description="0..1, how far the embedding can be trusted; null with an encoder that does "
        "not judge."
    )
    quality_reason: str | None = Field(
        description="Why it is not to be compared with others; null if it is."
    )
    liveness: float | None = _LIVENESS
    is_live: bool | None = _IS_LIVE


class EmbedAnswer(Answer):
    """The embeddings of a photo's faces, largest first."""

    encoder: str
    fingerprint: str = Field(description="Equal exactly for encoders with equal embeddings.")
    faces: list[EmbeddedFace]
    notes: list[str] = _NOTES


class AnalyzedFace(Answer):
    """A face and how it looks; all null but box and quality where that cannot be told."""

    bounding_box: BoundingBox
    age: float | None = Field(description="Years.")
    age_interval: list[float] | None = Field(
        description="Two ages, between which nine in ten people of such a look are."
    )
    gender: Literal["woman", "man", "uncertain"] | None
    gender_probabilities: dict[str, float] | None
    expression: str | None = Field(description=f"One of {', '.join(EXPRESSIONS)}.")
    expression_probabilities: dict[str, float] | None
    quality: float | None = Field(description="0..1, how far all this can be trusted.")
    quality_reason: str | None = Field(description="Why it cannot be told; null if it can.")
    liveness: float | None = _LIVENESS
    is_live: bool | None = _IS_LIVE


class AnalyzeAnswer(Answer):
    """How the faces of a photo look, largest first."""

    faces: list[AnalyzedFace]
    notes: list[str] = _NOTES


class Person(Answer):
    """An enrolled person."""

    name: str
    photos: int
    note: str = Field(description="What is noted about the person; empty where nothing is.")
    threshold: float | None = Field(
        description="Similarity from which a face is this person's; null: as everybody's."
    )
    thumbnail: bool = Field(description="Whether there is a small picture.")


_CHANGE = Field(description="The number of the change, to undo it; null where nothing changed.")


class ChangedPerson(Person):
    """A person after a change."""

    change: int | None = _CHANGE


class PeopleAnswer(Answer):
    """Enrolled people, by name."""

    people: list[Person]
    total: int = Field(description="How many there are without start and count.")


class EnrolledPhoto(Answer):
    """An enrolled photo."""

    id: int
    source: str = Field(description="The name of its file; empty where unknown.")
    quality: float | None = Field(description="0 to 1; null where it was not measured.")
    box: BoundingBox | None = Field(description="The face in it; null where unknown.")
    enrolled_at: str = Field(description="UTC, ISO 8601.")
    enrolled_by: str
    has_crop: bool = Field(description="Whether GET /v1/photos/{photo}/crop shows the face.")


class PersonPhotos(Answer):
    """The photos of a person, in the order of enrolment."""

    name: str
    photos: list[EnrolledPhoto]


class LeftOutPhoto(Answer):
    """A photo that was not enrolled."""

    photo: str
    reason: str


class Doubt(Answer):
    """What is likely a mistake if a face is enrolled."""

    kind: Literal["looks like another", "unlike the others", "small face", "blurred face"]
    text: str = Field(description="The doubt in words.")
    person: str | None = Field(description="Whom the face looks like; null for another doubt.")


class CheckedFace(Answer):
    """A face of a photo that may be enrolled."""

    bounding_box: BoundingBox
    likeness: float | None = Field(
        description="Cosine similarity to the nearest of the person's other photos, those enrolled "
        "and those sent; null where there are none."
    )
    refusal: str | None = Field(description="Why the face would be left out; null if it would not.")
    doubts: list[Doubt]


class CheckedPhoto(Answer):
    """A photo that may be enrolled, with the faces in it."""

    photo: str
    error: str | None = Field(description="Why it cannot be enrolled; null if it can.")
    face: int | None = Field(
        description="The number of the face that is likely meant: the one most like the person's "
        "other photos, else 0, the largest; null where there is none."
    )
    faces: list[CheckedFace] = Field(description="Largest first.")


_CHECK_EXAMPLE = {
    "name": "Ada Lovelace",
    "photos": [
        {
            "photo": "1.jpg",
            "error": None,
            "face": 0,
            "faces": [
                {
                    "bounding_box": _BOX_EXAMPLE,
                    "likeness": 0.81,
                    "refusal": None,
                    "doubts": [
                        {
                            "kind": "looks like another",
                            "text": "looks like Mary Somerville (similarity 0.96)",
                            "person": "Mary Somerville",
                        }
                    ],
                }
            ],
        }
    ],
}


class CheckAnswer(Answer, json_schema_extra={"examples": [_CHECK_EXAMPLE]}):
    """What to know before photos are enrolled; nothing was changed."""

    name: str = Field(description="The name under which they would be enrolled.")
    photos: list[CheckedPhoto]


_ENROLMENT_EXAMPLE = {
    "name": "Ada Lovelace",
    "enrolled": 2,
    "reused": 1,
    "left_out": [{"photo": "3.jpg", "reason": "no face found"}],
    "notes": ["1.jpg: enrolled already"],
    "change": 17,
}


class EnrolmentAnswer(Answer, json_schema_extra={"examples": [_ENROLMENT_EXAMPLE]}):
    """The outcome of an enrolment, photo by photo."""

    name: str = Field(description="The enrolled form: trimmed, in Unicode's form NFC.")
    enrolled: int = Field(description="Photos that are enrolled now, those from before included.")
    reused: int = Field(description="Photos of them that were enrolled already.")
    left_out: list[LeftOutPhoto]
    notes: list[str] = Field(description="Likely mistakes, such as a blurred face.")
    change: int | None = _CHANGE


class ChangedAnswer(Answer):
    """The people were changed."""

    name: str = Field(description="The person who lost photos, or who has them now.")
    photos: int = Field(description="Photos removed or moved; after merging, all of the person.")
    change: int | None = _CHANGE


class UnknownLikeness(Answer):
    """Somebody without a name who may be a person that was forgotten."""

    id: str = Field(description="What the person is called, unknown-7.")
    similarity: float = Field(description="Mean cosine similarity to that person's photos, -1..1.")


class RemovedAnswer(ChangedAnswer):
    """A person was removed."""

    unknown: list[UnknownLikeness] = Field(
        default=[],
        description="Told with forget: the three people without a name who are most like that "
        "person, the nearest first. They stay until they are dismissed, or their time is over.",
    )


class AuditedThreshold(Answer):
    """A person's own threshold before and after a change; null where there is none."""

    name: str
    former: float | None
    new: float | None


class AuditedChange(Answer):
    """A change of the people, as the audit tells it."""

    id: int
    time: str = Field(description="UTC, ISO 8601.")
    author: str = Field(description="The client's token, or the program.")
    address: str
    action: str
    removed: dict[str, list[int]] = Field(description="Name: photos no longer that person's.")
    added: dict[str, list[int]] = Field(description="Name: photos that are that person's now.")
    renamed: list[str] | None = Field(description="The former and the new name.")
    threshold: AuditedThreshold | None = Field(description="Whose threshold changed, and how.")
    undoes: int | None = Field(description="The change that this one undid.")
    unknown: list[str] = Field(
        description="The people without a name who were named, merged or dismissed: unknown-7."
    )


class ChangesAnswer(Answer):
    """Changes of the people, the first first."""

    changes: list[AuditedChange]


class UndoneAnswer(Answer):
    """A change was undone."""

    undone: AuditedChange
    change: int | None = _CHANGE


class UnknownFace(Answer):
    """A face of somebody without a name."""

    id: int
    quality: float | None = Field(description="0 to 1; null where it was not measured.")
    source: str = Field(description="The camera or the photo's file.")
    seen_at: str = Field(description="UTC, ISO 8601.")


class UnknownPerson(Answer):
    """Somebody without a name."""

    id: str = Field(description="What the person is called, unknown-7; nobody else ever is.")
    seen: int = Field(description="Appearances before cameras, or faces in photos.")
    first_seen: str = Field(description="UTC, ISO 8601.")
    last_seen: str = Field(description="UTC, ISO 8601.")
    expires_at: str = Field(description="When the faces are deleted unless the person comes again.")
    faces: list[UnknownFace] = Field(
        description="The best ones, that of the highest quality first."
    )


class UnknownAnswer(Answer):
    """People without a name, those who were seen last first."""

    people: list[UnknownPerson]
    total: int = Field(description="How many there are without start and count.")


class ChangedUnknown(Answer):
    """Somebody without a name was changed."""

    id: str = Field(description="Who is gone, or has the faces now.")
    change: int | None = _CHANGE


class CameraFace(Answer):
    """A face in a camera's newest frame."""

    name: str | None = Field(description="The enrolled person; null while unknown.")
    similarity: float | None = Field(
        description="To that person, or the nearest; null before the face was seen well."
    )
    is_settled: bool = Field(
        description="Whether it was seen well often enough to be named or called unknown."
    )
    is_live: bool | None = Field(
        description="Whether it is alive; null where the service does not require that."
    )
    bounding_box: BoundingBox = Field(description="In pixels of the frame.")


class PersonThere(Answer):
    """Somebody who is before a camera."""

    id: str = Field(description="Of this stay; the events have it too.")
    name: str | None = Field(description="Null for somebody who is not enrolled.")
    unknown: str | None = Field(
        description="What somebody without a name is called; null where strangers are not kept."
    )
    since: str = Field(description="UTC, ISO 8601.")


_CAMERA_EXAMPLE = {
    "name": "front",
    "state": "live",
    "since": "2026-11-22T09:13:50.911+00:00",
    "detail": "",
    "frames_per_second": 9.8,
    "people": [
        {
            "id": "5c0e9b1f-1",
            "name": "Ada Lovelace",
            "unknown": None,
            "since": "2026-11-22T09:14:03.120+00:00",
        }
    ],
    "lost_events": 0,
    "width": 640,
    "height": 360,
    "faces": [
        {
            "name": "Ada Lovelace",
            "similarity": 0.97,
            "is_settled": True,
            "is_live": None,
            "bounding_box": _BOX_EXAMPLE,
        }
    ],
}


class CameraAnswer(Answer, json_schema_extra={"examples": [_CAMERA_EXAMPLE]}):
    """A camera of the service."""

    name: str
    state: State = Field(
        description="stalled: connected, and gives no picture. lost: cannot be reached, and is "
        "tried again. failed: its pictures cannot be worked on."
    )
    since: str = Field(description="Since when it is in this state; UTC, ISO 8601.")
    detail: str = Field(description="The reason in words; empty where it is live.")
    frames_per_second: float = Field(description="How many frames are looked at.")
    people: list[PersonThere] = Field(description="Who is there, in the order of arrival.")
    lost_events: int = Field(
        description="Events that could not be written since the start, as to a full disk."
    )
    width: int | None = Field(description="Of the newest frame; null where it is not live.")
    height: int | None
    faces: list[CameraFace] = Field(description="In the newest frame, largest first.")


class CamerasAnswer(Answer):
    """The cameras of the service, in the order of its options."""

    cameras: list[CameraAnswer]


_CAMERA_EVENT_EXAMPLE = {
    "number": 1795337643121,
    "source": "front",
    "event": "arrived",
    "id": "5c0e9b1f-1",
    "name": "Ada Lovelace",
    "from": 12.4,
    "to": 12.92,
    "best_similarity": 0.9688,
    "from_time": "2026-11-22T09:14:03.120+00:00",
    "to_time": "2026-11-22T09:14:03.640+00:00",
}


class CameraEventsAnswer(
    Answer, json_schema_extra={"examples": [{"events": [_CAMERA_EVENT_EXAMPLE]}]}
):
    """Events of the cameras: their number, and the members that a file of events has."""

    events: list[dict[str, Any]]


class HealthAnswer(Answer):
    """The service runs."""

    status: str


class SettingsAnswer(Answer):
    """How the service recognises faces, and how fast."""

    version: str
    encoder: str
    fingerprint: str
    detector: str
    people: int
    photos: int
    threshold: float = Field(description="Similarity from which a face is named.")
    verification_threshold: float = Field(description="Similarity from which two photos match.")
    threshold_from: str = Field(description="Its source: set, calibration or encoder.")
    calibration: dict[str, Any] | None
    limits: dict[str, int]
    keeps_crops: bool
    requires_live: bool = Field(description="Whether what is not alive matches nobody.")
    can_challenge: bool = Field(
        description="Whether the detector sees heads turn, as ?challenge= asks of them."
    )
    shows_attributes: bool = Field(description="Whether the page tells age, gender and expression.")
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
    """Describe the errors of an operation."""
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
    404: "There is no such person, photo, camera or change, or no picture.",
    408: "The request arrives too slowly.",
    409: "Somebody of the new name is enrolled already; or the change cannot be undone.",
    413: "The body is too large.",
    415: "Another media type.",
    421: "The service is not reached under this name.",
    422: "The request is not valid, or a photo cannot be used.",
    429: "Too much at once; Retry-After says when to come back.",
    503: "Overloaded, or a change could not be saved; nothing was changed.",
}

READING_PROBLEMS = _problems(401, 403, 421, 429, 503)
LIST_PROBLEMS = _problems(401, 403, 421, 422, 429, 503)
PHOTO_PROBLEMS = _problems(401, 403, 408, 413, 415, 421, 422, 429, 503)
PERSON_PROBLEMS = _problems(401, 403, 404, 421, 422, 429, 503)
CONFLICT = _problems(409)
CHANGE_PROBLEMS = _problems(401, 403, 404, 408, 409, 413, 415, 421, 422, 429, 503)


_Schema: TypeAlias = dict[str, Any]
_NAME = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARACTERS}
_TEXTS: _Schema = {
    "name": _NAME,
    "into": _NAME,
    "to": _NAME,
    "subject": _NAME,
    "note": {"type": "string", "maxLength": MAX_NOTE_CHARACTERS},
    "threshold": {"anyOf": [{"type": "number", "minimum": -1, "maximum": 1}, {"type": "null"}]},
}


def photo_body(*fields: str, named: bool = False, chosen: bool = False) -> _Schema:
    """Describe a body with photos, in both of its forms.

    Args:
        fields: Fields that hold one photo each, or several where the field's name ends in ``s``.
        named: Whether the body holds a person's name too.
        chosen: Whether it may say which face of each photo is meant.
    """
    meant = "The number of the face that is meant in each photo, from 0, the largest, to 999."

    def form(encoding: dict[str, str], faces: _Schema) -> _Schema:
        photo = {"type": "string", **encoding}
        properties: _Schema = {
            field: {"type": "array", "items": photo, "minItems": 1}
            if field.endswith("s")
            else photo
            for field in fields
        }
        described = _object({**properties, "name": _TEXTS["name"]} if named else properties)
        if chosen:
            described["schema"]["properties"]["faces"] = {**faces, "description": meant}
        return described

    number = {"type": "integer", "minimum": 0, "maximum": 999}
    return _body(
        {
            "multipart/form-data": form(
                {"format": "binary"}, {"type": "string", "pattern": "^[0-9]{1,3}(,[0-9]{1,3})*$"}
            ),
            "application/json": form(
                {"contentEncoding": "base64"}, {"type": "array", "items": number}
            ),
        }
    )


def text_body(*fields: str) -> _Schema:
    """Describe a body with one of these values."""
    schemas = [_object({field: _TEXTS[field]})["schema"] for field in fields]
    return _body({"application/json": {"schema": {"oneOf": schemas}}})


def _object(properties: _Schema) -> _Schema:
    return {
        "schema": {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
    }


def _body(forms: _Schema) -> _Schema:
    return {"requestBody": {"required": True, "content": forms}}
