"""The script that trains a network to give another one's embeddings.

::

    python -m face_encode.training.distill PEOPLE_DIR -o vgg_embedding.keras

Also ``face-encode train distill``. Runs on TensorFlow, and for a GPU on JAX or torch: set
``KERAS_BACKEND``. The file that it writes is plain VGG16 with an MLP head, and an encoder like
any other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from face_encode.training.head import add_shared_arguments, print_unless, run_script

DESCRIPTION = (
    "Teach VGG16 with an MLP head to give another encoder's embeddings. The same command resumes "
    "an interrupted run."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script on arguments, None for the program's own.

    Returns:
        0 done; 1 an error of ours, printed in one line on standard error; 130 interrupted.
    """
    return run_script("distill", DESCRIPTION, add_arguments, run, arguments)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the script's arguments to a parser."""
    add_shared_arguments(parser)
    add = parser.add_argument
    add("--recipe", metavar="FILE.json", type=Path, help="settings; options below rule over it")
    add("--teacher", metavar="NAME|FILE.keras", help="whose embeddings (default: dlib_resnet)")
    add("--sides", metavar="N", type=int, nargs="+", help="a stage each (default: 32 48 64 150)")
    add("--epochs", metavar="N", type=int, nargs="+", help="a stage each (default: 20 10 5 1)")
    add("--views", metavar="N", type=int, nargs="+", help="of each photo (default: 8 8 8 8)")
    add("--margin", metavar="X", type=float, help="of the student's crop (default: the teacher's)")
    add("--width", metavar="X", type=float, help="1.0 is VGG16 (default)")
    add("--begin", metavar="FILE.keras", type=Path, help="an earlier run's student.keras")
    add("--batch-size", metavar="N", type=int, help="default: 128")
    add("--optimizer", choices=["muon", "adamw"], help="default: muon")
    add("--learning-rate", metavar="X", type=float, help="default: 0.002")
    add("--mixup", metavar="X", type=float, help="share of views (default: 0.4)")
    add("--people-epochs", metavar="N", type=int, help="with people as labels (default: 0)")
    add("--mixed-precision", action="store_true", default=None, help="compute in bfloat16")
    add("--validation", metavar="X", type=float, help="share of people (default: 0.15)")
    add("--test", metavar="X", type=float, help="share of people (default: 0.2)")
    add("--false-match-rate", metavar="X", type=float, help="for the threshold (default: 0.001)")
    add("--seed", metavar="N", type=int, help="same seed, same result (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Distil as the parsed arguments say; 0 when done."""
    from face_encode.detectors.registry import load_detector
    from face_encode.encoders.engines import KERAS
    from face_encode.encoders.registry import load_encoder
    from face_encode.training.distillation import (
        SETTINGS,
        DistillConfig,
        Recipe,
        distill_student,
        read_recipe,
    )

    recipe = read_recipe(options.recipe) if options.recipe else Recipe()
    given = {name: getattr(options, name, None) for name in SETTINGS}
    settings = recipe.settings | {name: value for name, value in given.items() if value is not None}
    result = distill_student(
        DistillConfig(options.data, options.output, begin=options.begin, **settings),
        load_encoder(options.teacher or recipe.teacher, engine=KERAS),
        load_detector(options.detector or recipe.detector),
        progress=not options.quiet,
        say=print_unless(options.quiet),
    )
    print(f"held-out people, {result.teacher.pairs:,} pairs:")
    for name, of in (("teacher", result.teacher), ("student", result.student)):
        print(f"{name:<8} accuracy {of.accuracy:.2%}  AUC {of.auc:.5f}  ", end="")
        print(f"TAR@FAR {of.far:.0e} {of.tar_at_far:.2%}")
    print(f"\nencoder:  {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
