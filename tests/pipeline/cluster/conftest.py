"""A cluster of two nodes, an object store, and photos for both, all on this machine."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import EXAMPLES, REPOSITORY, VERIFY_DATASET


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Invented people, a group, a photo that is cut off, one of nobody, and what is none."""
    folder = tmp_path_factory.mktemp("photos")
    for person in sorted(VERIFY_DATASET.iterdir())[:3]:
        shutil.copytree(person, folder / person.name)
    # It lacks its end, of which a note tells.
    (folder / "group.jpg").write_bytes((EXAMPLES / "group.jpg").read_bytes()[:-150])
    (folder / "cut off.jpg").write_bytes((EXAMPLES / "group.jpg").read_bytes()[:900])
    (folder / "empty.jpg").touch()
    Image.fromarray(np.full((120, 120, 3), 200, np.uint8)).save(folder / "wall.png")
    (folder / "notes.txt").write_text("no photo")
    (folder / ".hidden").mkdir()
    shutil.copy(EXAMPLES / "group.jpg", folder / ".hidden" / "seen.jpg")
    return folder


@pytest.fixture(scope="module")
def cluster(cache_folder: Path) -> Iterator[Any]:
    """Two nodes of two cores each, which need not be there: Ray takes our word."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }
    former = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    node = {"num_cpus": 2, "num_gpus": 0, "object_store_memory": 100 * 2**20}

    def two_nodes() -> Any:
        nodes = Cluster()
        try:
            nodes.add_node(**node, include_dashboard=False)
            nodes.add_node(**node)
        # Ray gives a node half a minute to start, and raises a bare exception.
        except Exception:
            nodes.shutdown()
            raise
        return nodes

    for attempts_left in (2, 1, 0):
        try:
            nodes = two_nodes()
            break
        except Exception:
            if not attempts_left:
                raise
    ray.init(address=nodes.address, log_to_driver=False, logging_level=logging.ERROR)
    yield nodes
    ray.shutdown()
    nodes.shutdown()
    for name, value in former.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
