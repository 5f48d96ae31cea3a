"""Distillation: a network learns to give another one's embeddings.

Teacher and student see the same augmented and mixed views, for a long time: Beyer and others,
"Knowledge distillation: A good teacher is patient and consistent", 2021,
https://arxiv.org/abs/2106.05237. The teacher is asked about each view once, and its answers are
kept. Resolution grows from stage to stage, because most of what there is to learn is learnt as
well, and many times faster, on small images. The student has batch normalisation while it learns,
which is folded away at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from functools import partial
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
from face_encode.training.fitting import Judge, Progress, Schedule, Watch, fit_watched, without_xla
from face_encode.training.losses import MinedTripletLoss, TeacherLoss
from face_encode.training.optimizers import Muon, OneCosine
from face_encode.training.surgery import at_resolution, fold_batch_normalization, widened
from face_encode.training.verification import PairSet, Verification, calibrate, measure
from face_encode.training.views import jittered, make_views, middle_of
from face_encode.types import Embeddings, ImageArray
from face_encode.version import __version__

_PEOPLE_A_BATCH, _PHOTOS_A_PERSON = 24, 4
# Crops are aligned, so what the finished network will see differs little in place and angle.
_VIEWS = Augmentation(turn=5.0, zoom=0.04, shift=0.03, brightness=0.08, contrast=0.15)


def train_on_people(
    model: keras.Model,
    crops: ImageArray,
    people: npt.NDArray[np.int64],
    judge: Judge,
    *,
    epochs: int,
    learning_rate: float,
    folder: Path,
    run_key: str,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Progress:
    """Train a whole network on semi-hard triplets of people; leave it at its best.

    Args:
        model: Crops in, embeddings out, without batch normalisation among its convolutions: of
            few people in a batch, their statistics would be wrong for everybody else.
        crops: uint8 ``(N, height, width, 3)`` of the model's size.
        people: int ``(N,)``.
        judge: Measures the network on other people; ``score`` decides, and ``standard_error`` is
            how much better than the untouched network an epoch has to be.
        epochs: The most; each person with several photos comes once in each.
        learning_rate: To begin with; it falls to 0 by a cosine.
        folder: For checkpoint and log.
        run_key: What the stage depends on.
        seed: The same seed gives the same batches.
        say: Told of each epoch, in a line.

    Returns:
        The epochs; ``best_epoch`` is 0 where the network was left as it was.
    """

    def view(images: ImageArray, draw: int) -> npt.NDArray[np.float32]:
        pixels: npt.NDArray[np.float32] = keras.ops.convert_to_numpy(_VIEWS(images, draw))
        return pixels

    batches = PeopleBatches(
        crops,
        people,
        people_a_batch=_PEOPLE_A_BATCH,
        photos_a_person=_PHOTOS_A_PERSON,
        seed=seed,
        augment=view,
    )
    model.compile(
        keras.optimizers.Adam(learning_rate), loss=MinedTripletLoss(), jit_compile=without_xla()
    )
    schedule = Schedule(
        epochs=epochs,
        learning_rate=learning_rate,
        cosine=True,
        least_gain=judge()["standard_error"],
    )
    watch = Watch(judge, schedule, folder / "people.npz", folder / "people.csv", run_key, say=say)
    return fit_watched(model, batches, watch)


OPTIMIZERS = ("muon", "adamw")
"""Names of the optimizers that a student can be trained with."""


@dataclass(frozen=True)
class Distillation:
    """What to do.

    Attributes:
        data: A folder of people.
        output: The ``.keras`` file to write; views, checkpoints and logs lie beside it, in a
            folder of the same name ending in ``.training``.
        sides: Rows and columns of the student's input in each stage, growing; the last is the
            finished student's.
        epochs: How often each stage sees all its views.
        views: Views of each photo in each stage, not falling: the first so many of those that the
            teacher is asked about.
        margin: The margin of the student's crop, at most the teacher's; None for the same. Of a
            tighter crop, more of few pixels is face.
        width: Width of the student's convolutions; 1.0 is VGG16.
        begin: A student to go on from, ``student.keras`` in the folder of an earlier run; it is
            widened first where the width is twice its own, or three times. None begins anew.
        batch_size: Photos a step.
        optimizer: ``"muon"`` or ``"adamw"``.
        learning_rate: The highest, behind a warm-up; it falls to 0 by one cosine over all stages.
        weight_decay: Of the optimizer.
        mixup: Share of the views that are mixed with another.
        people_epochs: Epochs of the last stage, on triplets of the people themselves, which is
            kept only if it helps; 0 for none.
        people_learning_rate: The highest of that stage, by Adam.
        mixed_precision: Whether the student computes in bfloat16, and on a CPU the teacher's
            answers about views too.
        validation: Share of the people to choose the best epoch and the threshold by.
        test: Share of the people to report on.
        false_match_rate: What the threshold is calibrated for.
        seed: The same seed gives the same result.
        data_name: What the file calls the photos; None for the folder's name.
        licence: The licence that the file gives itself; None for the teacher's.
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
        """Check what can be checked before hours of work."""
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
        if self.optimizer not in OPTIMIZERS:
            raise InputError(
                f"the optimizer is one of {', '.join(OPTIMIZERS)}. Received: {self.optimizer!r}"
            )

    @property
    def run_folder(self) -> Path:
        """Where checkpoints and logs lie."""
        return self.output.with_suffix(".training")


