"""Distillation: train a network, the student, to give another one's embeddings.

Teacher and student see the same augmented and mixed views, for a long time: Beyer and others,
"Knowledge distillation: A good teacher is patient and consistent", 2021,
https://arxiv.org/abs/2106.05237. The teacher is asked about each view once, and its answers are
kept. Resolution grows from stage to stage, because small images teach most of it as well and many
times faster. The student has batch normalisation while it learns; it is folded away at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.contract import EncoderContract, save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import KERAS
from face_encode.encoders.registry import load_encoder
from face_encode.encoders.vgg16 import BLOCKS, vgg_embedding
from face_encode.errors import InputError, ModelFileError
from face_encode.files import as_path, open_regular, reason_of, replacing
from face_encode.photos.reading import content_digest
from face_encode.training.augmentation import Augmentation
from face_encode.training.batches import PeopleBatches, PhotoBatches
from face_encode.training.data import FaceCrops, PeopleSplit, crop_people, split_people
from face_encode.training.fitting import (
    Checkpoint,
    Judge,
    Progress,
    Schedule,
    fit_judged,
    without_xla,
)
from face_encode.training.losses import DistillationLoss, MinedTripletLoss
from face_encode.training.optimizers import CosineOverStages, Muon
from face_encode.training.surgery import fold_batch_normalization, resize_input, widen
from face_encode.training.verification import PairSet, Verification, calibrate, measure
from face_encode.training.views import Views, crop_middle, jitter, make_views
from face_encode.types import Embeddings, ImageArray
from face_encode.version import __version__

# A student hardly ever sees more pixels of a dlib chip's 150.
_VIEW_SIDE = 96
_PEOPLE_A_BATCH, _PHOTOS_A_PERSON = 24, 4
# Small changes: the crops that the finished network will see are aligned.
_PEOPLE_AUGMENTATION = Augmentation(turn=5.0, zoom=0.04, shift=0.03, brightness=0.08, contrast=0.15)
_OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "muon": Muon,
    "adamw": keras.optimizers.AdamW,
}
# Settings that the checkpoints of the distilling stages do not depend on.
_AFTER_DISTILLING = (
    *("data", "output", "begin", "false_match_rate"),
    *("people_epochs", "people_learning_rate", "data_name", "licence"),
)


@dataclass(frozen=True)
class DistillConfig:
    """Settings of a distillation.

    Attributes:
        data: A folder of people.
        output: The ``.keras`` file to write; views, checkpoints and logs lie beside it, in a
            folder of the same name ending in ``.training``.
        sides: Rows and columns of the student's input in each stage, growing; the last is the
            finished student's.
        epochs: How often each stage sees all its views.
        views: Views of each photo in each stage, not falling: each stage takes the first of
            those that the teacher is asked about.
        margin: The margin of the student's crop, at most the teacher's; None for the same. With a
            tighter crop, the face fills more of few pixels.
        width: Width of the student's convolutions; 1.0 is VGG16.
        begin: An earlier student to continue from, ``student.keras`` in its run's folder; it is
            widened first where the width is a multiple of its own. None starts from random
            weights.
        batch_size: Photos a step.
        optimizer: ``"muon"`` or ``"adamw"``.
        learning_rate: The highest learning rate, after a warm-up; it falls to 0 by one cosine over
            all stages.
        weight_decay: The optimizer's weight decay.
        mixup: Share of the views that are mixed with another.
        people_epochs: Epochs of a last stage on triplets of the people themselves, which is kept
            only if it helps; 0 leaves it out.
        people_learning_rate: The highest learning rate of that stage, by Adam.
        mixed_precision: Whether the student computes in bfloat16 and, on a CPU, the teacher's
            answers too.
        validation: Share of the people to choose the best epoch and the threshold by.
        test: Share of the people to report on.
        false_match_rate: The rate that the threshold is calibrated for.
        seed: The same seed gives the same result.
        data_name: Name of the photos in the contract; None for the folder's name.
        licence: Licence in the contract; None for the teacher's.
    """

    data: Path
    output: Path
    sides: tuple[int, ...] = (32, 48, 64, 150)
    epochs: tuple[int, ...] = (20, 10, 5, 1)
    views: tuple[int, ...] = (8, 8, 8, 8)
    margin: float | None = None
    width: float = 1.0
    begin: Path | None = None
    batch_size: int = 128
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    mixup: float = 0.4
    people_epochs: int = 0
    people_learning_rate: float = 1e-4
    mixed_precision: bool = False
    validation: float = 0.15
    test: float = 0.2
    false_match_rate: float = 1e-3
    seed: int = 0
    data_name: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        if self.output.suffix != ".keras":
            raise ModelFileError(f"a model file's name ends in .keras. Received: {self.output}")
        stages = {len(self.sides), len(self.epochs), len(self.views)}
        if len(stages) > 1 or not self.sides or min(*self.epochs, *self.views) < 1:
            raise InputError(
                "each stage has a side, at least 1 epoch and at least 1 view of each photo. "
                f"Received: sides {self.sides}, epochs {self.epochs}, views {self.views}"
            )
        if list(self.sides) != sorted(set(self.sides)):
            raise InputError(f"the sides grow from stage to stage. Received: {self.sides}")
        if not 0 <= self.mixup <= 1:
            raise InputError(f"the share of mixed views lies within 0..1. Received: {self.mixup}")
        if self.optimizer not in _OPTIMIZERS:
            raise InputError(
                f"the optimizer is one of {', '.join(_OPTIMIZERS)}. Received: {self.optimizer!r}"
            )

    @property
    def run_folder(self) -> Path:
        """Folder of views, checkpoints and logs."""
        return self.output.with_suffix(".training")


@dataclass(frozen=True, eq=False)
class DistillResult:
    """The finished student, and the people to report on.

    Attributes:
        encoder: The finished student, as saved.
        teacher: The teacher on the test people.
        student: The student on the test people.
        stages: Name of a stage -> its epochs.
    """

    encoder: Encoder
    teacher: Verification
    student: Verification
    stages: dict[str, Progress]


def distill_student(
    config: DistillConfig,
    teacher: Encoder,
    detector: Detector,
    *,
    student: Callable[[int, int], keras.Model] | None = None,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> DistillResult:
    """Train a student, resuming from the last checkpoint of the same settings if there is one.

    Args:
        config: Settings.
        teacher: The encoder whose embeddings are learnt.
        detector: Finds the faces.
        student: Builds the network for a side and an embedding size: a chain of layers that
            flattens into a dense layer and ends in a linear one. None builds VGG16 with batch
            normalisation.
        progress: Whether to show progress bars.
        say: Takes messages, a line at a time.

    Raises:
        DatasetError: The folder is too small.
        InputError: The last side is larger than the teacher's crop.
        TrainingError: The loss is no longer a number.
        ModelFileError: A file cannot be written. The output is then as it was before.
    """
    recipe = teacher.contract.crop
    margin = recipe.margin if config.margin is None else config.margin
    if recipe.height != recipe.width or margin > recipe.margin or config.sides[-1] > recipe.height:
        raise InputError(
            f"the student sees no more than the teacher, {recipe.height}x{recipe.width} with a "
            f"margin of {recipe.margin}. Received: sides {config.sides}, margin {margin}"
        )
    keras.utils.set_random_seed(config.seed)
    data = crop_people(config.data, recipe, detector, progress=progress)
    shares = {"validation": config.validation, "test": config.test}
    split = split_people(data.people, **shares, seed=config.seed)
    run = _Run(config, teacher, margin, data, split, progress, say)
    if config.begin is not None:
        network = open_student(config.begin, config.width, teacher.embedding_size)
    elif student is not None:
        network = student(config.sides[0], teacher.embedding_size)
    else:
        network = build_student(
            config.width, config.mixed_precision, config.sides[0], teacher.embedding_size
        )
    stages: dict[str, Progress] = {}
    for number, side in enumerate(config.sides):
        network = resize_input(network, side, side)
        stages[f"{side}px"] = run.train_stage(number, network)
    with replacing(config.run_folder / "student.keras", ModelFileError) as temporary:
        # A copy, without the optimizer.
        resize_input(network, side, side).save(temporary)
    encoder = run.adapter.finish(network)
    contract = encoder.contract
    if config.people_epochs:
        stages["people"] = run.train_people_stage(encoder)
        if stages["people"].best_epoch:
            trained_on = f"triplets of people, after {contract.trained_on}"
            contract = replace(contract, trained_on=trained_on)
        encoder = Encoder(encoder.model, contract)
    # The training's crops were the teacher's, made smaller; from here on, they are cut as in use.
    exact = crop_people(config.data, contract.crop, detector, progress=progress)
    embeddings = encoder.encode(np.asarray(exact.crops[split.validation]))
    threshold, rate = calibrate(embeddings, run.validation_pairs, config.false_match_rate)
    contract = replace(contract, threshold=threshold, false_match_rate=rate)
    save_encoder(encoder.model, config.output, contract, half_precision=True)
    finished = load_encoder(config.output, engine=KERAS)
    pairs = PairSet.among(data.people[split.test], config.seed)
    teachers = teacher.encode(np.asarray(data.crops[split.test]))
    students = finished.encode(np.asarray(exact.crops[split.test]))
    return DistillResult(
        encoder=finished,
        teacher=measure(teachers, pairs, config.false_match_rate),
        student=measure(students, pairs, config.false_match_rate, threshold),
        stages=stages,
    )


@dataclass(frozen=True, eq=False)
class _Run:
    """The stages of a distillation, on one split of one folder."""

    config: DistillConfig
    teacher: Encoder
    margin: float
    data: FaceCrops
    split: PeopleSplit
    progress: bool
    say: Callable[[str], None]

    @cached_property
    def validation_pairs(self) -> PairSet:
        """Pairs of the people to choose by."""
        return PairSet.among(self.data.people[self.split.validation], self.config.seed)

    @cached_property
    def key(self) -> str:
        """Digest of everything that a stage's checkpoint depends on."""
        config = self.config
        settings = {
            name: value for name, value in vars(config).items() if name not in _AFTER_DISTILLING
        }
        begun = [] if config.begin is None else [content_digest(config.begin)]
        return _digest([settings, self.teacher.fingerprint, self.data.digests, *begun])

    @cached_property
    def adapter(self) -> StudentAdapter:
        """The adapter, with the statistics of the teacher's answers about the first views."""
        config, teacher, trained = self.config, self.teacher.contract, self.split.train
        answers = np.concatenate(self.views(config.views[0]).answers)
        mean = answers.mean(axis=0)
        contract = replace(
            teacher,
            name=config.output.stem,
            crop=replace(teacher.crop, margin=self.margin),
            pixel_range=(0, 255),
            # Measured for the teacher's embeddings.
            euclidean_threshold=None,
            trained_on=f"embeddings of {teacher.name} for {len(trained):,} photos of "
            f"{len(set(self.data.people[trained])):,} people of "
            f"{config.data_name or config.data.name}, {date.today().isoformat()}; "
            f"teacher: {teacher.trained_on}",
            licence=config.licence or teacher.licence,
            package_version=__version__,
        )
        share = (1 + 2 * self.margin) / (1 + 2 * teacher.crop.margin)
        return StudentAdapter(contract, share, mean, float((answers - mean).std()))

    def views(self, rounds: int) -> Views:
        """Views of the training photos, with the teacher's answers."""
        config = self.config
        photos = [self.data.digests[row] for row in self.split.train]
        depends = [config.mixup, config.mixed_precision, config.seed]
        key = _digest([*depends, self.teacher.fingerprint, photos])
        return make_views(
            self.data.crops[self.split.train],
            self.teacher,
            config.run_folder / f"views-{key}",
            rounds=rounds,
            side=min(_VIEW_SIDE, self.teacher.contract.crop.height),
            mixup=config.mixup,
            seed=config.seed,
            fast=config.mixed_precision,
            progress=self.progress,
        )

    def train_stage(self, number: int, network: keras.Model) -> Progress:
        """Train the student on views at one resolution, and leave it at its last epoch."""
        config, side = self.config, network.input_shape[1]
        views = self.views(config.views[number])
        batches = PhotoBatches(
            views.for_student(side, self.adapter.share),
            self.adapter.targets(np.concatenate(views.answers)),
            batch_size=config.batch_size,
            seed=config.seed,
            augment=jitter,
        )
        steps = [
            epochs * -(-rounds * len(self.split.train) // config.batch_size)
            for epochs, rounds in zip(config.epochs, config.views, strict=True)
        ]
        rate = CosineOverStages(config.learning_rate, sum(steps), sum(steps[:number]))
        network.compile(
            _OPTIMIZERS[config.optimizer](rate, weight_decay=config.weight_decay),
            loss=DistillationLoss(),
            jit_compile=without_xla(),
        )
        epochs = config.epochs[number]
        # The learning rate has its own schedule, and no epoch is left out.
        schedule = Schedule(epochs=epochs, patience=epochs + 1, keep_last=True)
        stage = f"{side}px"
        checkpoint = Checkpoint(
            lambda: self._judge(self.adapter.finish(network)),
            schedule,
            config.run_folder,
            stage,
            run_key=f"{self.key} {stage}",
            say=lambda line: self.say(f"{stage}: {line}"),
        )
        return fit_judged(network, batches, checkpoint)

    def train_people_stage(self, encoder: Encoder) -> Progress:
        """Train the finished student on triplets of people; leave it at its best."""
        crops = self.data.crops[self.split.train]
        return train_on_people(
            self.config,
            encoder.model,
            self.adapter.crops(crops, encoder.contract.crop.height),
            self.data.people[self.split.train],
            # A new encoder each time: one keeps the weights that it was compiled with.
            lambda: self._judge(Encoder(encoder.model, encoder.contract)),
            run_key=self.key,
            say=lambda line: self.say(f"people: {line}"),
        )

    def _judge(self, encoder: Encoder) -> dict[str, float]:
        """How well a student verifies the people to choose by."""
        crops = self.data.crops[self.split.validation]
        embeddings = encoder.encode(self.adapter.crops(crops, encoder.contract.crop.height))
        return measure(embeddings, self.validation_pairs, self.config.false_match_rate).as_judged()


def _digest(content: Any) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class StudentAdapter:
    """Turns a teacher's crops and embeddings into a student's, and a student into an encoder.

    Attributes:
        contract: The finished encoder's contract, except for the size of its crops.
        share: Share of the side of the teacher's crop that the student sees.
        mean: The teacher's mean embedding ``(D,)``.
        scale: The standard deviation about it, one number.
    """

    contract: EncoderContract
    share: float
    mean: Embeddings
    scale: float

    def crops(self, crops: ImageArray, side: int) -> ImageArray:
        """The middle of the teacher's crops, as a student of this size sees them."""
        return crop_middle(np.asarray(crops), side, self.share)

    def targets(self, answers: Embeddings) -> Embeddings:
        """The teacher's embeddings ``(N, D)``, centred and scaled as the student learns them.

        Embeddings of faces share a large mean, beside which their differences are small.
        """
        return np.asarray((answers - self.mean) / self.scale)

    def finish(self, trained: keras.Model) -> Encoder:
        """The student as an encoder of its own, which gives embeddings like the teacher's.

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


def open_student(path: Path, width: float, embedding_size: int) -> keras.Model:
    """Open an earlier run's ``student.keras``, widened to a multiple of its width if wanted.

    Raises:
        ModelFileError: The file is missing, or no Keras model.
        InputError: It has another embedding size, or a width that widening does not lead to.
    """
    try:
        student = keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras raises anything on a foreign file, from KeyError to its own types.
    except Exception as error:
        raise ModelFileError(f"Keras cannot load {path}: {error}") from error
    wanted = round(BLOCKS[0][0] * width)
    own = next(
        (layer.filters for layer in student.layers if isinstance(layer, keras.layers.Conv2D)), 0
    )
    if not own or wanted % own or student.output_shape[-1] != embedding_size:
        raise InputError(
            f"{path}: a student to go on from has embeddings of {embedding_size} numbers, and a "
            f"first convolution of {wanted} channels or a whole part of that. "
            f"Received: {student.output_shape[-1]} numbers, {own} channels"
        )
    return widen(student, wanted // own) if wanted > own else student


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


SETTINGS = {
    one.name: str(one.type)
    for one in fields(DistillConfig)
    if one.name not in ("data", "output", "begin")
}
"""Names of the settings of a recipe -> their types."""

_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "tuple": (list,),
    "Literal": (str,),
}


@dataclass(frozen=True)
class Recipe:
    """How to train a student, apart from the photos.

    Attributes:
        teacher: The encoder whose embeddings are learnt, as ``load_encoder`` takes it; None for
            the default.
        detector: The detector, as ``load_detector`` takes it; None for the default.
        settings: Arguments of ``DistillConfig``.
    """

    teacher: str | None = None
    detector: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Args:
        path: A JSON file with one object, whose keys are ``teacher``, ``detector`` and the names
            of the settings; ``about`` is a comment and ignored.

    Raises:
        InputError: The file cannot be read, is no JSON object, or has an unknown setting or one
            of the wrong type.
    """
    path = as_path(path)
    try:
        with open_regular(path) as file:
            content = json.loads(file.read())
    except OSError as error:
        raise InputError(f"cannot read the recipe {path}: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the recipe {path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"a recipe is one JSON object. Received: {type(content).__name__}")
    content.pop("about", None)
    names = {name: content.pop(name, None) for name in ("teacher", "detector")}
    for name, value in names.items():
        if not isinstance(value, str | None):
            raise InputError(f"{path}: {name!r} is a name. Received: {value!r}")
    for name, value in content.items():
        if name not in SETTINGS:
            raise InputError(
                f"{path}: a recipe sets {', '.join((*names, *SETTINGS))}. Received: {name!r}"
            )
        kinds = _KINDS[SETTINGS[name].split("[")[0].split(" ")[0]]
        # To Python, true is a whole number.
        is_kind = isinstance(value, kinds) and isinstance(value, bool) == (bool in kinds)
        if isinstance(value, list):
            is_kind = is_kind and all(type(item) is int for item in value)
        if not is_kind:
            raise InputError(f"{path}: {name!r} is {SETTINGS[name]}. Received: {value!r}")
    settings = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return Recipe(names["teacher"], names["detector"], settings)
