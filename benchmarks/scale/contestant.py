"""Contestants: each a process of its own, which does what it is asked and says how long it took.

A process each, because libraries disturb each other: DeepFace switches Keras to its old form for
the whole process, threads of one network wait busily while another's turn is timed, and memory can
only be told apart by process. Parent and child speak JSON, a line each way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

REPOSITORY = Path(__file__).parents[2]

Answer: TypeAlias = dict[str, Any]
Handler: TypeAlias = Callable[[Answer], Answer]
"""What a contestant does with a request: a dict of plain JSON values in, another one out."""


class MissingContestantError(Exception):
    """A contestant cannot take part here: something is not installed, or memory is short."""


class Contestant:
    """A contestant's process, seen from outside.

    Attributes:
        name: What the results call it.
        start_seconds: From the start of the process until it was ready.
        facts: What it said of itself when it was ready.
    """

    def __init__(
        self,
        name: str,
        module: str,
        kind: str,
        options: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, and wait until it is ready.

        Args:
            name: What the results call it.
            module: The module whose ``main`` calls ``answer_requests``.
            kind: Which of that module's contestants.
            options: What it has to know, plain JSON values.
            environment: Variables to set beside those of this process.

        Raises:
            MissingContestantError: It cannot take part here.
            RuntimeError: It ended otherwise.
        """
        self.name = name
        # Closed by ``close``; without a file, a full pipe would stop it.
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})}
        variables["PYTHONPATH"] = str(REPOSITORY)
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, kind, json.dumps(options or {})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=variables,
            text=True,
        )
        try:
            self.facts = self._receive()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start

    @property
    def process_id(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, **request: Any) -> Answer:
        """Have it do something, and wait for the answer.

        Raises:
            MissingContestantError: It cannot, for want of something.
            RuntimeError: It failed.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._receive()

    def close(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _receive(self) -> Answer:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            last = self._log.read().strip().splitlines()[-15:]
            raise RuntimeError(f"{self.name} ended abruptly:\n" + "\n".join(last))
        answer: Answer = json.loads(line)
        if "missing" in answer:
            raise MissingContestantError(answer["missing"])
        return answer


def answer_requests(kinds: Mapping[str, Callable[[Answer], Handler]]) -> None:
    """Be a contestant: what a contestants' module does as a program.

    Args:
        kinds: Kind -> what takes the options, gets ready and gives the handler of requests.
    """
    # Libraries print what they like; it must not get among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: Answer) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    kind, options = sys.argv[1], json.loads(sys.argv[2])
    try:
        handler = kinds[kind](options)
        answer({"ready": kind})
    except (ImportError, MissingContestantError) as error:
        answer({"missing": str(error)})
        return
    for line in sys.stdin:
        try:
            answer(handler(json.loads(line)))
        except (MissingContestantError, MemoryError) as error:
            answer({"missing": str(error) or "memory is short"})
