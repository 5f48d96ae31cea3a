from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from face_encode.errors import WeightsError
from face_encode.torch_file import read_state_dict
from tests.encoders import torch_writing as writing

# Written by torch.save of PyTorch 2.13, in both containers:
#     torch.save({"whole": arange(6.).reshape(2, 3), "turned": arange(6.).reshape(2, 3).T,
#                 "part": arange(16.).reshape(4, 4)[1:, ::2], "half": tensor([1.5, -2]).half(),
#                 "brain": tensor([1.5, -2]).bfloat16(), "double": tensor([0.1]).double(),
#                 "count": tensor(7), "yes": tensor([True, False]), "none": zeros(0, 3)}, path,
#                _use_new_zipfile_serialization=...)
FILES = Path(__file__).parent / "encoders" / "torch_files"
WHOLE = np.arange(6, dtype=np.float32).reshape(2, 3)
SMALL: dict[str, npt.NDArray[np.generic]] = {"a.weight": WHOLE, "a.count": np.array(3, np.int64)}


@pytest.mark.parametrize("name", ["archive.pt", "legacy.pt"])
def test_files_of_pytorch_itself(name: str) -> None:
    tensors = read_state_dict((FILES / name).read_bytes(), 1000)
    expected = {
        "whole": WHOLE,
        "turned": WHOLE.T,
        "part": np.arange(16, dtype=np.float32).reshape(4, 4)[1:, ::2],
        "half": np.array([1.5, -2], np.float32),
        "brain": np.array([1.5, -2], np.float32),
        "double": np.array([np.float32(0.1)], np.float64),
        "count": np.array(7, np.int64),
        "yes": np.array([True, False]),
        "none": np.zeros((0, 3), np.float32),
    }
    assert list(tensors) == list(expected)
    for key, array in expected.items():
        assert (tensors[key].dtype, tensors[key].shape) == (array.dtype, array.shape), key
        np.testing.assert_array_equal(tensors[key], array)


@pytest.mark.parametrize("old", [False, True])
def test_files_made_without_pytorch(old: bool) -> None:
    tensors = read_state_dict(writing.state_dict(SMALL, old=old), 1000)
    assert list(tensors) == list(SMALL)
    for key, array in SMALL.items():
        np.testing.assert_array_equal(tensors[key], array)


