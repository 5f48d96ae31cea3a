"""Model files that are broken or hold no encoder: each is refused in words."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from face_encode.encoders.contract import CONTRACT_MEMBER
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import load_encoder
from face_encode.errors import FaceEncodeError, InputError, ModelFileError
from tests.broken_inputs.making import Explosive, encoded

Change = Callable[[bytes], bytes]


def archive(change: Callable[[dict[str, bytes]], None]) -> Change:
    """The model file with other members."""

    def changed(whole: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(whole)) as former:
            members = {name: former.read(name) for name in former.namelist()}
        change(members)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as new:
            for name, data in members.items():
                new.writestr(name, data)
        return buffer.getvalue()

    return changed


def without(name: str) -> Change:
    def change(members: dict[str, bytes]) -> None:
        del members[name]

    return archive(change)


def member(name: str, data: bytes) -> Change:
    return archive(lambda members: members.update({name: data}))


def contract(**changes: Any) -> Change:
    """The model file with another contract; None takes a value out."""

    def change(members: dict[str, bytes]) -> None:
        values = {**json.loads(members[CONTRACT_MEMBER]), **changes}
        kept = {name: value for name, value in values.items() if value is not None}
        members[CONTRACT_MEMBER] = json.dumps(kept).encode()

    return archive(change)


def crop(**changes: Any) -> dict[str, Any]:
    return {"method": "box", "height": 8, "width": 8, "margin": 0.0, **changes}


def something_else(members: dict[str, bytes]) -> None:
    members.clear()
    members["a.txt"] = b"a"


def foreign_weights(members: dict[str, bytes]) -> None:
    file = io.BytesIO(members["model.weights.h5"])
    with h5py.File(file, "r+") as weights:
        weights["more"] = h5py.ExternalLink("/etc/passwd", "/")
    members["model.weights.h5"] = file.getvalue()


def expanding(name: str) -> Change:
    """A member of half a gigabyte that takes half a megabyte."""

    def changed(whole: bytes) -> bytes:
        buffer = io.BytesIO(without(name)(whole))
        with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as new, new.open(name, "w") as file:
            for _ in range(500):
                file.write(bytes(1_000_000))
        return buffer.getvalue()

    return changed


def short_weights(members: dict[str, bytes]) -> None:
    members["model.weights.h5"] = members["model.weights.h5"][:900]


DAMAGED_CONTRACT = "the contract inside the model file is damaged"

DAMAGED: dict[str, tuple[Change, str]] = {
    "no bytes": (lambda _: b"", "not a .keras file, or damaged"),
    "a text": (lambda _: b"weights: 1, 2, 3", "not a .keras file, or damaged"),
    "a photo": (lambda _: encoded("JPEG"), "not a .keras file, or damaged"),
    "random bytes": (lambda _: np.random.default_rng(0).bytes(5_000), "not a .keras file"),
    "its first half": (lambda whole: whole[: len(whole) // 2], "not a .keras file, or damaged"),
    "all but its last byte": (lambda whole: whole[:-1], "not a .keras file, or damaged"),
    "an empty archive": (archive(dict.clear), "Keras cannot load"),
    "an archive of something else": (
        archive(something_else),
        "Keras cannot load",
    ),
    "no graph": (without("config.json"), "Keras cannot load"),
    "a graph that is no JSON": (member("config.json", b"{"), "Keras cannot load"),
    "an empty graph": (member("config.json", b"{}"), "Keras cannot load"),
    "a graph of an unknown layer": (
        member("config.json", b'{"module": null, "class_name": "No", "config": {}}'),
        "Keras cannot load",
    ),
    "no weights": (without("model.weights.h5"), "Keras cannot load"),
    "weights that are text": (member("model.weights.h5", b"1, 2, 3"), "Keras cannot load"),
    "weights that end early": (archive(short_weights), "Keras cannot load"),
    "weights of other files": (archive(foreign_weights), "Keras cannot load .*'/more' is a link"),
    "weights that expand": (expanding("model.weights.h5"), "Keras cannot load .* expands to"),
    "a contract that expands": (expanding(CONTRACT_MEMBER), "face_encode.json has at most"),
    "a contract that is no JSON": (member(CONTRACT_MEMBER, b"{"), DAMAGED_CONTRACT),
    "a contract that is no text": (member(CONTRACT_MEMBER, b"\xff\xfe\x00"), DAMAGED_CONTRACT),
    "a contract that is a list": (member(CONTRACT_MEMBER, b"[1]"), DAMAGED_CONTRACT),
    "a contract that is empty": (member(CONTRACT_MEMBER, b"{}"), DAMAGED_CONTRACT),
    "a contract without bottom": (member(CONTRACT_MEMBER, b"[" * 99_999), DAMAGED_CONTRACT),
    "a contract of a later version": (contract(contract_version=2), "a later release"),
    "a contract without a version": (contract(contract_version=None), "'contract_version'"),
    "a contract without a crop": (contract(crop=None), "'crop'"),
    "a contract without a threshold": (contract(threshold=None), "threshold"),
    "a contract with a word too much": (contract(colour="blue"), "colour"),
    "a threshold of 2": (contract(threshold=2), "-1..1. Received: 2"),
    "a threshold that is text": (contract(threshold="high"), DAMAGED_CONTRACT),
    "a threshold that is no number": (contract(threshold=float("nan")), "Received: nan"),
    "an empty name": (contract(name=""), "name is text, not empty"),
    "a name that is a number": (contract(name=3), "name is text, not empty"),
    "an unknown metric": (contract(metric="euclid"), "the metric is 'cosine'"),
    "an unknown range of pixels": (contract(pixel_range=[-1, 1]), r"\(0, 255\) or \(0, 1\)"),
    "a mirror that is text": (contract(mirror="no"), "'mirror' is true or false"),
    "an impossible false match rate": (contract(false_match_rate=0), "between 0 and 1"),
    "an unknown crop": (contract(crop=crop(method="oval")), "crop method is one of"),
    "a crop of no height": (contract(crop=crop(height=0)), "height is a whole number"),
    "a crop of half a pixel": (contract(crop=crop(width=8.5)), "width is a whole number"),
    "a crop that is text": (contract(crop="8x8"), DAMAGED_CONTRACT),
    "a margin below 0": (contract(crop=crop(margin=-1)), "margin lies within 0..2"),
    "a crop of another size": (contract(crop=crop(height=9)), "the contract says crops of 9x8"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_model_file_is_refused(case: str, tmp_path: Path, tiny_file: Path) -> None:
    change, told = DAMAGED[case]
    path = tmp_path / "model.keras"
    path.write_bytes(change(tiny_file.read_bytes()))
    with pytest.raises(ModelFileError, match=told) as caught:
        load_encoder(path)
    assert "\n" not in str(caught.value)


def layers(*between: Any, shape: tuple[int | None, ...] = (8, 8, 3)) -> Any:
    import keras

    return keras.Sequential([keras.Input(shape), *between])


def flat() -> Any:
    import keras

    return keras.layers.Flatten()


def doubled(*shape: int | None) -> Any:
    import keras

    return layers(keras.layers.Rescaling(2.0), shape=shape)


def siamese() -> Any:
    import keras

    inputs = [keras.Input((8, 8, 3)) for _ in range(3)]
    return keras.Model(inputs, keras.layers.Concatenate()([flat()(each) for each in inputs]))


def two_outputs() -> Any:
    import keras

    image = keras.Input((8, 8, 3))
    return keras.Model(image, [flat()(image), keras.layers.GlobalMaxPooling2D()(image)])


def with_lambda() -> Any:
    import keras

    return layers(keras.layers.Lambda(lambda image: image * 2), flat())


def with_custom_layer() -> Any:
    import keras

    class Custom(keras.layers.Layer):  # type: ignore[misc]
        def call(self, image: Any) -> Any:
            return image

    return layers(Custom(), flat())


def never_called() -> Any:
    import keras

    return keras.Sequential([flat(), keras.layers.Dense(4)])


NO_ENCODERS: dict[str, tuple[Callable[[], Any], str]] = {
    "three inputs": (siamese, "this model takes 3 inputs. Of a Siamese network"),
    "two outputs": (two_outputs, "an encoder gives one vector an image"),
    "an image out": (lambda: doubled(8, 8, 3), "an encoder gives one vector an image"),
    "grey images": (lambda: layers(flat(), shape=(8, 8, 1)), r"input shape \(None, 8, 8, 1\)"),
    "colours first": (lambda: layers(flat(), shape=(3, 8, 8)), r"input shape \(None, 3, 8, 8\)"),
    "a vector in": (lambda: doubled(9), r"input shape \(None, 9\)"),
    "a film in": (lambda: layers(flat(), shape=(5, 8, 8, 3)), "an encoder takes RGB images"),
    "an open size": (lambda: doubled(None, None, 3), "not of one fixed size"),
    "a Lambda layer": (with_lambda, "Keras cannot load .*Lambda"),
    "a layer of its own": (with_custom_layer, "Keras cannot load .*Custom"),
    "never called": (never_called, "no fixed input shape"),
}


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
@pytest.mark.parametrize("case", NO_ENCODERS)
def test_a_whole_model_that_is_no_encoder_is_refused(case: str, tmp_path: Path) -> None:
    make, told = NO_ENCODERS[case]
    path = tmp_path / "model.keras"
    make().save(path)
    with pytest.raises(ModelFileError, match=told) as caught:
        load_encoder(path)
    assert "\n" not in str(caught.value)


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(path)


NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (lambda path: None, "no such model file"),
    "a folder": (folder, "is a directory"),
    "a pipe": (pipe, "not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "a dangling link": (lambda path: path.symlink_to("gone"), "no such model file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "too many levels"),
}


@pytest.mark.parametrize("case", NO_FILES)
def test_what_is_no_model_file_is_refused(case: str, tmp_path: Path) -> None:
    make, told = NO_FILES[case]
    make(tmp_path / "model.keras")
    with pytest.raises(ModelFileError, match=told):
        load_encoder(tmp_path / "model.keras")


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ("", ModelFileError, "an encoder is one of offline, .*Received: ''"),
        ("vgg", ModelFileError, "Received: 'vgg'"),
        ("model.h5", ModelFileError, "Received: 'model.h5'"),
        ("a" * 300 + ".keras", ModelFileError, "name too long"),
        ("a\0.keras", InputError, "without null characters"),
        (b"model.keras", ModelFileError, "Received: b'model.keras'"),
        (3, ModelFileError, "Received: 3"),
        (["dlib_resnet"], ModelFileError, "Received: .'dlib_resnet'"),
        (Explosive, ModelFileError, "Received: <class"),
    ],
)
def test_what_names_no_encoder_is_refused(
    given: Any, error: type[FaceEncodeError], told: str
) -> None:
    with pytest.raises(error, match=told):
        load_encoder(given)


CROPS: dict[str, tuple[Any, str]] = {
    "another size": (np.zeros((1, 9, 8, 3), np.uint8), r"\(1, 9, 8, 3\)"),
    "one crop without a batch": (np.zeros((8, 8, 3), np.uint8), r"\(8, 8, 3\)"),
    "floats": (np.zeros((1, 8, 8, 3), np.float32), "float32"),
    "grey": (np.zeros((1, 8, 8, 1), np.uint8), r"\(1, 8, 8, 1\)"),
    "a list": ([[1, 2, 3]], "Received: list"),
    "nothing": (None, "Received: NoneType"),
}


@pytest.mark.parametrize("case", CROPS)
def test_what_are_no_crops_is_refused(case: str, tiny: Encoder) -> None:
    crops, told = CROPS[case]
    with pytest.raises(InputError, match=told):
        tiny.encode(crops)
