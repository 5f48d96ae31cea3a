"""The errors of this package.

::

    FaceEncodeError
    ├── InputError              an argument is of the wrong kind, shape or range
    ├── ImageError              a photo cannot be read, or is too large to be read safely
    ├── VideoError              a video or camera cannot be read, or a video cannot be written
    │   └── WrongPasswordError  a camera asks for another name or password
    ├── DatasetError            a folder of people is missing, empty or of the wrong shape
    ├── ModelFileError          a model file cannot be used as an encoder
    ├── EngineError             an engine cannot run an encoder as Keras does
    ├── WeightsError            known weights are missing, damaged or another file
    ├── TrainingError           a training run cannot continue
    ├── EmbeddingFileError      embeddings cannot be written to, or read from, a file
    ├── ClusterError            a Ray cluster cannot be reached or cannot continue
    ├── ServiceError            the service refuses a request, fails or cannot be reached
    ├── MissingExtraError       an optional dependency is needed and not installed
    └── GalleryError            a gallery cannot be read, written or searched
        ├── NotEnrolledError    a gallery holds no such person, photo or change
        └── WrongEncoderError   a gallery was filled by another encoder

Every message says what is wrong, what is allowed, and what was received.
"""

from __future__ import annotations

import reprlib


class FaceEncodeError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(FaceEncodeError, ValueError):
    """An argument is of the wrong kind, shape or range."""


class ImageError(FaceEncodeError):
    """A photo cannot be read, or is too large to be read safely."""


class VideoError(FaceEncodeError):
    """A video or camera cannot be read, or a video cannot be written or shown."""


class WrongPasswordError(VideoError):
    """A camera or stream asks for a name and a password, or refuses those that it was given."""


class DatasetError(FaceEncodeError):
    """A folder of people is missing, empty or of the wrong shape."""


class ModelFileError(FaceEncodeError):
    """A model file cannot be used as an encoder."""


class EngineError(FaceEncodeError):
    """An engine cannot run an encoder, or does not give the embeddings that Keras gives."""


class WeightsError(FaceEncodeError):
    """Known weights are missing, damaged or another file."""


class TrainingError(FaceEncodeError):
    """A training run cannot continue."""


class EmbeddingFileError(FaceEncodeError):
    """Embeddings cannot be written to, or read from, a file."""


class ClusterError(FaceEncodeError):
    """A Ray cluster cannot be reached, or its work cannot continue."""


class ServiceError(FaceEncodeError):
    """The service refuses a request of the client, fails, or cannot be reached.

    Attributes:
        status: The HTTP status; None where there was no answer.
        kind: A short name of the problem for programs, such as ``"no-face"``; ``"not-reached"``
            without an answer, ``"not-the-service"`` where something else answered.
        detail: What is wrong, for people.
    """

    def __init__(self, detail: str, status: int | None, kind: str) -> None:
        super().__init__(detail)
        self.detail, self.status, self.kind = detail, status, kind

    def __reduce__(self) -> tuple[type[ServiceError], tuple[str, int | None, str]]:
        """Pass to another process, as what a pool's work raises does."""
        return type(self), (self.detail, self.status, self.kind)


class MissingExtraError(FaceEncodeError, ImportError):
    """An optional dependency is needed and not installed."""


class GalleryError(FaceEncodeError):
    """A gallery cannot be read, written or searched."""


class NotEnrolledError(GalleryError):
    """A gallery holds no such person, photo or change."""


class WrongEncoderError(GalleryError):
    """A gallery was filled by another encoder, so its embeddings cannot be compared."""


class _Shown(reprlib.Repr):
    """A ``repr`` that stays short whatever is in the value."""

    def repr_int(self, x: int, level: int) -> str:
        """Python itself refuses to write out a number of thousands of digits."""
        bits = x.bit_length()
        return super().repr_int(x, level) if bits < 256 else f"a number of {bits} bits"

    def repr_instance(self, x: object, level: int) -> str:
        """A foreign object's own ``repr`` may be of any length."""
        known = x is None or isinstance(x, bool | float | complex)
        return repr(x) if known else f"{type(x).__name__.strip('_')} object"


_SHOWN = _Shown()
_SHOWN.maxlevel = 2
_SHOWN.maxstring = _SHOWN.maxother = 100


def shown(value: object) -> str:
    """Write a value that came from a file or a sender into a message: at most some hundred letters.

    Its own ``repr`` may take hours: a tuple of ten tuples of ten tuples … is a few bytes in a file.
    """
    return _SHOWN.repr(value)
