"""Measure what int8 costs and saves: accuracy on pairs, the nearest person, bytes.

Takes data in LFW's format, and their embeddings::

    face-encode embed LFW_DIR -o lfw.npz --raw
    python benchmarks/int8.py lfw.npz --photos LFW_DIR --pairs pairs.txt

The same embeddings are judged as float32, as int8 around zero and as int8 around their mean, which
is what the package does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
from PIL import Image

from face_encode.evaluation.faces import central_face, similarities
from face_encode.evaluation.metrics import equal_error_rate, tar_at_far, verification_accuracy
from face_encode.evaluation.pairs import read_pairs
from face_encode.gallery.distances import unit_length
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.quantization import Quantizer
from face_encode.pipeline.embedding_file import read_embeddings
from face_encode.pipeline.embedding_table import EmbeddingTable
from face_encode.types import Embeddings, Face


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("embeddings", help="what `face-encode embed` wrote")
    parser.add_argument("--photos", required=True, help="the folder that was embedded")
    parser.add_argument("--pairs", required=True, help="pairs in LFW's format, or a CSV")
    options = parser.parse_args()
    table = read_embeddings(options.embeddings)
    photos, exact = one_face_a_photo(table, Path(options.photos))
    zero = Quantizer(np.zeros(exact.shape[1], np.float32))
    mean = Quantizer.fitted_to([exact])
    kinds = {
        "float32": unit_length(exact),
        "int8 around zero": zero.dequantize(zero.quantize(exact)),
        "int8 (around the mean)": mean.dequantize(mean.quantize(exact)),
    }
    print(f"{len(photos):,} photos, {exact.shape[1]} numbers each; {table.settings}\n")
    print("| kept as | accuracy | threshold | equal error rate | TAR at FAR 1 % |")
    print("|---|---|---|---|---|")
    pairs = read_pairs(options.pairs, options.photos)
    row_of = {photo: row for row, photo in enumerate(photos)}
    places = [
        [row_of[photo.relative_to(options.photos).as_posix()] for photo in side]
        for side in (pairs.photos_a, pairs.photos_b)
    ]
    for kind, embeddings in kinds.items():
        scores = similarities(embeddings[places[0]], embeddings[places[1]], "cosine")
        best = verification_accuracy(scores, pairs.same)
        print(
            f"| {kind} | {100 * best.accuracy:.2f} % | {best.threshold:.4f} "
            f"| {100 * equal_error_rate(scores, pairs.same):.2f} % "
            f"| {100 * tar_at_far(scores, pairs.same, 0.01):.2f} % |"
        )
    names = np.array([Path(photo).parent.name for photo in photos])
    nearest_people(kinds, names)
    sizes(table, photos, names, exact)


def one_face_a_photo(table: EmbeddingTable, folder: Path) -> tuple[list[str], Embeddings]:
    """Of each photo the face that ``evaluate pairs`` takes: the largest near the middle."""
    starts = np.flatnonzero(np.append(True, table.photos[1:] != table.photos[:-1]))
    rows = []
    for start, end in zip(starts, np.append(starts[1:], len(table)), strict=True):
        with Image.open(folder / str(table.photos[start])) as photo:
            size = photo.size
        faces = [Face(table.box(row), 0.0) for row in range(start, end)]
        rows.append(start + central_face(faces, size))
    return table.photos[rows].tolist(), table.embeddings[rows]


def nearest_people(kinds: dict[str, Embeddings], names: npt.NDArray[np.str_]) -> None:
    """How often the nearest other photo is of the same person as with float32."""
    nearest = {}
    exact = kinds["float32"]
    for kind, embeddings in kinds.items():
        best = np.empty(len(names), np.intp)
        for start in range(0, len(names), 512):
            # The probe is as the encoder gives it; only what is enrolled is quantised.
            block = exact[start : start + 512] @ embeddings.T
            block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
            best[start : start + 512] = block.argmax(axis=1)
        nearest[kind] = names[best]
    right = nearest["float32"] == names
    print("\nEach photo searched for among all others:\n")
    print("| kept as | same person nearest as float32 | where float32 names the right one |")
    print("|---|---|---|")
    for kind, found in nearest.items():
        same = found == nearest["float32"]
        print(f"| {kind} | {100 * same.mean():.2f} % | {100 * same[right].mean():.2f} % |")
    strangers = np.random.default_rng(0).integers(0, len(names), (2, 200_000))
    strangers = strangers[:, names[strangers[0]] != names[strangers[1]]]
    first, second = (exact[rows] for rows in strangers)
    true = np.einsum("nd,nd->n", first, second)
    for kind, embeddings in kinds.items():
        both = np.einsum("nd,nd->n", *(embeddings[rows] for rows in strangers))
        one = np.einsum("nd,nd->n", first, embeddings[strangers[1]])
        print(
            f"error of strangers' similarity, {kind}: {np.std(one - true):.6f} where one of the "
            f"two is quantised, {np.std(both - true):.6f} where both are"
        )


def sizes(
    table: EmbeddingTable, photos: list[str], names: npt.NDArray[np.str_], exact: Embeddings
) -> None:
    """Bytes an embedding, and of a gallery's file."""
    print("\n| kept as | an embedding | the gallery's file | a photo of it |")
    print("|---|---|---|---|")
    identity = SimpleNamespace(name="x", fingerprint="x", embedding_size=exact.shape[1])
    digest_of = dict(zip(table.photos.tolist(), table.digests.tolist(), strict=True))
    for int8 in (False, True):
        gallery = MemoryGallery(identity, int8=int8)
        gallery.add(names.tolist(), exact, [digest_of[photo] for photo in photos])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "people.npz"
            gallery.save(path)
            size = path.stat().st_size
        row = gallery.enrolled.rows.nbytes // len(gallery)
        print(
            f"| {gallery.precision} | {row} bytes | {size / 1e6:.2f} MB "
            f"| {size / len(gallery):.0f} bytes |"
        )


if __name__ == "__main__":
    main()
