"""A client of the service, for programs on other machines.

It takes httpx and nothing else: neither TensorFlow nor NumPy, nor the rest of this package.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, cast
from urllib.parse import quote

from face_encode.errors import InputError, MissingExtraError, ServiceError

try:
    import httpx
except ImportError as error:
    raise MissingExtraError('the client needs httpx: pip install "face_encode[client]"') from error

Photo: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview"
"""A photo's path, or the bytes of its file."""

_Content: TypeAlias = bytes | bytearray | memoryview

_PROBLEM = "urn:face-encode:problem:"


class _Judged(TypedDict, total=False):
    """What is there only where the service requires live faces."""

    liveness: float
    is_live: bool


class BoundingBox(TypedDict):
    """A rectangle in pixels of the photo as it is shown, upright."""

    x: int
    y: int
    width: int
    height: int


class _Named(TypedDict):
    name: str | None
    similarity: float | None
    is_match: bool
    bounding_box: BoundingBox
    rotation: int


class Candidate(TypedDict):
    """An enrolled person whom a face is like, and the number of that person's nearest photo."""

    name: str
    similarity: float
    photo: int
    has_crop: bool


class MatchedFace(_Named, _Judged, total=False):
    """A face and the person nearest to it, who is meant only where ``is_match``.

    ``probability`` is there with a calibrated gallery, the quality with an encoder that judges its
    embeddings, ``threshold`` of a person who has one, the last two where asked for.
    """

    probability: float
    quality: float
    quality_reason: str | None
    threshold: float
    challenge: str | None
    candidates: list[Candidate]


class Matched(TypedDict):
    """The faces of a photo, largest first, and what was not looked for."""

    faces: list[MatchedFace]
    notes: list[str]


class _Compared(TypedDict):
    similarity: float
    threshold: float
    is_match: bool
    bounding_box_a: BoundingBox
    bounding_box_b: BoundingBox
    faces: list[int]
    compared: list[int]
    qualities: list[float | None]
    quality_reasons: list[str | None]
    notes: list[str]


class Verified(_Compared, total=False):
    """Whether two photos show one person, by the two of their faces that are most alike.

    The last two are there only where the service requires live faces.
    """

    liveness: list[float]
    is_live: list[bool]


class PersonVerified(_Judged):
    """Whether the largest face of a photo is an enrolled person's; ``photo`` is the nearest."""

    name: str
    similarity: float
    threshold: float
    is_match: bool
    photo: int
    has_crop: bool
    bounding_box: BoundingBox
    quality: float | None
    quality_reason: str | None
    notes: list[str]


class EmbeddedFace(_Judged):
    """A face and its embedding, which is not of length 1."""

    embedding: list[float]
    bounding_box: BoundingBox
    quality: float | None
    quality_reason: str | None


class Embedded(TypedDict):
    """The embeddings of a photo's faces, largest first."""

    encoder: str
    fingerprint: str
    faces: list[EmbeddedFace]
    notes: list[str]


class AnalyzedFace(_Judged):
    """A face and how it looks; all None but box and quality where that cannot be told."""

    bounding_box: BoundingBox
    age: float | None
    age_interval: list[float] | None
    gender: Literal["woman", "man", "uncertain"] | None
    gender_probabilities: dict[str, float] | None
    expression: str | None
    expression_probabilities: dict[str, float] | None
    quality: float | None
    quality_reason: str | None


class Analyzed(TypedDict):
    """How the faces of a photo look, largest first."""

    faces: list[AnalyzedFace]
    notes: list[str]


class LeftOut(TypedDict):
    """A photo that was not enrolled."""

    photo: str
    reason: str


class Doubt(TypedDict):
    """What is likely a mistake if a face is enrolled; ``person`` is whom it looks like."""

    kind: Literal["looks like another", "unlike the others", "small face", "blurred face"]
    text: str
    person: str | None


class CheckedFace(TypedDict):
    """A face that may be enrolled; ``likeness`` is that to the person's other photos."""

    bounding_box: BoundingBox
    likeness: float | None
    refusal: str | None
    doubts: list[Doubt]


