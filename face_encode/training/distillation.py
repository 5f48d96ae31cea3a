"""Distillation: train a network, the student, to give other ones' embeddings.

Teachers and student see the same augmented and mixed views, for a long time: Beyer and others,
"Knowledge distillation: A good teacher is patient and consistent", 2021,
https://arxiv.org/abs/2106.05237. The teachers are asked about each view once, and their answers
are kept. Width and resolution grow from stage to stage, because narrow networks and small images
teach most of it as well and many times faster. The student has batch normalisation while it
learns; it is folded away at the end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.contract import EncoderContract, save_encoder, save_model
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import KERAS
from face_encode.encoders.registry import load_encoder
from face_encode.encoders.vgg16 import BLOCKS, vgg_embedding
from face_encode.errors import DatasetError, InputError, ModelFileError
from face_encode.files import replacing
from face_encode.gallery.distances import unit_length
from face_encode.photos.reading import content_digest
from face_encode.training.augmentation import Augmentation
from face_encode.training.backbones import solve_ridge
from face_encode.training.batches import PeopleBatches, PhotoBatches
from face_encode.training.data import (
    MASTER,
    FaceCrops,
    PeopleSplit,
    Rows,
    check_trainable,
    crop_people,
    crop_photos,
    load_kept,
    screen,
    split_people,
    tell_left_out,
    weigh,
)
from face_encode.training.fitting import (
    Checkpoint,
    Judge,
    Progress,
    Schedule,
    fit_judged,
    has_gpu,
    without_xla,
)
from face_encode.training.losses import DistillationLoss, MinedTripletLoss
from face_encode.training.optimizers import Muon
from face_encode.training.recipe import DistillConfig
from face_encode.training.surgery import fold_batch_normalization, resize_input, widen
from face_encode.training.verification import PairSet, Verification, measure, with_thresholds
from face_encode.training.views import Teachers, Views, cut_out, look, make_views
from face_encode.types import CropRecipe, Embeddings, ImageArray
from face_encode.weights import cache_folder

# Views of smaller students are kept at this side: enough for a later stage.
_LEAST_VIEW_SIDE = 80
# The first epoch's share of its learning rate, in each stage.
_WARM_UP = 0.3
# Views that a last layer is solved on, and its penalty.
_SOLVED_VIEWS, _RIDGE = 6000, 0.01
# Threads that put batches together for a GPU; on a CPU one keeps up.
_GPU_WORKERS = 8
_PEOPLE_A_BATCH, _PHOTOS_A_PERSON = 24, 4
# Small changes: the crops that the finished network will see are aligned.
_PEOPLE_AUGMENTATION = Augmentation(turn=5.0, zoom=0.04, shift=0.03, brightness=0.08, contrast=0.15)
_OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "muon": Muon,
    "adamw": keras.optimizers.AdamW,
}
# Settings that the checkpoints of the distilling stages do not depend on: those of the plan may
# be changed between an interrupted run and its continuation.
_OUTSIDE_KEY = (
    *("data", "output", "begin", "false_match_rate"),
    *("sides", "widths", "epochs", "steps", "hours", "learning_rate", "weight_decay", "weights"),
    *("views", "people_epochs", "people_learning_rate", "data_name", "licence"),
)


@dataclass(frozen=True, eq=False)
class DistillResult:
    """The finished student, and the people to report on.

    Attributes:
        encoder: The finished student, as saved.
        teacher: The teachers, side by side, on the test people.
        student: The student on the test people.
        stages: Name of a stage -> its epochs.
    """

    encoder: Encoder
    teacher: Verification
    student: Verification
    stages: dict[str, Progress]


def distill_student(
    config: DistillConfig,
    teachers: Sequence[Encoder],
    detector: Detector,
    *,
    student: Callable[[int, int], keras.Model] | None = None,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> DistillResult:
    """Train a student, resuming from the last checkpoint of the same settings if there is one.

    Args:
        config: Settings.
        teachers: The encoders whose embeddings are learnt.
        detector: Finds the faces, with their landmarks.
        student: Builds the network for a side and an embedding size: a chain of layers that
            flattens into a dense layer and ends in a linear one. None builds VGG16 with batch
            normalisation.
        progress: Whether to show progress bars.
        say: Takes messages, a line at a time.

    Raises:
        DatasetError: The first folder is too small, or changes while its faces are cut out; another
            one holds no face; or no photo is left to train on.
        InputError: The student's embedding is longer than the teachers' together.
        TrainingError: The loss is no longer a number.
        ModelFileError: A file cannot be written. The output is then as it was before.
    """
    keras.utils.set_random_seed(config.seed)
    folders = [crop_photos(folder, MASTER, detector, progress=progress) for folder in config.data]
    tell_left_out([each for folder in folders for each in folder.left_out], say)
    people = folders[0].people
    check_trainable(people, config.data[0])
    split = split_people(people, validation=config.validation, test=config.test, seed=config.seed)
    # A GPU is faster than OpenVINO on the processor.
    asked = Teachers.of(teachers, fast=config.mixed_precision and not has_gpu())
    run = _Run(config, asked, folders, split, progress, say)
    # The training's crops come from master crops; threshold and report are of crops as in use. Cut
    # before the training: photos that come during it would move the rows.
    exact = crop_people(config.data[0], run.recipe(config.sides[-1]), detector, progress=progress)
    if exact.digests != folders[0].digests:
        raise DatasetError(
            f"{config.data[0]}: the photos changed while their faces were cut out, or crops of an "
            f"earlier release are in the cache; run again, or delete {cache_folder() / 'crops'}. "
            f"Received: {len(folders[0])} photos with a face, then {len(exact)}"
        )
    size = len(run.adapter.mean)
    if config.begin is not None:
        network = run.begin_from(open_student(config.begin, config.widths[0]))
    elif student is not None:
        network = student(config.sides[0], size)
    else:
        network = build_student(config.widths[0], config.mixed_precision, config.sides[0], size)
    stages: dict[str, Progress] = {}
    for number, (side, width) in enumerate(zip(config.sides, config.widths, strict=True)):
        if number:
            network = _widened(network, width / config.widths[number - 1])
        network = resize_input(network, side, side)
        name = f"{number + 1}-{side}px-{width:g}"
        stages[name] = run.train_stage(number, name, network)
    with replacing(config.run_folder / "student.keras", ModelFileError, shared=True) as temporary:
        # A copy, without the optimizer.
        save_model(resize_input(network, side, side), temporary)
    encoder = run.adapter.finish(network)
    contract = encoder.contract
    if config.people_epochs:
        stages["people"] = run.train_people_stage(encoder, network)
        if stages["people"].best_epoch:
            trained_on = f"triplets of people, after {contract.trained_on}"
            contract = replace(contract, trained_on=trained_on)
        encoder = Encoder(encoder.model, contract)
    embeddings = encoder.encode(np.asarray(exact.crops[split.validation]))
    contract = with_thresholds(contract, embeddings, run.validation_pairs, config.false_match_rate)
    save_encoder(encoder.model, config.output, contract, half_precision=True)
    finished = load_encoder(config.output, engine=KERAS)
    pairs = PairSet.among(people[split.test], config.seed)
    answers = run.teachers.embed_photos(folders[0], split.test)
    students = finished.encode(np.asarray(exact.crops[split.test]))
    return DistillResult(
        encoder=finished,
        teacher=measure(answers, pairs, config.false_match_rate),
        student=measure(students, pairs, config.false_match_rate, contract.threshold),
        stages=stages,
    )


@dataclass(frozen=True, eq=False)
class _Run:
    """The stages of a distillation, on one split of the first folder."""

    config: DistillConfig
    teachers: Teachers
    folders: list[FaceCrops]
    split: PeopleSplit
    progress: bool
    say: Callable[[str], None]

    @cached_property
    def validation_pairs(self) -> PairSet:
        """Pairs of the people to choose by."""
        return PairSet.among(self.folders[0].people[self.split.validation], self.config.seed)

    @cached_property
    def key(self) -> str:
        """Digest of everything that a stage's checkpoint depends on."""
        config = self.config
        settings = {name: value for name, value in vars(config).items() if name not in _OUTSIDE_KEY}
        begun = [] if config.begin is None else [content_digest(config.begin)]
        photos = [
            [folder.detector, *(folder.digests[row] for row in self.rows[n])]
            for n, folder in self._numbered
        ]
        return _digest([settings, self._fingerprints, photos, *begun])

    @property
    def _numbered(self) -> list[tuple[int, FaceCrops]]:
        return list(enumerate(self.folders))

    @property
    def _fingerprints(self) -> list[str]:
        return [encoder.fingerprint for encoder in self.teachers.encoders]

    def recipe(self, side: int) -> CropRecipe:
        """How the student's crops of this side are cut out."""
        config, first = self.config, self.teachers.recipes[0]
        margin = first.margin if config.margin is None else config.margin
        return CropRecipe(config.crop or first.method, side, side, margin)

    @cached_property
    def weights(self) -> list[npt.NDArray[np.float64]]:
        """How often each photo of each folder is drawn."""
        photos = [folder.photos for folder in self.folders]
        return weigh(photos, self.config.weights, self.say)

    @cached_property
    def rows(self) -> list[Rows]:
        """The photos of each folder that are trained on."""
        config, first = self.config, self.folders[0]
        held_out = np.concatenate([self.split.validation, self.split.test])
        names = {first.names[person] for person in first.people[held_out]}
        rows = [self.split.train]
        for folder in self.folders[1:]:
            is_other = np.array([name not in names for name in folder.names])
            rows.append(np.flatnonzero(is_other[folder.people]))
        rows = [part[weights[part] > 0] for part, weights in zip(rows, self.weights, strict=True)]
        # The same files may lie in a further folder, without a name or under another.
        digests, before = {first.digests[row] for row in held_out}, sum(map(len, rows))
        for number, folder in self._numbered:
            is_other = np.array([digest not in digests for digest in folder.digests])
            rows[number] = rows[number][is_other[rows[number]]]
        if doubles := before - sum(map(len, rows)):
            self.say(f"{doubles:,} photos are also among those held out: not trained on")
        if config.screen:
            before = sum(map(len, rows))
            embeddings = [self._embeddings(folder) for folder in self.folders]
            rows = screen(embeddings, rows, embeddings[0][held_out], *config.screen)
            self.say(f"{before - sum(map(len, rows)):,} of {before:,} photos are screened out")
        if not any(map(len, rows)):
            raise DatasetError(
                f"no photo is left to train on. Received: weights {config.weights}, "
                f"screen {config.screen}"
            )
        return rows

    def _embeddings(self, folder: FaceCrops) -> Embeddings:
        """The teachers' embeddings of a folder's photos, of length 1, made once."""
        mixed = self.config.mixed_precision
        key = _digest([self._fingerprints, mixed, folder.detector, folder.digests])
        path = self.config.run_folder / f"photos-{key}.npy"
        if not path.is_file():
            answers = self.teachers.embed_photos(folder, np.arange(len(folder)))
            with replacing(path, ModelFileError) as temporary, open(temporary, "wb") as file:
                np.save(file, unit_length(answers), allow_pickle=False)
        return load_kept(path)

    @cached_property
    def views(self) -> Views:
        """Views of the training photos, with the teachers' answers, folder by folder."""
        config = self.config
        largest = self.recipe(max(_LEAST_VIEW_SIDE, config.sides[-1]))
        depends = [config.mixup, config.mixed_precision, config.seed, largest.as_dict()]
        views = Views((), ())
        for number, folder in self._numbered:
            rows = self.rows[number]
            if len(rows) == 0:
                continue
            photos = [folder.detector, *(folder.digests[row] for row in rows)]
            key = _digest([depends, self._fingerprints, photos])
            views += make_views(
                folder,
                rows,
                self.teachers,
                largest,
                config.run_folder / f"views-{key}",
                rounds=config.views,
                mixup=config.mixup,
                seed=config.seed,
                progress=self.progress,
            )
        return views

    @cached_property
    def adapter(self) -> StudentAdapter:
        """The adapter, with the statistics of the teachers' answers."""
        config, first = self.config, self.teachers.encoders[0]
        answers = np.concatenate(self.views.answers).astype(np.float32)
        size = config.embedding_size or first.embedding_size
        if size > answers.shape[1]:
            raise InputError(
                f"the teachers' embeddings have {answers.shape[1]} numbers together, and the "
                f"student's no more. Received: {size}"
            )
        # The directions in which the answers are longest, so that cosines are kept.
        _, directions = np.linalg.eigh(answers.T @ answers)
        is_whole = size == answers.shape[1]
        projection = np.eye(size) if is_whole else directions[:, ::-1][:, :size]
        answers = answers @ projection.astype(np.float32)
        mean = answers.mean(axis=0)
        counts = [
            f"{config.data[n].resolve().name} ({len(self.rows[n]):,})" for n, _ in self._numbered
        ]
        names = [encoder.name for encoder in self.teachers.encoders]
        origins = [f"{each.name}: {each.contract.trained_on}" for each in self.teachers.encoders]
        contract = EncoderContract(
            name=config.output.stem,
            crop=self.recipe(config.sides[-1]),
            threshold=0.0,
            mirror=first.contract.mirror,
            trained_on=f"embeddings of {' and '.join(names)} for {sum(map(len, self.rows)):,} "
            f"photos of {config.data_name or ', '.join(counts)}, {date.today().isoformat()}; "
            f"teachers: {'; '.join(origins)}",
            licence=config.licence or first.contract.licence,
        )
        return StudentAdapter(contract, projection, mean, float((answers - mean).std()))

    def begin_from(self, network: keras.Model) -> keras.Model:
        """An earlier student at the first side; of other teachers, with a new last layer."""
        config, side, last = self.config, self.config.sides[0], network.layers[-1]
        size = len(self.adapter.mean)
        network = resize_input(network, side, side)
        if not config.new_teachers and last.units == size:
            return network
        random = np.random.default_rng(config.seed)
        rows = random.integers(0, len(self.views), min(_SOLVED_VIEWS, len(self.views)))
        targets = self.adapter.targets(np.concatenate(self.views.answers)[rows])
        features = keras.Model(network.input, network.layers[-1].input)
        found = features.predict(look(self.views[rows], config.seed, side), verbose=0)
        layer = keras.layers.Dense(size, name=last.name, dtype="float32")
        begun = keras.Model(network.input, layer(features.output), name=network.name)
        layer.set_weights(solve_ridge(found.astype(np.float32), targets, _RIDGE))
        return begun

    def train_stage(self, number: int, name: str, network: keras.Model) -> Progress:
        """Train the student on views at one width and side, and leave it at its last epoch."""
        config = self.config
        weights = [part[rows] for part, rows in zip(self.weights, self.rows, strict=True)]
        batches = PhotoBatches(
            self.views,
            self.adapter.targets(np.concatenate(self.views.answers)),
            batch_size=config.batch_size,
            seed=config.seed,
            augment=partial(look, side=network.input_shape[1]),
            weights=np.concatenate([np.tile(part, config.views) for part in weights]),
            steps=config.steps,
            workers=_GPU_WORKERS if has_gpu() else 1,
        )
        network.compile(
            _OPTIMIZERS[config.optimizer](config.learning_rate, weight_decay=config.weight_decay),
            loss=DistillationLoss(),
            jit_compile=without_xla(),
        )
        begin, end = (sum(config.epochs[:n]) / sum(config.epochs) for n in (number, number + 1))
        schedule = Schedule(
            config.epochs[number],
            config.learning_rate,
            cosine=True,
            span=(begin, end),
            warm_up=_WARM_UP,
            hours=None if config.hours is None else config.hours * (end - begin),
            keep_last=True,
        )
        run_key = f"{self.key} {name}"
        if number:
            # The stages before may have gone on since: their plan is not in the key.
            run_key += f" {_digest_of(network)}"
        checkpoint = Checkpoint(
            lambda: self._judge(self.adapter.finish(network)),
            schedule,
            config.run_folder,
            name,
            run_key=run_key,
            say=lambda line: self.say(f"{name}: {line}"),
        )
        return fit_judged(network, batches, checkpoint)

    def train_people_stage(self, encoder: Encoder, student: keras.Model) -> Progress:
        """Train the finished student on triplets of people; leave it at its best."""
        parts = [(folder, self.rows[number]) for number, folder in self._numbered]
        names = [folder.names[person] for folder, rows in parts for person in folder.people[rows]]
        return train_on_people(
            self.config,
            encoder.model,
            np.concatenate([cut_out(*part, encoder.contract.crop) for part in parts]),
            np.unique(names, return_inverse=True)[1].astype(np.int64),
            # A new encoder each time: one keeps the weights that it was compiled with.
            lambda: self._judge(Encoder(encoder.model, encoder.contract)),
            # Of the student: the encoder's last bits depend on the number of threads.
            run_key=f"{self.key} {_digest_of(student)}",
            say=lambda line: self.say(f"people: {line}"),
        )

    def _judge(self, encoder: Encoder) -> dict[str, float]:
        """How well a student verifies the people to choose by."""
        crops = cut_out(self.folders[0], self.split.validation, encoder.contract.crop)
        embeddings = encoder.encode(crops)
        return measure(embeddings, self.validation_pairs, self.config.false_match_rate).as_judged()


