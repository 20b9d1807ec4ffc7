"""The names of budgets, and what replaces a model's compression."""

import subprocess
import sys
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marc.compression.config import (
    AUTO,
    AUTO_CELLS,
    CompressionConfig,
    Layout,
    budget_fields,
    budget_name,
    override_compression,
    parse_budget,
)
from marc.compression.plan import plan_video
from marc.compression.rivals.rule import RULES

BASE = CompressionConfig(layout="frames", target_frames=2, visual_tokens=3, window=5)


@pytest.mark.parametrize(
    ("text", "layout", "target_frames", "visual_tokens"),
    [
        ("full", "frames", None, 3),
        ("events", "events", 1, None),
        ("events:1", "events", 1, None),
        ("events:4", "events", 4, None),
        ("frames", "frames", 1, None),
        ("frames:12", "frames", 12, None),
        ("random", "random", 1, None),
        ("uniform:2", "uniform", 2, None),
        ("tokens:128", "frames", 2, 128),
    ],
)
def test_a_budget_sets_its_fields_and_leaves_the_others(text, layout, target_frames, visual_tokens):
    expected = replace(BASE, layout=layout, target_frames=target_frames, visual_tokens=visual_tokens)
    assert parse_budget(text, BASE) == expected
    assert parse_budget("full", BASE).enabled is False


def test_every_rule_is_a_layout():
    assert set(get_args(Layout)) == {"frames", "events", *RULES}
    assert CompressionConfig(layout="uniform").rule is RULES["uniform"] and CompressionConfig().rule is None


def test_rules_work_behind_the_tower():
    with pytest.raises(ValueError, match=r"tower_layer merges inside the .*tower, and the layout tiny works"):
        CompressionConfig(layout="tiny", tower_layer=1)


@pytest.mark.parametrize(
    "text", ["frame", "events:0", "events:", "full:2", "", "frames:1.5", "tokens", "tokens:-1", "4"]
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="unknown budget"):
        parse_budget(text, BASE)


@pytest.mark.parametrize("text", ["full", "events", "events:4", "frames", "frames:2", "tokens:7"])
def test_the_spelling_of_earlier_releases_warns(text, recwarn):
    parse_budget(text, BASE)
    assert not recwarn
    with pytest.warns(FutureWarning, match="the budget events-4 is now written events:4"):
        assert parse_budget("events-4", BASE) == parse_budget("events:4", BASE)


def test_a_limit_in_tokens_turns_compression_on():
    full = replace(BASE, target_frames=None)
    assert parse_budget("tokens:9", full) == replace(BASE, target_frames=1, visual_tokens=9)


def test_a_budget_of_the_prompt_is_one_of_visual_tokens_too():
    config = parse_budget("prompt:200", BASE)
    assert config == replace(BASE, visual_tokens=200, prompt_tokens=200)
    assert parse_budget("prompt:9", replace(BASE, target_frames=None)).target_frames == 1
    assert budget_fields("prompt:9") == (*budget_fields("tokens:9"), "prompt_tokens")
    assert budget_name(replace(BASE, prompt_tokens=200)) == "tokens:3", "a limit beside another budget"


configs = st.builds(
    CompressionConfig,
    layout=st.sampled_from(["frames", "events"]),
    target_frames=st.none() | st.integers(1, 99),
    visual_tokens=st.none() | st.integers(1, 999),
    prompt_tokens=st.none() | st.integers(1, 999),
    merge=st.sampled_from(["mean", "weighted"]),
)


@given(configs)
def test_the_name_of_a_budget_gives_it_back(config):
    assert parse_budget(budget_name(config), config) == config


@given(st.sampled_from(["full", "events:3", "frames:1", "tokens:12", "prompt:12", "auto:3"]), configs)
@example("tokens:12", CompressionConfig(prompt_tokens=12))
def test_a_budget_has_its_own_name(text, config):
    """But for as many visual tokens as the prompt may have, which is the prompt's budget."""
    asked = parse_budget(text, config)
    same = text == "tokens:12" and config.prompt_tokens == 12 != config.visual_tokens
    assert budget_name(asked) == ("prompt:12" if same else text)
    assert parse_budget(budget_name(asked), config) == asked


def test_overrides_may_be_fields_a_budget_or_both():
    assert override_compression(BASE, {"window": None}) == replace(BASE, window=None)
    assert override_compression(BASE, {"budget": "events:2", "merge": "weighted"}) == replace(
        parse_budget("events:2", BASE), merge="weighted"
    )
    assert override_compression(BASE, {"budget": "tokens:9", "layout": "events"}).layout == "events"


def test_another_budget_than_the_prompts_is_not_limited_by_it():
    served = parse_budget("prompt:200", BASE)
    assert override_compression(served, {"budget": "tokens:500"}) == replace(BASE, visual_tokens=500)
    assert override_compression(served, {"budget": "events:4"}).prompt_tokens is None
    limited = replace(BASE, prompt_tokens=200)
    assert override_compression(limited, {"budget": "tokens:500"}).prompt_tokens == 200
    assert override_compression(served, {"budget": "tokens:500", "prompt_tokens": 300}).prompt_tokens == 300


