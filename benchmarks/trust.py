"""Check on people never seen what calibration, hygiene and clustering promise.

Takes a folder with a sub-folder a person, some thousand people such as LFW's::

    python -m benchmarks.trust --photos LFW_DIR [--embeddings CACHE.npz]

Every experiment is repeated on random choices of people; each line gives what was promised and
what came out.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

REPEATS = 10


def main() -> None:
    """Run every experiment."""
    parser = argparse.ArgumentParser(description="Check what the calibration promises.")
    parser.add_argument("--photos", required=True, help="a folder with a sub-folder a person")
    parser.add_argument("--embeddings", type=Path, help="where embeddings are kept between runs")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    embeddings, owner, threshold = load(options.photos, options.embeddings)
    print(f"{len(owner):,} photos of {owner.max() + 1:,} people")
    calibrated_rate(embeddings, owner)
    strangers(embeddings, owner)
    mislabelled(embeddings, owner)
    clusters(embeddings, owner, threshold)


def load(photos: str, cache: Path | None) -> tuple[Array, Array, float]:
    """Embeddings of the largest faces, the number of each one's person, the threshold."""
    from face_encode.detectors.registry import load_detector
    from face_encode.encoders.registry import load_encoder
    from face_encode.evaluation.faces import embed_faces
    from face_encode.photos.folders import people_in

    encoder = load_encoder()
    if cache is not None and cache.is_file():
        with np.load(cache) as archive:
            return archive["embeddings"], archive["owner"], encoder.contract.threshold
    people = people_in(photos)
    rows = [(name, photo) for name, several in people.items() for photo in several]
    faces = embed_faces([photo for _, photo in rows], load_detector(), encoder)
    owner = np.unique([name for name, _ in rows], return_inverse=True)[1][faces.found]
    embeddings = faces.embeddings[faces.found]
    if cache is not None:
        np.savez(cache, embeddings=embeddings, owner=owner)
    return embeddings, owner, encoder.contract.threshold