def _digest(content: Any) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _digest_of(network: keras.Model) -> str:
    """Digest of a network's weights."""
    return hashlib.sha256(b"".join(each.tobytes() for each in network.get_weights())).hexdigest()


@dataclass(frozen=True, eq=False)
class StudentAdapter:
    """Turns the teachers' answers into a student's targets, and a student into an encoder.

    Attributes:
        contract: The finished encoder's contract, except for the size of its crops.
        projection: From the teachers' answers to embeddings of the student's length, ``(A, D)``.
        mean: The mean of these, ``(D,)``.
        scale: The standard deviation about it, one number.
    """

    contract: EncoderContract
    projection: npt.NDArray[np.floating[Any]]
    mean: Embeddings
    scale: float

    def targets(self, answers: npt.NDArray[Any]) -> Embeddings:
        """The teachers' answers ``(N, A)``, centred and scaled as the student learns them.

        Embeddings of faces share a large mean, beside which their differences are small.
        """
        embeddings = answers.astype(np.float32) @ self.projection.astype(np.float32)
        return np.asarray((embeddings - self.mean) / self.scale, np.float32)

    def finish(self, trained: keras.Model) -> Encoder:
        """The student as an encoder of its own, which gives embeddings like the teachers'.

        Its weights are copies; training further does not change it.
        """
        folded = fold_batch_normalization(trained)
        kernel, bias = folded.layers[-1].get_weights()
        folded.layers[-1].set_weights([kernel * self.scale, bias * self.scale + self.mean])
        side = trained.input_shape[1]
        crop = replace(self.contract.crop, height=side, width=side)
        return Encoder(folded, replace(self.contract, crop=crop))


