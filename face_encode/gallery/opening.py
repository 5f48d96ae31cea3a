"""Opening a gallery, wherever it is stored."""

from __future__ import annotations

import os

from face_encode.errors import GalleryError, InputError
from face_encode.files import as_path
from face_encode.gallery.base import EncoderIdentity, Gallery, StoredEncoder
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.database_file import DATABASE_SUFFIX, is_database
from face_encode.gallery.distances import Metric
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.milvus import MilvusGallery
from face_encode.gallery.milvus_store import is_milvus, milvus_address
from face_encode.gallery.npz import read_content


def load_gallery(
    path: str | os.PathLike[str],
    encoder: EncoderIdentity | None = None,
    *,
    metric: Metric | None = "cosine",
) -> MemoryGallery:
    """Read a gallery from an ``.npz`` file; a large one is mapped into memory.

    Args:
        path: The file; ``close``, and ``save`` without a path, write it again.
        encoder: The encoder that filled it; None takes the file's word for it.
        metric: The expected metric; None takes the file's.

    Raises:
        GalleryError: The file is missing, damaged, of another metric or of another version.
        WrongEncoderError: Another encoder filled it.
    """
    path = as_path(path)
    content = read_content(path)
    encoder = encoder or StoredEncoder(
        content.encoder_name, content.encoder_fingerprint, content.enrolled.rows.shape[1]
    )
    content.check(str(path), encoder, metric)
    return MemoryGallery.from_content(content, encoder, path)


IN_MEMORY = ":memory:"


def names_gallery(text: str | os.PathLike[str]) -> bool:
    """Whether a text has the form of a gallery's name, in Milvus or in a file.

    Raises:
        InputError: It is not text or a path.
    """
    return is_milvus(text) or as_path(text).suffix in (DATABASE_SUFFIX, ".npz")


def check_kept(text: str | os.PathLike[str], others: str = "") -> None:
    """Refuse a text that does not have the form of a gallery's name.

    Args:
        text: The name.
        others: Other allowed values, for the message.

    Raises:
        GalleryError: It has another form.
    """
    if not names_gallery(text):
        raise GalleryError(
            f"a gallery is {others}the path of a {DATABASE_SUFFIX} file, of an .npz file or of a "
            f".db folder, or an http:// address. Received: {os.fspath(text)}"
        )


def gallery_label(text: str | os.PathLike[str]) -> str:
    """A gallery's name in messages, without a password that it may contain."""
    return milvus_address(text).label if is_milvus(text) else os.fspath(text)


def open_gallery(
    uri: str | os.PathLike[str] | None = None,
    *,
    encoder: EncoderIdentity | None = None,
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
        uri: None or ``":memory:"`` for one that ends with the program; the path of a ``.sqlite``
            file, a database that programs share and that holds each change at once; the path of an
            ``.npz`` file, which is read where it exists and written by ``close``; the path of a
            folder that ends in ``.db``, which Milvus Lite keeps open in this program until
            ``close``; or the address of a Milvus server or cluster, ``http://host:19530``,
            followed by ``/database`` and ``#collection`` where they are not the defaults, which
            several programs may change at once. The last two take ``pip install
            "face_encode[milvus]"``.
        encoder: The encoder that fills the gallery; None takes the one that filled it, by what a
            file that exists says of it, so that people can be listed and renamed without loading
            an encoder.
        int8: Whether to store the embeddings at one byte a number: in an ``.npz`` file, or, of a
            ``.sqlite`` file, which holds float32, in memory. A gallery of float32 is converted;
            one of int8 stays so in any case. Not for Milvus.
        token: The token of a Milvus server, ``user:password`` or an API key; None takes the
            environment's, ``FACE_ENCODE_MILVUS_TOKEN``.
        collection: The Milvus collection, ``face_encode`` by default.
        index: Milvus's index for a new gallery: ``"FLAT"`` is exact; on a server ``"AUTOINDEX"``
            is faster for very many people, and may miss a near one.
        metric: The metric of a search, ``"cosine"`` or ``"euclidean"``; None takes the gallery's,
            or ``"cosine"`` for a new one.
        create: Whether the gallery may be new: a file is written by ``close``, a collection in
            Milvus is created when the first people are enrolled.
        approximate: Whether to search an existing file by the approximate index beside it, which is
            built where there is none that fits; see docs/search.md. Takes ``pip install
            "face_encode[index]"``.

    Raises:
        GalleryError: The name has no known form, the gallery does not exist and may not be
            created, has another metric, is damaged, cannot be reached or is a ``.db`` folder that
            another program has open, the index would be of nobody, or Milvus does not support an
            option.
        InputError: The metric is unknown, int8 is asked for with one that needs lengths, or no
            encoder is given for a gallery in memory or in Milvus.
        WrongEncoderError: Another encoder filled the gallery.
        MissingExtraError: An optional dependency is not installed.
    """
    new_metric: Metric = "cosine" if metric is None else metric
    if uri is None or uri == IN_MEMORY:
        return MemoryGallery(_given(encoder), int8=int8, metric=new_metric)
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
            _given(encoder),
            token=token,
            collection=collection,
            index=index,
            metric=metric,
            create=create,
        )
    path = as_path(uri)
    check_kept(uri, f"{IN_MEMORY!r}, ")
    if is_database(path):
        database = DatabaseGallery(path, encoder, create=create, metric=metric, int8=int8)
        if approximate:
            database.build_index(approximate=True)
        return database
    # os.path, because pathlib raises where the path cannot be looked at.
    if create and encoder is not None and not os.path.exists(path):
        return MemoryGallery(encoder, path, int8=int8, metric=new_metric)
    gallery = load_gallery(path, encoder, metric=metric)
    if int8:
        gallery.quantize()
    if approximate:
        gallery.open_index()
    return gallery


def _given(encoder: EncoderIdentity | None) -> EncoderIdentity:
    """The encoder of a gallery that does not say which one filled it."""
    if encoder is None:
        raise InputError("only a gallery's file says which encoder filled it. Received: no encoder")
    return encoder
