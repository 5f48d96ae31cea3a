"""Commands that change a gallery file: ``face-encode index`` and ``face-encode remove``."""

from __future__ import annotations

import argparse

from face_encode.cli.options import add_model_options, open_model


def add_index_arguments(parser: argparse.ArgumentParser) -> None:
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


def run_index(options: argparse.Namespace) -> int:
    """Build the index, save the gallery, and print the counts."""
    from face_encode.errors import GalleryError
    from face_encode.gallery.milvus_store import is_milvus
    from face_encode.gallery.opening import gallery_label, load_gallery

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


def add_remove_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = "Take a person out of a gallery; the others stay as they are."
    parser.add_argument("gallery", metavar="GALLERY", help="a gallery file, or one in Milvus")
    parser.add_argument("name", metavar="NAME")
    add_model_options(parser)


def run_remove(options: argparse.Namespace) -> int:
    """Remove the person, save, and print how many photos remain."""
    model = open_model(options)
    model.load_gallery(options.gallery)
    count = model.remove_person(options.name)
    model.gallery.close()
    print(f"{options.name} removed: {count} photos; {len(model.gallery)} remain")
    return 0
