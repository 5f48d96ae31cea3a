"""Reading photos and folders of people, and drawing on photos."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from face_encode.photos.drawing import blur_boxes as blur_boxes
    from face_encode.photos.drawing import draw_boxes as draw_boxes
    from face_encode.photos.folders import people_in as people_in
    from face_encode.photos.folders import photos_in as photos_in
    from face_encode.photos.reading import as_rgb as as_rgb
    from face_encode.photos.reading import decode_image as decode_image
    from face_encode.photos.reading import read_image as read_image
    from face_encode.photos.reading import read_photo as read_photo

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "drawing": ["blur_boxes", "draw_boxes"],
        "folders": ["people_in", "photos_in"],
        "reading": ["as_rgb", "decode_image", "read_image", "read_photo"],
    },
)
