"""The learning rate over several stages."""

from __future__ import annotations

import pytest

from face_encode.training.optimizers import OneCosine


def test_it_warms_up_and_falls_to_zero() -> None:
    schedule = OneCosine(0.1, steps=1000)
    rates = [float(schedule(step)) for step in (0, 10, 30, 500, 999)]
    assert rates[0] < rates[1] < rates[2]
    assert rates[2] == pytest.approx(0.1, rel=0.01)
    assert rates[3] == pytest.approx(0.05, rel=0.01)
    assert rates[4] == pytest.approx(0, abs=1e-5)


def test_stages_continue_one_another() -> None:
    whole, second = OneCosine(0.1, steps=100), OneCosine(0.1, steps=100, done=60)
    assert float(second(0)) == pytest.approx(float(whole(60)))
    assert float(second(39)) == pytest.approx(float(whole(99)))
    rebuilt = OneCosine.from_config(second.get_config())
    assert float(rebuilt(7)) == pytest.approx(float(whole(67)))
