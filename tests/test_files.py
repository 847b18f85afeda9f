"""Files that appear whole or not at all, and where the cache is."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from landscope import files


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANDSCOPE_CACHE", "/a")
    assert files.cache_folder() == Path("/a")
    monkeypatch.delenv("LANDSCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert files.cache_folder() == Path("/b/landscope")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/c")
    assert files.cache_folder() == Path("/c/.cache/landscope")


def _half(path: Path) -> None:
    with files.write_atomically(path) as part:
        part.write_text("half")
        raise RuntimeError("in the middle")


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with pytest.raises(RuntimeError, match="in the middle"):
        _half(path)
    assert list(tmp_path.iterdir()) == []
    with files.write_atomically(path) as part:
        part.write_text("whole")
        assert not path.exists()
    assert [p.read_text() for p in tmp_path.iterdir()] == ["whole"]


def test_what_was_written_first_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.json"
    files.write_once(path, "first")
    files.write_once(path, "second")
    assert [p.read_text() for p in path.parent.iterdir()] == ["first"]
    (tmp_path / "b").write_text("")
    assert path.stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_disk_that_is_full_leaves_nothing_of_what_is_written_once(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # a file cannot be larger
    try:
        with pytest.raises(OSError, match="too large"):
            files.write_once(tmp_path / "a.json", "a" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
