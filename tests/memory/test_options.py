import pytest

from marc.memory.options import MemoryOptions, RetrievalOptions
from marc.options import options_of


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds_per_frame": 0},
        {"thumbnail_width": 0},
        {"min_event_seconds": -1},
        {"max_event_seconds": 3.0},
        {"segmenter": "scenes"},
    ],
)
def test_options_of_the_memory_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MemoryOptions(**wrong)


@pytest.mark.parametrize("k", [0, "all", 1.5])
def test_a_number_of_events_that_cannot_be_retrieved_is_refused(k):
    with pytest.raises(ValueError, match="k must be"):
        RetrievalOptions(k=k)
    assert RetrievalOptions(k="auto").k == "auto"


def test_a_scope_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="scope must be"):
        RetrievalOptions(scope="global")


@pytest.mark.parametrize("record", [MemoryOptions, RetrievalOptions])
def test_every_option_is_explained(record):
    assert all(option.help for option in options_of(record))
