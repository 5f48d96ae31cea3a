"""The script that teaches a network another one's embeddings.

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

from face_encode.console import exit_code_of

DESCRIPTION = (
    "Teach VGG16 with an MLP head to give another encoder's embeddings. The same command goes "
    "on where an interrupted run stopped."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script.

    Args:
        arguments: The words behind the script's name; None takes the program's own.

    Returns:
        0 done; 1 an error of ours, told in one line on standard error; 130 interrupted.
    """
    parser = argparse.ArgumentParser(
        "python -m face_encode.training.distill", description=DESCRIPTION
    )
    add_arguments(parser)
    options = parser.parse_args(arguments)
    return exit_code_of(
        lambda: run(options), interrupted="interrupted; the same command goes on from here"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the script's arguments to a parser."""
    add = parser.add_argument
    add("data", metavar="PEOPLE_DIR", type=Path, help="a folder with a sub-folder a person")
    add("-o", "--output", metavar="FILE.keras", type=Path, required=True, help="what to write")
    add("--teacher", metavar="NAME|FILE.keras", help="whose embeddings (default: dlib_resnet)")
    add(
        "--detector",
        metavar="NAME",
        help="what finds the faces, as face-encode models lists (default: dlib)",
    )
    add("--sides", metavar="N", type=int, nargs="+", default=[32, 48, 64, 150])
    add("--epochs", metavar="N", type=int, nargs="+", default=[20, 20, 20, 5], help="a stage each")
    add("--width", metavar="X", type=float, default=1.0, help="1.0 is VGG16 (default)")
    add("--batch-size", metavar="N", type=int, default=128, help="default: 128")
    add("--learning-rate", metavar="X", type=float, default=1e-3, help="default: 0.001")
    add("--mixup", metavar="X", type=float, default=0.4, help="share of views (default: 0.4)")
    add("--mixed-precision", action="store_true", help="compute in bfloat16")
    add("--far", metavar="X", type=float, default=1e-3, help="false match rate (default: 0.001)")
    add("--seed", metavar="N", type=int, default=0, help="same seed, same result (default: 0)")
    add("--quiet", action="store_true", help="print the result only")


def run(options: argparse.Namespace) -> int:
    """Do what the parsed arguments say; 0 when done.

    Raises:
        FaceEncodeError: Whatever stands in the way.
    """
    from face_encode.detectors.loading import load_detector
    from face_encode.encoders.loading import load_encoder
    from face_encode.training.distillation import Distillation, distil

    work = Distillation(
        data=options.data,
        output=options.output,
        sides=tuple(options.sides),
        epochs=tuple(options.epochs),
        width=options.width,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        mixup=options.mixup,
        mixed_precision=options.mixed_precision,
        false_match_rate=options.far,
        seed=options.seed,
    )

    def say(line: str) -> None:
        if not options.quiet:
            print(line, file=sys.stderr, flush=True)

    result = distil(
        work,
        load_encoder(options.teacher),
        load_detector(options.detector),
        progress=not options.quiet,
        say=say,
    )
    print(f"held-out people, {result.teacher.pairs:,} pairs:")
    for name, of in (("teacher", result.teacher), ("student", result.student)):
        print(f"{name:<8} accuracy {of.accuracy:.2%}  AUC {of.auc:.5f}  ", end="")
        print(f"TAR@FAR {of.far:.0e} {of.tar_at_far:.2%}")
    print(f"\nencoder:  {work.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
