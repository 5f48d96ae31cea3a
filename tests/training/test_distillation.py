"""Distillation end to end, on a narrow student and a small teacher."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.encoders.contract import EncoderContract, read_contract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import load_encoder
from face_encode.encoders.vgg16 import vgg_embedding
from face_encode.errors import InputError
from face_encode.training import distillation
from face_encode.training.distillation import Distillation, distil
from face_encode.types import CropRecipe
from tests.training.drawn_people import WholePhotoDetector, draw_people


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_people(tmp_path_factory.mktemp("people"), people=12, photos=3, side=48)


@pytest.fixture(scope="module")
def teacher() -> Encoder:
    """A teacher that tells people apart by where their colours are."""
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((48, 48, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.AveragePooling2D(12),
            keras.layers.Flatten(),
            keras.layers.Dense(8, bias_initializer="ones"),
        ]
    )
    contract = EncoderContract(
        "drawn", CropRecipe("box", 48, 48), threshold=0.5, euclidean_threshold=0.7
    )
    return Encoder(model, contract)


def work(folder: Path, output: Path, **changes: object) -> Distillation:
    settings: dict[str, object] = {
        "data": folder,
        "output": output,
        "sides": (32, 48),
        "epochs": (2, 2),
        "views": (3, 4),
        "width": 0.0625,
        "batch_size": 8,
        "learning_rate": 5e-3,
        **changes,
    }
    return Distillation(**settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(folder: Path, teacher: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "student.keras"
    distil(work(folder, output), teacher, WholePhotoDetector(), progress=False)
    return output


def test_the_student_learns_and_is_plain_vgg16(
    finished: Path, folder: Path, teacher: Encoder
) -> None:
    student = load_encoder(finished)
    plain = vgg_embedding((48, 48, 3), 8, dropout=0.0, width=0.0625)
    assert [layer.name for layer in student.model.layers] == [each.name for each in plain.layers]
    contract = read_contract(finished)
    assert contract is not None
    assert contract.crop == CropRecipe("box", 48, 48)
    assert "drawn" in contract.trained_on
    assert contract.euclidean_threshold is None
    losses = []
    for stage in ("32px", "48px"):
        rows = (finished.with_suffix(".training") / f"{stage}.csv").read_text().splitlines()
        column = rows[0].split(",").index("loss")
        losses += [float(row.split(",")[column]) for row in rows[2:]]
    assert losses[-1] < losses[0], losses


def test_folding_the_finished_student_changed_nothing(
    finished: Path, folder: Path, teacher: Encoder
) -> None:
    # The last checkpoint holds the student as it was trained, with its normalisations.
    keras.utils.set_random_seed(0)
    student = vgg_embedding((48, 48, 3), 8, dropout=0.0, width=0.0625, batch_normalization=True)
    with np.load(finished.with_suffix(".training") / "48px.npz", allow_pickle=False) as stored:
        for index, variable in enumerate(student.variables):
            variable.assign(stored[f"value{index}"])
    crops = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 3)).astype(np.uint8)
    trained = keras.ops.convert_to_numpy(student(crops.astype(np.float32), training=False))
    plain = load_encoder(finished).encode(crops)
    # What is left between them is the teacher's mean and scale, the same for all.
    trained, plain = trained - trained.mean(axis=0), plain - plain.mean(axis=0)
    scale = plain.std() / trained.std()
    assert plain.std() > 0.01
    # float16 has 11 binary digits.
    assert np.abs(trained * scale - plain).max() < 2e-3


def test_an_interrupted_run_ends_in_the_same_student(
    finished: Path, folder: Path, teacher: Encoder, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("48px: epoch 1"):
            raise Stop

    output = tmp_path / "student.keras"
    with pytest.raises(Stop):
        distil(work(folder, output), teacher, WholePhotoDetector(), progress=False, say=stop)
    assert not output.exists()
    said: list[str] = []
    distil(work(folder, output), teacher, WholePhotoDetector(), progress=False, say=said.append)
    assert [line[:13] for line in said] == ["48px: epoch 2"]
    crops = np.random.default_rng(1).integers(0, 256, (6, 48, 48, 3)).astype(np.uint8)
    np.testing.assert_allclose(
        load_encoder(output).encode(crops), load_encoder(finished).encode(crops), atol=1e-4
    )


def test_a_student_larger_than_the_teachers_crop_is_refused(
    folder: Path, teacher: Encoder, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"48x48 .*Received"):
        settings = work(folder, tmp_path / "student.keras", sides=(32, 64))
        distillation.distil(settings, teacher, WholePhotoDetector(), progress=False)


def test_a_wider_student_goes_on_from_a_finished_one(
    finished: Path, folder: Path, teacher: Encoder, tmp_path: Path
) -> None:
    begin = finished.with_suffix(".training") / "student.keras"
    said: list[str] = []
    wider = work(
        folder,
        tmp_path / "wider.keras",
        begin=begin,
        width=0.125,
        sides=(48,),
        epochs=(1,),
        views=(1,),
    )
    result = distil(wider, teacher, WholePhotoDetector(), progress=False, say=said.append)
    assert load_encoder(wider.output).model.get_layer("block1_conv1").filters == 8
    rows = (finished.with_suffix(".training") / "48px.csv").read_text().splitlines()
    last_score = rows[-1].split(",")[rows[0].split(",").index("score")]
    # Before the first step it tells people apart exactly as the one that it came from.
    assert result.stages["48px"].rows[0]["score"] == pytest.approx(float(last_score), abs=1e-6)
