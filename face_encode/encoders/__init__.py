"""From crops of faces to embeddings: encoders, their contract and their engines."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.encoders.contract import EncoderContract as EncoderContract
    from face_encode.encoders.contract import read_contract as read_contract
    from face_encode.encoders.contract import save_encoder as save_encoder
    from face_encode.encoders.encoder import Encoder as Encoder
    from face_encode.encoders.export import ExportedEncoder as ExportedEncoder
    from face_encode.encoders.export import export_encoder as export_encoder
    from face_encode.encoders.quality import QualityHead as QualityHead
    from face_encode.encoders.registry import KNOWN_ENCODERS as KNOWN_ENCODERS
    from face_encode.encoders.registry import load_encoder as load_encoder
    from face_encode.encoders.vgg16 import vgg_embedding as vgg_embedding

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "contract": ["EncoderContract", "read_contract", "save_encoder"],
        "encoder": ["Encoder"],
        "export": ["ExportedEncoder", "export_encoder"],
        "quality": ["QualityHead"],
        "registry": ["KNOWN_ENCODERS", "load_encoder"],
        "vgg16": ["vgg_embedding"],
    },
)
