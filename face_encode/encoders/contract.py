"""The contract: the part of a model file that says how to use it.

A ``.keras`` file is a zip archive, and Keras ignores members that it does not know. The contract is
one such member, ``face_encode.json``: ``keras.models.load_model`` opens the file without this
package, and this package finds everything that the right use of the model depends on. The head that
judges the embeddings' quality, if there is one, is another.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from face_encode.encoders.quality import QualityHead
from face_encode.errors import InputError, ModelFileError
from face_encode.files import as_path, open_regular, reason_of, replacing
from face_encode.types import CropRecipe, check_number
from face_encode.version import __version__

if TYPE_CHECKING:
    import keras

CONTRACT_MEMBER = "face_encode.json"
QUALITY_MEMBER = "face_encode_quality.npz"
ATTRIBUTES_MEMBER = "face_encode_attributes.json"
CONTRACT_VERSION = 1
_CONFIG_MEMBER = "config.json"
# What Keras up to 3.15 began to write about layers and initializers, with the value that releases
# before go by. They refuse a file that names what they do not know: Python 3.10 has Keras 3.12.
_NEW_SETTINGS = {
    "input_axes": None,
    "output_axes": None,
    "quantization_config": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
}
# A contract takes a kilobyte, a quality head some megabytes.
_MAX_MEMBER_BYTES = 64_000_000
ORIGINAL_THRESHOLD = 0.7

Read = TypeVar("Read")


@dataclass(frozen=True)
class EncoderContract:
    """Everything that using an encoder right depends on.

    Attributes:
        name: The encoder's name in reports and galleries.
        crop: How faces are cut out.
        threshold: Cosine similarity from which two faces count as one person.
        false_match_rate: Share of pairs of strangers at or above the threshold when it was
            calibrated; None if it never was.
        pixel_range: Values that the Keras graph takes: ``(0, 255)`` if the scaling is part of the
            graph, ``(0, 1)`` for files of the original project.
        mirror: Whether the embedding is the mean over the crop and its mirror image.
        metric: How two embeddings are compared.
        euclidean_threshold: Euclidean distance of two embeddings, not normalised, up to which two
            faces count as one person, at the same false match rate; None if it was not measured.
        quality_threshold: Quality, 0..1, below which an embedding is not to be trusted: it matches
            nobody, and is not enrolled. None if the encoder does not judge its embeddings.
        thresholds: Further thresholds: false match rates, falling, each with its cosine
            similarity, measured together with ``threshold``.
        spread: Standard deviation of the similarities of strangers, the unit in which the
            similarities of several encoders are added; None if it was not measured.
        trained_on: The training data, in words.
        licence: The licence of the weights.
        package_version: Version of this package that wrote the file.
    """

    name: str
    crop: CropRecipe
    threshold: float
    false_match_rate: float | None = None
    pixel_range: tuple[int, int] = (0, 255)
    mirror: bool = False
    metric: Literal["cosine"] = "cosine"
    euclidean_threshold: float | None = None
    quality_threshold: float | None = None
    thresholds: tuple[tuple[float, float], ...] = ()
    spread: float | None = None
    trained_on: str = "unknown"
    licence: str = "unknown"
    package_version: str = __version__

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"an encoder's name is text, not empty. Received: {self.name!r}")
        if not isinstance(self.mirror, bool):
            raise InputError(f"'mirror' is true or false. Received: {self.mirror!r}")
        check_number(self.threshold, "a cosine threshold", -1, 1)
        if self.false_match_rate is not None:
            check_number(self.false_match_rate, "a false match rate", 0, 1, ends=False)
        if self.pixel_range not in ((0, 255), (0, 1)):
            raise InputError(f"the pixel range is (0, 255) or (0, 1). Received: {self.pixel_range}")
        if self.metric != "cosine":
            raise InputError(f"the metric is 'cosine'. Received: {self.metric!r}")
        if self.euclidean_threshold is not None:
            check_number(self.euclidean_threshold, "a Euclidean threshold", 0, ends=False)
        if self.quality_threshold is not None:
            check_number(self.quality_threshold, "a quality threshold", 0, 1)
        for rate, threshold in self.thresholds:
            check_number(rate, "a false match rate", 0, 1, ends=False)
            check_number(threshold, "a cosine threshold", -1, 1)
        if self.spread is not None:
            check_number(self.spread, "a spread", 0, 1, ends=False)

    def threshold_at(self, false_match_rate: float) -> float:
        """Look up the cosine similarity that a share of the pairs of strangers reaches.

        Raises:
            InputError: It was not measured for this rate.
        """
        false_match_rate = check_number(false_match_rate, "a false match rate", 0, 1)
        known = dict(self.thresholds)
        if self.false_match_rate is not None:
            known[self.false_match_rate] = self.threshold
        if false_match_rate not in known:
            rates = ", ".join(f"{rate:g}" for rate in sorted(known, reverse=True)) or "none"
            raise InputError(
                f"the thresholds of {self.name!r} were measured for these false match rates: "
                f"{rates}. Received: {false_match_rate!r}"
            )
        return known[false_match_rate]

    def to_json(self) -> str:
        """Write the text of the archive member."""
        values = {"contract_version": CONTRACT_VERSION, **asdict(self), "crop": self.crop.as_dict()}
        # Former releases refuse what they do not know.
        for name, empty in (("thresholds", ()), ("spread", None)):
            if values[name] == empty:
                del values[name]
        return json.dumps(values, indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> EncoderContract:
        """Read the text of the archive member.

        Raises:
            ModelFileError: The text is no contract, or one of a later version.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            version = values.pop("contract_version")
            if version != CONTRACT_VERSION:
                raise ModelFileError(
                    f"this release reads contracts of version {CONTRACT_VERSION}; a later "
                    f"release of face_encode wrote this one. Received: version {version}"
                )
            values["crop"] = CropRecipe.from_dict(values["crop"])
            values["thresholds"] = tuple(map(tuple, values.get("thresholds", ())))
            values["pixel_range"] = tuple(values["pixel_range"])
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ModelFileError(
                f"the contract inside the model file is damaged: {error}"
            ) from error


