"""The interface that every gallery has, and the checks that all of them share."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError, InputError, WrongEncoderError
from face_encode.files import TextArray
from face_encode.gallery.distances import Metric
from face_encode.gallery.thresholds import Calibration
from face_encode.types import Box, Embeddings, Match

# Euclidean distances of unit embeddings rank as cosine does, and need no search of their own.
GALLERY_METRICS: tuple[Metric, ...] = ("cosine", "euclidean")
"""The metrics of a search; ``"euclidean"`` compares embeddings as the encoder gave them."""

Replaces: TypeAlias = Literal["all", "same people", "nothing"]
"""Which enrolled embeddings new ones replace: everybody's; those of the people that the new ones
belong to; or none."""

Ranking: TypeAlias = Literal["best", "mean"]
"""How near a person with several embeddings is: ``"best"`` the similarity of the nearest one,
``"mean"`` the mean of the similarities of all."""

RANKINGS: tuple[Ranking, ...] = get_args(Ranking)

Mark: TypeAlias = "frozenset[str] | int | None"
"""What a shared gallery held when ``Gallery.mark`` was called; None where no other program can
change the gallery."""


@dataclass(frozen=True, eq=False)
class PhotoDetails:
    """What a gallery database keeps of a photo besides name, embedding and digest.

    Attributes:
        source: The name of its file, empty where unknown.
        box: The face in it, or None where unknown.
        quality: 0..1, how far the embedding can be trusted; None where it was not measured.
        crop: The face with what surrounds it as JPEG, enough for another encoder; or empty.
    """

    source: str = ""
    box: Box | None = None
    quality: float | None = None
    crop: bytes = b""

    @property
    def source_text(self) -> str:
        """The source as text that can be stored: bytes that are no UTF-8 are told by number."""
        return self.source.encode(errors="backslashreplace").decode()

    @property
    def box_numbers(self) -> tuple[int | None, ...]:
        """Left, top, width and height of the box; four times None where unknown."""
        box = self.box
        return (None,) * 4 if box is None else (box.left, box.top, box.width, box.height)


class EncoderIdentity(Protocol):
    """What a gallery has to know about the encoder that fills it."""

    @property
    def name(self) -> str:
        """The encoder's name."""

    @property
    def fingerprint(self) -> str:
        """Equal for two encoders exactly when their embeddings are."""

    @property
    def embedding_size(self) -> int:
        """Length D of an embedding."""


@dataclass(frozen=True)
class StoredEncoder:
    """The identity of the encoder that filled a gallery, as the gallery holds it."""

    name: str
    fingerprint: str
    embedding_size: int


@dataclass(frozen=True, eq=False)
class GalleryRows:
    """The content of a gallery at one moment, a row an embedding, in the order of enrolment.

    Attributes:
        names: The person of each row, str array of n.
        embeddings: float32 ``(n, D)``; of length 1 from int8.
        digests: The content digest of each row's photo, str array of n, empty where unknown.
        detector_name: The detector that found all the faces, empty where unknown or several.
        metric: The metric of a search, one of ``GALLERY_METRICS``.
        calibration: The result of ``face-encode calibrate``, or None.
        thresholds: Name -> threshold of the people who have one of their own.
    """

    names: TextArray
    embeddings: Embeddings
    digests: TextArray
    detector_name: str
    metric: Metric
    calibration: Calibration | None
    thresholds: Mapping[str, float] = field(default_factory=dict)


