"""Which functions of this package run when people are enrolled and when a photo is matched.

Run as ``python -m benchmarks.trace``. It enrols 12 photos of the invented people by
``Face_Encode_Model.fit_dataset``, then names the face in a photo by ``match_image`` in a gallery of
24 rows, and counts the distinct functions of ``face_encode`` that ran, the files they stand in, and
how often one file calls into another. The fewer, the easier the way is to read.

Left out are ``detectors/`` and ``encoders/`` with all that they call, since finding a face and
running a network are not the way but its stations; what a first call alone does (imports, loading
the encoder), since each walk is taken once before it is counted; what Python makes itself (the
``__init__`` of a dataclass); and comprehensions, which are no functions.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PHOTOS_ENROLLED = 12
ROWS_SEARCHED = 24
REPOSITORY = Path(__file__).parent.parent
_PACKAGE = REPOSITORY / "face_encode"
_LEFT_OUT = ("detectors", "encoders")
_NO_FUNCTIONS = ("<module>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


@dataclass(frozen=True)
class Walk:
    """The functions that ran in one call.

    Attributes:
        functions: Each with its file relative to the package, in the order of their first calls.
        changes_of_file: How often a function of one file called one of another.
    """

    functions: tuple[tuple[str, str], ...]
    changes_of_file: int

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the functions stand in, in the order of their first calls."""
        return tuple(dict.fromkeys(file for file, _ in self.functions))


def traced(call: Callable[[], object], package: Path = _PACKAGE) -> Walk:
    """Run something in this thread and note the functions of the package that run in it."""
    functions: dict[CodeType, tuple[str, str]] = {}
    places: dict[CodeType, tuple[str, bool] | None] = {}
    # The file of each frame of the package that is running, None within what is left out.
    running: list[str | None] = [""]
    changes = 0

    def place_of(code: CodeType) -> tuple[str, bool] | None:
        """The file of a function of the package, and whether it is left out."""
        if code not in places:
            path = Path(code.co_filename)
            places[code] = None
            if path.is_relative_to(package) and code.co_name not in _NO_FUNCTIONS:
                file = path.relative_to(package)
                places[code] = file.as_posix(), file.parts[0] in _LEFT_OUT
        return places[code]

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal changes
        if event not in ("call", "return") or (place := place_of(frame.f_code)) is None:
            return
        if event == "return":
            running.pop()
            return
        file, is_left_out = place
        if is_left_out or running[-1] is None:
            running.append(None)
            return
        functions.setdefault(frame.f_code, (file, frame.f_code.co_name))
        changes += file != running[-1]
        running.append(file)

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return Walk(tuple(functions.values()), changes)


def walks(people: Path, photo: Path) -> dict[str, Walk]:
    """Enrol some photos and match one.

    Args:
        people: One sub-folder a person, with at least ``ROWS_SEARCHED`` photos that show a face.
        photo: One that shows a face.
    """
    from face_encode import Face_Encode_Model, read_image
    from face_encode.gallery.memory import MemoryGallery

    model = Face_Encode_Model(detector="dlib_hog")
    image = read_image(photo)
    photos = sorted(people.glob("*/*.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        for path in photos[:PHOTOS_ENROLLED]:
            (Path(folder) / path.parent.name).mkdir(exist_ok=True)
            shutil.copy(path, Path(folder) / path.parent.name)
        model.fit_dataset(folder, progress=False)
        # Of a gallery that holds the photos already none would be embedded.
        model.gallery = MemoryGallery(model.encoder)
        enrolling = traced(lambda: model.fit_dataset(folder, progress=False))
        assert len(model.gallery) == PHOTOS_ENROLLED
    for path in photos[PHOTOS_ENROLLED:ROWS_SEARCHED]:
        model.add_person(path.parent.name, [path])
    assert len(model.gallery) == ROWS_SEARCHED
    model.match_image(image)
    matching = traced(lambda: model.match_image(image))
    return {
        f"fit_dataset on {PHOTOS_ENROLLED} photos": enrolling,
        f"match_image in a gallery of {ROWS_SEARCHED} rows": matching,
    }


def main() -> int:
    """Print how much ran, and on request what."""
    parser = argparse.ArgumentParser(description="Count the functions that run.")
    parser.add_argument("--list", action="store_true", help="list the functions too")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    examples = REPOSITORY / "examples"
    for name, walk in walks(REPOSITORY / "verify_dataset", examples / "ada_mirova.jpg").items():
        print(
            f"{name}: {len(walk.functions)} functions in {len(walk.files)} files, "
            f"{walk.changes_of_file} changes of file"
        )
        if options.list:
            print("".join(f"  {file}: {function}\n" for file, function in walk.functions), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
