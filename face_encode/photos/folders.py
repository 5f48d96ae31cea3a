"""Folders of photos: those directly in one, those below it, and one sub-folder a person."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import DatasetError, FaceEncodeError, InputError, MissingExtraError
from face_encode.files import FileState, as_path, open_regular, reason_of, replacing, state_of
from face_encode.photos.reading import HEIC_BRANDS, PhotoInput, is_one_photo
from face_encode.types import LeftOut

# What photos are called; whatever else Pillow reads is known by its first bytes.
PHOTO_SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2"}
    | {".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm"}
    | {".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
# JPEG, PNG, GIF, TIFF in both orders of bytes, JPEG 2000, and WebP, HEIC and AVIF with their kind
# behind the file's length.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP")
_KINDS = (b"WEBP", b"avif", b"avis", *HEIC_BRANDS)


def is_photo(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a photo, by its suffix, or else by its first bytes."""
    if os.path.splitext(path)[1].lower() in PHOTO_SUFFIXES:
        return True
    try:
        with open_regular(path) as file:
            beginning = file.read(12)
    except OSError:
        return False
    return beginning.startswith(_BEGINNINGS) or beginning[8:] in _KINDS


def photos_in(folder: str | os.PathLike[str]) -> list[Path]:
    """The photos directly in a folder, see ``is_photo``, sorted by name, without hidden ones.

    Raises:
        DatasetError: The folder is missing, is no folder, or cannot be listed.
    """
    return sorted(path for path in _visible(folder) if not os.path.isdir(path) and is_photo(path))


def photos_below(
    folder: str | os.PathLike[str],
) -> tuple[list[str], list[tuple[str, str]]]:
    """The photos in a folder and all folders below it, see ``is_photo``.

    Hidden files and folders are passed over, and links to folders are not followed.

    Returns:
        The photos' paths relative to the folder, with ``/`` between the parts, sorted; and each
        folder below that cannot be listed, with the reason.

    Raises:
        DatasetError: The folder is missing, is no folder, or cannot be listed.
    """
    found = _walked(folder)
    return found.photos, found.unlisted


@dataclass(frozen=True)
class _Walked:
    """What is in a folder and below it, by paths relative to it.

    Attributes:
        photos: The photos, sorted.
        unlisted: Each folder that cannot be listed, with the reason, sorted.
        links: Links to folders, which are not followed.
        others: Number of files that are no photos.
    """

    photos: list[str]
    unlisted: list[tuple[str, str]]
    links: list[str]
    others: int


def _walked(folder: str | os.PathLike[str]) -> _Walked:
    """Look for photos in a folder and below it; hidden files and folders are passed over."""
    top = os.fspath(as_path(folder))
    _visible(top)  # told in the same words as for other folders
    photos: list[str] = []
    unlisted: list[tuple[str, str]] = []
    links: list[str] = []
    others = 0

    def skip(error: OSError) -> None:
        where = os.path.relpath(error.filename, top).replace(os.sep, "/")
        unlisted.append((where, reason_of(error)))

    for path, folders, files in os.walk(top, onerror=skip):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(path, top).replace(os.sep, "/")
        start = "" if inside == "." else f"{inside}/"
        links += [start + name for name in folders if os.path.islink(os.path.join(path, name))]
        shown = [name for name in files if not name.startswith(".")]
        fine = [name for name in shown if is_photo(os.path.join(path, name))]
        photos += [start + name for name in fine]
        others += len(shown) - len(fine)
    return _Walked(sorted(photos), sorted(unlisted), sorted(links), others)


@dataclass(frozen=True)
class PeopleFolder:
    """A folder with one sub-folder a person.

    Attributes:
        people: Name -> photos, both sorted; a person without a photo has an empty list.
        left_out: Photos that lie beside the sub-folders, and links to folders inside a person's,
            with the reason.
        others: Number of files that are no photos.
    """

    people: dict[str, list[Path]]
    left_out: tuple[LeftOut, ...]
    others: int


