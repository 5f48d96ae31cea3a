"""Finding faces in photos and cutting them out."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.detectors.alignment import crop_faces as crop_faces
    from face_encode.detectors.alignment import crop_whole as crop_whole
    from face_encode.detectors.alignment import find_landmarks as find_landmarks
    from face_encode.detectors.base import Detector as Detector
    from face_encode.detectors.base import Found as Found
    from face_encode.detectors.base import FramingDetector as FramingDetector
    from face_encode.detectors.dlib_cnn import DlibCnnDetector as DlibCnnDetector
    from face_encode.detectors.dlib_detector import DlibDetector as DlibDetector
    from face_encode.detectors.dlib_hog import DlibHogDetector as DlibHogDetector
    from face_encode.detectors.haar import HaarDetector as HaarDetector
    from face_encode.detectors.mtcnn import MtcnnDetector as MtcnnDetector
    from face_encode.detectors.registry import KNOWN_DETECTORS as KNOWN_DETECTORS
    from face_encode.detectors.registry import load_detector as load_detector
    from face_encode.detectors.retinaface import RetinaFaceDetector as RetinaFaceDetector
    from face_encode.detectors.retinaface import build_retinaface as build_retinaface
    from face_encode.detectors.single_stage import SingleStageDetector as SingleStageDetector
    from face_encode.detectors.yunet import YunetDetector as YunetDetector

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "alignment": ["crop_faces", "crop_whole", "find_landmarks"],
        "base": ["Detector", "Found", "FramingDetector"],
        "dlib_cnn": ["DlibCnnDetector"],
        "dlib_detector": ["DlibDetector"],
        "dlib_hog": ["DlibHogDetector"],
        "haar": ["HaarDetector"],
        "mtcnn": ["MtcnnDetector"],
        "registry": ["KNOWN_DETECTORS", "load_detector"],
        "retinaface": ["RetinaFaceDetector", "build_retinaface"],
        "single_stage": ["SingleStageDetector"],
        "yunet": ["YunetDetector"],
    },
)
