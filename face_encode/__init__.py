"""Face recognition for Keras.

Names are loaded when they are first used, so that ``import face_encode`` itself stays instant:
neither TensorFlow nor dlib is imported before something needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from face_encode.version import __version__

if TYPE_CHECKING:
    from face_encode.encoders.contract import EncoderContract, read_contract, save_encoder
    from face_encode.encoders.encoder import Encoder
    from face_encode.errors import FaceEncodeError

_HOME_OF = {
    "Encoder": "face_encode.encoders.encoder",
    "EncoderContract": "face_encode.encoders.contract",
    "FaceEncodeError": "face_encode.errors",
    "read_contract": "face_encode.encoders.contract",
    "save_encoder": "face_encode.encoders.contract",
}

__all__ = [
    "Encoder",
    "EncoderContract",
    "FaceEncodeError",
    "__version__",
    "read_contract",
    "save_encoder",
]


def __getattr__(name: str) -> object:
    """Import the module that a public name lives in when the name is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