def original_contract(name: str, height: int, width: int) -> EncoderContract:
    """Make the contract for a ``.keras`` file without one: the original project's conventions.

    Pixels divided by 255, the detector's box resized to the model's input, cosine, and the
    original's threshold of 0.7, which was never calibrated.

    Args:
        name: The encoder's name.
        height: Height of the model's input, in pixels.
        width: Width of the model's input.
    """
    return EncoderContract(
        name=name,
        crop=CropRecipe("box", height, width),
        threshold=ORIGINAL_THRESHOLD,
        pixel_range=(0, 1),
    )


def read_contract(path: str | os.PathLike[str]) -> EncoderContract | None:
    """Read the contract inside a ``.keras`` file; None if it has none.

    Raises:
        ModelFileError: The file is missing, no ``.keras`` archive, or its contract is damaged.
    """
    return read_member(as_path(path), CONTRACT_MEMBER, EncoderContract.from_json)


def read_quality_head(path: str | os.PathLike[str]) -> QualityHead | None:
    """Read the quality head inside a ``.keras`` file; None if it has none.

    Raises:
        ModelFileError: As for ``read_contract``.
    """
    return read_member(as_path(path), QUALITY_MEMBER, QualityHead.from_bytes)


def read_member(path: Path, member: str, read: Callable[[bytes], Read]) -> Read | None:
    """Read a member of a ``.keras`` file; None if it has none of that name.

    Raises:
        ModelFileError: As for ``read_contract``.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            if member not in archive.namelist():
                return None
            if (size := archive.getinfo(member).file_size) > _MAX_MEMBER_BYTES:
                raise ModelFileError(
                    f"{member} has at most {_MAX_MEMBER_BYTES:,} bytes. Received: {size:,}"
                )
            return read(archive.read(member))
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise ModelFileError(f"no such model file: {path}") from error
    except OSError as error:
        raise ModelFileError(f"cannot read the model file {path}: {reason_of(error)}") from error
    # zipfile raises whatever a damaged archive trips over: BadZipFile, zlib.error,
    # NotImplementedError …
    except Exception as error:
        raise ModelFileError(f"not a .keras file, or damaged: {path} ({error!s:.300})") from error


def save_encoder(
    model: keras.Model,
    path: str | os.PathLike[str],
    contract: EncoderContract,
    *,
    half_precision: bool = False,
    quality_head: QualityHead | None = None,
    members: Mapping[str, str] | None = None,
) -> None:
    """Save a Keras model with its contract inside, atomically.

    Args:
        model: One image in, one embedding out; no custom layer, so that the file opens without
            this package.
        path: The file, ending in ``.keras``. If anything fails, a former file stays unchanged.
        contract: How the model is used.
        half_precision: Whether to round the weights in the file to float16 and compress it, which
            halves it: embeddings differ by about 1e-4. The file still holds a float32 model, and
            the weights of ``model`` do not change.
        quality_head: Judges the model's embeddings, by the contract's quality threshold; None
            saves the contract without that.
        members: Further members of the archive, name -> text.

    Raises:
        ModelFileError: The path does not end in ``.keras``, or it cannot be written to.
    """
    path = as_path(path)
    if path.suffix != ".keras":
        raise ModelFileError(f"a model file's name ends in .keras. Received: {path}")
    with replacing(path, ModelFileError, shared=True) as temporary:
        save_model(model, temporary, half_precision=half_precision)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            if quality_head is None:
                contract = replace(contract, quality_threshold=None)
            archive.writestr(CONTRACT_MEMBER, contract.to_json())
            if quality_head is not None:
                archive.writestr(QUALITY_MEMBER, quality_head.to_bytes())
            for name, text in (members or {}).items():
                archive.writestr(name, text)


def copy_with_quality(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    contract: EncoderContract,
    quality_head: QualityHead,
) -> None:
    """Copy a ``.keras`` file with another contract and quality head; the model stays to the byte.

    Args:
        source: The file.
        path: The copy; may be the same.
        contract: As for ``save_encoder``.
        quality_head: As for ``save_encoder``.

    Raises:
        ModelFileError: The source cannot be read, or the copy cannot be written.
    """
    read_contract(source)
    with zipfile.ZipFile(as_path(source)) as archive:
        members = {each.filename: archive.read(each) for each in archive.infolist()}
    members[CONTRACT_MEMBER] = contract.to_json().encode()
    members[QUALITY_MEMBER] = quality_head.to_bytes()
    with (
        replacing(as_path(path), ModelFileError, shared=True) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for name, content in members.items():
            archive.writestr(name, content)


def save_model(model: keras.Model, path: Path, *, half_precision: bool = False) -> None:
    """Save a plain Keras model that older releases of Keras open, too.

    Args:
        model: The model.
        path: The file, ending in ``.keras``; nothing is to be lost in it.
        half_precision: As for ``save_encoder``.
    """
    import keras

    if half_precision:
        rounded = keras.models.clone_model(model)
        rounded.set_weights([_as_float16(weight) for weight in model.get_weights()])
        model = rounded
    compression = zipfile.ZIP_DEFLATED if half_precision else zipfile.ZIP_STORED
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saved-") as folder:
        saved = Path(folder) / path.name
        model.save(saved)
        with (
            zipfile.ZipFile(saved) as source,
            zipfile.ZipFile(path, "w", compression, compresslevel=9) as target,
        ):
            for member in source.infolist():
                if member.filename == _CONFIG_MEMBER:
                    target.writestr(_CONFIG_MEMBER, _for_older_keras(source.read(member)))
                    continue
                is_large = member.file_size >= zipfile.ZIP64_LIMIT
                with (
                    source.open(member) as content,
                    target.open(member.filename, "w", force_zip64=is_large) as copied,
                ):
                    shutil.copyfileobj(content, copied)


def _for_older_keras(config: bytes) -> str:
    """A model's description without settings that are new and have the value of before."""

    def known(settings: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value
            for name, value in settings.items()
            if name not in _NEW_SETTINGS or value != _NEW_SETTINGS[name]
        }

    return json.dumps(json.loads(config, object_hook=known))


def _as_float16(weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Round an array to float16, but keep its type and the values that float16 cannot hold."""
    if weight.dtype != np.float32:
        return weight
    with np.errstate(over="ignore"):
        rounded = weight.astype(np.float16).astype(np.float32)
    return np.where(np.isfinite(rounded) | ~np.isfinite(weight), rounded, weight)
