"""What the tests share: a cache of their own, the invented people, and one model for all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import KERAS
from face_encode.encoders.registry import load_encoder
from face_encode.errors import WeightsError
from face_encode.files import replacing
from face_encode.liveness.judging import LivenessJudge
from face_encode.liveness.minifasnet import PARTS
from face_encode.model import Face_Encode_Model
from face_encode.pipeline.embedding import find_crops
from face_encode.types import ImageArray
from face_encode.weights import KNOWN_WEIGHTS, installed_path
from tests.encoders.torch_writing import state_dict
from tests.liveness.drawn_weights import V1SE, V2, draw_weights
from tests.tiny_parts import save_tiny_encoder

REPOSITORY = Path(__file__).parent.parent
VERIFY_DATASET = REPOSITORY / "verify_dataset"
EXAMPLES = REPOSITORY / "examples"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the tests' own: a run converts the weights once, for all its workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= "cache"
    folder.mkdir(exist_ok=True)
    former = os.environ.get("FACE_ENCODE_CACHE")
    os.environ["FACE_ENCODE_CACHE"] = str(folder)
    yield folder
    if former is None:
        del os.environ["FACE_ENCODE_CACHE"]
    else:
        os.environ["FACE_ENCODE_CACHE"] = former


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has in front of them: a clone, and photos of their own."""
    (tmp_path / "verify_dataset").symlink_to(VERIFY_DATASET)
    (tmp_path / "examples").symlink_to(EXAMPLES)
    shutil.copytree(VERIFY_DATASET, tmp_path / "people")
    first, *_ = sorted((tmp_path / "people").iterdir())
    first.rename(first.with_name("Ada Lovelace"))
    shutil.copytree(EXAMPLES, tmp_path / "party", ignore=shutil.ignore_patterns("*.py", "*.npz"))
    passport, selfie, *_ = sorted((tmp_path / "people" / "Ada Lovelace").iterdir())
    shutil.copy(passport, tmp_path / "passport.jpg")
    shutil.copy(selfie, tmp_path / "selfie.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def path_from(variable: str) -> Path:
    """The path that an environment variable holds; skips where it is not set."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    return Path(value)


@pytest.fixture(scope="session")
def lfw_photos() -> Path:
    """Photos of LFW, one sub-folder a person."""
    return path_from("FACE_ENCODE_LFW_PHOTOS")


@pytest.fixture(scope="session")
def lfw_pairs() -> Path:
    """LFW's list of pairs for View 1, training: ``pairsDevTrain.txt``."""
    return path_from("FACE_ENCODE_LFW_PAIRS")


@pytest.fixture(scope="session")
def samples() -> Path:
    """A folder with ``multiface.jpg``, a group photo, and ``faces.mp4``, a short video."""
    return path_from("FACE_ENCODE_SAMPLES")


@pytest.fixture(scope="session")
def public_weights() -> Path:
    """A folder with weights files that the package downloads, by their publishers' names."""
    return path_from("FACE_ENCODE_PUBLIC_WEIGHTS")


def place_weights(name: str, folder: Path) -> None:
    """Put known weights into the cache, as a download would; skips where the folder lacks them."""
    path = installed_path(name)
    for source in folder.iterdir():
        content = source.read_bytes()
        if hashlib.sha256(content).hexdigest() == KNOWN_WEIGHTS[name].sha256:
            with replacing(path, WeightsError) as temporary:
                temporary.write_bytes(content)
            return
    pytest.skip(f"{folder} lacks the weights {name!r}")


@pytest.fixture(scope="session")
def encoder(cache_folder: Path) -> Encoder:
    """The default encoder."""
    return load_encoder()


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model file with a contract, of an encoder that takes milliseconds."""
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny.keras")


@pytest.fixture(scope="session")
def tiny(tiny_file: Path) -> Encoder:
    """The encoder in it."""
    return load_encoder(tiny_file)


@pytest.fixture(scope="session")
def drawn_liveness_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The weights files of the liveness network, with numbers drawn at random."""
    folder = tmp_path_factory.mktemp("liveness")
    contents = {"minifasnet_v2": draw_weights(V2, squeezes=False)}
    contents["minifasnet_v1se"] = draw_weights(V1SE, squeezes=True)
    for name, arrays in contents.items():
        (folder / KNOWN_WEIGHTS[name].file).write_bytes(state_dict(arrays))
    return [folder / KNOWN_WEIGHTS[name].file for name in contents]


@pytest.fixture(scope="session")
def drawn_judge(drawn_liveness_files: list[Path]) -> LivenessJudge:
    """A judge of liveness whose weights are drawn: it finds nobody alive, always alike."""
    with pytest.MonkeyPatch.context() as patch:
        for part in PARTS:
            patch.setitem(KNOWN_WEIGHTS, part.name, replace(KNOWN_WEIGHTS[part.name], sha256=None))
        return LivenessJudge(drawn_liveness_files, engine=KERAS)


@pytest.fixture(scope="session")
def people_photos() -> list[Path]:
    """The photos of the invented people."""
    photos = sorted(VERIFY_DATASET.glob("*/*.jpg"))
    assert len(photos) >= 20
    return photos


@pytest.fixture(scope="session")
def colour_crops(encoder: Encoder, people_photos: list[Path]) -> ImageArray:
    """dlib chips of the invented people, uint8 ``(N, 150, 150, 3)``."""
    recipe = encoder.contract.crop
    found = list(find_crops(people_photos, load_detector(), recipe))
    return np.concatenate([item.crops for item in found])


@pytest.fixture(scope="session")
def fitted_model(encoder: Encoder) -> Face_Encode_Model:
    """A model with the invented people enrolled; not to be changed by a test."""
    model = Face_Encode_Model(encoder)
    model.fit_dataset(VERIFY_DATASET, progress=False)
    return model


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """Address of an empty bucket in a store on this machine that speaks S3."""
    server_of = pytest.importorskip("moto.server").ThreadedMotoServer
    import pyarrow.fs

    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_EC2_METADATA_DISABLED")
    former = {name: os.environ.get(name) for name in names}
    os.environ.update(dict(zip(names, ("testing", "testing", "true"), strict=True)))
    server = server_of(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = f"127.0.0.1:{server.get_host_and_port()[1]}"
    store = pyarrow.fs.S3FileSystem(
        endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    store.create_dir("archive")
    yield f"s3://archive/{{}}?scheme=http&region=us-east-1&endpoint_override={endpoint}"
    server.stop()
    for name, value in former.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
