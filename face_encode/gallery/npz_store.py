"""Where a gallery in memory is kept: its ``.npz`` file, with an approximate index beside it."""

from __future__ import annotations

from pathlib import Path

from face_encode.errors import GalleryError
from face_encode.files import replacing
from face_encode.gallery.approximate import ApproximateIndex
from face_encode.gallery.index_file import remove_stale_indices, write_index
from face_encode.gallery.npz_file import GalleryContent, check_file_name, write_content


class NpzStore:
    """The file of one gallery, if it has any.

    Attributes:
        path: The file, or None for a gallery that is kept nowhere.
        is_current: Whether the file holds what the gallery does; whoever changes the gallery sets
            it to False.
    """

    def __init__(self, path: Path | None) -> None:
        """Take a path; nothing is read or written yet."""
        self.path = path
        self.is_current = False

    def save(
        self, content: GalleryContent, index: ApproximateIndex | None, path: Path | None = None
    ) -> None:
        """Write a gallery, atomically, and then its index.

        Args:
            content: What the gallery holds.
            index: Of its embeddings; without one, those of other embeddings are removed.
            path: Where to; None for the gallery's own file.

        Raises:
            GalleryError: It has none, the name does not end in ``.npz``, or it cannot be written.
        """
        target = self.path if path is None else path
        if target is None:
            raise GalleryError("this gallery was not opened from a file; save it to a path")
        check_file_name(target)
        with replacing(target, GalleryError) as temporary:
            write_content(temporary, content)
        if index is None:
            remove_stale_indices(target)
        else:
            write_index(target, index)
        # Saved elsewhere, it is still to be written here.
        self.is_current = self.is_current or target == self.path
