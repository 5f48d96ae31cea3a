"""Retraining: a new head on a backbone's features, and on demand the whole network after it.

The people of a folder are split into three. The head learns from the first part. The second
chooses: the epoch, the threshold, and whether the new head is used at all, for it has to verify
these people better than the untouched encoder by more than chance. The third, which nothing was
chosen by, is measured before and after.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.contract import EncoderContract, save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError, ModelFileError
from face_encode.training.backbones import Backbone, join
from face_encode.training.conditions import CONDITIONS
from face_encode.training.data import (
    FaceCrops,
    PeopleSplit,
    crop_people,
    refuse_mixed,
    refuse_overlap,
    split_people,
)
from face_encode.training.fitting import Progress, Schedule
from face_encode.training.stages import Stages
from face_encode.training.verification import PairSet, Verification, calibrate, measure
from face_encode.version import __version__


@dataclass(frozen=True)
class Retraining:
    """What to do.

    Attributes:
        data: The folder of people to train on.
        output: The ``.keras`` file to write; what belongs to the run lies beside it, in a folder
            of the same name ending in ``.training``.
        test_data: A folder of other people to report on; None takes a fifth of ``data``'s.
        condition: A harder condition to train and test for: a name of
            :data:`face_encode.training.conditions.CONDITIONS`; None for the photos as they are.
        loss: What is learnt: ``"semi_hard"`` or ``"hard"`` triplets, ``"multi_similarity"``, or
            ``"teacher"``, to embed a face in the condition as the untouched encoder embeds it
            out of it; None chooses ``"teacher"`` where there is a condition and the encoder has
            a projection of its own, else ``"semi_hard"``.
        views: Views of each photo that features are computed of: the crop, its mirror image, and
            from the third on augmented ones.
        schedule: When to slow down and stop.
        unfreeze: Whether to train the whole network after the head.
        whole_schedule: When to slow down and stop then.
        false_match_rate: What the threshold is calibrated for.
        embedding_size: Length of the embedding, for a backbone without a projection.
        head_units: Units of the head's hidden layers.
        dropout: Share of the head's units dropped.
        seed: The same seed gives the same result.
    """

    data: Path
    output: Path
    test_data: Path | None = None
    condition: str | None = None
    loss: Literal["semi_hard", "hard", "multi_similarity", "teacher"] | None = None
    views: int = 4
    schedule: Schedule = field(default_factory=Schedule)
    unfreeze: bool = False
    whole_schedule: Schedule = field(
        default_factory=lambda: Schedule(epochs=8, learning_rate=1e-4, cosine=True)
    )
    false_match_rate: float = 1e-3
    embedding_size: int = 128
    head_units: tuple[int, ...] = (512, 256, 128)
    dropout: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what can be checked before hours of work."""
        if self.output.suffix != ".keras":
            raise ModelFileError(f"a model file's name ends in .keras. Received: {self.output}")
        if self.condition is not None and self.condition not in CONDITIONS:
            raise InputError(
                f"a condition is one of {', '.join(CONDITIONS)}. Received: {self.condition!r}"
            )
        if self.views < 2:
            raise InputError(
                "at least 2 views, the crop and its mirror image, are computed of each photo. "
                f"Received: {self.views}"
            )
        if not 0 < self.false_match_rate < 1:
            raise InputError(
                f"a false match rate lies between 0 and 1. Received: {self.false_match_rate}"
            )

    @property
    def run_folder(self) -> Path:
        """Where log, checkpoint, features and picture lie."""
        return self.output.with_suffix(".training")


@dataclass(frozen=True, eq=False)
class Retrained:
    """What came of it.

    Attributes:
        encoder: The finished encoder, as saved.
        before: The untouched encoder on the test people.
        after: The finished one on the same.
        head: The head's epochs.
        whole: The whole network's epochs, where it was trained.
        scores: Cosine similarities of the test pairs before and after, each ``(M,)``, and
            whether a pair is one person, ``(M,)``.
        photos: Numbers of photos to train on, to choose by, and to report on.
        people: Numbers of people likewise.
    """

    encoder: Encoder
    before: Verification
    after: Verification
    head: Progress
    whole: Progress | None
    scores: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]]
    photos: tuple[int, int, int]
    people: tuple[int, int, int]


