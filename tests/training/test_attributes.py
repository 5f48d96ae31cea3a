from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from face_encode.attributes.answers import ANSWERS, EXPRESSIONS, PARTS, Calibration, probabilities
from face_encode.attributes.network import build_network, load_attributes
from face_encode.cli import main
from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.registry import load_detector
from face_encode.encoders.vgg16 import vgg16_backbone
from face_encode.errors import DatasetError, EmbeddingFileError, InputError
from face_encode.gallery.distances import unit_length
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.reading import content_digest, read_image
from face_encode.pipeline.embedding_file import write_embeddings
from face_encode.pipeline.embedding_table import EmbeddingSettings
from face_encode.training.attribute_data import (
    UNKNOWN,
    LabelledFaces,
    LabelRule,
    read_faces,
    rule_of,
    with_room,
)
from face_encode.training.attribute_measures import calibrate, even_out, measure
from face_encode.training.attributes import (
    AttributesConfig,
    _begin,
    answers_loss,
    middle,
    train_attributes,
)
from face_encode.training.hints import hints_about, read_hints, soften
from face_encode.types import CropRecipe
from tests.conftest import VERIFY_DATASET
from tests.pipeline.drawn import embedded
from tests.training.drawn_people import WholePhotoDetector

CROP = CropRecipe("dlib_chip", 64, 64, 0.2)
RULES: list[dict[str, object]] = [
    {
        "photos": r"faces/(?P<age>\d+)_(?P<gender>[01])_(?P<split>\w)\d+\.png",
        "gender": {"0": "man", "1": "woman"},
        "split": {"t": "train", "v": "validation", "p": "test"},
        "group": "drawn",
        "frame": [0, 0, 1],
    },
    {
        "photos": r"moods/(?P<expression>\w+)/(?P<split>\w)\d+\.png",
        "split": {"t": "train", "v": "validation", "p": "test"},
        "frame": [0, 0, 1],
    },
]


def draw(path: Path, light: float, random: np.random.Generator) -> None:
    """A photo whose light is all that can be learnt from it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(random.normal(light, 25, (12, 12, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).resize((48, 48)).save(path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Dark faces are women of 20, light ones men of 60; dark ones are sad, light ones happy."""
    top, random = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for split, count in (("t", 40), ("v", 16), ("p", 16)):
        for number in range(count):
            light = 60 if number % 2 else 190
            draw(top / f"faces/{20 if number % 2 else 60}_{number % 2}_{split}{number}.png",
                 light, random)  # fmt: skip
            mood = "sad" if number % 2 else "happy"
            draw(top / f"moods/{mood}/{split}{number}.png", light, random)
    (top / "faces/readme.png").write_bytes(b"no rule fits this one")
    return [top / "faces", top / "moods"]


def read(folders: list[Path], rules: list[dict[str, object]] = RULES) -> LabelledFaces:
    chosen = [rule_of(rule) for rule in rules]
    return read_faces(folders, chosen, CROP, WholePhotoDetector(), same_photo=0.96, progress=False)


def test_rules_read_what_photos_show(folders: list[Path]) -> None:
    faces = read(folders)
    assert faces.crops.shape[1:] == (80, 80, 3)
    row = faces.photos.tolist().index("faces/20_1_t1.png")
    assert (faces.ages[row], faces.genders[row], faces.expressions[row]) == (20, 0, UNKNOWN)
    assert (faces.groups[row], faces.splits[row]) == ("drawn", 0)
    row = faces.photos.tolist().index("moods/happy/p0.png")
    assert (faces.ages[row], faces.genders[row]) == (UNKNOWN, UNKNOWN)
    assert (EXPRESSIONS[faces.expressions[row]], faces.splits[row]) == ("happy", 2)


def test_doubles_count_once_and_held_out_ones_are_not_trained_on(
    folders: list[Path], tmp_path: Path
) -> None:
    own = tmp_path / "faces"
    own.mkdir()
    for photo in folders[0].glob("*_p*.png"):
        (own / photo.name).write_bytes(photo.read_bytes())
        # The same photo again, to train on; and another one with two labels.
        (own / photo.name.replace("_p", "_t")).write_bytes(photo.read_bytes())
    twice = (folders[0] / "60_0_t0.png").read_bytes()
    (own / "60_0_t100.png").write_bytes(twice)
    (own / "61_0_t101.png").write_bytes(twice)
    for photo in (*folders[0].glob("*_v*.png"), *folders[0].glob("*_t?.png")):
        if photo.name != "60_0_t0.png":
            (own / photo.name).write_bytes(photo.read_bytes())
    faces = read([own])
    assert (faces.splits == 2).sum() == 16
    assert len(set(faces.digests)) == len(faces)
    assert not {"faces/60_0_t100.png", "faces/61_0_t101.png"} & set(faces.photos.tolist())


