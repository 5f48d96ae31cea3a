"""The judge of liveness: MiniFASNet on the engine that the encoders use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt

from face_encode.detectors.alignment import crop_faces
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import AUTOMATIC, check_engine, start_engine, unrounded
from face_encode.errors import InputError
from face_encode.liveness.minifasnet import LIVE, LIVENESS_CROP, PARTS, minifasnet
from face_encode.terminal import import_keras
from face_encode.types import Face, ImageArray, Liveness, check_number
from face_encode.weights import KNOWN_WEIGHTS, read_verified

LIVENESS_THRESHOLD = 0.5
"""From this value on a face counts as alive: surely the likeliest of the three classes then."""

# To an engine the network is an encoder, whose embedding is the three probabilities.
_CONTRACT = EncoderContract("minifasnet", LIVENESS_CROP, threshold=1.0)


class LivenessJudge:
    """Tells live faces from photos and screens that somebody holds up.

    Attributes:
        threshold: The value from which a face counts as alive, 0..1.
    """

    def __init__(
        self,
        weights: Sequence[str | os.PathLike[str]] | None = None,
        engine: str = AUTOMATIC,
        *,
        threshold: float = LIVENESS_THRESHOLD,
    ) -> None:
        """Open the network; its weights are downloaded at the first use, 3.7 MB.

        Args:
            weights: The paths of ``2.7_80x80_MiniFASNetV2.pth`` and
                ``4_0_0_80x80_MiniFASNetV1SE.pth``, if they are not in their usual place.
            engine: What runs it, as for ``load_encoder``; it is never rounded.
            threshold: The value from which a face counts as alive: the higher, the fewer copies
                pass, and the more people have to try again.

        Raises:
            WeightsError: The weights are missing, cannot be downloaded, or are others.
            InputError: No such engine, a threshold outside 0..1, or not two files.
            MissingExtraError: The engine is not installed.
            EngineError: The engine asked for cannot run the network.
        """
        check_engine(engine)
        check_number(threshold, "a liveness threshold", 0, 1)
        names = [part.name for part in PARTS]
        if weights is not None and not (
            isinstance(weights, Sequence)
            and not isinstance(weights, str)
            and len(weights) == len(names)
            and all(isinstance(path, str | os.PathLike) for path in weights)
        ):
            raise InputError(
                f"the weights are a list of {len(names)} files, of {' and '.join(names)}. "
                f"Received: {weights!r}"
            )
        self.threshold = threshold
        if weights is not None:
            given = [read_verified(*each) for each in zip(names, weights, strict=True)]

        @cache
        def load() -> Encoder:
            contents = given if weights is not None else [read_verified(name) for name in names]
            import_keras()
            return Encoder(minifasnet(contents), _CONTRACT)

        # What is converted already opens without the files; they have published digests.
        digests = "".join(str(KNOWN_WEIGHTS[name].sha256) for name in names)
        started = start_engine(
            unrounded(engine),
            (_CONTRACT.name, digests),
            lambda: (load().model, _CONTRACT, load().fingerprint, None),
        )
        self._network = (
            load() if started is None else Encoder.on_engine(*started, lambda: load().model)
        )

    @property
    def engine(self) -> str:
        """What runs the network."""
        return self._network.engine

    def values(self, crops: ImageArray) -> npt.NDArray[np.float32]:
        """The probability that each face is alive.

        Args:
            crops: RGB, uint8, ``(N, 160, 80, 3)``, cut out by ``LIVENESS_CROP``.

        Returns:
            float32 ``(N,)``, 0..1.

        Raises:
            InputError: Another shape or type.
        """
        return self._network.encode(crops)[:, LIVE]

    def judge(self, faces: Sequence[Face], crops: ImageArray) -> list[Face]:
        """Give N faces their liveness; crops as for ``values``."""
        return [
            replace(face, liveness=Liveness(value, value >= self.threshold))
            for face, value in zip(faces, self.values(crops).tolist(), strict=True)
        ]

    def judge_in(self, image: ImageArray, faces: Sequence[Face]) -> list[Face]:
        """Give the faces in a photo, RGB, uint8, ``(H, W, 3)``, their liveness."""
        return self.judge(faces, crop_faces(image, faces, LIVENESS_CROP))


@cache
def default_judge(engine: str = AUTOMATIC) -> LivenessJudge:
    """The judge with the usual weights and threshold, opened once a process."""
    return LivenessJudge(engine=engine)
