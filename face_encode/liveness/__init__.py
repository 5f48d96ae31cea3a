"""Liveness: whether a face is alive, or a copy that somebody holds up."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.liveness.judging import LivenessJudge as LivenessJudge
    from face_encode.liveness.minifasnet import minifasnet as minifasnet

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"judging": ["LivenessJudge"], "minifasnet": ["minifasnet"]},
)
