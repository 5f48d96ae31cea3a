"""What a face shows: age, gender and expression, by one small network."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.attributes.answers import EXPRESSIONS as EXPRESSIONS
    from face_encode.attributes.answers import GENDERS as GENDERS
    from face_encode.attributes.answers import Attributes as Attributes
    from face_encode.attributes.network import AttributeNetwork as AttributeNetwork
    from face_encode.attributes.network import load_attributes as load_attributes

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answers": ["EXPRESSIONS", "GENDERS", "Attributes"],
        "network": ["AttributeNetwork", "load_attributes"],
    },
)
