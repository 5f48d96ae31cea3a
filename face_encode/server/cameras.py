"""The routes of the service's cameras, and their numbers in the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from typing import Annotated, Any, TypeVar, get_args

from fastapi import APIRouter, Query, Response
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict, Field

from face_encode.errors import VideoError
from face_encode.gallery.base import folded_name
from face_encode.server.problems import Problem
from face_encode.server.schemas import (
    LIST_PROBLEMS,
    MAX_NUMBER,
    PERSON_PROBLEMS,
    READING_PROBLEMS,
    CameraEventsAnswer,
    CamerasAnswer,
)
from face_encode.server.security import Reader
from face_encode.server.service import Service, TheService
from face_encode.video.camera_process import CameraProcess
from face_encode.video.cameras import State

_MAX_EVENTS = 500
# A scraper that waits longer for the cameras' numbers goes without them.
_SCRAPE_SECONDS = 5.0

_Result = TypeVar("_Result")

cameras_router = APIRouter(prefix="/v1", tags=["cameras"])


async def _answered(future: Future[_Result]) -> _Result:
    """Wait for what the cameras' process answers.

    Raises:
        Problem: It does not.
    """
    try:
        return await asyncio.wrap_future(future)
    except VideoError as error:
        raise Problem(503, "cameras-away", f"{error}.", headers={"Retry-After": "2"}) from error


def _watching(service: Service, name: str) -> tuple[CameraProcess, str]:
    """The cameras' process, and a camera's name as it was given.

    Raises:
        Problem: There is no such camera.
    """
    cameras = service.cameras
    if cameras is not None:
        for known in cameras.names:
            if folded_name(known) == folded_name(name):
                return cameras, known
    raise Problem(404, "no-such-camera", f"There is no camera {name[:50]!r}.")


@cameras_router.get("/cameras", response_model=CamerasAnswer, responses=READING_PROBLEMS)
async def cameras(service: TheService, author: Reader) -> dict[str, Any]:
    """Tell how the cameras are, and who is there."""
    return {"cameras": await _answered(service.cameras.states()) if service.cameras else []}


class Events(BaseModel):
    """Which events are wanted."""

    model_config = ConfigDict(extra="forbid")

    since: int = Field(
        default=0, ge=0, le=MAX_NUMBER, description="Only events after the one of this number."
    )
    count: int = Field(
        default=100, ge=1, le=_MAX_EVENTS, description="At most this many, the newest."
    )


@cameras_router.get("/cameras/events", response_model=CameraEventsAnswer, responses=LIST_PROBLEMS)
async def events(
    service: TheService, author: Reader, wanted: Annotated[Events, Query()]
) -> dict[str, Any]:
    """List who came and left, the first first; the service keeps the last 500 events."""
    if service.cameras is None:
        return {"events": []}
    return {"events": await _answered(service.cameras.events(wanted.since, wanted.count))}


class Picture(BaseModel):
    """How the picture of a camera is wanted."""

    model_config = ConfigDict(extra="forbid")

    width: int = Field(
        default=10_000, ge=64, le=10_000, description="Shrink the picture to this width at most."
    )
    annotated: bool = Field(default=True, description="Draw the faces and their names.")


@cameras_router.get(
    "/cameras/{name}/frame.jpg",
    responses={**PERSON_PROBLEMS, 200: {"content": {"image/jpeg": {}}}},
    response_class=Response,
)
async def frame(
    name: str, service: TheService, author: Reader, wanted: Annotated[Picture, Query()]
) -> Response:
    """Return what a camera shows now."""
    cameras, known = _watching(service, name)
    content = await _answered(cameras.picture(known, wanted.width, wanted.annotated))
    if content is None:
        raise Problem(404, "no-picture", "The camera gives no pictures at present.")
    return Response(content, media_type="image/jpeg")


class CameraNumbers(Collector):
    """The state of each camera, its rate, how many people are there, and what was lost."""

    def __init__(self, cameras: CameraProcess) -> None:
        """Take the cameras."""
        self._cameras = cameras

    def collect(self) -> Iterator[Metric]:
        """Ask the cameras; without an answer there are no numbers."""
        try:
            answers = self._cameras.states().result(_SCRAPE_SECONDS)
        except (VideoError, NotInTime):
            return
        state = StateSetMetricFamily(
            "face_encode_camera_state", "1 for the state that the camera is in.", labels=("camera",)
        )
        rate = GaugeMetricFamily(
            "face_encode_camera_frames_per_second",
            "Frames of the camera that are looked at.",
            labels=("camera",),
        )
        people = GaugeMetricFamily(
            "face_encode_camera_people", "People before the camera.", labels=("camera",)
        )
        lost = CounterMetricFamily(
            "face_encode_camera_lost_events",
            "Events of the camera that could not be written.",
            labels=("camera",),
        )
        for each in answers:
            own = [each["name"]]
            state.add_metric(own, {kind: kind == each["state"] for kind in get_args(State)})
            rate.add_metric(own, each["frames_per_second"])
            people.add_metric(own, len(each["people"]))
            lost.add_metric(own, each["lost_events"])
        yield from (state, rate, people, lost)
