"""One grader for training rewards and evaluation: extract the answer, normalise it, score it by problem type.

Three protocols, named after whose rules they are (Video-R1 is the protocol behind the numbers that MARC publishes):

==============  =====================================  =========================================================
protocol        an output without ``<answer>`` tags    scores
==============  =====================================  =========================================================
``reward``      is an empty answer                     Video-R1's training reward (regression: 1 - relative error)
``video-r1``    is the answer, whole                   Video-R1's evaluation (regression: mean relative accuracy)
``official``    is the answer, without its reasoning   a letter or number read from the text, MRA with ``<=``
==============  =====================================  =========================================================

Orthogonal to the protocol is the reading. ``strict=True`` follows the protocol to the letter: ``B.`` is not ``B``.
``strict=False`` is lenient about form only: reasoning is removed first, and ``B.``, ``(B)``, ``b``, ``B: the red
one``, ``C, A`` for ``AC``, ``1,000``, ``- 3``, ``1/2``, ``10^3``, ``three`` and sentences that begin with the ``yes``
or ``no`` that is asked for are understood. ``official`` reads leniently either way, as the official scorers do.

Deviations from Video-R1: an empty gold answer pays nothing (there, ``<answer></answer>`` and any output without tags
are equal); ``nan`` is not a number (Video-R1's regression reward pays 1.0 for it); a gold answer without tags is
taken whole (there it is empty, and so equal to an output without tags); tags are found without a backtracking
expression (same result in linear time).

Its oracles and known traps: ``python -m pytest tests/test_grading.py``.
"""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args
from unicodedata import normalize

import numpy as np

from marc.extras import extra

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

Protocol = Literal["reward", "video-r1", "official"]
ProblemType = Literal["multiple choice", "numerical", "OCR", "free-form", "regression"]

PROTOCOLS: tuple[str, ...] = get_args(Protocol)
PROBLEM_TYPES: tuple[str, ...] = get_args(ProblemType)
SAME_PROBLEM_TYPES = {"open-ended": "free-form", "multiple-choice": "multiple choice", "ocr": "OCR"}
"""What later data sets call some of them."""
YES_OR_NO = ("yes", "no")


def grade(output: str, solution: str, problem_type: str, *, protocol: str = "reward", strict: bool = True) -> float:
    """Score one output against its gold answer.

    Args:
        output: The model's whole output, any string.
        solution: The gold answer, with or without ``<answer>`` tags.
        problem_type: One of `PROBLEM_TYPES`.
        protocol: One of `PROTOCOLS`; see the module's table.
        strict: Follow the protocol to the letter, or be lenient about the answer's form.

    Returns:
        A score in ``[0, 1]``. An answer that cannot be read scores 0; no string raises.

    Raises:
        ValueError: If ``protocol`` or ``problem_type`` is unknown.
    """
    _check(protocol, problem_type)
    answer = extract_answer(output, protocol=protocol, strict=strict)
    gold = gold_answer(solution)
    if not gold:
        return 0.0
    if problem_type == "multiple choice":
        return _grade_choice(answer, gold, literal=strict and protocol != "official")
    if problem_type == "numerical":
        return _grade_number(answer, gold, literal=strict and protocol != "official")
    if problem_type == "regression":
        return _grade_regression(answer, gold, protocol=protocol, literal=strict and protocol != "official")
    if protocol == "video-r1":
        return 0.0
    lenient = not strict or protocol == "official"
    if lenient and answer.casefold() == gold.casefold():  # ROUGE knows no words but of Latin letters
        return 1.0
    if problem_type == "OCR":
        return _grade_transcript(answer, gold)
    if lenient and gold.rstrip(".").casefold() in YES_OR_NO and (said := yes_or_no(answer)):
        return float(said == yes_or_no(gold))
    return rouge_mean(gold, answer)


