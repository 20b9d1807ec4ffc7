"""How a question's video is compressed: one that counts has twice as many single tokens, where these follow events."""

import pytest

from marc.compression import CompressionConfig
from marc.compression.config import parse_budget
from marc.inference.query import budget_for

COUNTING, OTHER = "How many stars does the video show?", "What does the sign say?"
CELLS = CompressionConfig(layout="details")


@pytest.mark.parametrize(("question", "tokens"), [(COUNTING, 40), (OTHER, 20)])
def test_a_question_that_counts_has_twice_as_many_tokens(question, tokens):
    """Four events: ``10 * sqrt(4)``, and twice that."""
    assert budget_for(question, parse_budget("auto:10", CELLS)).token_budget(cells=64, events=4) == tokens


def test_an_upper_limit_stays_one():
    limited = CompressionConfig(layout="details", tokens_per_event=10, visual_tokens=30)
    assert budget_for(COUNTING, limited).token_budget(cells=64, events=4) == 30


@pytest.mark.parametrize(
    "compression",
    [
        parse_budget("tokens:10", CELLS),
        parse_budget("auto:10", CompressionConfig()),
        parse_budget("full", CELLS),
        CompressionConfig(layout="details", target_frames=None, tokens_per_event=10),
    ],
    ids=["a fixed budget", "the event layout", "every token", "every token of who is asked at auto"],
)
def test_everything_else_is_the_same_for_all_questions(compression):
    assert budget_for(COUNTING, compression) is compression
