import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marc.memory.ranking import best_first, content_words, fused_scores, snippet, word_scores, words_of

COSINES = st.lists(st.sampled_from([-0.5, 0.0, 0.1, 0.2, 0.25, 0.3]), min_size=1, max_size=12)


@st.composite
def both(draw) -> tuple[list[float], list[float]]:
    cosines = draw(COSINES)
    size = len(cosines)
    return cosines, draw(st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.5, 2.0]), min_size=size, max_size=size))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The CAT's whiskers, 3 of them!", ["the", "cat", "s", "whiskers", "3", "of", "them"]),
        ("Straße STRASSE ﬁne", ["strasse", "strasse", "fine"]),
        ("Привет, Мир", ["привет", "мир"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("e\u0301tude étude", ["étude", "étude"]),
        ("東京タワー2024", ["東", "京", "タ", "ワ", "ー", "2024"]),
        ("서울 타워", ["서울", "타워"]),
        ("♪ -- …", []),
        ("", []),
    ],
)
def test_words_of_many_languages(text, expected):
    assert words_of(text) == expected


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What does she say about the price of the umbrella?", ["say", "price", "umbrella"]),
        ("When did the war begin? When?", ["war", "begin"]),
        ("Was ist mit dem Regenschirm?", ["regenschirm"]),
        ("Où est le parapluie ?", ["où", "parapluie"]),
        ("What is it?", []),
        ("", []),
    ],
)
def test_what_every_question_has_is_left_out_in_the_language_of_the_question(question, expected):
    assert content_words(question) == expected


def test_scores_are_bm25():
    """The formula of Okapi BM25 with Lucene's idf, k1 = 1.5 and b = 0.75, written out."""
    texts = ["red ball red", "a ball", "the blue cube stands there", "", "green"]
    lengths = [3, 2, 5, 0, 1]

    def score(frequency: int, holders: int, length: int) -> float:
        idf = math.log(1 + (len(texts) - holders + 0.5) / (holders + 0.5))
        return idf * frequency / (frequency + 1.5 * (1 - 0.75 + 0.75 * length / np.mean(lengths)))

    expected = [score(1, 2, 3) + score(2, 1, 3), score(1, 2, 2), 0, 0, 0]
    np.testing.assert_allclose(word_scores("Where is the red ball?", texts), expected, rtol=1e-6)


def test_no_match_scores_nothing():
    assert word_scores("Where is the red ball?", ["the cube", "", "is where"]).tolist() == [0, 0, 0]
    assert word_scores("What is it?", ["what is it", "no"]).tolist() == [0, 0]
    assert word_scores("ball", ["", ""]).tolist() == [0, 0]
    assert word_scores("ball", []).tolist() == []


def test_a_word_of_more_than_half_of_the_texts_counts_for_nothing():
    assert word_scores("ball", ["ball", "ball", "cube"]).tolist() == [0, 0, 0]
    assert (word_scores("ball", ["ball", "cube"]) > 0).tolist() == [True, False]
    assert (word_scores("ball cube", ["ball", "ball", "ball cube", "ball"]) > 0).tolist() == [
        False,
        False,
        True,
        False,
    ]


@given(st.permutations(["red ball", "ball and cube", "", "something else", "the cube the cube"]))
def test_scores_follow_their_texts(texts):
    expected = dict(zip(texts, word_scores("the red ball and the cube", texts), strict=True))
    again = word_scores("the red ball and the cube", sorted(texts))
    assert {text: pytest.approx(expected[text]) for text in texts} == dict(zip(sorted(texts), again, strict=True))


def test_fusion_adds_the_reciprocal_ranks():
    fused = fused_scores([0.3, 0.2, 0.1], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(fused, [1 / 61, 1 / 62 + 1 / 62, 1 / 63 + 1 / 61])
    assert best_first([0.3, 0.2, 0.1], [0.0, 1.0, 2.0]) == [2, 1, 0]


def test_equal_sums_of_ranks_are_decided_by_the_picture_then_by_time():
    assert best_first([0.2, 0.3], [2.0, 1.0]) == [1, 0]
    assert best_first([0.3, 0.2], [1.0, 2.0]) == [0, 1]
    assert best_first([0.3, 0.3, 0.3], [1.0, 1.0, 0.0]) == [0, 1, 2]


@given(COSINES)
def test_without_a_match_the_order_is_that_of_the_cosines(cosines):
    expected = np.argsort(-np.asarray(cosines), kind="stable").tolist()
    for none in ((), [0.0] * len(cosines)):
        assert best_first(cosines, none) == expected
        assert fused_scores(cosines, none).tolist() == cosines


@given(both(), st.randoms())
def test_fusion_does_not_depend_on_the_order_of_events(scores, random):
    cosines, text_scores = scores
    order = list(range(len(cosines)))
    random.shuffle(order)
    fused = fused_scores(cosines, text_scores)
    moved = fused_scores([cosines[index] for index in order], [text_scores[index] for index in order])
    assert moved.tolist() == [fused[index] for index in order]


@given(both())
def test_what_is_better_by_picture_and_words_comes_first(scores):
    cosines, text_scores = scores
    place = {index: at for at, index in enumerate(best_first(cosines, text_scores))}
    assert sorted(place) == list(range(len(cosines)))
    for one in place:
        for other in place:
            pair = (cosines[one], text_scores[one]), (cosines[other], text_scores[other])
            if pair[0] != pair[1] and pair[0][0] >= pair[1][0] and pair[0][1] >= pair[1][1]:
                assert place[one] < place[other]
            if pair[0] == pair[1] and one < other:
                assert place[one] < place[other]


def test_who_has_no_subtitles_does_not_load_the_scorer():
    code = "import sys; from marc.memory.ranking import word_scores; word_scores('a ball', ['', '']); "
    subprocess.run([sys.executable, "-c", code + "assert 'bm25s' not in sys.modules"], check=True)


LONG = (
    "One two three four five six seven eight nine ten. Then the umbrella opens. And so on, and so on, and so on again."
)


@pytest.mark.parametrize(
    ("text", "question", "expected"),
    [
        ("We open the umbrella.", "Where is the umbrella?", "We open the umbrella."),
        (LONG, "The UMBRELLA?", "… ten. Then the umbrella opens. And so …"),
        (LONG, "a zebra?", "One two three four five six seven eight …"),
        ("日本の傘" * 30, "傘", ("日本の傘" * 30)[:40] + " …"),
        ("", "what?", ""),
    ],
)
def test_a_snippet_is_around_the_first_word_that_matches(text, question, expected):
    assert snippet(text, question, 40) == expected