class Gallery(Protocol):
    """The enrolled people: their names and embeddings, and the search among them.

    Attributes:
        calibration: The result of ``face-encode calibrate`` for this encoder, or None; what is
            set here is stored with the gallery.
    """

    calibration: Calibration | None

    @property
    def is_shared(self) -> bool:
        """Whether other programs may change the gallery at the same time."""

    @property
    def encoder_name(self) -> str:
        """The name of the encoder that filled the gallery."""

    @property
    def encoder_fingerprint(self) -> str:
        """The fingerprint of that encoder; see ``EncoderIdentity``."""

    @property
    def detector_name(self) -> str:
        """The detector that found all the faces, empty where unknown or several."""

    @property
    def metric(self) -> Metric:
        """The metric of a search, one of ``GALLERY_METRICS``."""

    @property
    def precision(self) -> Literal["float32", "int8"]:
        """How the embeddings are stored: as they came, or at one byte a number."""

    @property
    def embeddings(self) -> Embeddings:
        """All embeddings, float32 ``(n, D)``, in the order of enrolment; of length 1 from int8."""

    @property
    def names(self) -> TextArray:
        """The person of each embedding, str array of n."""

    def __len__(self) -> int:
        """Number of embeddings enrolled."""

    def add(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str] | None = None,
        details: Sequence[PhotoDetails] | None = None,
    ) -> None:
        """Enrol embeddings.

        Args:
            names: n names of people; one person may have many embeddings.
            embeddings: float32 ``(n, D)``.
            digests: n content digests of the photos, empty where unknown, so that the same photo
                need not be encoded again; None where all are unknown.
            details: What else is known of the n photos, for a gallery that keeps it.

        Raises:
            InputError: The embeddings or digests are not one for each name, an embedding has
                another length, is not finite or is all zeros, or a name is not a person's name;
                nothing has changed.
        """

    def mark(self, names: Collection[str] | None = None) -> Mark:
        """Note what is enrolled now, of these people or of all, to pass to ``replace``."""

    def replace(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str],
        replaces: Replaces = "all",
        *,
        detector_name: str = "",
        mark: Mark = None,
        details: Sequence[PhotoDetails] | None = None,
    ) -> None:
        """Enrol embeddings in the place of others.

        Args:
            names: As for ``add``.
            embeddings: As for ``add``.
            digests: As for ``add``.
            replaces: Which embeddings they replace; see ``Replaces``.
            detector_name: The detector that found the faces, if known.
            mark: What was enrolled when the work on these began: embeddings that another program
                has added to a shared gallery since then stay. None takes this moment.
            details: As for ``add``.

        Raises:
            InputError: As for ``add``; nothing has changed.
        """

    def known_photos(
        self, detector_name: str, digests: Collection[str] | None = None
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Look up the photos enrolled with this detector, which need not be encoded again.

        Args:
            detector_name: The detector.
            digests: The content digests of interest; None for all. A gallery may return more.

        Returns:
            Content digest -> embedding, float32 ``(D,)``, as in ``embeddings``. Where a photo is
            enrolled several times, one of its embeddings.
        """

    def search(
        self, embeddings: Embeddings, k: int = 1, ranking: Ranking = "best"
    ) -> list[list[Match]]:
        """Find the nearest people.

        Args:
            embeddings: float32 ``(m, D)``.
            k: At most this many people for each.
            ranking: How near a person is; see ``Ranking``.

        Returns:
            m lists, each with the nearest person first, one entry a person; people who are
            equally near come in the order of their names. The similarity is the cosine, or minus
            the Euclidean distance, by the gallery's metric: of the person's nearest embedding for
            ``"best"``, the mean over all the person's embeddings for ``"mean"``. Where nobody is
            enrolled the lists are empty.

        Raises:
            InputError: An embedding has another length or is not finite, k is below 1, or the
                ranking is unknown.
            GalleryError: The gallery is damaged or cannot be reached.
        """

    def remove(self, name: str) -> int:
        """Remove a person; returns how many embeddings that person had.

        Raises:
            GalleryError: Nobody of that name is enrolled.
        """

    def rename(self, name: str, new_name: str) -> int:
        """Rename a person; returns how many embeddings that person has.

        Raises:
            InputError: The new name is not a person's name.
            GalleryError: Nobody of that name is enrolled, or the new name is taken.
        """

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Name -> threshold of the people who have one of their own."""

    def set_threshold(self, name: str, threshold: float | None) -> None:
        """Give a person a threshold of the person's own.

        Args:
            name: The person.
            threshold: Cosine similarity from which a face is this person's, -1..1; None for that
                of the model, as for everybody else.

        Raises:
            InputError: It is not within -1..1.
            GalleryError: Nobody of that name is enrolled, or the gallery keeps no such thresholds,
                as one in Milvus.
        """

    def people(self) -> dict[str, int]:
        """Name -> number of embeddings, in the order of enrolment."""

    def find_name(self, name: str) -> str | None:
        """The name under which a person is enrolled, or None where nobody of that name is.

        Case, spacing and Unicode form do not matter, except in Milvus.
        """

    def rows(self) -> GalleryRows:
        """Read everything that is enrolled at this moment."""

    def close(self) -> None:
        """Save what has changed, or disconnect from the store.

        Raises:
            GalleryError: It cannot be written.
        """


def check_encoder(where: str, name: str, fingerprint: str, encoder: EncoderIdentity) -> None:
    """Refuse a gallery that was filled by another encoder.

    Raises:
        WrongEncoderError: Names both encoders.
    """
    if fingerprint != encoder.fingerprint:
        raise WrongEncoderError(
            f"{where} was filled by the encoder {name!r} ({fingerprint}); its embeddings cannot "
            f"be compared with those of {encoder.name!r} ({encoder.fingerprint}). Use the same "
            "encoder, or enrol the photos again"
        )


# Characters that show nothing, and marks of the direction of writing, which make names look alike
# that are none. Joiners and variation selectors are kept in a name: words are written with them.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufeff\uffa0\ufff9-\ufffb]"
)
_JOINERS = re.compile("[\u200c\u200d\ufe00-\ufe0f]")
# Cyrillic and Greek letters that look like Latin ones, small or capital.
_LOOK_ALIKES = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0455\u0456\u0458\u04bb"
    "\u0501\u051b\u051d\u03b1\u03b2\u03b5\u03b6\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
    "abekmhopctyxsijhdqwabezikmvoptux",
)
_LATIN = re.compile("[a-z]")
# What Python makes of the bytes of a file's name that are no UTF-8.
_NO_TEXT = re.compile("[\udc80-\udcff]")