def list_people(folder: str | os.PathLike[str]) -> PeopleFolder:
    """List a folder with one sub-folder a person, and account for every file in it.

    Args:
        folder: Its sub-folders' names are the people's names. Photos in folders inside one,
            however deep, are that person's. Hidden files and folders are passed over.

    Raises:
        DatasetError: The folder is missing, is no folder, or holds no sub-folder or no photo; or a
            folder in it cannot be listed, or a link beside the people's leads to nothing: who
            enrols the rest would remove the people and photos that are in there.
    """
    # os.path, because pathlib raises where a link cannot be followed or a folder not be searched.
    entries = sorted(_visible(folder))
    people: dict[str, list[Path]] = {}
    left_out = []
    others = 0
    for path in entries:
        if not os.path.isdir(path):
            try:
                os.stat(path)
            except OSError as error:
                if not os.path.lexists(path):  # deleted since
                    continue
                reason = reason_of(error)
                if os.path.islink(path):
                    reason = "a link to nothing, perhaps to a share that is not mounted; mount it, "
                    reason += "or delete the link"
                raise DatasetError(f"{path}: {reason}") from error
            if is_photo(path):
                reason = "beside the people's folders: it belongs into that of its person"
                left_out.append(LeftOut(str(path), "", reason))
            else:
                others += 1
            continue
        found = _walked(path)
        for where, reason in found.unlisted:
            raise DatasetError(f"{path / where}: {reason}")
        people[path.name] = [path / photo for photo in found.photos]
        left_out += [
            LeftOut(str(path / where), path.name, "a link to a folder, which is not followed")
            for where in found.links
        ]
        others += found.others
    if not people:
        raise DatasetError(
            f"{folder}: expected one sub-folder a person, with that person's photos in it. "
            "Received: a folder without sub-folders"
        )
    if not any(people.values()):
        raise DatasetError(
            f"{folder}: no photo in any of its {len(people)} sub-folders; photos are files "
            f"ending in {', '.join(sorted(PHOTO_SUFFIXES))}, or that begin like one"
        )
    return PeopleFolder(people, tuple(left_out), others)


