"""Measure every encoder with every detector and metric, and write benchmarks/ACCURACY.md.

Takes data in LFW's format::

    python -m benchmarks.accuracy --photos LFW_DIR --pairs pairs.txt

Photos are encoded once for each encoder and detector; both metrics judge the same embeddings.
"""

from __future__ import annotations

import argparse
import os
import platform
from datetime import date
from pathlib import Path

HERE = Path(__file__).parent

HEADER = """# Accuracy

Verification on `{pairs}`: {count:,} pairs, {different:,} of them of different people. Of each
photo the largest face nearest the middle is taken. No pair is dropped: the pairs of a photo
without a face count as errors.
{protocol}
Intervals are 95 % bootstrap intervals over people. A true accept rate (TAR) is given where there
are at least ten false accepts to count. Euclidean thresholds are distances with a minus sign, so
that higher is nearer.

| encoder | detector | metric | accuracy | interval | equal error rate | TAR at FAR 1 % | \
TAR at FAR 0.1 % | threshold | faces found | ms per photo |
|---|---|---|---|---|---|---|---|---|---|---|
"""

FOOTER = """
`dlib_resnet` averages the embeddings of a face and its mirror image. Times are wall-clock times,
with reading and detection in one process per core and encoding in batches; measured on
{machine} on {day}.

Made by

```
python -m benchmarks.accuracy --photos {photos} --pairs {pairs}{more}
```
"""


def main() -> None:
    """Measure and write."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from face_encode.detectors.registry import KNOWN_DETECTORS
    from face_encode.encoders.registry import KNOWN_ENCODERS
    from face_encode.evaluation.pairs import read_pairs

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", required=True, help="the folder with a sub-folder a person")
    parser.add_argument("--pairs", required=True, help="pairs in LFW's format, or a CSV")
    present = [name for name, known in KNOWN_ENCODERS.items() if known.is_present]
    parser.add_argument("--encoders", nargs="+", default=present)
    parser.add_argument("--detectors", nargs="+", default=list(KNOWN_DETECTORS))
    parser.add_argument("-o", "--output", type=Path, default=HERE / "ACCURACY.md")
    options = parser.parse_args()
    pairs = read_pairs(options.pairs, options.photos)
    rows = [
        row
        for encoder in options.encoders
        for detector in options.detectors
        for row in measure(encoder, detector, options.photos, options.pairs)
    ]
    protocol = (
        "The threshold is the best single one, chosen on the same pairs, so accuracies are upper "
        "bounds."
        if pairs.folds is None
        else "Each fold is judged by the threshold that is best on the other folds."
    )
    more = "".join(
        f" --{name} {' '.join(given)}"
        for name, given, known in (
            ("encoders", options.encoders, KNOWN_ENCODERS),
            ("detectors", options.detectors, KNOWN_DETECTORS),
        )
        if given != list(known)
    )
    text = HEADER.format(
        pairs=Path(options.pairs).name,
        count=len(pairs),
        different=int((~pairs.same).sum()),
        protocol=protocol,
    )
    text += "".join(f"| {' | '.join(row)} |\n" for row in rows)
    text += FOOTER.format(
        machine=f"a machine with {os.cpu_count()} cores ({platform.machine()})",
        day=date.today().isoformat(),
        photos=Path(options.photos).name,
        pairs=Path(options.pairs).name,
        more=more,
    )
    options.output.write_text(text, encoding="utf-8")
    print(text)


def measure(encoder_name: str, detector_name: str, photos: str, file: str) -> list[list[str]]:
    """The rows of one encoder with one detector, a metric each."""
    from face_encode.detectors.registry import load_detector
    from face_encode.encoders.registry import load_encoder
    from face_encode.evaluation.faces import central_face, embed_faces, similarities
    from face_encode.evaluation.pairs import read_pairs, verification_numbers

    pairs = read_pairs(file, photos)
    encoder, detector = load_encoder(encoder_name), load_detector(detector_name)
    faces = embed_faces(pairs.photos(), detector, encoder, central_face, description=detector_name)
    row_of = {photo: row for row, photo in enumerate(pairs.photos())}
    first, second = (
        faces.embeddings[[row_of[photo] for photo in side]]
        for side in (pairs.photos_a, pairs.photos_b)
    )
    rows = []
    for metric in ("cosine", "euclidean"):
        numbers = verification_numbers(similarities(first, second, metric), pairs)
        interval = numbers.intervals["accuracy"]
        deviation = f" ± {100 * numbers.accuracy_std:.2f} %" if pairs.folds is not None else ""
        rates = [numbers.tar_at_far[rate] for rate in (0.01, 0.001)]
        rows.append(
            [
                encoder_name,
                detector_name,
                metric,
                f"{100 * numbers.accuracy:.2f} %{deviation}",
                f"{100 * interval.lower:.2f} to {100 * interval.upper:.2f} %",
                f"{100 * numbers.eer:.2f} %",
                *("" if rate is None else f"{100 * rate:.2f} %" for rate in rates),
                f"{numbers.threshold:.4f}",
                f"{100 * faces.found.mean():.2f} %",
                f"{1000 * faces.seconds_a_photo:.0f}",
            ]
        )
    return rows


if __name__ == "__main__":
    main()
