"""The HTTP service and its page."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.server.application import make_application as make_application
    from face_encode.server.settings import Limits as Limits
    from face_encode.server.settings import ServerSettings as ServerSettings

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "application": ["make_application"],
        "settings": ["Limits", "ServerSettings"],
    },
)
