import importlib
import subprocess
import sys

import pytest

import marc.video
from marc.lazy import handed_on

PACKAGES = ["marc", "marc.compression", "marc.memory", "marc.model", "marc.training", "marc.video"]


def test_a_name_is_imported_when_it_is_asked_for():
    code = "import sys, marc.video; assert 'av' not in sys.modules; marc.video.probe; assert 'av' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'marc.video' has no attribute 'nothing'"):
        _ = marc.video.nothing
    with pytest.raises(ImportError, match="nothing"):
        from marc.video import nothing  # noqa: F401


def test_what_a_file_lacks_is_not_hidden():
    with pytest.raises(AttributeError, match="missing"):
        handed_on("marc", {"missing": "marc.types"})("missing")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_is_there(package):
    module = importlib.import_module(package)
    assert set(module.__all__) == set(module._HOMES)
    assert all(getattr(module, name) is not None for name in module.__all__)
