"""Ranking events by their words, and by words and pictures together.

Words are scored by BM25 (Robertson et al. 1994; `bm25s`). Cosines of pictures and scores of words have different
scales, so ranks are added and not scores: reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009), where
each of both rankings gives an event 1 / (60 + its rank).

Shape legend: E events.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
import regex
from numpy.typing import ArrayLike, NDArray

RANK_CONSTANT = 60
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\u30fc\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+", regex.VERSION1)


def words_of(text: str) -> list[str]:
    """The words of a text in any language, without case; in scripts without spaces each character is one."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def content_words(question: str) -> list[str]:
    """The different words of a question without those that every question has.

    Those are the stop words of one language: of that whose list has most of these words.
    """
    from bm25s import stopwords

    words = words_of(question)
    lists = [
        frozenset(stopwords.STOPWORDS_EN_PLUS),
        *(frozenset(value) for name, value in vars(stopwords).items() if name.startswith("STOPWORDS_")),
    ]
    common = max(lists, key=lambda stop_words: sum(word in stop_words for word in words))
    return list(dict.fromkeys(word for word in words if word not in common))


def word_scores(question: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """How well the words of each text match a question ``[E]``: BM25, 0 where none does.

    A word that more than half of the texts hold does not tell them apart and counts for nothing.

    Args:
        question: The question.
        texts: Any number of texts, which may be empty.
    """
    scores_E = np.zeros(len(texts))
    documents = [words_of(text) for text in texts]
    if not any(documents):
        return scores_E
    holders = Counter(word for document in documents for word in set(document))
    wanted = [word for word in content_words(question) if 0 < holders[word] <= len(texts) / 2]
    if wanted:
        from bm25s import BM25

        model = BM25(method="lucene", dtype="float64")
        model.index(documents, show_progress=False)
        scores_E += model.get_scores(wanted)
    return scores_E


def fused_scores(cosines_E: ArrayLike, text_scores_E: ArrayLike) -> NDArray[np.float64]:
    """Reciprocal rank fusion ``[E]`` of the ranking by pictures and that by words.

    Equal scores have equal ranks. An event of which no word matches has no rank among the words. Where none has one,
    the cosines are returned as they are, so that nothing changes.

    Args:
        cosines_E: Of the question with each event.
        text_scores_E: As of `word_scores`; empty for none.
    """
    cosines, text_scores = np.asarray(cosines_E, np.float64), np.asarray(text_scores_E, np.float64)
    if not (text_scores > 0).any():
        return cosines
    by_words = np.where(text_scores > 0, 1 / (RANK_CONSTANT + _ranks(text_scores)), 0.0)
    return 1 / (RANK_CONSTANT + _ranks(cosines)) + by_words


def _ranks(scores_E: NDArray[np.float64]) -> NDArray[np.int64]:
    """1 for the best; equal scores share the best of their ranks."""
    return 1 + len(scores_E) - np.searchsorted(np.sort(scores_E), scores_E, side="right")


def best_first(cosines_E: ArrayLike, text_scores_E: ArrayLike = ()) -> list[int]:
    """Indices of all events, best first: by `fused_scores`, then by cosine, then the earlier one."""
    cosines = np.asarray(cosines_E, np.float64)
    return np.lexsort((-cosines, -fused_scores(cosines, text_scores_E))).tolist()


def snippet(text: str, question: str, length: int = 100) -> str:
    """A part of a text, of about so many characters, around the first word that it shares with a question."""
    wanted = set(content_words(question))
    hits = (found.start() for found in _WORD.finditer(text) if wanted.intersection(words_of(found.group())))
    start = text.rfind(" ", 0, max(0, next(hits, 0) - length // 3)) + 1
    part = text[start : start + length]
    if start + length < len(text):
        part = f"{part.rsplit(' ', 1)[0]} …"
    return f"… {part}" if start else part
