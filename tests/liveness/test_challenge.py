"""The challenge beside heads and photos that are turned in space, and seen by a camera."""

from __future__ import annotations

import random

import numpy as np
import numpy.typing as npt
import pytest

from face_encode.liveness.challenge import MIN_SHIFT, SECONDS_TO_TURN, Challenge, nose_shift

FloatArray = npt.NDArray[np.float64]

# Right, down and away from the camera, in distances of the eyes: eyes, tip of the nose, corners of
# the mouth, of a head between 60 and 70 mm of that distance.
HEAD = np.array(
    [(-0.5, 0, 0), (0.5, 0, 0), (0, 0.6, -0.5), (-0.4, 1.05, -0.05), (0.4, 1.05, -0.05)]
)
# The same as a photo shows it: flat, and printed from half aside, where the nose lies aside.
PHOTO = HEAD * (1, 1, 0)
ASIDE = PHOTO + np.array([(0, 0, 0), (0, 0, 0), (0.3, 0, 0), (0, 0, 0), (0, 0, 0)])


def seen(
    points: FloatArray, yaw: float = 0, pitch: float = 0, roll: float = 0, away: float = 8
) -> FloatArray:
    """The points as a camera at a distance sees them, turned by degrees, in pixels.

    A positive yaw turns the face to the right of the picture.
    """
    about_y, about_x, about_z = np.radians((-yaw, pitch, roll))
    cos, sin = np.cos, np.sin
    turn = (
        np.array([(cos(about_z), -sin(about_z), 0), (sin(about_z), cos(about_z), 0), (0, 0, 1)])
        @ np.array([(1, 0, 0), (0, cos(about_x), -sin(about_x)), (0, sin(about_x), cos(about_x))])
        @ np.array([(cos(about_y), 0, sin(about_y)), (0, 1, 0), (-sin(about_y), 0, cos(about_y))])
    )
    turned = points @ turn.T + (0.3, -0.2, away)
    return np.asarray(640 * turned[:, :2] / turned[:, 2:] + (320, 240))


@pytest.mark.parametrize("yaw", [-40, -25, 25, 40])
def test_the_nose_of_a_head_moves_to_the_side_that_it_turns_to(yaw: float) -> None:
    shift = nose_shift(seen(HEAD), seen(HEAD, yaw, pitch=5, roll=7))
    assert abs(shift) > MIN_SHIFT
    assert np.sign(shift) == np.sign(yaw)


@pytest.mark.parametrize("photo", [PHOTO, ASIDE], ids=["frontal", "aside"])
@pytest.mark.parametrize("yaw", [-60, -30, 0, 30, 60])
@pytest.mark.parametrize("away", [3, 8])
def test_the_nose_of_a_photo_stays_however_it_is_turned(
    photo: FloatArray, yaw: float, away: float
) -> None:
    for pitch, roll in ((0, 0), (25, 0), (-25, 20), (10, -40)):
        after = seen(photo, yaw, pitch, roll, away)
        assert abs(nose_shift(seen(photo), after)) < 1e-3


def test_points_that_span_no_plane_tell_nothing() -> None:
    assert np.isnan(nose_shift(seen(HEAD), np.zeros((5, 2))))
    assert np.isnan(nose_shift(np.array([(x, 2 * x) for x in range(5)]), seen(HEAD)))


def sights(challenge: Challenge, points: FloatArray, yaws: FloatArray, begin: float = 0) -> None:
    """Show a challenge the points at ten sights a second, with the detector's errors."""
    noise = np.random.default_rng(8)
    for number, yaw in enumerate(yaws):
        spots = seen(points, yaw, pitch=3 * np.sin(number))
        # Eyes are about 80 pixels apart; errors of a pixel and a half.
        challenge.see(spots + noise.normal(0, 1.5, spots.shape), begin + number / 10)


def asked_for(side: str) -> Challenge:
    """A challenge that asks for this side."""
    return next(
        challenge
        for challenge in (Challenge(random.Random(seed)) for seed in range(100))
        if challenge.words == f"turn your head {side}"
    )


STILL, TO_RIGHT_OF_PICTURE = np.zeros(10), np.concatenate([np.linspace(0, 35, 20), [35.0] * 10])


@pytest.mark.parametrize(("side", "sign"), [("left", 1), ("right", -1)])
def test_a_head_that_turns_as_asked_meets_the_challenge(side: str, sign: int) -> None:
    challenge = asked_for(side)
    sights(challenge, HEAD, STILL)
    assert not challenge.is_met
    sights(challenge, HEAD, sign * TO_RIGHT_OF_PICTURE, begin=1)
    assert challenge.is_met


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_photo_that_is_turned_does_not(side: str) -> None:
    for seed in range(5):
        challenge = asked_for(side)
        swing = 45 * np.sin(np.linspace(0, 4 * np.pi, 90) + seed)
        sights(challenge, PHOTO, np.concatenate([STILL, swing]))
        assert not challenge.is_met


def test_a_head_that_turns_to_the_other_side_does_not() -> None:
    challenge = asked_for("left")
    sights(challenge, HEAD, np.concatenate([STILL, -TO_RIGHT_OF_PICTURE]))
    assert not challenge.is_met


def test_a_challenge_that_is_not_met_is_drawn_again() -> None:
    challenge, asked = Challenge(random.Random(1)), set()
    for number in range(40):
        sights(challenge, HEAD, STILL, begin=number * (SECONDS_TO_TURN + 1))
        asked.add(challenge.words)
    assert asked == {"turn your head left", "turn your head right"}
    assert not challenge.is_met