def retrain(
    work: Retraining,
    backbone: Backbone,
    detector: Detector,
    *,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Retrained:
    """Do it, going on from the last checkpoint of the same work where there is one.

    Args:
        work: What to do.
        backbone: Whose head.
        detector: Finds the faces.
        progress: Whether to show progress bars.
        say: Told what is going on, a line at a time.

    Raises:
        DatasetError: The folders are too small, or share people or photos.
        TrainingError: The loss is no longer a number.
        ModelFileError: A file cannot be written. The output is then as it was before.
    """
    if work.test_data is not None:
        refuse_overlap(work.data, work.test_data)
    keras.utils.set_random_seed(work.seed)
    recipe = backbone.contract.crop
    data = crop_people(work.data, recipe, detector, progress=progress)
    split = split_people(data.people, test=0 if work.test_data else 0.2, seed=work.seed)
    if work.test_data is None:
        test = _part(data, split.test)
    else:
        test = crop_people(work.test_data, recipe, detector, progress=progress)
        refuse_mixed(data, test)
    say(_describe(data, split, test))

    stages = Stages(work, backbone, data, split, progress, say)
    pairs = PairSet.among(test.people, work.seed)
    degrade = CONDITIONS[work.condition] if work.condition else np.asarray
    degraded = np.asarray(degrade(np.asarray(test.crops)))
    before = stages.embed_untouched(degraded)

    head, head_progress = stages.train_head()
    model, whole_progress = join(backbone, head), None
    if work.unfreeze:
        # A teacher's answers say more than a head in between could hand on, so there the whole
        # network begins as it was.
        model.trainable = True
        whole = stages.untouched_network() if stages.loss == "teacher" else model
        whole_progress = stages.train_whole(whole)
        if whole_progress.best_score >= head_progress.best_score:
            model = whole
    threshold, rate = calibrate(
        stages.embed(model, stages.validation_crops()),
        stages.validation_pairs,
        work.false_match_rate,
    )
    after = stages.embed(model, degraded)
    contract = replace(
        _contract(work, backbone, data, split), threshold=threshold, false_match_rate=rate
    )
    model.trainable = True
    save_encoder(model, work.output, contract)
    return Retrained(
        encoder=Encoder(model, contract),
        before=measure(before, pairs, work.false_match_rate),
        after=measure(after, pairs, work.false_match_rate, threshold),
        head=head_progress,
        whole=whole_progress,
        scores=(pairs.similarities(before), pairs.similarities(after), pairs.same),
        photos=(len(split.train), len(split.validation), len(test)),
        people=(
            len(np.unique(data.people[split.train])),
            len(np.unique(data.people[split.validation])),
            len(np.unique(test.people)),
        ),
    )


def _part(data: FaceCrops, rows: npt.NDArray[np.int64]) -> FaceCrops:
    return FaceCrops(
        np.asarray(data.crops[rows]),
        data.people[rows],
        data.names,
        tuple(data.digests[row] for row in rows),
    )


def _describe(data: FaceCrops, split: PeopleSplit, test: FaceCrops) -> str:
    parts = [
        (rows_people, name)
        for rows_people, name in (
            (data.people[split.train], "to train on"),
            (data.people[split.validation], "to choose by"),
            (test.people, "to report on"),
        )
    ]
    counts = [f"{len(p)} photos of {len(np.unique(p))} people {name}" for p, name in parts]
    left_out = f"; {len(data.left_out)} photos without a face" if data.left_out else ""
    return ", ".join(counts) + left_out


def _contract(
    work: Retraining, backbone: Backbone, data: FaceCrops, split: PeopleSplit
) -> EncoderContract:
    people = len(np.unique(data.people[split.train]))
    condition = f", condition {work.condition!r}" if work.condition else ""
    return replace(
        backbone.contract,
        name=work.output.stem,
        # Measured for the backbone's own embeddings.
        euclidean_threshold=None,
        package_version=__version__,
        trained_on=(
            f"head: {len(split.train)} photos of {people} people in {work.data.name!r}{condition}; "
            f"backbone {backbone.contract.name}: {backbone.contract.trained_on}"
        ),
    )
