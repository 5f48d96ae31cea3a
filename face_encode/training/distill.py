"""The script that trains a network to give other ones' embeddings.

::

    python -m face_encode.training.distill PEOPLE_DIR PHOTO_DIR -o vgg_embedding.keras

Also ``face-encode train distill``. Runs on TensorFlow, and for a GPU on JAX or torch: set
``KERAS_BACKEND``. The file that it writes is plain VGG16 with an MLP head, and an encoder like
any other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from face_encode.outputs import check_output
from face_encode.training.head import add_shared_arguments, print_unless, run_script

DESCRIPTION = (
    "Teach VGG16 with an MLP head to give other encoders' embeddings. The same command resumes an "
    "interrupted run, by the recipe as it then is."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script on arguments, None for the program's own.

    Returns:
        0 done; 1 an error of ours, printed in one line on standard error; 130 interrupted.
    """
    return run_script("distill", DESCRIPTION, add_arguments, run, arguments)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the script's arguments to a parser."""
    add = parser.add_argument
    add(
        "data",
        metavar="DIR",
        type=Path,
        nargs="+",
        help="a folder with a sub-folder a person, of whom some are held out; then any others, of "
        "people or of photos of unnamed people",
    )
    add_shared_arguments(parser)
    add("--recipe", metavar="FILE.json", type=Path, help="settings; options below rule over it")
    add(
        "--teacher",
        metavar="NAME|FILE.keras",
        nargs="+",
        help="whose embeddings; of several, side by side (default: dlib_resnet)",
    )
    add("--sides", metavar="N", type=int, nargs="+", help="a stage each (default: 48 48 64)")
    add("--widths", metavar="X", type=float, nargs="+", help="likewise (default: 0.25 0.5 0.5)")
    add("--epochs", metavar="N", type=int, nargs="+", help="likewise (default: 40 40 20)")
    add("--steps", metavar="N", type=int, help="batches an epoch (default: 256)")
    add("--hours", metavar="X", type=float, help="train for this time; epochs are shares of it")
    add("--views", metavar="N", type=int, help="of each photo (default: 3)")
    add("--crop", choices=["box", "dlib_chip", "arcface"], help="default: the teacher's")
    add("--margin", metavar="X", type=float, help="of the student's crop (default: the teacher's)")
    add("--begin", metavar="FILE.keras", type=Path, help="an earlier run's student.keras")
    add("--new-teachers", action="store_true", default=None, help="that student had others")
    add("--batch-size", metavar="N", type=int, help="default: 128")
    add("--optimizer", choices=["muon", "adamw"], help="default: muon")
    add("--learning-rate", metavar="X", type=float, help="default: 0.006")
    add("--mixup", metavar="X", type=float, help="share of views (default: 0.35)")
    add("--people-epochs", metavar="N", type=int, help="with people as labels (default: 0)")
    add("--mixed-precision", action="store_true", default=None, help="compute in bfloat16")
    add("--validation", metavar="X", type=float, help="share of people (default: 0.15)")
    add("--test", metavar="X", type=float, help="share of people (default: 0.2)")
    add("--false-match-rate", metavar="X", type=float, help="for the threshold (default: 0.001)")
    add("--seed", metavar="N", type=int, help="same seed, same result (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Distil as the parsed arguments say; 0 when done."""
    from face_encode.detectors.registry import load_detector
    from face_encode.encoders.engines import AUTOMATIC, KERAS
    from face_encode.encoders.registry import load_encoder
    from face_encode.training.distillation import distill_student
    from face_encode.training.fitting import has_gpu
    from face_encode.training.recipe import SETTINGS, DistillConfig, Recipe, read_recipe

    recipe = read_recipe(options.recipe) if options.recipe else Recipe()
    names = options.teacher or recipe.teachers or [None]
    inputs = [options.begin or "", *(name or "" for name in names)]
    check_output(options.output, "encoder", inputs=inputs, overwrite=options.overwrite)
    given = {name: getattr(options, name, None) for name in SETTINGS}
    settings = recipe.settings | {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }
    # A GPU is Keras' alone.
    engine = KERAS if has_gpu() else AUTOMATIC
    result = distill_student(
        DistillConfig(tuple(options.data), options.output, begin=options.begin, **settings),
        [load_encoder(name, engine=engine) for name in names],
        load_detector(options.detector or recipe.detector),
        progress=not options.quiet,
        say=print_unless(options.quiet),
    )
    print(f"held-out people, {result.teacher.pairs:,} pairs:")
    for name, of in (("teacher", result.teacher), ("student", result.student)):
        print(f"{name:<8} accuracy {of.accuracy:.2%}  AUC {of.auc:.5f}  ", end="")
        print(f"TAR@FAR {of.far:.3g} {of.tar_at_far:.2%}")
    print(f"\nencoder:  {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
