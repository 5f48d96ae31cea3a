"""Finished networks of attributes that teach another one beside the labels.

A network that learns from one that learnt the same labels becomes better than it: Furlanello and
others, "Born-Again Neural Networks", 2018, https://arxiv.org/abs/1805.04770. An answer tells more
than a label: which other expression a face might show, and that a label is likely wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from face_encode.attributes.answers import ANSWERS, PARTS, probabilities
from face_encode.attributes.network import load_attributes
from face_encode.errors import ModelFileError
from face_encode.types import ImageArray

Distributions = npt.NDArray[np.float32]


def ask_teachers(paths: Sequence[Path], crops: ImageArray, side: int) -> Distributions:
    """Ask what faces show: the mean over the networks and over four views of each face.

    The views are the middle of a crop, another one some pixels off, and their mirror images: the
    more views are asked about, the fewer errors are left in the mean.

    Args:
        paths: Files of ``face-encode train attributes``.
        crops: uint8 ``(N, roomy, roomy, 3)``.
        side: Rows and columns of a view, and of the networks' crops.

    Returns:
        float32 ``(N, ANSWERS)``: of each attribute a distribution.

    Raises:
        ModelFileError: A file that holds no network of attributes, or one of other crops.
    """
    room = (crops.shape[1] - side) // 2
    total = np.zeros((len(crops), ANSWERS))
    for path in paths:
        network = load_attributes(path)
        wanted = network.encoder.contract.crop.height
        if wanted != side:
            raise ModelFileError(
                f"a teacher looks at crops of the student's side, {side} pixels. "
                f"Received: {path}, of {wanted}"
            )
        answers = np.zeros((len(crops), ANSWERS), np.float32)
        for off in (0, room // 3):
            view = crops[:, room - off : room - off + side, room + off : room + off + side]
            for seen in (view, view[:, :, ::-1]):
                answers += network.encoder.encode(np.ascontiguousarray(seen)) / 4
        for name, part in PARTS.items():
            total[:, part] += probabilities(answers, name, network.calibration) / len(paths)
    return np.asarray(total, np.float32)


def teach(targets: Distributions, answers: Distributions, share: float) -> Distributions:
    """Mix the teachers' answers into targets; what has no label is all theirs.

    Args:
        targets: float32 ``(N, ANSWERS)``, see ``LabelledFaces.targets``.
        answers: Of ``ask_teachers``.
        share: The teachers' share where there is a label, 0..1.
    """
    mixed: Distributions = targets.copy()
    for part in PARTS.values():
        labelled = targets[:, part].any(axis=1, keepdims=True)
        part_of_teachers = np.where(labelled, share, 1).astype(np.float32)
        mixed[:, part] += part_of_teachers * (answers[:, part] - targets[:, part])
    return mixed