def build_student(
    width: float, mixed_precision: bool, side: int, embedding_size: int
) -> keras.Model:
    """Build VGG16 with batch normalisation; its width is a share of VGG16's own.

    With mixed precision it computes in bfloat16.
    """
    former = keras.config.dtype_policy()
    if mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        # Views and mixtures regularise enough; dropout would add nothing.
        return vgg_embedding(
            (side, side, 3), embedding_size, dropout=0.0, width=width, batch_normalization=True
        )
    finally:
        keras.config.set_dtype_policy(former)


def open_student(path: Path, width: float) -> keras.Model:
    """Open an earlier run's ``student.keras``, widened to a multiple of its width if wanted.

    Raises:
        ModelFileError: The file is missing, or no Keras model.
        InputError: It has a width that widening does not lead to.
    """
    try:
        student = keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras raises anything on a foreign file, from KeyError to its own types.
    except Exception as error:
        raise ModelFileError(f"Keras cannot load {path}: {error}") from error
    convolutions = [each for each in student.layers if isinstance(each, keras.layers.Conv2D)]
    if not convolutions:
        raise InputError(f"{path}: a student has convolutions. Received: a network without any")
    return _widened(student, BLOCKS[0][0] * width / convolutions[0].filters)


def _widened(student: keras.Model, factor: float) -> keras.Model:
    """A student with its channels multiplied, which must be by a whole number."""
    if factor < 1 or not float(factor).is_integer():
        raise InputError(
            "a student is widened to a whole multiple of its channels. "
            f"Received: {factor:g} times its own"
        )
    return widen(student, int(factor)) if factor > 1 else student


