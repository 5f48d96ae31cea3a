"""Distillation end to end, on narrow students and a small teacher."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from face_encode.encoders.contract import EncoderContract, read_contract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import KERAS
from face_encode.encoders.registry import load_encoder
from face_encode.encoders.vgg16 import vgg_embedding
from face_encode.errors import DatasetError, InputError, ModelFileError
from face_encode.gallery.distances import unit_length
from face_encode.photos.reading import read_image
from face_encode.training.distillation import (
    DistillResult,
    StudentAdapter,
    build_student,
    distill_student,
    open_student,
    train_on_people,
)
from face_encode.training.fitting import Progress
from face_encode.training.recipe import SETTINGS, DistillConfig, read_recipe
from face_encode.training.surgery import resize_input
from face_encode.training.verification import PairSet, measure
from face_encode.types import CropRecipe, ImageArray
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


def tiny_student(side: int, size: int, normalized: bool = True) -> keras.Model:
    """A student whose graphs compile in a second."""
    activation = None if normalized else "relu"
    normalization = [keras.layers.BatchNormalization(), keras.layers.Activation("relu")]
    return keras.Sequential(
        [
            keras.Input((side, side, 3), name="pixels"),
            keras.layers.Rescaling(1 / 255, name="scaled"),
            keras.layers.Conv2D(4, 3, activation=activation, name="block1_conv1"),
            *(normalization if normalized else []),
            keras.layers.MaxPooling2D(8, name="pool"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(size, name="embedding"),
        ]
    )


def vgg16_student(side: int, size: int, normalized: bool = True) -> keras.Model:
    return vgg_embedding(
        (side, side, 3), size, dropout=0.0, width=0.0625, batch_normalization=normalized
    )


STAGES = ("1-32px-0.0625", "2-48px-0.0625")


@dataclass(frozen=True)
class Run:
    """A finished distillation of a kind of student."""

    output: Path
    build: Callable[..., keras.Model]
    folder: Path
    teacher: Encoder

    @property
    def run_folder(self) -> Path:
        return self.output.with_suffix(".training")

    def distill(
        self, output: Path, say: Callable[[str], None] = lambda _: None, **changes: object
    ) -> DistillResult:
        """Distil into another file."""
        config = DistillConfig(
            **{  # type: ignore[arg-type]
                "data": (self.folder,),
                "output": output,
                "sides": (32, 48),
                "widths": (0.0625, 0.0625),
                "epochs": (2, 2),
                "steps": 30,
                "views": 3,
                "batch_size": 8,
                "learning_rate": 5e-3,
                **changes,
            }
        )
        # Without a builder, VGG16 is built.
        student = None if self.build is vgg16_student else self.build
        return distill_student(
            config, [self.teacher], WholePhotoDetector(), student=student, progress=False, say=say
        )


@pytest.fixture(
    scope="module",
    params=[tiny_student, pytest.param(vgg16_student, marks=pytest.mark.slow)],
    ids=lambda build: build.__name__,
)
def finished(
    request: pytest.FixtureRequest,
    folder: Path,
    teacher: Encoder,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    output = tmp_path_factory.mktemp("finished") / "student.keras"
    run = Run(output, request.param, folder, teacher)
    run.distill(output)
    return run


def column(log: Path, name: str) -> list[float]:
    """A column of a stage's log, without epoch 0."""
    rows = [row.split(",") for row in log.read_text().splitlines()]
    return [float(row[rows[0].index(name)]) for row in rows[2:]]


def test_the_student_learns_and_is_plain(finished: Run) -> None:
    student = load_encoder(finished.output)
    plain = finished.build(48, 8, normalized=False)
    names = [layer.name for layer in plain.layers]
    received = [layer.name for layer in student.model.layers]
    assert received[-len(names) :] == names
    assert all(
        isinstance(each, keras.layers.InputLayer) for each in student.model.layers[: -len(names)]
    )
    contract = read_contract(finished.output)
    assert contract is not None
    assert contract.crop == CropRecipe("box", 48, 48)
    assert "drawn" in contract.trained_on
    assert contract.euclidean_threshold is None
    stages = [column(finished.run_folder / f"{stage}.csv", "loss") for stage in STAGES]
    assert stages[-1][-1] < stages[0][0], stages


