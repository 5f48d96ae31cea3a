"""The script that trains the head which judges an encoder's embeddings.

::

    python -m face_encode.training.quality PEOPLE_DIR --encoder my_embedding.keras -o judged.keras

Also ``face-encode train quality``. Photos of people are degraded in many ways, and the head learns
from the encoder's features how near the embedding stays to that of the same photo undamaged. The
quality below which an embedding is not to be trusted is chosen on other people, and strangers under
every damage are counted on yet others.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import DatasetError, InputError
from face_encode.files import as_path, replacing
from face_encode.outputs import check_output
from face_encode.terminal import with_progress
from face_encode.training.augmentation import blurred, compressed, covered, dark, small
from face_encode.training.head import add_shared_arguments, print_unless, run_script
from face_encode.training.recipe import check_ranges
from face_encode.types import Box, CropRecipe, Embeddings, Face, ImageArray, LeftOut

if TYPE_CHECKING:
    from face_encode.detectors.base import Detector
    from face_encode.encoders.contract import EncoderContract
    from face_encode.encoders.encoder import Encoder
    from face_encode.encoders.quality import QualityHead

DESCRIPTION = (
    "Train the head that judges how far an encoder's embeddings can be trusted, and choose the "
    "quality below which a face matches nobody. The embeddings stay as they are."
)

Degrade: TypeAlias = "Callable[[ImageArray, Box, np.random.Generator], ImageArray]"
"""From a photo, the face's box in it and random numbers to the photo degraded, of the same size."""


def _whole(degrade: Callable[..., ImageArray], photo: ImageArray, *settings: Any) -> ImageArray:
    """Degrade a photo by a function that takes a stack of crops."""
    degraded: ImageArray = degrade(photo[np.newaxis], *settings)[0]
    return degraded


def _band(
    photo: ImageArray, box: Box, top: float, bottom: float | None = None, colour: Any = 128
) -> ImageArray:
    """Cover a band of the photo; ``top`` and ``bottom`` are shares of the face's height."""
    ends = (
        1.0 if end is None else (box.top + end * box.height) / len(photo) for end in (top, bottom)
    )
    return _whole(covered, photo, *ends, colour)


def _cover(photo: ImageArray, box: Box, random: np.random.Generator) -> ImageArray:
    """Cover the lower face, the eyes, or one side, with a colour drawn at random."""
    colour = random.integers(0, 256, 3 if random.random() < 0.5 else 1)
    part = random.choice(("lower", "lower", "lower", "eyes", "left", "right"))
    if part == "lower":
        return _band(photo, box, random.uniform(0.4, 0.75), None, colour)
    if part == "eyes":
        return _band(photo, box, random.uniform(0, 0.2), random.uniform(0.35, 0.5), colour)
    # Columns are rows of the photo on its side.
    left, end = (
        (random.uniform(0.4, 0.6), None) if part == "right" else (-9.0, random.uniform(0.4, 0.6))
    )
    on_side = Box(box.top, box.left, box.height, box.width)
    return np.swapaxes(_band(np.swapaxes(photo, 0, 1), on_side, left, end, colour), 0, 1)


def _blur(photo: ImageArray, box: Box, random: np.random.Generator) -> ImageArray:
    return _whole(blurred, photo, box.width * np.exp(random.uniform(-4.5, -2.6)))


def _shrink(photo: ImageArray, box: Box, random: np.random.Generator) -> ImageArray:
    """From 10 to 45 pixels across the face."""
    share = np.exp(random.uniform(2.3, 3.8)) / box.width
    return _whole(small, photo, max(2, round(min(1.0, share) * photo.shape[1])))


def _darken(photo: ImageArray, box: Box, random: np.random.Generator) -> ImageArray:
    return _whole(dark, photo, np.exp(random.uniform(-4.5, -1.2)))


def _compress(photo: ImageArray, box: Box, random: np.random.Generator) -> ImageArray:
    return _whole(compressed, photo, int(random.integers(2, 16)))


