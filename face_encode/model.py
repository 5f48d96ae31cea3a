"""``Face_Encode_Model``: enrol a folder of people, hand it a photo, get names back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.detectors.alignment import crop_faces, crop_whole
from face_encode.detectors.base import Detector
from face_encode.detectors.registry import as_detector
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import AUTOMATIC
from face_encode.encoders.registry import as_encoder, detector_for
from face_encode.errors import GalleryError, ImageError, InputError
from face_encode.files import as_path
from face_encode.gallery.base import Gallery
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.database_file import is_database
from face_encode.gallery.distances import (
    Metric,
    check_distance_threshold,
    distances,
    threshold_distance,
    unit_embedding,
)
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import open_gallery
from face_encode.gallery.thresholds import check_threshold
from face_encode.liveness.judging import LivenessJudge, default_judge
from face_encode.photos.drawing import draw_boxes, labelled_boxes
from face_encode.photos.folders import list_people
from face_encode.photos.reading import (
    PhotoInput,
    as_rgb,
    is_one_photo,
    read_photo,
    shown_name,
)
from face_encode.pipeline.embedding import NO_FACE
from face_encode.pipeline.enrolment import enrol_people, enrolment_checkpoint, with_listing
from face_encode.pipeline.quality import judge_faces
from face_encode.types import (
    BoundingBox,
    Box,
    Embeddings,
    EnrolmentReport,
    Face,
    ImageArray,
    Match,
    check_count,
)


class Face_Encode_Model:
    """A model that recognises people by their faces.

    Examples:
        >>> from face_encode import Face_Encode_Model, read_image
        >>> model = Face_Encode_Model()
        >>> report = model.fit_dataset("verify_dataset", progress=False)
        >>> photo = read_image("examples/group.jpg")
        >>> names = {face["name"] for face in model.match_image(photo, n_max_faces=5)}

    Attributes:
        encoder: Turns crops of faces into embeddings.
        detector: Finds the faces.
        threshold: Cosine similarity from which a face counts as the person found: the one
            given or set; else the gallery's, where it was calibrated, for as many photos as are
            enrolled; else the encoder's.
        gallery: The enrolled people; another one, as ``open_gallery`` gives it for this encoder,
            may take its place.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str] | Encoder | None = None,
        detector: str | Detector | None = None,
        threshold: float | None = None,
        engine: str | None = None,
        false_match_rate: float | None = None,
    ) -> None:
        """Open an encoder and a detector.

        Args:
            model_path: A named choice, ``"offline"``, ``"fast"`` or ``"accurate"``, each an encoder
                with a detector; a ``.keras`` file, the name of a known encoder, an encoder, or
                None for the most accurate encoder that needs no download.
            detector: The name of a known detector, a detector, or None for that of the choice, or
                the default.
            threshold: Cosine similarity from which two faces count as one person, within -1..1;
                None takes the encoder's own.
            false_match_rate: Instead of a threshold, the share of pairs of strangers that may
                count as one person: 1e-3, 1e-4 or 1e-5 where the encoder's thresholds were
                measured; see ``face-encode models``.
            engine: What runs the encoder, as ``load_encoder`` takes it.

        Raises:
            ModelFileError: No such encoder.
            WeightsError: The encoder's weights are missing or damaged.
            InputError: No such detector or engine, or a threshold out of range; or another engine
                than that of the encoder given; or a false match rate that was not measured, or
                beside a threshold.
            MissingExtraError: The engine, or the detector, is not installed.
            EngineError: The engine cannot run the encoder, or does not give what Keras gives.
        """
        self._threshold = check_threshold(threshold)
        self.detector: Detector = as_detector(detector_for(model_path, detector))
        self.encoder: Encoder = as_encoder(model_path, engine)
        if false_match_rate is not None:
            if threshold is not None:
                raise InputError("give a threshold or a false match rate, not both")
            self._threshold = self.encoder.contract.threshold_at(false_match_rate)
        self.gallery: Gallery = MemoryGallery(self.encoder)
        self._judge: LivenessJudge | None = None
        self._engine = engine or AUTOMATIC

    def __repr__(self) -> str:
        return (
            f"Face_Encode_Model(encoder={self.encoder.name!r}, detector={self.detector.name!r}, "
            f"threshold={self.threshold}, {len(self.gallery)} photos of "
            f"{len(self.gallery.people())} people)"
        )

    @property
    def threshold(self) -> float:
        """Cosine similarity from which a face counts as the person found, within -1..1.

        It can be set; None gives back the gallery's or the encoder's own.
        """
        if self._threshold is not None:
            return self._threshold
        calibration = self.gallery.calibration
        if calibration is None:
            return self.encoder.contract.threshold
        # The size is asked for only here: a gallery on a server takes a call for it.
        return calibration.threshold(max(1, len(self.gallery)))

    @threshold.setter
    def threshold(self, value: float | None) -> None:
        self._threshold = check_threshold(value)

    def threshold_of(self, name: str) -> float:
        """Cosine similarity from which a face counts as this person: the person's own, if any.

        See ``gallery.set_threshold``; the name is the enrolled one.
        """
        own = self.gallery.thresholds.get(name)
        return self.threshold if own is None else own

    @property
    def liveness_judge(self) -> LivenessJudge:
        """Tells live faces from copies held up; opened when it is first used, or one set here."""
        return default_judge(self._engine) if self._judge is None else self._judge

    @liveness_judge.setter
    def liveness_judge(self, judge: LivenessJudge) -> None:
        self._judge = judge

    @property
    def verification_threshold(self) -> float:
        """Cosine similarity from which two photos count as of one person."""
        if self._threshold is not None:
            return self._threshold
        calibration = self.gallery.calibration
        return self.encoder.contract.threshold if calibration is None else calibration.threshold()

    @property
    def threshold_source(self) -> str:
        """Where the threshold comes from: ``"set"``, ``"calibration"`` or ``"encoder"``."""
        if self._threshold is not None:
            return "set"
        return "encoder" if self.gallery.calibration is None else "calibration"

    @property
    def verify_embeddings(self) -> Embeddings:
        """The enrolled embeddings, float32 ``(n, D)``, as the encoder gave them."""
        return self.gallery.embeddings

    @property
    def verify_names(self) -> npt.NDArray[np.str_]:
        """The name of each enrolled embedding, str array of n."""
        return self.gallery.names

    def fit_dataset(
        self,
        dir: str | os.PathLike[str],
        *,
        progress: bool = True,
        workers: int | None = None,
        batch_size: int | None = None,
        unfinished: str | os.PathLike[str] | None = None,
        restart: bool = False,
        keep_crops: bool = False,
        refuse_mistakes: bool = False,
        check_quality: bool = True,
    ) -> EnrolmentReport:
        """Enrol a folder with one sub-folder a person, in the place of all who were enrolled.

        Photos that were enrolled before and have not changed are not encoded again.

        Args:
            dir: The sub-folders' names are the people's names.
            progress: Whether to show a progress bar.
            workers: Processes that read photos and find faces; None chooses: as many as there
                are cores, or this one alone for few photos.
            batch_size: Faces that go through the encoder together; None chooses.
            unfinished: A file that keeps what is embedded until all is done, so that the same
                call resumes the work after a kill; None keeps nothing. A gallery database needs
                none: it keeps that itself.
            restart: Whether to discard what interrupted runs have embedded.
            keep_crops: Whether a gallery database keeps a crop of each photo, good enough to be
                embedded by another encoder later.
            refuse_mistakes: Whether to leave out photos that look like somebody else than the
                person of their folder.
            check_quality: Whether to leave out photos whose face is not to be trusted: blurred,
                covered, dark …; see the encoder's ``quality_threshold``.

        Returns:
            How many photos were enrolled, and every photo left out with its reason.

        Raises:
            DatasetError: The folder is missing, holds no people, or no photo of it can be
                enrolled. The people enrolled before then stay.
            GalleryError: ``unfinished`` was begun with another encoder, engine or detector, is
                damaged, or cannot be written.
        """
        listed = list_people(dir)
        detector, encoder = self.detector, self.encoder
        with (
            nullcontext()
            if unfinished is None and not isinstance(self.gallery, DatabaseGallery)
            else enrolment_checkpoint(
                self.gallery,
                as_path(unfinished or "."),
                detector,
                encoder,
                keep_crops=keep_crops,
                restart=restart,
            )
        ) as checkpoint:
            report = enrol_people(
                listed.people,
                self.gallery,
                detector,
                encoder,
                progress=progress,
                workers=workers,
                batch_size=batch_size,
                checkpoint=checkpoint,
                keep_crops=keep_crops,
                refuse_mistakes=refuse_mistakes,
                check_quality=check_quality,
            )
            if checkpoint is not None:
                checkpoint.remove()
        return with_listing(report, listed)

    def add_person(
        self, name: str, photos: Sequence[PhotoInput], *, check_quality: bool = True
    ) -> EnrolmentReport:
        """Enrol further photos of a person, new or known, without touching the others.

        Args:
            name: The person.
            photos: In any form that ``read_photo`` takes: paths, addresses, arrays …
            check_quality: As for ``fit_dataset``.

        Returns:
            What became of each photo; one without a path is called by its number, ``photo 0``.

        Raises:
            DatasetError: No photo can be enrolled, or the name is none.
            InputError: One photo instead of a list of them.
        """
        if not isinstance(photos, Iterable) or is_one_photo(photos):
            raise InputError(
                "photos is a list of paths or arrays, also for one photo. "
                f"Received: {type(photos).__name__}"
            )
        return enrol_people(
            {name: list(photos)},
            self.gallery,
            self.detector,
            self.encoder,
            replaces="nothing",
            progress=False,
            check_quality=check_quality,
        )

    def remove_person(self, name: str) -> int:
        """Take a person out without touching the others.

        Returns:
            How many photos of that person were enrolled.

        Raises:
            GalleryError: Nobody of that name is enrolled.
        """
        return self.gallery.remove(name)

    def match_image(
        self,
        rgb: npt.NDArray[np.uint8],
        detect_faces: bool = True,
        n_max_faces: int | None = 1,
        *,
        liveness: bool = False,
    ) -> list[dict[str, Any]]:
        """Name the faces in a photo.

        Args:
            rgb: RGB, uint8, ``(H, W, 3)``.
            detect_faces: False where the photo is the crop of a face already.
            n_max_faces: At most this many faces, largest first; None for all.
            liveness: Whether to judge if each face is alive, or a photo or a screen that somebody
                holds up; what is not alive matches nobody.

        Returns:
            A dict for each face, the largest face first: ``name``, the nearest person;
            ``similarity``, float within -1..1; ``is_match``, whether that reaches the threshold
            and the quality is sufficient (if not, the person is unknown); ``bounding_box``, ``x``,
            ``y``, ``width`` and ``height`` in pixels, or None without detection; ``rotation``, how
            far the photo has to be turned clockwise for the face to stand upright, 0, 90, 180 or
            270 degrees. Where the person has a threshold of the person's own, also ``threshold``.
            With an encoder that judges its embeddings also ``quality``, 0..1, and
            ``quality_reason``, why that is not sufficient, or None. If asked for, ``liveness``,
            0..1, and ``is_live``, whether that suffices. With a gallery that was calibrated also
            ``probability``, 0..1, that the two are one person. No face gives an empty list.

        Raises:
            InputError: Not such an array, fewer than one face asked for, or liveness of a photo
                that is the crop of a face.
            GalleryError: Nobody is enrolled.
            WeightsError: The weights of the judge of liveness cannot be downloaded.
        """
        if not len(self.gallery):
            raise GalleryError(
                "nobody is enrolled yet: call fit_dataset, add_person or load_gallery first"
            )
        embeddings, faces = self._embed(
            as_rgb(rgb), n_max_faces, detect_faces, "n_max_faces", liveness=liveness
        )
        found = self.gallery.search(embeddings)
        if not all(found):
            raise GalleryError("nobody is enrolled any more")
        return [
            self.describe(matches[0], face, detect_faces)
            for matches, face in zip(found, faces, strict=True)
        ]

    def describe(self, match: Match, face: Face, detect_faces: bool = True) -> dict[str, Any]:
        """A face and the person found as the plain dict that ``match_image`` returns."""
        own = self.gallery.thresholds.get(match.name)
        needed = self.threshold if own is None else own
        described = {
            "name": match.name,
            "similarity": match.similarity,
            "is_match": match.similarity >= needed and face.is_trusted,
            "bounding_box": box_of(face, detect_faces),
            "rotation": face.rotation,
        }
        if own is not None:
            described["threshold"] = own
        if face.quality is not None or face.liveness is not None:
            described |= face.judgement()
        calibration = self.gallery.calibration
        if calibration is not None:
            chance = calibration.probability(match.similarity, max(1, len(self.gallery)))
            described["probability"] = float(chance)
        return described

    def compute_embeddings_image(
        self, rgb: npt.NDArray[np.uint8], n_max_faces: int | None = 1, detect_faces: bool = True
    ) -> tuple[Embeddings, list[BoundingBox | None]]:
        """Embed the faces in a photo.

        Args:
            rgb: RGB, uint8, ``(H, W, 3)``.
            n_max_faces: At most this many faces, largest first; None for all.
            detect_faces: False where the photo is the crop of a face already: then the whole
                of it is embedded.

        Returns:
            float32 ``(n, D)``, and n boxes as dicts, the largest face first; without detection
            the one box is None.

        Raises:
            InputError: Not such an array, or fewer than one face asked for.
        """
        embeddings, faces = self._embed(as_rgb(rgb), n_max_faces, detect_faces, "n_max_faces")
        return embeddings, [box_of(face, detect_faces) for face in faces]

    def _detect(
        self, image: ImageArray, max_faces: int | None, argument: str = "max_faces"
    ) -> list[Face]:
        """Find the largest faces in a photo; ``argument`` names ``max_faces`` in an error."""
        if max_faces is not None:
            check_count(max_faces, argument)
        return self.detector.detect(image)[:max_faces]

    def _embed(
        self,
        image: ImageArray,
        max_faces: int | None,
        detect_faces: bool = True,
        argument: str = "max_faces",
        *,
        liveness: bool = False,
    ) -> tuple[Embeddings, list[Face]]:
        """Embed the faces in a photo: the one body under all that this package offers.

        Returns:
            float32 ``(n, D)``, and n faces with their quality, the largest first; without detection
            the one is the whole photo.
        """
        contract = self.encoder.contract
        if detect_faces:
            faces = self._detect(image, max_faces, argument)
            crops = crop_faces(image, faces, contract.crop)
            if liveness:
                faces = self.liveness_judge.judge_in(image, faces)
        else:
            if liveness:
                raise InputError(
                    "liveness is judged by what surrounds a face, which the crop of one does not "
                    "show: give the whole photo. Received: detect_faces=False"
                )
            if max_faces is not None:
                check_count(max_faces, argument)
            faces = [Face(Box(0, 0, image.shape[1], image.shape[0]), 1.0)]
            crops = crop_whole(image, contract.crop)[np.newaxis]
        embeddings, qualities = self.encoder.embed(crops)
        return embeddings, judge_faces(faces, qualities, crops, contract)

    def _embed_some(
        self,
        photo: PhotoInput,
        label: str,
        detect_faces: bool,
        max_faces: int | None = None,
        *,
        liveness: bool = False,
    ) -> tuple[Embeddings, list[Face]]:
        """Embed the faces of a photo in any form, at least one, ``(N, D)``, and give the faces.

        Raises:
            ImageError: The photo, called by its path or the label, has no face or is unreadable.
        """
        embeddings, faces = self._embed(
            read_photo(photo), max_faces, detect_faces, liveness=liveness
        )
        if not faces:
            raise ImageError(f"{shown_name(photo) or label}: {NO_FACE}")
        return embeddings, faces

    def _distance_threshold(self, metric: Metric, given: float | None) -> float:
        """The largest distance of one person's faces: the one given, or that of this model."""
        if given is not None:
            return check_distance_threshold(given)
        contract = self.encoder.contract
        return threshold_distance(
            metric, self.threshold, contract.euclidean_threshold, contract.name
        )

    def compare_encodings(
        self, a: npt.NDArray[np.floating[Any]], b: npt.NDArray[np.floating[Any]]
    ) -> tuple[float, bool]:
        """Compare two embeddings, which do not tell how far they can be trusted; ``verify`` does.

        Args:
            a: ``(D,)`` or ``(1, D)``.
            b: The same.

        Returns:
            Cosine similarity within -1..1, and whether it reaches the threshold.

        Raises:
            InputError: Not one embedding of this encoder each.
        """
        size, name = self.encoder.embedding_size, self.encoder.name
        first, second = unit_embedding(a, size, name), unit_embedding(b, size, name)
        similarity = float(np.clip(first @ second, -1, 1))
        return similarity, similarity >= self.verification_threshold

    def detect_faces(
        self, rgb: npt.NDArray[np.uint8], n_max_faces: int | None = None
    ) -> list[BoundingBox]:
        """Find the faces in a photo.

        Args:
            rgb: RGB, uint8, ``(H, W, 3)``.
            n_max_faces: At most this many, largest first; None for all.

        Returns:
            Boxes as dicts, the largest first, clamped to the photo.

        Raises:
            InputError: Not such an array, or fewer than one face asked for.
        """
        faces = self._detect(as_rgb(rgb), n_max_faces, "n_max_faces")
        return [face.box.as_dict() for face in faces]

    def draw_bounding_box(
        self, rgb: npt.NDArray[np.uint8], faces: Sequence[Mapping[str, Any]]
    ) -> npt.NDArray[np.uint8]:
        """Draw boxes, and where they are known names, on a copy of a photo.

        Args:
            rgb: RGB, uint8, ``(H, W, 3)``; not changed.
            faces: What ``match_image`` returned (names are drawn, "unknown" below the
                threshold), or boxes as ``detect_faces`` gives them.

        Returns:
            uint8 ``(H, W, 3)``.

        Raises:
            InputError: Not such an array, or not such faces.
        """
        marks = labelled_boxes(faces)
        return draw_boxes(as_rgb(rgb), *marks)

    def save_gallery(self, path: str | os.PathLike[str]) -> None:
        """Write the enrolled people to a gallery database or an ``.npz`` file, atomically.

        Args:
            path: A ``.sqlite`` file, whose people are replaced by these, or an ``.npz`` file. A
                gallery database is copied whole, to a new ``.sqlite`` file; in its own file
                everything is already.

        Raises:
            GalleryError: It cannot be written; a file already there stays whole.
            WrongEncoderError: Another encoder filled the database.
        """
        gallery = self.gallery
        if is_database(as_path(path)):
            if isinstance(gallery, DatabaseGallery):
                if os.path.realpath(path) != os.path.realpath(gallery.path):
                    gallery.copy_to(path)
                return
            rows = gallery.rows()
            with closing(DatabaseGallery(path, self.encoder, metric=rows.metric)) as database:
                database.replace(
                    rows.names.tolist(),
                    rows.embeddings,
                    rows.digests.tolist(),
                    detector_name=rows.detector_name,
                    known=rows,
                )
            return
        if not isinstance(gallery, MemoryGallery):
            gallery = MemoryGallery.from_rows(gallery.rows(), self.encoder)
        gallery.save(path)

    def load_gallery(self, path: str | os.PathLike[str], *, approximate: bool = False) -> None:
        """Take the people of a gallery that exists, in the place of all who were enrolled.

        Args:
            path: A ``.sqlite`` file, or a gallery in Milvus, a ``.db`` folder or an ``http://``
                address, which are then searched and changed where they are; or an ``.npz`` file.
            approximate: As for ``open_gallery``.

        Raises:
            GalleryError: Missing, damaged, not reached, or searched by another metric than cosine.
            WrongEncoderError: Another encoder filled it.
            MissingExtraError: It takes an optional dependency that is not installed.
        """
        # None would be an empty one in memory.
        as_path(path)
        self.gallery = open_gallery(
            path, encoder=self.encoder, create=False, approximate=approximate
        )


