"""Retraining: a new head on a backbone's features and, on request, the whole network after it.

The people of a folder are split into three. The head learns from the first part. The second part
decides: on the epoch, the threshold, and whether the new head is used at all, for it has to verify
these people better than the untouched encoder by more than chance. The third part decides nothing;
the encoder is measured on it before and after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.contract import save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError, ModelFileError
from face_encode.files import replacing
from face_encode.terminal import with_progress
from face_encode.training.augmentation import DEGRADATIONS, Augmentation
from face_encode.training.backbones import Backbone, build_head, join, solve_linear_correction
from face_encode.training.batches import PeopleBatches, PhotoBatches
from face_encode.training.data import (
    FaceCrops,
    PeopleSplit,
    Rows,
    crop_people,
    load_kept,
    refuse_overlap,
    refuse_shared,
    split_people,
    tell_left_out,
)
from face_encode.training.fitting import Checkpoint, Judge, Progress, Schedule, fit_judged
from face_encode.training.losses import DistillationLoss, MinedTripletLoss, MultiSimilarityLoss
from face_encode.training.recipe import check_ranges
from face_encode.training.verification import PairSet, Verification, measure, with_thresholds
from face_encode.types import Embeddings, ImageArray
from face_encode.version import __version__

_CHUNK = 256
_PEOPLE_A_BATCH, _PHOTOS_A_PERSON = 12, 4
# Small changes: the crops that the finished network will see are aligned.
_AUGMENTATION = Augmentation(turn=3.0, zoom=0.03, shift=0.02, brightness=0.05, contrast=0.1)

Lesson: TypeAlias = Literal["semi_hard", "hard", "multi_similarity", "teacher"]


@dataclass(frozen=True)
class RetrainConfig:
    """Settings of a retraining.

    Attributes:
        data: The folder of people to train on.
        output: The ``.keras`` file to write; the run's other files lie beside it, in a folder of
            the same name ending in ``.training``.
        test_data: A folder of other people to report on; None takes a fifth of ``data``'s.
        condition: The degradation to train and test for, a name of
            ``face_encode.training.augmentation.DEGRADATIONS``; None for the photos as they are.
        loss: ``"semi_hard"`` or ``"hard"`` triplets, ``"multi_similarity"``, or ``"teacher"``:
            to embed a degraded face as the untouched encoder embeds the clear one; None chooses
            ``"teacher"`` where there is a condition and the encoder has a projection of its own,
            else ``"semi_hard"``.
        views: Views of each photo that features are computed of: the crop, its mirror image, and
            from the third on augmented ones.
        schedule: Schedule of the head's training.
        unfreeze: Whether to train the whole network after the head.
        whole_schedule: Schedule of the whole network's training.
        false_match_rate: The rate that the threshold is calibrated for.
        embedding_size: Length of the embedding, for a backbone without a projection.
        head_units: Units of the head's hidden layers.
        dropout: Share of the head's units dropped.
        seed: The same seed gives the same result.
    """

    data: Path
    output: Path
    test_data: Path | None = None
    condition: str | None = None
    loss: Lesson | None = None
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
        if self.output.suffix != ".keras":
            raise ModelFileError(f"a model file's name ends in .keras. Received: {self.output}")
        if self.condition is not None and self.condition not in DEGRADATIONS:
            raise InputError(
                f"a condition is one of {', '.join(DEGRADATIONS)}. Received: {self.condition!r}"
            )
        check_ranges(self, views=(2, 1000))  # the crop and its mirror image

    @property
    def degrade(self) -> Callable[[ImageArray], ImageArray]:
        """Degrades crops to the condition; without one, leaves them as they are."""
        return DEGRADATIONS[self.condition] if self.condition else np.asarray

    @property
    def run_folder(self) -> Path:
        """Folder of log, checkpoint, features and picture."""
        return self.output.with_suffix(".training")


@dataclass(frozen=True, eq=False)
class RetrainResult:
    """The new encoder, and the people to report on before and after.

    Attributes:
        encoder: The finished encoder, as saved.
        before: The untouched encoder on the test people.
        after: The finished encoder on the test people.
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
    config: RetrainConfig,
    backbone: Backbone,
    detector: Detector,
    *,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> RetrainResult:
    """Retrain the head, resuming from the last checkpoint of the same settings if there is one.

    Args:
        config: Settings.
        backbone: The backbone to put a new head on.
        detector: Finds the faces.
        progress: Whether to show progress bars.
        say: Takes messages, a line at a time.

    Raises:
        InputError: The loss needs a projection, and the backbone has none.
        DatasetError: The folders are too small, or share people or photos.
        TrainingError: The loss is no longer a number.
        ModelFileError: A file cannot be written. The output is then as it was before.
    """
    has_projection = backbone.projection is not None
    default: Lesson = "teacher" if config.condition and has_projection else "semi_hard"
    lesson = config.loss or default
    if lesson == "teacher" and not has_projection:
        raise InputError(
            "loss 'teacher' learns from the encoder's own embeddings, and backbone "
            f"{backbone.contract.name!r} has features only. Received: loss 'teacher'"
        )
    if config.test_data is not None:
        refuse_overlap(config.data, config.test_data)
    keras.utils.set_random_seed(config.seed)
    recipe = backbone.contract.crop
    data = crop_people(config.data, recipe, detector, progress=progress)
    split = split_people(data.people, test=0 if config.test_data else 0.2, seed=config.seed)
    left_out = data.left_out
    if config.test_data is None:
        test = data.part(split.test)
    else:
        test = crop_people(config.test_data, recipe, detector, progress=progress)
        refuse_shared(data, test)
        left_out += test.left_out
    parts = (data.people[split.train], data.people[split.validation], test.people)
    photos, people = [len(part) for part in parts], [len(np.unique(part)) for part in parts]
    uses = zip(photos, people, ("to train on", "to choose by", "to report on"), strict=True)
    say(", ".join(f"{count} photos of {of} people {use}" for count, of, use in uses))
    tell_left_out(left_out, say)

    run = _Run(config, backbone, data, split, lesson, progress, say)
    pairs = PairSet.among(test.people, config.seed)
    test_crops = config.degrade(np.asarray(test.crops))
    # Before the training, because training the whole network changes the backbone.
    before = backbone.embed(test_crops)
    head, head_progress = run.train_head()
    model, whole_progress = join(backbone, head), None
    if config.unfreeze:
        # With a teacher the whole network begins as it was: the teacher's answers teach it more
        # than the head did.
        model.trainable = True
        whole = run.untouched_network() if lesson == "teacher" else model
        whole_progress = run.train_whole(whole)
        if whole_progress.best_score >= head_progress.best_score:
            model = whole
    condition = f", condition {config.condition!r}" if config.condition else ""
    calibrated = with_thresholds(
        backbone.contract,
        run.embed_validation(model),
        run.validation_pairs,
        config.false_match_rate,
    )
    contract = replace(
        calibrated,
        name=config.output.stem,
        # Measured for the backbone's own embeddings.
        euclidean_threshold=None,
        package_version=__version__,
        trained_on=(
            f"head: {photos[0]} photos of {people[0]} people in {config.data.name!r}{condition}; "
            f"backbone {backbone.contract.name}: {backbone.contract.trained_on}"
        ),
    )
    encoder = Encoder(model, contract)
    after = encoder.encode(test_crops)
    model.trainable = True
    save_encoder(model, config.output, contract)
    return RetrainResult(
        encoder=encoder,
        before=measure(before, pairs, config.false_match_rate),
        after=measure(after, pairs, config.false_match_rate, contract.threshold),
        head=head_progress,
        whole=whole_progress,
        scores=(pairs.similarities(before), pairs.similarities(after), pairs.same),
        photos=(photos[0], photos[1], photos[2]),
        people=(people[0], people[1], people[2]),
    )


