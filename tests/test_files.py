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


def test_advice_follows_what_went_wrong() -> None:
    full, forbidden = OSError(28, "No space left on device"), PermissionError(13, "denied")
    assert "make room" in files.advise(full)
    assert "may write to" in files.advise(forbidden)
    long = OSError(28, "file write failed: " + "buf = 0x55a251a22218, " * 20 + "errno = 28")
    assert files.shorten(long) == "[Errno 28] No space left on device"
    assert files.shorten(forbidden) == str(forbidden)


def test_a_folder_is_replaced_when_it_is_complete_and_only_then(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with files.write_folder_atomically(tmp_path / "a.zarr") as part:
            part.mkdir()
            (part / "values").write_text(text)
        assert (tmp_path / "a.zarr" / "values").read_text() == text
    with pytest.raises(FileNotFoundError), files.write_folder_atomically(tmp_path / "a.zarr"):
        (tmp_path / "missing" / "file").touch()
    assert (tmp_path / "a.zarr" / "values").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
