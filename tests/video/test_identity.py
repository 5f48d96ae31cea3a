from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from face_encode.types import Match
from face_encode.video.identity import Identity

THRESHOLD = 0.9


def at(threshold: float, **own: float) -> Callable[[str], float]:
    """The threshold of everybody, but for those who have one of their own."""
    return lambda name: own.get(name, threshold)


def names_after(
    identity: Identity, *sights: tuple[str, float], start: float = 0.0
) -> list[str | None]:
    """Add sights, each nearest to one person alone and together; the name after each."""
    names = []
    for index, (name, similarity) in enumerate(sights):
        identity.add_sight(np.ones(4, np.float32), start + index, 80)
        match = Match(name, similarity)
        identity.judge(match, [match], at(THRESHOLD))
        names.append(identity.name)
    return names


def test_a_name_takes_two_sights_and_unknown_takes_three() -> None:
    assert names_after(Identity(), ("Ada", 0.95), ("Ada", 0.95)) == [None, "Ada"]
    nobody = Identity()
    assert names_after(nobody, ("Ada", 0.8), ("Ada", 0.8)) == [None, None]
    assert not nobody.is_settled
    names_after(nobody, ("Bob", 0.8))
    assert nobody.is_settled
    assert nobody.similarity == 0.8


def test_a_name_stays_while_the_similarity_dips() -> None:
    identity = Identity()
    # The threshold is 0.9; a quarter of the way from it to 1, below it, is 0.875.
    names = names_after(identity, ("Ada", 0.95), ("Ada", 0.95), ("Ada", 0.88), ("Ada", 0.91))
    assert names == [None, "Ada", "Ada", "Ada"]
    assert names_after(identity, ("Ada", 0.87)) == [None]


def test_a_name_stays_while_another_is_nearest_below_the_threshold() -> None:
    identity = Identity()
    names_after(identity, ("Ada", 0.95), ("Ada", 0.95))
    together = [Match("Bob", 0.89), Match("Ada", 0.88)]
    identity.judge(Match("Bob", 0.89), together, at(THRESHOLD))
    assert (identity.name, identity.similarity) == ("Ada", 0.88)


def test_another_person_in_the_place_is_named_after_two_sights() -> None:
    identity = Identity()
    names_after(identity, ("Ada", 0.95), ("Ada", 0.95), ("Ada", 0.95))
    ada = [Match("Ada", 0.93), Match("Bob", 0.91)]
    names = []
    for seconds in (3, 4):
        identity.add_sight(np.array([1, -1, 0, 0], np.float32), seconds, 80)
        identity.judge(Match("Bob", 0.96), ada, at(THRESHOLD))
        names.append(identity.name)
    assert names == ["Ada", "Bob"]
    # What is left are the sights of Bob.
    assert identity.embedding is not None
    assert identity.embedding == pytest.approx(np.array([1, -1, 0, 0]) / np.sqrt(2))


def test_nothing_of_who_was_there_before_counts() -> None:
    identity = Identity()
    one, other = np.eye(2, dtype=np.float32)
    for name, embedding, alive, sights in (("Ada", one, 0.99, 5), ("Bob", other, 0.05, 2)):
        for _ in range(sights):
            identity.add_sight(embedding, 0, 80, alive)
            identity.judge(Match(name, 0.95), [Match("Ada", 0.95)], at(THRESHOLD))
            if name == "Ada":
                identity.add_answers(one)
            # From the first sight on, it is the newest person's.
            assert identity.liveness(THRESHOLD) == pytest.approx(alive)
    assert (identity.name, identity.answers) == ("Bob", None)


def test_the_newest_sight_counts_at_the_highest_threshold() -> None:
    identity = Identity()
    assert identity.liveness(1.0) is None
    identity.add_sight(np.array([0.1, 0.7, 0.3], np.float32), 0, 80, 0.2)
    assert identity.liveness(1.0) == 0.2


def test_the_mean_is_of_unit_length_and_over_the_last_five() -> None:
    identity = Identity()
    assert identity.embedding is None
    identity.add_sight(np.array([0, 7, 0, 0], np.float32), 0, 80)
    for index in range(5):
        mean = identity.add_sight(np.array([5, 0, 0, 0], np.float32), 1 + index, 80)
    assert mean == pytest.approx(np.array([1, 0, 0, 0]))


def test_a_face_is_encoded_a_few_times_only() -> None:
    identity = Identity()
    times = []
    for frame in range(25 * 60):
        if identity.wants_sight(frame / 25, 80):
            identity.add_sight(np.ones(4, np.float32), frame / 25, 80)
            times.append(frame / 25)
    gaps = np.diff(times)
    assert times[:2] == [0, 0.2]
    assert (np.diff(gaps) >= -0.05).all()
    assert 10 <= len(times) <= 16  # in a minute


def test_a_face_that_comes_nearer_is_encoded_before_its_time() -> None:
    identity = Identity()
    for seconds in range(10):
        identity.add_sight(np.ones(4, np.float32), seconds, 50)
    assert not identity.wants_sight(9.5, 60)
    assert identity.wants_sight(9.5, 66)


def test_a_face_not_seen_well_is_retried_at_growing_intervals() -> None:
    identity = Identity()
    tries = []
    for frame in range(25 * 20):
        if identity.wants_sight(frame / 25, 80):
            identity.note_failure(frame / 25, 80)
            tries.append(frame / 25)
    assert len(tries) < 30
    assert np.diff(tries).max() < 1.1


def test_the_same_sights_are_judged_by_other_people() -> None:
    identity = Identity()
    for seconds in (0.0, 1.0):
        identity.add_sight(np.array([1, 0], np.float32), seconds, 50)
        identity.judge(Match("Ada", 0.99), [Match("Ada", 0.99)], at(0.9))
    assert identity.name == "Ada"

    def judged() -> tuple[str | None, float | None]:
        return identity.name, identity.similarity

    identity.judge_again([Match("Countess", 0.99)], at(0.9))
    assert judged() == ("Countess", 0.99)
    identity.judge_again([Match("Bo", 0.4)], at(0.9))
    assert judged() == (None, 0.4)
    identity.judge_again([], at(0.9))
    assert judged() == (None, None)
    assert identity.sights == 2


def test_a_person_may_need_more_than_others_or_less() -> None:
    for own, name in ((0.96, None), (0.95, "Ada"), (0.5, "Ada")):
        identity = Identity()
        for seconds in (0.0, 1.0):
            identity.add_sight(np.ones(4, np.float32), seconds, 80)
            sight = Match("Ada", 0.95)
            identity.judge(sight, [sight, Match("Bo", 0.94)], at(0.9, Ada=own))
        # Bo, who is less like the face, does not get the name in Ada's place.
        assert identity.name == name
    # A name stays down to a quarter of the way from the person's own threshold to 1 below it.
    for similarity, kept in ((0.4, "Ada"), (0.37, None)):
        identity.judge_again([Match("Ada", similarity)], at(0.9, Ada=0.5))
        assert identity.name == kept
