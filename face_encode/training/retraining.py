"""Retraining: a new head on a backbone's features, and on demand the whole network after it.

The people of a folder are split into three. The head learns from the first part. The second
chooses: the epoch, the threshold, and whether the new head is used at all, for it has to verify
these people better than the untouched encoder by more than chance. The third, which nothing was
chosen by, is measured before and after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.contract import EncoderContract, save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError, ModelFileError
from face_encode.files import replacing
from face_encode.terminal import tracked
from face_encode.training.augmentation import CONDITIONS, Augmentation
from face_encode.training.backbones import Backbone, build_head, join, solve_linear_correction
from face_encode.training.batches import PeopleBatches, PhotoBatches
from face_encode.training.data import (
    FaceCrops,
    PeopleSplit,
    crop_people,
    refuse_mixed,
    refuse_overlap,
    split_people,
)
from face_encode.training.fitting import Progress, Schedule, Watch, fit_watched
from face_encode.training.losses import MinedTripletLoss, MultiSimilarityLoss, TeacherLoss
from face_encode.training.verification import PairSet, Verification, calibrate, measure
from face_encode.types import Embeddings, ImageArray
from face_encode.version import __version__

_CHUNK = 256
_PEOPLE_A_BATCH, _PHOTOS_A_PERSON = 12, 4
# Crops are aligned, so what the finished network will see differs little in place and angle.
_VIEWS = Augmentation(turn=3.0, zoom=0.03, shift=0.02, brightness=0.05, contrast=0.1)


class Stages:
    """The two trainings over one split of one folder.

    Attributes:
        validation_pairs: The pairs of people to choose by.
    """

    def __init__(
        self,
        work: Retraining,
        backbone: Backbone,
        data: FaceCrops,
        split: PeopleSplit,
        progress: bool,
        say: Callable[[str], None],
    ) -> None:
        """Take what to do, and on what.

        Args:
            work: The settings.
            backbone: Whose head.
            data: All crops of the folder.
            split: Which of them are for what.
            progress: Whether to show progress bars.
            say: Told of each epoch, in a line.

        Raises:
            InputError: The loss needs a projection, and the backbone has none.
            DatasetError: The people to choose by have no pairs to compare.
        """
        self.work = work
        self.backbone = backbone
        self.data = data
        self.split = split
        self.progress = progress
        self.say = say
        self.degrade = CONDITIONS[work.condition] if work.condition else np.asarray
        # Once, because training the whole network changes the backbone's weights.
        self.key = self._key()
        self.validation_pairs = PairSet.among(data.people[split.validation], work.seed)
        loss = work.loss
        if loss is None:
            loss = "teacher" if work.condition and backbone.projection else "semi_hard"
        if loss == "teacher" and backbone.projection is None:
            raise InputError(
                "loss 'teacher' learns from the encoder's own embeddings, and backbone "
                f"{backbone.contract.name!r} has features only. Received: loss 'teacher'"
            )
        self.loss = loss

    def train_head(self) -> tuple[keras.Model, Progress]:
        """Train the head on features computed once; the head at its best, and its epochs."""
        features = self._features()
        rows = self.split.train
        mean = features[rows].mean(axis=(0, 1))
        deviation = features[rows].std(axis=(0, 1))
        # A feature that hardly ever differs from 0 would be blown up to noise.
        deviation = np.maximum(deviation, 1e-2 * deviation.mean() + np.float32(1e-12))
        work = self.work
        head = build_head(
            self.backbone,
            mean,
            deviation,
            embedding_size=work.embedding_size,
            head_units=work.head_units,
            dropout=work.dropout,
        )
        # Plain and mirrored, as the encoder itself will be used.
        held_out = features[self.split.validation][:, : 2 if self.backbone.contract.mirror else 1]

        def judge() -> dict[str, float]:
            flat = held_out.reshape(-1, held_out.shape[-1])
            embeddings = head.predict(flat, batch_size=4096, verbose=0)
            return self._judged(embeddings.reshape(*held_out.shape[:2], -1).mean(axis=1))

        def solve() -> None:
            flat = features[rows].reshape(-1, features.shape[-1])
            targets = np.repeat(self._teacher_targets(), features.shape[1], axis=0)
            solve_linear_correction(head, self.backbone, flat, targets)

        batches = self._batches(features[rows], has_views=True)
        solving = solve if self.loss == "teacher" else None
        return head, self._fit(head, batches, judge, "head", work.schedule, solving)

    def train_whole(self, model: keras.Model) -> Progress:
        """Train a whole network, crops in, embeddings out, and leave it at its best."""
        crops = np.asarray(self.data.crops)[self.split.train]

        def view(images: ImageArray, seed: int) -> npt.NDArray[np.float32]:
            pixels = keras.ops.convert_to_numpy(_VIEWS(images, seed)).round()
            seen: npt.NDArray[np.float32] = self.degrade(pixels.astype(np.uint8)).astype(np.float32)
            seen *= self.backbone.contract.pixel_range[1] / 255
            return seen

        def judge() -> dict[str, float]:
            return self._judged(self.embed(model, self.validation_crops()))

        if self.loss == "teacher":
            size = {"batch_size": _PEOPLE_A_BATCH * _PHOTOS_A_PERSON}
        else:
            size = {"people_a_batch": _PEOPLE_A_BATCH, "photos_a_person": _PHOTOS_A_PERSON}
        batches = self._batches(crops, augment=view, **size)
        return self._fit(model, batches, judge, "whole network", self.work.whole_schedule)

    def untouched_network(self) -> keras.Model:
        """The backbone and its own projection as one, with weights of its own.

        The projection stays frozen: the features are to mean to it in the condition what they
        mean to it out of it.
        """
        assert self.backbone.projection is not None
        parts = self.backbone.features, self.backbone.projection
        copies = [keras.models.clone_model(part) for part in parts]
        for part, copy in zip(parts, copies, strict=True):
            copy.set_weights(part.get_weights())
        for layer in copies[0].layers:
            layer.trainable = True
        copies[1].trainable = False
        return join(replace(self.backbone, features=copies[0]), copies[1])

    def validation_crops(self) -> ImageArray:
        """The crops to choose by, in the condition."""
        crops = np.asarray(self.data.crops[self.split.validation])
        return np.asarray(self.degrade(crops))

    def embed(self, model: keras.Model, crops: ImageArray) -> Embeddings:
        """Embeddings of crops as the finished encoder will give them."""
        return Encoder(model, self.backbone.contract).encode(crops)

    def embed_untouched(self, crops: ImageArray) -> Embeddings:
        """Embeddings of crops by the encoder that the backbone came from."""
        views = [crops, crops[:, :, ::-1]] if self.backbone.contract.mirror else [crops]
        embeddings = [self._project(self.backbone.extract(view)) for view in views]
        mean: Embeddings = np.mean(embeddings, axis=0, dtype=np.float32)
        return mean

    def _project(self, features: Embeddings) -> Embeddings:
        if self.backbone.projection is None:
            return features
        projected = self.backbone.projection.predict(features, batch_size=4096, verbose=0)
        return np.asarray(projected, np.float32)

    def _batches(self, images: npt.NDArray[Any], **options: Any) -> keras.utils.PyDataset:
        people = self.data.people[self.split.train]
        options["seed"] = self.work.seed
        if self.loss != "teacher":
            return PeopleBatches(images, people, **options)
        return PhotoBatches(images, self._teacher_targets(), **options)

    def _teacher_targets(self) -> Embeddings:
        """How the untouched encoder embeds the training photos out of the condition."""

        def compute() -> npt.NDArray[np.float32]:
            crops = self.data.crops[self.split.train]
            parts = [
                self.embed_untouched(np.asarray(crops[start : start + _CHUNK]))
                for start in self._chunks(len(crops), "the encoder's own embeddings")
            ]
            joined: npt.NDArray[np.float32] = np.concatenate(parts)
            return joined

        return self._once("targets", compute)

    def _features(self) -> npt.NDArray[np.float32]:
        """Features ``(N, views, F)`` of all photos, in the condition."""
        augmentation = Augmentation()

        def views(start: int) -> npt.NDArray[np.float32]:
            crops = np.asarray(self.data.crops[start : start + _CHUNK])
            seen = [crops, crops[:, :, ::-1]]
            for extra in range(self.work.views - 2):
                seed = int(np.random.default_rng([self.work.seed, start, extra]).integers(2**31))
                pixels = keras.ops.convert_to_numpy(augmentation(crops, seed))
                seen.append(pixels.round().astype(np.uint8))
            features = [self.backbone.extract(np.asarray(self.degrade(view))) for view in seen]
            return np.stack(features, axis=1)

        def compute() -> npt.NDArray[np.float32]:
            starts = self._chunks(len(self.data), "features")
            return np.asarray(np.concatenate([views(start) for start in starts]), np.float32)

        return self._once("features", compute)

    def _chunks(self, count: int, what: str) -> Any:
        starts = range(0, count, _CHUNK)
        return tracked(starts, len(starts), f"computing {what}", show=self.progress)

    def _once(
        self, name: str, compute: Callable[[], npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        """An array that is computed once a run, interrupted or not."""
        path = self.work.run_folder / f"{name}-{self.key}.npy"
        if not path.is_file():
            array = compute()
            with replacing(path, ModelFileError) as temporary:
                np.save(temporary, array, allow_pickle=False)
        return np.asarray(np.load(path, allow_pickle=False), np.float32)

    def _key(self) -> str:
        """What features and checkpoints depend on, as 16 hexadecimal digits."""
        work = self.work
        digest = hashlib.sha256()
        depends = [work.condition, work.views, work.seed, self.data.digests]
        digest.update(json.dumps(depends).encode())
        digest.update(self.split.train.tobytes())
        for model in (self.backbone.features, self.backbone.projection):
            for weight in model.get_weights() if model is not None else ():
                digest.update(np.ascontiguousarray(weight).tobytes())
        return digest.hexdigest()[:16]

    def _judged(self, embeddings: Embeddings) -> dict[str, float]:
        result = measure(embeddings, self.validation_pairs, self.work.false_match_rate)
        return {
            "score": result.accuracy,
            "validation_auc": result.auc,
            "validation_tar": result.tar_at_far,
            "standard_error": result.standard_error,
        }

    def _fit(
        self,
        model: keras.Model,
        batches: keras.utils.PyDataset,
        judge: Callable[[], dict[str, float]],
        stage: str,
        schedule: Schedule,
        solve: Callable[[], None] | None = None,
    ) -> Progress:
        # What is known already is replaced only for a gain that chance does not give.
        if self.backbone.projection is not None or stage != "head":
            schedule = replace(schedule, least_gain=judge()["standard_error"])
        model.compile(keras.optimizers.Adam(schedule.learning_rate), loss=self._loss())
        folder, name = self.work.run_folder, stage.replace(" ", "-")
        settings = [self.loss, self.work.head_units, self.work.dropout, vars(schedule)]
        run_key = f"{self.key} {stage} {json.dumps(settings)}"
        watch = Watch(
            judge, schedule, folder / f"{name}.npz", folder / f"{name}.csv", run_key, say=self.say
        )
        return fit_watched(model, batches, watch, solve=solve)

    def _loss(self) -> keras.losses.Loss:
        match self.loss:
            case "multi_similarity":
                return MultiSimilarityLoss()
            case "teacher":
                targets = self._teacher_targets()
                mean = targets.mean(axis=0)
                return TeacherLoss(mean.tolist(), float((targets - mean).std()))
            case mining:
                return MinedTripletLoss(mining=mining)


@dataclass(frozen=True)
class Retraining:
    """What to do.

    Attributes:
        data: The folder of people to train on.
        output: The ``.keras`` file to write; what belongs to the run lies beside it, in a folder
            of the same name ending in ``.training``.
        test_data: A folder of other people to report on; None takes a fifth of ``data``'s.
        condition: A harder condition to train and test for: a name of
            :data:`face_encode.training.augmentation.CONDITIONS`; None for the photos as they are.
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
