"""What a gallery is, wherever it is kept."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError, InputError, WrongEncoderError
from face_encode.gallery.distances import Metric
from face_encode.gallery.thresholds import Calibration
from face_encode.types import Embeddings, Match

if TYPE_CHECKING:
    from face_encode.gallery.memory import MemoryGallery

# Euclidean distances of embeddings at length 1 rank as cosine does: no search of their own.
GALLERY_METRICS: tuple[Metric, ...] = ("cosine", "euclidean")
"""What a gallery can be searched by; ``"euclidean"`` compares embeddings as they are."""

Replaces: TypeAlias = Literal["all", "same people", "nothing"]
"""Which of a gallery's embeddings new ones take the place of: everybody's; those of the people whom
the new ones are of; or none."""

Ranking: TypeAlias = Literal["best", "mean"]
"""How near a person is, who may have many embeddings enrolled: ``"best"`` as near as the nearest of
them, ``"mean"`` the mean of the similarities of all of them."""

RANKINGS: tuple[Ranking, ...] = get_args(Ranking)

Mark: TypeAlias = "frozenset[str] | None"
"""What a gallery held at a moment, by ``Gallery.mark``; None where nobody else can change it."""


class EncoderIdentity(Protocol):
    """What a gallery has to know of the encoder that fills it."""

    @property
    def name(self) -> str:
        """What the encoder is called."""

    @property
    def fingerprint(self) -> str:
        """The same for two encoders exactly when they embed alike."""

    @property
    def embedding_size(self) -> int:
        """Length D of an embedding."""


class Gallery(Protocol):
    """The enrolled people: their embeddings and names, and the search in them.

    Attributes:
        calibration: What ``face-encode calibrate`` learnt for this encoder, or None; what is set
            here is kept with the gallery.
    """

    calibration: Calibration | None

    @property
    def is_shared(self) -> bool:
        """Whether other programs may change it at the same time."""

    @property
    def encoder_name(self) -> str:
        """The name of the encoder whose embeddings it holds."""

    @property
    def encoder_fingerprint(self) -> str:
        """The fingerprint of that encoder; see ``EncoderIdentity``."""

    @property
    def detector_name(self) -> str:
        """The detector that found all the faces, empty where unknown or where it was several."""

    @property
    def metric(self) -> Metric:
        """What a search compares by, one of ``GALLERY_METRICS``."""

    @property
    def precision(self) -> Literal["float32", "int8"]:
        """How the embeddings are kept: as they came, or as a byte a number."""

    @property
    def embeddings(self) -> Embeddings:
        """All of them, float32 ``(n, D)``, in the order of enrolment; of length 1 from int8."""

    @property
    def names(self) -> npt.NDArray[np.str_]:
        """The person of each embedding, str array of n."""

    def __len__(self) -> int:
        """Number of embeddings enrolled."""

    def add(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str] | None = None,
    ) -> None:
        """Enrol embeddings.

        Args:
            names: n names of people; one person may have many embeddings.
            embeddings: float32 ``(n, D)``.
            digests: n content digests of the photos they come from, if known, so that the same
                photo need not be encoded again; an empty one is none.

        Raises:
            InputError: Embeddings or digests that are not one for each name, an embedding of
                another length, not finite or all zeros, or what is no name; nothing has changed.
        """

    def mark(self, names: Collection[str] | None = None) -> Mark:
        """What is enrolled at this moment, of these people or of all, to give to ``replace``."""

    def replace(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str],
        replaces: Replaces = "all",
        *,
        detector_name: str = "",
        mark: Mark = None,
    ) -> None:
        """Enrol embeddings in the place of others.

        Args:
            names: As for ``add``.
            embeddings: As for ``add``.
            digests: As for ``add``.
            replaces: Whose place they take; see ``Replaces``.
            detector_name: The detector that found the faces, if known.
            mark: What was enrolled when the work on these began: whatever another program has
                enrolled in a shared gallery since then stays. None takes this moment.

        Raises:
            InputError: As for ``add``; nothing has changed.
        """

    def known_photos(
        self, detector_name: str, digests: Collection[str] | None = None
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Content digest -> embedding of the photos enrolled with the help of this detector.

        What is known need not be encoded again.

        Args:
            detector_name: The detector.
            digests: Only these are asked for; None for all. A gallery may give more.

        Returns:
            Embeddings, float32 ``(D,)``, as in ``embeddings``. Where a photo is enrolled several
            times, one of them.
        """

    def search(
        self, embeddings: Embeddings, k: int = 1, ranking: Ranking = "best"
    ) -> list[list[Match]]:
        """Find the nearest people.

        Args:
            embeddings: float32 ``(m, D)``.
            k: How many people for each, at the most.
            ranking: How near a person is; see ``Ranking``.

        Returns:
            m lists, each with the nearest person first, one entry a person; people who are
            equally near come in the order of their names. The similarity is the cosine, or minus
            the Euclidean distance, by the gallery's metric: of the person's nearest embedding for
            ``"best"``, the mean of those of all the person's embeddings for ``"mean"``. Where
            nobody is enrolled the lists are empty.

        Raises:
            InputError: Embeddings of another length or not finite, k below 1, or no such ranking.
            GalleryError: The gallery is damaged or cannot be reached.
        """

    def remove(self, name: str) -> int:
        """Take a person out; returns how many embeddings that were.

        Raises:
            GalleryError: No such person.
        """

    def rename(self, name: str, new_name: str) -> int:
        """Call a person otherwise; returns how many embeddings that were.

        Raises:
            InputError: The new name is none.
            GalleryError: No such person, or the new name is another person's.
        """

    def people(self) -> dict[str, int]:
        """How many embeddings each person has, in the order of enrolment."""

    def copy(self) -> MemoryGallery:
        """The same people in memory, in a gallery that changes apart from this one."""

    def close(self) -> None:
        """Write to a file what has not been written yet, or let go of the store.

        Raises:
            GalleryError: It cannot be written.
        """


