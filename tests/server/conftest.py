"""Services to test: one that recognises, shared, and ones of a test's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from face_encode.encoders.encoder import Encoder
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.encryption import Cipher
from face_encode.liveness.judging import LivenessJudge
from face_encode.model import Face_Encode_Model
from face_encode.server.application import make_application
from face_encode.server.security import Tokens
from face_encode.server.settings import Limits, ServerSettings
from face_encode.video.camera_process import CameraProcess

Serve: TypeAlias = Callable[..., AbstractContextManager[TestClient]]

# A Host header that a browser on this machine sends.
ADDRESS = "http://127.0.0.1:8000"


@contextmanager
def served(
    model: Face_Encode_Model,
    folder: Path,
    *,
    tokens: Tokens | None = None,
    cipher: Cipher | None = None,
    limits: Limits | None = None,
    keep_crops: bool = False,
    allowed_hosts: tuple[str, ...] = (),
    host: str = "127.0.0.1",
    judge: LivenessJudge | None = None,
    cameras: CameraProcess | None = None,
) -> Iterator[TestClient]:
    """A service in this process, on the gallery ``people.sqlite`` in a folder.

    With a judge it requires that faces are alive.
    """
    settings = ServerSettings(
        host=host,
        allowed_hosts=allowed_hosts,
        keep_crops=keep_crops,
        workers=1,
        require_live=judge is not None,
        # On a busy machine the first photo waits long for its process, the service for its turn.
        limits=limits or Limits(body_seconds=300, request_seconds=600, photo_seconds=300),
    )
    own = copy.copy(model)
    if judge is not None:
        own.liveness_judge = judge
    own.gallery = DatabaseGallery(folder / "people.sqlite", model.encoder, cipher=cipher)
    application = make_application(
        own, settings, tokens or Tokens([]), cameras=cameras, warm_up=False
    )
    with (
        closing(own.gallery),
        TestClient(application, base_url=ADDRESS, raise_server_exceptions=False) as client,
    ):
        yield client


@pytest.fixture
def empty_model(encoder: Encoder) -> Face_Encode_Model:
    """A model with nobody enrolled."""
    return Face_Encode_Model(encoder, "dlib_hog")


@pytest.fixture
def serve(empty_model: Face_Encode_Model, tmp_path: Path) -> Serve:
    """Starts a service with nobody enrolled, on files of the test's own."""
    return lambda **options: served(empty_model, tmp_path, **options)


@pytest.fixture(scope="session")
def service_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the shared service."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="session")
def shared_client(fitted_model: Face_Encode_Model, service_folder: Path) -> Iterator[TestClient]:
    """A service with the invented people; a test that enrols somebody removes them again."""
    fitted_model.save_gallery(service_folder / "people.sqlite")
    with served(fitted_model, service_folder, keep_crops=True) as client:
        yield client


@pytest.fixture
def client(shared_client: TestClient) -> TestClient:
    """The shared service, without what an earlier client left behind."""
    shared_client.headers.pop("authorization", None)
    return shared_client
