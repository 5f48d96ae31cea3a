from __future__ import annotations

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.gallery.distances import unit_length
from face_encode.gallery.quantization import Coded, Quantizer
from face_encode.types import Embeddings
from tests.gallery.common import like_faces


def faces(count: int, seed: int = 0, size: int = 128) -> Embeddings:
    """Embeddings like those of faces: around a large common mean, of any length."""
    random = np.random.default_rng(seed)
    mean = np.random.default_rng(99).normal(size=size)
    rows = mean + 0.5 * random.normal(size=(count, size))
    return np.asarray(rows * random.uniform(0.5, 3, (count, 1)), np.float32)


def test_the_codes_of_a_plane_worked_out_by_hand() -> None:
    quantizer = Quantizer(np.zeros(2, np.float32))
    codes = quantizer.quantize(np.array([(3, 4), (-2, 0), (0, 5)], np.float32))
    # (0.6, 0.8) in units of 0.8 / 127.
    assert codes.tolist() == [[95, 127], [-127, 0], [0, 127]]
    assert codes.dtype == np.int8
    np.testing.assert_allclose(quantizer.steps(codes), [1 / np.hypot(95, 127), 1 / 127, 1 / 127])
    # Around (0.6, 0): (0, 0.8), then (0.4, 0).
    centred = Quantizer(np.array([0.6, 0], np.float32))
    codes = centred.quantize(np.array([(3, 4), (7, 0)], np.float32))
    assert codes.tolist() == [[0, 127], [127, 0]]
    np.testing.assert_allclose(centred.steps(codes), [0.8 / 127, 0.4 / 127], rtol=1e-6)
    np.testing.assert_allclose(centred.dequantize(codes), [(0.6, 0.8), (1, 0)], atol=1e-7)


@pytest.mark.parametrize("centred", [True, False])
def test_similarities_stay_and_a_second_time_nothing_changes(centred: bool) -> None:
    embeddings, probes = faces(500), unit_length(faces(40, seed=1))
    quantizer = (
        Quantizer.fitted_to([embeddings]) if centred else Quantizer(np.zeros(128, np.float32))
    )
    codes = quantizer.quantize(embeddings)
    assert codes.nbytes == 500 * 128
    assert np.abs(codes).max() == 127
    exact = probes @ unit_length(embeddings).T
    kept = quantizer.dequantize(codes)
    np.testing.assert_allclose(np.linalg.norm(kept, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(probes @ kept.T, exact, atol=2e-3)
    found = quantizer.steps(codes) * (probes @ codes.T) + (probes @ quantizer.centre)[:, np.newaxis]
    np.testing.assert_allclose(found, probes @ kept.T, atol=2e-6)
    np.testing.assert_array_equal(quantizer.quantize(kept), codes)


def test_the_mean_as_centre_makes_the_smaller_error() -> None:
    embeddings = faces(500)
    units = unit_length(embeddings)

    def error(quantizer: Quantizer) -> float:
        kept = quantizer.dequantize(quantizer.quantize(embeddings))
        return float((kept @ kept.T - units @ units.T).std())

    assert error(Quantizer.fitted_to([embeddings])) < 0.8 * error(
        Quantizer(np.zeros(128, np.float32))
    )


def test_many_rows_are_done_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = faces(100)
    quantizer = Quantizer.fitted_to([embeddings])
    codes = quantizer.quantize(embeddings)
    steps = quantizer.steps(codes)
    monkeypatch.setattr("face_encode.gallery.quantization._BLOCK", 7)
    np.testing.assert_allclose(
        Quantizer.fitted_to([embeddings]).centre, quantizer.centre, atol=1e-7
    )
    np.testing.assert_array_equal(quantizer.quantize(embeddings), codes)
    np.testing.assert_allclose(quantizer.steps(codes), steps, rtol=1e-6)


def test_a_centre_of_one_embedding_serves_others_too() -> None:
    embeddings = faces(200)
    quantizer = Quantizer.fitted_to([embeddings[:1]])
    kept = quantizer.dequantize(quantizer.quantize(embeddings))
    np.testing.assert_allclose(kept, unit_length(embeddings), atol=5e-3)
    # The embedding on the centre itself.
    np.testing.assert_allclose(kept[0] @ unit_length(embeddings[:1])[0], 1, atol=1e-6)


def test_what_is_no_centre_is_refused() -> None:
    with pytest.raises(InputError, match="length 1 at the most"):
        Quantizer(np.ones(2, np.float32))
    with pytest.raises(InputError, match="length 1 at the most"):
        Quantizer(np.full(2, np.nan, np.float32))
    with pytest.raises(InputError, match=r"shape \(D,\)"):
        Quantizer(np.zeros((1, 2), np.float32))
    with pytest.raises(InputError, match="at least one"):
        Quantizer.fitted_to([np.empty((0, 2), np.float32)])


def test_reach_and_blur_are_the_farthest_of_all() -> None:
    rows = like_faces(70_000, size=8)
    coded = Coded.of(rows, with_blur=True)
    stand_for = coded.quantizer.dequantize(coded.codes).astype(np.float64)
    reach = np.linalg.norm(stand_for - coded.quantizer.centre, axis=1).max()
    np.testing.assert_allclose(coded.reach, reach, rtol=1e-5)
    blur = np.linalg.norm(stand_for - unit_length(rows), axis=1).max()
    assert blur <= coded.blur <= blur + 2e-5


def test_others_join_by_the_same_quantizer_and_rows_can_be_taken() -> None:
    first = Coded.of(like_faces(30))
    second = Coded.of(like_faces(20, seed=1), first.quantizer)
    joined = first.joined(second)
    np.testing.assert_array_equal(joined.codes[30:], second.codes)
    assert joined.reach == max(first.reach, second.reach)
    taken = joined.of_rows(np.arange(50) >= 30)
    np.testing.assert_array_equal(taken.codes, second.codes)
    np.testing.assert_array_equal(taken.steps, second.steps)


def test_around_zero_the_reach_is_one() -> None:
    coded = Coded.of(np.array([(3, 4), (0, -2)], np.float32), Quantizer(np.zeros(2, np.float32)))
    np.testing.assert_allclose(coded.reach, 1, rtol=1e-6)
    assert coded.blur == 0
