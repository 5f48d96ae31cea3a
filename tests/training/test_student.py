"""The student: what it sees, what it learns, and what is left when it is finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.encoders.contract import EncoderContract
from face_encode.errors import InputError, ModelFileError
from face_encode.training.distillation import StudentFrame, earlier_student, vgg16_student
from face_encode.types import CropRecipe

FRAME = StudentFrame(
    contract=EncoderContract("student", CropRecipe("dlib_chip", 40, 40, margin=0.0), threshold=0.5),
    share=0.8,
    mean=np.array([1.0, -2.0, 0.5], np.float32),
    scale=0.25,
)


def test_it_sees_the_middle_of_the_teachers_crop() -> None:
    crop = np.zeros((1, 40, 40, 3), np.uint8)
    crop[:, 4:36, 4:36] = 255
    seen = FRAME.seen(crop, 32)
    assert seen.shape == (1, 32, 32, 3)
    assert seen.min() == 255


def test_finishing_undoes_the_centring_and_folds_the_normalisation() -> None:
    keras.utils.set_random_seed(0)
    student = vgg16_student(0.0625, False, 32, 3)
    # Moving averages other than those of the beginning, so that folding has something to do.
    for layer in student.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([weight + 0.3 for weight in layer.get_weights()])
    crops = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    learnt = keras.ops.convert_to_numpy(student(crops.astype(np.float32), training=False))
    encoder = FRAME.finish(student)
    assert encoder.contract.crop == replace(FRAME.contract.crop, height=32, width=32)
    np.testing.assert_allclose(FRAME.centred(encoder.encode(crops)), learnt, rtol=1e-3, atol=1e-3)
    kinds = [type(layer).__name__ for layer in encoder.model.layers]
    assert kinds.count("BatchNormalization") == 3


def test_mixed_precision_is_the_students_alone() -> None:
    student = vgg16_student(0.0625, True, 32, 3)
    assert student.get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert student.get_layer("embedding").compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_an_earlier_student_is_opened_and_widened(tmp_path: Path) -> None:
    path = tmp_path / "student.keras"
    student = vgg16_student(0.0625, False, 32, 3)
    student.save(path)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
    answers = keras.ops.convert_to_numpy(student(pixels))
    for width in (0.0625, 0.125):
        again = earlier_student(path, width, 3)
        assert again.get_layer("block1_conv1").filters == 64 * width
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(again(pixels)), answers, rtol=1e-3, atol=1e-4
        )


def test_a_student_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.keras"
    vgg16_student(0.125, False, 32, 3).save(path)
    for width, size in ((0.1875, 3), (0.0625, 3), (0.125, 4)):
        with pytest.raises(InputError, match="Received: 3 numbers, 8 channels"):
            earlier_student(path, width, size)
    with pytest.raises(ModelFileError, match="cannot load"):
        earlier_student(tmp_path / "none.keras", 0.125, 3)
