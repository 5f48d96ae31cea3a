"""MiniFASNet beside its original, whose numbers are recorded here."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from face_encode.detectors.alignment import crop_faces
from face_encode.errors import WeightsError
from face_encode.liveness.judging import LivenessJudge
from face_encode.liveness.minifasnet import LIVENESS_CROP, minifasnet
from face_encode.types import Box, Face
from tests.encoders import torch_writing as writing
from tests.liveness.drawn_weights import V2, draw_weights

# Of Silent-Face-Anti-Spoofing at b6d5f04, its own networks on PyTorch 2.13: the mean of both
# softmaxes, for the crops and weights that are drawn below.
DRAWN_PROBABILITIES = [
    [0.4623022, 0.0959817, 0.4417161],
    [0.5842156, 0.1961541, 0.2196303],
    [0.5007236, 0.1505117, 0.3487647],
]

# The same for its own weights and samples: the box that its detector finds (left, top, width,
# height), and the probability of a live face over its two crops there.
SAMPLES = {
    "image_F1.jpg": ((178, 136, 223, 225), 0.0723313),
    "image_F2.jpg": ((120, 252, 252, 256), 0.1812857),
    "image_T1.jpg": ((106, 147, 207, 213), 0.9935679),
}


@pytest.fixture(scope="module")
def files(drawn_liveness_files: list[Path]) -> list[bytes]:
    """The weights files of both networks, drawn at random."""
    return [path.read_bytes() for path in drawn_liveness_files]


def test_probabilities_equal_those_of_the_original_networks(files: list[bytes]) -> None:
    model = minifasnet(files)
    crops = np.random.default_rng(7).integers(0, 256, (3, 160, 80, 3), np.uint8)
    received = model(crops.astype(np.float32)).numpy()
    np.testing.assert_allclose(received, DRAWN_PROBABILITIES, atol=1e-6, rtol=0)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}


@pytest.mark.data
def test_the_samples_have_the_originals_probabilities(public_weights: Path) -> None:
    names = ("2.7_80x80_MiniFASNetV2.pth", "4_0_0_80x80_MiniFASNetV1SE.pth")
    judge = LivenessJudge([public_weights / name for name in names])
    for name, (box, expected) in SAMPLES.items():
        # Decoded as the original does: another decoder differs by a grey level here and there.
        pixels = cv2.imread(str(public_weights / name))
        assert pixels is not None
        image = np.asarray(pixels[:, :, ::-1], np.uint8)
        crops = crop_faces(image, [Face(Box(*box), 1.0)], LIVENESS_CROP)
        np.testing.assert_allclose(judge.values(crops), [expected], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("module.conv1.conv.weight", np.zeros((16, 3, 3, 3), np.float32), r"\(16, 3, 3, 3\)"),
        ("module.prob.weight", None, "'prob.weight'.*Received: nothing"),
        ("module.more", np.zeros(3, np.float32), "have no 'more'"),
    ],
)
def test_the_weights_of_another_network_are_refused(
    files: list[bytes], name: str, array: npt.NDArray[np.float32] | None, message: str
) -> None:
    arrays = draw_weights(V2, squeezes=False)
    if array is None:
        del arrays[name]
    else:
        arrays[name] = array
    with pytest.raises(WeightsError, match=f"minifasnet_v2.*{message}"):
        minifasnet([writing.state_dict(arrays), files[1]])


def test_the_files_are_not_exchanged(files: list[bytes]) -> None:
    with pytest.raises(WeightsError, match="minifasnet_v2"):
        minifasnet(files[::-1])