def yes_or_no(answer: str) -> str | None:
    """``"yes"`` or ``"no"``, where an answer begins with it, as a sentence may."""
    said = re.match(r"\W*(yes|no)\b", answer, re.IGNORECASE)
    return said[1].lower() if said else None


def known_problem_type(problem_type: str) -> str:
    """One of `PROBLEM_TYPES` where a type means the same, else the type as it is."""
    return SAME_PROBLEM_TYPES.get(problem_type.lower(), problem_type)


def extract_answer(output: str, *, protocol: str = "reward", strict: bool = True) -> str:
    """The part of an output that is its answer.

    Strict extraction is Video-R1's: what stands between the first ``<answer>`` and the ``</answer>`` after it,
    wherever that is. Lenient (and official) extraction completes a last ``</answer``, removes the reasoning
    (`remove_reasoning`), so that an answer that was only considered does not count, and drops stray tags. Without tags
    the answer is empty under ``reward``, and the whole output (lenient: what is left without the reasoning) otherwise.

    Args:
        output: The model's whole output, any string.
        protocol: One of `PROTOCOLS`.
        strict: As in `grade`. For showing an answer to a person, use ``protocol="official"``.

    Returns:
        The answer without surrounding white space, possibly empty.
    """
    _check(protocol)
    lenient = not strict or protocol == "official"
    text = remove_reasoning(_CUT_TAG.sub("</answer>", output)) if lenient else output
    tagged = _between_tags(text)
    if tagged is None or (not tagged and protocol == "video-r1"):
        tagged = "" if protocol == "reward" else text
    return _STRAY_TAG.sub("", tagged).strip() if lenient else tagged.strip()


def gold_answer(solution: str) -> str:
    """The gold answer: what stands between its ``<answer>`` tags, or all of it when it has none."""
    tagged = _between_tags(solution)
    return solution.strip() if tagged is None else tagged


_REASONING_TAG = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
_STRAY_TAG = re.compile(r"</?(?:answer|think|thinking)>", re.IGNORECASE)
_CUT_TAG = re.compile(r"</a(?:n(?:s(?:w(?:er?)?)?)?)?\s*\Z")


def remove_reasoning(output: str) -> str:
    """An output without its ``<think>`` blocks, nested ones included.

    A ``</think>`` that nothing opened ends reasoning that began in the prompt: everything before it goes, unless that
    holds an ``<answer>`` and nothing is said afterwards. A ``<think>`` that nothing closes is a cut-off thought and
    goes as well, unless the output ends with ``</answer>``: then only the closing tag was forgotten, and that last
    answer stays.
    """
    kept: list[str] = []
    before = ""
    depth = position = 0
    for tag in _REASONING_TAG.finditer(output):
        if depth == 0:
            kept.append(output[position : tag.start()])
        if not tag.group(1):
            depth += 1
        elif depth == 0:
            before = "".join(kept).strip() or before
            kept.clear()
        else:
            depth -= 1
        position = tag.end()
    rest = output[position:]
    if depth == 0:
        kept.append(rest)
    elif rest.rstrip().endswith("</answer>") and "<answer>" in rest:
        kept.append(rest[rest.rindex("<answer>") :])
    said = "".join(kept)
    return said if said.strip() or "<answer>" not in before else before


def _between_tags(text: str) -> str | None:
    """What Video-R1's ``<answer>\\s*(.*?)\\s*</answer>`` finds, without its cubic time on long white space."""
    start = text.find("<answer>")
    end = text.find("</answer>", start + len("<answer>"))
    return text[start + len("<answer>") : end].strip() if start >= 0 and end >= 0 else None


# --- multiple choice -------------------------------------------------------------------------------------------------

