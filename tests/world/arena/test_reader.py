"""The ideal reader reads what the kept tokens hold, and nothing else."""

import numpy as np
import pytest

from marc.world.arena.reader import READABLE, RULES, expected_accuracy, is_read, random_tokens
from marc.world.arena.scenes import sample_arena
from marc.world.levels import questions
from marc.world.questions import Fact, WorldQuestion


def question(*facts: Fact, options: tuple[str, ...] = ()) -> WorldQuestion:
    return WorldQuestion("star", "What colour is the star?", options, "red", "free-form", "", None, facts)


def test_a_fact_is_read_where_enough_of_it_is_in_a_token() -> None:
    sign = Fact("sign", (1,), ((0, 1),))
    alone = np.array([[-1, -1, -1, -1], [-1, 0, -1, -1]])
    shared = np.array([[-1, -1, -1, -1], [0, 0, -1, -1]])
    assert is_read(sign, alone, 4) and not is_read(sign, shared, 4)
    assert is_read(Fact("mark", (1,), ((0, 1),)), shared, 4)
    assert not is_read(sign, np.full((2, 4), -1), 4)


def test_two_views_of_one_thing_add_up_in_one_token() -> None:
    merged = np.array([[0, 1, 2, 3], [0, 1, 2, 3]])
    assert is_read(Fact("sign", (0, 1), ((0, 2), (0, 2))), merged, 4)
    assert not is_read(Fact("sign", (0,), ((0, 2),)), merged, 4)


def test_a_scene_is_read_from_any_of_its_cells() -> None:
    scene = Fact("scene", (2, 3))
    tokens = np.full((4, 8), -1)
    assert not is_read(scene, tokens, 4)
    tokens[1, 2] = 0
    assert not is_read(scene, tokens, 4)
    tokens[3, 5] = 1
    assert is_read(scene, tokens, 4)
    tokens[3, 5], tokens[0:2, 5] = 1, 1
    assert not is_read(scene, tokens, 4), "two thirds of the token are of another scene"


def test_all_facts_are_needed_and_the_rest_is_guessed() -> None:
    one, two = Fact("mark", (0,), ((0, 0),)), Fact("mark", (0,), ((0, 1),))
    tokens = np.array([[0, -1, -1, -1]])
    assert expected_accuracy(question(one), tokens, 4) == 1
    assert expected_accuracy(question(one, two), tokens, 4) == pytest.approx(1 / 6)
    assert expected_accuracy(question(two, options=("A. red", "B. blue")), tokens, 4) == 0.5


@pytest.mark.parametrize("name", [name for name in RULES if name != "every token"])
def test_rules_keep_what_the_budget_pays_for(name: str) -> None:
    rng = np.random.default_rng(0)
    for index in range(10):
        video = sample_arena("test", 0, index)
        cells = video.frame_count // 2 * 128
        for share in (1 / 128, 1 / 32, 1 / 10, 1 / 4, 1):
            tokens = RULES[name](video, max(1, round(share * cells)), rng)
            kept = len(set(tokens[tokens >= 0].tolist()))
            assert tokens.shape == (video.frame_count // 2, 128)
            assert 0.94 * share * cells - 1 <= kept <= max(1, round(share * cells)), (name, share)


def test_a_cell_survives_at_random_as_often_as_it_should() -> None:
    rng = np.random.default_rng(0)
    video = sample_arena("test", 0, 0)
    sign = Fact("sign", (3,), ((2, 5),))
    kept = [is_read(sign, random_tokens(video, video.frame_count // 2 * 32, rng), 16) for _ in range(400)]
    assert 0.19 < np.mean(kept) < 0.31


def test_random_tokens_lose_what_the_level_is_for() -> None:
    """The level's bars, of a reader that loses nothing else: 15 points at a quarter, 40 at a thirty-second."""
    rng = np.random.default_rng(0)
    lost: dict[float, list[float]] = {1 / 4: [], 1 / 32: []}
    for index in range(25):
        video = sample_arena("test", 0, index)
        cells = video.frame_count // 2 * 128
        for share, values in lost.items():
            tokens = random_tokens(video, round(share * cells), rng)
            values += [1 - expected_accuracy(asked, tokens, 16) for asked in questions(video, rng, 16)]
    assert np.mean(lost[1 / 4]) > 0.25 and np.mean(lost[1 / 32]) > 0.4
    assert set(READABLE) == {"sign", "mark", "actor", "scene"}
