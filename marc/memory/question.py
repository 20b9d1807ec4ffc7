"""What is in the text of a question: its answer options apart, whether it is about all of a video, and if it counts.

DIG (arXiv 2512.04000) finds that frames spread evenly are enough for questions about the whole of a video and that
choosing frames helps with the others, and has a language model tell them apart. Here English words do, which takes no
time; what they do not tell is about moments.
"""

from __future__ import annotations

import regex

_OPTIONS_HEADING = regex.compile(r"\s*\b(?:answer\s+)?(?:options?|choices)\s*:", regex.IGNORECASE)
_OPTION_MARKER = r"(?:\({0}\)|\b{0}[.):])\s*\S"
_FIRST_OPTION = regex.compile(
    rf"(?:^|(?<=\s)){_OPTION_MARKER.format('A')}(?=.*?(?:^|\s){_OPTION_MARKER.format('B')})", regex.DOTALL
)
_FILM = r"(?:(?:the|this)\s+(?:video|clip|film|movie|footage|recording|episode)(?!\s+(?:shop|store|game|camera|call)))"
_ALL = (
    r"(?:whole|entire|full|complete)\s+(?:video|clip|film|movie|footage|recording|episode)",
    r"throughout|from\s+(?:start|beginning)\s+to\s+(?:end|finish)",
    r"summar(?:y|ies|i[sz]e[sd]?|i[sz]ing)|overview|overall|gist|storyline",
    r"(?:main|central|primary|overarching|general)\s+(?:topic|theme|idea|subject|purpose|point|message|content|focus)",
    rf"(?:topic|theme|genre|purpose|title|moral|plot)\s+of\s+{_FILM}",
    rf"(?:describe|caption)\s+{_FILM}",
    rf"(?:is|was)\s+{_FILM}\s+(?:\w+\s+)?about",
    rf"(?:happen(?:s|ed|ing)|go(?:es|ing)\s+on)\s+in\s+{_FILM}",
    r"(?:what|which|correct|right|temporal|chronological)\s+(?:order|sequence)|chronolog\w+",
    r"(?:order|sequence)\s+(?:of|in\s+which)\b.*\b(?:events|scenes|steps|actions|shots)",
    r"(?:which|what)\s+(?:scene|segment|chapter)s?",
    rf"(?:which|what)\s+(?:part|section|half|point|moment)s?\s+(?:of|in)\s+{_FILM}",
    r"how\s+often|how\s+many\s+(?:\w+\s+)?(?:times|scenes|shots|events|places|locations)",
)
_ABOUT_ALL = regex.compile(rf"\b(?:{'|'.join(_ALL)})\b", regex.IGNORECASE)
_SOMEWHERE = (
    r"how\s+many",
    r"(?:is|are|was|were)\s+there",
    r"(?:first|last)",
    r"comes?\s+(?:\w+\s+)?(?:before|after)",
)
"""What is about all of a video unless it is said where or when."""
_ASKS_SOMEWHERE = regex.compile(rf"\b(?:{'|'.join(_SOMEWHERE)})\b", regex.IGNORECASE)
_LOCATED = regex.compile(
    r"\b(?:in|at|on|by|during|inside|near|behind|beside|while|when|once|until)\s+"
    r"(?!(?:the|this)\s+(?:whole\s+|entire\s+)?(?:video|clip|film|movie|footage|recording|episode)\b|total\b|all\b)\w",
    regex.IGNORECASE,
)

_COUNTS = regex.compile(
    r"\bhow\s+(?:many|often|frequently)\b"
    r"|\btotal\s+(?:number|count)\s+of\b"
    r"|\b(?:number|the\s+count)\s+of\b(?!\s+(?:the|this|that|his|her|their|its)\b)"
    r"|^(?:please,?\s+)?(?:(?:can|could)\s+you\s+(?:please\s+)?)?count\s|\bcount\s+how\s+many\b",
    regex.IGNORECASE,
)


def question_stem(question: str) -> str:
    """The question without its answer options.

    Cuts at an ``Options:`` heading, or at an option ``A.``, ``A)``, ``A:`` or ``(A)`` that a ``B`` follows. A text of
    nothing but options is returned whole.
    """
    cuts = [match.start() for match in (_OPTIONS_HEADING.search(question), _FIRST_OPTION.search(question)) if match]
    stem = question[: min(cuts)].strip() if cuts else question.strip()
    return stem or question.strip()


def is_about_all(question: str) -> bool:
    """Whether a question is, by its words, about all of a video.

    That is what it is about, an order, how often, in which scene or part something is; and how many, whether there
    is, what comes first, last, before or after, unless the question says where or when: "How many cups are on the
    table?" is about a moment.

    Args:
        question: Its answer options do not count.
    """
    stem = question_stem(question)
    if _ABOUT_ALL.search(stem):
        return True
    return _ASKS_SOMEWHERE.search(stem) is not None and _LOCATED.search(stem) is None


def counts_things(question: str) -> bool:
    """Whether a question asks, by its words, for a number of things or times, so that none of them may be missed.

    Args:
        question: Its answer options do not count.
    """
    return _COUNTS.search(question_stem(question)) is not None
