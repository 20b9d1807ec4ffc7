"""The documentation's pictures are those that the program draws."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.pictures import DOCS, PICTURES, drawable, main


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all pictures."""
    folder = tmp_path_factory.mktemp("pictures") / "new"
    main(folder)
    return folder


def test_the_program_draws_every_picture_of_the_documentation(drawn: Path):
    assert {path.name for path in drawn.iterdir()} == set(drawable())
    assert set(PICTURES) == {path.name for path in DOCS.glob("*.png")}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_up_to_date(name: str, drawn: Path):
    """Other versions of matplotlib draw a little differently, browsers with other fonts, too."""
    if name not in drawable():
        pytest.skip("there is no browser here")
    new, old = Image.open(drawn / name), Image.open(DOCS / name)
    assert new.size == old.size, f"python -m benchmarks.pictures writes another {name}"
    difference = np.abs(np.asarray(new.convert("RGB"), int) - np.asarray(old.convert("RGB"), int))
    same_version = new.info.get("Software", "browser") == old.info.get("Software")
    assert difference.mean() <= (0.02 if same_version else 3), f"python -m benchmarks.pictures writes another {name}"


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_shown_and_described(name: str):
    pages = [DOCS.parent / "README.md", *DOCS.glob("*.md")]
    shown = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines() if f"{name})" in line]
    assert any(line.startswith("![") and not line.startswith("![]") for line in shown)
