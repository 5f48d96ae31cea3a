import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

# The examples are scripts and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.face_learning import split_covariance, truncated_svd
from examples.face_model import load_face_model, mirror, whole_from_half
from examples.make_invented_people import DEMO_CAST, DEMO_SEED, Role, Studio, main, write_photo

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "examples" / "face_model.npz"


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.jpg"))}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces to learn from: they are invented, too, so that the test needs nobody's photo."""
    folder = tmp_path_factory.mktemp("photos")
    studio = Studio(load_face_model(MODEL), seed=5)
    for draw in range(5):
        for number in range(2):
            role = Role(f"p{draw}", draw)
            write_photo(folder / role.name / f"{number}.jpg", studio.take_photo(role, number))
    return folder


@pytest.mark.slow
def test_learn_then_make_is_deterministic(photos: Path, tmp_path: Path) -> None:
    models = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for model in models:
        assert main(["learn", str(photos), "-o", str(model)]) == 0
    with np.load(models[0], allow_pickle=False) as a, np.load(models[1]) as b:
        assert all(np.array_equal(a[name], b[name]) for name in a.files)
    made = []
    for folder in (tmp_path / "x", tmp_path / "y"):
        command = ["make", "--model", str(models[0]), "--people", "2", "--photos", "2"]
        assert main([*command, "--seed", "3", "--no-check", str(folder)]) == 0
        made.append(read_all(folder))
    assert made[0] == made[1]
    assert sorted(made[0]) == [f"Person_0{p}/{n}.jpg" for p in (1, 2) for n in (1, 2)]
    assert len(set(made[0].values())) == 4


def test_another_seed_gives_other_people(tmp_path: Path) -> None:
    for seed in ("1", "2"):
        command = ["make", "--people", "1", "--photos", "1", "--no-check", "--seed", seed]
        assert main([*command, str(tmp_path / seed)]) == 0
    assert read_all(tmp_path / "1") != read_all(tmp_path / "2")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["learn", "{tmp}/empty"], "needs at least"),
        (["learn", "{tmp}/missing"], "There is no folder"),
        (["make", "--model", "{tmp}/missing.npz", "{tmp}/out"], "There is no face model"),
        (["make", "--model", "{tmp}/text.npz", "{tmp}/out"], "is not a face model"),
        (["make", "--people", "0", "{tmp}/out"], "at least 1"),
    ],
)
def test_bad_input_is_one_line(
    command: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.npz").write_text("no model")
    assert main([part.format(tmp=tmp_path) for part in command]) == 1
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_shipped_photos_are_what_the_script_draws() -> None:
    # Pixels, and loosely: another build of OpenCV may round and compress differently.
    studio = Studio(load_face_model(MODEL), DEMO_SEED)
    role = DEMO_CAST[0]
    for number, name in ((0, f"verify_dataset/{role.name}/1.jpg"), (4, "examples/ada_mirova.jpg")):
        drawn = cv2.cvtColor(studio.take_photo(role, number), cv2.COLOR_RGB2BGR)
        shipped = np.asarray(cv2.imread(str(ROOT / name)), np.int16)
        assert drawn.shape == shipped.shape
        assert np.abs(drawn - shipped).mean() < 4


def test_demo_ships_every_photo() -> None:
    assert len(list((ROOT / "verify_dataset").glob("*/*.jpg"))) == 4 * len(DEMO_CAST)
    assert len(list((ROOT / "examples").glob("*.jpg"))) == 5


def test_shipped_files_stay_small() -> None:
    assert MODEL.stat().st_size < 6e6
    shipped = [*(ROOT / "verify_dataset").rglob("*.jpg"), *(ROOT / "examples").glob("*.jpg")]
    assert sum(path.stat().st_size for path in shipped) < 2e6


def test_halves_complete_to_even_and_odd() -> None:
    half = np.array([[[1.0, 2.0]]], np.float32)
    assert whole_from_half(half, "even", False).tolist() == [[[1, 2, 2, 1]]]
    assert whole_from_half(half, "odd", False).tolist() == [[[1, 2, -2, -1]]]


def test_mirrored_flow_points_the_other_way() -> None:
    flow = np.array([[[[1.0, 5.0], [2.0, 6.0]]]], np.float32)
    assert mirror(flow, True).tolist() == [[[[-2, 6], [-1, 5]]]]


def test_covariance_splits_as_by_hand() -> None:
    # Two people, two photos each: residuals of ±1 around 0 and 10, so within = 4 / (4 - 2).
    coefficients = np.array([[-1.0], [1.0], [9.0], [11.0]])
    within, between, expected = split_covariance(coefficients, np.array([0, 0, 1, 1]))
    assert within.item() == pytest.approx(2.0)
    assert between.item() == pytest.approx(np.var([-1, 1, 9, 11], ddof=1) - 2)
    assert 0 < expected[1, 0] < 10


def test_truncated_svd_finds_a_low_rank_exactly() -> None:
    generator = np.random.default_rng(0)
    left, right = generator.standard_normal((30, 3)), generator.standard_normal((3, 40))
    matrix = (left @ right).astype(np.float32)
    u, s, v = truncated_svd(matrix, 3, seed=0)
    np.testing.assert_allclose((u * s) @ v, matrix, atol=1e-4)
