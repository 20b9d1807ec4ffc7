"""What a filter takes and refuses, as the SQL that LanceDB sees and as what is found."""

import os

import pytest

from marc.memory.filters import EventFilter, check_tags

COLUMNS = ("source", "start", "end", "tags")


def test_no_wish_is_no_condition():
    assert EventFilter().condition(COLUMNS) == ""


def test_all_wishes_hold_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wish = EventFilter(videos=("what's up.mp4",), after=1.5, before=60, tags=("a 'b'", "c"))
    path = f"{os.path.realpath(tmp_path)}/what''s up.mp4"
    assert wish.condition(COLUMNS) == (
        f"((source = '{path}' OR starts_with(source, '{path}/'))) AND `end` > 1.5 AND start < 60 "
        "AND array_has(tags, 'a ''b''') AND array_has(tags, 'c')"
    )


def test_a_table_without_tags_has_none_with_this_one():
    assert EventFilter(tags=("a",)).condition(["source"]) == "false"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"after": -1}, "after must be seconds"),
        ({"before": float("nan")}, "before must be seconds"),
        ({"after": float("inf")}, "after must be seconds"),
        ({"after": 5, "before": 5}, "before must be later than after"),
        ({"before": 0}, "before must be later than after"),
        ({"tags": ("",)}, "'' is no tag"),
    ],
)
def test_wishes_that_nothing_meets_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        EventFilter(**values)


@pytest.mark.parametrize("tag", ["", " a", "a\n", "a\x1b[31m", "a\u202eb"])
def test_tags_can_be_typed_again(tag):
    with pytest.raises(ValueError, match="is no tag"):
        check_tags([tag])
    check_tags(["holiday 2026", "日本", "it's"])
