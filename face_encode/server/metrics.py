"""Numbers of a running service, for Prometheus and for the page's quality panel."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from face_encode.server.settings import INTERFACES

# The quality panel shows the latency of this many requests of each kind.
_RECENT_REQUESTS = 1_000
_BUCKETS_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The numbers of one service."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "face_encode_requests_total",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "face_encode_request_seconds",
            "From a request's headers to the end of its answer.",
            ("method", "route"),
            buckets=_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self._batches = Histogram(
            "face_encode_batch_faces",
            "Faces encoded in one call of the network.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        self._changes = Counter(
            "face_encode_changes_total",
            "Changes of the people that this service has saved.",
            registry=self.registry,
        )
        self._recent: defaultdict[str, deque[float]] = defaultdict(
            lambda: deque(maxlen=_RECENT_REQUESTS)
        )
        self._lock = threading.Lock()

    def watch(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a number that is looked up whenever the metrics are read."""
        gauge = Gauge(f"face_encode_{name}", description, registry=self.registry)
        gauge.set_function(value)

    def encoded(self, photos: int, faces: int) -> None:
        """Count a batch that went through the network."""
        self._batches.observe(faces)

    def changed(self) -> None:
        """Count a change of the people that was saved."""
        self._changes.inc()

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)
        if status < 400:
            with self._lock:
                self._recent[f"{method} {route}"].append(seconds)

    def latency(self) -> dict[str, dict[str, Any]]:
        """Return median and 99th percentile of recent successful requests, by kind."""
        with self._lock:
            recent = {kind: list(seconds) for kind, seconds in self._recent.items()}
        return {
            kind: {
                "requests": len(seconds),
                "p50_milliseconds": round(1000 * float(np.percentile(seconds, 50)), 1),
                "p99_milliseconds": round(1000 * float(np.percentile(seconds, 99)), 1),
            }
            for kind, seconds in recent.items()
            if kind.partition(" ")[2].startswith(INTERFACES)
        }

    def text(self) -> bytes:
        """Return all numbers in Prometheus' format."""
        return generate_latest(self.registry)


class RequestMeter:
    """Times requests and counts their answers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap an application."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        # For a client that hung up before it was answered.
        status = 499

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            # The pattern, not the path: paths hold people's names, and their number has no bound.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.answered(method, route, status, time.perf_counter() - start)
