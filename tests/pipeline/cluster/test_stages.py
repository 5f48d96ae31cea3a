from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from face_encode.errors import ClusterError, InputError
from face_encode.pipeline.cluster.stages import Actors, _told, _watching


@pytest.mark.parametrize(
    ("actors", "cores", "gpus", "expected"),
    [
        (Actors(), 2, 0, (1, 1)),
        (Actors(), 16, 0, (11, 5)),
        (Actors(finding=3), 16, 0, (3, 5)),
        (Actors(encoding=2), 16, 0, (14, 2)),
        (Actors(gpus_each=1), 64, 4, (60, 4)),
        (Actors(gpus_each=0.5), 64, 4, (56, 8)),
        (Actors(gpus_each=2), 64, 4, (62, 2)),
    ],
)
def test_actors_take_the_cluster_that_there_is(
    actors: Actors, cores: int, gpus: float, expected: tuple[int, int]
) -> None:
    assert actors.settled(cores, gpus) == expected


@pytest.mark.parametrize(
    ("actors", "cores", "gpus", "told"),
    [
        (Actors(), 1, 0, "take a core each. Received: a cluster with 1"),
        (Actors(finding=8, encoding=8), 15, 0, "8 actors that find faces and 8 that encode"),
        (Actors(gpus_each=1), 16, 0, "Received: a cluster with 0 GPUs"),
        (Actors(encoding=3, gpus_each=1), 16, 2, "3 actors of 1 GPUs"),
    ],
)
def test_a_cluster_too_small_is_told_instead_of_waited_for(
    actors: Actors, cores: int, gpus: float, told: str
) -> None:
    with pytest.raises(ClusterError, match=told):
        actors.settled(cores, gpus)


@pytest.mark.parametrize(
    "options",
    [{"finding": 0}, {"encoding": -1}, {"batch_size": 0}, {"gpus_each": -1}, {"gpus_each": 1.5},
     {"gpus_each": float("nan")}, {"gpus_each": float("inf")}],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Actors(**options)


def test_waiting_ends_when_a_node_is_gone_and_not_for_slow_photos() -> None:
    left = {"CPU": 4.0}
    watch = _watching(SimpleNamespace(cluster_resources=lambda: left), 4)
    watch(10_000)
    left["CPU"] = 2.0
    watch(60)
    with pytest.raises(ClusterError, match=r"a node was lost, 2 cores are left of 4.*goes on"):
        watch(130)


def test_an_error_of_ours_on_a_node_is_told_as_it_is() -> None:
    try:
        try:
            raise ClusterError("every node needs the same release")
        except ClusterError as error:
            raise RuntimeError("pages\nof traces") from error
    except RuntimeError as error:
        assert str(_told(error)) == "every node needs the same release"
        assert "of traces. The same command" in str(_told(RuntimeError("pages\nof traces\n")))