def calibrated_rate(embeddings: Array, owner: Array, rate: float = 1e-3) -> None:
    """A threshold calibrated on half of the people, judged on the other half."""
    from face_encode.evaluation.calibration import calibrate
    from face_encode.evaluation.faces import checked_units
    from face_encode.evaluation.intervals import percentile_interval

    print(f"\nfalse match rate on the other half of the people, {rate:g} asked for")
    for seed in range(REPEATS):
        random = np.random.default_rng(seed)
        people = random.permutation(owner.max() + 1)
        known = np.isin(owner, people[: len(people) // 2])
        threshold = calibrate(embeddings[known], owner[known], rate).threshold(1)
        units = checked_units(embeddings[~known])
        who = np.unique(owner[~known], return_inverse=True)[1]
        sizes = np.bincount(who)
        hits = np.nonzero(np.triu(units @ units.T >= threshold, 1))
        first, second = (who[side] for side in hits)
        apart = first != second
        first, second = first[apart], second[apart]
        possible = (sizes.sum() ** 2 - (sizes**2).sum()) / 2
        samples = []
        for _ in range(400):
            drawn = np.bincount(random.integers(0, len(sizes), len(sizes)), minlength=len(sizes))
            photos = drawn * sizes
            pairs = (photos.sum() ** 2 - (photos**2).sum()) / 2
            samples.append((drawn[first] * drawn[second]).sum() / pairs)
        ends = percentile_interval(samples)
        verdict = "covers" if rate in ends else "misses"
        print(
            f"  threshold {threshold:.4f}: {len(first) / possible:.5f}, "
            f"interval {ends.lower:.5f} to {ends.upper:.5f} {verdict} it"
        )


def strangers(embeddings: Array, owner: Array, rate: float = 0.01) -> None:
    """Two thousand strangers search a gallery of a thousand people."""
    from face_encode.evaluation.calibration import calibrate
    from face_encode.evaluation.faces import checked_units

    units, sizes = checked_units(embeddings), np.bincount(owner)
    for kind, least in (("any people", 1), ("people with two photos or more", 2)):
        print(f"\nfalse alarms by 2,000 strangers, {rate:g} a search asked for; 1,000 {kind}")
        for seed in range(REPEATS):
            random = np.random.default_rng(seed)
            people = random.permutation(owner.max() + 1)
            enrolled = people[sizes[people] >= least][:1000]
            others = people[~np.isin(people, enrolled)][:2000]
            photos = {who: random.permutation(np.flatnonzero(owner == who)) for who in enrolled}
            # One photo of each is kept back to be searched for, where there are two.
            probes = np.array([rows[0] for rows in photos.values() if len(rows) > 1])
            gallery = np.concatenate([rows[len(rows) > 1 :] for rows in photos.values()])
            unknown = np.array([random.choice(np.flatnonzero(owner == who)) for who in others])
            learnt = calibrate(embeddings[gallery], owner[gallery], rate)
            threshold = learnt.threshold(len(gallery))
            alarms = (units[unknown] @ units[gallery].T).max(axis=1) >= threshold
            similar = units[probes] @ units[gallery].T
            right = owner[gallery[similar.argmax(axis=1)]] == owner[probes]
            found = right & (similar.max(axis=1) >= threshold)
            print(
                f"  {len(gallery):,} photos, threshold {threshold:.4f}: {alarms.mean():.2%} alarm; "
                f"of the enrolled {right.mean():.1%} nearest, {found.mean():.1%} named"
            )


def mislabelled(embeddings: Array, owner: Array, planted: int = 10) -> None:
    """Photos put into wrong folders, in a folder of five hundred photos."""
    from face_encode.gallery.mistakes import find_label_problems

    sizes = np.bincount(owner)
    print(f"\n{planted} photos in wrong folders among 500: named (false warnings)")
    for least, most in ((2, 3), (3, 5), (4, 8), (10, 20)):
        for outside in (False, True):
            results = []
            for seed in range(REPEATS):
                random = np.random.default_rng(seed)
                people = random.permutation(np.flatnonzero(sizes >= least))
                rows = np.concatenate(
                    [random.permutation(np.flatnonzero(owner == who))[:most] for who in people]
                )[:500]
                names = owner[rows]
                wrong = random.choice(500, planted, replace=False)
                for place in wrong:
                    if outside:
                        rows[place] = random.choice(np.flatnonzero(~np.isin(owner, names)))
                    else:
                        names[place] = random.choice(names[names != names[place]])
                found = find_label_problems(
                    [str(place) for place in range(500)], names.astype(str), embeddings[rows]
                )
                planted_ones = {str(place) for place in wrong}
                warnings = [set(each.photos) for each in found if each.kind == "mislabelled"]
                right = len(planted_ones & set().union(*warnings))
                false = sum(not warning & planted_ones for warning in warnings)
                results.append(f"{right} ({false})")
            whose = "of strangers" if outside else "of others in it"
            print(f"  {least} to {most} photos a person, {whose}: {', '.join(results)}")


def clusters(embeddings: Array, owner: Array, threshold: float) -> None:
    """A thousand photos of people with two or more, without their names."""
    from face_encode.evaluation.clustering import b_cubed, cluster_faces

    sizes = np.bincount(owner)
    print(f"\n1,000 photos grouped at {threshold:.3f}: B-cubed precision, recall, F")
    for kind in ("all photos of random people", "random photos"):
        for seed in range(REPEATS):
            random = np.random.default_rng(seed)
            if kind == "random photos":
                rows = random.permutation(np.flatnonzero(sizes[owner] > 1))[:1000]
            else:
                people = random.permutation(np.flatnonzero(sizes > 1))
                rows = np.concatenate([np.flatnonzero(owner == who) for who in people])[:1000]
            result = b_cubed(owner[rows], cluster_faces(embeddings[rows], threshold))
            print(
                f"  {kind}, {len(np.unique(owner[rows]))} people: {result.precision:.3f}, "
                f"{result.recall:.3f}, {result.f:.3f}"
            )


if __name__ == "__main__":
    main()