def test_folding_the_finished_student_changed_nothing(finished: Run) -> None:
    # The last checkpoint holds the student as it was trained, with its normalisations.
    student = finished.build(48, 8)
    with np.load(finished.run_folder / f"{STAGES[1]}.npz", allow_pickle=False) as stored:
        for index, variable in enumerate(student.variables):
            variable.assign(stored[f"value{index}"])
    # The answers tell the teacher's mean and scale.
    paths = sorted(finished.run_folder.glob("views-*/answers-*.npy"))
    answers = np.concatenate([np.load(path) for path in paths]).astype(np.float32)
    contract = EncoderContract("folded", CropRecipe("box", 48, 48), threshold=0.5)
    mean = answers.mean(axis=0)
    adapter = StudentAdapter(contract, np.eye(8), mean, float((answers - mean).std()))
    folded = adapter.finish(student)
    crops = np.random.default_rng(0).integers(0, 256, (6, 48, 48, 3)).astype(np.uint8)
    trained = keras.ops.convert_to_numpy(student(crops.astype(np.float32), training=False))
    embeddings = folded.encode(crops)
    assert embeddings.std(axis=0).max() > 1e-3
    # Both compute in float32, which rounds in the 7th digit, layer by layer.
    bound = 1e-4 * np.abs(trained).max()
    assert np.abs(adapter.targets(embeddings) - trained).max() < bound
    # The file holds these very weights, as float16 rounds them.
    kept = load_encoder(finished.output, engine=KERAS).model.get_weights()
    for weight, exact in zip(kept, folded.model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, exact.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("finished", [tiny_student], indirect=True, ids=["tiny_student"])
def test_an_interrupted_run_ends_in_the_same_student(finished: Run, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith(f"{STAGES[1]}: epoch 1"):
            raise Stop

    output = tmp_path / "student.keras"
    with pytest.raises(Stop):
        finished.distill(output, say=stop)
    assert not output.exists()
    said: list[str] = []
    finished.distill(output, say=said.append)
    assert [line.partition(",")[0] for line in said] == [f"{STAGES[1]}: epoch 2"]
    crops = np.random.default_rng(1).integers(0, 256, (6, 48, 48, 3)).astype(np.uint8)
    np.testing.assert_allclose(
        load_encoder(output).encode(crops), load_encoder(finished.output).encode(crops), atol=1e-4
    )


@pytest.mark.parametrize("finished", [tiny_student], indirect=True, ids=["tiny_student"])
def test_a_finished_run_goes_on_where_its_plan_is_longer(finished: Run, tmp_path: Path) -> None:
    output = tmp_path / "student.keras"
    finished.distill(output)
    said: list[str] = []
    result = finished.distill(output, epochs=(2, 3), views=4, say=said.append)
    assert [line.partition(",")[0] for line in said] == [f"{STAGES[1]}: epoch 3"]
    # By the longer plan: four fifths of the way, where the shorter one ended at 0.
    rate = result.stages[STAGES[1]].rows[-1]["learning_rate"]
    assert rate == pytest.approx(5e-3 * (1 + math.cos(0.8 * math.pi)) / 2)


@pytest.mark.parametrize("finished", [tiny_student], indirect=True, ids=["tiny_student"])
def test_where_a_stage_goes_on_the_next_begins_anew(finished: Run, tmp_path: Path) -> None:
    output = tmp_path / "student.keras"
    finished.distill(output)
    said: list[str] = []
    finished.distill(output, epochs=(3, 2), say=said.append)
    epochs = [line.partition(",")[0].partition(" (")[0] for line in said if ": epoch " in line]
    assert epochs == [f"{STAGES[0]}: epoch 3"] + [f"{STAGES[1]}: epoch {n}" for n in range(3)]
    former = f"{STAGES[1]}.former-1.npz"
    assert (output.with_suffix(".training") / former).is_file()
    assert sum(former in line for line in said) == 1


def test_a_longer_plan_begins_the_stage_of_people_anew(
    folder: Path, teacher: Encoder, tmp_path: Path
) -> None:
    run = Run(tmp_path / "student.keras", tiny_student, folder, teacher)
    crops = np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    embeddings, begun = [], []
    for epochs in (1, 1, 3):
        said: list[str] = []
        plan = {"sides": (32,), "widths": (0.0625,), "epochs": (epochs,), "steps": 4, "views": 1}
        result = run.distill(run.output, say=said.append, people_epochs=1, **plan)
        embeddings.append(result.encoder.encode(crops))
        begun.append(any(line.startswith("people: epoch 0") for line in said))
    # The same plan is done; of the longer one, what was distilled further is in the file.
    assert begun == [True, False, True]
    np.testing.assert_array_equal(embeddings[0], embeddings[1])
    assert np.abs(embeddings[2] - embeddings[1]).max() > 1e-3


def test_a_photo_that_comes_during_the_training_moves_no_row(
    folder: Path, teacher: Encoder, tmp_path: Path
) -> None:
    people = tmp_path / "people"
    shutil.copytree(folder, people)
    plan = {"sides": (32,), "widths": (0.0625,), "epochs": (1,), "steps": 4, "views": 1}
    contracts = []
    for name in ("alone", "disturbed"):
        run = Run(tmp_path / f"{name}.keras", tiny_student, people, teacher)

        def add(line: str, name: str = name) -> None:
            if name == "disturbed":
                shutil.copy(people / "person_01" / "0.png", people / "person_00" / "00.png")

        contracts.append(run.distill(run.output, say=add, **plan).encoder.contract)
    assert contracts[0] == replace(contracts[1], name="alone")


def test_photos_that_change_while_their_faces_are_cut_out_are_told(
    folder: Path, teacher: Encoder, tmp_path: Path
) -> None:
    people = tmp_path / "people"
    shutil.copytree(folder, people)
    # Told before the second look at the folder.
    (people / "person_00" / "torn.png").write_bytes(b"no photo")
    run = Run(tmp_path / "student.keras", tiny_student, people, teacher)
    with pytest.raises(DatasetError, match=r"run again.* Received: 36 photos .* then 35"):
        run.distill(run.output, say=lambda _: (people / "person_01" / "0.png").unlink(True))


def test_files_of_people_held_out_are_not_trained_on_in_another_folder(
    folder: Path, teacher: Encoder, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in folder.glob("*/*.png"):
        shutil.copy(path, photos / f"{path.parent.name}-{path.name}")
    run = Run(tmp_path / "student.keras", tiny_student, folder, teacher)
    said: list[str] = []
    plan = {"sides": (32,), "widths": (0.0625,), "epochs": (1,), "steps": 1, "views": 1}
    result = run.distill(run.output, say=said.append, data=(folder, photos), **plan)
    # Of 12 people with 3 photos, 2 are chosen by and 2 reported on.
    assert "12 photos are also among those held out: not trained on" in said
    assert f"{folder.name} (24), photos (24)" in result.encoder.contract.trained_on


def test_hours_end_a_training_whatever_its_epochs(
    folder: Path, teacher: Encoder, tmp_path: Path
) -> None:
    run = Run(tmp_path / "student.keras", tiny_student, folder, teacher)
    result = run.distill(run.output, hours=4e-4, epochs=(1, 3))
    first, second = result.stages.values()
    assert first.finished and second.finished
    assert second.hours >= 3e-4
    # The cosine goes on from stage to stage, and ends at 0.
    rates = [row["learning_rate"] for row in second.rows]
    assert rates[0] < 5e-3
    assert rates[-1] == min(rates)


def test_a_student_is_no_longer_than_its_teachers(
    folder: Path, teacher: Encoder, tmp_path: Path
) -> None:
    run = Run(tmp_path / "student.keras", tiny_student, folder, teacher)
    with pytest.raises(InputError, match=r"8 numbers together.*Received: 9"):
        run.distill(run.output, embedding_size=9)


@pytest.mark.parametrize("changes", [{"weights": {"*": 0.0}}, {"screen": (-1.0, -1.0)}])
def test_nothing_left_to_train_on_is_told(
    folder: Path, teacher: Encoder, tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = Run(tmp_path / "student.keras", tiny_student, folder, teacher)
    with pytest.raises(DatasetError, match=f"no photo is left.*Received: .*{next(iter(changes))}"):
        run.distill(run.output, **changes)


def test_damaged_answers_about_photos_are_told(
    folder: Path, teacher: Encoder, tmp_path: Path
) -> None:
    run = Run(tmp_path / "student.keras", tiny_student, folder, teacher)
    with pytest.raises(DatasetError, match="no photo is left"):
        run.distill(run.output, screen=(-1.0, -1.0))
    (path,) = run.run_folder.glob("photos-*.npy")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelFileError, match=f"{path} is damaged; delete"):
        run.distill(run.output, screen=(-1.0, -1.0))


def test_several_folders_and_teachers_teach_a_shorter_embedding(
    folder: Path, teacher: Encoder, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted(folder.glob("*/0.png"))[:6]):
        shutil.copy(path, photos / f"{number}.png")
    more = draw_people(tmp_path / "more", people=3, photos=2, side=48, seed=3, prefix="other")
    shutil.copy(photos / "0.png", more / "loose.png")
    output = tmp_path / "student.keras"
    config = DistillConfig(
        (folder, photos, more),
        output,
        sides=(32,),
        widths=(0.0625,),
        epochs=(1,),
        steps=2,
        views=1,
        batch_size=8,
        embedding_size=5,
        weights={"photos/*": 2.0, "more/other_00/*": 0.0, "nowhere/*": 3.0},
        people_epochs=1,
        crop="dlib_chip",
        margin=0.2,
        # A photo is its own double: those of the second folder are all left out.
        screen=(0.9999, 0.9999),
    )
    said: list[str] = []
    result = distill_student(
        config,
        [teacher, teacher],
        WholePhotoDetector(),
        student=tiny_student,
        progress=False,
        say=said.append,
    )
    assert result.encoder.embedding_size == 5
    assert result.encoder.contract.crop == CropRecipe("dlib_chip", 32, 32, margin=0.2)
    assert "no photo is called 'nowhere/*', a pattern of the weights" in said
    (told,) = (line for line in said if "left out" in line)
    assert told.startswith(f"1 left out, such as {more / 'loose.png'}: beside the people's folders")
    trained_on = result.encoder.contract.trained_on
    assert "photos (0), more (4)" in trained_on, trained_on
    assert "drawn and drawn" in trained_on


def test_crops_of_another_detector_make_other_views(
    folder: Path, teacher: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    made: set[object] = set()

    def stop(*arguments: object, **options: object) -> None:
        made.add(arguments[4])
        raise Stop

    monkeypatch.setattr("face_encode.training.distillation.make_views", stop)
    config = DistillConfig((folder,), tmp_path / "student.keras")
    for name in ("whole_photo", "another", "whole_photo"):
        with pytest.raises(Stop):
            distill_student(
                config, [teacher], WholePhotoDetector(name), student=tiny_student, progress=False
            )
    assert len(made) == 2


def test_an_earlier_student_is_solved_for_other_teachers(folder: Path, tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((48, 48, 3)), *layers, keras.layers.Dense(8)])
    # It tells people apart by their mean colour, mirrored or not.
    teacher = Encoder(model, EncoderContract("colour", CropRecipe("box", 48, 48), threshold=0.5))
    # Students that have learnt nothing, with features that tell colours apart all the same.
    for size in (8, 6):
        student = resize_input(tiny_student(32, size, normalized=False), 32, 32)
        student.save(tmp_path / f"earlier{size}.keras")
    photos = np.stack([read_image(path) for path in sorted(folder.glob("*/*.png"))])
    answers = unit_length(teacher.encode(photos))
    missed = {}
    for size, new in ((8, False), (8, True), (6, False)):
        output = tmp_path / f"{size}-{new}.keras"
        result = Run(output, tiny_student, folder, teacher).distill(
            output,
            begin=tmp_path / f"earlier{size}.keras",
            new_teachers=new,
            sides=(48,),
            widths=(0.0625,),
            epochs=(1,),
            steps=1,
            # Of few views the last layer would be learnt by heart.
            views=20,
            mixup=0.0,
            learning_rate=1e-9,
        )
        missed[size, new] = np.square(result.encoder.encode(photos) - answers).mean()
    # Of another length the last layer is solved in any case.
    assert missed[8, True] < 0.85 * missed[8, False], missed
    assert missed[6, False] < 0.85 * missed[8, False], missed


def test_a_wider_student_continues_from_a_finished_one(finished: Run, tmp_path: Path) -> None:
    output = tmp_path / "wider.keras"
    result = finished.distill(
        output,
        begin=finished.run_folder / "student.keras",
        widths=(0.125,),
        sides=(48,),
        epochs=(1,),
    )
    assert load_encoder(output).model.get_layer("block1_conv1").filters == 8
    last_score = column(finished.run_folder / f"{STAGES[1]}.csv", "score")[-1]
    # Before the first step it tells people apart exactly as the one that it came from.
    assert result.stages["1-48px-0.125"].rows[0]["score"] == pytest.approx(last_score, abs=1e-6)


def draw(people: int, photos: int, seed: int) -> tuple[ImageArray, np.ndarray]:
    """People are a colour under much light; what tells them apart is the hue."""
    random = np.random.default_rng(seed)
    colours = random.uniform(60, 200, (people, 1, 1, 1, 3))
    light = random.normal(0, 60, (people, photos, 1, 1, 1))
    crops = colours + light + random.normal(0, 6, (people, photos, 8, 8, 3))
    numbers = np.repeat(np.arange(people), photos)
    return crops.reshape(-1, 8, 8, 3).clip(0, 255).astype(np.uint8), numbers


def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dense(8),
        ]
    )


def stage(
    folder: Path, judge: Callable[[keras.Model], float], epochs: int = 4
) -> tuple[keras.Model, Progress]:
    crops, people = draw(30, 4, 0)
    model = network()
    config = DistillConfig(
        (folder,), folder / "student.keras", people_epochs=epochs, people_learning_rate=0.01
    )
    progress = train_on_people(
        config,
        model,
        crops,
        people,
        lambda: {"score": judge(model), "standard_error": 0.01},
        run_key="key",
    )
    return model, progress


def test_it_tells_other_people_apart_better(tmp_path: Path) -> None:
    crops, people = draw(20, 4, 9)
    pairs = PairSet.among(people)

    def judge(model: keras.Model) -> float:
        return measure(model.predict(crops, verbose=0), pairs).accuracy

    model, progress = stage(tmp_path, judge)
    scores = [row["score"] for row in progress.rows]
    assert progress.best_epoch > 0
    assert max(scores) > scores[0] + 0.05, scores
    assert judge(model) == pytest.approx(max(scores))


def test_what_does_not_help_is_not_kept(tmp_path: Path) -> None:
    given = iter([0.8, 0.8, 0.805, 0.7])
    model, progress = stage(tmp_path, lambda _: next(given), epochs=2)
    assert progress.best_epoch == 0
    for kept, untouched in zip(model.get_weights(), network().get_weights(), strict=True):
        np.testing.assert_array_equal(kept, untouched)


ADAPTER = StudentAdapter(
    contract=EncoderContract("student", CropRecipe("dlib_chip", 40, 40, margin=0.0), threshold=0.5),
    projection=np.eye(3),
    mean=np.array([1.0, -2.0, 0.5], np.float32),
    scale=0.25,
)


def test_finishing_undoes_the_centring_and_folds_the_normalisation() -> None:
    keras.utils.set_random_seed(0)
    student = build_student(0.0625, False, 32, 3)
    # Moving averages other than those of the beginning, so that folding has something to do.
    for layer in student.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([weight + 0.3 for weight in layer.get_weights()])
    crops = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    learnt = keras.ops.convert_to_numpy(student(crops.astype(np.float32), training=False))
    encoder = ADAPTER.finish(student)
    assert encoder.contract.crop == replace(ADAPTER.contract.crop, height=32, width=32)
    np.testing.assert_allclose(ADAPTER.targets(encoder.encode(crops)), learnt, rtol=1e-3, atol=1e-3)
    kinds = [type(layer).__name__ for layer in encoder.model.layers]
    assert kinds.count("BatchNormalization") == 3


def test_mixed_precision_is_the_students_alone() -> None:
    student = build_student(0.0625, True, 32, 3)
    assert student.get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert student.get_layer("embedding").compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_an_earlier_student_is_opened_and_widened(tmp_path: Path) -> None:
    path = tmp_path / "student.keras"
    student = build_student(0.0625, False, 32, 3)
    student.save(path)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
    answers = keras.ops.convert_to_numpy(student(pixels))
    for width in (0.0625, 0.125):
        again = open_student(path, width)
        assert again.get_layer("block1_conv1").filters == 64 * width
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(again(pixels)), answers, rtol=1e-3, atol=1e-4
        )


