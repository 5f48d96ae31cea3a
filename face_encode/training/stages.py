"""The two stages of a retraining: the head on features computed once, then the whole network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError, ModelFileError
from face_encode.files import replacing
from face_encode.terminal import tracked
from face_encode.training.augmentation import Augmentation
from face_encode.training.backbones import Backbone, build_head, join, solve_linear_correction
from face_encode.training.batches import PeopleBatches, PhotoBatches
from face_encode.training.conditions import CONDITIONS
from face_encode.training.data import FaceCrops, PeopleSplit
from face_encode.training.fitting import Progress, Schedule, Watch, fit_watched
from face_encode.training.losses import MinedTripletLoss, MultiSimilarityLoss, TeacherLoss
from face_encode.training.verification import PairSet, measure
from face_encode.types import Embeddings, ImageArray

if TYPE_CHECKING:
    from face_encode.training.retraining import Retraining

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
