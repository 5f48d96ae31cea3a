"""The audit of a gallery database: a row for each change, in the transaction of the change."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

from face_encode.errors import GalleryError, NotEnrolledError
from face_encode.gallery.base import folded_name, unknown_id
from face_encode.gallery.database_file import DatabaseFile, now

Action: TypeAlias = Literal[
    "enrol",
    "remove",
    "rename",
    "merge",
    "move",
    "note",
    "picture",
    "threshold",
    "undo",
    "forget",
    "reembed",
    "name",
    "dismiss",
]

FORGOTTEN = "(forgotten)"
"""What the audit says instead of the names of somebody who was forgotten."""

_SELECT = "SELECT id, time, author, address, action, details FROM change"


@dataclass(frozen=True)
class Author:
    """Who asks for a change.

    Attributes:
        name: The program, or the name of a client's token.
        address: The address of the request, empty where there is none.
    """

    name: str
    address: str = ""


class ThresholdChange(NamedTuple):
    """A person's own threshold before and after a change; None where there is none."""

    name: str
    former: float | None
    new: float | None


@dataclass(frozen=True)
class Change:
    """A change of the gallery, as its audit tells it.

    Replaying all changes in their order gives the photos of each person.

    Attributes:
        id: Its number.
        time: In UTC, ISO 8601.
        author: Who asked for it.
        action: What was asked for.
        removed: Name -> numbers of photos that are no longer that person's.
        added: Name -> numbers of photos that are that person's now.
        renamed: The former and the new name, or None.
        threshold: The person whose threshold changed, and how; or None.
        undoes: The change that this one undid, or None.
        unknown: Numbers of the people without a name who were named, merged or dismissed.
        lost: Name -> own threshold of the people who had one and of whom no photo is left.
    """

    id: int
    time: str
    author: Author
    action: Action
    removed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    added: Mapping[str, Sequence[int]] = field(default_factory=dict)
    renamed: tuple[str, str] | None = None
    threshold: ThresholdChange | None = None
    undoes: int | None = None
    unknown: tuple[int, ...] = ()
    lost: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """Of the people that it concerns."""
        threshold = () if self.threshold is None else (self.threshold.name,)
        return {*self.removed, *self.added, *(self.renamed or ()), *threshold, *self.lost}

    def concerning(self, names: Set[str]) -> Change:
        """The same change as far as it concerns people of these names."""
        removed, added = (
            {name: photos for name, photos in people.items() if name in names}
            for people in (self.removed, self.added)
        )
        renamed = self.renamed if names & set(self.renamed or ()) else None
        threshold = self.threshold if self.threshold and self.threshold.name in names else None
        return replace(
            self, removed=removed, added=added, renamed=renamed, threshold=threshold, lost={}
        )

    def as_dict(self) -> dict[str, Any]:
        """The change as plain JSON values."""
        return {
            "id": self.id,
            "time": self.time,
            "author": self.author.name,
            "address": self.author.address,
            "action": self.action,
            "removed": {name: list(photos) for name, photos in self.removed.items()},
            "added": {name: list(photos) for name, photos in self.added.items()},
            "renamed": None if self.renamed is None else list(self.renamed),
            "threshold": None if self.threshold is None else self.threshold._asdict(),
            "undoes": self.undoes,
            "unknown": list(map(unknown_id, self.unknown)),
        }


def replayed(changes: Iterable[Change]) -> dict[str, set[int]]:
    """The photos of each person after some changes, all from the first one on."""
    people: dict[str, set[int]] = {}
    for change in changes:
        for name, photos in change.removed.items():
            people[name] -= set(photos)
        for name, photos in change.added.items():
            people.setdefault(name, set()).update(photos)
        if change.renamed is not None:
            former, name = change.renamed
            people[name] = people.get(name, set()) | people.pop(former)
    return {name: photos for name, photos in people.items() if photos}


def former_names(changes: Sequence[Change], name: str, people: Collection[str]) -> set[str]:
    """All names that a person has had, in every spelling: by renaming, and those merged into it.

    Args:
        changes: All changes, the first first.
        name: The person's name now; it is one of those returned.
        people: The names of everybody now: what somebody else is called by now is left out.
    """
    own, names = {folded_name(name)}, {name}
    others = set(map(folded_name, people)) - own
    for change in reversed(changes):
        if change.renamed is not None and folded_name(change.renamed[1]) in own:
            own.add(folded_name(change.renamed[0]))
        if change.action == "merge" and own & set(map(folded_name, change.added)):
            own |= set(map(folded_name, change.removed))
        names |= {each for each in change.names if folded_name(each) in own}
    return {each for each in names if folded_name(each) not in others}


