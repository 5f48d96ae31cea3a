"""Training: the Siamese triplet system, the data for it, retraining and distillation.

Names are loaded when they are first used, so that the scripts' ``--help`` needs no Keras.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from face_encode.training.augmentation import Augmentation
    from face_encode.training.backbones import open_backbone, standardize_layers
    from face_encode.training.batches import PeopleBatches, random_triplets, triplet_dataset
    from face_encode.training.data import crop_people, split_people
    from face_encode.training.distillation import DistillConfig, distill_student, read_recipe
    from face_encode.training.fitting import Schedule
    from face_encode.training.losses import DistillationLoss, MinedTripletLoss, MultiSimilarityLoss
    from face_encode.training.optimizers import Muon
    from face_encode.training.retraining import RetrainConfig, retrain
    from face_encode.training.triplet import DistanceLayer, TripletModel

_NAMES = {
    "augmentation": ("Augmentation",),
    "backbones": ("open_backbone", "standardize_layers"),
    "batches": ("PeopleBatches", "random_triplets", "triplet_dataset"),
    "data": ("crop_people", "split_people"),
    "distillation": ("DistillConfig", "distill_student", "read_recipe"),
    "fitting": ("Schedule",),
    "losses": ("DistillationLoss", "MinedTripletLoss", "MultiSimilarityLoss"),
    "optimizers": ("Muon",),
    "retraining": ("RetrainConfig", "retrain"),
    "triplet": ("DistanceLayer", "TripletModel"),
}

# fmt: off
__all__ = [
    "Augmentation", "DistanceLayer", "DistillConfig", "DistillationLoss", "MinedTripletLoss",
    "MultiSimilarityLoss", "Muon", "PeopleBatches", "RetrainConfig", "Schedule", "TripletModel",
    "crop_people", "distill_student", "open_backbone", "random_triplets", "read_recipe", "retrain",
    "split_people", "standardize_layers", "triplet_dataset",
]
# fmt: on


def __getattr__(name: str) -> object:
    """Import the file of a public name when the name is first used."""
    for module, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