def vgg16_student(
    width: float, mixed_precision: bool, side: int, embedding_size: int
) -> keras.Model:
    """Build VGG16 with batch normalisation behind every convolution.

    Args:
        width: Multiplies the channels of every convolution.
        mixed_precision: Whether it computes in bfloat16.
        side: Rows and columns of its input.
        embedding_size: Length D of its embedding.
    """
    former = keras.config.dtype_policy()
    if mixed_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        # With so many views and mixtures nothing is left for dropout to do.
        return vgg_embedding(
            (side, side, 3), embedding_size, dropout=0.0, width=width, batch_normalization=True
        )
    finally:
        keras.config.set_dtype_policy(former)


def earlier_student(path: Path, width: float, embedding_size: int) -> keras.Model:
    """Open the student of an earlier run, widened where more width is wanted.

    Args:
        path: Its ``student.keras``.
        width: The width wanted, a whole multiple of its own.
        embedding_size: Length D of its embedding.

    Raises:
        ModelFileError: The file is missing, or no Keras model.
        InputError: It has another embedding, or a width that widening does not lead to.
    """
    try:
        student = keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras raises whatever a foreign file trips over, from KeyError to its own types.
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
    return widened(student, wanted // own) if wanted > own else student


@dataclass(frozen=True, eq=False)
class StudentFrame:
    """What lies between a student in training and an encoder like any other.

    Attributes:
        contract: The finished encoder's, but for the size of its crops.
        share: How much of the side of the teacher's crop the student sees.
        mean: The teacher's mean embedding ``(D,)``.
        scale: The standard deviation about it, one number.
    """

    contract: EncoderContract
    share: float
    mean: Embeddings
    scale: float

    def seen(self, crops: ImageArray, side: int) -> ImageArray:
        """What a student of that size sees of the teacher's crops."""
        return middle_of(np.asarray(crops), side, self.share)

    def centred(self, answers: Embeddings) -> Embeddings:
        """The teacher's embeddings, ``(N, D)``, as the student learns them.

        Embeddings of faces share a large mean, beside which their differences are small.
        """
        centred: Embeddings = (answers - self.mean) / self.scale
        return centred

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


# Of a dlib chip's 150 pixels hardly any student sees more.
_VIEW_SIDE = 96
_OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adamw": keras.optimizers.AdamW,
    "muon": Muon,
}
# Of the settings, what a checkpoint does not depend on.
_WITHOUT_EFFECT = (
    *("data", "output", "begin", "false_match_rate"),
    *("people_epochs", "people_learning_rate", "data_name", "licence"),
)


@dataclass(frozen=True, eq=False)
class Distilled:
    """What came of it.

    Attributes:
        encoder: The finished student, as saved.
        teacher: The teacher on the test people.
        student: The student on the same.
        stages: Each stage's epochs, by its name.
    """

    encoder: Encoder
    teacher: Verification
    student: Verification
    stages: dict[str, Progress]


