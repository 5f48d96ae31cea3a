"""The encoders that come with the package: model files of this project's own.

In the repository they lie in ``weights/``. A wheel installs that folder as a package of data,
``face_encode_weights``, so that there is one copy of each file and everyone finds it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from face_encode.errors import ModelFileError

SHIPPED_ENCODERS = ("vgg_embedding",)
"""Names of the encoders whose files come with the package."""

_PACKAGE = "face_encode_weights"


def shipped_path(name: str) -> Path:
    """Where the file of a shipped encoder lies.

    Args:
        name: One of :data:`SHIPPED_ENCODERS`.

    Raises:
        ModelFileError: It is neither beside the package nor installed.
    """
    # A clone's own weights first: an installed release may be another one.
    folders = [Path(__file__).parents[2] / "weights"]
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is not None:
        folders += [Path(folder) for folder in spec.submodule_search_locations or ()]
    for folder in folders:
        if (folder / f"{name}.keras").is_file():
            return folder / f"{name}.keras"
    raise ModelFileError(
        f"the file {name}.keras, which comes with face_encode, is missing; install the package "
        f"again. Looked in: {', '.join(map(str, folders))}"
    )