def test_a_student_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.keras"
    build_student(0.125, False, 32, 3).save(path)
    for width, factor in ((0.1875, "1.5"), (0.0625, "0.5")):
        with pytest.raises(InputError, match=f"Received: {factor} times"):
            open_student(path, width)
    with pytest.raises(ModelFileError, match="cannot load"):
        open_student(tmp_path / "none.keras", 0.125)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    with pytest.raises(InputError, match="without any"):
        open_student(path, 0.125)


def test_checkpoints_lie_beside_the_output(tmp_path: Path) -> None:
    config = DistillConfig((tmp_path,), tmp_path / "student.keras")
    assert config.run_folder == tmp_path / "student.training"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sides": (32,)}, InputError),
        ({"optimizer": "sgd"}, InputError),
        ({"sides": (64, 48, 32)}, InputError),
        ({"widths": (0.5, 0.25, 0.5)}, InputError),
        ({"epochs": (1, 1, 0)}, InputError),
        ({"views": 0}, InputError),
        ({"hours": 0.0}, InputError),
        ({"screen": (0.9,)}, InputError),
        ({"test": 0.0}, InputError),
        ({"validation": 0.0}, InputError),
        ({"weights": {"*": -1.0}}, InputError),
        ({"data": ()}, InputError),
        ({"mixup": 1.5}, InputError),
        ({"batch_size": 0}, InputError),
        ({"learning_rate": float("nan")}, InputError),
        ({"screen": (0.9, -2.0)}, InputError),
        ({"seed": -1}, InputError),
        ({"sides": (8, 48, 64)}, InputError),
        ({"weights": {"*": float("nan")}}, InputError),
        ({"output": Path("student.h5")}, ModelFileError),
    ],
)
def test_settings_out_of_range_are_refused(
    tmp_path: Path, changes: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error, match="Received"):
        DistillConfig(
            **{"data": (tmp_path,), "output": tmp_path / "student.keras", **changes}  # type: ignore[arg-type]
        )


