"""Report of a training run for people: a picture and TensorBoard events."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from face_encode.errors import MissingExtraError, ModelFileError
from face_encode.files import replacing
from face_encode.training.fitting import Progress
from face_encode.training.verification import Verification


def check_extra() -> None:
    """Raise MissingExtraError before a run whose report could not be written."""
    for module in ("matplotlib", "tensorboard"):
        if find_spec(module) is None:
            raise MissingExtraError(
                f'training reports need {module}: pip install "face_encode[train]" brings it'
            )


def write_events(folder: Path, stages: dict[str, Progress]) -> None:
    """Write the epochs of each stage as TensorBoard events, in place of an earlier run's.

    Raises:
        ModelFileError: The events cannot be written.
    """
    from tensorboard.summary import Writer

    try:
        for stage, progress in stages.items():
            logs = folder / stage
            for earlier in logs.glob("events.out.tfevents.*"):
                earlier.unlink()
            writer = Writer(str(logs))
            for row in progress.rows:
                for name, value in row.items():
                    if name != "epoch":
                        writer.add_scalar(name, value, step=int(row["epoch"]))
            writer.close()
    except OSError as error:
        raise ModelFileError(f"cannot write the events in {folder}: {error}") from error


def draw_report(
    path: Path,
    stages: dict[str, Progress],
    before: Verification,
    after: Verification,
    scores: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.bool_]],
    threshold: float,
) -> None:
    """Draw the loss, the accuracy on the people chosen by, and the scores before and after.

    The scores are the cosine similarities of the test pairs before and after, ``(M,)`` each, and
    whether a pair is one person, ``(M,)``. The file is a PNG.

    Raises:
        ModelFileError: The picture cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot, which would pick a backend and keep state for the whole process.
    figure = Figure(figsize=(11, 7), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    (loss_axes, score_axes), (before_axes, after_axes) = figure.subplots(2, 2)
    for axes, column, title in (
        (loss_axes, "loss", "Loss, training"),
        (score_axes, "score", "Accuracy, people chosen by"),
    ):
        for stage, progress in stages.items():
            rows = [row for row in progress.rows if column in row]
            epochs, numbers = [row["epoch"] for row in rows], [row[column] for row in rows]
            label = f"{stage} (kept: epoch {progress.best_epoch})"
            axes.plot(epochs, numbers, marker=".", label=label)
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.legend()
    similarities_before, similarities_after, same = scores
    for axes, title, values, result in (
        (before_axes, "Before", similarities_before, before),
        (after_axes, "After", similarities_after, after),
    ):
        bins = np.linspace(values.min(), values.max(), 60).tolist()
        for kind, label in ((True, "one person"), (False, "two people")):
            axes.hist(values[same == kind], bins, density=True, alpha=0.6, label=label)
        axes.set_title(f"{title}: accuracy {result.accuracy:.2%}, AUC {result.auc:.4f}")
        axes.set_xlabel("cosine similarity")
        axes.set_yticks([])
        axes.legend()
    after_axes.axvline(threshold, color="black", linestyle="--", label="threshold")
    after_axes.legend()
    with replacing(path, ModelFileError, shared=True) as temporary:
        canvas.print_figure(str(temporary), format="png")
