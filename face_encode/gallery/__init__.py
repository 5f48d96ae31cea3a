"""The enrolled people: their embeddings, the search among them, and where they are kept."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.gallery.base import EncoderIdentity as EncoderIdentity
    from face_encode.gallery.base import Gallery as Gallery
    from face_encode.gallery.database import DatabaseGallery as DatabaseGallery
    from face_encode.gallery.memory import MemoryGallery as MemoryGallery
    from face_encode.gallery.milvus import MilvusGallery as MilvusGallery
    from face_encode.gallery.mistakes import LabelProblem as LabelProblem
    from face_encode.gallery.mistakes import find_label_problems as find_label_problems
    from face_encode.gallery.opening import load_gallery as load_gallery
    from face_encode.gallery.opening import open_gallery as open_gallery
    from face_encode.gallery.thresholds import Calibration as Calibration
    from face_encode.gallery.unknown import Sight as Sight
    from face_encode.gallery.unknown import UnknownFace as UnknownFace
    from face_encode.gallery.unknown import UnknownGroup as UnknownGroup
    from face_encode.gallery.unknown import UnknownPeople as UnknownPeople

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["EncoderIdentity", "Gallery"],
        "database": ["DatabaseGallery"],
        "memory": ["MemoryGallery"],
        "milvus": ["MilvusGallery"],
        "mistakes": ["LabelProblem", "find_label_problems"],
        "opening": ["load_gallery", "open_gallery"],
        "thresholds": ["Calibration"],
        "unknown": ["Sight", "UnknownFace", "UnknownGroup", "UnknownPeople"],
    },
)
