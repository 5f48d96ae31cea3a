"""Retraining a head, from a folder of people to a finished encoder."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest

from face_encode.encoders.contract import EncoderContract, read_contract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import load_encoder
from face_encode.errors import (
    DatasetError,
    FaceEncodeError,
    InputError,
    ModelFileError,
    TrainingError,
)
from face_encode.training import distill, head
from face_encode.training.backbones import Backbone, split_encoder
from face_encode.training.fitting import Schedule
from face_encode.training.report import draw_report, write_events
from face_encode.training.retraining import RetrainConfig, RetrainResult, retrain
from face_encode.types import CropRecipe
from tests.conftest import VERIFY_DATASET
from tests.training.drawn_people import WholePhotoDetector, draw_people


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_people(tmp_path_factory.mktemp("people"), people=60, photos=5)


def clumsy_backbone(mirror: bool = False) -> Backbone:
    """Features that tell people apart, and a projection that looks at brightness only."""
    keras.utils.set_random_seed(2)
    pixels = keras.Input((32, 32, 3))
    tensor = keras.layers.AveragePooling2D(16)(keras.layers.Rescaling(1 / 255)(pixels))
    features = keras.layers.Flatten()(tensor)
    dense = keras.layers.Dense(4)
    model = keras.Model(pixels, dense(features))
    kernel = np.tile(np.array([[0.03, -0.02, 0.01, -0.01]], np.float32), (12, 1))
    dense.set_weights([kernel, np.full(4, 0.1, np.float32)])
    contract = EncoderContract(
        "clumsy",
        CropRecipe("box", 32, 32),
        0.5,
        mirror=mirror,
        thresholds=((1e-7, 0.99),),
        spread=0.5,
    )
    return split_encoder(Encoder(model, contract))


def config_of(folder: Path, output: Path, **changes: object) -> RetrainConfig:
    config = RetrainConfig(
        folder,
        output,
        views=2,
        head_units=(32, 16),
        schedule=Schedule(6, 1e-2, patience=6),
        seed=1,
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def do(
    config: RetrainConfig,
    backbone: Backbone | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> RetrainResult:
    backbone = backbone or clumsy_backbone()
    return retrain(config, backbone, WholePhotoDetector(), progress=False, say=say)


@pytest.fixture(scope="module")
def better(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RetrainConfig, RetrainResult]:
    """A run that betters the clumsy encoder."""
    config = config_of(folder, tmp_path_factory.mktemp("better") / "better.keras")
    return config, do(config)


def test_a_clumsy_encoder_is_bettered_and_the_file_is_an_encoder(
    better: tuple[RetrainConfig, RetrainResult],
) -> None:
    config, result = better
    output = config.output
    assert result.after.accuracy > result.before.accuracy + 0.1
    assert result.head.best_epoch > 0
    contract = read_contract(output)
    assert contract is not None
    assert contract.name == "better"
    assert contract.crop == CropRecipe("box", 32, 32)
    assert contract.false_match_rate is not None
    # What was measured of the backbone does not hold for the new head.
    assert 1e-7 not in dict(contract.thresholds)
    assert contract.spread != 0.5
    assert "clumsy" in contract.trained_on
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    np.testing.assert_allclose(
        load_encoder(output).encode(crops), result.encoder.encode(crops), atol=1e-5
    )
    with open(config.run_folder / "head.csv", newline="") as log:
        rows = list(csv.DictReader(log))
    assert [int(float(row["epoch"])) for row in rows] == list(range(len(rows)))
    assert all(float(row["loss"]) >= 0 for row in rows[1:])
    odd = replace(result, after=replace(result.after, far=0.0015))
    assert "TAR@FAR 0.0015\n" in head.format_result(odd)


def test_the_report_is_a_picture_and_events(
    better: tuple[RetrainConfig, RetrainResult], tmp_path: Path
) -> None:
    _, result = better
    stages, picture = {"head": result.head}, tmp_path / "report.png"
    for _ in range(2):
        write_events(tmp_path / "events", stages)
    draw_report(picture, stages, result.before, result.after, result.scores, threshold=0.5)
    assert picture.stat().st_size > 10_000
    assert len(list((tmp_path / "events" / "head").iterdir())) == 1


def test_same_seed_same_result_and_another_seed_another(
    better: tuple[RetrainConfig, RetrainResult], tmp_path: Path
) -> None:
    config, result = better
    crops = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    first = result.encoder.encode(crops)
    second, third = (
        do(replace(config, output=tmp_path / f"{seed}.keras", seed=seed)).encoder.encode(crops)
        for seed in (config.seed, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - third).max() > 1e-3


def test_a_head_that_does_not_help_is_not_used(folder: Path, tmp_path: Path) -> None:
    # So slow that nothing can be learnt.
    config = config_of(folder, tmp_path / "same.keras", schedule=Schedule(1, 1e-9))
    backbone = clumsy_backbone(mirror=True)
    result = do(config, backbone)
    assert result.head.best_epoch == 0
    assert result.after.accuracy == pytest.approx(result.before.accuracy, abs=0.01)
    assert "kept as it was" in head.format_result(result)


def finite_losses(result: RetrainResult) -> bool:
    # The epoch that is solved in closed form has none.
    losses = [row["loss"] for row in result.head.rows if "loss" in row]
    return bool(losses) and bool(np.isfinite(losses).all())


@pytest.mark.parametrize("loss", ["multi_similarity", "teacher"])
def test_other_losses_train(folder: Path, tmp_path: Path, loss: str) -> None:
    config = config_of(folder, tmp_path / "x.keras", loss=loss, schedule=Schedule(2, 3e-3))
    assert finite_losses(do(config))


@pytest.mark.parametrize("loss", ["semi_hard", "teacher"])
def test_training_for_a_condition_and_the_whole_network(
    folder: Path, tmp_path: Path, loss: str
) -> None:
    config = config_of(
        folder,
        tmp_path / "x.keras",
        condition="covered",
        loss=loss,
        unfreeze=True,
        schedule=Schedule(2, 3e-3),
        whole_schedule=Schedule(2, 3e-4, cosine=True),
    )
    backbone = clumsy_backbone()
    result = do(config, backbone)
    assert result.whole is not None
    assert len(result.whole.rows) == 3
    # With a teacher the whole network begins untouched, with triplets with the trained head.
    begun = {"semi_hard": result.head.best_score, "teacher": result.head.rows[0]["score"]}[loss]
    assert result.whole.rows[0]["score"] == pytest.approx(begun, abs=1e-3)
    rates = [progress.rows[0]["learning_rate"] for progress in (result.head, result.whole)]
    assert rates == pytest.approx([3e-3, 3e-4])


def test_crops_of_another_detector_begin_another_run(folder: Path, tmp_path: Path) -> None:
    config = config_of(folder, tmp_path / "head.keras", schedule=Schedule(1, 1e-2))
    for name in ("whole_photo", "another", "whole_photo"):
        retrain(config, clumsy_backbone(), WholePhotoDetector(name), progress=False)
    assert len(list(config.run_folder.glob("features-*.npy"))) == 2


def test_a_test_folder_of_other_people_with_hard_triplets(folder: Path, tmp_path: Path) -> None:
    other = draw_people(tmp_path / "other", people=8, photos=3, seed=9, prefix="other")
    shutil.copy(other / "other_00" / "0.png", other / "loose.png")
    output, schedule = tmp_path / "x.keras", Schedule(2, 3e-3)
    said: list[str] = []
    config = config_of(folder, output, test_data=other, loss="hard", schedule=schedule)
    result = do(config, say=said.append)
    (told,) = (line for line in said if "left out" in line)
    assert told.startswith(f"1 left out, such as {other / 'loose.png'}: beside the people's")
    assert finite_losses(result)
    assert (result.photos[2], result.people[2]) == (24, 8)
    assert "8 people to report on are too few" in head.format_result(result)


@pytest.mark.parametrize("place", [".", "person_00", ".."])
def test_the_data_folder_as_test_folder_is_refused(
    folder: Path, tmp_path: Path, place: str
) -> None:
    output = tmp_path / "x.keras"
    with pytest.raises(DatasetError, match="overlap"):
        do(config_of(folder, output, test_data=folder / place))
    assert not output.exists()


def test_a_loss_that_is_no_number_writes_no_model(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.keras"
    with pytest.raises(TrainingError, match="no longer a number"):
        do(config_of(folder, output, schedule=Schedule(50, 1e30), loss="teacher"))
    assert not output.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"condition": "fog"},
        {"views": 1},
        {"false_match_rate": 0.0},
        {"dropout": 7.0},
        {"embedding_size": 0},
        {"seed": -1},
        {"output": Path("model.h5")},
    ],
)
def test_settings_out_of_range_are_refused(folder: Path, changes: dict[str, object]) -> None:
    settings = {"data": folder, "output": Path("x.keras"), **changes}
    with pytest.raises(FaceEncodeError, match="Received"):
        RetrainConfig(**settings)  # type: ignore[arg-type]


def test_another_embedding_size_begins_anew(folder: Path, tmp_path: Path) -> None:
    backbone = replace(clumsy_backbone(), projection=None)
    for size in (4, 6):
        config = config_of(
            folder, tmp_path / "x.keras", embedding_size=size, schedule=Schedule(1, 1e-2)
        )
        assert do(config, backbone).encoder.embedding_size == size


def test_damaged_features_are_told(folder: Path, tmp_path: Path) -> None:
    config = config_of(folder, tmp_path / "x.keras", schedule=Schedule(1, 1e-9))
    do(config)
    (path,) = config.run_folder.glob("features-*.npy")
    for content in (path.read_bytes()[:200], b""):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=f"{path} is damaged; delete"):
            do(config)


def test_a_teacher_without_a_projection_is_refused(folder: Path, tmp_path: Path) -> None:
    backbone = replace(clumsy_backbone(), projection=None)
    with pytest.raises(InputError, match="features only"):
        do(config_of(folder, tmp_path / "x.keras", loss="teacher"), backbone)


@pytest.mark.data
def test_the_script_retrains_and_resumes(
    lfw_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = [f for f in sorted((lfw_photos).iterdir()) if len(list(f.iterdir())) > 1]
    for person in people[:24]:
        shutil.copytree(person, tmp_path / "people" / person.name)
    output = tmp_path / "my_embedding.keras"
    command = [str(tmp_path / "people"), "-o", str(output), "--epochs", "2", "--views", "2"]
    assert head.main(command) == 0
    first = capsys.readouterr()
    assert "before" in first.out
    assert "epoch 2" in first.err
    assert (tmp_path / "my_embedding.training" / "report.png").stat().st_size > 10_000
    assert list((tmp_path / "my_embedding.training" / "events" / "head").iterdir())
    assert load_encoder(output).name == "my_embedding"
    # Everything is there already: nothing is trained again, and the numbers are the same.
    assert head.main(command) == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert "epoch" not in second.err


@pytest.mark.slow
def test_the_shipped_vgg_embedding_gets_a_new_head(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "my_embedding.keras"
    command = [str(VERIFY_DATASET), "-o", str(output), "--backbone", "vgg_embedding"]
    assert head.main([*command, "--epochs", "2", "--views", "2", "--loss", "semi_hard"]) == 0
    assert "before" in capsys.readouterr().out
    before, after = load_encoder("vgg_embedding"), load_encoder(output)
    assert after.contract.crop == before.contract.crop
    assert after.embedding_size == before.embedding_size
    side = before.contract.crop.height
    crops = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    assert np.isfinite(after.encode(crops)).all()


@pytest.mark.parametrize(
    ("script", "option"), [(head, "--backbone"), (distill, "--teacher"), (distill, "--recipe")]
)
def test_an_input_is_no_output(
    script: ModuleType, option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, recipe = tmp_path / "x.keras", tmp_path / "recipe.json"
    path.write_bytes(b"an encoder")
    recipe.write_text(json.dumps({"teacher": str(path)}))
    given = str(recipe if option == "--recipe" else path)
    assert script.main([str(tmp_path), "-o", str(path), option, given]) == 1
    assert "is an input of this command" in capsys.readouterr().err


def test_the_script_tells_what_is_wrong_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert head.main([str(tmp_path / "nowhere"), "-o", str(tmp_path / "x.keras")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "x.keras").exists()
