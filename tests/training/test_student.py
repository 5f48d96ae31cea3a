"""The student: what it sees, what it learns, and what is left when it is finished."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np

from face_encode.encoders.contract import EncoderContract
from face_encode.training.student import StudentFrame, vgg16_student
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