def _shake(photo: ImageArray, box: Box, random: np.random.Generator) -> ImageArray:
    """Blur along a line, as a camera or a head that moves."""
    import cv2

    length = int(random.uniform(0.06, 0.35) * box.width) | 1
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1
    middle = (length // 2, length // 2)
    turn = cv2.getRotationMatrix2D(middle, random.uniform(0, 180), 1.0)
    kernel = np.asarray(cv2.warpAffine(line, turn, (length, length)))
    return np.asarray(cv2.filter2D(photo, -1, kernel / kernel.sum()), np.uint8)


def _roughen(photo: ImageArray, box: Box, random: np.random.Generator) -> ImageArray:
    """Add the noise of a camera in little light."""
    noisy = photo + random.normal(0, random.uniform(15, 70), photo.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _twice(photo: ImageArray, box: Box, random: np.random.Generator) -> ImageArray:
    for number in random.permutation(len(_SIMPLE))[:2]:
        photo = _SIMPLE[number](photo, box, random)
    return photo


_SIMPLE: tuple[Degrade, ...] = (_cover, _blur, _shrink, _darken, _compress)
_DAMAGES: tuple[Degrade, ...] = (*_SIMPLE, _cover, _blur, _shake, _roughen, _twice)

UNDAMAGED = "as it is"

CONDITIONS: dict[str, Degrade] = {
    UNDAMAGED: lambda photo, box, random: photo,
    "lower face covered": lambda photo, box, random: _band(photo, box, 0.5),
    "eyes covered": lambda photo, box, random: _band(photo, box, 0.1, 0.45),
    "blurred by 1.2 % of the width": lambda photo, box, random: _whole(
        blurred, photo, 0.012 * photo.shape[1]
    ),
    "blurred by 2 % of the width": lambda photo, box, random: _whole(
        blurred, photo, 0.02 * photo.shape[1]
    ),
    "photo of 32 pixels": lambda photo, box, random: _whole(small, photo, 32),
    "a tenth of the light": lambda photo, box, random: _whole(dark, photo, 0.1),
    "JPEG of quality 4": lambda photo, box, random: _whole(compressed, photo, 4),
}
"""The conditions under which strangers are counted, beside photos turned by a right angle."""

TURNED = ("turned by 90°", "turned by 180°", "turned by 270°")


@dataclass(frozen=True)
class QualityConfig:
    """What to train on, and how.

    Attributes:
        data: A folder with a sub-folder a person.
        photos: At most this many photos are degraded for training, and half as many for choosing
            and for measuring; one of each person, or two where there are few people.
        degradations: Damaged looks at each of the photos to train on.
        hidden: Units of the head's hidden layer.
        epochs: Passes over the looks.
        refused: At most this share of the undamaged photos lies below the quality chosen.
        margin: The stated rate of false matches may be exceeded this many times, under the worst
            damage.
        validation: Share of the people to choose by, within 0..1.
        test: Share of the people to report on.
        seed: The same seed gives the same head.
    """

    data: Path
    photos: int = 1500
    degradations: int = 8
    hidden: int = 64
    epochs: int = 30
    refused: float = 0.015
    margin: float = 2.0
    validation: float = 0.08
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        # Half of the photos are chosen by, which takes a pair of strangers.
        check_ranges(self, margin=(0, 1000), photos=(4, 1_000_000_000))


@dataclass(frozen=True)
class ConditionResult:
    """Strangers under one condition, the same damage to both photos.

    Attributes:
        name: The condition.
        passing: Share of the pairs of strangers at or above the encoder's threshold.
        passing_trusted: The same where both qualities are sufficient; of all pairs.
        refused: Share of the photos whose quality is not sufficient.
        kept: Mean similarity to the undamaged photo.
    """

    name: str
    passing: float
    passing_trusted: float
    refused: float
    kept: float


@dataclass(frozen=True, eq=False)
class QualityResult:
    """A trained head.

    Attributes:
        head: The head.
        threshold: The quality below which an embedding is not to be trusted.
        conditions: What was counted on people who were not trained on, ``UNDAMAGED`` first.
        photos: Number of photos trained on, chosen by, and counted.
    """

    head: QualityHead
    threshold: float
    conditions: tuple[ConditionResult, ...]
    photos: tuple[int, int, int]


def train_quality(
    config: QualityConfig,
    encoder: Encoder,
    detector: Detector,
    *,
    workers: int | None = None,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> QualityResult:
    """Train a quality head for an encoder.

    Args:
        config: What to train on, and how.
        encoder: Run by Keras or with its Keras model at hand; a head that it has is not used.
        detector: Finds the faces in the photos as they are.
        workers: Processes that degrade the photos; None chooses.
        progress: Whether to show a progress bar.
        say: Takes messages, a line at a time.

    Raises:
        DatasetError: The folder holds too few people.
    """
    from face_encode.photos.folders import list_people
    from face_encode.training.data import split_people, tell_left_out

    listed = list_people(config.data)
    tell_left_out(listed.left_out, say)
    people = listed.people
    photos = [photo for several in people.values() for photo in several]
    owner = np.repeat(np.arange(len(people)), [len(several) for several in people.values()])
    split = split_people(owner, validation=config.validation, test=config.test, seed=config.seed)
    random = np.random.default_rng(config.seed)
    looks = []
    for rows, most, is_measured in (
        (split.train, config.photos, False),
        (split.validation, config.photos // 2, True),
        (split.test, config.photos // 2, True),
    ):
        shuffled = random.permutation(rows)
        # One photo of each person first: strangers are counted on those, and nobody rules.
        first = np.sort(np.unique(owner[shuffled], return_index=True)[1])
        others = np.setdiff1d(np.arange(len(shuffled)), first)
        order = first if is_measured else np.concatenate([first, others])
        chosen = [photos[row] for row in shuffled[order][:most]]
        damage = partial(
            _looks_at,
            detector=detector,
            recipe=encoder.contract.crop,
            degradations=None if is_measured else config.degradations,
            seed=config.seed,
        )
        found, left_out = _embedded(damage, chosen, encoder, workers, progress)
        tell_left_out(left_out, say)
        looks.append(found)
        if len(found.features) < 2:
            raise DatasetError(
                f"{config.data}: strangers are compared, so each part takes at least 2 photos with "
                f"a face. Received: {len(found.features)} of {len(chosen)} photos"
            )
    train, validation, test = looks
    head = fit_head(train, config)
    threshold = _choose_threshold(validation, head, encoder.contract, config)
    return QualityResult(
        head,
        threshold,
        tuple(_count(test, head, encoder.contract, threshold)),
        (len(train.embeddings), len(validation.embeddings), len(test.embeddings)),
    )


@dataclass(frozen=True, eq=False)
class Looks:
    """Photos, each looked at undamaged and then under K - 1 damages.

    Attributes:
        embeddings: float32 ``(P, K, D)``, of length 1.
        features: float32 ``(P, K, passes, F)``, a pass for the crop, and one for its mirror image
            if the encoder uses that.
    """

    embeddings: Embeddings
    features: npt.NDArray[np.float32]

    @property
    def kept(self) -> npt.NDArray[np.float32]:
        """Similarity to the undamaged photo, ``(P, K)``."""
        kept = np.einsum("pkd,pd->pk", self.embeddings, self.embeddings[:, 0])
        return np.asarray(kept, np.float32)

    def strangers(self, look: int = 0) -> npt.NDArray[np.float32]:
        """Similarities of all photos under one damage, ``(P, P)``."""
        return np.asarray(self.embeddings[:, look] @ self.embeddings[:, look].T, np.float32)

    def qualities(self, head: QualityHead) -> npt.NDArray[np.float32]:
        """The head's answers, ``(P, K)``."""
        hidden = np.maximum(self.features @ head.kernel + head.bias, 0)
        logits = (hidden @ head.output + head.offset).mean(axis=(2, 3))
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def _looks_at(
    photos: Sequence[Path],
    detector: Detector,
    recipe: CropRecipe,
    degradations: int | None,
    seed: int,
) -> list[ImageArray | LeftOut]:
    """Degrade photos and cut out their largest faces.

    Args:
        photos: Their paths.
        detector: Finds the face in the photo as it is; its landmarks are found again in each
            degraded photo.
        recipe: The encoder's.
        degradations: Number of random damages; None for ``CONDITIONS`` and ``TURNED``.
        seed: Of the random numbers, together with the names of folder and photo.

    Returns:
        For each photo uint8 ``(K, height, width, 3)``, the undamaged face first; or why it is
        left out.
    """
    from face_encode.detectors.alignment import crop_faces, find_landmarks
    from face_encode.errors import ImageError
    from face_encode.photos.reading import read_image
    from face_encode.pipeline.embedding import NO_FACE

    found: list[ImageArray | LeftOut] = []
    for path in photos:
        try:
            photo = read_image(path)
            faces = detector.detect(photo)[:1]
        except ImageError as error:
            reason = str(error).removeprefix(f"{path}: ")
            found.append(LeftOut(str(path), path.parent.name, reason))
            continue
        if not faces:
            found.append(LeftOut(str(path), path.parent.name, NO_FACE))
            continue
        box = faces[0].box
        # With the person's folder: many people's photos are called 1.jpg.
        random = np.random.default_rng([seed, *os.fsencode(f"{path.parent.name}/{path.name}")])
        views = [(photo, box)]
        if degradations is None:
            views += [(degrade(photo, box, random), box) for degrade in CONDITIONS.values()][1:]
            views += [_turned(photo, box, quarters) for quarters in (1, 2, 3)]
        else:
            for number in random.permutation(np.arange(degradations) % (len(_DAMAGES) + 1)):
                if number < len(_DAMAGES):
                    views.append((_DAMAGES[number](photo, box, random), _jittered(box, random)))
                else:
                    views.append(_turned(photo, box, int(random.integers(1, 4))))
        crops = []
        for image, place in views:
            image = np.ascontiguousarray(image)
            face = Face(place, 1.0, find_landmarks(image, place))
            crops.append(crop_faces(image, [face], recipe)[0])
        found.append(np.stack(crops))
    return found


def damaged(crop: ImageArray, damages: int, random: np.random.Generator) -> ImageArray:
    """A crop as it is and under random damages, uint8 ``(1 + damages, height, width, 3)``.

    Args:
        crop: uint8 ``(height, width, 3)``, a face with a margin of about a fifth on every side.
        damages: Number of damaged looks.
        random: Draws.
    """
    height, width = crop.shape[:2]
    box = Box(width // 6, height // 6, width - width // 3, height - height // 3)
    looks = [crop]
    for _ in range(damages):
        number = int(random.integers(len(_DAMAGES) + 1))
        if number < len(_DAMAGES):
            looks.append(_DAMAGES[number](crop, box, random))
        else:
            looks.append(np.rot90(crop, int(random.integers(1, 4))))
    return np.stack(looks)


def _turned(photo: ImageArray, box: Box, quarters: int) -> tuple[ImageArray, Box]:
    """Turn a photo clockwise, and the box with it."""
    height, width = photo.shape[:2]
    for _ in range(quarters):
        box = Box(height - box.top - box.height, box.left, box.height, box.width)
        height, width = width, height
    return np.rot90(photo, -quarters), box


def _jittered(box: Box, random: np.random.Generator) -> Box:
    """A box that a detector might draw around the degraded face."""
    right, down = random.uniform(-0.06, 0.06, 2) * box.width
    wider, higher = random.uniform(0.92, 1.08, 2)
    return Box(
        round(box.left + right),
        round(box.top + down),
        max(1, round(box.width * wider)),
        max(1, round(box.height * higher)),
    )


def _embedded(
    damage: partial[list[ImageArray | LeftOut]],
    photos: Sequence[Path],
    encoder: Encoder,
    workers: int | None,
    progress: bool,
) -> tuple[Looks, list[LeftOut]]:
    """Degrade photos in processes and send every look through the network."""
    import keras

    from face_encode.encoders.compilation import compile_forward
    from face_encode.encoders.quality import with_features
    from face_encode.gallery.distances import unit_length
    from face_encode.pipeline.workers import in_processes, workers_for

    model, contract = encoder.model, encoder.contract
    told = with_features(model, contract.crop)
    both = keras.layers.Concatenate(dtype="float32")(told.outputs)
    ask = compile_forward(keras.Model(told.inputs[0], both), replace(contract, mirror=False))
    size = encoder.embedding_size
    count, waiting = workers_for(workers, photos)
    cut: Iterator[ImageArray | LeftOut] = (
        in_processes(damage, waiting, count)
        if count > 1
        else (crops for photo in waiting for crops in damage([photo]))
    )
    embeddings, features, left_out = [], [], []
    for crops in with_progress(cut, len(photos), "degrading photos", show=progress):
        if isinstance(crops, LeftOut):
            left_out.append(crops)
            continue
        passes = [ask(crops)]
        if contract.mirror:
            passes.append(ask(np.ascontiguousarray(crops[:, :, ::-1])))
        output = np.stack(passes, axis=1)
        embeddings.append(unit_length(output[..., :size].mean(axis=1)))
        features.append(output[..., size:])
    if not embeddings:
        none = Looks(np.empty((0, 1, size), np.float32), np.empty((0, 1, 1, 0), np.float32))
        return none, left_out
    return Looks(np.stack(embeddings), np.stack(features)), left_out


def fit_head(looks: Looks, config: QualityConfig) -> QualityHead:
    """Fit a head: from features of a look to the share of its nearness that the damage leaves.

    The target is 1 for an undamaged photo, and 0 where the damaged one is no nearer to it than a
    stranger's photo.
    """
    import keras

    from face_encode.encoders.quality import QualityHead

    between = looks.strangers()
    stranger = between[~np.eye(len(between), dtype=np.bool_)].mean()
    targets = np.clip((looks.kept - stranger) / (1 - stranger), 0, 1)
    # Undamaged photos weigh as much as half of the damaged ones: refusing one costs a user.
    weights = np.ones_like(targets)
    weights[:, 0] = max(1.0, (targets.shape[1] - 1) / 2)
    passes, count = looks.features.shape[2:]
    features = looks.features.reshape(-1, count)
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    # A feature that hardly ever differs would get weights beyond any bound.
    deviation = np.maximum(deviation, 0.05 * deviation.mean() + 1e-6)
    inputs, targets, weights = (
        (features - mean) / deviation,
        np.repeat(targets.ravel(), passes),
        np.repeat(weights.ravel(), passes),
    )
    keras.utils.set_random_seed(config.seed)
    model = keras.Sequential(
        [
            keras.Input((count,)),
            keras.layers.Dense(config.hidden, "relu", kernel_initializer="he_normal"),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )
    steps = config.epochs * -(-len(inputs) // _BATCH_SIZE)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY), loss="binary_crossentropy"
    )
    model.fit(
        inputs,
        targets[:, np.newaxis],
        sample_weight=weights,
        batch_size=_BATCH_SIZE,
        epochs=config.epochs,
        verbose=0,
    )
    kernel, bias, output, offset = model.get_weights()
    # The scaling of the features becomes part of the hidden layer.
    kernel = (kernel / deviation[:, np.newaxis]).astype(np.float16).astype(np.float32)
    return QualityHead(kernel, bias - mean @ kernel, output, offset)


def _choose_threshold(
    looks: Looks, head: QualityHead, contract: EncoderContract, config: QualityConfig
) -> float:
    """Choose the lowest quality at which strangers pass no more often than they may.

    It never lies so high that more undamaged photos are refused than the settings allow.
    """
    allowed = config.margin * (contract.false_match_rate or _FALSE_MATCH_RATE)
    undamaged = looks.qualities(head)[:, 0]
    candidates = np.quantile(undamaged, np.linspace(0, config.refused, 31))
    for candidate in candidates.tolist():
        # Down, so that no more are refused.
        threshold = math.floor(candidate * 1000) / 1000
        conditions = list(_count(looks, head, contract, threshold))
        if max(each.passing_trusted for each in conditions[1:]) <= allowed:
            break
    return float(threshold)


def _count(
    looks: Looks, head: QualityHead, contract: EncoderContract, threshold: float
) -> Iterator[ConditionResult]:
    """Count the pairs of strangers that pass under each condition, the undamaged photo first."""
    sufficient = looks.qualities(head) >= threshold
    pairs = np.triu_indices(len(sufficient), 1)
    for look, name in enumerate((*CONDITIONS, *TURNED)):
        passing = looks.strangers(look)[pairs] >= contract.threshold
        trusted = sufficient[:, look]
        yield ConditionResult(
            name,
            float(passing.mean()),
            float((passing & trusted[pairs[0]] & trusted[pairs[1]]).mean()),
            float(1 - trusted.mean()),
            float(looks.kept[:, look].mean()),
        )


_BATCH_SIZE = 256
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 0.1
_FALSE_MATCH_RATE = 1e-3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script on arguments, None for the program's own.

    Returns:
        0 done; 1 an error of ours, printed in one line on standard error; 130 interrupted.
    """
    return run_script("quality", DESCRIPTION, add_arguments, run, arguments)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the script's arguments to a parser."""
    add = parser.add_argument
    add("data", metavar="PEOPLE_DIR", type=Path, help="a folder with a sub-folder a person")
    add_shared_arguments(parser, "FILE.keras|FILE.npz")
    add("--encoder", metavar="NAME|FILE.keras", help="whose embeddings (default: dlib_resnet)")
    add("--photos", metavar="N", type=int, default=1500, help="to degrade (default: 1500)")
    add(
        "--refused",
        metavar="X",
        type=float,
        default=0.015,
        help="share of good photos that may be refused (default: 0.015)",
    )
    add(
        "--margin",
        metavar="X",
        type=float,
        default=2.0,
        help="how many times the rate of false "
        "matches may be exceeded under the worst damage (default: 2)",
    )
    add(
        "--validation",
        metavar="X",
        type=float,
        default=0.08,
        help="share of people to choose by (default: 0.08)",
    )
    add("--test", metavar="X", type=float, default=0.2, help="share of people (default: 0.2)")
    add("--seed", metavar="N", type=int, default=0, help="same seed, same head (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Train a head as the parsed arguments say; 0 when done."""
    from face_encode.detectors.registry import load_detector
    from face_encode.encoders.contract import copy_with_quality, save_encoder
    from face_encode.encoders.engines import KERAS
    from face_encode.encoders.registry import KNOWN_ENCODERS, ShippedEncoder, load_encoder

    output = as_path(options.output)
    if output.suffix not in (".keras", ".npz"):
        raise InputError(
            "a quality head is written as an .npz file, or into a .keras file together with its "
            f"encoder. Received: {output}"
        )
    kind = "encoder" if output.suffix == ".keras" else "quality head"
    check_output(output, kind, inputs=[options.encoder or ""], overwrite=options.overwrite)
    encoder = load_encoder(options.encoder, engine=KERAS)
    config = QualityConfig(
        options.data,
        options.photos,
        refused=options.refused,
        margin=options.margin,
        validation=options.validation,
        test=options.test,
        seed=options.seed,
    )
    detector = load_detector(options.detector)
    result = train_quality(
        config, encoder, detector, progress=not options.quiet, say=print_unless(options.quiet)
    )
    if output.suffix == ".npz":
        with replacing(output, DatasetError, shared=True) as temporary:
            temporary.write_bytes(result.head.to_bytes())
    else:
        contract = replace(encoder.contract, quality_threshold=result.threshold)
        known = KNOWN_ENCODERS.get(options.encoder)
        source = known.path if isinstance(known, ShippedEncoder) else options.encoder
        if source is None or (known and source == options.encoder):
            save_encoder(encoder.model, output, contract, quality_head=result.head)
        else:
            copy_with_quality(source, output, contract, result.head)
    columns = ("condition", "strangers pass", "trusted ones", "refused", "kept")
    print("{:32}{:>16}{:>14}{:>9}{:>7}".format(*columns))
    for each in result.conditions:
        print(
            f"{each.name:32}{each.passing:16.2%}{each.passing_trusted:14.2%}{each.refused:9.1%}"
            f"{each.kept:7.3f}"
        )
    trained, chosen, counted = result.photos
    print(
        f"{output}: sufficient from a quality of {result.threshold} on; trained on {trained:,} "
        f"photos, chosen by {chosen:,}, counted on {counted:,} of other people"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