def box_of(face: Face, detect_faces: bool) -> BoundingBox | None:
    """The box of a face as a plain dict; None without detection, where it is the whole photo."""
    return face.box.as_dict() if detect_faces else None


def both_judged(faces: Sequence[Face]) -> dict[str, list[Any]]:
    """What was judged of faces that are compared, as answers tell it; see ``Face.judgement``."""
    names = {"quality": "qualities", "quality_reason": "quality_reasons"}
    judged = [face.judgement() for face in faces]
    return {names.get(key, key): [each[key] for each in judged] for key in judged[0]}


def nearest_faces(
    embeddings: tuple[Embeddings, Embeddings],
    faces: tuple[Sequence[Face], Sequence[Face]],
    metric: Metric = "cosine",
) -> tuple[int, int]:
    """Choose the faces of two photos by which the photos are compared: the nearest two.

    Args:
        embeddings: ``(m, D)`` and ``(n, D)``, at least one each.
        faces: At least as many; those that are not to be trusted are left out where others are.
        metric: See ``distances``.

    Returns:
        The face's number in each photo.
    """
    apart = distances(*embeddings, metric)
    first, second = (
        [face.is_trusted for face in of_one[: len(embedded)]]
        for of_one, embedded in zip(faces, embeddings, strict=True)
    )
    trusted = np.outer(first, second)
    if trusted.any():
        apart = np.where(trusted, apart, np.inf)
    row, column = divmod(int(apart.argmin()), apart.shape[1])
    return row, column


def compared_faces(numbers: tuple[int, int], counts: tuple[int, int]) -> dict[str, list[int]]:
    """Which faces of two photos were compared, of how many, as answers tell it."""
    return {"faces": list(counts), "compared": list(numbers)}


def warn_untrusted(faces: Sequence[Face], photo: PhotoInput) -> None:
    """Warn of faces that match nobody, for answers that have no place to say why."""
    for number, face in enumerate(faces):
        if face.refusal:
            name = shown_name(photo) or "the photo"
            warnings.warn(f"{name}: face {number} matches nobody: {face.refusal}", stacklevel=3)
