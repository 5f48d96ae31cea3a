"""Which functions of this package run when people are enrolled and when a photo is matched.

Run as ``python -m benchmarks.trace``. It enrols 12 photos of the invented people by
``Face_Encode_Model.fit_dataset``, then names the face in a photo by ``match_image`` in a gallery of
24 rows, and counts the distinct functions of ``face_encode`` that ran, the files they stand in, and
how often a function of one file calls one of another. The fewer, the easier the way is to read.
Matching is counted from the moment when the face is encoded.

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


def traced(
    call: Callable[[], object], package: Path = _PACKAGE, *, from_last_left_out: bool = False
) -> Walk:
    """Run something in this thread and note the functions of the package that run in it.

    Args:
        call: What to run.
        package: The package's folder.
        from_last_left_out: Whether to count only what runs after the last return from
            ``detectors/`` and ``encoders/``.
    """
    functions: dict[CodeType, tuple[str, str]] = {}
    files: dict[CodeType, str | None] = {}
    # The frames of the package that are running: code and file, None within those left out.
    running: list[tuple[CodeType, str] | None] = []
    changes = 0

    def file_of(code: CodeType) -> str | None:
        """The file of a function of the package, None for any other."""
        if code not in files:
            path = Path(code.co_filename)
            ours = path.is_relative_to(package) and code.co_name not in _NO_FUNCTIONS
            files[code] = path.relative_to(package).as_posix() if ours else None
        return files[code]

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal changes
        code = frame.f_code
        if event not in ("call", "return") or (file := file_of(code)) is None:
            return
        above = running[-1] if running else ("", "")
        if event == "call":
            if above is None or file.partition("/")[0] in _LEFT_OUT:
                running.append(None)
                return
            functions.setdefault(code, (file, code.co_name))
            changes += file != above[1]
            running.append((code, file))
        elif running and running.pop() is None and running[-1:] != [None] and from_last_left_out:
            functions.clear()
            functions.update({each[0]: (each[1], each[0].co_name) for each in running if each})
            changes = 0

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
    matching = traced(lambda: model.match_image(image), from_last_left_out=True)
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