def test_without_a_split_the_content_decides(folders: list[Path]) -> None:
    rules = [{key: value for key, value in rule.items() if key != "split"} for rule in RULES]
    rules[0]["photos"] = r"faces/(?P<age>\d+)_(?P<gender>[01])_.*\.png"
    rules[1]["photos"] = r"moods/(?P<expression>\w+)/.*\.png"
    one, other = read(folders, rules), read(folders, rules)
    assert one.splits.tolist() == other.splits.tolist()
    assert 0 < (one.splits == 2).mean() < 0.3


def test_photos_are_cut_as_in_use_and_those_left_out_are_told(tmp_path: Path) -> None:
    """Crops of larger crops were less sharp than those that the network is asked about later."""
    detector = load_detector("dlib")
    photos = {}
    for index, person in enumerate(sorted(VERIFY_DATASET.iterdir())[:4]):
        photo = sorted(person.glob("*.jpg"))[0]
        photos[f"faces/{20 + index}_{'tv'[index % 2]}.jpg"] = photo.read_bytes()
    photos |= {"faces/30_t.jpg": b"no photo", "faces/31.jpg": b"no rule fits this one"}
    (tmp_path / "faces").mkdir()
    for name, content in photos.items():
        (tmp_path / name).write_bytes(content)
    rule = rule_of(
        {
            "photos": r"faces/(?P<age>\d+)_(?P<split>\w)\.jpg",
            "split": {"t": "train", "v": "validation"},
        }
    )
    faces = read_faces([tmp_path / "faces"], [rule], CROP, detector, same_photo=0.99)
    assert sorted(faces.ages) == [20, 21, 22, 23]
    for crop, file in zip(middle(faces.crops, 64), faces.files, strict=True):
        image = read_image(file)
        used = crop_faces(image, detector.detect(image)[:1], CROP)[0]
        assert np.abs(crop.astype(int) - used).mean() < 2
        assert crop.astype(int).std() == pytest.approx(used.std(), rel=0.01)
    (left_out,) = faces.left_out
    assert left_out.photo.endswith("30_t.jpg") and left_out.reason


