"""Encoders of your own: the Siamese triplet system, retraining and distillation."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.training.augmentation import Augmentation as Augmentation
    from face_encode.training.backbones import open_backbone as open_backbone
    from face_encode.training.backbones import standardize_layers as standardize_layers
    from face_encode.training.batches import PeopleBatches as PeopleBatches
    from face_encode.training.batches import random_triplets as random_triplets
    from face_encode.training.batches import triplet_dataset as triplet_dataset
    from face_encode.training.data import crop_people as crop_people
    from face_encode.training.data import split_people as split_people
    from face_encode.training.distillation import distill_student as distill_student
    from face_encode.training.fitting import Schedule as Schedule
    from face_encode.training.losses import DistillationLoss as DistillationLoss
    from face_encode.training.losses import MinedTripletLoss as MinedTripletLoss
    from face_encode.training.losses import MultiSimilarityLoss as MultiSimilarityLoss
    from face_encode.training.optimizers import Muon as Muon
    from face_encode.training.recipe import DistillConfig as DistillConfig
    from face_encode.training.recipe import read_recipe as read_recipe
    from face_encode.training.retraining import RetrainConfig as RetrainConfig
    from face_encode.training.retraining import retrain as retrain
    from face_encode.training.triplet import DistanceLayer as DistanceLayer
    from face_encode.training.triplet import TripletModel as TripletModel

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "augmentation": ["Augmentation"],
        "backbones": ["open_backbone", "standardize_layers"],
        "batches": ["PeopleBatches", "random_triplets", "triplet_dataset"],
        "data": ["crop_people", "split_people"],
        "distillation": ["distill_student"],
        "fitting": ["Schedule"],
        "losses": ["DistillationLoss", "MinedTripletLoss", "MultiSimilarityLoss"],
        "optimizers": ["Muon"],
        "recipe": ["DistillConfig", "read_recipe"],
        "retraining": ["RetrainConfig", "retrain"],
        "triplet": ["DistanceLayer", "TripletModel"],
    },
)