def people_in(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """The people of a folder, see ``list_people``: name -> photos, both sorted.

    Raises:
        DatasetError: As for ``list_people``.
    """
    return list_people(folder).people


def no_photo_below(folder: object, unlisted: Sequence[tuple[str, str]] = ()) -> DatasetError:
    """The error where ``photos_below`` finds none, with the folders that cannot be listed."""
    message = f"{folder}: no photo in it or below it"
    if unlisted:
        where, reason = unlisted[0]
        message += f", and of its folders {len(unlisted)} cannot be listed: {where}: {reason}"
        message += ", …" if len(unlisted) > 1 else ""
    return DatasetError(message)


def _visible(folder: str | os.PathLike[str]) -> Iterable[Path]:
    """The entries of a folder that are not hidden."""
    folder = as_path(folder)
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError as error:
        raise DatasetError(f"{folder}: no such folder") from error
    except NotADirectoryError as error:
        raise DatasetError(f"{folder}: a file, not a folder") from error
    except OSError as error:
        raise DatasetError(f"{folder}: {reason_of(error)}") from error


def photos_by_label(photos: Iterable[tuple[str, PhotoInput]]) -> dict[str, list[PhotoInput]]:
    """Gather photos by their labels, both in the order given.

    Args:
        photos: Pairs of a label and a photo in any form that ``read_photo`` takes. A label may
            come several times. No photo is opened.

    Raises:
        InputError: Not such pairs.
    """
    if not isinstance(photos, Iterable) or is_one_photo(photos):
        raise InputError(
            f"photos are a list of pairs (label, photo). Received: {type(photos).__name__}"
        )
    gathered: dict[str, list[PhotoInput]] = {}
    for pair in photos:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(
                f"photos are a list of pairs (label, photo). Received: {type(pair).__name__} in it"
            )
        label, photo = pair
        if not isinstance(label, str):
            raise InputError(f"a label is text. Received: {label!r}")
        gathered.setdefault(label, []).append(photo)
    return gathered


@dataclass(frozen=True)
class Location:
    """A file or folder on this machine or in an object store; travels to other processes.

    Attributes:
        address: The address that it was made from, empty for a path of this machine.
        path: The path: of this machine, or as the store's file system has it.
    """

    address: str
    path: str

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        return not self.address

    @property
    def local(self) -> Path:
        """The path of this machine."""
        return Path(self.path)

    @property
    def suffix(self) -> str:
        """The ending of its name, with the dot."""
        return os.path.splitext(self.path)[1]

    def __str__(self) -> str:
        return self.path if self.is_local else f"{self.address.partition('://')[0]}://{self.path}"

    def below(self, name: str) -> Location:
        """The location of that name in this folder, or deeper with ``/`` in the name."""
        return Location(self.address, f"{self.path}/{name}")

    def with_ending(self, ending: str) -> Location:
        """The location beside this one with something behind its name."""
        return Location(self.address, self.path + ending)

    @property
    def file_system(self) -> Any:
        """The file system that it lies in, as pyarrow knows it."""
        return _file_system(self.address)

    def kind(self) -> str:
        """``"file"``, ``"folder"`` or ``"nothing"``.

        Raises:
            OSError: The store does not answer, or refuses.
        """
        from pyarrow.fs import FileType

        found = self.file_system.get_file_info(self.path).type
        return {FileType.File: "file", FileType.Directory: "folder"}.get(found, "nothing")

    def names(self) -> list[str]:
        """The names of what lies in this folder, sorted; none where there is no folder.

        Raises:
            OSError: The store does not answer, or refuses.
        """
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.path, allow_not_found=True)
        return sorted(found.base_name for found in self.file_system.get_file_info(selector))

    def read(self, most_bytes: int) -> bytes:
        """The first bytes of a file, at most this many.

        Raises:
            OSError: There is none, or the store does not answer, or refuses.
        """
        with self.file_system.open_input_stream(self.path) as stream:
            return bytes(stream.read(most_bytes))

    def delete(self) -> None:
        """Delete a file, or a folder with all that is in it; nothing where there is nothing.

        Raises:
            OSError: The store does not answer, or refuses.
        """
        kind = self.kind()
        if kind == "folder":
            self.file_system.delete_dir(self.path)
        elif kind == "file":
            self.file_system.delete_file(self.path)

    @contextmanager
    def writing(self, error_type: type[FaceEncodeError]) -> Iterator[IO[bytes]]:
        """Write a new version of a file, which takes its place when it is whole.

        Object stores show a file when all of it has arrived; on this machine it is written beside
        its place first.

        Args:
            error_type: What is raised where the operating system or the store refuses.
        """
        if self.is_local:
            with replacing(self.local, error_type) as temporary, open(temporary, "wb") as file:
                yield file
            return
        with reporting(f"cannot write {self}", error_type):
            # S3 has no folders; other stores want them made.
            self.file_system.create_dir(os.path.dirname(self.path), recursive=True)
            stream = self.file_system.open_output_stream(self.path)
            try:
                yield stream
                stream.close()
            except BaseException:
                # Closing is what makes it visible, and there is no other way to let go of it.
                with suppress(OSError):
                    stream.close()
                with suppress(OSError):
                    self.file_system.delete_file(self.path)
                raise


@contextmanager
def reporting(what: str, error_type: type[FaceEncodeError]) -> Iterator[None]:
    """Make an error of the operating system or the store one of ours, in a line."""
    try:
        yield
    except OSError as error:
        raise error_type(f"{what}: {in_a_line(error)}") from error


def in_a_line(error: OSError) -> str:
    """What the operating system or a store says, without the pages that some stores write."""
    return next(iter(reason_of(error).splitlines()), type(error).__name__)


