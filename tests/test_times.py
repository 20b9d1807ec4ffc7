"""Times as on a clock."""

import pytest

from marc.video.times import clock, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), (" 1:30 ", 90), ("0:01:30.5", 90.5), ("75:00", 4500), ("0", 0)]
)
def test_a_time_is_seconds_or_as_on_a_clock_and_is_said_so(text, seconds):
    assert seconds_of(text, "--start") == seconds
    assert seconds_of(clock(seconds), "--start") == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1:75", "1e3", "inf", "1:2:3:4"])
def test_what_is_no_time_is_an_error_that_names_the_option(text):
    with pytest.raises(ValueError, match=r"^--end must be seconds or a time such as 1:02:03\.5, got"):
        seconds_of(text, "--end")