def distil(
    work: Distillation,
    teacher: Encoder,
    detector: Detector,
    *,
    student: Callable[[int, int], keras.Model] | None = None,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Distilled:
    """Do it, going on from the last checkpoint of the same work where there is one.

    Args:
        work: What to do.
        teacher: Whose embeddings are learnt.
        detector: Finds the faces.
        student: Builds the network for a side and an embedding size: a chain of layers that
            flattens into a dense layer and ends in a linear one. None builds VGG16 with batch
            normalisation.
        progress: Whether to show progress bars.
        say: Told what is going on, a line at a time.

    Raises:
        DatasetError: The folder is too small.
        InputError: The last side is larger than the teacher's crop.
        TrainingError: The loss is no longer a number.
        ModelFileError: A file cannot be written. The output is then as it was before.
    """
    recipe = teacher.contract.crop
    margin = recipe.margin if work.margin is None else work.margin
    share = (1 + 2 * margin) / (1 + 2 * recipe.margin)
    if recipe.height != recipe.width or margin > recipe.margin or work.sides[-1] > recipe.height:
        raise InputError(
            f"the student sees no more than the teacher, {recipe.height}x{recipe.width} with a "
            f"margin of {recipe.margin}. Received: sides {work.sides}, margin {margin}"
        )
    keras.utils.set_random_seed(work.seed)
    data = crop_people(work.data, recipe, detector, progress=progress)
    split = split_people(data.people, validation=work.validation, test=work.test, seed=work.seed)
    validation_pairs = PairSet.among(data.people[split.validation], work.seed)
    views_of = partial(
        make_views,
        data.crops[split.train],
        teacher,
        work.run_folder / f"views-{_views_key(work, teacher, data, split)}",
        side=min(_VIEW_SIDE, recipe.height),
        mixup=work.mixup,
        seed=work.seed,
        fast=work.mixed_precision,
        progress=progress,
    )
    said = np.concatenate(views_of(rounds=work.views[0]).answers)
    frame = StudentFrame(
        contract=replace(
            teacher.contract,
            name=work.output.stem,
            crop=replace(recipe, margin=margin),
            pixel_range=(0, 255),
            # Measured for the teacher's embeddings.
            euclidean_threshold=None,
            trained_on=f"embeddings of {teacher.name} for {len(split.train):,} photos of "
            f"{len(set(data.people[split.train])):,} people of {work.data_name or work.data.name}, "
            f"{date.today().isoformat()}; teacher: {teacher.contract.trained_on}",
            licence=work.licence or teacher.contract.licence,
            package_version=__version__,
        ),
        share=share,
        mean=said.mean(axis=0),
        scale=float((said - said.mean(axis=0)).std()),
    )

    def judge(as_encoder: Callable[[], Encoder]) -> dict[str, float]:
        """How well a student tells people apart that are not trained on."""
        encoder = as_encoder()
        seen = frame.seen(data.crops[split.validation], encoder.contract.crop.height)
        result = measure(encoder.encode(seen), validation_pairs, work.false_match_rate)
        return {
            "score": result.accuracy,
            "validation_auc": result.auc,
            "validation_tar": result.tar_at_far,
            "standard_error": result.standard_error,
        }

    build = student or partial(vgg16_student, work.width, work.mixed_precision)
    if work.begin is None:
        network = build(work.sides[0], teacher.embedding_size)
    else:
        network = earlier_student(work.begin, work.width, teacher.embedding_size)
    stages: dict[str, Progress] = {}
    steps = [
        epochs * -(-rounds * len(split.train) // work.batch_size)
        for epochs, rounds in zip(work.epochs, work.views, strict=True)
    ]
    for number, (side, epochs) in enumerate(zip(work.sides, work.epochs, strict=True)):
        network = at_resolution(network, side, side)
        views = views_of(rounds=work.views[number])
        batches = PhotoBatches(
            views.prepared(side, share),
            frame.centred(np.concatenate(views.answers)),
            batch_size=work.batch_size,
            seed=work.seed,
            augment=jittered,
        )
        schedule = OneCosine(work.learning_rate, sum(steps), sum(steps[:number]))
        network.compile(
            _OPTIMIZERS[work.optimizer](schedule, weight_decay=work.weight_decay),
            loss=TeacherLoss(),
            jit_compile=without_xla(),
        )

        stage = f"{side}px"
        watch = Watch(
            partial(judge, partial(frame.finish, network)),
            # The learning rate falls by its own schedule, and every epoch is wanted.
            Schedule(epochs=epochs, patience=epochs + 1, keep_last=True),
            work.run_folder / f"{stage}.npz",
            work.run_folder / f"{stage}.csv",
            run_key=f"{_key(work, teacher, data)} {stage}",
            say=partial(_say_in, say, stage),
        )
        stages[stage] = fit_watched(network, batches, watch)

    with replacing(work.run_folder / "student.keras", ModelFileError) as temporary:
        # A copy, without the optimizer.
        at_resolution(network, side, side).save(temporary)
    encoder = frame.finish(network)
    if work.people_epochs:
        rows = split.train
        stages["people"] = train_on_people(
            encoder.model,
            frame.seen(data.crops[rows], encoder.contract.crop.height),
            data.people[rows],
            partial(judge, partial(Encoder, encoder.model, encoder.contract)),
            epochs=work.people_epochs,
            learning_rate=work.people_learning_rate,
            folder=work.run_folder,
            run_key=f"{_key(work, teacher, data)} {work.people_epochs} {work.people_learning_rate}",
            seed=work.seed,
            say=partial(_say_in, say, "people"),
        )
        contract = encoder.contract
        if stages["people"].best_epoch:
            contract = replace(
                contract, trained_on=f"triplets of people, after {contract.trained_on}"
            )
        encoder = Encoder(encoder.model, contract)
    # Until here, crops were the teacher's, made smaller. What counts is what a user will see.
    exact = crop_people(work.data, encoder.contract.crop, detector, progress=progress)
    embeddings, pairs = encoder.encode(np.asarray(exact.crops[split.validation])), validation_pairs
    threshold, rate = calibrate(embeddings, pairs, work.false_match_rate)
    contract = replace(encoder.contract, threshold=threshold, false_match_rate=rate)
    save_encoder(encoder.model, work.output, contract, half_precision=True)
    finished = load_encoder(work.output, engine=KERAS)
    test, pairs = split.test, PairSet.among(data.people[split.test], work.seed)
    teachers = teacher.encode(np.asarray(data.crops[test]))
    students = finished.encode(np.asarray(exact.crops[test]))
    return Distilled(
        encoder=finished,
        teacher=measure(teachers, pairs, work.false_match_rate),
        student=measure(students, pairs, work.false_match_rate, threshold),
        stages=stages,
    )


def _say_in(say: Callable[[str], None], stage: str, line: str) -> None:
    say(f"{stage}: {line}")


def _views_key(work: Distillation, teacher: Encoder, data: FaceCrops, split: PeopleSplit) -> str:
    """What views and answers depend on, as 16 hexadecimal digits."""
    photos = [data.digests[row] for row in split.train]
    settings: Sequence[Any] = [work.mixup, work.mixed_precision, work.seed]
    return _digest([*settings, teacher.fingerprint, photos])


def _key(work: Distillation, teacher: Encoder, data: FaceCrops) -> str:
    """What a checkpoint depends on, as 16 hexadecimal digits."""
    settings = {name: value for name, value in vars(work).items() if name not in _WITHOUT_EFFECT}
    begun = [] if work.begin is None else [content_digest(work.begin)]
    return _digest([settings, teacher.fingerprint, data.digests, *begun])


def _digest(settings: Any) -> str:
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


SETTINGS = {
    one.name: one.type
    for one in fields(Distillation)
    if one.name not in ("data", "output", "begin")
}
"""What a recipe may set, with the type of each."""

_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "float | None": (int, float),
    "str | None": (str,),
    "bool": (bool,),
    "tuple[int, ...]": (list,),
    "Literal['muon', 'adamw']": (str,),
    'Literal["muon", "adamw"]': (str,),
}


@dataclass(frozen=True)
class Recipe:
    """How to train a student, apart from the photos.

    Attributes:
        teacher: Whose embeddings are learnt, as ``load_encoder`` takes it; None for the default.
        detector: What finds the faces, as ``load_detector`` takes it; None for the default.
        settings: Arguments of :class:`~face_encode.training.distillation.Distillation`.
    """

    teacher: str | None = None
    detector: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read a recipe.

    Args:
        path: A JSON file with one object, whose keys are ``teacher``, ``detector`` and the names
            of the settings; ``about`` is for people and passed over.

    Raises:
        InputError: The file cannot be read, is no JSON object, or sets something that there is
            not or to something that it cannot be.
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
        _check(name, value, str(path))
    settings = {
        name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
    }
    return Recipe(names["teacher"], names["detector"], settings)


def _check(name: str, value: Any, path: str) -> None:
    if name not in SETTINGS:
        raise InputError(
            f"{path}: a recipe sets {', '.join(('teacher', 'detector', *SETTINGS))}. "
            f"Received: {name!r}"
        )
    kinds = _KINDS[str(SETTINGS[name])]
    # To Python, true is a whole number.
    is_kind = isinstance(value, kinds) and (isinstance(value, bool) == (bool in kinds))
    if isinstance(value, list):
        is_kind = is_kind and all(type(item) is int for item in value)
    if not is_kind:
        raise InputError(f"{path}: {name!r} is {SETTINGS[name]}. Received: {value!r}")
