"""Who answers, from options by name, as lmms-eval's ``--model_args`` and recipes have them."""

import pytest

from marc.evaluation.methods import find_method
from marc.evaluation.options import EngineOptions


def test_options_are_found_by_name():
    values = {"model": "folder", "max_frames": "32", "memory_folder": "m", "k": "auto", "tower_layer": "4:16,8:4"}
    options = EngineOptions.from_names({**values, "device": None, "window": "none"})
    assert (options.model.name, options.frames.max_frames) == ("folder", 32)
    assert (options.retrieval.folder, options.retrieval.k) == ("m", "auto")
    assert options.compression == {"window": None, "tower_layer": ((4, 16), (8, 4))}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_frame": 2}, "there is no option max_frame"),
        ({"max_frames": 1}, "max_frames must be a whole number >= 2, got 1"),
        ({"merge": "best"}, "merge must be one of mean, weighted, got 'best'"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        EngineOptions.from_names(values)


@pytest.mark.parametrize(
    ("name", "fixed"),
    [
        ("full", {"target_frames"}),
        ("uniform", {"layout", "target_frames", "visual_tokens", "tokens_per_event", "merge"}),
        ("events:4", {"layout", "target_frames", "visual_tokens", "tokens_per_event"}),
        ("tokens:64+memory", {"target_frames", "visual_tokens", "tokens_per_event"}),
    ],
)
def test_methods_and_budgets_say_what_they_set(name, fixed):
    method = find_method(name)
    assert set(method.fixed()) == fixed and method.memory == name.endswith("+memory")


def test_a_budget_for_each_event_leaves_a_rule_as_it_is():
    assert "layout" in find_method("auto:8").fixed("frames")
    assert "layout" not in find_method("auto:8").fixed("details")
