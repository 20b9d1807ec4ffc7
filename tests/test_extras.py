import sys

import pytest

from marc.extras import MissingExtraError, extra


def test_a_missing_package_is_an_error_of_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with (
        pytest.raises(MissingExtraError, match=r"^lancedb is not installed, .*'marc-video\[library\]'$"),
        extra("library"),
    ):
        import lancedb.index  # noqa: F401


def test_a_package_that_is_there_but_broken_is_not_called_missing():
    with pytest.raises(ImportError, match="cannot import name") as caught, extra("library"):
        from json import nothing  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)
