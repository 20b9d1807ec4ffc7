#!/usr/bin/env bash
# The mean of ROUGE-1, ROUGE-2 and ROUGE-L, a common reward for free answers, pays 2/3 for a right answer of one word.
#
# An answer that is its reference to the letter should have the mean 1. A text of one word has no pair of words, and
# rouge_score calls ROUGE-2 of two texts without pairs 0, not 1 or nothing: the largest reward that "red" can get is
# 0.667, that of "red car" is 1. Rewards of rows with short and long references are then on two scales. The tokenizer
# also drops signs, so that "-3" is a perfect answer where "3" is right, and "C" where "C++" is.
#
# Seen with rouge-score 0.1.2, Python 3.11:
#   'red' for 'red'           rouge1 1.0 rouge2 0.0 rougeL 1.0, mean 0.667
#   'red car' for 'red car'   rouge1 1.0 rouge2 1.0 rougeL 1.0, mean 1.0
#   '-3' for '3'              rouge1 1.0 rouge2 0.0 rougeL 1.0, mean 0.667
#
# Needs uv; installs into a folder of its own and removes it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv --quiet --python 3.11 "$folder/venv"
uv pip install --quiet --python "$folder/venv/bin/python" rouge-score==0.1.2 nltk==3.10.4 numpy==2.4.6 absl-py==2.5.1 six==1.17.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from rouge_score.rouge_scorer import RougeScorer

scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def mean(reference: str, answer: str) -> float:
    scores = {name: score.fmeasure for name, score in scorer.score(reference, answer).items()}
    average = sum(scores.values()) / 3
    print(f"{answer!r} for {reference!r}", *(f"{name} {value}" for name, value in scores.items()), f"mean {average:.3f}")
    return average


one, two, sign = mean("red", "red"), mean("red car", "red car"), mean("3", "-3")
assert two == 1, "two equal words are not right any more"
assert abs(one - 2 / 3) < 1e-9, "one word gets another reward now: this finding is out of date"
assert sign == one, "signs are told apart now: this finding is out of date"
PYTHON