@pytest.mark.parametrize("budget", ["tokens:9", "prompt:9", "auto:88", "details:3"])
def test_new_target_frames_are_the_budget(budget):
    served = parse_budget(budget, CompressionConfig(layout="details"))
    asked = override_compression(served, {"target_frames": 2})
    assert asked.token_budget(16, 10) == 32 and asked.prompt_tokens is None
    assert override_compression(served, {"target_frames": None}) == replace(served, target_frames=None)


def test_tokens_of_each_event_are_those_of_the_layouts_kind():
    served = CompressionConfig(layout="details", tokens_per_event=88)
    assert override_compression(served, {"layout": "events"}) == CompressionConfig(tokens_per_event=AUTO)
    assert override_compression(served, {"layout": "frames"}) == CompressionConfig("frames")
    assert override_compression(served, {"layout": "holitom"}).tokens_per_event == 88
    assert override_compression(served, {"layout": "events", "tokens_per_event": 9}).tokens_per_event == 9
    back = override_compression(CompressionConfig(tokens_per_event=4), {"layout": "details"})
    assert back.tokens_per_event == AUTO_CELLS
    asked = override_compression(served, {"layout": "events", "budget": "auto"})
    assert (asked.layout, asked.tokens_per_event) == ("events", AUTO)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"budget": "full", "layout": "events"}, "the budget full leaves nothing for layout"),
        ({"budget": "tokens:9", "visual_tokens": 8}, "the budget tokens:9 leaves nothing for visual_tokens"),
        ({"budgets": "full"}, "unknown compression option budgets; known are layout, .* and budget where"),
        ("prompt:200", "a compression is given by options, such as .*, got 'prompt:200'"),
        ({"ratio": 2}, "compression.ratio must be a number in"),
    ],
)
def test_overrides_that_cannot_be_are_named(overrides, message):
    with pytest.raises(ValueError, match=message):
        override_compression(BASE, overrides)


def test_fields_that_a_budget_leaves_open():
    assert budget_fields("tokens:9") == ("target_frames", "visual_tokens", "tokens_per_event")
    assert budget_fields("events:9") == ("layout", "target_frames", "visual_tokens", "tokens_per_event")
    assert budget_fields("auto:9") == budget_fields("auto") == budget_fields("events:9")
    assert budget_fields("auto:9", "frames") == budget_fields("events:9")
    assert budget_fields("auto:9", "events") == budget_fields("tokens:9")
    assert budget_fields("auto:9", "details") == budget_fields("tokens:9", "details") == budget_fields("tokens:9")


def test_a_video_may_cost_its_grids_or_its_tokens():
    assert CompressionConfig(target_frames=3).token_budget(16, 7) == 48
    assert CompressionConfig(target_frames=3, visual_tokens=5).token_budget(16, 7) == 5
    assert CompressionConfig(tokens_per_event=3).token_budget(16, 7) == 21
    assert CompressionConfig(tokens_per_event=3, visual_tokens=20).token_budget(16, 7) == 20


@pytest.mark.parametrize(("events", "tokens"), [(1, 10), (4, 20), (5, 23), (36, 60), (100, 100), (144, 144)])
def test_single_cells_grow_with_the_square_root_of_the_events(events, tokens):
    """``ceil(10 * sqrt(E))``, and one for each event at least."""
    assert CompressionConfig(layout="details", tokens_per_event=10).token_budget(16, events) == tokens
    assert CompressionConfig(layout="events", tokens_per_event=10).token_budget(16, events) == 10 * events


def test_a_rule_stays_where_events_have_tokens():
    config = parse_budget("auto:5", CompressionConfig(layout="details", visual_tokens=99))
    assert config == CompressionConfig(layout="details", tokens_per_event=5)
    assert plan_video(6, (2, 4), config, events=[0, 0, 1, 1, 2, 2]).tokens == 9
    assert override_compression(CompressionConfig(), {"layout": "details", "budget": "auto:5"}) == config
    with pytest.raises(ValueError, match="the budget auto:5 leaves nothing for layout"):
        override_compression(CompressionConfig(), {"layout": "frames", "budget": "auto:5"})


def test_auto_alone_is_four_tokens_an_event_and_more_of_single_cells():
    base = CompressionConfig(layout="vidcom2")
    assert (parse_budget("auto", base).tokens_per_event, parse_budget("auto", BASE).tokens_per_event) == (120, 4)


@pytest.mark.parametrize(("text", "each"), [("auto", 4), ("auto:1", 1), ("auto:12", 12)])
def test_a_budget_may_follow_from_the_events(text, each):
    config = parse_budget(text, CompressionConfig(layout="frames", target_frames=None, visual_tokens=9))
    assert config == CompressionConfig(layout="events", target_frames=1, tokens_per_event=each)
    assert budget_name(config) == f"auto:{each}"
    assert parse_budget("tokens:9", config).tokens_per_event is None
    with pytest.raises(ValueError, match="tokens_per_event is for the layout events and for rules, not for frames"):
        replace(config, layout="frames")


def test_options_need_no_torch():
    code = "import sys; from marc.compression.config import CompressionConfig; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
