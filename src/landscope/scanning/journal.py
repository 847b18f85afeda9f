"""Journal: every value of a scan is on disk as soon as it is computed (SQLite).

Tables: ``question`` (what identifies the scan: aspect, answer), ``setting`` (how it is done: name,
bytes), ``remark`` (notes on the result), ``point`` (flat index, seconds of its evaluation) and
``value`` (point, quantity, value). A point is written in one transaction: it is stored completely
or not at all. NULL stands for NaN, which SQLite does not have; a point without a row has not been
evaluated.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

from landscope.errors import JournalError
from landscope.files import advise, to_path

if TYPE_CHECKING:
    from landscope.engines.job import Result

_SCHEMA = """
CREATE TABLE IF NOT EXISTS question (aspect TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remark (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS point (id INTEGER PRIMARY KEY, seconds REAL NOT NULL);
CREATE TABLE IF NOT EXISTS value (
    point INTEGER NOT NULL, quantity TEXT NOT NULL, value REAL, PRIMARY KEY (point, quantity)
) WITHOUT ROWID;
"""
DESCRIPTION = "description"  # the setting that describes the landscape
_DAMAGED = ("malformed", "no such column", "no such table")
_TABLES = {"question", "point", "value"}


class OtherScanError(JournalError):
    """A journal belongs to another scan.

    Args:
        text: What is different, in words.
        aspects: The names of the aspects that are different.
    """

    def __init__(self, text: str, aspects: Sequence[str]) -> None:
        super().__init__(text)
        self.aspects = tuple(aspects)


@final
class Journal:
    """The values of one scan, and what identifies it.

    Args:
        path: An SQLite file, which is created if it does not exist; None keeps the journal in
            memory.

    Raises:
        JournalError: When the file cannot be created, or is not a journal.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else to_path(path)
        try:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path or ":memory:", isolation_level=None)
            tables = {r[0] for r in self._db.execute("SELECT name FROM sqlite_master")}
            if tables and not tables >= _TABLES:
                raise JournalError(
                    f"{path} is an SQLite file with the tables {sorted(tables)}, and not a"
                    " landscope journal: choose another file."
                )
            # With a write-ahead log a killed process loses nothing that was committed.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise self._explain(error) from error

    def __repr__(self) -> str:
        return f"<Journal in {self.path or 'memory'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def begin(self, question: Mapping[str, str]) -> None:
        """Store what identifies the scan, or check that it is the scan that is stored already.

        Args:
            question: Aspect -> fingerprint.

        Raises:
            JournalError: When the journal is of another scan; the text names the differences.
        """
        before = self.question
        if before and before != dict(question):
            aspects = [n for n in {**before, **question} if before.get(n) != question.get(n)]
            raise OtherScanError(
                f"{self.path or 'the journal'} holds another scan:"
                f" {_differences(before, question)}. Nothing was written to it: repeat that scan"
                " with the same arguments, or choose another journal.",
                aspects,
            )
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO question VALUES (?, ?)", question.items())

    def add_notes(self, texts: Iterable[str]) -> None:
        """Store notes on the result, so that a resumed scan has them as well."""
        with self._transaction():
            rows = [(text,) for text in texts]
            self._db.executemany("INSERT OR IGNORE INTO remark (text) VALUES (?)", rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes, in order."""
        return tuple(r[0] for r in self._read("SELECT text FROM remark ORDER BY id"))

    def values(self) -> dict[int, dict[str, float]]:
        """Return point -> quantity -> value for all points that have been evaluated."""
        values: dict[int, dict[str, float]] = {
            k: {} for (k,) in self._read("SELECT id FROM point ORDER BY id")
        }
        for point, quantity, value in self._read("SELECT point, quantity, value FROM value"):
            values[point][quantity] = math.nan if value is None else value
        return values

    def write(self, results: Iterable[Result]) -> None:
        """Store the values of some points; once this returns they survive a kill."""
        points, rows = [], []
        for result in results:
            points.append((result.point, result.seconds))
            for name, value in result.values.items():
                rows.append((result.point, name, None if math.isnan(value) else float(value)))
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO point VALUES (?, ?)", points)
            self._db.executemany("INSERT OR REPLACE INTO value VALUES (?, ?, ?)", rows)

    def save_setting(self, name: str, value: str | bytes) -> None:
        """Store how something is done, so that a resumed scan does it in the same way."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    def settings(self) -> dict[str, Any]:
        """Return name -> text or bytes of all settings."""
        return dict(self._read("SELECT name, value FROM setting"))

    def delete_settings(self, names: Iterable[str]) -> None:
        """Delete some of the settings."""
        with self._transaction():
            self._db.executemany("DELETE FROM setting WHERE name = ?", [(n,) for n in names])

    @property
    def question(self) -> dict[str, str]:
        """What identifies the scan: aspect -> fingerprint; empty for a new journal."""
        return dict(self._read("SELECT aspect, answer FROM question"))

    @property
    def seconds(self) -> float:
        """The sum of the seconds that the points took."""
        return float(self._read("SELECT TOTAL(seconds) FROM point")[0][0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _read(self, query: str) -> list[Any]:
        try:
            return self._db.execute(query).fetchall()
        except sqlite3.Error as error:
            raise self._explain(error) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # a full disk has rolled back already
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._explain(error, "written") from error

    def _explain(self, error: Exception, verb: str = "used") -> JournalError:
        """Return an error that says what happened to the file, and what to do."""
        text = str(error)
        if any(word in text for word in _DAMAGED):
            return JournalError(
                f"journal {self.path} is damaged ({text}): move it away, or put a copy of it in its"
                " place, and repeat the scan. Files that were saved from it are not affected."
            )
        if "not a database" in text:
            return JournalError(
                f"journal {self.path} cannot be used ({text}): it is another file, or a journal"
                " that was damaged. Choose another name, or move the file away."
            )
        if "locked" in text:
            return JournalError(
                f"journal {self.path} is in use by another process ({text}): wait until that scan"
                " ends, or choose another journal."
            )
        return JournalError(
            f"journal {self.path} cannot be {verb} ({text}): {advise(error)}. What was written"
            " before is safe."
        )


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Name the aspects in which two questions differ."""
    names = [n for n in {**before, **now} if before.get(n) != now.get(n)]
    texts = [f"{n} was {before.get(n, 'not set')}, now {now.get(n, 'not set')}" for n in names[:4]]
    return "; ".join(texts) + ("; and more" if len(names) > 4 else "")
