"""Whether the service runs, how it recognises, its numbers, and its documentation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from face_encode.server.documentation import page_of
from face_encode.server.problems import Problem
from face_encode.server.schemas import READING_PROBLEMS, HealthAnswer, SettingsAnswer
from face_encode.server.security import Reader, Tokens
from face_encode.server.service import TheService
from face_encode.version import __version__

router = APIRouter(tags=["operation"])


@router.get("/healthz", response_model=HealthAnswer)
async def health() -> dict[str, str]:
    """Tell that the service runs."""
    return {"status": "ok"}


@router.get("/readyz", response_model=HealthAnswer, responses={503: READING_PROBLEMS[503]})
async def ready(service: TheService) -> dict[str, str]:
    """Tell whether the service takes work and can save changes."""
    if service.store.failing:
        raise Problem(503, "not-saving", "The last change of the people could not be saved.")
    if service.recogniser.pool.is_full:
        raise Problem(503, "too-busy", "Too many photos wait to be looked at.")
    return {"status": "ok"}


@router.get("/metrics", responses={**READING_PROBLEMS, 200: {"content": {"text/plain": {}}}})
async def metrics(service: TheService, author: Reader) -> Response:
    """Give the numbers of the service in Prometheus' format."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/settings", response_model=SettingsAnswer, responses=READING_PROBLEMS)
async def settings(request: Request, service: TheService, author: Reader) -> dict[str, Any]:
    """Tell how the service recognises, and how fast."""
    people = service.store.people
    model, calibration = people.model, people.model.gallery.calibration
    tokens: Tokens = request.app.state.tokens
    return {
        "version": __version__,
        "encoder": model.encoder.name,
        "fingerprint": model.encoder.fingerprint,
        "detector": model.detector.name,
        "people": len(people.photos),
        "photos": len(model.gallery),
        "threshold": model.threshold,
        "verification_threshold": model.verification_threshold,
        "threshold_from": model.threshold_source,
        "calibration": None if calibration is None else asdict(calibration),
        "limits": asdict(service.settings.limits),
        "keeps_crops": service.settings.keep_crops,
        "needs_token": bool(tokens),
        "may_write": tokens.may_write(author.token),
        "latency": service.metrics.latency(),
    }


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def documentation(request: Request) -> HTMLResponse:
    """Show the operations as a page."""
    return HTMLResponse(page_of(request.app.openapi()))