def check_name(name: str) -> None:
    """Check a person's name.

    Raises:
        InputError: It is not text, is empty, shows nothing, or contains control characters or
            broken encoding.
    """
    if (
        not isinstance(name, str)
        or not _JOINERS.sub("", _INVISIBLE.sub("", name)).strip()
        or any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    ):
        advice = ""
        if isinstance(name, str) and _NO_TEXT.search(name):
            try:
                os.fsencode(name).decode()
                advice = "; its bytes are UTF-8, which this Python does not expect: PYTHONUTF8=1"
            except UnicodeError:
                advice = (
                    "; its bytes are no UTF-8, but perhaps Latin-1: rename it, for a whole folder "
                    "by convmv -r -f latin1 -t utf8 --notest FOLDER"
                )
        raise InputError(
            "a person's name is text without control characters, not empty. "
            f"Received: {name!r}{advice}"
        )


def shown_form(name: str) -> str:
    """The form in which a name is shown: in Unicode's NFC, without spaces around or in a row.

    Characters that show nothing, and marks of the direction of writing, are taken out.

    Raises:
        InputError: It is not a person's name.
    """
    check_name(name)
    return " ".join(unicodedata.normalize("NFC", _INVISIBLE.sub("", name)).split())


def folded_name(name: str) -> str:
    """The form in which names are compared: equal where case, spacing or Unicode form differ.

    And where they differ in what is not seen: characters that show nothing, and in a word with
    Latin letters those of Cyrillic and Greek that look like Latin ones.
    """
    if name.isascii():
        return " ".join(name.casefold().split())
    seen = _JOINERS.sub("", _INVISIBLE.sub("", name))
    folded = unicodedata.normalize("NFKC", seen).casefold()
    words = unicodedata.normalize("NFC", folded).split()
    return " ".join(word.translate(_LOOK_ALIKES) if _LATIN.search(word) else word for word in words)


_UNKNOWN = re.compile("unknown-([1-9][0-9]{0,17})")


def unknown_id(number: int) -> str:
    """What somebody without a name is called, ``unknown-7``."""
    return f"unknown-{number}"


