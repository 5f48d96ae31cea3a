"""The frame as it is shown and recorded: boxes and names drawn, unknown faces blurred."""

from __future__ import annotations

from face_encode.photos.drawing import KNOWN_COLOUR, UNKNOWN_COLOUR, blur_boxes, draw_boxes
from face_encode.types import ImageArray
from face_encode.watching.results import WatchedFrame

UNSETTLED_COLOUR = (120, 120, 120)


def draw_watched(frame: WatchedFrame, *, blur_unknown: bool = False) -> ImageArray:
    """Draw the faces followed on a copy of their frame.

    A face that nobody can be named for yet has a grey box without a label.

    Args:
        frame: What ``watch`` gives.
        blur_unknown: Whether to blur every face but those of enrolled people, also while it is
            not settled who they are.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    image = frame.image
    if blur_unknown:
        unknown = [face.box for face in frame.faces if face.name is None]
        image = blur_boxes(image, [*unknown, *frame.uncertain])
    labels, colours = [], []
    for face in frame.faces:
        if face.name is not None:
            labels.append(f"{face.name} {face.similarity:.2f}")
            colours.append(KNOWN_COLOUR)
        elif face.is_settled:
            labels.append("unknown")
            colours.append(UNKNOWN_COLOUR)
        else:
            labels.append("")
            colours.append(UNSETTLED_COLOUR)
    return draw_boxes(image, [face.box for face in frame.faces], labels, colours)
