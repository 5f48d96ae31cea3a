"""Settings of a distillation that cannot be meant are refused before hours of work."""

from __future__ import annotations

from pathlib import Path

import pytest

from face_encode.errors import InputError, ModelFileError
from face_encode.training.distillation import Distillation


def test_checkpoints_lie_beside_the_output(tmp_path: Path) -> None:
    work = Distillation(tmp_path, tmp_path / "student.keras")
    assert work.run_folder == tmp_path / "student.training"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"sides": (32,)}, InputError),
        ({"optimizer": "sgd"}, InputError),
        ({"sides": (64, 48, 32, 16)}, InputError),
        ({"epochs": (1, 1, 1, 0)}, InputError),
        ({"views": (1,)}, InputError),
        ({"mixup": 1.5}, InputError),
        ({"output": Path("student.h5")}, ModelFileError),
    ],
)
def test_settings_out_of_range_are_refused(
    tmp_path: Path, changes: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error, match="Received"):
        Distillation(tmp_path, **{"output": tmp_path / "student.keras", **changes})  # type: ignore[arg-type]
