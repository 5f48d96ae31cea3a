"""Fit the face model of `face_model.py` to a folder of photos, one sub-folder per person.

The way of a photo: dlib's HOG detector and 5-point landmarks align it; GrabCut (Rother, Kolmogorov
and Blake, 2004) cuts head and hair out; the background is replaced by an extrapolation of the
head's own colours, so that it cannot enter the model; optical flow brings it onto the mean face.
The flow runs between each photo and its own projection on a low-rank model of all photos, not the
mean itself, so that light and skin tone do not pull it (collection flow; Kemelmacher-Shlizerman
and Seitz, 2012).
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.face_model import (
    BAND_DEVIATIONS,
    CHANNEL_STEP,
    EYE_DISTANCE,
    EYE_ROW,
    FRAME_HEIGHT,
    FRAME_WIDTH,
    PARTS,
    FaceModel,
    FaceModelError,
    FloatArray,
    mirror,
    split_bands,
    whole_from_half,
)

ByteArray = NDArray[np.uint8]

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png"}
LARGEST_PHOTO_SIDE = 1000
# Typical place of the nose's base below the eyes, and how far a face may differ, in eye distances.
NOSE_BELOW_EYES, LARGEST_NOSE_SHIFT = 0.77, 0.13
MATTE_CLIP = 16.0
NECK_ROW = 172
COLLECTION_RANKS = (4, 12, 24)
LARGEST_TEETH_SHARE = 0.14
# How much of the difference of a photo's overall tint is taken for the camera's, not the skin's.
TINT_REMOVED = 0.6
CHANNEL_WEIGHT = {"luma": 1.0, "chroma": 0.45, "flow": 0.8, "matte": 0.4}
LARGEST_COMPONENTS = {"even": 130, "odd": 55}
GROUPS, GROUPING_COMPONENTS = 10, 16
FEWEST_PHOTOS = 8

_ROWS, _COLUMNS = np.mgrid[:FRAME_HEIGHT, :FRAME_WIDTH].astype(np.float32)
_BESIDE = np.abs(_COLUMNS - 87.5)


def _ellipse(row: float, half_width: float, half_height: float) -> FloatArray:
    return np.asarray((_BESIDE / half_width) ** 2 + ((_ROWS - row) / half_height) ** 2, np.float32)


_FACE = _ellipse(112, 40, 56) < 1
_SURELY_HEAD = (_ellipse(108, 45, 64) < 1) | ((_ellipse(92, 44, 63) < 1) & (_ROWS < 100))
_PERHAPS_HEAD = _ellipse(98, 58, 82) < 1
_ROOM_FOR_HAIR = (_ellipse(96, 84, 96) < 1) | ((_ROWS > 100) & (_BESIDE < 84))
_FLOW_TRUST = np.clip(1.6 - _ellipse(112, 46, 64), 0, 1).astype(np.float32)
_MODEL_WEIGHT = np.clip(1.25 - 0.5 * _ellipse(100, 62, 84), 0.15, 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class AlignedFaces:
    """Faces in the frame, background replaced.

    Attributes:
        pictures: BGR uint8 (count, FRAME_HEIGHT, FRAME_WIDTH, 3).
        mattes: float32 (count, FRAME_HEIGHT, FRAME_WIDTH), distance from the head's outline.
        people: Name of the folder that each came from.
    """

    pictures: ByteArray
    mattes: FloatArray
    people: list[str]


def dlib_model_path(file_name: str) -> str:
    """Find a file of the package face_recognition_models, without importing the package."""
    package = importlib.util.find_spec("face_recognition_models")
    if package is None or not package.submodule_search_locations:
        raise FaceModelError("The package face_recognition_models is not installed")
    return str(Path(package.submodule_search_locations[0]) / "models" / file_name)


def align_faces(folder: Path, photos_per_person: int) -> AlignedFaces:
    """Align and cut out the frontal faces of a folder; photos without one are left out.

    Raises:
        FaceModelError: The folder is missing, or fewer than `FEWEST_PHOTOS` faces were found.
    """
    import dlib

    if not folder.is_dir():
        raise FaceModelError(f"There is no folder {folder}")
    paths = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in PHOTO_SUFFIXES)
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(dlib_model_path("shape_predictor_5_face_landmarks.dat"))
    counts: Counter[str] = Counter()
    aligned: list[tuple[str, ByteArray]] = []
    for path in paths:
        if counts[path.parent.name] >= photos_per_person:
            continue
        face = align_photo(path, detector, predictor)
        if face is not None:
            counts[path.parent.name] += 1
            aligned.append((path.parent.name, face))
    with ThreadPoolExecutor(2) as threads:
        cuts = threads.map(cut_out, [face for _, face in aligned])
        found = [
            (name, *cut) for (name, _), cut in zip(aligned, cuts, strict=True) if cut is not None
        ]
    if len(found) < FEWEST_PHOTOS:
        raise FaceModelError(
            f"{folder} needs at least {FEWEST_PHOTOS} photos of frontal faces, one sub-folder a "
            f"person. Received: {len(paths)} photos, {len(found)} of them usable"
        )
    # An outline unlike all others is usually GrabCut having taken the background for hair.
    inside = np.array([matte > 0 for _, _, matte in found])[:, :165]
    usual = inside.mean(axis=0)
    overlap = np.array([np.minimum(m, usual).sum() / np.maximum(m, usual).sum() for m in inside])
    keep = np.flatnonzero(overlap >= np.percentile(overlap, 6))
    return AlignedFaces(
        pictures=np.array([found[i][1] for i in keep]),
        mattes=np.array([found[i][2] for i in keep]),
        people=[found[i][0] for i in keep],
    )


def align_photo(path: Path, detector: Any, predictor: Any) -> ByteArray | None:
    """Return the face nearest the middle in the frame (BGR), or None where none is frontal."""
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photo is None:
        return None
    shrink = LARGEST_PHOTO_SIDE / max(photo.shape)
    if shrink < 1:
        photo = cv2.resize(photo, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    boxes, _, turns = detector.run(cv2.cvtColor(photo, cv2.COLOR_BGR2RGB), 0, 0.8)
    middle = np.array(photo.shape[1::-1]) / 2
    distances = [np.hypot(b.center().x - middle[0], b.center().y - middle[1]) for b in boxes]
    if not distances or turns[nearest := int(np.argmin(distances))] != 0:
        return None
    landmarks = predictor(cv2.cvtColor(photo, cv2.COLOR_BGR2RGB), boxes[nearest])
    points = np.array([(landmarks.part(i).x, landmarks.part(i).y) for i in range(5)], float)
    right, left, nose = points[:2].mean(axis=0), points[2:4].mean(axis=0), points[4]
    between = (right + left) / 2
    distance = float(np.hypot(*(right - left)))
    along = (right - left) / max(distance, 1e-6)
    down = np.array([-along[1], along[0]])
    nose_shift, nose_drop = (float((nose - between) @ axis) / distance for axis in (along, down))
    if abs(nose_shift) > LARGEST_NOSE_SHIFT or abs(nose_drop - NOSE_BELOW_EYES) > 0.13:
        return None
    # The eyes of a turned head come closer together, the nose does not come closer to the eyes.
    scale = EYE_DISTANCE / distance * (0.6 + 0.4 * NOSE_BELOW_EYES / nose_drop)
    turn = np.array([along, down]) * scale
    shift = np.array([FRAME_WIDTH / 2 - 0.5, EYE_ROW]) - turn @ between
    matrix, size = np.hstack([turn, shift[:, None]]), (FRAME_WIDTH, FRAME_HEIGHT)
    covered = cv2.warpAffine((photo.max(axis=2) > 6).astype(np.uint8), matrix, size)
    if covered[:150].mean() < 0.85 or covered[_PERHAPS_HEAD].mean() < 0.97:
        return None
    sampling = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    face = np.asarray(cv2.warpAffine(photo, matrix, size, flags=sampling), np.uint8)
    grey = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)
    edges = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 0.8), cv2.CV_32F)
    blurred = edges[_FACE].std() / (grey[_FACE].std() + 5) < 0.105
    return None if blurred or scale > 1.35 or not is_calm(face) else face


def is_calm(face: ByteArray) -> bool:
    """Whether an aligned face is in colour and its mouth closed.

    A linear model has no good answer to teeth and open mouths: it averages them to a blur.
    """
    colours = cv2.cvtColor(face, cv2.COLOR_BGR2YCrCb).astype(np.float32)
    luma, red_excess, _ = np.median(colours[100:128, 60:116].reshape(-1, 3), axis=0)
    mouth = colours[132:160, 68:108]
    teeth = (mouth[..., 1] < red_excess - 5) & (mouth[..., 0] > 0.62 * luma)
    opening = mouth[..., 0] < 0.38 * luma
    share = float(teeth.mean() + opening.mean())
    return bool(red_excess > 133) and share < LARGEST_TEETH_SHARE


def cut_out(face: ByteArray) -> tuple[ByteArray, FloatArray] | None:
    """Cut the head out: (picture without its background, signed distance from the outline)."""
    labels = np.full(face.shape[:2], cv2.GC_PR_BGD, np.uint8)
    labels[_PERHAPS_HEAD | ((_BESIDE < 26) & (_ROWS > 150))] = cv2.GC_PR_FGD
    labels[_SURELY_HEAD] = cv2.GC_FGD
    beside_neck = ((_ROWS > 172) & (_BESIDE > 70)) | ((_ROWS > 198) & (_BESIDE > 40))
    labels[~_ROOM_FOR_HAIR | beside_neck] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    whole = (0, 0, FRAME_WIDTH, FRAME_HEIGHT)  # unused in this mode, but asked for
    try:
        cv2.grabCut(face, labels, whole, np.zeros((1, 65)), np.zeros((1, 65)), 4,
                    cv2.GC_INIT_WITH_MASK)  # fmt: skip
    except cv2.error:  # one colour everywhere: nothing to tell apart
        return None
    marked = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    islands = np.asarray(cv2.connectedComponents(marked)[1])
    head = (islands == islands[112, 87]).astype(np.uint8)
    opened = cv2.morphologyEx(head, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return extrapolate_and_measure(face, np.asarray(closed, np.uint8))


def extrapolate_and_measure(face: ByteArray, inside: ByteArray) -> tuple[ByteArray, FloatArray]:
    """Return (the picture without its background, the signed distance from the outline)."""
    # Collars and shoulders are painted later; the model ends at the neck.
    inside[NECK_ROW:] = 0
    inside[NECK_ROW - 7 :, :40] = inside[NECK_ROW - 7 :, -40:] = 0
    within = np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5), np.float32)
    distance = within - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    matte = np.clip(cv2.GaussianBlur(distance, (0, 0), 1.5), -MATTE_CLIP, MATTE_CLIP)
    return extrapolate(face, inside), np.asarray(matte, np.float32)


def extrapolate(picture: ByteArray, inside: ByteArray) -> ByteArray:
    """Replace what is outside by smooth colours from inside (push-pull; Gortler et al., 1996)."""
    weight = cv2.erode(inside, np.ones((3, 3), np.uint8)).astype(np.float32)
    levels: list[tuple[NDArray[Any], NDArray[Any]]] = [
        (picture.astype(np.float32) * weight[..., None], weight)
    ]
    while min(levels[-1][1].shape) > 3:
        levels.append((cv2.pyrDown(levels[-1][0]), cv2.pyrDown(levels[-1][1])))
    filled: NDArray[Any] = levels[-1][0] / np.maximum(levels[-1][1], 1e-4)[..., None]
    for colours, sureness in reversed(levels[:-1]):
        filled = cv2.pyrUp(filled, dstsize=sureness.shape[::-1])
        known = np.clip(sureness, 0, 1)[..., None]
        own = colours / np.maximum(sureness, 1e-4)[..., None]
        filled = own * known + filled * (1 - known)
    return np.asarray(np.clip(filled, 0, 255), np.uint8)


def register(pictures: ByteArray, report: Callable[[str], None]) -> FloatArray:
    """Find each picture's flow from the mean face, float32 (count, rows, columns, 2), in pixels."""
    greys = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in pictures]
    flows = np.zeros((*pictures.shape[:3], 2), np.float16)
    half = (FRAME_WIDTH // 2, FRAME_HEIGHT // 2)
    for turn, rank in enumerate(COLLECTION_RANKS):
        report(f"registering, round {turn + 1} of {len(COLLECTION_RANKS)}")
        warped = (warp(grey, flow) for grey, flow in zip(greys, flows, strict=True))
        halved = [cv2.resize(plane, half, interpolation=cv2.INTER_AREA) for plane in warped]
        small = np.array(halved, np.float32)
        rows = small.reshape(len(small), -1)
        both = np.concatenate([rows, small[:, :, ::-1].reshape(len(small), -1)])
        mean = both.mean(axis=0)
        _, _, basis = truncated_svd(both - mean, min(rank, len(small) - 1), seed=turn)
        projections = mean + (rows - mean) @ basis.T @ basis
        targets = [cv2.resize(np.clip(p.reshape(half[::-1]), 0, 255).astype(np.uint8),
                              (FRAME_WIDTH, FRAME_HEIGHT), interpolation=cv2.INTER_CUBIC)
                   for p in projections]  # fmt: skip
        with ThreadPoolExecutor(2) as threads:
            flows = np.array(list(threads.map(_flow_between, targets, greys)))
        mean_flow = flows.mean(axis=0, dtype=np.float32)
        flows -= ((mean_flow + mirror(mean_flow[None], True)[0]) / 2).astype(np.float16)
    return flows.astype(np.float32)


def _flow_between(target: ByteArray, grey: ByteArray) -> NDArray[np.float16]:
    """Return the flow from a target to a photo, kept smooth, and carried on beyond the face."""
    # One object a call: they are not safe to share between threads.
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    search.setVariationalRefinementIterations(8)
    search.setVariationalRefinementAlpha(30.0)
    nothing = np.zeros((*grey.shape, 2), np.float32)
    trusted = np.clip(search.calc(target, grey, nothing), -8, 8) * _FLOW_TRUST[..., None]

    def spread(deviation: float) -> NDArray[Any]:
        reach = np.maximum(cv2.GaussianBlur(_FLOW_TRUST, (0, 0), deviation), 1e-3)
        return np.asarray(cv2.GaussianBlur(trusted, (0, 0), deviation) / reach[..., None])

    face = _FLOW_TRUST[..., None]
    return np.asarray(spread(3.5) * face + spread(14) * (1 - face), np.float16)


def warp(plane: NDArray[Any], flow: NDArray[Any]) -> NDArray[Any]:
    """Sample a picture at every pixel plus its flow."""
    steps = flow.astype(np.float32)
    return np.asarray(cv2.remap(plane, _COLUMNS + steps[..., 0], _ROWS + steps[..., 1],
                                cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))  # fmt: skip


def truncated_svd(
    matrix: FloatArray, rank: int, seed: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the leading `rank` singular triples (randomised; Halko, Martinsson, Tropp, 2011)."""
    generator = np.random.default_rng(seed)
    probe = generator.standard_normal((matrix.shape[1], rank + 10)).astype(np.float32)
    for _ in range(2):  # power iterations: the spectrum of faces falls off slowly
        probe = np.linalg.qr(matrix.T @ (matrix @ probe))[0]
    left, values, right = np.linalg.svd(matrix @ probe, full_matrices=False)
    return left[:, :rank], values[:rank], (right @ probe.T)[:rank]


def fit(faces: AlignedFaces, report: Callable[[str], None]) -> FaceModel:
    """Register the faces, and fit components, covariances and band gains to them."""
    flows = register(faces.pictures, report)
    report("fitting the model")
    channels = _gather_channels(faces, flows)
    count = len(faces.people)
    means: dict[str, FloatArray] = {}
    components: dict[tuple[str, str], FloatArray] = {}
    coefficients: dict[str, NDArray[np.float64]] = {}
    scales: dict[str, float] = {}
    for part in PARTS:
        blocks, centred = [], {}
        for name, samples in channels.items():
            sign = np.float32(1 if part == "even" else -1)
            width = samples.shape[2] // 2
            half = ((samples + sign * mirror(samples, name == "flow")) / 2)[:, :, :width]
            if part == "even":
                means[name] = half.mean(axis=0)
                half = half - means[name]
            weight = _shrink(_MODEL_WEIGHT, CHANNEL_STEP[name])[:, :width]
            weighted = half * weight.reshape(weight.shape + (1,) * (half.ndim - 3))
            if part == "even":
                scales[name] = CHANNEL_WEIGHT[name] / np.sqrt((weighted**2).mean(axis=0).sum())
            centred[name] = half.reshape(count, -1)
            blocks.append((weighted * np.float32(scales[name])).reshape(count, -1))
        rank = min(LARGEST_COMPONENTS[part], count - 1)
        left, _, _ = truncated_svd(np.concatenate(blocks, axis=1), rank, seed=0)
        coefficients[part] = left.astype(np.float64) * np.sqrt(count)  # unit variance
        for name, flat in centred.items():
            shape = (rank, *means[name].shape)
            components[part, name] = (left.T @ flat / np.sqrt(count)).reshape(shape)
    people = np.unique(faces.people, return_inverse=True)[1]
    within, between, identities = {}, {}, {}
    for part in PARTS:
        within[part], between[part], identities[part] = split_covariance(coefficients[part], people)
    centres, groups = _group(identities["even"])
    spread = between["even"] - np.atleast_2d(np.cov(centres[groups].T))
    between["even"] = spread.astype(np.float32)
    gains = _band_gains(channels["luma"], means["luma"], components)
    return FaceModel(means, components, within, between, centres.astype(np.float32), gains)


def _shrink(plane: NDArray[Any], step: int) -> NDArray[Any]:
    size = (plane.shape[1] // step, plane.shape[0] // step)
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA))


def _gather_channels(faces: AlignedFaces, flows: FloatArray) -> dict[str, FloatArray]:
    gathered: dict[str, list[NDArray[Any]]] = {name: [] for name in CHANNEL_STEP}
    for picture, matte, flow in zip(faces.pictures, faces.mattes, flows, strict=True):
        colours = cv2.cvtColor(warp(picture, flow), cv2.COLOR_BGR2YCrCb).astype(np.float32)
        planes = (colours[..., 0], colours[..., 1:], flow, warp(matte, flow))
        for (name, step), plane in zip(CHANNEL_STEP.items(), planes, strict=True):
            gathered[name].append(_shrink(plane, step))
    channels = {name: np.array(samples, np.float32) for name, samples in gathered.items()}
    tints = channels["chroma"][:, 24:34, 14:30].mean(axis=(1, 2), keepdims=True)
    channels["chroma"] -= TINT_REMOVED * (tints - tints.mean(axis=0))
    return channels


def split_covariance(
    coefficients: NDArray[np.float64], people: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray, NDArray[np.float64]]:
    """Split a covariance into within and between people.

    Returns:
        (within, between, the expected coefficients of each person given the photos).
    """
    counts = np.bincount(people)
    sums = np.zeros((len(counts), coefficients.shape[1]))
    np.add.at(sums, people, coefficients)
    averages = sums / counts[:, None]
    several = counts[people] > 1
    freedom = max(int(several.sum()) - int((counts > 1).sum()), 1)
    residuals = (coefficients - averages[people])[several]
    within = residuals.T @ residuals / freedom
    total = np.atleast_2d(np.cov(coefficients.T))
    values, vectors = np.linalg.eigh(total - within)
    between = (vectors * np.maximum(values, 1e-3)) @ vectors.T
    expected = np.array([between @ np.linalg.solve(between + within / n + 1e-6 * np.eye(len(total)),
                                                   average)
                         for n, average in zip(counts, averages, strict=True)])  # fmt: skip
    return within.astype(np.float32), between.astype(np.float32), expected


def _group(identities: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Group people by k-means on the leading components: (centres, group of each person)."""
    leading = identities[:, :GROUPING_COMPONENTS].astype(np.float32)
    count = min(GROUPS, len(leading) // 2)
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-4)
    _, labels, _ = cv2.kmeans(
        leading, count, np.zeros((len(leading), 1), np.int32), stop, 4, cv2.KMEANS_PP_CENTERS
    )
    groups = labels.ravel().astype(np.intp)
    return np.array([identities[groups == g].mean(axis=0) for g in range(count)]), groups


def _band_gains(
    lumas: FloatArray, mean: FloatArray, components: dict[tuple[str, str], FloatArray]
) -> FloatArray:
    """Compare the energy of the fine bands in the photos with that of the truncated model."""

    def energy(samples: Iterable[FloatArray]) -> FloatArray:
        total = np.zeros((len(BAND_DEVIATIONS), FRAME_HEIGHT, FRAME_WIDTH), np.float32)
        for sample in samples:
            total += np.square(split_bands(sample))
        return total

    photos = energy(lumas) / len(lumas)
    model = energy(whole_from_half(mean[None], "even", False))
    for part in PARTS:
        model = model + energy(whole_from_half(components[part, "luma"], part, False))
    gains = []
    for of_photos, of_model in zip(photos, model, strict=True):
        wide = [np.maximum(cv2.GaussianBlur(e, (0, 0), 5), 0.01) for e in (of_photos, of_model)]
        ratio = np.sqrt(wide[0] / wide[1])
        gains.append(_shrink((ratio + ratio[:, ::-1]) / 2, 4)[:, : FRAME_WIDTH // 8])
    return np.array(gains, np.float32)