class CheckedPhoto(TypedDict):
    """A photo that may be enrolled; ``face`` is the number of the one that is likely meant."""

    photo: str
    error: str | None
    face: int | None
    faces: list[CheckedFace]


class Checked(TypedDict):
    """What to know before photos are enrolled."""

    name: str
    photos: list[CheckedPhoto]


class Enrolled(TypedDict):
    """The outcome of an enrolment, photo by photo."""

    name: str
    enrolled: int
    reused: int
    left_out: list[LeftOut]
    notes: list[str]
    change: int | None


class Person(TypedDict):
    """An enrolled person."""

    name: str
    photos: int
    note: str
    threshold: float | None
    thumbnail: bool


class ChangedPerson(Person):
    """A person after a change, and the number of the change."""

    change: int | None


class People(TypedDict):
    """Enrolled people by name, and how many there are in all."""

    people: list[Person]
    total: int


class EnrolledPhoto(TypedDict):
    """An enrolled photo."""

    id: int
    source: str
    quality: float | None
    box: BoundingBox | None
    enrolled_at: str
    enrolled_by: str
    has_crop: bool


class Changed(TypedDict):
    """A person whose photos were changed: how many, and the number of the change."""

    name: str
    photos: int
    change: int | None


class UnknownLikeness(TypedDict):
    """Somebody without a name, and how similar to a person who was forgotten."""

    id: str
    similarity: float


class Removed(Changed, total=False):
    """A person who was removed; forgotten, with those without a name who are most like that one."""

    unknown: list[UnknownLikeness]


class AuditedThreshold(TypedDict):
    """A person's own threshold before and after a change."""

    name: str
    former: float | None
    new: float | None


class AuditedChange(TypedDict):
    """A change of the people, and who made it."""

    id: int
    time: str
    author: str
    address: str
    action: str
    removed: dict[str, list[int]]
    added: dict[str, list[int]]
    renamed: list[str] | None
    threshold: AuditedThreshold | None
    undoes: int | None
    unknown: list[str]


class UnknownFace(TypedDict):
    """A face of somebody without a name; ``source`` is the camera or the photo's file."""

    id: int
    quality: float | None
    source: str
    seen_at: str


class UnknownPerson(TypedDict):
    """Somebody without a name; ``id`` is what the person is called, ``unknown-7``."""

    id: str
    seen: int
    first_seen: str
    last_seen: str
    expires_at: str
    faces: list[UnknownFace]


class UnknownPeople(TypedDict):
    """People without a name, and how many there are in all."""

    people: list[UnknownPerson]
    total: int


class ChangedUnknown(TypedDict):
    """Who is gone, or has the faces now, and the number of the change."""

    id: str
    change: int | None


class Undone(TypedDict):
    """The change that was undone, and the number of the change that undid it."""

    undone: AuditedChange
    change: int | None


class CameraFace(TypedDict):
    """A face in a camera's newest frame; the name is None while it is unknown."""

    name: str | None
    similarity: float | None
    is_settled: bool
    is_live: bool | None
    bounding_box: BoundingBox


class PersonThere(TypedDict):
    """Somebody who is before a camera: by name, or as ``unknown`` where strangers are kept."""

    id: str
    name: str | None
    unknown: str | None
    since: str


class Camera(TypedDict):
    """A camera of the service: how it is, and who is there.

    Width and height, and the faces, are those of the newest frame, while it is live.
    """

    name: str
    state: Literal["connecting", "live", "stalled", "lost", "wrong-password", "failed"]
    since: str
    detail: str
    frames_per_second: float
    lost_events: int
    people: list[PersonThere]
    width: int | None
    height: int | None
    faces: list[CameraFace]


class Settings(TypedDict):
    """How the service recognises faces, and how fast."""

    version: str
    encoder: str
    fingerprint: str
    detector: str
    people: int
    photos: int
    threshold: float
    verification_threshold: float
    threshold_from: str
    calibration: dict[str, Any] | None
    limits: dict[str, int]
    keeps_crops: bool
    requires_live: bool
    can_challenge: bool
    shows_attributes: bool
    needs_token: bool
    may_write: bool
    latency: dict[str, dict[str, float]]


