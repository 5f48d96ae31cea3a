"""Many photos: worker processes, batches, enrolment, and files of embeddings."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.pipeline.embedding import EmbeddedPhoto as EmbeddedPhoto
    from face_encode.pipeline.embedding import embed_photos as embed_photos
    from face_encode.pipeline.embedding_file import read_embeddings as read_embeddings
    from face_encode.pipeline.embedding_file import write_embeddings as write_embeddings
    from face_encode.pipeline.embedding_table import EmbeddingTable as EmbeddingTable
    from face_encode.pipeline.enrolment import enrol_people as enrol_people
    from face_encode.pipeline.folder import EmbeddingReport as EmbeddingReport
    from face_encode.pipeline.folder import embed_folder as embed_folder

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "embedding": ["EmbeddedPhoto", "embed_photos"],
        "embedding_file": ["read_embeddings", "write_embeddings"],
        "embedding_table": ["EmbeddingTable"],
        "enrolment": ["enrol_people"],
        "folder": ["EmbeddingReport", "embed_folder"],
    },
)