def test_photos_beside_the_folders_are_told_unless_a_frame_cuts_them_out(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("person/20_t", "person/60_v", "31_t", "framed_40_t"):
        draw(tmp_path / f"faces/{name}.png", 120, random)
    split = {"t": "train", "v": "validation"}
    rules: list[dict[str, object]] = [
        {"photos": r"faces/framed_(?P<age>\d+)_(?P<split>\w)\.png", "frame": [0, 0, 1]},
        {"photos": r"faces/(person/)?(?P<age>\d+)_(?P<split>\w)\.png"},
    ]
    faces = read([tmp_path / "faces"], [rule | {"split": split} for rule in rules])
    assert sorted(faces.ages) == [20, 40, 60]
    (left_out,) = faces.left_out
    assert left_out.photo == str(tmp_path / "faces" / "31_t.png")
    assert left_out.reason.startswith("beside the people's folders")


@pytest.mark.parametrize("frame", [[0, 0, 1], None])
def test_a_folder_is_the_same_by_a_link_and_as_the_current_one(
    frame: list[int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    for name in ("20_t", "60_v"):
        draw(tmp_path / f"faces/{name}.png", 120, random)
    (tmp_path / "link").symlink_to(tmp_path / "faces")
    monkeypatch.chdir(tmp_path / "faces")
    rule: dict[str, object] = {
        "photos": r"faces/(?P<age>\d+)_(?P<split>\w)\.png",
        "split": {"t": "train", "v": "validation"},
    }
    rules = [rule if frame is None else rule | {"frame": frame}]
    for folder in (Path("."), tmp_path / "link"):
        faces = read([folder], rules)
        assert faces.left_out == ()
        assert set(faces.files) == set((tmp_path / "faces").iterdir())


def test_where_no_photo_is_left_the_commonest_reason_is_told(tmp_path: Path) -> None:
    for number, content in enumerate([b"", b"no photo", b"no photo either"]):
        path = tmp_path / f"faces/{number}_1_t{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    message = "0 and 0; 3 are left out, 2 of them: not a photo in a known format$"
    with pytest.raises(DatasetError, match=message):
        read([tmp_path / "faces"])


def test_targets_are_distributions(folders: list[Path]) -> None:
    faces = read(folders)
    targets = faces.targets(0.1)
    aged = faces.ages != UNKNOWN
    sums = {name: targets[:, part].sum(axis=1) for name, part in PARTS.items()}
    np.testing.assert_allclose(sums["age"], aged, atol=1e-6)
    np.testing.assert_allclose(sums["gender"], aged, atol=1e-6)
    np.testing.assert_allclose(sums["expression"], ~aged, atol=1e-6)
    assert targets[aged][:, PARTS["age"]].argmax(axis=1).tolist() == faces.ages[aged].tolist()
    assert targets[:, PARTS["gender"]].max() == pytest.approx(0.975)


def test_the_loss_of_unknown_labels_is_nothing() -> None:
    targets = np.zeros((3, ANSWERS), np.float32)
    targets[1, PARTS["gender"].start] = 1
    targets[2, 30] = 1
    logits = np.zeros((3, ANSWERS), np.float32)
    # ln 2 for a gender at even odds; ln 101 halved, and a twentieth of 50 - 30 years.
    expected = [0, np.log(2), 0.5 * np.log(101) + 0.05 * 20]
    assert np.asarray(answers_loss(targets, logits)) == pytest.approx(expected, abs=1e-4)
    # Half of it for a photo mixed with one of which nothing is known.
    assert np.asarray(answers_loss(targets / 2, logits)) == pytest.approx(
        np.array(expected) / 2, abs=1e-4
    )


def test_the_room_is_around_the_crop() -> None:
    roomy = with_room(CROP)
    # 64 pixels show 1 + 2 * 0.2 times the face, 80 pixels a quarter more.
    assert roomy.height == 80
    assert roomy.margin == pytest.approx(0.375)
    crops = np.zeros((1, 80, 80, 3), np.uint8)
    crops[0, 8:72, 8:72] = 1
    assert middle(crops, 64).all()


def test_calibration_makes_probabilities_and_intervals_honest() -> None:
    random = np.random.default_rng(0)
    count = 4000
    answers = np.zeros((count, ANSWERS), np.float32)
    ages = random.integers(20, 60, count)
    guessed = ages + random.normal(0, 6, count)
    # A network that is three times as sure of the age as it may be, and twice of the gender.
    answers[:, PARTS["age"]] = -0.5 * ((np.arange(101) - guessed[:, None]) / 6) ** 2 * 3
    chance = random.random(count)
    genders = (random.random(count) < chance).astype(np.int64)
    answers[:, PARTS["gender"].start + 1] = 2 * np.log(chance / (1 - chance))
    nothing = np.zeros(count, np.int64)
    faces = LabelledFaces(
        np.zeros((count, 1, 1, 3), np.uint8),
        ages,
        genders,
        nothing + UNKNOWN,
        nothing,
        np.array([""] * count),
        np.array(["x"] * count),
        (Path(),) * count,
        np.array(["x"] * count),
    )
    calibration = calibrate(answers, faces, 0.9)
    assert calibration.temperatures["gender"] == pytest.approx(2, rel=0.1)
    assert calibration.temperatures["age"] == pytest.approx(3, rel=0.15)
    assert calibration.temperatures["expression"] == 1
    (row, *_) = measure(answers, faces, calibration)
    assert row["age_held"] == pytest.approx(0.9, abs=0.02)
    assert row["sure_right"] == pytest.approx(0.9, abs=0.02)
    assert 0.5 < calibration.gender_bound < 0.9


def test_blocks_are_not_frozen_that_have_yet_to_hear_of_the_detail(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = vgg16_backbone((32, 32, 3), 1 / 16, batch_normalization=True, first_width=1 / 32)
    earlier.save(tmp_path / "earlier.keras")
    recipe, output = tmp_path / "recipe.json", tmp_path / "tiny.keras"
    recipe.write_text(json.dumps({"rules": RULES, "side": 64, "width": 0.0625, "frozen": 2}))
    arguments = ["train", "attributes", *map(str, folders), "--recipe", str(recipe), "--quiet"]
    arguments += ["--begin", str(tmp_path / "earlier.keras"), "-o", str(output)]
    assert main(arguments) == 1
    assert "frozen is at most 1" in capsys.readouterr().err
    assert not output.exists()


def test_rare_expressions_are_expected_as_often_as_they_are_shown(folders: list[Path]) -> None:
    faces, plain = read(folders), Calibration(dict.fromkeys(PARTS, 1.0), 0.5)
    random, part = np.random.default_rng(0), PARTS["expression"]
    shown = np.where(random.random(len(faces)) < 0.2, 2, 4)
    faces = replace(faces, expressions=shown)
    answers = np.zeros((len(faces), ANSWERS), np.float32)
    answers[np.arange(len(faces)), part.start + shown] = 2
    answers[:, part.start + 4] += 1.5  # so that what is shown more often is told too often
    added = even_out(answers, faces, plain)
    told = probabilities(answers + added, "expression", plain)
    before = probabilities(answers, "expression", plain).mean(axis=0)
    often = (np.bincount(shown, minlength=7) + 50 * before) / (len(faces) + 50)
    assert told.mean(axis=0) == pytest.approx(often, abs=0.005)
    assert added[part][2] > 0.5 > added[part][4]
    assert not added[PARTS["age"]].any() and not added[PARTS["gender"]].any()
    unknown = replace(faces, expressions=np.full(len(faces), UNKNOWN))
    assert not even_out(answers, unknown, plain).any()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("faces/.*", "an object with a pattern"),
        ({"age": "3"}, "an object with a pattern"),
        ({"photos": ".*", "race": "x"}, "a rule sets photos, age"),
        ({"photos": ".*", "frame": [0, 0, 0]}, "a frame is left, top and side"),
        ({"photos": ".*", "age": 30}, "age is text, or an object of texts"),
        ({"photos": ".*(?P<age>a)", "age": {"a": 30}}, "age is text, or an object of texts"),
    ],
)
def test_no_rule_is_refused(rule: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rule_of(rule)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (LabelRule("(", {}), "no regular expression"),
        (LabelRule(r"faces/(?P<gender>\d).*", {"gender": {"7": "man"}}), "gender is one of 7"),
    ],
)
def test_a_rule_that_cannot_be_followed_says_so(rule: LabelRule, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rule.read("faces/20_1_t1.png")


def test_crops_of_another_detector_begin_another_run(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    keys: set[object] = set()

    def stop(*arguments: object) -> None:
        keys.add(arguments[4])
        raise Stop

    monkeypatch.setattr("face_encode.training.fitting.Checkpoint", stop)
    rules = tuple(map(rule_of, RULES))
    config = AttributesConfig(tuple(folders), tmp_path / "a.keras", rules, side=64, width=0.0625)
    for detector in (WholePhotoDetector(), WholePhotoDetector("another"), WholePhotoDetector()):
        with pytest.raises(Stop):
            train_attributes(config, detector, progress=False)
    assert len(keys) == 2


def test_the_command_trains_a_network_that_tells_them_apart(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.json"
    settings = {"side": 64, "width": 0.0625, "epochs": 3, "steps": 2, "batch_size": 16}
    recipe.write_text(json.dumps({"rules": RULES, "learning_rate": 0.001, **settings}))
    output = tmp_path / "tiny.keras"
    arguments = ["train", "attributes", *map(str, folders), "--recipe", str(recipe)]
    assert main([*arguments, "-o", str(output), "--quiet"]) == 0
    assert "photos 32" in capsys.readouterr().out
    report = json.loads((output.with_suffix(".training") / "report.json").read_text())
    # The head is fitted on what convolutions of random weights see: light is enough here.
    assert report[0]["gender"] > 0.9 and report[0]["expression"] > 0.9
    assert report[0]["age_error"] < 15
    network = load_attributes(output, "onnx")
    assert network.encoder.contract.trained_on == "faces, moods"
    assert network.encoder.contract.quality_threshold is not None
    # A run that begins with it copies all of its layers.
    again = [*arguments, "-o", str(tmp_path / "again.keras"), "--begin", str(output)]
    assert main([*again, "--epochs", "1"]) == 0
    assert "layers begin as in tiny.keras" in capsys.readouterr().err
    # Frozen blocks stay as they are.
    # Its epochs count, not the recipe's hours.
    recipe.write_text(
        json.dumps({"rules": RULES, "frozen": 2, "seed": 1, **settings, "hours": 99.0})
    )
    assert main([*again, "--overwrite", "--epochs", "3"]) == 0
    first, last = (
        keras.saving.load_model(path, compile=False) for path in (output, tmp_path / "again.keras")
    )
    for name, same in (("block2_conv2", True), ("block3_conv1", False)):
        kernels = [model.get_layer(name).get_weights()[0] for model in (first, last)]
        assert np.array_equal(*kernels) is same


def test_of_a_network_without_detail_none_is_heard_at_first(tmp_path: Path) -> None:
    earlier = vgg16_backbone(
        (32, 32, 3), 1 / 16, batch_normalization=True, pixels="unit", first_width=1 / 32
    )
    earlier.save(tmp_path / "earlier.keras")
    network = build_network(64, 1 / 16)
    assert len(_begin(network, tmp_path / "earlier.keras")) == 20
    halves = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.float32)
    seen, expected = (
        keras.Model(model.input, model.get_layer("block4_pool").output).predict(crops, verbose=0)
        for model, crops in (
            (network, halves.repeat(2, axis=1).repeat(2, axis=2)),
            (earlier, halves),
        )
    )
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    assert expected.any()
    # Of a first block of another width nothing is taken, nor what listens to it.
    wide = vgg16_backbone((32, 32, 3), 1 / 16, batch_normalization=True, pixels="unit")
    wide.save(tmp_path / "wide.keras")
    copied = _begin(network, tmp_path / "wide.keras")
    assert "block2_conv2" in copied
    assert not {"block1_conv1", "block1_conv2", "block2_conv1"} & set(copied)


def test_a_network_is_trained_with_hints_and_mixed_photos(
    folders: list[Path], tmp_path: Path
) -> None:
    photos = sorted(folders[1].rglob("*.png"))
    votes = [[7, 3] if photo.parent.name == "sad" else [3, 7] for photo in photos]
    digests = [content_digest(photo) for photo in photos]
    np.savez(tmp_path / "votes.npz", digests=digests, embeddings=votes)
    recipe, output = tmp_path / "recipe.json", tmp_path / "tiny.keras"
    settings = {"side": 64, "width": 0.0625, "batch_size": 16, "probed": 0, "mixup": 0.2}
    settings |= {"dropout": 0, "learning_rate": 0.003, "steps": 60, "epochs": 3}
    recipe.write_text(json.dumps({"rules": RULES, "expressions": 0.75, **settings}))
    arguments = ["--recipe", str(recipe), "--hints", str(tmp_path / "votes.npz"), "--quiet"]
    train = ["train", "attributes", *map(str, folders), *arguments]
    assert main([*train, "-o", str(output)]) == 0
    tested = read(folders)
    tested = tested.part(tested.rows_of("test"))
    answers = load_attributes(output).encoder.encode(middle(tested.crops, 64))
    known = tested.expressions != UNKNOWN
    told = answers[known][:, PARTS["expression"]].argmax(axis=1)
    assert (told == tested.expressions[known]).mean() > 0.9


def test_hints_say_more_than_wrong_labels() -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, 2, 800)
    labels = np.where(random.random(800) < 0.3, 1 - true, true)
    targets = np.zeros((800, ANSWERS), np.float32)
    part = PARTS["gender"]
    targets[np.arange(800), part.start + labels] = 1
    targets[50:100] = 0
    hints = np.stack([true + random.normal(0, 0.2, 800)], axis=1).astype(np.float32)
    hints[:50] = np.nan
    none = np.full_like(hints, np.nan)
    none[:50] = 1.0
    softened = soften(targets, [hints, hints, none], list(PARTS.values()), answers_loss, 0)
    assert not softened[:, PARTS["age"]].any()
    shown = np.arange(100, 800), part.start + true[100:]
    off, off_before = ((1 - each[shown]) ** 2 for each in (softened, targets))
    assert off.mean() < 0.6 * off_before.mean()
    assert softened[100:, part].sum(axis=1) == pytest.approx(1)
    # Without a label, what the hints say is learnt, at half its weight.
    assert softened[50:100, part].sum(axis=1) == pytest.approx(0.5)
    assert (softened[50:100, part].argmax(axis=1) == true[50:100]).mean() > 0.9
    assert np.array_equal(soften(targets, [], list(PARTS.values()), answers_loss, 0), targets)


def test_hints_are_joined_by_content(tmp_path: Path) -> None:
    numbers = np.array([[1, 3], [3, 5], [9, 9]], np.int8)
    double = numbers[[0, 1, 2, 1]]
    np.savez(tmp_path / "a.npz", digests=["x", "y", "?", "y"], embeddings=double)
    told = read_hints(tmp_path / "a.npz")
    hints = hints_about(["y", "", "x", "z"], told)
    np.testing.assert_allclose(hints[[0, 2]], [[1, 1], [-1, -1]])
    assert np.isnan(hints[[1, 3]]).all()
    with pytest.raises(EmbeddingFileError, match="hints are about photos to train on"):
        hints_about(["", "w"], told)


@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_embeddings_are_hints_rounded_or_not(ending: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    photos = [embedded(f"{name}.jpg", 1, None, name, seed=ord(name)) for name in "abc"]
    vectors = unit_length(np.concatenate([photo.embeddings for photo in photos]))
    quantizer = Quantizer.fitted_to([vectors])
    for rounded, tolerance in ((False, 1e-6), (True, 0.02)):
        file = tmp_path / f"{rounded}.{ending}"
        settings = EmbeddingSettings("one", "f1", vectors.shape[1], "eyes", int8=rounded)
        write_embeddings(file, settings, photos, quantizer if rounded else None)
        told = read_hints(file)
        assert told.digests.tolist() == ["a", "b", "c"]
        np.testing.assert_allclose(told.numbers, vectors, atol=tolerance)


def test_damaged_embeddings_are_no_hints(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", format_version=1, digests=["x"], embeddings=[[1.0]])
    with pytest.raises(EmbeddingFileError, match=r"a\.npz is no file of embeddings"):
        read_hints(tmp_path / "a.npz")
    (tmp_path / "a.csv").write_text("x,1")
    with pytest.raises(EmbeddingFileError, match=r"a\.csv"):
        read_hints(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"digests": ["x"]}, "an .npz file with the arrays digests and embeddings"),
        ({"digests": ["x"], "embeddings": ["a"]}, "an .npz file with the arrays"),
        ({"digests": ["x"], "embeddings": [[1.0], [2.0]]}, "a digest and at least one number"),
        ({"digests": ["x"], "embeddings": [[np.nan]]}, "a digest and at least one number"),
        ({"digests": ["x"], "embeddings": [[]]}, "a digest and at least one number"),
        ({"digests": ["x", "x"], "embeddings": [[1.0], [2.0]]}, "one row a photo, .* that differ"),
    ],
)
def test_what_is_no_file_of_hints_is_refused(
    arrays: dict[str, list[object]], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "hints.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(EmbeddingFileError, match=message):
        read_hints(tmp_path / "hints.npz")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("data", (), "at least one folder"),
        ("expressions", 1.0, r"0\.01\.\.0\.99"),
        ("mixup", 1.5, r"0\.\.1"),
        ("dropout", 7, r"0\.\.0\.99"),
        ("epochs", 0, r"1\.\.1000000000"),
        ("frozen", -3, r"0\.\.4"),
        ("gender_accuracy", 3, r"0\.\.1"),
        ("hours", 0.0, r"1e-09\.\.1000000000"),
        ("learning_rate", -1, r"1e-09\.\.1e\+38"),
        ("learning_rate", float("nan"), r"1e-09\.\.1e\+38"),
        ("probed", -5, r"0\.\.1000000000"),
        ("refused", -1, r"0\.\.1"),
        ("same_photo", -2, r"0\.\.1"),
        ("seed", -1, r"0\.\.4294967295"),
        ("side", 48, r"64\.\.512"),
        ("side", 65, "even and at least 64"),
        ("smoothing", 9, r"0\.\.1"),
        ("weights", {"*": -1.0}, r"0\.\.1000000000"),
        ("width", 0.0, r"0\.03125\.\.8"),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: object, message: str) -> None:
    settings = {"data": (Path("faces"),), setting: value}
    with pytest.raises(InputError, match=rf"{message}\. Received: "):
        AttributesConfig(
            output=Path("x.keras"),
            rules=(LabelRule(".*", {}),),
            **settings,  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("weights", {"faces/*": 0, "moods/*": 0}, "the weights leave no photo to train on"),
        ("same_photo", 0, "every photo to train on looks like one that is held out"),
    ],
)
def test_settings_that_leave_no_photo_are_told(
    folders: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    setting: str,
    value: object,
    message: str,
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"rules": RULES, "side": 64, "width": 0.0625, setting: value}))
    arguments = ["train", "attributes", *map(str, folders), "--recipe", str(recipe)]
    assert main([*arguments, "-o", str(tmp_path / "tiny.keras"), "--quiet"]) == 1
    assert message in capsys.readouterr().err
