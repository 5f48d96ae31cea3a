"""The script that trains the network which tells age, gender and expression.

::

    python -m face_encode.training.attributes FOLDER … --recipe recipe.json -o face_attributes.keras

Also ``face-encode train attributes``. The recipe's rules read what each photo shows off its path.
Afterwards the answers are calibrated on the photos that validate, a quality head is fitted, and the
photos that are tested on are measured, by group.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from face_encode.attributes.network import SIDE, check_side
from face_encode.errors import DatasetError, InputError, ModelFileError
from face_encode.files import replacing
from face_encode.outputs import check_output
from face_encode.training.head import add_shared_arguments, print_unless, run_script
from face_encode.training.recipe import check_ranges, check_setting, read_object
from face_encode.types import CropRecipe, Embeddings, ImageArray

if TYPE_CHECKING:
    import keras

    from face_encode.attributes.answers import Calibration
    from face_encode.attributes.network import AttributeNetwork
    from face_encode.detectors.base import Detector
    from face_encode.encoders.quality import QualityHead
    from face_encode.training.attribute_data import LabelledFaces, LabelRule
    from face_encode.training.data import Rows
    from face_encode.training.hints import Hints
    from face_encode.training.views import Ask

DESCRIPTION = (
    "Train the network that tells age, gender and expression. The same command resumes an "
    "interrupted run; --begin continues from a finished file."
)


@dataclass(frozen=True)
class AttributesConfig:
    """Settings of a training.

    Attributes:
        data: Folders of photos.
        output: The ``.keras`` file to write; checkpoint, log and report lie beside it, in a folder
            of the same name ending in ``.training``.
        rules: What the photos show.
        begin: A ``.keras`` file whose layers of the same name and shape give the first weights: a
            former one of attributes, or the student of a distillation; None for random ones. In a
            file without the detail's convolutions, nothing is heard of them at first.
        hints: Files of what others say about the photos: see ``read_hints``. The mean of the label
            and of what they say is learnt, and the hints themselves.
        frozen: How many of the first blocks stay as they begin, with the first one also what sees
            the detail; each saves about an eighth of the time.
        side: Rows and columns of the network's crops.
        margin: The margin of the crops, which are dlib's chips.
        width: Width of the convolutions; 1.0 is VGG16.
        mirror: Whether the answers in use are the mean over a face and its mirror image.
        dropout: Share of the features dropped.
        epochs: Number of epochs.
        steps: Batches an epoch.
        hours: Train for this time instead of a number of epochs.
        batch_size: Photos a step.
        expressions: Share of them that have an expression, where there are others too.
        mixup: Share of the steps whose photos of expressions (without any, all photos), and what
            they show, are mixed two by two (Zhang and others, "mixup: Beyond Empirical Risk
            Minimization", 2018).
        learning_rate: The highest learning rate, by Muon; it falls to 0 by a cosine.
        weight_decay: The optimizer's.
        smoothing: Share of an expression's probability spread over all.
        same_photo: Correlation of two crops' grey thumbnails of 16x16 pixels from which they count
            as one photo: of photos to train on, one is left, and none beside one held out.
        weights: How often photos are drawn: pattern of a path -> factor, as for a distillation.
        mixed_precision: Whether to compute in bfloat16.
        probed: Photos of each kind on which the head is fitted first, the convolutions as they are
            at the beginning (Kumar and others, "Fine-Tuning can Distort Pretrained Features and
            Underperform Out-of-Distribution", 2022); 0 leaves that out.
        judged: Photos of each kind by which an epoch is judged.
        refused: Share of the photos that validate which may lie below the quality chosen.
        gender_accuracy: The gender is given where at least this share of such answers is right.
        seed: The same seed gives the same result.
        data_name: Name of the photos in the contract; None for the folders' names.
        licence: Licence in the contract.
    """

    data: tuple[Path, ...]
    output: Path
    rules: tuple[LabelRule, ...]
    begin: Path | None = None
    hints: tuple[Path, ...] = ()
    frozen: int = 0
    side: int = SIDE
    margin: float = 0.2
    width: float = 0.5
    mirror: bool = False
    dropout: float = 0.3
    epochs: int = 30
    steps: int = 128
    hours: float | None = None
    batch_size: int = 128
    expressions: float = 0.5
    mixup: float = 0.0
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    smoothing: float = 0.08
    same_photo: float = 0.96
    weights: dict[str, float] = field(default_factory=dict)
    mixed_precision: bool = False
    probed: int = 30_000
    judged: int = 1000
    refused: float = 0.005
    gender_accuracy: float = 0.975
    seed: int = 0
    data_name: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        if self.output.suffix != ".keras":
            raise ModelFileError(f"a model file's name ends in .keras. Received: {self.output}")
        if not self.rules:
            raise InputError("a recipe's rules say what the photos show. Received: none")
        if not self.data:
            raise InputError("a training reads at least one folder. Received: none")
        check_ranges(self, side=(64, 512))
        check_side(self.side)

    @property
    def run_folder(self) -> Path:
        """Folder of checkpoint, log and report."""
        return self.output.with_suffix(".training")

    @property
    def crop(self) -> CropRecipe:
        """How the network's faces are cut out."""
        return CropRecipe("dlib_chip", self.side, self.side, self.margin)


SETTINGS = {
    one.name: str(one.type)
    for one in fields(AttributesConfig)
    if one.name not in ("data", "output", "begin", "hints", "rules")
}
"""Names of the settings of a recipe -> their types."""


def train_attributes(
    config: AttributesConfig,
    detector: Detector,
    *,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[AttributeNetwork, list[dict[str, Any]]]:
    """Train, calibrate, measure and save a network.

    Args:
        config: On what and how.
        detector: Finds the faces.
        progress: Whether to show progress bars.
        say: Takes one line about each step.

    Returns:
        The saved network, and the rows of the report: see ``measure``.

    Raises:
        DatasetError: There is nothing to train on or to validate by.
        InputError: A label that is none.
        TrainingError: The loss is no longer a number.
        ModelFileError: A file cannot be read or written.
        EmbeddingFileError: A file of hints is none, or knows no photo to train on.
    """
    import keras

    from face_encode.attributes.network import load_attributes, save_attributes
    from face_encode.encoders.contract import EncoderContract
    from face_encode.training.attribute_data import read_faces
    from face_encode.training.attribute_measures import calibrate, even_out, measure
    from face_encode.training.data import tell_left_out
    from face_encode.training.hints import read_hints

    keras.utils.set_random_seed(config.seed)
    hints = [read_hints(file) for file in config.hints]
    faces = read_faces(
        config.data,
        config.rules,
        config.crop,
        detector,
        same_photo=config.same_photo,
        progress=progress,
    )
    say(
        ", ".join(
            f"{len(faces.rows_of(name)):,} {name}" for name in ("train", "validation", "test")
        )
    )
    tell_left_out(faces.left_out, say)
    network = _fit(config, faces, detector.name, hints, say)
    ask = _asking(network, config, mirror=config.mirror)
    valid = faces.part(faces.rows_of("validation"))
    answers = ask(middle(valid.crops, config.side))
    added = even_out(answers, valid, calibrate(answers, valid, config.gender_accuracy))
    kernel, bias = network.get_layer("answers").get_weights()
    network.get_layer("answers").set_weights([kernel, bias + added])
    calibration = calibrate(answers + added, valid, config.gender_accuracy)
    head, bound = _fit_quality(config, network, faces, calibration)
    names = ", ".join(dict.fromkeys(folder.resolve().name for folder in config.data))
    contract = EncoderContract(
        name="face_attributes",
        crop=config.crop,
        threshold=0.0,
        mirror=config.mirror,
        quality_threshold=bound,
        trained_on=config.data_name or names,
        licence=config.licence or "unknown",
    )
    save_attributes(network, config.output, contract, calibration, head)
    finished = load_attributes(config.output)
    tested = faces.part(faces.rows_of("test"))
    answers = finished.encoder.encode(middle(tested.crops, config.side))
    report = measure(answers, tested, finished.calibration)
    with replacing(config.run_folder / "report.json", ModelFileError) as temporary:
        temporary.write_text(json.dumps(report, indent=1), "utf-8")
    return finished, report


def middle(crops: ImageArray, side: int) -> ImageArray:
    """The middle of crops with room."""
    room = (crops.shape[1] - side) // 2
    return np.ascontiguousarray(crops[:, room : room + side, room : room + side])


def augment(crops: ImageArray, side: int, random: np.random.Generator) -> ImageArray:
    """Draw another view of each crop with room.

    It is turned, scaled, moved and mirrored, lit and tinted otherwise, here and there grey, from a
    face of few pixels, compressed, or with a patch covered. Some are moved by whole pixels only:
    every other move makes a crop a little less sharp than those that are in use.

    Args:
        crops: uint8 ``(N, roomy, roomy, 3)``.
        side: Rows and columns of a view.
        random: Draws.
    """
    import cv2

    from face_encode.training.augmentation import compressed, small

    views: ImageArray = np.empty((len(crops), side, side, 3), np.uint8)
    centre, room = (crops.shape[1] - 1) / 2, (crops.shape[1] - side) // 2
    for view, crop in zip(views, crops, strict=True):
        if random.random() < 0.3:
            top, left = room + np.rint(random.uniform(-0.05, 0.05, 2) * side).astype(int)
            moved = crop[top : top + side, left : left + side]
        else:
            turn = cv2.getRotationMatrix2D(
                (centre, centre), random.normal(0, 7), np.exp(random.normal(0, 0.07))
            )
            turn[:, 2] += (side - 1) / 2 - centre + random.uniform(-0.06, 0.06, 2) * side
            moved = cv2.warpAffine(
                crop, turn, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )
        if random.random() < 0.5:
            moved = moved[:, ::-1]
        gain = np.exp(random.normal(0, 0.12) + random.normal(0, 0.05, 3))
        light = (moved.astype(np.float32) - 110) * np.exp(random.normal(0, 0.15)) + 110
        light = light * gain + random.normal(0, 8)
        if random.random() < 0.2:
            light = np.repeat(light.mean(axis=2, keepdims=True), 3, axis=2)
        view[:] = np.clip(light, 0, 255)
        chance = random.random()
        if chance < 0.1:
            view[:] = small(view[np.newaxis], int(random.integers(16, side)))[0]
        elif chance < 0.2:
            view[:] = compressed(view[np.newaxis], int(random.integers(20, 70)))[0]
        elif chance < 0.4:
            height, width = (random.uniform(0.1, 0.35, 2) * side).astype(int)
            top, left = random.integers(0, side - height), random.integers(0, side - width)
            view[top : top + height, left : left + width] = random.integers(0, 256, 3)
    return views


def _fit(
    config: AttributesConfig,
    faces: LabelledFaces,
    detector: str,
    hints: Sequence[Hints],
    say: Callable[[str], None],
) -> keras.Model:
    """Train a network; its checkpoint takes up an interrupted run."""
    import hashlib

    import keras

    from face_encode.attributes.answers import ANSWERS, PARTS
    from face_encode.attributes.network import build_network
    from face_encode.photos.reading import content_digest
    from face_encode.training.attribute_data import UNKNOWN
    from face_encode.training.attribute_measures import accuracies
    from face_encode.training.data import weigh
    from face_encode.training.fitting import Checkpoint, Schedule, fit_judged, without_xla
    from face_encode.training.hints import hints_about, soften
    from face_encode.training.optimizers import Muon

    (weights,) = weigh([faces.photos.tolist()], config.weights, say)
    train, validation = faces.rows_of("train"), faces.rows_of("validation")
    train = train[weights[train] > 0]
    if not len(train):
        raise DatasetError(f"the weights leave no photo to train on. Received: {config.weights}")
    shows = faces.expressions != UNKNOWN
    kinds = [rows for rows in (train[shows[train]], train[~shows[train]]) if len(rows)]
    policy = "mixed_bfloat16" if config.mixed_precision else "float32"
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        network = build_network(config.side, config.width, config.dropout)
    finally:
        keras.config.set_dtype_policy(before)
    if config.begin is not None:
        copied = _begin(network, config.begin)
        say(f"{len(copied)} layers begin as in {config.begin.name}")
        if config.frozen > 1 and "detail_conv1" not in copied:
            raise InputError(
                f"frozen is at most 1 where the file to begin with, {config.begin}, sees no "
                f"detail, since block 2 would never learn to hear of it. Received: {config.frozen}"
            )
    frozen = ("detail_", "block1_", "block2_", "block3_", "block4_")[: config.frozen + 1]
    for layer in network.layers:
        if config.frozen and layer.name.startswith(frozen):
            layer.trainable = False
    targets = faces.targets(config.smoothing)
    wanted = np.where(faces.splits == 0, faces.digests, "").tolist()
    several = [hints_about(wanted, told) for told in hints]
    depends = hashlib.sha256(targets.tobytes())
    for told in several:
        depends.update(told.tobytes())
    if several:
        softened = soften(targets, several, list(PARTS.values()), answers_loss, config.seed)
        targets = np.concatenate([softened, *several], axis=1)
        keras.utils.set_random_seed(config.seed)
    taught = _with_guess(network, targets.shape[1] - ANSWERS)
    batches = _batches(config, faces.crops, targets, kinds, weights)
    # As many of each kind as there are, at most those asked for; always the same ones.
    random = np.random.default_rng(config.seed)
    judged = faces.part(
        np.concatenate(
            [
                random.permutation(validation[mask])[: config.judged]
                for mask in (shows[validation], ~shows[validation])
            ]
        )
    )
    crops = middle(judged.crops, config.side)

    def judge() -> dict[str, float]:
        answers = np.asarray(network.predict(crops, batch_size=256, verbose=0), np.float32)
        values = accuracies(answers, judged)
        known = [values[name] for name in ("gender", "expression") if name in values]
        if "age" in values:
            known.append(1 - values["age"] / 20)
        say(", ".join(f"{name} {value:.4f}" for name, value in values.items()))
        return {"score": float(np.mean(known)), **values}

    schedule = Schedule(
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        cosine=True,
        warm_up=0.5,
        hours=config.hours,
        keep_last=True,
    )
    outside = {"output", "data", "hours", "epochs", "hints"}
    outside |= {"mirror", "judged", "refused", "gender_accuracy"}  # of what comes afterwards
    settings = {name: value for name, value in vars(config).items() if name not in outside}
    begun = config.begin and content_digest(config.begin)
    depends.update(repr((settings, begun, detector, faces.digests.tolist())).encode())
    key = depends.hexdigest()
    config.run_folder.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint(judge, schedule, config.run_folder, "network", key, say)
    network.compile(jit_compile=without_xla())  # the judge asks it
    taught.compile(
        Muon(config.learning_rate, weight_decay=config.weight_decay, exclude=("answers", "guess")),
        loss=_loss,
        jit_compile=without_xla(),
    )

    def probe() -> None:
        rows = np.concatenate([random.permutation(each)[: config.probed] for each in kinds])
        say(f"fitting the head on {len(rows):,} photos")
        ask = _asking(_in_float32(config, network, "features"), config)
        features = ask(middle(faces.crops[rows], config.side))
        _fit_head(network, features, targets[rows, :ANSWERS], config.seed)

    fit_judged(taught, batches, checkpoint, solve=probe if config.probed else None)
    return _in_float32(config, network)


def _with_guess(network: keras.Model, hints: int) -> keras.Model:
    """The network, which is trained to guess the hints from its features, too."""
    import keras

    if not hints:
        return network
    features = keras.layers.Dropout(_GUESS_DROPOUT)(network.get_layer("features").output)
    guess = keras.layers.Dense(hints, dtype="float32", name="guess")(features)
    both = keras.layers.Concatenate(dtype="float32")([network.output, guess])
    return keras.Model(network.input, both)


_GUESS_DROPOUT, _GUESS_WEIGHT = 0.2, 0.5


def _loss(targets: Any, given: Any) -> Any:
    """The loss of the answers, and of the guess at the hints where there are any."""
    from keras import ops

    from face_encode.attributes.answers import ANSWERS

    loss = answers_loss(targets, given[:, :ANSWERS])
    if given.shape[-1] > ANSWERS:
        hints = targets[:, ANSWERS:]
        known = ops.logical_not(ops.isnan(hints))
        off = ops.where(known, given[:, ANSWERS:] - ops.where(known, hints, 0.0), 0.0)
        share = ops.maximum(ops.sum(ops.cast(known, "float32"), axis=-1), 1.0)
        loss += _GUESS_WEIGHT * ops.sum(ops.square(off), axis=-1) / share
    return loss


def _in_float32(
    config: AttributesConfig, network: keras.Model, layer: str | None = None
) -> keras.Model:
    """A copy that computes in float32, as far as a layer."""
    import keras

    from face_encode.attributes.network import build_network

    copy = build_network(config.side, config.width, config.dropout)
    copy.set_weights(network.get_weights())
    return copy if layer is None else keras.Model(copy.input, copy.get_layer(layer).output)


def _begin(network: keras.Model, path: Path) -> list[str]:
    """Copy the weights of the layers of the same name and shape; the names of the copied ones."""
    import keras

    try:
        earlier = keras.saving.load_model(path, compile=False, safe_mode=True)
    # Keras raises whatever a foreign file trips over.
    except Exception as error:
        raise ModelFileError(f"Keras cannot load {path}: {error}") from error
    copied = []
    by_name = {layer.name: layer for layer in earlier.layers}
    heard = network.get_layer("block1_pool").output.shape[-1]
    for layer in network.layers:
        source = by_name.get(layer.name)
        if source is None or not layer.weights:
            continue
        shapes = [tuple(one.shape) for one in layer.weights]
        values = source.get_weights()
        # A file without the detail's convolutions: nothing is heard of them at first.
        if layer.name == "block2_conv1" and values and values[0].shape[:3] == (3, 3, heard):
            more = shapes[0][2] - heard
            values[0] = np.pad(values[0], ((0, 0), (0, 0), (0, more), (0, 0)))
        if [value.shape for value in values] == shapes:
            layer.set_weights(values)
            copied.append(layer.name)
    if not copied:
        raise ModelFileError(f"{path} has no layer of the name and shape of one of this network")
    return copied


def _fit_head(
    network: keras.Model, features: Embeddings, targets: npt.NDArray[np.float32], seed: int
) -> None:
    """Fit the layers behind the features to features that stay as they are."""
    import keras

    from face_encode.attributes.network import add_head

    mean, deviation = features.mean(axis=0), features.std(axis=0)
    # A feature that hardly ever differs would get weights beyond any bound.
    deviation = np.maximum(deviation, 0.05 * deviation.mean() + 1e-6)
    features -= mean
    features /= deviation
    keras.utils.set_random_seed(seed)
    given = keras.Input(features.shape[1:])
    head = keras.Model(given, add_head(given, _HEAD_DROPOUT))
    steps = _HEAD_EPOCHS * -(-len(features) // _HEAD_BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_HEAD_RATE, steps)
    head.compile(keras.optimizers.AdamW(rate, weight_decay=_HEAD_DECAY), loss=answers_loss)
    head.fit(features, targets, batch_size=_HEAD_BATCH, epochs=_HEAD_EPOCHS, verbose=0)
    kernel, bias = head.get_layer("hidden").get_weights()
    # The scaling of the features becomes part of the hidden layer.
    kernel = kernel / deviation[:, np.newaxis]
    network.get_layer("hidden").set_weights([kernel, bias - mean @ kernel])
    network.get_layer("answers").set_weights(head.get_layer("answers").get_weights())


_HEAD_EPOCHS, _HEAD_BATCH, _HEAD_RATE, _HEAD_DECAY, _HEAD_DROPOUT = 14, 256, 1e-3, 0.05, 0.4


def answers_loss(targets: Any, logits: Any) -> Any:
    """Cross-entropy of each attribute, and the error of the mean age; unknown labels count nothing.

    Args:
        targets: float32 ``(N, ANSWERS)``, see ``LabelledFaces.targets``.
        logits: The same shape.

    Returns:
        ``(N,)``.
    """
    from keras import ops

    from face_encode.attributes.answers import PARTS, YEARS

    loss = 0.0
    for name, weight in (("age", 0.5), ("gender", 1.0), ("expression", 1.0)):
        wanted, given = targets[:, PARTS[name]], logits[:, PARTS[name]]
        loss -= weight * ops.sum(wanted * ops.log_softmax(given, axis=-1), axis=-1)
        if name == "age":
            years = ops.convert_to_tensor(YEARS.astype(np.float32))
            mean = ops.sum(ops.softmax(given, axis=-1) * years, axis=-1)
            right = ops.sum(wanted * years, axis=-1)
            # Of a photo mixed with one of unknown age, the share of the known one counts.
            loss += 0.05 * ops.abs(ops.sum(wanted, axis=-1) * mean - right)
    return loss


def _batches(
    config: AttributesConfig,
    crops: ImageArray,
    targets: npt.NDArray[np.float32],
    kinds: list[Rows],
    weights: npt.NDArray[np.float64],
) -> keras.utils.PyDataset:
    """Batches that depend on seed, epoch and index only; the first kind is of the expressions."""
    import keras

    shares = [weights[rows] / weights[rows].sum() for rows in kinds]
    size = config.batch_size
    first = min(max(1, round(size * config.expressions)), size - 1) if len(kinds) > 1 else size
    counts = [first, size - first][: len(kinds)]

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        epoch = 0

        def __len__(self) -> int:
            return config.steps

        def __getitem__(self, index: int) -> tuple[ImageArray, npt.NDArray[np.float32]]:
            random = np.random.default_rng([config.seed, self.epoch, index])
            rows = np.concatenate(
                [
                    random.choice(each, count, p=share)
                    for each, count, share in zip(kinds, counts, shares, strict=True)
                ]
            )
            views, shown = augment(crops[rows], config.side, random), targets[rows]
            if random.random() >= config.mixup:
                return views, shown
            order = random.permutation(first)
            keep = random.beta(0.3, 0.3, (first, 1)).astype(np.float32)
            share = keep[:, :, np.newaxis, np.newaxis]
            views[:first] = np.rint(share * views[:first] + (1 - share) * views[order])
            shown[:first] = keep * shown[:first] + (1 - keep) * shown[order]
            return views, shown

        def on_epoch_end(self) -> None:
            self.epoch += 1

    return Batches()


def _asking(model: keras.Model, config: AttributesConfig, *, mirror: bool = False) -> Ask:
    """A function from any number of crops to what a model gives.

    With mixed precision in bfloat16 by OpenVINO, where that is installed.
    """
    from face_encode.encoders.contract import EncoderContract
    from face_encode.encoders.encoder import Encoder
    from face_encode.training.views import in_bfloat16

    encoder = Encoder(model, EncoderContract("attributes", config.crop, 0.0, mirror=mirror))
    return in_bfloat16(encoder) if config.mixed_precision else encoder.encode


def _fit_quality(
    config: AttributesConfig, network: keras.Model, faces: LabelledFaces, calibration: Calibration
) -> tuple[QualityHead, float]:
    """Fit a head that tells how near the answers of a damaged face stay to the undamaged one's.

    The nearness is the mean overlap (Bhattacharyya, 1943) of the three distributions.

    Returns:
        The head, and the quality below which nothing is told.
    """
    import keras

    from face_encode.attributes.answers import PARTS, probabilities
    from face_encode.encoders.quality import last_features
    from face_encode.training.quality import Looks, QualityConfig, damaged, fit_head

    size = int(network.output_shape[-1])
    both = keras.Model(
        network.input, keras.layers.Concatenate()([network.output, last_features(network)])
    )
    ask = _asking(both, config)
    random = np.random.default_rng(config.seed)

    def look(split: str, photos: int, damages: int) -> Looks:
        rows = random.permutation(faces.rows_of(split))[:photos]
        looks = np.stack(
            [
                middle(damaged(crop, damages, random), config.side)
                for crop in faces.crops[np.sort(rows)]
            ]
        )
        output = ask(looks.reshape(-1, *looks.shape[2:]))
        answers = output[:, :size]
        roots = [np.sqrt(probabilities(answers, name, calibration) / len(PARTS)) for name in PARTS]
        embeddings = np.concatenate(roots, axis=1).astype(np.float32)
        shape = looks.shape[:2]
        return Looks(
            embeddings.reshape(*shape, -1), output[:, np.newaxis, size:].reshape(*shape, 1, -1)
        )

    head = fit_head(look("train", 1500, 5), QualityConfig(Path(), seed=config.seed))
    undamaged = look("validation", 3000, 0).qualities(head)[:, 0]
    return head, round(float(np.quantile(undamaged, config.refused)), 3)


def read_attributes_recipe(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read a recipe: arguments of ``AttributesConfig``, with ``rules``, and the detector's name.

    Raises:
        InputError: The file cannot be read, or has an unknown setting or one of the wrong type.
    """
    from face_encode.training.attribute_data import rule_of

    content = read_object(path)
    detector, rules = content.pop("detector", None), content.pop("rules", [])
    if not isinstance(rules, list) or not isinstance(detector, str | None):
        raise InputError(f"{path}: 'rules' is a list of rules, 'detector' a name")
    for name, value in content.items():
        check_setting(path, name, value, SETTINGS, ("detector", "rules"))
    return {**content, "rules": tuple(map(rule_of, rules))}, detector


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script on arguments, None for the program's own.

    Returns:
        0 done; 1 an error of ours, printed in one line on standard error; 130 interrupted.
    """
    return run_script("attributes", DESCRIPTION, add_arguments, run, arguments)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the script's arguments to a parser."""
    add = parser.add_argument
    add("data", metavar="DIR", type=Path, nargs="+", help="folders of photos that the rules name")
    add_shared_arguments(parser)
    add(
        "--recipe",
        metavar="FILE.json",
        type=Path,
        required=True,
        help="the rules that read what a photo shows off its path, and settings; options below "
        "rule over it",
    )
    add("--begin", metavar="FILE.keras", type=Path, help="whose layers give the first weights")
    add(
        "--hints",
        metavar="FILE",
        type=Path,
        nargs="+",
        default=(),
        help="what others say about the photos: what face-encode embed --faces largest writes, or "
        "an .npz file with the arrays digests and embeddings",
    )
    add("--epochs", metavar="N", type=int, help="default: 30")
    add("--steps", metavar="N", type=int, help="batches an epoch (default: 128)")
    add("--hours", metavar="X", type=float, help="train for this time instead")
    add("--batch-size", metavar="N", type=int, help="default: 128")
    add("--learning-rate", metavar="X", type=float, help="default: 0.003")
    add("--mixed-precision", action="store_true", default=None, help="compute in bfloat16")
    add("--seed", metavar="N", type=int, help="same seed, same result (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Train as the parsed arguments say; 0 when done."""
    from face_encode.detectors.registry import load_detector

    inputs = [*options.hints, *([] if options.begin is None else [options.begin])]
    kind = "network of attributes"
    check_output(options.output, kind, inputs=inputs, overwrite=options.overwrite)
    settings, detector = read_attributes_recipe(options.recipe)
    given = {name: getattr(options, name, None) for name in SETTINGS}
    settings |= {name: value for name, value in given.items() if value is not None}
    if options.epochs is not None and options.hours is None:
        settings["hours"] = None  # a recipe's time would count instead
    config = AttributesConfig(
        tuple(options.data),
        options.output,
        begin=options.begin,
        hints=tuple(options.hints),
        **settings,
    )
    _, report = train_attributes(
        config,
        load_detector(options.detector or detector),
        progress=not options.quiet,
        say=print_unless(options.quiet),
    )
    for row in report:
        values = (
            f"{name} {value:,.0f}" if name == "photos" else f"{name} {value:.3f}"
            for name, value in row.items()
            if name != "group"
        )
        print(f"{row['group']:<20} {'  '.join(values)}")
    print(f"\nnetwork:  {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
