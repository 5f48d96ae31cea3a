"""dlib's frontal face detector, loaded in a moment.

dlib carries it compressed inside its library and unpacks it whenever one is asked for, which takes
half a second: of every process, of every thread, of every command. Unpacked it is a file of 155 kB
that loads in two milliseconds, so it is unpacked once and kept in the cache.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from face_encode.errors import WeightsError
from face_encode.files import open_regular, replacing
from face_encode.weights import cache_folder

# Of dlib's releases 19.24 to 20.0, all of which carry the same detector.
_SHA256 = "f3f7aa833fb4a14a46fc48689f45b98d85ef72d6dfaf8bdc012b7d3c522a5426"
_FILE = "dlib_frontal_face_detector.svm"


def load_frontal_face_detector() -> Any:
    """A detector of one's own: ``dlib.get_frontal_face_detector()``, sooner.

    Where nothing can be kept, or dlib carries another detector than the known one, it is unpacked
    anew each time.
    """
    import dlib

    path = cache_folder() / _FILE
    # dlib reads whatever it is given: a damaged file could give a detector that finds less.
    if _is_right(path):
        with suppress(RuntimeError):
            return dlib.fhog_object_detector(str(path))
    detector = dlib.get_frontal_face_detector()
    with suppress(WeightsError, RuntimeError), replacing(path, WeightsError) as temporary:
        detector.save(str(temporary))
        if not _is_right(temporary):
            raise WeightsError("another detector than the known one")
    return detector


def _is_right(path: Path) -> bool:
    """Whether a file holds the known detector."""
    try:
        with open_regular(path) as file:
            return hashlib.sha256(file.read()).hexdigest() == _SHA256
    except OSError:
        return False
