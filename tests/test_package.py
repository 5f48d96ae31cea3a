from __future__ import annotations

import subprocess
import sys
import time

import pytest

import face_encode


def test_public_names_are_these() -> None:
    assert sorted(face_encode.__all__) == [
        "DistanceLayer",
        "Encoder",
        "EncoderContract",
        "EnrolmentReport",
        "Face",
        "FaceEncodeError",
        "Face_Encode_Model",
        "Match",
        "ReferenceEmbeddings",
        "TripletModel",
        "__version__",
        "analyze",
        "embed_folder",
        "export_encoder",
        "extract_faces",
        "find",
        "load_detector",
        "load_encoder",
        "open_gallery",
        "read_contract",
        "read_embeddings",
        "read_image",
        "read_photo",
        "represent",
        "save_encoder",
        "verify",
        "watch",
    ]


@pytest.mark.parametrize("name", face_encode.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(face_encode, name) is not None
    assert name in dir(face_encode)


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(AttributeError, match="No face_encode attribute nothing"):
        face_encode.nothing  # noqa: B018


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = (
        "import sys, face_encode; "
        "print(*{'tensorflow', 'keras', 'dlib', 'cv2', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_importing_the_package_takes_less_than_a_third_of_a_second() -> None:
    def seconds(statement: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        return time.perf_counter() - start

    # The best of several, less what an empty interpreter takes: the machine does other things.
    bare = min(seconds("pass") for _ in range(3))
    assert min(seconds("import face_encode") for _ in range(5)) - bare < 0.3