class _Harmful:
    """An object of a harmful file: unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("old", [False, True])
def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path, protocol: int, old: bool) -> None:
    harmful = pickle.dumps({"weight": _Harmful(tmp_path / "made")}, protocol=protocol)
    content = writing.legacy(harmful, {}) if old else writing.archive(harmful, {})
    with pytest.raises(WeightsError, match=r"it asks for \w+\.mkdir"):
        read_state_dict(content, 1000)
    assert not (tmp_path / "made").exists()
    pickle.loads(harmful)  # it would have been
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((7,), (1,), 0),
        ((2, 3), (3, 1), 1),
        ((2, 2), (5, 1), 0),
        ((1000, 1000, 1000), (0, 0, 0), 0),
        ((2**31 - 1,), (2**31 - 1,), 2**31 - 1),
    ],
)
def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    tensor = writing.tensor(writing.storage("0", 6), offset, shape, strides)
    content = writing.archive(writing.dictionary({"w": tensor}), {"0": WHOLE.tobytes()})
    with pytest.raises(WeightsError, match="reaches beyond"):
        read_state_dict(content, 2**31)


@pytest.mark.parametrize("number", [-1, -4])
def test_negative_numbers_are_refused(number: int) -> None:
    for tensor in (
        writing.tensor(writing.storage("0", 6), number, (2,), (1,)),
        writing.tensor(writing.storage("0", 6), 0, (2,), (number,)),
        writing.tensor(writing.storage("0", 6), 0, (number,), (1,)),
    ):
        content = writing.archive(writing.dictionary({"w": tensor}), {"0": WHOLE.tobytes()})
        with pytest.raises(WeightsError, match="a tensor of shape"):
            read_state_dict(content, 1000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"not at all", "damaged"),
        (b"PK\x03\x04 not at all", "damaged"),
        (pickle.dumps({"w": [1, 2]}, protocol=2), "magic number"),
        (writing.archive(b"\x80\x02](J\x01\x00\x00\x00e.", {}), "Received: list"),
        (writing.archive(writing.dictionary({"w": writing.number(1)}), {}), r"'w': int"),
        (
            writing.archive(
                writing.dictionary({"w": writing.tensor(writing.storage("0", 6), 0, (6,), (1,))}),
                {},
            ),
            "'w' are missing",
        ),
        (
            writing.archive(
                writing.dictionary({"w": writing.tensor(writing.storage("0", 6), 0, (6,), (1,))}),
                {"0": bytes(23)},
            ),
            "6 numbers of 4 bytes. Received: 23",
        ),
        (
            writing.archive(writing.dictionary({"w": writing.storage("0", 1, "QInt8Storage")}), {}),
            "FloatStorage.*Received: torch.QInt8Storage",
        ),
        (
            writing.archive(writing.dictionary({}), {"0": bytes(9999)}, zipfile.ZIP_DEFLATED),
            "is compressed",
        ),
        (writing.archive(b"\x80\x02h\x05.", {}), "refers to a missing value"),
        (writing.archive(b"\x80\x02.", {}), "takes more than it made"),
        (writing.archive(b"\x80\x02N", {}), "damaged"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_state_dict(content, 1000)


def laughing(times: int = 24) -> bytes:
    """Push a tuple of ten tuples of ten tuples …, each kept in the memo."""
    start = b"(" + writing.text("ha") * 10 + b"tq\x00"
    return start + b"".join(b"0(" + b"h%c" % n * 10 + b"tq%c" % (n + 1) for n in range(times))


LAUGHS = laughing()
VALUE = writing.number(1)


@pytest.mark.parametrize(
    "pickled",
    [
        writing.dictionary({"w": LAUGHS}),
        b"\x80\x02" + LAUGHS + b".",
        b"\x80\x02" + LAUGHS + b"Q.",
        b"\x80\x02" + LAUGHS + b")R.",
        b"\x80\x04" + LAUGHS + LAUGHS + b"\x93.",
        writing.dictionary({"w": writing.tensor(LAUGHS, 0, (1,), (1,))}),
        writing.dictionary(
            {
                "w": writing.name("torch._utils", "_rebuild_tensor_v2")
                + writing.tuple_of(VALUE, VALUE, LAUGHS, VALUE, VALUE, VALUE)
                + b"R"
            }
        ),
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_a_value_without_end_is_told_in_a_short_line(pickled: bytes, old: bool) -> None:
    assert len(LAUGHS) < 1000
    content = writing.legacy(pickled, {}) if old else writing.archive(pickled, {})
    with pytest.raises(WeightsError) as caught:
        read_state_dict(content, 1000)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


@pytest.mark.parametrize("old", [False, True])
def test_many_names_of_one_storage_are_not_read(old: bool) -> None:
    # 4 kB of numbers that would become 80 MB.
    stored = writing.storage("0", 1000, "FloatStorage", *([b"N"] if old else []))
    items = {f"w{n}": writing.tensor(stored, 0, (1000,), (1,)) for n in range(20_000)}
    raw = bytes(4000)
    pickled = writing.dictionary(items)
    content = (
        writing.legacy(pickled, {"0": (1000, raw)}) if old else writing.archive(pickled, {"0": raw})
    )
    with pytest.raises(WeightsError, match=r"at most 5,000 numbers\. Received: .*20,000,000"):
        read_state_dict(content, 5000)


def test_more_numbers_than_the_network_has_are_not_read() -> None:
    content = writing.state_dict(SMALL)
    with pytest.raises(WeightsError, match=r"at most 6 numbers\. Received: a file with 7"):
        read_state_dict(content, 6)
    # Numbers that no tensor shows count as well.
    stored = writing.tensor(writing.storage("0", 10**9), 0, (1,), (1,))
    content = writing.archive(writing.dictionary({"w": stored}), {"0": bytes(4)})
    with pytest.raises(WeightsError, match="Received: a file with 1,000,000,000"):
        read_state_dict(content, 6)


def test_members_that_lie_over_each_other_are_refused() -> None:
    content = bytearray(writing.state_dict({"w": np.zeros(100, np.float32)}))
    # The entry of the version in the directory leads to the numbers.
    start = content.index(b"PK\x01\x02")
    place = [n for n in range(start, len(content)) if content[n : n + 4] == b"PK\x01\x02"]
    numbers, version = place[2], place[3]
    content[version + 20 : version + 28] = content[numbers + 20 : numbers + 28]
    content[version + 42 : version + 46] = content[numbers + 42 : numbers + 46]
    content[numbers + 20 : numbers + 28] = struct.pack("<II", 900, 900)
    with pytest.raises(WeightsError, match=r"members of [\d,]+ bytes in a file of"):
        read_state_dict(bytes(content), 1000)


def large(value: int) -> bytes:
    """Push a whole number of any size."""
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<i", len(content)) + content


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (1,) * 65, (1,) * 65),
        (0, (2**70, 0), (1, 1)),
        (2**70, (1,), (1,)),
        (0, (1,), (2**70,)),
        (0, (0, 10**5000), (1, 1)),
        (0, (1,), (2**61,)),
        (0, (0, 2**61), (1, 1)),
    ],
)
def test_shapes_that_numpy_cannot_hold_are_told(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    arguments = writing.tuple_of(
        writing.storage("0", 6),
        large(offset),
        writing.tuple_of(*map(large, shape)),
        writing.tuple_of(*map(large, strides)),
        b"\x89",
        b")",
    )
    tensor = writing.name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"
    content = writing.archive(writing.dictionary({"w": tensor}), {"0": WHOLE.tobytes()})
    with pytest.raises(WeightsError, match=r"32 dimensions, and its numbers fit into 64|damaged"):
        read_state_dict(content, 1000)


@pytest.mark.parametrize("old", [False, True])
def test_every_damage_is_told_as_one(old: bool) -> None:
    content = writing.state_dict(SMALL, old=old)
    random = np.random.RandomState(0)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(content)
        match random.randint(3):
            case 0:
                del damaged[random.randint(len(damaged)) :]
            case 1:
                damaged[random.randint(len(damaged))] = random.randint(256)
            case 2:
                place = random.randint(len(damaged))
                damaged[place:place] = bytes(random.randint(0, 256, random.randint(1, 9)).tolist())
        try:
            read_state_dict(bytes(damaged), 1000)  # damage to a number cannot be seen
        except WeightsError:
            refused += 1
    assert refused > 1000
