"""The learning rate of a training in several stages."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

_WARM_UP_SHARE = 0.03


@keras.saving.register_keras_serializable(package="face_encode", name="OneCosine")
class OneCosine(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A warm-up and one cosine to 0 over all stages, of which this is the part of one."""

    def __init__(self, highest: float, steps: int, done: int = 0) -> None:
        """Say where in the whole this stage lies.

        Args:
            highest: The learning rate behind the warm-up.
            steps: Of all stages.
            done: Steps of the stages before this one.
        """
        super().__init__()
        self.highest = highest
        self.steps = steps
        self.done = done

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step of this stage."""
        place = (ops.cast(step, "float32") + self.done + 1) / (self.steps + 1)
        cosine = (1 + ops.cos(math.pi * ops.minimum(place, 1.0))) / 2
        return self.highest * ops.minimum(place / _WARM_UP_SHARE, 1.0) * cosine

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the schedule."""
        return {"highest": self.highest, "steps": self.steps, "done": self.done}