SHIPPED = Path(__file__).parents[2] / "weights" / "vgg_embedding.json"


def test_the_shipped_recipe_is_one() -> None:
    recipe = read_recipe(SHIPPED)
    config = DistillConfig((Path("people"),), Path("vgg_embedding.keras"), **recipe.settings)
    assert recipe.teachers == ("mobilefacenet",)
    assert config.sides[-1] >= 32
    assert config.test == 0.2


def test_a_recipe_sets_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(
        json.dumps({"about": "a try", "sides": [32, 40], "margin": 0, "teacher": "one"})
    )
    recipe = read_recipe(path)
    assert (recipe.teachers, recipe.detector) == (("one",), None)
    assert recipe.settings == {"sides": (32, 40), "margin": 0}
    path.write_text(
        json.dumps({"teacher": ["one", "two"], "weights": {"a/*": 2}, "screen": [1, 0.5]})
    )
    recipe = read_recipe(path)
    assert recipe.teachers == ("one", "two")
    assert recipe.settings == {"weights": {"a/*": 2}, "screen": (1, 0.5)}


def test_every_setting_can_be_checked(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    for name in SETTINGS:
        path.write_text(json.dumps({name: {"a": []}}))
        with pytest.raises(InputError, match=rf"'{name}' is .*Received: \{{'a'"):
            read_recipe(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"side": [32]}, "Received: 'side'"),
        ({"sides": [32, "48"]}, "'sides' is tuple"),
        ({"batch_size": True}, "'batch_size' is int"),
        ({"mixed_precision": 1}, "'mixed_precision' is bool"),
        ({"teacher": 3}, "'teacher' is a name"),
        ({"teacher": ["one", 3]}, "'teacher' is a name"),
        ({"weights": {"a": "much"}}, "'weights' is dict"),
        ({"screen": [True, 0.5]}, "'screen' is tuple"),
        ({"data": "elsewhere"}, "Received: 'data'"),
        ([], "one JSON object"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        read_recipe(path)


def test_no_file_and_no_json_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_recipe(tmp_path / "recipe.json")
    (tmp_path / "recipe.json").write_text("sides: 32")
    with pytest.raises(InputError, match="no JSON"):
        read_recipe(tmp_path / "recipe.json")
