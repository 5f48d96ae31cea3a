"""The file of numbers: one JSON, in which each part of the benchmark has its place."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import available_bytes, describe_machine, load_average
from face_encode.errors import InputError
from face_encode.files import replacing

NUMBERS = "scale.json"
_PACKAGES = (
    "onnxruntime",
    "openvino",
    "faiss-cpu",
    "pymilvus",
    "milvus-lite",
    "deepface",
    "tf_keras",
    "opencv-python",
)


@dataclass(frozen=True)
class Skipped:
    """Something that was not measured.

    Attributes:
        part: Of which part.
        what: What it is.
        why: The reason, in words.
    """

    part: str
    what: str
    why: str


class Results:
    """What was measured, kept in ``scale.json`` after every part.

    Attributes:
        parts: Part -> its rows, the conditions of its measurement, and what was skipped.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder's numbers, or begin with none.

        Raises:
            InputError: The file there holds something else.
        """
        self._path = folder / NUMBERS
        self.parts: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            try:
                self.parts = dict(json.loads(self._path.read_text(encoding="utf-8"))["parts"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self._path} holds no numbers of this benchmark") from error

    @contextmanager
    def measured(self, part: str) -> Iterator[tuple[dict[str, Any], list[Skipped]]]:
        """Measure a part again; its results are stored when it is done.

        Yields:
            What to fill: a dict of plain JSON values, and the list of what was skipped.
        """
        free = available_bytes()
        conditions: dict[str, Any] = {
            **describe_machine(_PACKAGES),
            "free memory at the start, GB": None if free is None else round(free / 1e9, 1),
            "load at the start": load_average(),
        }
        found: dict[str, Any] = {}
        skipped: list[Skipped] = []
        start = time.perf_counter()
        yield found, skipped
        conditions["load at the end"] = load_average()
        conditions["seconds"] = round(time.perf_counter() - start)
        self.parts[part] = {
            "conditions": conditions,
            **found,
            "skipped": [asdict(each) for each in skipped],
        }
        self._save()

    def _save(self) -> None:
        os.makedirs(self._path.parent, exist_ok=True)
        with replacing(self._path, InputError) as temporary:
            text = json.dumps({"parts": self.parts}, indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")
