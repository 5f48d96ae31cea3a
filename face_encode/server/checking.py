"""The look before an enrolment: the faces of the photos, and what is likely a mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request

from face_encode.gallery.base import one_name_a_person
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.distances import unit_length
from face_encode.gallery.mistakes import Likeness, poor_faces
from face_encode.model import Face_Encode_Model
from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.server.people import named_photos
from face_encode.server.schemas import PHOTO_PROBLEMS, CheckAnswer, photo_body
from face_encode.server.security import Reader
from face_encode.server.service import TheService
from face_encode.types import Match

checking_router = APIRouter(prefix="/v1", tags=["people"], responses=PHOTO_PROBLEMS)


@checking_router.post(
    "/people/check", response_model=CheckAnswer, openapi_extra=photo_body("photos", named=True)
)
async def check(request: Request, service: TheService, author: Reader) -> dict[str, Any]:
    """Look at photos before they are enrolled, and change nothing.

    Told are the faces of each photo, of which an enrolment takes one, which of them is likely
    meant, and for each face what makes its enrolment a likely mistake.
    """
    name, sent, _ = await named_photos(request, service)
    photos = await service.recogniser.embed_all(sent, service.settings.limits.faces)
    return await asyncio.to_thread(_checked, name, photos, service.gallery, service.model)


def _checked(
    name: str, photos: Sequence[EmbeddedPhoto], gallery: DatabaseGallery, model: Face_Encode_Model
) -> dict[str, Any]:
    """Compare the faces of photos with those of their person, and of everybody else."""
    own = one_name_a_person([name], gallery)[0][name]
    people = gallery.snapshot().enrolled
    rows = np.flatnonzero(people.owners == people.place_of.get(own, -1))
    enrolled = unit_length(people.embeddings_of(rows))
    units = [unit_length(photo.embeddings) for photo in photos]
    described = []
    for place, photo in enumerate(photos):
        likeness: list[float] = []
        others = [enrolled, *units[:place], *units[place + 1 :]]
        if len(photo.embeddings) and any(map(len, others)):
            similar = units[place] @ np.concatenate([each for each in others if len(each)]).T
            likeness = similar.max(axis=1).tolist()
        described.append(_described(own, photo, likeness, gallery, model))
    return {"name": own, "photos": described}


def _described(
    own: str,
    photo: EmbeddedPhoto,
    likeness: Sequence[float],
    gallery: DatabaseGallery,
    model: Face_Encode_Model,
) -> dict[str, Any]:
    """Describe a photo as the schema does.

    Args:
        own: The person.
        photo: The photo.
        likeness: The similarity of each face to the nearest of the person's other photos; empty
            where there are none.
        gallery: Who is enrolled.
        model: Its threshold, and the size of its encoder's crop.
    """
    count, threshold = len(photo.embeddings), model.threshold
    # Two people, for one of them may be the person.
    found = gallery.search(photo.embeddings, k=2) if count else []
    doubts = [
        list(_doubts(own, matches, likeness[row] if likeness else None, threshold))
        for row, matches in enumerate(found)
    ]
    crop = model.encoder.contract.crop
    sides = [min(face.box.width, face.box.height) for face in photo.faces[:count]]
    for row, kind, text in poor_faces(sides, photo.sharpness, min(crop.height, crop.width)):
        doubts[row].append({"kind": kind, "text": text, "person": None})
    is_there = max(likeness, default=-1) >= threshold
    return {
        "photo": photo.photo,
        "error": photo.error,
        "face": (likeness.index(max(likeness)) if is_there else 0) if count else None,
        "faces": [
            {
                "bounding_box": face.box.as_dict(),
                "likeness": likeness[row] if likeness else None,
                "refusal": face.quality and face.quality.refusal,
                "doubts": doubts[row],
            }
            for row, face in enumerate(photo.faces[:count])
        ],
    }


def _doubts(
    own: str, matches: Sequence[Match], likeness: float | None, threshold: float
) -> Iterator[dict[str, Any]]:
    """Doubt that a face is the person's, for it is like somebody else's, or unlike the others."""
    others = [Likeness(each.name, each.similarity) for each in matches if each.name != own]
    if others and others[0].similarity >= max(threshold, -1 if likeness is None else likeness):
        yield {"kind": "looks like another", "text": str(others[0]), "person": others[0].name}
    if likeness is not None and likeness < threshold:
        text = f"unlike every other photo of {own} (similarity {likeness:.2f} to the nearest)"
        yield {"kind": "unlike the others", "text": text, "person": None}