_LETTER = "A-J"
_WHOLE_LETTER = re.compile(rf"[\W_]*([{_LETTER}])[\W_]*", re.IGNORECASE)
_LEADING_LETTER = re.compile(
    rf"(?:(?i:option|choice|answer)\b[\s\"'*(\[:]*)?"
    rf"(?:((?i:[{_LETTER}]))[\"'*]*(?:[):\]]|\.(?!\w))|([{_LETTER}])[\"'*]* ?[-–—] "
    rf"|([A-HJ])[\"'*]*, (?![A-HJ]\b))"
)
_TRAILING_LETTER = re.compile(rf"(?:^|[\s\"'*(\[:,])([{_LETTER}])[\W_]*$")
_LETTERS = re.compile(rf"[\W_]*[{_LETTER}](?:(?:[\W_]|and)*[{_LETTER}])+[\W_]*")
_BRACKETED_LETTER = re.compile(rf"\(([{_LETTER}])\)")

_ANSWER_IS = (
    r"(?i:\b(?:answers?(?: to (?:the|this) question)?|(?:correct|right|best|final) (?:option|choice)s?)"
    r"(?: is| are| would be| should be| must be)?|\b(?:option|choice) is|\bi (?:choose|select|pick))"
)
# Before another word, a bare "A" is an article and a bare "I" a pronoun.
_NO_WORD_FOLLOWS = r"(?! (?!because|since|depending|maybe|perhaps|probably|though|(?:as|and|or|but|if)\b)[a-z])"
_STATED_LETTER = re.compile(
    rf"{_ANSWER_IS} ?:? ?(?i:option )?[\"'*(\[]*(?:([AI])(?![\w'’]){_NO_WORD_FOLLOWS}|([B-HJ])(?![\w'’]))"
    rf"|{_ANSWER_IS} ?:? ?[\"'*(\[]*([a-j])\W*$"
    rf"|\\boxed\{{(?:\\[a-z]+\{{){{0,3}}\(?([{_LETTER}])\)?\}}"
    rf"|(?:答案|选项|选择|选)(?:应该|应)?(?:是|为)?[\s\"'*(\[:]*([{_LETTER}])(?![A-Za-z0-9])"
    rf"|(?<![\w'’])([{_LETTER}])\)? is (?:the )?(?:correct|right|best|answer)\b"
)