def train_on_people(
    config: DistillConfig,
    model: keras.Model,
    crops: ImageArray,
    people: npt.NDArray[np.int64],
    judge: Judge,
    *,
    run_key: str,
    say: Callable[[str], None] = lambda _: None,
) -> Progress:
    """Train a whole network on semi-hard triplets of people; leave it at its best.

    The learning rate falls to 0 by a cosine. The network is left untouched, ``best_epoch`` 0,
    unless an epoch is better by the ``standard_error`` that the judge gives.

    Args:
        config: Epochs, in which each person with several photos comes once, and learning rate.
        model: Crops in, embeddings out, without batch normalisation among its convolutions: the
            statistics of the few people in a batch would be wrong for everybody else.
        crops: uint8 ``(N, height, width, 3)`` of the model's size.
        people: int ``(N,)``.
        judge: Measures the network on other people.
        run_key: Everything else that the stage depends on.
        say: Takes one line about each epoch.
    """
    epochs, learning_rate = config.people_epochs, config.people_learning_rate
    batches = PeopleBatches(
        crops,
        people,
        people_a_batch=_PEOPLE_A_BATCH,
        photos_a_person=_PHOTOS_A_PERSON,
        seed=config.seed,
        augment=lambda images, draw: keras.ops.convert_to_numpy(_PEOPLE_AUGMENTATION(images, draw)),
    )
    model.compile(
        keras.optimizers.Adam(learning_rate), loss=MinedTripletLoss(), jit_compile=without_xla()
    )
    gain = judge()["standard_error"]
    schedule = Schedule(epochs, learning_rate, cosine=True, least_gain=gain)
    run_key = f"{run_key} {epochs} {learning_rate}"
    checkpoint = Checkpoint(judge, schedule, config.run_folder, "people", run_key, say)
    return fit_judged(model, batches, checkpoint)
