"""The network of distillation: teacher and student side by side."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from face_encode.training.augmentation import Augmentation
from face_encode.training.losses import TeacherLoss
from face_encode.types import Embeddings


class Distiller(keras.Model):  # type: ignore[misc]
    """Shows teacher and student the same views, and tells the loss what both said."""

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        *,
        teacher_pixel_scale: float,
        mean: Embeddings,
        scale: float,
        mixup: float = 0.4,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        """Join the two.

        Args:
            student: RGB 0..255 of its own size in, embeddings out, centred and scaled.
            teacher: Crops in, embeddings out; is not trained.
            teacher_pixel_scale: What the teacher's pixels are multiplied by.
            mean: The teacher's mean embedding, ``(D,)``.
            scale: The standard deviation about it, one number.
            mixup: Share of views mixed with another.
            augmentation: How views differ.
            seed: Of the views.
        """
        super().__init__(name="distiller")
        teacher.trainable = False
        self.student = student
        self.teacher = teacher
        self.teacher_pixel_scale = teacher_pixel_scale
        self.mean = np.asarray(mean, np.float32)
        self.scale = float(scale)
        self.mixup = mixup
        self.augmentation = augmentation or Augmentation()
        self.views = keras.random.SeedGenerator(seed)
        self.teacher_loss = TeacherLoss()

    def call(self, crops: Any, training: bool = False) -> tuple[Any, Any]:
        """What the student and the teacher say of one view of each crop.

        Args:
            crops: ``(N, height, width, 3)`` of the teacher's size, 0..255.
            training: Whether to draw views; otherwise both see the crops as they are.

        Returns:
            Both ``(N, D)``, the teacher's centred and scaled.
        """
        views = ops.cast(crops, "float32")
        if training:
            views = self._mixed(self.augmentation(views, self.views))
        said = ops.stop_gradient(self.teacher(views * self.teacher_pixel_scale, training=False))
        side = self.student.input_shape[1:3]
        seen = ops.image.resize(views, side, interpolation="bilinear", antialias=True)
        return self.student(seen, training=training), (said - self.mean) / self.scale

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """How far the student is from the teacher; the batch's targets play no part."""
        student, teacher = y_pred
        return self.teacher_loss(teacher, student)

    def _mixed(self, views: Any) -> Any:
        """Mix a share of the views with their neighbours in the batch (mixup, Zhang et al. 2018).

        The teacher is shown the mixture too, so there is no target to be mixed.
        """
        draws = keras.random.uniform((ops.shape(views)[0], 2), seed=self.views)
        share = ops.where(draws[:, 0] < self.mixup, 0.5 * draws[:, 1], 0.0)
        share = ops.reshape(share, (-1, 1, 1, 1))
        return views * (1 - share) + ops.roll(views, 1, axis=0) * share
