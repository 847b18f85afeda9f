"""A missing library is named with the line that installs it."""

from __future__ import annotations

import json

import pytest

from landscope.errors import MissingExtraError
from landscope.extras import import_optional


def test_a_library_that_is_there_is_returned() -> None:
    assert import_optional("json", extra="zarr") is json


def test_a_library_that_is_not_there_is_named_with_its_pip_line() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'landscope\[cluster\]'"):
        import_optional("no_such_library", extra="cluster")
