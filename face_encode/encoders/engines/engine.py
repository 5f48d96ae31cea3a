"""What an engine is: a library that runs a network from an ONNX file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Protocol, TypeAlias

from face_encode.types import Embeddings, ImageArray

Network: TypeAlias = Callable[[ImageArray], Embeddings]
"""From uint8 ``(N, height, width, 3)``, N at least 1, to float32 ``(N, D)``, one row an image,
without the mirror image. Any number of threads may call it at once."""

# Few enough that what passes from layer to layer stays in the processor's cache, many enough
# that a call's own cost does not count: measured best from 4 to 16.
IMAGES_A_PIECE = 8


class OpenNetwork(Protocol):
    """Opens a network for an engine."""

    def __call__(self, content: bytes, threads: int) -> Network:
        """Open a network.

        Args:
            content: An ONNX file whose one input takes uint8 ``(N, height, width, 3)``.
            threads: How many processor cores to use.
        """


@dataclass(frozen=True)
class Engine:
    """A row in the table of engines.

    Attributes:
        name: What it is chosen by.
        module: The import name of its library.
        distribution: The name by which its library is installed.
        extra: The extra of this package that installs it.
        open: Opens a network.
    """

    name: str
    module: str
    distribution: str
    extra: str
    open: OpenNetwork

    @property
    def is_installed(self) -> bool:
        """Whether its library is there; nothing is imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def release(self) -> str:
        """Name and version of its library; nothing is imported."""
        return release_of(self.distribution)


def release_of(distribution: str) -> str:
    """Name and version of what is installed under a name; nothing is imported."""
    try:
        return f"{distribution} {metadata.version(distribution)}"
    except metadata.PackageNotFoundError:
        return f"no {distribution}"


def first_line_of(error: Exception) -> str:
    """What an error of another library says first; its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def pieces_of(images: ImageArray, cores: int) -> list[ImageArray]:
    """Divide images into pieces that a core works on by itself.

    Cores that share the images are busy from the first layer to the last; cores that share each
    layer wait for each other at its end.

    Args:
        images: ``(N, height, width, 3)``, N at least 1.
        cores: Among how many a small batch is divided.
    """
    size = min(IMAGES_A_PIECE, -(-len(images) // cores))
    return [images[start : start + size] for start in range(0, len(images), size)]