@dataclass(frozen=True, eq=False)
class _Run:
    """Both trainings on one split of one folder."""

    config: RetrainConfig
    backbone: Backbone
    data: FaceCrops
    split: PeopleSplit
    lesson: Lesson
    progress: bool
    say: Callable[[str], None]

    @cached_property
    def validation_pairs(self) -> PairSet:
        """Pairs of the people to choose by."""
        return PairSet.among(self.data.people[self.split.validation], self.config.seed)

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits of everything that features and checkpoints depend on.

        Computed once, before training changes the backbone's weights.
        """
        config, data, digest = self.config, self.data, hashlib.sha256()
        depends = [config.condition, config.views, config.seed, data.detector, data.digests]
        digest.update(json.dumps(depends).encode())
        digest.update(self.split.train.tobytes())
        for model in (self.backbone.features, self.backbone.projection):
            for weight in model.get_weights() if model is not None else ():
                digest.update(np.ascontiguousarray(weight).tobytes())
        return digest.hexdigest()[:16]

    def train_head(self) -> tuple[keras.Model, Progress]:
        """Train the head on features computed once; the head at its best, and its epochs."""
        config, backbone = self.config, self.backbone
        everything = np.arange(len(self.data))
        features = self._once("features", "features", everything, self._features)
        training = features[self.split.train]
        mean, deviation = training.mean(axis=(0, 1)), training.std(axis=(0, 1))
        # Noise of a feature that hardly ever differs from 0 would grow large.
        deviation = np.maximum(deviation, 1e-2 * deviation.mean() + np.float32(1e-12))
        head = build_head(
            backbone,
            mean,
            deviation,
            embedding_size=config.embedding_size,
            head_units=config.head_units,
            dropout=config.dropout,
        )
        # Plain and mirrored, as the encoder will be used.
        held_out = features[self.split.validation][:, : 2 if backbone.contract.mirror else 1]

        def judge() -> dict[str, float]:
            flat = held_out.reshape(-1, held_out.shape[-1])
            embeddings = head.predict(flat, batch_size=4096, verbose=0)
            return self._judge(embeddings.reshape(*held_out.shape[:2], -1).mean(axis=1))

        def solve() -> None:
            flat = training.reshape(-1, training.shape[-1])
            targets = np.repeat(self._teacher_targets(), training.shape[1], axis=0)
            solve_linear_correction(head, backbone, flat, targets)

        batches = self._batches(training, has_views=True)
        solving = solve if self.lesson == "teacher" else None
        schedule = config.schedule
        # An encoder that can be used as it is gives way only to a gain beyond chance.
        if backbone.projection is not None:
            schedule = replace(schedule, least_gain=judge()["standard_error"])
        return head, self._fit("head", head, batches, judge, schedule, solving)

    def train_whole(self, model: keras.Model) -> Progress:
        """Train a whole network, crops in, embeddings out, and leave it at its best."""
        scale = self.backbone.contract.pixel_range[1] / 255

        def augment(images: ImageArray, seed: int) -> npt.NDArray[np.float32]:
            pixels = keras.ops.convert_to_numpy(_AUGMENTATION(images, seed)).round()
            degraded = self.config.degrade(pixels.astype(np.uint8)).astype(np.float32)
            return np.asarray(degraded * np.float32(scale))

        def judge() -> dict[str, float]:
            return self._judge(self.embed_validation(model))

        if self.lesson == "teacher":
            size = {"batch_size": _PEOPLE_A_BATCH * _PHOTOS_A_PERSON}
        else:
            size = {"people_a_batch": _PEOPLE_A_BATCH, "photos_a_person": _PHOTOS_A_PERSON}
        crops = np.asarray(self.data.crops)[self.split.train]
        batches = self._batches(crops, augment=augment, **size)
        schedule = replace(self.config.whole_schedule, least_gain=judge()["standard_error"])
        return self._fit("whole-network", model, batches, judge, schedule)

    def untouched_network(self) -> keras.Model:
        """The backbone and its own projection as one, with weights of its own.

        The projection stays frozen: features of degraded photos are to mean to it what those of
        clear photos mean.
        """
        originals = self.backbone.features, self.backbone.projection
        features, projection = (keras.models.clone_model(part) for part in originals)
        for copy, original in zip((features, projection), originals, strict=True):
            copy.set_weights(original.get_weights())
        for layer in features.layers:
            layer.trainable = True
        projection.trainable = False
        return join(replace(self.backbone, features=features), projection)

    def embed_validation(self, model: keras.Model) -> Embeddings:
        """Embeddings of the degraded crops to choose by, as the finished encoder computes them."""
        crops = self.config.degrade(np.asarray(self.data.crops[self.split.validation]))
        return Encoder(model, self.backbone.contract).encode(crops)

    def _judge(self, embeddings: Embeddings) -> dict[str, float]:
        rate = self.config.false_match_rate
        return measure(embeddings, self.validation_pairs, rate).as_judged()

    def _fit(
        self,
        stage: str,
        model: keras.Model,
        batches: keras.utils.PyDataset,
        judge: Judge,
        schedule: Schedule,
        solve: Callable[[], None] | None = None,
    ) -> Progress:
        match self.lesson:
            case "multi_similarity":
                loss = MultiSimilarityLoss()
            case "teacher":
                targets = self._teacher_targets()
                mean = targets.mean(axis=0)
                loss = DistillationLoss(mean.tolist(), float((targets - mean).std()))
            case mining:
                loss = MinedTripletLoss(mining=mining)
        model.compile(keras.optimizers.Adam(schedule.learning_rate), loss=loss)
        config = self.config
        settings = [self.lesson, config.head_units, config.dropout, vars(schedule)]
        # Of the embedding where the backbone has none of its own.
        settings += [config.embedding_size]
        run_key = f"{self.key} {stage} {json.dumps(settings)}"
        checkpoint = Checkpoint(judge, schedule, config.run_folder, stage, run_key, self.say)
        return fit_judged(model, batches, checkpoint, solve=solve)

    def _batches(self, images: npt.NDArray[Any], **options: Any) -> keras.utils.PyDataset:
        options["seed"] = self.config.seed
        if self.lesson == "teacher":
            return PhotoBatches(images, self._teacher_targets(), **options)
        return PeopleBatches(images, self.data.people[self.split.train], **options)

    def _teacher_targets(self) -> Embeddings:
        """The untouched encoder's embeddings of the training photos, without degradation."""
        return self._once(
            "targets",
            "the encoder's own embeddings",
            self.split.train,
            lambda crops, _: self.backbone.embed(crops),
        )

    def _features(self, crops: ImageArray, start: int) -> npt.NDArray[np.float32]:
        """Features ``(N, views, F)`` of a chunk of crops, degraded."""
        augmentation, views = Augmentation(), [crops, crops[:, :, ::-1]]
        for extra in range(self.config.views - 2):
            random = np.random.default_rng([self.config.seed, start, extra])
            pixels = augmentation(crops, int(random.integers(2**31)))
            views.append(keras.ops.convert_to_numpy(pixels).round().astype(np.uint8))
        degraded = map(self.config.degrade, views)
        return np.stack([self.backbone.extract(view) for view in degraded], axis=1)

    def _once(
        self,
        name: str,
        description: str,
        rows: Rows,
        compute: Callable[[ImageArray, int], npt.NDArray[np.float32]],
    ) -> npt.NDArray[np.float32]:
        """An array computed from crops in chunks, once a run, interrupted or not."""
        path = self.config.run_folder / f"{name}-{self.key}.npy"
        if not path.is_file():
            starts = range(0, len(rows), _CHUNK)
            shown = with_progress(
                starts, len(starts), f"computing {description}", show=self.progress
            )
            chunks = ((start, rows[start : start + _CHUNK]) for start in shown)
            parts = [compute(np.asarray(self.data.crops[part]), start) for start, part in chunks]
            with replacing(path, ModelFileError) as temporary:
                np.save(temporary, np.concatenate(parts), allow_pickle=False)
        return np.array(load_kept(path), np.float32)