class Client:
    """Speaks to a service, over connections that are kept open; safe to share among threads.

    Every method raises ``ServiceError`` where the service refuses, fails or cannot be reached, and
    ``InputError`` for a photo that cannot be read and for what cannot be sent. The service says by
    ``Retry-After`` when it has room again; the client then waits and asks again, within its bounds.

    Examples:
        >>> from face_encode.client import Client
        >>> with Client("http://hall:8000", token="TOKEN") as client:  # doctest: +SKIP
        ...     client.enrol("Ada Lovelace", ["1.jpg", "2.jpg"])
        ...     for face in client.match("party.jpg")["faces"]:
        ...         print(face["name"] if face["is_match"] else "unknown", face["bounding_box"])
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        token: str | None = None,
        *,
        timeout_seconds: float = 90,
        retries: int = 3,
        max_wait_seconds: float = 60,
    ) -> None:
        """Take the address; nothing is sent yet.

        Args:
            url: Where the service is, with the path below which a proxy has put it.
            token: The token, where the service asks for one: ASCII letters, digits and signs.
            timeout_seconds: How long to wait for an answer.
            retries: How often to ask again at most where the service has no room.
            max_wait_seconds: How long to wait for room at most, in all, for one call.

        Raises:
            InputError: No address of HTTP, or no token.
        """
        # The error does not repeat it.
        if token is not None and not (token.strip() and token.isascii() and token.isprintable()):
            raise InputError(
                "a token has at least one letter, digit or sign, all of them ASCII. "
                f"Received: {len(token)} characters"
            )
        self._retries, self._max_wait_seconds = retries, max_wait_seconds
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_seconds)
        except httpx.InvalidURL as error:
            raise InputError(f"the service's address is a URL. Received: {url!r}") from error
        if self._http.base_url.scheme not in ("http", "https") or not self._http.base_url.host:
            raise InputError(f"the service's address begins with http:// or https://: {url!r}")

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def match(
        self,
        photo: Photo,
        *,
        max_faces: int | None = None,
        thorough: bool | None = None,
        min_face: int | None = None,
        threshold: float | None = None,
        min_quality: float | None = None,
        candidates: int | None = None,
        challenge: str | None = None,
    ) -> Matched:
        """Name the faces in a photo. For an argument that is None the service decides.

        Args:
            photo: The photo.
            max_faces: At most this many faces, largest first.
            thorough: False looks with the fast detector only.
            min_face: Side of the smallest face to look for, in pixels.
            threshold: Similarity from which a face is a person's, -1..1.
            min_quality: A face of lower quality matches nobody, 0..1.
            candidates: Tell this many of the nearest people of each face, too.
            challenge: A word of your own for a camera, 8 to 64 letters and digits, the same for
                each of its pictures: nobody is matched before turning the head as asked.
        """
        options = {
            "max_faces": max_faces,
            "thorough": thorough,
            "min_face": min_face,
            "threshold": threshold,
            "min_quality": min_quality,
            "candidates": candidates,
            "challenge": challenge,
        }
        found = self._ask("POST", "match", options=options, photos=[("photo", photo)])
        return cast(Matched, found)

    def verify(
        self,
        photo_a: Photo,
        photo_b: Photo,
        *,
        threshold: float | None = None,
        min_quality: float | None = None,
    ) -> Verified:
        """Compare the faces of two photos: is somebody on both? Options as for ``match``."""
        options = {"threshold": threshold, "min_quality": min_quality}
        photos = [("photo_a", photo_a), ("photo_b", photo_b)]
        return cast(Verified, self._ask("POST", "verify", options=options, photos=photos))

    def verify_person(
        self,
        name: str,
        photo: Photo,
        *,
        threshold: float | None = None,
        min_quality: float | None = None,
    ) -> PersonVerified:
        """Compare the largest face of a photo with one person's; options as for ``match``."""
        options = {"threshold": threshold, "min_quality": min_quality}
        address, photos = f"{_person(name)}/verify", [("photo", photo)]
        return cast(PersonVerified, self._ask("POST", address, options=options, photos=photos))

    def embed(
        self,
        photo: Photo,
        *,
        max_faces: int | None = None,
        thorough: bool | None = None,
        min_face: int | None = None,
    ) -> Embedded:
        """Return the embeddings of the faces in a photo; options as for ``match``."""
        options = {"max_faces": max_faces, "thorough": thorough, "min_face": min_face}
        found = self._ask("POST", "embed", options=options, photos=[("photo", photo)])
        return cast(Embedded, found)

    def analyze(
        self,
        photo: Photo,
        *,
        max_faces: int | None = None,
        thorough: bool | None = None,
        min_face: int | None = None,
    ) -> Analyzed:
        """Tell age, gender and expression of the faces in a photo; options as for ``match``."""
        options = {"max_faces": max_faces, "thorough": thorough, "min_face": min_face}
        found = self._ask("POST", "analyze", options=options, photos=[("photo", photo)])
        return cast(Analyzed, found)

    def check(self, name: str, photos: Sequence[Photo]) -> Checked:
        """Look at photos before they are enrolled: the faces in each, and likely mistakes.

        Args:
            name: The person, new or known.
            photos: At least one.
        """
        answer = self._ask("POST", "people/check", photos=_several(photos), texts={"name": name})
        return cast(Checked, answer)

    def enrol(
        self,
        name: str,
        photos: Sequence[Photo],
        *,
        refuse_mistakes: bool = False,
        faces: Sequence[int] | None = None,
    ) -> Enrolled:
        """Enrol photos of a person, new or known; those that are enrolled already stay so.

        Args:
            name: The person.
            photos: At least one.
            refuse_mistakes: Whether to leave out photos that look like somebody else.
            faces: The number of the face that is meant in each photo, as ``check`` numbers them;
                None for the largest.
        """
        texts = {} if faces is None else {"faces": ",".join(map(str, faces))}
        answer = self._ask(
            "POST",
            "people",
            options={"refuse_mistakes": refuse_mistakes},
            photos=_several(photos),
            texts={"name": name, **texts},
        )
        return cast(Enrolled, answer)

    def people(self, search: str = "", *, start: int = 0, count: int = 1_000) -> People:
        """List the enrolled people by name.

        Args:
            search: Part of a name.
            start: How many to skip.
            count: At most this many.
        """
        options = {"search": search, "start": start, "count": count}
        return cast(People, self._ask("GET", "people", options=options))

    def person(self, name: str) -> Person:
        """Describe a person."""
        return cast(Person, self._ask("GET", _person(name)))

    def photos(self, name: str) -> list[EnrolledPhoto]:
        """List the photos of a person, in the order of enrolment."""
        answer = self._ask("GET", f"{_person(name)}/photos")
        return cast("list[EnrolledPhoto]", answer["photos"])

    def crop(self, photo: int) -> bytes:
        """Return the face of an enrolled photo as JPEG, where crops are kept."""
        return self._send("GET", f"photos/{int(photo)}/crop").content

    def rename(self, name: str, new_name: str) -> ChangedPerson:
        """Rename a person; where the new name is taken, ``merge`` makes the two one."""
        answer = self._ask("PATCH", _person(name), body={"name": new_name})
        return cast(ChangedPerson, answer)

    def note(self, name: str, note: str) -> ChangedPerson:
        """Note something about a person, in the place of what was noted before."""
        return cast(ChangedPerson, self._ask("PATCH", _person(name), body={"note": note}))

    def set_threshold(self, name: str, threshold: float | None) -> ChangedPerson:
        """Give a person a threshold of the person's own, -1..1; None takes it away."""
        answer = self._ask("PATCH", _person(name), body={"threshold": threshold})
        return cast(ChangedPerson, answer)

    def remove(self, name: str, *, forget: bool = False) -> Removed:
        """Remove a person; with ``forget`` every trace in the file, for good.

        Not people without a name: the answer tells who of them is most like the person.
        """
        answer = self._ask("DELETE", _person(name), options={"forget": forget})
        return cast(Removed, answer)

    def merge(self, name: str, into: str) -> Changed:
        """Make one person of two names; ``into`` stays."""
        return cast(Changed, self._ask("POST", f"{_person(name)}/merge", body={"into": into}))

    def remove_photo(self, photo: int) -> Changed:
        """Remove a photo; a person's last one removes the person."""
        return cast(Changed, self._ask("DELETE", f"photos/{int(photo)}"))

    def move_photo(self, photo: int, to: str) -> Changed:
        """Make a photo that of another person, new or known."""
        return cast(Changed, self._ask("POST", f"photos/{int(photo)}/move", body={"to": to}))

    def set_picture(self, photo: int) -> Changed:
        """Show the face of a photo as its person's picture."""
        return cast(Changed, self._ask("POST", f"photos/{int(photo)}/picture"))

    def unknown(self, *, start: int = 0, count: int = 100) -> UnknownPeople:
        """List the people without a name, those who were seen last first.

        Args:
            start: How many to skip.
            count: At most this many.
        """
        options = {"start": start, "count": count}
        return cast(UnknownPeople, self._ask("GET", "unknown", options=options))

    def unknown_crop(self, face: int) -> bytes:
        """Return a face of somebody without a name as JPEG."""
        return self._send("GET", f"unknown/faces/{int(face)}/crop").content

    def name_unknown(self, unknown: str, name: str) -> Changed:
        """Give somebody a name: the faces become photos of that person, new or known."""
        answer = self._ask("POST", f"{_stranger(unknown)}/name", body={"name": name})
        return cast(Changed, answer)

    def merge_unknown(self, unknown: str, into: str) -> ChangedUnknown:
        """Make one person of two without a name; ``into`` stays."""
        answer = self._ask("POST", f"{_stranger(unknown)}/merge", body={"into": into})
        return cast(ChangedUnknown, answer)

    def dismiss_unknown(self, unknown: str) -> ChangedUnknown:
        """Delete somebody without a name; seen again, the person gets a new number."""
        return cast(ChangedUnknown, self._ask("DELETE", _stranger(unknown)))

    def undo(self, change: int | None = None) -> Undone:
        """Undo a change by its number; without one, the last."""
        return cast(Undone, self._ask("POST", "undo", options={"change": change}))

    def changes(self, since: int = 0, *, count: int = 1_000) -> list[AuditedChange]:
        """List who changed what, the first first.

        Args:
            since: Only changes after the one of this number.
            count: At most this many.
        """
        answer = self._ask("GET", "changes", options={"since": since, "count": count})
        return cast("list[AuditedChange]", answer["changes"])

    def cameras(self) -> list[Camera]:
        """Tell how the service's cameras are, and who is there."""
        return cast("list[Camera]", self._ask("GET", "cameras")["cameras"])

    def camera_frame(
        self, name: str, *, width: int | None = None, annotated: bool | None = None
    ) -> bytes:
        """Return what a camera shows now, as JPEG.

        Args:
            name: The camera.
            width: Shrink the picture to this width at most.
            annotated: False leaves out the faces' boxes and names.
        """
        options = {"width": width, "annotated": annotated}
        given = {key: value for key, value in options.items() if value is not None}
        path = f"cameras/{_in_address(name)}/frame.jpg"
        return self._send("GET", path, params=given).content

    def camera_events(self, since: int = 0, *, count: int = 100) -> list[dict[str, Any]]:
        """List who came and left, the first first, as in a file of events.

        Args:
            since: Only events after the one of this ``number``.
            count: At most this many, the newest.
        """
        answer = self._ask("GET", "cameras/events", options={"since": since, "count": count})
        return cast("list[dict[str, Any]]", answer["events"])

    def settings(self) -> Settings:
        """Return how the service recognises faces, and how fast."""
        return cast(Settings, self._ask("GET", "settings"))

    def _ask(
        self,
        method: str,
        path: str,
        *,
        options: dict[str, Any] | None = None,
        photos: Sequence[tuple[str, Photo]] = (),
        texts: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Send a request, and return the answer's JSON."""
        given = {key: value for key, value in (options or {}).items() if value is not None}
        files = [(field, _named(photo)) for field, photo in photos]
        answer = self._send(method, path, params=given, files=files or None, data=texts, json=body)
        try:
            return cast("dict[str, Any]", answer.json())
        except ValueError as error:
            raise _not_of_the_service(answer) from error

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request, again where the service has no room, and return the good answer."""
        left = self._max_wait_seconds
        for attempt in range(self._retries + 1):
            try:
                answer = self._http.request(method, f"v1/{path}", **request)
            # A name of many thousand letters; half of a character (UnicodeError), NaN in JSON.
            except (httpx.InvalidURL, ValueError) as error:
                raise InputError(
                    "a request holds text that UTF-8 can hold, names that an address can, and "
                    f"finite numbers. Received: {error}"
                ) from error
            except httpx.HTTPError as error:
                detail = f"the service at {self._http.base_url} cannot be reached: {error}"
                raise ServiceError(detail, None, "not-reached") from error
            if answer.is_success:
                return answer
            problem = _problem(answer)
            seconds = answer.headers.get("Retry-After", "")
            # A change may still be made after its time is over; made again it would be another one.
            is_under_way = problem.kind == "took-too-long" and method != "GET"
            if (
                attempt == self._retries
                or answer.status_code not in (429, 503)
                or not seconds.isdecimal()
                or int(seconds) > left
                or is_under_way
            ):
                raise problem
            left -= int(seconds)
            time.sleep(int(seconds))
        raise AssertionError("the last attempt returns or raises")


def _person(name: str) -> str:
    """The address of a person.

    Raises:
        InputError: The name would lead to another address, or is no text that can be sent.
    """
    if not name or name.startswith("."):
        raise InputError(
            f"a person's name is not empty, and begins with no dot. Received: {name!r}"
        )
    return f"people/{_in_address(name)}"


def _in_address(name: str) -> str:
    """A name as part of an address.

    Raises:
        InputError: It holds half of a character.
    """
    try:
        return quote(name, safe="")
    except UnicodeError as error:
        raise InputError(f"a name is text that UTF-8 can hold. Received: {name!r}") from error


def _stranger(unknown: str) -> str:
    """The address of somebody without a name.

    Raises:
        InputError: Nobody is called so.
    """
    if not re.fullmatch("unknown-[0-9]+", unknown):
        raise InputError(
            f"somebody without a name is called unknown-7 or so. Received: {unknown!r}"
        )
    return f"unknown/{unknown}"


def _several(photos: Sequence[Photo]) -> list[tuple[str, Photo]]:
    """Photos as the fields of a body.

    Raises:
        InputError: One photo instead of a list of them, or none.
    """
    if isinstance(photos, str | os.PathLike | _Content) or not photos:
        raise InputError(f"photos is a list of at least one photo. Received: {type(photos)}")
    return [("photos", photo) for photo in photos]


def _named(photo: Photo) -> tuple[str, bytes]:
    """A photo's name and bytes.

    Raises:
        InputError: It cannot be read, or is none.
    """
    if isinstance(photo, _Content):
        return "photo", bytes(photo)
    try:
        return Path(photo).name, Path(photo).read_bytes()
    except TypeError as error:
        raise InputError(
            f"a photo is a path, or the bytes of its file. Received: {type(photo).__name__}"
        ) from error
    # A path with a zero byte in it is a ValueError.
    except (OSError, ValueError) as error:
        raise InputError(f"the photo {os.fspath(photo)!r} cannot be read: {error}") from error


def _problem(answer: httpx.Response) -> ServiceError:
    """What a refusal says."""
    try:
        problem = answer.json()
        kind, detail = problem["type"], problem["detail"]
        if kind.startswith(_PROBLEM) and isinstance(detail, str):
            left_out = "".join(
                f" {row['photo']}: {row['reason']}." for row in problem.get("left_out", [])
            )
            return ServiceError(detail + left_out, answer.status_code, kind.removeprefix(_PROBLEM))
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    return _not_of_the_service(answer)


def _not_of_the_service(answer: httpx.Response) -> ServiceError:
    """Say that something else than the service answers, such as a proxy in front of it."""
    detail = f"{answer.url} is not answered by the service: {answer.status_code}"
    return ServiceError(detail, answer.status_code, "not-the-service")
