"""``face-encode index``: faster searches of a large gallery file."""

from __future__ import annotations

import argparse

from face_encode.cli.opening import add_model_options, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = (
        "Make searches of a large gallery file faster: by int8 codes kept in the file, which find "
        "the same people; or by an approximate index beside it, which may miss some."
    )
    parser.add_argument("gallery", metavar="GALLERY", help="a gallery's .npz file")
    parser.add_argument(
        "--approximate",
        action="store_true",
        help='build an approximate index (pip install "face_encode[index]")',
    )
    add_model_options(parser, threshold=False)


def run(options: argparse.Namespace) -> int:
    """Build, save, and tell of how many."""
    from face_encode.errors import GalleryError
    from face_encode.gallery.loading import load_gallery
    from face_encode.gallery.milvus_store import is_milvus
    from face_encode.gallery.opening import gallery_label

    if is_milvus(options.gallery):
        raise GalleryError(
            "what is indexed is a gallery's .npz file; one in Milvus has an index of Milvus's own "
            f"(see docs/galleries.md). Received: {gallery_label(options.gallery)}"
        )
    model = open_model(options)
    gallery = load_gallery(options.gallery, model.encoder)
    gallery.build_index(approximate=options.approximate)
    gallery.save()
    print(f"{len(gallery)} photos of {len(gallery.people())} people indexed: {options.gallery}")
    return 0