class Audit:
    """The table ``change``, seen through one connection.

    Attributes:
        recorded: The last change that was written through this object, or None.
    """

    def __init__(self, file: DatabaseFile, connection: sqlite3.Connection) -> None:
        self._file, self._connection = file, connection
        self.recorded: int | None = None

    def record(
        self,
        author: Author,
        action: Action,
        removed: Mapping[str, Sequence[int]] | None = None,
        added: Mapping[str, Sequence[int]] | None = None,
        *,
        renamed: tuple[str, str] | None = None,
        threshold: ThresholdChange | None = None,
        undoes: int | None = None,
        unknown: Sequence[int] = (),
    ) -> int:
        """Write a change, and return its number; arguments as for ``Change``."""
        told: dict[str, Any] = {
            key: {name: _ranges(photos) for name, photos in people.items()}
            for key, people in (("removed", removed), ("added", added))
            if people
        }
        told |= {"renamed": renamed} if renamed else {}
        told |= {"threshold": threshold} if threshold else {}
        told |= {"undoes": undoes} if undoes else {}
        told |= {"unknown": list(unknown)} if unknown else {}
        number = self._connection.execute(
            "INSERT INTO change (time, author, address, action, details) VALUES (?, ?, ?, ?, ?)",
            [now(), author.name, author.address, action, self._sealed(told)],
        ).lastrowid
        assert number is not None
        self.recorded = number
        return number

    def record_lost(self, thresholds: Mapping[str, float]) -> None:
        """Add to the last recorded change what it ``lost``, so that it can be undone."""
        (details,) = self._connection.execute(
            "SELECT details FROM change WHERE id = ?", [self.recorded]
        ).fetchone()
        told = {**json.loads(self._file.text(details)), "lost": thresholds}
        self._connection.execute(
            "UPDATE change SET details = ? WHERE id = ?", [self._sealed(told), self.recorded]
        )

    def changes(self, since: int = 0, count: int | None = None) -> list[Change]:
        """Changes after the one of number ``since``, the first first.

        Args:
            since: A change's number, or 0.
            count: At most this many; None for all, a negative one for the last ones.
        """
        order = "DESC" if count is not None and count < 0 else "ASC"
        found = self._connection.execute(
            f"{_SELECT} WHERE id > ? ORDER BY id {order} LIMIT ?",
            [since, -1 if count is None else abs(count)],
        ).fetchall()
        return list(map(self._change, found if order == "ASC" else found[::-1]))

    def to_undo(self, number: int | None) -> Change:
        """The change of a number; for None the last one that is not undone yet.

        Raises:
            NotEnrolledError: There is none.
            GalleryError: It is undone already, or of a kind that cannot be undone.
        """
        undone: set[int] = set()
        for row in self._connection.execute(f"{_SELECT} ORDER BY id DESC"):
            change = self._change(row)
            if change.undoes is not None and change.id not in undone:
                undone.add(change.undoes)
            is_next = number is None and change.undoes is None and change.id not in undone
            if change.id != number and not is_next:
                continue
            if change.id in undone:
                raise GalleryError(f"change {change.id} is undone already")
            changed = change.removed or change.added or change.renamed or change.threshold
            if not changed or change.action in ("forget", "reembed"):
                raise GalleryError(f"change {change.id} ({change.action}) cannot be undone")
            if FORGOTTEN in change.names:
                raise GalleryError(
                    f"change {change.id} cannot be undone: somebody whom it concerns was forgotten"
                )
            return change
        raise NotEnrolledError(
            "there is no change to undo" if number is None else f"no change {number}"
        )

    def scrub(self, names: Collection[str]) -> None:
        """Write ``FORGOTTEN`` instead of some names."""
        hidden = set(names)
        for number, details in self._connection.execute(
            "SELECT id, details FROM change"
        ).fetchall():
            told = json.loads(self._file.text(details))
            for key in told.keys() & {"removed", "added"}:
                photos = [told[key].pop(name) for name in hidden & told[key].keys()]
                if photos:
                    told[key][FORGOTTEN] = _ranges(
                        [photo for each in photos for photo in numbers_of(each)]
                        + numbers_of(told[key].get(FORGOTTEN, []))
                    )
            if "renamed" in told:
                told["renamed"] = [
                    FORGOTTEN if name in hidden else name for name in told["renamed"]
                ]
            if "threshold" in told and told["threshold"][0] in hidden:
                told["threshold"][0] = FORGOTTEN
            told["lost"] = {
                name: value for name, value in told.get("lost", {}).items() if name not in hidden
            }
            self._connection.execute(
                "UPDATE change SET details = ? WHERE id = ?", [self._sealed(told), number]
            )

    def _sealed(self, told: Mapping[str, Any]) -> str | bytes:
        """The stored form of what a change did."""
        return self._file.sealed(json.dumps(told, ensure_ascii=False))

    def _change(self, row: Sequence[Any]) -> Change:
        """The change of a row."""
        number, time, author, address, action, details = row
        told = json.loads(self._file.text(details))
        removed, added = (
            {name: numbers_of(ranges) for name, ranges in told.get(key, {}).items()}
            for key in ("removed", "added")
        )
        renamed = (told["renamed"][0], told["renamed"][1]) if "renamed" in told else None
        signed = Author(author, address)
        threshold = ThresholdChange(*told["threshold"]) if "threshold" in told else None
        return Change(
            number,
            time,
            signed,
            action,
            removed,
            added,
            renamed,
            threshold,
            undoes=told.get("undoes"),
            unknown=tuple(told.get("unknown", ())),
            lost=told.get("lost", {}),
        )


def _ranges(photos: Sequence[int]) -> list[list[int]]:
    """Photos as pairs of the first and last of successive numbers."""
    ranges: list[list[int]] = []
    for photo in sorted(photos):
        if ranges and photo == ranges[-1][1] + 1:
            ranges[-1][1] = photo
        else:
            ranges.append([photo, photo])
    return ranges


def numbers_of(ranges: Iterable[Sequence[int]]) -> list[int]:
    """The photos of such pairs."""
    return [photo for first, last in ranges for photo in range(first, last + 1)]