def unknown_number(text: str) -> int:
    """The number of somebody without a name.

    Raises:
        InputError: Nobody is called so.
    """
    found = _UNKNOWN.fullmatch(text)
    if found is None:
        raise InputError(f"somebody without a name is called unknown-7 or so. Received: {text!r}")
    return int(found[1])


# The characters of the two categories that ``check_name`` refuses; neither category ever grows:
# https://www.unicode.org/policies/stability_policy.html, property values of Cc and Cs.
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_names(names: Sequence[str]) -> None:
    """Check many names, a million in a fraction of a second.

    Raises:
        InputError: As for ``check_name``.
    """
    try:
        fine = all(map(str.strip, names)) and not _REFUSED.search("".join(names))
    except TypeError:
        fine = False
    if not fine:
        for name in names:
            check_name(name)


def one_name_a_person(names: Iterable[str], gallery: Gallery) -> tuple[dict[str, str], list[str]]:
    """Find out which names are the same person: those that differ in case, spacing or Unicode form.

    Args:
        names: Names of people.
        gallery: Who is enrolled in it keeps the name used there.

    Returns:
        Name -> the name to enrol, and a note for each that differs.
    """
    known: dict[str, str] = {}
    enrolled: dict[str, str] = {}
    holds_some = len(gallery) > 0
    for name in names:
        try:
            check_name(name)
        except InputError:
            enrolled[name] = name  # refused where its photos are
            continue
        folded = folded_name(name)
        if folded not in known:
            seen = _INVISIBLE.sub("", name)
            known[folded] = (holds_some and gallery.find_name(name)) or seen
        enrolled[name] = known[folded]
    return enrolled, [
        f"{name!r} and {shown!r} are one person, {shown!r}"
        for name, shown in enrolled.items()
        if name != shown
    ]


def check_new(
    names: Sequence[str], embeddings: Any, digests: Sequence[str] | None, size: int
) -> tuple[Embeddings, Sequence[str]]:
    """Check the arguments of ``Gallery.add``; ``size`` is the length D of an embedding.

    Returns:
        The embeddings as float32 ``(n, D)``, and n digests, empty ones for None.

    Raises:
        InputError: As for ``Gallery.add``.
    """
    is_ready = isinstance(embeddings, np.ndarray) and embeddings.dtype == np.float32
    added: Embeddings = embeddings if is_ready else as_float32(embeddings)
    if added.shape != (len(names), size):
        raise InputError(
            f"{len(names)} names take embeddings of shape ({len(names)}, {size}). "
            f"Received: shape {added.shape}"
        )
    lengths = np.linalg.norm(added, axis=1)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise InputError("an embedding is finite and not all zeros; at least one is not")
    check_names(names)
    digests = [""] * len(names) if digests is None else digests
    if len(digests) != len(names):
        raise InputError(f"{len(names)} names take as many digests. Received: {len(digests)}")
    return added, digests


def as_float32(embeddings: Any) -> Embeddings:
    """Convert an argument that holds embeddings.

    Raises:
        InputError: It is not an array of numbers.
    """
    try:
        # A number beyond the range of float32 becomes infinite, and is refused as that.
        with np.errstate(over="ignore"):
            return np.asarray(embeddings, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"embeddings are an array of numbers: {error}") from error


def check_undamaged(values: npt.NDArray[np.floating]) -> None:
    """Check numbers of a gallery whose file was mapped, and therefore not checked when opened.

    Args:
        values: Enrolled embeddings, or similarities to them.

    Raises:
        GalleryError: A value is not finite.
    """
    if not np.isfinite(values).all():
        raise GalleryError("the gallery is damaged: an embedding in it is not finite")


def check_cosine(metric: Metric, what: str) -> None:
    """Refuse a gallery by Euclidean distance where only directions are kept.

    Args:
        metric: The gallery's.
        what: What keeps only directions, with its verb: "int8 keeps".

    Raises:
        InputError: The metric is not cosine.
    """
    if metric != "cosine":
        raise InputError(
            f"{what} the direction of an embedding only, which is enough for the metric "
            f"'cosine'. Received: a gallery of the metric {metric!r}"
        )
