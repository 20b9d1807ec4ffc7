"""Pixels of the level arena show what the record says."""

import numpy as np
import pytest

from marc.world.arena.renderer import GLYPHS, TINT_RGB, draw_mark, masks, patterns, render_arena, render_event
from marc.world.arena.scenes import CELL, DIGITS, LETTERS, TINTS, sample_arena
from marc.world.renderer import RGB


def test_a_mark_is_drawn_where_and_when_it_is_shown_and_nowhere_else() -> None:
    for index in range(20):
        video = sample_arena("test", 0, index)
        for event in video.events:
            frames = render_event(event, video.size)
            for mark in event.marks:
                patch = np.zeros((CELL, CELL, 3), np.float32)
                draw_mark(mark, patch)
                drawn = patch.any(-1)
                top, left = mark.row * CELL, mark.column * CELL
                there = frames[:, top : top + CELL, left : left + CELL]
                same = (np.abs(there[:, drawn] - patch[drawn]).max((1, 2)) < 1e-6).nonzero()[0]
                assert set(same) == {2 * grid + half for grid in mark.shown for half in (0, 1)}


def test_actors_are_where_they_should_be() -> None:
    checked = 0
    for index in range(20):
        video = sample_arena("test", 0, index)
        event = video.events[0]
        frames = render_event(event, video.size)
        for sighting in video.sightings(0):
            for actor in event.actors:
                row, column = event.centre(actor, 2 * sighting.grid, video.size)
                if sighting.thing == actor and (row // CELL, column // CELL) == (sighting.row, sighting.column):
                    colours = frames[2 * sighting.grid].reshape(-1, 3)
                    assert np.abs(colours - np.float32(RGB[actor.colour])).max(1).min() < 1e-6
                    checked += 1
    assert checked > 50


def test_the_light_goes_on_between_the_frames_of_its_grid() -> None:
    events = [event for index in range(20) for event in sample_arena("test", 0, index).events]
    switched = [event for event in events if event.switch is not None]
    assert switched
    for event in switched:
        brightness = np.median(render_event(event, (112, 224)), axis=(1, 2)).mean(-1)
        assert brightness[1:].argmax() >= 2 * event.switch
        assert np.diff(brightness).argmax() == 2 * event.switch


def test_gradual_cuts_mix_two_frames_on_each_side() -> None:
    videos = [sample_arena("test", 0, index) for index in range(100)]
    for name in ("dissolve", "fade"):
        video = next(video for video in videos if name in video.transitions)
        index = video.transitions.index(name)
        cut = 2 * video.first_grid(index + 1)
        frames = render_arena(video).astype(float)
        before, after = frames[cut - 3], frames[cut + 2]
        middle = frames[cut - 1]
        expected = 0.6 * before + 0.4 * after if name == "dissolve" else 0.2 * before
        assert np.abs(middle - expected).max() <= 1.5


def test_what_must_be_told_apart_differs() -> None:
    assert set(GLYPHS) == set(LETTERS + DIGITS) and len(set(GLYPHS.values())) == len(GLYPHS)
    assert all(len(line) == 5 for glyph in GLYPHS.values() for line in glyph.split())
    assert set(TINT_RGB) == set(TINTS)
    for table in (patterns(112, 224), np.stack(list(masks().values()))):
        flat = table.reshape(len(table), -1).astype(float)
        distance = np.abs(flat[:, None] - flat).sum(-1) + 1e3 * np.eye(len(flat))
        assert distance.min() > 10


def test_scale_repeats_pixels() -> None:
    video = sample_arena("test", 0, 1)
    assert np.array_equal(render_arena(video, scale=2)[:, ::2, ::2], render_arena(video))
    with pytest.raises(ValueError, match="scale"):
        render_arena(video, scale=0)
