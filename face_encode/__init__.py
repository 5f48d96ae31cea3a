"""Face recognition for Keras.

Names are loaded when they are first used, so that ``import face_encode`` itself stays instant:
neither TensorFlow nor dlib is imported before something needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from face_encode.version import __version__

if TYPE_CHECKING:
    from face_encode.detectors.registry import load_detector
    from face_encode.encoders.contract import EncoderContract, read_contract, save_encoder
    from face_encode.encoders.encoder import Encoder
    from face_encode.encoders.export import export_encoder
    from face_encode.encoders.registry import load_encoder
    from face_encode.errors import FaceEncodeError
    from face_encode.functions import extract_faces, find, represent, verify
    from face_encode.gallery.opening import open_gallery
    from face_encode.model import Face_Encode_Model
    from face_encode.photos.reading import read_image, read_photo
    from face_encode.pipeline.embedding_file import read_embeddings
    from face_encode.pipeline.folder import embed_folder
    from face_encode.references import ReferenceEmbeddings
    from face_encode.training.triplet import DistanceLayer, TripletModel
    from face_encode.types import EnrolmentReport, Face, Match
    from face_encode.video.watcher import watch

_HOME_OF = {
    "DistanceLayer": "face_encode.training.triplet",
    "Encoder": "face_encode.encoders.encoder",
    "EncoderContract": "face_encode.encoders.contract",
    "EnrolmentReport": "face_encode.types",
    "Face": "face_encode.types",
    "FaceEncodeError": "face_encode.errors",
    "Face_Encode_Model": "face_encode.model",
    "Match": "face_encode.types",
    "ReferenceEmbeddings": "face_encode.references",
    "TripletModel": "face_encode.training.triplet",
    "embed_folder": "face_encode.pipeline.folder",
    "export_encoder": "face_encode.encoders.export",
    "extract_faces": "face_encode.functions",
    "find": "face_encode.functions",
    "load_detector": "face_encode.detectors.registry",
    "load_encoder": "face_encode.encoders.registry",
    "open_gallery": "face_encode.gallery.opening",
    "read_contract": "face_encode.encoders.contract",
    "read_embeddings": "face_encode.pipeline.embedding_file",
    "read_image": "face_encode.photos.reading",
    "read_photo": "face_encode.photos.reading",
    "represent": "face_encode.functions",
    "save_encoder": "face_encode.encoders.contract",
    "verify": "face_encode.functions",
    "watch": "face_encode.video.watcher",
}

__all__ = [
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
