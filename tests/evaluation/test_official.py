"""Official scoring rules: what the benchmarks' scorers say, and what they should not have said."""

import pytest

from marc.evaluation.official import (
    score_caption,
    score_exact,
    score_first_token,
    score_mmmu_open,
    score_mmvu_open,
    score_official,
    score_yes_no,
)


@pytest.mark.parametrize(
    ("answer", "score"), [("B", 1), ("b. right", 1), ("B.", 1), ("(B)", 0), ("The B", 0), ("", 0)]
)
def test_vsi_reads_the_first_token(answer, score):
    assert score_first_token(answer, "B") == score


@pytest.mark.parametrize(
    ("output", "rule", "strict", "lenient"),
    [
        ("The answer is B", "first-token", 0, 1),
        ("B", "first-token", 1, 1),
        ("<think>A or B?</think><answer>B. right</answer>", "first-token", 1, 1),
        ("<think>The man picks up a cup.</think><answer>B</answer>", "letter", 1, 1),
        ("The video shows a pivot. Therefore, the final answer is: A", "letter", 0, 0),
        ("<think>unclosed, probably B", "letter", 0, 0),
    ],
)
def test_strict_is_the_benchmarks_rule_and_lenient_reads_letters(make_samples, output, rule, strict, lenient):
    (sample,) = make_samples(1, rule=rule, solution="B")
    assert score_official(output, sample) == strict
    assert score_official(output, sample, strict=False) == lenient


@pytest.mark.parametrize(
    ("output", "score"), [("3", 0.6), ("three", 0.6), ("There are 4 chairs.", 1), ("none", 0), ("", 0), ("-4", 0)]
)
def test_vsi_numbers(make_samples, output, score):
    (sample,) = make_samples(1, rule="mra", problem_type="regression", solution="4")
    assert score_official(output, sample) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [("Yes, it does", "yes", 1), ("no", "no", 1), ("No.", "yes", 0), ("**Yes**", "yes", 1), ("Nothing", "no", 0),
     ("It does, yes", "yes", 0), ("", "no", 0)],
)  # fmt: skip
def test_yes_no(answer, gold, score):
    assert score_yes_no(answer, gold) == score


@pytest.mark.parametrize(
    ("answer", "score"),
    [("Caption B", 1), ("B", 1), ("B.", 1), ("Caption B: the dog runs.", 1), ("the dog runs", 1), ("Caption A", 0),
     ("the cat runs.", 0), ("the", 0), ("", 0), (":", 0)],
)  # fmt: skip
def test_caption_matching(answer, score):
    options = ("Caption A: the cat runs.", "Caption B: the dog runs.")
    assert score_caption(answer, "Caption B: the dog runs.", options) == score


@pytest.mark.parametrize(("right", "wrong"), [("B", "A"), ("2", "1")])
@pytest.mark.parametrize(
    "form",
    [
        "({})",
        "{}",
        "{}.",
        "Caption {}",
        "**Caption {}**",
        "The best option is Caption {}.",
        "Option {}",
        "Caption {}: so",
    ],
)
def test_captions_are_read_leniently_in_any_form(make_samples, form, right, wrong):
    options = tuple(f"Caption {label}: the {beast} runs." for label, beast in sorted([(wrong, "cat"), (right, "dog")]))
    (sample,) = make_samples(1, rule="caption", problem_type="free-form", solution=options[1], options=options)
    for said in (right, right.lower()):
        assert score_official(form.format(said), sample, strict=False) == 1
    assert score_official(form.format(wrong), sample, strict=False) == 0
    assert score_official(f"Caption {wrong} or Caption {right}", sample, strict=False) == 0


@pytest.mark.parametrize("output", ["(B)", "b", "**Caption B**", "The best option is Caption B.", "Option B"])
def test_the_rule_for_captions_itself_reads_none_of_these(make_samples, output):
    options = ("Caption A: the cat runs.", "Caption B: the dog runs.")
    (sample,) = make_samples(1, rule="caption", problem_type="free-form", solution=options[1], options=options)
    assert score_official(output, sample) == 0
    assert score_official("the dog runs", sample) == score_official("the dog runs", sample, strict=False) == 1
    assert score_official("the dog", sample, strict=False) == 0


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("The total is 42.", "42", 1),
        ("The total is 1,000 units", "1000", 1),
        ("x = 3.14159", "3.14", 1),
        ("First 42. So the answer is 7", "42", 0),
        ("The answer is quick sort", "quick sort", 1),
        ("I cannot tell", "quick sort", 0),
        ("the point is B", "b", 1),
        ("", "42", 0),
        ("", "", 0),
        ("42", "", 0),
        ("1e999", "5", 0),
    ],
)
def test_mmmu_open(answer, gold, score):
    assert score_mmmu_open(answer, gold) == score


@pytest.mark.parametrize(
    ("answer", "gold", "score"),
    [
        ("The algorithm is depth-first search (DFS).", "depth-first search (DFS)", 1),
        ("O(n²)", "O(n^2)", 1),
        ("DFS", "depth-first search DFS", 1),
        ("about 12.5 volts", "12.5", 1),
        ("twelve", "12", 1),
        ("e", "red", 0),
        ("", "red", 0),
        ("blue", "red", 0),
        ("red", "", 0),
        ("the", "the number of the cat", 0),
        ("of", "rate of change", 0),
        ("a", "a cat", 0),
        ("of the", "rate of the change", 0),
        ("-", "x - y", 0),
        ("a cat", "a cat and a dog", 1),
        ("the", "The", 1),
    ],
)
def test_mmvu_open(answer, gold, score):
    assert score_mmvu_open(answer, gold) == score


def test_exact_words():
    assert score_exact("Red!", "red") == 1 and score_exact("dark red", "red") == 0 and score_exact("", "") == 0
