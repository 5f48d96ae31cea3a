"""The script that retrains the MLP head on a folder of people.

::

    python -m face_encode.training.head PEOPLE_DIR -o my_embedding.keras

Also ``face-encode train head``. The file that it writes is an encoder like any other:
``Face_Encode_Model("my_embedding.keras")``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from face_encode.outputs import add_overwrite_option, check_output
from face_encode.terminal import exit_code_of
from face_encode.training.augmentation import DEGRADATIONS

if TYPE_CHECKING:
    from face_encode.training.retraining import RetrainResult

# With this number of people, the accuracy is known to about two points.
_FEW_PEOPLE = 50

DESCRIPTION = (
    "Retrain the head of a face encoder on a folder with one sub-folder a person. The new head "
    "is kept only where it verifies held-out people better than the untouched encoder. The same "
    "command resumes an interrupted run."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script on arguments, None for the program's own.

    Returns:
        0 done; 1 an error of ours, printed in one line on standard error; 130 interrupted.
    """
    return run_script("head", DESCRIPTION, add_arguments, run, arguments)


def run_script(
    name: str,
    description: str,
    add_arguments: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
    arguments: Sequence[str] | None,
) -> int:
    """Parse the arguments of a training script and run it; its exit code."""
    program = f"python -m face_encode.training.{name}"
    parser = argparse.ArgumentParser(program, description=description)
    add_arguments(parser)
    options = parser.parse_args(arguments)
    interrupted = "interrupted; the same command resumes from here"
    return exit_code_of(lambda: run(options), interrupted=interrupted)


def add_shared_arguments(parser: argparse.ArgumentParser, output: str = "FILE.keras") -> None:
    """Add the arguments of every training script to a parser, behind its folders.

    ``output`` is what the script writes.
    """
    add = parser.add_argument
    add("-o", "--output", metavar=output, type=Path, required=True, help="what to write")
    add(
        "--detector",
        metavar="NAME",
        help="what finds the faces, as face-encode models lists (default: dlib)",
    )
    add_overwrite_option(parser)
    add("--quiet", action="store_true", help="print the result only")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the script's arguments to a parser."""
    add = parser.add_argument
    add("data", metavar="PEOPLE_DIR", type=Path, help="a folder with a sub-folder a person")
    add_shared_arguments(parser)
    add(
        "--backbone",
        metavar="NAME|FILE.keras",
        default="dlib_resnet",
        help="whose features: a known encoder, a .keras file, or vgg16 (default: dlib_resnet)",
    )
    add("--weights", metavar="FILE", type=Path, help="weights file of a backbone known by name")
    add(
        "--test-dir",
        metavar="DIR",
        type=Path,
        help="other people to report on (default: a fifth of PEOPLE_DIR's people)",
    )
    add(
        "--condition",
        choices=sorted(DEGRADATIONS),
        help="train and test for a harder condition, made from the photos: out of focus, JPEG of "
        "quality 4, the lower face covered, a tenth of the light, without colour, or from photos "
        "of 32x32 pixels",
    )
    add(
        "--loss",
        choices=["semi_hard", "hard", "multi_similarity", "teacher"],
        help="what is learnt (default: teacher with --condition, else semi_hard triplets)",
    )
    add("--views", metavar="N", type=int, default=4, help="views of each photo (default: 4)")
    add("--epochs", metavar="N", type=int, default=60, help="at most (default: 60)")
    add("--learning-rate", metavar="X", type=float, default=1e-4, help="default: 0.0001")
    add("--far", metavar="X", type=float, default=1e-3, help="false match rate (default: 0.001)")
    add("--embedding-size", metavar="N", type=int, default=128, help="default: 128")
    add("--unfreeze", action="store_true", help="then train the whole network too")
    add("--unfreeze-epochs", metavar="N", type=int, default=8, help="epochs of that (default: 8)")
    add("--unfreeze-learning-rate", metavar="X", type=float, default=1e-4, help="default: 0.0001")
    add("--seed", metavar="N", type=int, default=0, help="same seed, same result (default: 0)")


def print_unless(quiet: bool) -> Callable[[str], None]:
    """A function that prints a line on standard error, or with ``quiet`` does nothing."""
    return lambda line: None if quiet else print(line, file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> int:
    """Retrain as the parsed arguments say; 0 when done."""
    from face_encode.detectors.registry import load_detector
    from face_encode.training.backbones import open_backbone
    from face_encode.training.fitting import Schedule
    from face_encode.training.report import check_extra, draw_report, write_events
    from face_encode.training.retraining import RetrainConfig, retrain

    check_extra()
    inputs = [options.backbone, options.weights or ""]
    check_output(options.output, "encoder", inputs=inputs, overwrite=options.overwrite)
    config = RetrainConfig(
        data=options.data,
        output=options.output,
        test_data=options.test_dir,
        condition=options.condition,
        loss=options.loss,
        views=options.views,
        schedule=Schedule(options.epochs, options.learning_rate),
        unfreeze=options.unfreeze,
        whole_schedule=Schedule(
            options.unfreeze_epochs, options.unfreeze_learning_rate, cosine=True
        ),
        false_match_rate=options.far,
        embedding_size=options.embedding_size,
        seed=options.seed,
    )
    result = retrain(
        config,
        open_backbone(options.backbone, options.weights),
        load_detector(options.detector),
        progress=not options.quiet,
        say=print_unless(options.quiet),
    )
    stages = {"head": result.head}
    if result.whole is not None:
        stages["whole-network"] = result.whole
    write_events(config.run_folder / "events", stages)
    threshold = result.encoder.contract.threshold
    picture = config.run_folder / "report.png"
    draw_report(picture, stages, result.before, result.after, result.scores, threshold)
    print(format_result(result))
    print(f"\nencoder:  {config.output}\npicture:  {picture}")
    return 0


def format_result(result: RetrainResult) -> str:
    """The numbers before and after, as text."""
    before, after = result.before, result.after
    contract = result.encoder.contract
    lines = [
        f"held-out people, {before.pairs:,} pairs "
        f"(standard error of the accuracy {before.standard_error:.2%}):",
        f"{'':<8}{'accuracy':>10}{'AUC':>10}{f'TAR@FAR {after.far:.3g}':>18}",
        *(
            f"{name:<8}{of.accuracy:>10.2%}{of.auc:>10.5f}{of.tar_at_far:>18.2%}"
            for name, of in (("before", before), ("after", after))
        ),
        f"threshold {contract.threshold:.4f}, calibrated for a false match rate of "
        f"{contract.false_match_rate:.3g} on other people; accuracy here at this threshold "
        f"{after.accuracy_at_threshold:.2%}",
    ]
    if result.people[2] < _FEW_PEOPLE:
        lines.append(
            f"{result.people[2]} people to report on are too few to say how good the encoder is: "
            f"take {_FEW_PEOPLE} or more"
        )
    if not (result.head.best_epoch or (result.whole is not None and result.whole.best_epoch)):
        lines.append(
            "no epoch verified people better than the untouched encoder beyond chance: its "
            "embedding is kept as it was, with the new threshold"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
