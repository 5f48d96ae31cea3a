"""How far to trust a match: metrics, calibration, likely mistakes and reports."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.evaluation.calibration import calibrate as calibrate
    from face_encode.evaluation.checking import CheckResult as CheckResult
    from face_encode.evaluation.checking import check_people as check_people
    from face_encode.evaluation.clustering import b_cubed as b_cubed
    from face_encode.evaluation.clustering import cluster_faces as cluster_faces
    from face_encode.evaluation.clustering import group_photos as group_photos
    from face_encode.evaluation.contact_sheet import write_contact_sheet as write_contact_sheet
    from face_encode.evaluation.intervals import Interval as Interval
    from face_encode.evaluation.intervals import bootstrap as bootstrap
    from face_encode.evaluation.intervals import wilson_interval as wilson_interval
    from face_encode.evaluation.metrics import equal_error_rate as equal_error_rate
    from face_encode.evaluation.metrics import roc_auc as roc_auc
    from face_encode.evaluation.metrics import roc_curve as roc_curve
    from face_encode.evaluation.metrics import tar_at_far as tar_at_far
    from face_encode.evaluation.metrics import threshold_at_far as threshold_at_far
    from face_encode.evaluation.metrics import verification_accuracy as verification_accuracy
    from face_encode.evaluation.pairs import PairsResult as PairsResult
    from face_encode.evaluation.pairs import evaluate_pairs as evaluate_pairs
    from face_encode.evaluation.pairs import read_pairs as read_pairs
    from face_encode.evaluation.people import PeopleResult as PeopleResult
    from face_encode.evaluation.people import evaluate_people as evaluate_people
    from face_encode.evaluation.report import write_pairs_report as write_pairs_report
    from face_encode.evaluation.report import write_people_report as write_people_report

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration": ["calibrate"],
        "checking": ["CheckResult", "check_people"],
        "clustering": ["b_cubed", "cluster_faces", "group_photos"],
        "contact_sheet": ["write_contact_sheet"],
        "intervals": ["Interval", "bootstrap", "wilson_interval"],
        "metrics": [
            "equal_error_rate",
            "roc_auc",
            "roc_curve",
            "tar_at_far",
            "threshold_at_far",
            "verification_accuracy",
        ],
        "pairs": ["PairsResult", "evaluate_pairs", "read_pairs"],
        "people": ["PeopleResult", "evaluate_people"],
        "report": ["write_pairs_report", "write_people_report"],
    },
)
