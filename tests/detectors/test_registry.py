from __future__ import annotations

from typing import Any

import pytest

from face_encode.detectors.haar import HaarDetector
from face_encode.detectors.registry import DEFAULT_DETECTOR, as_detector
from face_encode.errors import InputError
from tests.tiny_parts import Halves


def test_a_detector_is_opened_by_its_name_or_taken_as_it_is() -> None:
    assert as_detector(None).name == DEFAULT_DETECTOR
    assert isinstance(as_detector("haar"), HaarDetector)
    own = Halves()
    assert as_detector(own) is own


@pytest.mark.parametrize("detector", ["unknown", b"haar", object(), ["haar"]])
def test_what_is_no_detector_is_refused(detector: Any) -> None:
    with pytest.raises(InputError, match=r"a detector is .*Received"):
        as_detector(detector)
