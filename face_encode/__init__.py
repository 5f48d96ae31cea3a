"""Face recognition for Keras.

Names are imported when they are first used, so that ``import face_encode`` itself stays instant:
neither TensorFlow nor dlib is imported before something needs them.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.detectors.registry import load_detector as load_detector
    from face_encode.encoders.contract import EncoderContract as EncoderContract
    from face_encode.encoders.contract import read_contract as read_contract
    from face_encode.encoders.contract import save_encoder as save_encoder
    from face_encode.encoders.encoder import Encoder as Encoder
    from face_encode.encoders.export import export_encoder as export_encoder
    from face_encode.encoders.registry import load_encoder as load_encoder
    from face_encode.errors import FaceEncodeError as FaceEncodeError
    from face_encode.functions import analyze as analyze
    from face_encode.functions import extract_faces as extract_faces
    from face_encode.functions import find as find
    from face_encode.functions import represent as represent
    from face_encode.functions import verify as verify
    from face_encode.gallery.opening import open_gallery as open_gallery
    from face_encode.model import Face_Encode_Model as Face_Encode_Model
    from face_encode.photos.reading import read_image as read_image
    from face_encode.photos.reading import read_photo as read_photo
    from face_encode.pipeline.embedding_file import read_embeddings as read_embeddings
    from face_encode.pipeline.folder import embed_folder as embed_folder
    from face_encode.references import ReferenceEmbeddings as ReferenceEmbeddings
    from face_encode.training.triplet import DistanceLayer as DistanceLayer
    from face_encode.training.triplet import TripletModel as TripletModel
    from face_encode.types import EnrolmentReport as EnrolmentReport
    from face_encode.types import Face as Face
    from face_encode.types import Match as Match
    from face_encode.version import __version__ as __version__
    from face_encode.video.watcher import watch as watch

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "detectors.registry": ["load_detector"],
        "encoders.contract": ["EncoderContract", "read_contract", "save_encoder"],
        "encoders.encoder": ["Encoder"],
        "encoders.export": ["export_encoder"],
        "encoders.registry": ["load_encoder"],
        "errors": ["FaceEncodeError"],
        "functions": ["analyze", "extract_faces", "find", "represent", "verify"],
        "gallery.opening": ["open_gallery"],
        "model": ["Face_Encode_Model"],
        "photos.reading": ["read_image", "read_photo"],
        "pipeline.embedding_file": ["read_embeddings"],
        "pipeline.folder": ["embed_folder"],
        "references": ["ReferenceEmbeddings"],
        "training.triplet": ["DistanceLayer", "TripletModel"],
        "types": ["EnrolmentReport", "Face", "Match"],
        "version": ["__version__"],
        "video.watcher": ["watch"],
    },
)
