"""How often the faster ways of searching name the same person as the exact one."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale.contestant import Contestant, MissingContestantError
from benchmarks.scale.results import Skipped
from benchmarks.scale.search import SEARCH_KINDS, is_too_large
from face_encode.errors import InputError

_MODULE = "benchmarks.scale.search_contestants"
EXACT = "float32"
# Others do not search by cosine, and name others for that.
COMPARED = ("float32", "indexed", "int8", "approximate")
_FEWEST = 4


def measure_recall(
    gallery: Path,
    sizes: Sequence[int],
    kinds: Sequence[str],
    skipped: list[Skipped],
    most: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Search with real embeddings, exactly and faster, and compare who is named.

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
        by the exact search, of all and of those whose person is enrolled.

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
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        real, probes = Path(folder, "real.npz"), Path(folder, "probes.npy")
        np.savez(real, names=names[::2], embeddings=embeddings[::2])
        np.save(probes, embeddings[1::2])
        is_known = np.isin(names[1::2], names[::2])
        for size in sizes:
            options = {
                "faces": size,
                "real": str(real),
                "folder": folder,
                "dimensions": embeddings.shape[1],
            }
            found: dict[str, Any] = {}
            for each in SEARCH_KINDS:
                if each.kind not in COMPARED or each.kind not in (EXACT, *kinds):
                    continue
                if is_too_large(each, size, most or {}, "recall", skipped):
                    continue
                try:
                    with Contestant(each.label, _MODULE, each.kind, options) as contestant:
                        found[each.kind] = np.array(contestant.ask(probes=str(probes))["names"])
                except MissingContestantError as error:
                    what = f"{each.label}, {size:,} faces"
                    skipped.append(Skipped("recall", what, str(error)))
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
                        "right_person_share_of_enrolled": _share((named == names[1::2])[is_known]),
                    }
                )
    return {"rows": rows}


def _share(flags: Any) -> float | None:
    return float(flags.mean()) if len(flags) else None