_NO_LATIN = r"(?![A-Za-z0-9_'’])"  # Chinese words may touch a letter
_OTHER_LETTER = (
    r"[\W_]{0,9}(?:[,;/&+、]|\b(?:and|or)\b|或|和)[\W_]{0,9}"
    r"(?:(?i:and|or|maybe|perhaps|possibly|probably|even|also|option|choice)[\W_]{1,9}){0,3}"
    rf"(?:[AI]{_NO_LATIN}{_NO_WORD_FOLLOWS}|[B-HJ]{_NO_LATIN}|(?<=\()[a-j](?=\)))"
)
# "B, C is wrong" says B; "B or C is right" does not.
_SAID_TO_BE_WRONG = (
    r"[\W_]{0,9} (?:(?:is|are|was|were|does|can|shows?)\b(?! (?:both |also |the )?(?:correct|right|best|possible))"
    r"|cannot\b|\w{1,9}n['’]t\b)"
)
_HEDGE = re.compile(  # a list is taken whole or not at all
    rf"(?<![A-Za-z0-9_'’])(?:[{_LETTER}]{_NO_LATIN}|(?<=\()[a-j](?=\))|^[a-j](?=\)))"
    rf"(?=((?:{_OTHER_LETTER}){{1,9}}))\1(?!{_SAID_TO_BE_WRONG})"
)
_DENIAL = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|than|instead of)|n['’]t)(?: be)?(?: (?:option|choice))? [\"'*(\[]*$",
    re.IGNORECASE,
)

_LETTERS_AS_TEXT = re.compile(  # an option "C. A and B"
    rf"(?:.*{_ANSWER_IS}[ :]*)?[\"'*(\[]*[{_LETTER}][\"'*]*[.:)\]] "
    rf"[{_LETTER}](?:(?:, [{_LETTER}])*,? and [{_LETTER}])?[\"'*.]*"
)


def read_choice(answer: str) -> str:
    """The option letter (``A`` to ``J``) that an answer names, or ``""``.

    Tried in this order: the letter alone (``b``, ``(B)``, ``**B.**``), the last explicit statement ("the answer is
    B", ``\\boxed{B}``), the letter alone on the first line, a leading letter with a delimiter (``B: the red one``,
    ``B - the red one``), a capital letter at the end ("so, C") and the only letter in brackets. A letter inside a
    word, the article "a" and the pronoun "I" are never read. Neither is one of several letters ("A or B", "A, C"), nor
    one that is denied ("not B").

    Args:
        answer: An extracted answer, without reasoning.
    """
    lines = _lines(answer)
    text = " ".join(lines)
    if whole := _WHOLE_LETTER.fullmatch(text):
        return whole.group(1).upper()
    if len(read_choices(answer)) > 1 and not (len(lines) == 1 and _LETTERS_AS_TEXT.fullmatch(text)):
        return ""
    named = _named_letter(text, lines[0] if lines else "")
    if named is None:
        return ""
    at = named.start(named.lastindex or 0)
    hedged = any(hedge.start() <= at < hedge.end() for hedge in _HEDGE.finditer(text))
    return "" if hedged or _DENIAL.search(text[:at]) else text[at].upper()


def _named_letter(text: str, first_line: str) -> re.Match[str] | None:
    """The match in the text whose only group is the letter that it names first of all."""
    *_, stated = None, *_STATED_LETTER.finditer(text)
    bracketed = {match[1]: match for match in _BRACKETED_LETTER.finditer(text)}
    return (
        stated
        or _WHOLE_LETTER.fullmatch(text, 0, len(first_line))
        or _LEADING_LETTER.match(text, len(text) - len(text.lstrip("\"'*([ ")))
        or _TRAILING_LETTER.search(text)
        or (bracketed.popitem()[1] if len(bracketed) == 1 else None)
    )


def read_choices(answer: str) -> frozenset[str]:
    """The option letters that an answer to a question with several right options names; empty if it names fewer.

    Args:
        answer: Such as ``AC``, ``C, A``, ``(A) and (C)``, "the answers are A and C", or an option on each line.
    """
    lines = _lines(answer)
    text = " ".join(lines)
    stated = re.split(_ANSWER_IS, text)[-1].strip(" :.")
    for said in (text, stated):
        if _LETTERS.fullmatch(said):
            letters = re.findall(rf"[{_LETTER}]", said)
            return frozenset(letters) if len(set(letters)) == len(letters) else frozenset()
    leading = [_LEADING_LETTER.match(line.lstrip("\"'*([ ")) for line in lines]
    return frozenset(each[each.lastindex or 0].upper() for each in leading if each) if all(leading) else frozenset()


def _lines(answer: str) -> list[str]:
    """The lines that say something, with plain letters and single spaces."""
    lines = (" ".join(line.split()) for line in normalize("NFKC", answer).splitlines())
    return [line for line in lines if line]


def _grade_choice(answer: str, gold: str, *, literal: bool) -> float:
    if literal:
        return float(answer == gold)
    if len(several := read_choices(gold)) > 1:
        return float(read_choices(answer) == several)
    letter = read_choice(gold)
    return float(read_choice(answer) == letter) if letter else float(answer.casefold() == gold.casefold())


# --- numbers ---------------------------------------------------------------------------------------------------------

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_SMALL = {word: value for value, word in enumerate(_ONES.split())}
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_SCALES = {"thousand": 1000, "million": 1_000_000}
_NUMBER = re.compile(
    r"(?:(?<!\w)[-+])?"
    r"(?:\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d{1,3}(?: \d{3})+(?!\d)|\d+(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d+)?"
)
_FRACTION = re.compile(r" ?/ ?(\d+(?:\.\d+)?)(?![\d/.])")
_MIXED_FRACTION = re.compile(r" (\d{1,15}) ?/ ?(\d{1,15})(?![\d/.])")
_POWER_OF_TEN = re.compile(r" ?(?:[x*×·]|\\times|\\cdot) ?10 ?\^ ?\{?([-+]?\d{1,3})\}?")
_POWER = re.compile(r" ?\^ ?\{?([-+]?\d{1,3})\}?")
_BEFORE_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_BULLET = re.compile(r"(?<=\n)[ \t]*-[ \t]")
_SIGN_APART = re.compile(r"(?:^|(?<=[=:(])|(?<=\bis)|(?<=\bis ))\s*([-+])\s+(?=[\d.])")
_NEGATIVE = ("minus", "negative")
_SIGN_IN_WORDS = re.compile(rf"\b(?:{'|'.join(_NEGATIVE)}) (?=\.?\d)", re.IGNORECASE)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\{([-+]?\d+)\}\{(\d+)\}")
SUPERSCRIPTS = {ord(sign): f"^{digit}" for digit, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}
"""Powers as plain text, for `str.translate`."""
_PLAIN_NUMERALS = {
    **SUPERSCRIPTS,
    **dict.fromkeys(map(ord, "−‐‑–—"), "-"),
}
_WORD = re.compile(r"[a-z]+")


def parse_number(answer: str) -> float | None:
    """A whole string as a finite number, commas ignored as Video-R1 does, or None."""
    try:
        number = float(answer.replace(",", ""))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def read_number(answer: str) -> float | None:
    """The first number in an answer, in digits or English words, or None.

    Understood are ``-1,000.5``, ``1 000``, ``- 3``, ``minus 3``, ``1/2``, ``1 1/2``, ``1½``, ``\\frac{1}{2}``,
    ``10^3``, ``2 x 10^3``, ``2e3``, "twenty-one" and "minus three". A "- " that begins a later line is a bullet.
    """
    whole = parse_number(answer)
    if whole is not None:
        return whole
    text = _plain_numerals(answer)
    digits = _NUMBER.search(text)
    before = text[: digits.start()] if digits else text
    spoken = _first_spoken_number(_WORD.findall(before.lower()))
    if spoken is not None:
        return spoken
    return _value(digits.group(), text[digits.end() :]) if digits else None


def _plain_numerals(answer: str) -> str:
    """An answer with plain digits, single spaces, and each sign before its number."""
    text = normalize("NFKC", _BEFORE_FRACTION.sub(" ", answer.strip()).translate(_PLAIN_NUMERALS)).replace("⁄", "/")
    text = " ".join(_BULLET.sub("", text).split())
    text = _LATEX_FRACTION.sub(r"\1/\2", text.replace("{,}", ","))
    return _SIGN_APART.sub(r" \1", _SIGN_IN_WORDS.sub("-", text))


def _value(digits: str, rest: str) -> float | None:
    """A number with what follows it: the lower part of a fraction, or a power."""
    number = parse_number(digits.replace(" ", ""))
    if number is None:
        return None
    if (mixed := _MIXED_FRACTION.match(rest)) and int(mixed[1]) < int(mixed[2]):
        return math.copysign(abs(number) + int(mixed[1]) / int(mixed[2]), number)
    try:
        if (fraction := _FRACTION.match(rest)) and float(fraction[1]):
            number /= float(fraction[1])
        elif scale := _POWER_OF_TEN.match(rest):
            number *= 10.0 ** int(scale[1])
        elif power := _POWER.match(rest):
            number **= int(power[1])
    except (OverflowError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def _first_spoken_number(words: list[str]) -> float | None:
    """The value of the first run of number words: "two hundred and five" is 205, "two three" is 2."""
    total = current = 0
    sign, previous = 1, ""  # kind of the previous number word: small, tens or scale
    for before, word in pairwise(["", *words]):
        if not previous:
            sign = -1 if before in _NEGATIVE else 1
        if word in _SMALL and (previous in ("", "scale") or (previous == "tens" and _SMALL[word] < 10)):
            current, previous = current + _SMALL[word], "small"
        elif word in _TENS and previous in ("", "scale"):
            current, previous = current + _TENS[word], "tens"
        elif word == "hundred" and current < 100:
            current, previous = max(current, 1) * 100, "scale"
        elif word in _SCALES:
            total, current, previous = total + max(current, 1) * _SCALES[word], 0, "scale"
        elif previous and not (word == "and" and previous == "scale"):
            break
    return float(sign * (total + current)) if previous else None


def _grade_number(answer: str, gold: str, *, literal: bool) -> float:
    """1 if both are equal after rounding to 2 decimals; literally, also only if both or neither has a decimal mark."""
    if literal and _has_decimal_mark(answer) != _has_decimal_mark(gold):
        return 0.0
    predicted = parse_number(answer) if literal else read_number(answer)
    target = parse_number(gold) if literal else read_number(gold)
    if predicted is None or target is None:
        return 0.0
    return float(round(predicted, 2) == round(target, 2))


def _has_decimal_mark(text: str) -> bool:
    return "." in text or "," in text


def _grade_regression(answer: str, gold: str, *, protocol: str, literal: bool) -> float:
    predicted = parse_number(answer) if literal else read_number(answer)
    target = parse_number(gold) if literal else read_number(gold)
    if predicted is None or target is None:
        return 0.0
    if protocol == "reward":
        return 1.0 - min(1.0, (abs(predicted - target) + 1e-9) / (abs(target) + 1e-9))
    return mean_relative_accuracy(predicted, target, inclusive=protocol == "official")


def mean_relative_accuracy(predicted: float, target: float, *, inclusive: bool = False) -> float:
    """Mean over the thresholds 0.50, 0.55, ..., 0.95 of ``[relative error < 1 - threshold]`` (VSI-Bench's MRA).

    Args:
        predicted: The predicted value.
        target: The gold value.
        inclusive: Compare with ``<=`` in float64, as VSI-Bench does, instead of Video-R1's ``<`` in float32 with 1e-8
            added to the denominator. 3 for 4 scores 0.6 with it and 0.5 without.
    """
    if inclusive:
        if target == 0:
            return float(predicted == 0)
        thresholds = np.linspace(0.5, 0.95, 10)
        return float(np.mean(abs(predicted - target) / abs(target) <= 1 - thresholds))
    with np.errstate(over="ignore", invalid="ignore"):
        value, gold = np.float32(predicted), np.float32(target)
        error = np.abs(value - gold) / (np.abs(gold) + np.float32(1e-8))
    thresholds = (0.5 + 0.05 * np.arange(10)).astype(np.float32)
    return float(np.count_nonzero(error < np.float32(1) - thresholds)) / 10


# --- text ------------------------------------------------------------------------------------------------------------


def word_error_rate(reference: str, hypothesis: str) -> float:
    """Word-level edit distance divided by the number of reference words (at least 1). It can exceed 1."""
    with extra("eval"):
        from nltk.metrics.distance import edit_distance

    words = reference.split()
    return edit_distance(words, hypothesis.split()) / max(1, len(words))


def _grade_transcript(answer: str, gold: str) -> float:
    words = len(gold.split())
    if words and len(answer.split()) >= 2 * words:  # as many insertions as gold words: the rate is at least 1
        return 0.0
    return max(0.0, 1.0 - word_error_rate(gold, answer))


@lru_cache(1024)  # sampled answers are often alike
def rouge_mean(reference: str, hypothesis: str) -> float:
    """Mean of ROUGE-1, ROUGE-2 and ROUGE-L F1 with stemming."""
    scores = _rouge_scorer().score(reference, hypothesis)
    return float(sum(score.fmeasure for score in scores.values()) / len(scores))


@cache
def _rouge_scorer() -> RougeScorer:
    with extra("eval"):
        from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def _check(protocol: str, problem_type: str = "multiple choice") -> None:
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(f"unknown problem_type {problem_type!r}; choose one of {', '.join(PROBLEM_TYPES)}")
