"""The one function that opens a gallery, wherever it is kept."""

from __future__ import annotations

import os
from typing import BinaryIO

from face_encode.errors import GalleryError
from face_encode.files import as_path
from face_encode.gallery.base import EncoderIdentity, Gallery
from face_encode.gallery.distances import Metric
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.milvus import MilvusGallery
from face_encode.gallery.milvus_store import is_milvus, milvus_address
from face_encode.gallery.npz import read_content, read_open_content


def load_gallery(
    path: str | os.PathLike[str], encoder: EncoderIdentity, *, metric: Metric | None = "cosine"
) -> MemoryGallery:
    """Read a gallery from an ``.npz`` file; a large one is mapped into memory.

    Args:
        path: The file; ``close``, and ``save`` without a path, write it again.
        encoder: The encoder that filled it.
        metric: The metric that it has to be searched by; None takes the file's.

    Raises:
        GalleryError: Missing, damaged, searched by another metric, or written by a later release.
        WrongEncoderError: Another encoder filled it.
    """
    path = as_path(path)
    content = read_content(path)
    content.check(str(path), encoder, metric)
    return MemoryGallery.of(content, encoder, path)


def read_gallery(file: BinaryIO, encoder: EncoderIdentity, label: str) -> MemoryGallery:
    """Read a gallery from an open ``.npz`` archive, which it has nothing to do with afterwards.

    Args:
        file: The archive, open for reading.
        encoder: The encoder that filled it.
        label: What it is called in errors.

    Raises:
        GalleryError: Damaged, searched by another metric than cosine, or written by a later
            release.
        WrongEncoderError: Another encoder filled it.
        OSError: The file cannot be read.
    """
    content = read_open_content(file, label)
    content.check(label, encoder, "cosine")
    return MemoryGallery.of(content, encoder)


IN_MEMORY = ":memory:"


def names_gallery(text: str | os.PathLike[str]) -> bool:
    """Whether a text names a gallery in Milvus or in a file, going by its form alone.

    Raises:
        InputError: It is no text or path.
    """
    return is_milvus(text) or as_path(text).suffix == ".npz"


def check_kept(text: str | os.PathLike[str], others: str = "") -> None:
    """Refuse what does not name a gallery that is kept somewhere.

    Args:
        text: The name.
        others: What else is allowed, for the message.

    Raises:
        GalleryError: By its ending it is none.
    """
    if not names_gallery(text):
        raise GalleryError(
            f"a gallery is {others}the path of an .npz file or of a .db folder, or an http:// "
            f"address. Received: {os.fspath(text)}"
        )


def gallery_label(text: str | os.PathLike[str]) -> str:
    """What a gallery is called in messages: its name, without a password that is in it."""
    return milvus_address(text).label if is_milvus(text) else os.fspath(text)


def open_gallery(
    uri: str | os.PathLike[str] | None = None,
    *,
    encoder: EncoderIdentity,
    int8: bool = False,
    token: str | None = None,
    collection: str | None = None,
    index: str = "FLAT",
    metric: Metric | None = "cosine",
    create: bool = True,
    approximate: bool = False,
) -> Gallery:
    """Open a gallery.

    Args:
        uri: None or ``":memory:"`` for one that lives as long as the program; the path of an
            ``.npz`` file, which is read where it exists and written by ``close``; the path of a
            folder that ends in ``.db``, which Milvus Lite keeps open in this program until
            ``close``; or the address of a Milvus server or cluster, ``http://host:19530``, with
            ``/database`` and ``#collection`` behind it where they are others than the defaults,
            which several programs may change at once. The last two take
            ``pip install "face_encode[milvus]"``.
        encoder: The encoder whose embeddings it holds or is to hold.
        int8: Whether to keep the embeddings as a byte a number. A gallery that holds float32 goes
            over to that; one that holds int8 stays with it in any case. Not for Milvus.
        token: What a Milvus server asks for, ``user:password`` or an API key; None takes the
            environment's, ``FACE_ENCODE_MILVUS_TOKEN``.
        collection: The Milvus collection, ``face_encode`` by default.
        index: Milvus's index for a new gallery: ``"FLAT"`` is exact; on a server ``"AUTOINDEX"``
            is faster for very many people, and may miss a near one.
        metric: What a search compares by, ``"cosine"`` or ``"euclidean"``; None takes what the
            gallery has, or ``"cosine"`` for a new one.
        create: Whether it may be a new one: a file is written by ``close``, in Milvus it is made
            when the first people are enrolled.
        approximate: Whether to search the people of an ``.npz`` file that exists by an
            approximate index beside it, which is built where there is none that fits; see
            docs/search.md. Takes ``pip install "face_encode[index]"``.

    Raises:
        GalleryError: No such kind of gallery, none there where none may be made, one of another
            metric, an index of nobody, or what a gallery in Milvus does not do; or it is damaged,
            cannot be reached, or another program has its ``.db`` folder open.
        InputError: No such metric, or int8 for one that looks at lengths.
        WrongEncoderError: Another encoder filled it.
        MissingExtraError: It takes an optional dependency that is not installed.
    """
    new_metric: Metric = "cosine" if metric is None else metric
    if uri is None or uri == IN_MEMORY:
        return MemoryGallery(encoder, int8=int8, metric=new_metric)
    if is_milvus(uri):
        if approximate:
            raise GalleryError(
                "a gallery in Milvus has an index of Milvus's own, such as index='AUTOINDEX' on a "
                "server. Received: approximate=True"
            )
        if int8:
            raise GalleryError("a gallery in Milvus keeps float32. Received: int8=True")
        return MilvusGallery(
            uri,
            encoder,
            token=token,
            collection=collection,
            index=index,
            metric=metric,
            create=create,
        )
    path = as_path(uri)
    check_kept(uri, f"{IN_MEMORY!r}, ")
    # os.path, because pathlib raises where the path cannot be looked at.
    if create and not os.path.exists(path):
        return MemoryGallery(encoder, path, int8=int8, metric=new_metric)
    gallery = load_gallery(path, encoder, metric=metric)
    if int8:
        gallery.quantize()
    if approximate:
        gallery.open_index()
    return gallery
