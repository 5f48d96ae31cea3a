"""How often the faster ways of searching name the same person as the exact one, and how fast."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.scale.contestant import Contestant, MissingContestantError
from benchmarks.scale.results import Skipped
from benchmarks.scale.search import SEARCH_KINDS, SearchKind, is_too_large
from benchmarks.timing import Times
from face_encode.errors import InputError

_MODULE = "benchmarks.scale.search_contestants"
EXACT = "float32"
# Others do not search by cosine, and name others for that.
COMPARED = ("float32", "indexed", "int8", "approximate")
_FEWEST = 4
# Probes that are timed: turns, and probes in a row within a turn.
_TURNS, _A_TURN = 8, 32


def measure_recall(
    gallery: Path,
    sizes: Sequence[int],
    kinds: Sequence[str],
    skipped: list[Skipped],
    most: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Search with real embeddings, exactly and faster, and compare who is named and how fast.

    Every other photo of the gallery is enrolled, the rest are looked up. Where more are to be
    enrolled than there are, people are drawn from the normal distribution with the mean and the
    covariance of those enrolled.

    Args:
        gallery: An ``.npz`` gallery in float32, filled by the default encoder.
        sizes: How many are enrolled, drawn ones included; 0 for the real ones alone.
        kinds: Of ``SEARCH_KINDS``.
        skipped: Takes what cannot be measured here.
        most: See ``measure_search``.

    Returns:
        ``"rows"``, one a way and size: the share of probes for which the same person is named as
        by the exact search, of all and of those whose person is enrolled; and the time of a
        search, one probe after the other, the ways in turns.

    Raises:
        InputError: The gallery is too small, or not in float32.
    """
    from face_encode import load_encoder, open_gallery

    enrolled = open_gallery(gallery, encoder=load_encoder())
    names, embeddings = enrolled.names, enrolled.embeddings
    if enrolled.precision != "float32" or len(names) < _FEWEST:
        raise InputError(
            f"recall takes a float32 gallery of {_FEWEST} photos or more. "
            f"Received: {enrolled.precision}, {len(names)} photos"
        )
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        real, probes = Path(folder, "real.npz"), Path(folder, "probes.npy")
        np.savez(real, names=names[::2], embeddings=embeddings[::2])
        # In no order: the photos of one person are no easier or harder than the average.
        order = np.random.default_rng(0).permutation(len(names[1::2]))
        np.save(probes, embeddings[1::2][order])
        truth = names[1::2][order]
        is_known = np.isin(truth, names[::2])
        for size in sizes:
            options = {
                "faces": size,
                "real": str(real),
                "folder": folder,
                "dimensions": embeddings.shape[1],
            }
            allowed = [
                each
                for each in SEARCH_KINDS
                if each.kind in COMPARED
                and each.kind in (EXACT, *kinds)
                and not is_too_large(each, size, most or {}, "recall", skipped)
            ]
            found, times = _searched(allowed, options, probes, skipped)
            if EXACT not in found:
                continue
            for kind, named in found.items():
                same = named == found[EXACT]
                rows.append(
                    {
                        "kind": kind,
                        "faces": max(size, len(names[::2])),
                        "real_faces": len(names[::2]),
                        "probes": len(same),
                        "same_person_share": float(same.mean()),
                        "probes_of_enrolled": int(is_known.sum()),
                        "same_person_share_of_enrolled": _share(same[is_known]),
                        "right_person_share_of_enrolled": _share((named == truth)[is_known]),
                        "milliseconds": asdict(Times.of(times[kind], 1e3)),
                    }
                )
    return {"rows": rows}


def _searched(
    kinds: Sequence[SearchKind],
    options: dict[str, Any],
    probes: Path,
    skipped: list[Skipped],
) -> tuple[dict[str, npt.NDArray[np.str_]], dict[str, list[float]]]:
    """Whom each way names for all probes, and the seconds that it takes for some, one by one."""
    found: dict[str, npt.NDArray[np.str_]] = {}
    times: dict[str, list[float]] = {}
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for each in kinds:
            try:
                contestant = Contestant(each.label, _MODULE, each.kind, options)
            except MissingContestantError as error:
                what = f"{each.label}, {options['faces']:,} faces"
                skipped.append(Skipped("recall", what, str(error)))
                continue
            contestants[each.kind] = stack.enter_context(contestant)
            found[each.kind] = np.array(contestant.ask(probes=str(probes))["names"])
            times[each.kind] = []
        for turn in range(_TURNS):
            for kind, contestant in contestants.items():
                # The same probes for all, or one way might have the easier ones.
                asked = {"probes": str(probes), "start": turn * _A_TURN, "repeats": _A_TURN}
                times[kind] += contestant.ask(**asked)["seconds"]
    return found, times


def _share(flags: Any) -> float | None:
    return float(flags.mean()) if len(flags) else None