def check_ranking(ranking: object) -> Ranking:
    """Check an argument that says how near a person is.

    Raises:
        InputError: None of ``RANKINGS``.
    """
    if not isinstance(ranking, str) or ranking not in RANKINGS:
        raise InputError(f"a ranking is one of {', '.join(RANKINGS)}. Received: {ranking!r}")
    return ranking


def check_encoder(where: str, name: str, fingerprint: str, encoder: EncoderIdentity) -> None:
    """Refuse to use a gallery with another encoder than the one that filled it.

    Raises:
        WrongEncoderError: Names both.
    """
    if fingerprint != encoder.fingerprint:
        raise WrongEncoderError(
            f"{where} was filled by the encoder {name!r} ({fingerprint}); its embeddings cannot "
            f"be compared with those of {encoder.name!r} ({encoder.fingerprint}). Use the same "
            "encoder, or enrol the photos again"
        )


def check_name(name: str) -> None:
    """Refuse what is no person's name.

    Raises:
        InputError: No text, empty, or with control characters or broken encoding in it. Joiners
            without a width are allowed: Persian and Hindi names are written with them.
    """
    if (
        not isinstance(name, str)
        or not name.strip()
        or any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    ):
        raise InputError(
            f"a person's name is text without control characters, not empty. Received: {name!r}"
        )


# The characters of the two categories that ``check_name`` refuses, which never grow by others:
# https://www.unicode.org/policies/stability_policy.html, property values of Cc and Cs.
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_names(names: Sequence[str]) -> None:
    """Refuse what is no person's name among many, a million in a fraction of a second.

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


def check_embeddings(embeddings: Any, names: Sequence[str], size: int) -> Embeddings:
    """Embeddings that are to be enrolled, as float32 ``(n, D)``.

    Args:
        embeddings: Of n people.
        names: n names.
        size: D.

    Raises:
        InputError: Another number or length of embeddings, or one that is not finite or is all
            zeros.
    """
    added = _float32(embeddings)
    check_shape(added.shape, names, size)
    lengths = np.linalg.norm(added, axis=1)
    if not np.isfinite(lengths).all() or not (lengths > 0).all():
        raise InputError("an embedding is finite and not all zeros; at least one is not")
    return added


def check_undamaged(values: npt.NDArray[np.floating]) -> None:
    """Refuse what only damaged embeddings give: a file that is mapped is not read beforehand.

    Args:
        values: Embeddings that are enrolled, or similarities to them.

    Raises:
        GalleryError: A value is not finite.
    """
    if not np.isfinite(values).all():
        raise GalleryError("the gallery is damaged: an embedding in it is not finite")


def check_shape(shape: tuple[int, ...], names: Sequence[str], size: int) -> None:
    """Refuse embeddings of another number than of names, or of another length than ``size``.

    Raises:
        InputError: Such ones.
    """
    if shape != (len(names), size):
        raise InputError(
            f"{len(names)} names take embeddings of shape ({len(names)}, {size}). "
            f"Received: shape {shape}"
        )


def check_labels(names: Sequence[str], digests: Sequence[str] | None) -> Sequence[str]:
    """The digests of photos, one for each of the names; empty ones where there are none.

    Raises:
        InputError: A name that is none, or another number of digests.
    """
    check_names(names)
    digests = [""] * len(names) if digests is None else digests
    if len(digests) != len(names):
        raise InputError(f"{len(names)} names take as many digests. Received: {len(digests)}")
    return digests


def check_probes(embeddings: Any, size: int) -> Embeddings:
    """Embeddings that are searched for, as float32 ``(m, D)``, D being ``size``.

    Raises:
        InputError: Another length of embedding, or one that is not finite.
    """
    probes = _float32(embeddings)
    if probes.ndim != 2 or probes.shape[1] != size:
        raise InputError(
            f"this gallery takes embeddings of shape (m, {size}). Received: shape {probes.shape}"
        )
    if not np.isfinite(probes).all():
        raise InputError("an embedding is finite; at least one is not")
    return probes


def check_cosine(metric: Metric, what: str) -> None:
    """Refuse what knows directions only where a search looks at lengths.

    Args:
        metric: The gallery's.
        what: What that is, and what it does with directions, in two words.

    Raises:
        InputError: A search by Euclidean distance.
    """
    if metric != "cosine":
        raise InputError(
            f"{what} the direction of an embedding only, which is enough for the metric "
            f"'cosine'. Received: a gallery of the metric {metric!r}"
        )


def _float32(embeddings: Any) -> Embeddings:
    """Embeddings as float32."""
    try:
        # What float32 cannot hold becomes infinite, and is refused as that.
        with np.errstate(over="ignore"):
            return np.asarray(embeddings, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"embeddings are an array of numbers: {error}") from error
