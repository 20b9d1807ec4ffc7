"""A sheet shows the middle of each event, in order, and says what cannot be shown."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from marc.memory.library import RecalledEvent
from marc.memory.sheet import HEIGHT, WIDTH, write_sheet
from marc.memory.store import content_key
from marc.types import Event

TILE = (WIDTH + 8, HEIGHT + 48)


@pytest.fixture
def events(tmp_path, write_colours):
    """Two seconds of red, green and blue each."""
    video = write_colours(tmp_path / "video.mp4", "red", "green", "blue")
    content = content_key(video)
    return [
        RecalledEvent(str(video), content, position, Event(2 * position, 2 * position + 2), 0.5 - position / 10)
        for position in range(3)
    ]


def colour_at(sheet, column, row):
    x, y = 8 + column * TILE[0] + WIDTH // 2, 8 + row * TILE[1] + HEIGHT // 2
    return np.asarray(sheet)[y - 5 : y + 5, x - 5 : x + 5].reshape(-1, 3).mean(axis=0)


@pytest.mark.parametrize("name", ["sheet.png", "sheet.JPG"])
def test_events_stand_in_rows_in_their_order(tmp_path, events, name):
    blue, red, green = events[2], events[0], events[1]
    write_sheet(tmp_path / name, [blue, red, green], first=6)
    with Image.open(tmp_path / name) as sheet:
        assert sheet.size == (8 + 2 * TILE[0], 8 + 2 * TILE[1])
        colours = [colour_at(sheet, *place).argmax() for place in ((0, 0), (1, 0), (0, 1))]
        assert colours == [2, 0, 1]
        assert colour_at(sheet, 1, 1).min() > 250
        captions = np.asarray(sheet)[8 + HEIGHT : TILE[1], :WIDTH]
        assert captions.min() < 100


def test_what_cannot_be_shown_is_grey_and_the_others_are_there(tmp_path, events):
    other = tmp_path / "other.mp4"
    other.write_text("no video")
    gone = replace(events[0], source=str(tmp_path / "gone.mp4"))
    changed, damaged = (
        replace(events[0], content="0" * 64),
        replace(events[0], source=str(other), content=content_key(other)),
    )
    assert (gone.problem, changed.problem, damaged.problem) == (
        "the file is gone",
        "the file has changed since it was remembered",
        "",
    )
    write_sheet(tmp_path / "sheet.png", [gone, changed, damaged, events[1]])
    with Image.open(tmp_path / "sheet.png") as sheet:
        corner = np.asarray(sheet)[8 + 20, 8 + 20]
        assert corner.tolist() == [211, 211, 211]
        assert colour_at(sheet, 1, 1).argmax() == 1


def test_a_long_name_stays_in_its_place(tmp_path, events):
    link = tmp_path / ("a very long name " * 12 + ".mp4")
    link.symlink_to(events[0].source)
    write_sheet(tmp_path / "sheet.png", [replace(events[0], source=str(link)), events[1]])
    with Image.open(tmp_path / "sheet.png") as sheet:
        gap = np.asarray(sheet)[8 + HEIGHT : TILE[1], WIDTH + 8 : WIDTH + 16]
        assert gap.min() > 240


def test_another_format_is_refused(tmp_path, events):
    with pytest.raises(ValueError, match=r"sheet.gif: a sheet of pictures is a file that ends in \.png"):
        write_sheet(tmp_path / "sheet.gif", events)
    assert not (tmp_path / "sheet.gif").exists()
