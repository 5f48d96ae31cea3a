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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any

import keras
import numpy as np

from face_encode.detectors.detector import Detector
from face_encode.encoders.contract import save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import KERAS
from face_encode.encoders.loading import load_encoder
from face_encode.errors import InputError, ModelFileError
from face_encode.files import replacing
from face_encode.images import content_digest
from face_encode.training.batches import PhotoBatches
from face_encode.training.data import FaceCrops, PeopleSplit, crop_people, split_people
from face_encode.training.fitting import Progress, Schedule, Watch, fit_watched, without_xla
from face_encode.training.losses import TeacherLoss
from face_encode.training.muon import Muon
from face_encode.training.people_stage import train_on_people
from face_encode.training.rate import OneCosine
from face_encode.training.settings import Distillation
from face_encode.training.student import StudentFrame, earlier_student, vgg16_student
from face_encode.training.surgery import at_resolution
from face_encode.training.verification import PairSet, Verification, calibrate, measure
from face_encode.training.views import jittered, make_views
from face_encode.version import __version__

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
