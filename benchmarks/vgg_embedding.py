"""Measure ``vgg_embedding`` beside other encoders on people that it was not trained on.

Takes the photos and the recipe that it was trained with, of which the split into people follows::

    python -m benchmarks.vgg_embedding --photos LFW_DIR

Every pair of one person and as many of two are compared, and in a larger set of pairs of two the
false accepts are counted. With ``--groups DIR`` it measures instead, at the model's own threshold,
each group of people by itself; a group is a sub-folder of DIR, with photos of unnamed people or
with a sub-folder a person.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np

from face_encode.encoders.encoder import Encoder
from face_encode.evaluation.intervals import bootstrap, percentile_interval
from face_encode.evaluation.metrics import Flags, Scores, tar_at_far, verification_accuracy
from face_encode.gallery.distances import unit_length
from face_encode.training.data import Rows
from face_encode.types import ImageArray

HERE = Path(__file__).parent
DIFFERENT_PAIRS = 500_000
BESIDE = ("dlib_resnet", "mobilefacenet")
TEACHER = BESIDE[-1]
# Above this similarity the teacher is sure that two unnamed photos show one person: such a pair is
# no pair of strangers.
SURE = 0.6


def main() -> None:
    """Measure and print a table in Markdown."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from face_encode.detectors.registry import load_detector
    from face_encode.encoders.registry import load_encoder
    from face_encode.training.data import crop_people, split_people
    from face_encode.training.recipe import read_recipe

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", help="the folder with a sub-folder a person")
    parser.add_argument("--groups", type=Path, help="a folder with a sub-folder a group")
    parser.add_argument("--model", default="vgg_embedding")
    parser.add_argument(
        "--recipe", type=Path, default=HERE.parent / "weights" / "vgg_embedding.json"
    )
    parser.add_argument("--part", default="test", choices=["test", "validation"])
    options = parser.parse_args()
    if options.groups:
        measure_groups(options.groups, options.model)
        return
    if not options.photos:
        parser.error("--photos or --groups")
    recipe = read_recipe(options.recipe)
    shares = {part: recipe.settings[part] for part in ("validation", "test")}
    detector = load_detector(recipe.detector)
    scores: dict[str, Scores] = {}
    times: dict[str, str] = {}
    for name in (*BESIDE, options.model):
        encoder = load_encoder(name)
        data = crop_people(options.photos, encoder.contract.crop, detector)
        rows = getattr(
            split_people(data.people, **shares, seed=recipe.settings["seed"]), options.part
        )
        crops = np.asarray(data.crops[rows])
        people = data.people[rows]
        first, second = pairs_of(people)
        embeddings = encoder.encode(crops)
        unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        scores[name] = np.einsum("nd,nd->n", unit[first], unit[second]).astype(np.float64)
        times[name] = f"{milliseconds(encoder, crops[:1]):.1f} / "
        times[name] += f"{milliseconds(encoder, crops[:32]):.1f}"
    same = people[first] == people[second]
    count = int(same.sum())
    print(
        f"{len(rows):,} photos of {len(np.unique(people)):,} people: {count:,} pairs of one "
        f"person, {count:,} of two for the accuracy, {len(same) - count:,} for the rates\n"
    )
    print("| encoder | accuracy | 95 % interval | TAR at FAR 1 % | at 0.1 % | ms a face, 1 / 32 |")
    print("|---|---|---|---|---|---|")
    for name, one in scores.items():
        accuracy, low, high = accuracy_of(one[: 2 * count], same[: 2 * count], people[first])
        rates = [tar_at_far(one, same, far) for far in (1e-2, 1e-3)]
        print(
            f"| {name} | {accuracy:.2%} | {low:.2%} to {high:.2%} | {rates[0]:.1%} | "
            f"{rates[1]:.1%} | {times.get(name, '')} |"
        )


def measure_groups(folder: Path, name: str) -> None:
    """Print for each group the false match rate, and the share of right matches."""
    from face_encode.detectors.registry import load_detector
    from face_encode.encoders.registry import load_encoder
    from face_encode.training.augmentation import Augmentation
    from face_encode.training.data import crop_photos

    encoder, teacher, detector = load_encoder(name), load_encoder(TEACHER), load_detector()
    threshold, stated = encoder.contract.threshold, encoder.contract.false_match_rate
    known = teacher.contract.threshold
    print(f"threshold {threshold:.4f}, for a false match rate of {stated:.1e}\n")
    print(f"| group | photos | pairs of two | false matches | {TEACHER}'s | views | pairs of one |")
    print("|---|---|---|---|---|---|---|")
    for group in sorted(path for path in folder.iterdir() if path.is_dir()):
        data = crop_photos(group, encoder.contract.crop, detector)
        crops, people = np.asarray(data.crops), data.people
        surely = crop_photos(group, teacher.contract.crop, detector).crops
        unit, others = unit_length(encoder.encode(crops)), unit_length(teacher.encode(surely))
        first, second = np.triu_indices(len(crops), 1)
        scores, same = (unit @ unit.T)[first, second], people[first] == people[second]
        alike = (others @ others.T)[first, second]
        strangers = ~same & (alike < SURE)
        rate = (scores[strangers] >= threshold).mean()
        their_rate = (alike[strangers] >= known).mean()
        views = np.asarray(Augmentation()(crops, 0)).round().astype(np.uint8)
        seen = (unit * unit_length(encoder.encode(views))).sum(axis=1)
        named = ""
        if same.any():
            named = f"{(scores[same] >= threshold).mean():.1%}, {TEACHER} "
            named += f"{(alike[same] >= known).mean():.1%}, of {same.sum():,}"
        print(
            f"| {group.name} | {len(crops):,} | {strangers.sum():,} | {rate:.2e} | "
            f"{their_rate:.2e} | {(seen >= threshold).mean():.1%} | {named} |"
        )


def pairs_of(people: Rows) -> tuple[Rows, Rows]:
    """All pairs of one person, first, and many of two, at random: the rows of both photos."""
    random = np.random.default_rng(0)
    first, second = np.triu_indices(len(people), 1)
    same = people[first] == people[second]
    drawn = random.permutation(np.flatnonzero(~same))[:DIFFERENT_PAIRS]
    chosen = np.concatenate([np.flatnonzero(same), drawn])
    return first[chosen], second[chosen]


def accuracy_of(scores: Scores, same: Flags, people: Rows) -> tuple[float, float, float]:
    """Accuracy at the best single threshold, and its 95 % bootstrap interval over people."""
    best = verification_accuracy(scores, same)
    right = (scores >= best.threshold) == same
    replicates = bootstrap(lambda drawn: right[drawn].mean(), people[: len(right)])
    interval = percentile_interval(replicates[:, 0])
    return best.accuracy, interval.lower, interval.upper


def milliseconds(encoder: Encoder, crops: ImageArray) -> float:
    """Time a face, mirror image included, of a batch of crops: the fastest of 30 rounds."""
    encoder.encode(crops)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        encoder.encode(crops)
        times.append(time.perf_counter() - start)
    return min(times) / len(crops) * 1000


if __name__ == "__main__":
    main()
