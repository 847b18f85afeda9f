"""Journal: every value of a scan, on disk the moment that it exists (SQLite).

Tables: ``question`` (what was asked: aspect, answer), ``setting`` (how it is done: name, bytes),
``remark`` (on it), ``point`` (which point, seconds it took) and ``value`` (point, quantity, value).
A point is written in one transaction: it is there whole or not at all. A row whose value is NULL is
NaN, for SQLite has no NaN; a point that is not there has not been evaluated.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

from landscope.errors import JournalError

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
_TABLES = {"question", "point", "value"}


@final
class Journal:
    """Values of one scan.

    Args:
        path: an SQLite file, made when it is not there; None keeps the journal in memory.

    Raises:
        JournalError: when the file cannot be made, or is not a journal.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = None if path is None else Path(path)
        try:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path or ":memory:", isolation_level=None)
            tables = {r[0] for r in self._db.execute("SELECT name FROM sqlite_master")}
            if tables and not tables >= _TABLES:
                raise JournalError(
                    f"{path} is an SQLite file with the tables {sorted(tables)}, but no landscope"
                    " journal: choose another file."
                )
            # With a write-ahead log a killed process loses nothing that was committed.
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise JournalError(
                f"journal {path} cannot be used ({error}): choose a file in a folder that you may"
                " write to."
            ) from error

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
        """Note what is asked, or check that it is what was asked before.

        Raises:
            JournalError: when the journal answers another question; the text names each
                difference.
        """
        before = dict(self._db.execute("SELECT aspect, answer FROM question"))
        if before and before != dict(question):
            raise JournalError(
                f"{self.path or 'the journal'} answers another question:"
                f" {_differences(before, question)}. Nothing was mixed in: ask the same question,"
                " or choose another journal (another --out)."
            )
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO question VALUES (?, ?)", question.items())

    def remark(self, texts: Iterable[str]) -> None:
        """Keep remarks on the question, so that a resumed scan tells them as well."""
        with self._transaction():
            rows = [(text,) for text in texts]
            self._db.executemany("INSERT OR IGNORE INTO remark (text) VALUES (?)", rows)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was remarked, in order."""
        return tuple(r[0] for r in self._db.execute("SELECT text FROM remark ORDER BY id"))

    def known(self) -> dict[int, dict[str, float]]:
        """Return point -> quantity -> value for all that has been evaluated."""
        found: dict[int, dict[str, float]] = {
            k: {} for (k,) in self._db.execute("SELECT id FROM point ORDER BY id")
        }
        for point, quantity, value in self._db.execute("SELECT point, quantity, value FROM value"):
            found[point][quantity] = math.nan if value is None else value
        return found

    def write(self, results: Iterable[Result]) -> None:
        """Keep the values of some points; once this returns they survive a kill."""
        points, rows = [], []
        for result in results:
            points.append((result.point, result.seconds))
            for name, value in result.values.items():
                rows.append((result.point, name, None if math.isnan(value) else float(value)))
        try:
            with self._transaction():
                self._db.executemany("INSERT OR REPLACE INTO point VALUES (?, ?)", points)
                self._db.executemany("INSERT OR REPLACE INTO value VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise JournalError(
                f"journal {self.path} cannot be written ({error}): what was written before is safe;"
                " make room or choose another folder."
            ) from error

    def keep(self, name: str, value: str | bytes) -> None:
        """Keep how something is done, so that a resumed scan does it in the same way."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (name, value))

    def kept(self) -> dict[str, Any]:
        """Return what was kept: name -> text or bytes."""
        return dict(self._db.execute("SELECT name, value FROM setting"))

    def drop(self, names: Iterable[str]) -> None:
        """Forget some of what was kept."""
        with self._transaction():
            self._db.executemany("DELETE FROM setting WHERE name = ?", [(n,) for n in names])

    @property
    def question(self) -> dict[str, str]:
        """What was asked; empty for a new journal."""
        return dict(self._db.execute("SELECT aspect, answer FROM question"))

    @property
    def seconds(self) -> float:
        """Sum of the seconds that the points took."""
        return float(self._db.execute("SELECT TOTAL(seconds) FROM point").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = [n for n in {**before, **now} if before.get(n) != now.get(n)]
    told = [f"{n} was {before.get(n, 'not set')}, now {now.get(n, 'not set')}" for n in names[:4]]
    return "; ".join(told) + ("; and more" if len(names) > 4 else "")
