"""Milliseconds a face, by the number of faces in a call, by encoder and by engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.scale.contestant import Contestant, MissingContestantError
from benchmarks.scale.results import Skipped
from benchmarks.timing import Times

_MODULE = "benchmarks.scale.encoding_contestants"
# What a turn may take: the repeats at a size of batch are chosen by its first call.
_SECONDS_A_TURN, _MOST = 0.3, 20


def measure_encoding(
    encoders: Sequence[str],
    engines: Sequence[str],
    batches: Sequence[int],
    turns: int,
    skipped: list[Skipped],
) -> dict[str, Any]:
    """Encode crops by each encoder on each engine; the engines of an encoder take turns.

    Args:
        encoders: Names for ``load_encoder``.
        engines: The same.
        batches: Numbers of crops in a call.
        turns: How many turns each engine has at each number.
        skipped: Takes the engines that are not installed, or cannot run an encoder.

    Returns:
        ``"rows"``, one an encoder, engine and number.
    """
    rows = []
    for encoder in encoders:
        with ExitStack() as stack:
            contestants: dict[str, Contestant] = {}
            for engine in engines:
                options = {"encoder": encoder, "engine": engine, "largest": max(batches)}
                try:
                    contestant = Contestant(f"{encoder}, {engine}", _MODULE, "encoding", options)
                except MissingContestantError as error:
                    skipped.append(Skipped("encoding", f"{encoder} on {engine}", str(error)))
                    continue
                contestants[engine] = stack.enter_context(contestant)
            abouts = {engine: each.ask(about=True) for engine, each in contestants.items()}
            for batch in sorted(batches):
                times: dict[str, list[float]] = {engine: [] for engine in contestants}
                repeats = {}
                for engine, contestant in contestants.items():
                    # The first call of a shape may compile for it; of large ones a second would
                    # take longer than it is worth.
                    once = contestant.ask(batch=batch, repeats=1)["seconds"][-1]
                    if once < _SECONDS_A_TURN:
                        once = contestant.ask(batch=batch, repeats=1)["seconds"][-1]
                    repeats[engine] = int(np.clip(_SECONDS_A_TURN / once, 1, _MOST))
                for _ in range(turns):
                    for engine, contestant in contestants.items():
                        asked = contestant.ask(batch=batch, repeats=repeats[engine])
                        times[engine] += asked["seconds"]
                for engine, taken in times.items():
                    milliseconds = asdict(Times.of(taken, 1e3 / batch))
                    rows.append(
                        {
                            "encoder": encoder,
                            "batch": batch,
                            "milliseconds_a_face": milliseconds,
                            **abouts[engine],
                        }
                    )
    return {"rows": rows}
