"""JPEG photos that lack their end: what is there is read when almost all of it is."""

from __future__ import annotations

import struct

from face_encode.types import ImageArray

END = b"\xff\xd9"

# Share of the rows that may be missing.
_MAX_MISSING = 0.05
# Markers without a length behind them, and the frames and scans that matter here.
_ALONE = {0x01, *range(0xD0, 0xDA)}
_FRAMES = {0xC0, 0xC1, 0xC2}
_PROGRESSIVE, _SCAN = 0xC2, 0xDA


def may_lack_its_end(content: bytes) -> bool:
    """Whether a JPEG file that cannot be decoded may become readable by an end behind it.

    A progressive one is all there, but for finest detail, once the last scan of its first component
    has begun: before, the whole photo is coarse.
    """
    if not content.startswith(b"\xff\xd8") or content.endswith(END):
        return False
    frame, first, place, refined = 0, 0, 2, False
    try:
        while place + 4 <= len(content):
            if content[place] != 0xFF:
                place = content.find(b"\xff", place)  # the numbers of a scan
                if place < 0:
                    break
                continue
            marker = content[place + 1]
            if marker in _ALONE or marker in (0x00, 0xFF):
                place += 1 if marker == 0xFF else 2
                continue
            (length,) = struct.unpack_from(">H", content, place + 2)
            part = content[place + 4 : place + 2 + length]
            if marker in _FRAMES:
                frame, first = marker, part[6]
            elif marker == _SCAN:
                # Components, then first and last coefficient, and by how many bits it is coarse.
                last, bits = part[-2], part[-1] & 15
                refined |= part[0] == 1 and part[1] == first and last == 63 and bits == 0
            place += 2 + length
    except (IndexError, struct.error):
        return False
    return frame != 0 and (frame != _PROGRESSIVE or refined)


def is_almost_whole(image: ImageArray) -> bool:
    """Whether almost all of a photo is there that was decoded with an end put behind it.

    Args:
        image: uint8 ``(H, W, 3)``, not turned yet. What is missing has one colour, down to the last
            pixel.
    """
    flat = (image == image[-1, -1]).all(axis=(1, 2))[::-1]
    missing = len(flat) if flat.all() else int(flat.argmin())
    return missing <= _MAX_MISSING * len(flat)
