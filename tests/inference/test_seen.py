"""What can be asked about."""

import pytest

from marc.inference.seen import footage
from marc.types import Clip


@pytest.mark.parametrize("wrong", [None, 3, [], ["a.mp4", None], [["a.mp4"]]])
def test_what_is_no_footage_is_refused(wrong):
    with pytest.raises(ValueError, match="a question is about"):
        footage(wrong)


def test_a_file_is_all_of_a_clip():
    assert footage("a.mp4") == footage(["a.mp4"]) == footage(Clip("a.mp4")) == (Clip("a.mp4"),)
