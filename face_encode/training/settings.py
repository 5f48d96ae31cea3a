"""What a distillation does: its settings, checked before hours of work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from face_encode.errors import InputError, ModelFileError

OPTIMIZERS = ("muon", "adamw")
"""Names of the optimizers that a student can be trained with."""


@dataclass(frozen=True)
class Distillation:
    """What to do.

    Attributes:
        data: A folder of people.
        output: The ``.keras`` file to write; views, checkpoints and logs lie beside it, in a
            folder of the same name ending in ``.training``.
        sides: Rows and columns of the student's input in each stage, growing; the last is the
            finished student's.
        epochs: How often each stage sees all its views.
        views: Views of each photo in each stage, not falling: the first so many of those that the
            teacher is asked about.
        margin: The margin of the student's crop, at most the teacher's; None for the same. Of a
            tighter crop, more of few pixels is face.
        width: Width of the student's convolutions; 1.0 is VGG16.
        begin: A student to go on from, ``student.keras`` in the folder of an earlier run; it is
            widened first where the width is twice its own, or three times. None begins anew.
        batch_size: Photos a step.
        optimizer: ``"muon"`` or ``"adamw"``.
        learning_rate: The highest, behind a warm-up; it falls to 0 by one cosine over all stages.
        weight_decay: Of the optimizer.
        mixup: Share of the views that are mixed with another.
        people_epochs: Epochs of the last stage, on triplets of the people themselves, which is
            kept only if it helps; 0 for none.
        people_learning_rate: The highest of that stage, by Adam.
        mixed_precision: Whether the student computes in bfloat16, and on a CPU the teacher's
            answers about views too.
        validation: Share of the people to choose the best epoch and the threshold by.
        test: Share of the people to report on.
        false_match_rate: What the threshold is calibrated for.
        seed: The same seed gives the same result.
        data_name: What the file calls the photos; None for the folder's name.
        licence: The licence that the file gives itself; None for the teacher's.
    """

    data: Path
    output: Path
    sides: tuple[int, ...] = (32, 48, 64, 150)
    epochs: tuple[int, ...] = (20, 10, 5, 1)
    views: tuple[int, ...] = (8, 8, 8, 8)
    margin: float | None = None
    width: float = 1.0
    begin: Path | None = None
    batch_size: int = 128
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    mixup: float = 0.4
    people_epochs: int = 0
    people_learning_rate: float = 1e-4
    mixed_precision: bool = False
    validation: float = 0.15
    test: float = 0.2
    false_match_rate: float = 1e-3
    seed: int = 0
    data_name: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked before hours of work."""
        if self.output.suffix != ".keras":
            raise ModelFileError(f"a model file's name ends in .keras. Received: {self.output}")
        stages = {len(self.sides), len(self.epochs), len(self.views)}
        if len(stages) > 1 or not self.sides or min(*self.epochs, *self.views) < 1:
            raise InputError(
                "each stage has a side, at least 1 epoch and at least 1 view of each photo. "
                f"Received: sides {self.sides}, epochs {self.epochs}, views {self.views}"
            )
        if list(self.sides) != sorted(set(self.sides)):
            raise InputError(f"the sides grow from stage to stage. Received: {self.sides}")
        if not 0 <= self.mixup <= 1:
            raise InputError(f"the share of mixed views lies within 0..1. Received: {self.mixup}")
        if self.optimizer not in OPTIMIZERS:
            raise InputError(
                f"the optimizer is one of {', '.join(OPTIMIZERS)}. Received: {self.optimizer!r}"
            )

    @property
    def run_folder(self) -> Path:
        """Where checkpoints and logs lie."""
        return self.output.with_suffix(".training")