def is_address(value: object) -> bool:
    """Whether something is an address rather than a path."""
    return isinstance(value, str) and "://" in value


def location_of(value: str | os.PathLike[str]) -> Location:
    """The location that a path or an address stands for.

    Raises:
        InputError: Neither, or of a kind of store that pyarrow does not know.
        MissingExtraError: An address, and pyarrow is not installed.
    """
    if not is_address(value):
        return Location("", os.path.abspath(as_path(value)))
    address = str(value)
    if "\0" in address:
        raise InputError(f"an address has no null characters. Received: {address!r}")
    path = _opened(address)[1].rstrip("/")
    if not path:
        raise InputError(f"an address names a bucket or a folder. Received: {address!r}")
    return Location("" if address.lower().startswith("file://") else address, path)


@lru_cache(maxsize=16)
def _opened(address: str) -> tuple[Any, str]:
    """The file system of an address, as pyarrow knows it, and the path in it."""
    try:
        import pyarrow
        import pyarrow.fs
    except ImportError as error:
        raise MissingExtraError(
            'an address of an object store needs pyarrow: pip install "face_encode[parquet]"'
        ) from error
    scheme = address.partition("://")[0]
    try:
        system, path = pyarrow.fs.FileSystem.from_uri(address)
    except (pyarrow.ArrowException, ValueError, ImportError) as error:
        first_line = next(iter(str(error).splitlines()), "")
        raise InputError(
            "an address begins with s3://, gs://, abfs://, hdfs:// or file://. "
            f"Received: one with {scheme}:// ({first_line})"
        ) from error
    except OSError as error:
        raise InputError(f"{scheme}:// cannot be opened: {in_a_line(error)}") from error
    return system, path


def _file_system(address: str) -> Any:
    if address:
        return _opened(address)[0]
    from pyarrow.fs import LocalFileSystem

    return LocalFileSystem()


@dataclass(frozen=True, eq=False)
class PhotoListing:
    """The photos of a folder.

    Attributes:
        names: Their paths relative to it, parted by ``/``, sorted.
        states: int64 ``(N, 2)``, size in bytes and time of change in nanoseconds of each, by which
            it counts as unchanged; (-1, -1) where it has none.
        unlisted: Folders below that cannot be listed, and why.
    """

    names: list[str]
    states: npt.NDArray[np.int64]
    unlisted: list[tuple[str, str]]


def list_photos(folder: Location) -> PhotoListing:
    """The photos in a folder and all folders below it, by suffix; hidden ones are passed over.

    Raises:
        DatasetError: The folder is missing, is no folder, or cannot be listed.
    """
    if folder.is_local:
        names, unlisted = photos_below(folder.path)
        top = folder.path
        return PhotoListing(names, _array(state_of(f"{top}/{name}") for name in names), unlisted)
    from pyarrow.fs import FileSelector, FileType

    with reporting(f"{folder} cannot be listed", DatasetError):
        if folder.kind() == "nothing":
            raise DatasetError(f"{folder}: no such folder")
        if folder.kind() == "file":
            raise DatasetError(f"{folder}: a file, not a folder")
        found = folder.file_system.get_file_info(FileSelector(folder.path, recursive=True))
    photos: list[tuple[str, FileState]] = []
    for each in found:
        name = each.path[len(folder.path) :].lstrip("/")
        if (
            each.type == FileType.File
            and os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES
            and not any(part.startswith(".") for part in name.split("/"))
        ):
            photos.append((name, (each.size, each.mtime_ns or -1)))
    photos.sort()
    return PhotoListing([name for name, _ in photos], _array(state for _, state in photos), [])


def _array(states: Iterable[FileState]) -> npt.NDArray[np.int64]:
    """Not as tuples, because a hundred million photos would fill as many objects."""
    flat = np.fromiter(chain.from_iterable(states), np.int64)
    return flat.reshape(-1, 2)
