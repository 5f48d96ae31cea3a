"""The file of a gallery database: SQLite, its tables, and how programs share it.

SQLite lets several programs have the file open: one changes it at a time, the others wait a bounded
time for their turn, and readers never wait (write-ahead log). Each change is a transaction, and a
program that is killed in the middle of one leaves nothing of it.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import logging
import os
import secrets
import sqlite3
import stat
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from face_encode.errors import GalleryError, NotEnrolledError
from face_encode.files import for_owner, make_private_folder, reason_of, replacing, state_of
from face_encode.gallery.encryption import KEY_VARIABLE, Cipher

_LOG = logging.getLogger(__name__)

DATABASE_SUFFIX = ".sqlite"

BUSY_SECONDS = 10
"""How long a change waits for that of another program."""

# "face", in the file's header: other programs' databases are left alone.
_APPLICATION_ID = 0x66616365

# One tuple of statements a version of the tables; a file of an older one gets those it lacks.
# Columns without a type hold text, or bytes where the gallery is encrypted.
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE gallery (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        """CREATE TABLE person (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name NOT NULL,
            folded NOT NULL UNIQUE,
            note NOT NULL
        )""",
        """CREATE TABLE photo (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            person INTEGER NOT NULL REFERENCES person,
            embedding BLOB NOT NULL,
            digest NOT NULL,
            source NOT NULL,
            detector TEXT NOT NULL,
            quality REAL,
            x INTEGER, y INTEGER, width INTEGER, height INTEGER,
            enrolled_at TEXT NOT NULL,
            enrolled_by TEXT NOT NULL
        )""",
        "CREATE INDEX photo_of_person ON photo (person)",
        "CREATE INDEX photo_of_digest ON photo (digest)",
        # Apart from the photos: going through all embeddings must not read the crops.
        """CREATE TABLE crop (
            photo INTEGER PRIMARY KEY REFERENCES photo ON DELETE CASCADE,
            jpeg BLOB NOT NULL
        )""",
        """CREATE TABLE change (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            time TEXT NOT NULL,
            author TEXT NOT NULL,
            address TEXT NOT NULL,
            action TEXT NOT NULL,
            details NOT NULL
        )""",
        """CREATE TABLE staged (
            run TEXT NOT NULL,
            photo NOT NULL,
            content BLOB NOT NULL,
            PRIMARY KEY (run, photo)
        ) WITHOUT ROWID""",
    ),
    # People without a name; see unknown.py. The mean comes last, and so does the crop: what goes
    # through the other columns does not read them.
    (
        """CREATE TABLE unknown (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            seen INTEGER NOT NULL,
            first_seen TEXT NOT NULL,
            last_seen TEXT NOT NULL,
            expires_at TEXT NOT NULL,
            mean BLOB NOT NULL
        )""",
        """CREATE TABLE unknown_face (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            number INTEGER NOT NULL REFERENCES unknown ON DELETE CASCADE,
            embedding BLOB NOT NULL,
            digest NOT NULL,
            source NOT NULL,
            detector TEXT NOT NULL,
            quality REAL,
            x INTEGER, y INTEGER, width INTEGER, height INTEGER,
            seen_at TEXT NOT NULL,
            jpeg BLOB NOT NULL
        )""",
        "CREATE INDEX unknown_face_of ON unknown_face (number)",
    ),
    ("ALTER TABLE person ADD COLUMN threshold REAL",),
    # A photo, perhaps one that is another person's by now, or nobody's.
    ("ALTER TABLE person ADD COLUMN picture INTEGER",),
)

_LATER_COLUMNS = ("threshold", "picture")
"""Of the people; a file of an earlier release that cannot be changed lacks them."""

# The columns that tell of people, and those that are only looked up.
_SEALED = {
    "person": ("name", "note"),
    "photo": ("embedding", "source"),
    "crop": ("jpeg",),
    "change": ("details",),
    "staged": ("content",),
    "unknown": ("mean",),
    "unknown_face": ("embedding", "source", "jpeg"),
}
_BLIND = {"person": "folded", "photo": "digest", "staged": "photo", "unknown_face": "digest"}
_BLIND_KEY = "blind_key"
_BLIND_KEY_BYTES = hashlib.sha256().digest_size
_SELECT_KEY = f"SELECT value FROM gallery WHERE key = '{_BLIND_KEY}'"

# Values of one statement; SQLite's own bound is 32,766.
_VALUES_AT_ONCE = 10_000
_Value = TypeVar("_Value")
# Where a file of this many bytes is damaged is found out when it is opened; in a larger one, when
# the damaged page is read.
_CHECKED_UP_TO_BYTES = 32_000_000


class DatabaseFile:
    """An open gallery database: a connection that reads, one that changes, and the cipher.

    Attributes:
        path: The file.
        label: Its name in messages.
        cipher: Encrypts what tells of people; None where the file is plain.
        is_read_only: Whether the file, or its folder, cannot be written to.
        holds_unknown: Whether it has the tables of people without a name: not if an older release
            made it, and it cannot be written to.
    """

    def __init__(self, path: Path, cipher: Cipher | None = None, *, create: bool = True) -> None:
        """Open the file, or create it.

        Args:
            path: The file.
            cipher: The cipher of the keys in the environment, if any. A plain file is encrypted
                under it, an encrypted one can only be opened with it.
            create: Whether the file may be new; missing folders above it are then made.

        Raises:
            GalleryError: It is missing, damaged, another program's, of a later release, cannot be
                read, or cannot be decrypted.
        """
        self.path, self.label, self.cipher = path, str(path), cipher
        self.is_read_only = self.holds_unknown = False
        self._lock, self._write_lock = threading.Lock(), threading.Lock()
        self._blind_key = b""
        # The row of the key; None while the tables are not there yet, or the file is plain.
        self._key_row: tuple[bytes] | None = None
        self._is_prepared = False
        # Of the file and its log, where the connection does not tell of changes.
        self._state: tuple[object, ...] = ()
        self._check_or_create(create)
        with self.reporting():
            self._reader = self._connect()
            try:
                self._prepare()
            except BaseException:
                self.close()
                raise

    def _check_or_create(self, create: bool) -> None:
        """Refuse what is no file, and create one where there is none."""
        # Only SQLite opens a file that exists: its locks are the process's, and closing any other
        # descriptor of a file that this program has open already would drop them.
        try:
            found = os.stat(self.path)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if not os.access(self.path, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except FileNotFoundError as error:
            if not create:
                raise GalleryError(f"no such gallery: {self.label}") from error
            try:
                make_private_folder(self.path.parent)
                # For its owner only; SQLite gives the files beside it the same rights. Another
                # program may have been faster.
                place = os.path.realpath(self.path)
                with suppress(FileExistsError), open(place, "xb", opener=for_owner):
                    pass
            except OSError as failure:
                raise GalleryError(f"cannot write {self.label}: {reason_of(failure)}") from failure
            return
        except OSError as error:
            raise GalleryError(
                f"the gallery {self.label} cannot be read: {reason_of(error)}"
            ) from error
        if not found.st_size and not create:
            # As another program leaves it that was killed when it had just created it.
            raise GalleryError(f"nobody is enrolled yet: {self.label} is empty")

    def _connect(self) -> sqlite3.Connection:
        """Open a connection; where the folder cannot be written to, one that only reads."""
        place = quote(os.fsencode(os.path.abspath(self.path)))
        mode = "mode=ro&immutable=1" if self.is_read_only else "mode=rw"
        connection = sqlite3.connect(
            f"file:{place}?{mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            # What is removed is overwritten with zeros.
            connection.execute("PRAGMA secure_delete = ON")
            # An acknowledged change survives a power cut as well.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            # The log needs a file beside the gallery, which a read-only folder does not take.
            # Without a log there is nothing in it that the file itself does not hold.
            if self.is_read_only or os.access(self.path.parent, os.W_OK):
                raise
            self.is_read_only = True
            self._state = state_of(self.path), state_of(f"{self.path}-wal")
            return self._connect()
        return connection

    def _prepare(self) -> None:
        """Bring the tables up to date, and the cipher into use."""
        reader = self._reader
        (application,) = reader.execute("PRAGMA application_id").fetchone()
        if application not in (0, _APPLICATION_ID):
            raise GalleryError(f"{self.label} is the SQLite database of another program")
        (version,) = reader.execute("PRAGMA user_version").fetchone()
        if version > len(_MIGRATIONS):
            raise GalleryError(
                f"{self.label} was written by a later release of face_encode; this one reads "
                f"version {len(_MIGRATIONS)}. Received: version {version}"
            )
        if version == 0 and reader.execute("SELECT 1 FROM sqlite_master").fetchone():
            raise GalleryError(f"{self.label} is the SQLite database of another program")
        if self.can_write or version == 0:
            # Stays with the file; a copy or a backup lacks it. Where others are at work on one, the
            # next program sets it.
            with suppress(sqlite3.OperationalError):
                reader.execute("PRAGMA journal_mode = WAL")
        if version < len(_MIGRATIONS) and (self.can_write or version == 0):
            self._migrate()
            version = len(_MIGRATIONS)
        elif self.path.stat().st_size <= _CHECKED_UP_TO_BYTES:
            ((result,),) = reader.execute("PRAGMA quick_check(1)").fetchall()
            if result != "ok":
                raise sqlite3.DatabaseError(result)
        self.holds_unknown = version == len(_MIGRATIONS)
        if not self.holds_unknown:
            has = {row[1] for row in reader.execute("PRAGMA main.table_info(person)")}
            lacks = (f", NULL AS {column}" for column in _LATER_COLUMNS if column not in has)
            # Stands for the table in the queries of this connection, which only reads.
            reader.execute(f"CREATE TEMP VIEW person AS SELECT *{''.join(lacks)} FROM main.person")
        self._is_prepared = True
        self._check_key(reader)

    def _check_key(self, connection: sqlite3.Connection) -> None:
        """Take the file's key; refuse to go on where another program has changed it meanwhile.

        Raises:
            GalleryError: The file is encrypted, and there is no key that fits, or it is another
                one than before.
        """
        row = connection.execute(_SELECT_KEY).fetchone()
        if row == self._key_row:
            return
        if row is not None and self.cipher is None:
            raise GalleryError(f"{self.label} is encrypted: its key belongs in {KEY_VARIABLE}")
        key = b"" if row is None or self.cipher is None else self.cipher.decrypt(row[0], self.label)
        if self._blind_key not in (b"", key):
            raise GalleryError(f"{self.label} was replaced by another file: open it again")
        self._blind_key, self._key_row = key, row

    def _migrate(self) -> None:
        """Create the tables, or those that an older release did not have."""
        with self.transaction() as connection:
            # Another program may have been faster.
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            for statements in _MIGRATIONS[version:]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Turn an error of SQLite into one of ours."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            text = str(error)
            if "closed database" in text:
                reason = f"{self.label} is closed"
            elif "not a database" in text:
                reason = f"{self.label} is not a gallery database, or damaged"
            elif "locked" in text or "busy" in text:
                reason = (
                    f"another program is changing {self.label}, and has not ended within "
                    f"{BUSY_SECONDS} seconds; try again"
                )
            elif isinstance(error, sqlite3.OperationalError) and "malformed" not in text:
                reason = f"cannot use {self.label}: {text}"
            else:
                reason = f"{self.label} is damaged ({text}); restore it from a backup"
            raise GalleryError(reason) from error
        except OverflowError as error:
            raise NotEnrolledError(f"{self.label} holds nothing of so high a number") from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read in one moment's state, whatever others change meanwhile."""
        with self._lock, self.reporting():
            if self.is_read_only:
                self._follow()
            self._reader.execute("BEGIN")
            try:
                self._check_key(self._reader)
                yield self._reader
            finally:
                self._reader.execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Change the gallery: all that is done inside, or nothing of it.

        Raises:
            GalleryError: The file cannot be written to, or another program keeps on changing it.
        """
        with self._write_lock, self.reporting():
            # A connection of its own: whoever reads meanwhile sees the state before.
            connection = self._connect()
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    # Under another key than the file's, what is written now could never be read.
                    if self._is_prepared:
                        self._check_key(connection)
                    yield connection
                    if connection.in_transaction:
                        connection.execute("COMMIT")
                except BaseException:
                    # SQLite has rolled back already where the disk is full.
                    with suppress(sqlite3.OperationalError):
                        connection.execute("ROLLBACK")
                    raise
            finally:
                connection.close()

    @property
    def can_write(self) -> bool:
        """Whether the file, as far as can be told, can be written to."""
        return not self.is_read_only and os.access(self.path, os.W_OK)

    def version(self) -> tuple[object, ...]:
        """What differs once somebody has changed the file, this program included."""
        # Called before each search: no context manager for its error.
        try:
            with self._lock:
                if self.is_read_only:
                    self._follow()
                return (*self._state, self._reader.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.DatabaseError:
            with self.reporting():
                raise

    def _follow(self) -> None:
        """Open the file anew where it has changed: a connection that only reads does not tell."""
        state = state_of(self.path), state_of(f"{self.path}-wal")
        if state != self._state:
            self.is_read_only, self._state = False, state
            former, self._reader = self._reader, self._connect()
            former.close()
            self._prepare()

    def compact(self) -> None:
        """Write the file anew without its free pages, and empty the log."""
        with self._write_lock, self.reporting():
            connection = self._connect()
            try:
                connection.execute("VACUUM")
            finally:
                connection.close()
        self.empty_log()

    def empty_log(self) -> None:
        """Empty the log, which goes on holding what was removed until it is written over."""
        with self._write_lock, self.reporting():
            connection = self._connect()
            try:
                (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.close()
        if busy:
            _LOG.warning(
                "the log of %s still holds what was removed: another program has been reading it "
                "for %s seconds; it is emptied when no program has the gallery open",
                self.label,
                BUSY_SECONDS,
            )

    def copy_to(self, path: Path) -> None:
        """Write a copy to a new file, for its owner only.

        Raises:
            GalleryError: There is a file of that name, or it cannot be written.
        """
        # Never over a database: a program that has it open would go on with its log.
        if os.path.exists(path):
            raise GalleryError(f"a gallery is copied to a new file. Received: {path}, which exists")
        with replacing(path, GalleryError) as temporary, self.reporting():
            connection = self._connect()
            try:
                connection.execute("VACUUM INTO ?", [str(temporary)])
            finally:
                connection.close()

    def close(self) -> None:
        """Close the file; the log becomes part of it, where no other program has it open."""
        with self._lock:
            self._reader.close()

    @property
    def is_encrypted(self) -> bool:
        """Whether what tells of people is encrypted in the file."""
        return bool(self._blind_key)

    def sealed(self, value: str | bytes) -> str | bytes:
        """The form in which a value that tells of a person is stored."""
        if not self._blind_key or self.cipher is None:
            return value
        # The first byte says what it was.
        plain = b"t" + value.encode() if isinstance(value, str) else b"b" + value
        return self.cipher.encrypt(plain)

    def text(self, stored: str | bytes) -> str:
        """Undo ``sealed`` for text."""
        if isinstance(stored, str):
            return stored
        return self._opened(stored)[1:].decode()

    def content(self, stored: bytes) -> bytes:
        """Undo ``sealed`` for bytes."""
        return self._opened(stored)[1:] if self._blind_key else stored

    def _opened(self, token: bytes) -> bytes:
        """Decrypt a value."""
        if self.cipher is None or not self._blind_key:
            raise GalleryError(f"{self.label} is damaged: a text in it is none")
        return self.cipher.decrypt(token, self.label)

    def blind(self, text: str) -> str | bytes:
        """The form in which a text is stored that is looked up and never read.

        In an encrypted gallery a keyed hash: it is the same for the same text, and says nothing
        else to those who lack the key.
        """
        if not self._blind_key or not text:
            return text
        return hmac.digest(self._blind_key, text.encode(), hashlib.sha256)

    def rekey(self, cipher: Cipher) -> None:
        """Encrypt everything that tells of people under a cipher's first key.

        Args:
            cipher: Its further keys decrypt what is encrypted so far.

        Raises:
            GalleryError: None of the keys fits, or the file cannot be written to.
        """
        former = self.cipher, self._blind_key, self._key_row
        self.cipher = cipher
        try:
            # Whoever reads in this program waits: half way, neither key fits.
            with self.transaction() as connection, self._lock:
                # Known by now, where another program has encrypted the file at the same time.
                was_encrypted = self.is_encrypted
                self._blind_key = self._blind_key or secrets.token_bytes(_BLIND_KEY_BYTES)

                def resealed(value: str | bytes) -> str | bytes:
                    if was_encrypted and isinstance(value, bytes):
                        return cipher.encrypt(cipher.decrypt(value, self.label))
                    return self.sealed(value)

                connection.create_function("resealed", 1, resealed)
                connection.create_function("blind", 1, self.blind)
                for table, columns in _SEALED.items():
                    settings = [f"{column} = resealed({column})" for column in columns]
                    if not was_encrypted and table in _BLIND:
                        settings.append(f"{_BLIND[table]} = blind({_BLIND[table]})")
                    connection.execute(f"UPDATE {table} SET {', '.join(settings)}")
                self._key_row = (cipher.encrypt(self._blind_key),)
                connection.execute(
                    "INSERT OR REPLACE INTO gallery VALUES (?, ?)", [_BLIND_KEY, *self._key_row]
                )
                connection.execute("COMMIT")
        except BaseException:
            self.cipher, self._blind_key, self._key_row = former
            raise
        # What was there before is still on pages that are free now.
        self.compact()


def now() -> str:
    """This moment in UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def marks(values: Collection[Any]) -> str:
    """A question mark for each value, as a statement takes them."""
    return ",".join("?" * len(values))


def parts(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    """Values in parts that a statement takes."""
    for start in range(0, len(values), _VALUES_AT_ONCE):
        yield values[start : start + _VALUES_AT_ONCE]


def is_database(text: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a gallery database, by its ending."""
    return os.fspath(text).endswith(DATABASE_SUFFIX)
