"""The benchmarks' own protocols: how each reads its annotation rows, and how each scores an output.

Readers turn one official annotation row into an `OfficialRow`; the registry (`marc.evaluation.benchmarks`) says which
files they are applied to. Rules score an output; sources are the benchmarks' scorers as lmms-eval 0.7.3 has them.
Where those have known bugs (an empty open answer is right, the article "a" is option A, a thought is an answer), ours
do not: they see the output without its reasoning, and letters are read by `marc.grading.read_choice`. Nothing here
asks a language model to judge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from marc.evaluation.samples import Row, Sample, require, require_text, texts
from marc.grading import SUPERSCRIPTS, extract_answer, gold_answer, grade, read_choice, read_number, yes_or_no

# --- readers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OfficialRow:
    """One official annotation row in our terms.

    Attributes:
        media: End of the video's path, such as ``"scannet/scene0011_00.mp4"``.
        question: The question as annotated.
        solution: The gold answer.
        kind: Which of the benchmark's prompts it is asked with.
        problem_type: One of `marc.grading.PROBLEM_TYPES`.
        rule: One of `RULES`.
        options: The options as annotated.
        groups: What the benchmark averages over.
    """

    media: str
    question: str
    solution: str
    kind: str
    problem_type: str = "multiple choice"
    rule: str = "letter"
    options: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)


OfficialReader = Callable[[Row, str, str], OfficialRow]

VSI_NUMERIC = ("object_abs_distance", "object_counting", "object_size_estimation", "room_size_estimation")


def read_vsi(row: Row, part: str, where: str) -> OfficialRow:
    """VSI-Bench; the three difficulties of ``object_rel_direction`` are parts of one task."""
    question_type = require_text(row, "question_type", where)
    numeric = question_type in VSI_NUMERIC
    return OfficialRow(
        media=f"{require(row, 'dataset', where)}/{require(row, 'scene_name', where)}.mp4",
        question=require_text(row, "question", where),
        solution=str(require(row, "ground_truth", where)),
        kind="regression" if numeric else "multiple choice",
        problem_type="regression" if numeric else "multiple choice",
        rule="mra" if numeric else "first-token",
        options=texts(row, "options", where),
        groups={"task": re.sub(r"_(easy|medium|hard)$", "", question_type), "question type": question_type},
    )


def read_videommmu(row: Row, part: str, where: str) -> OfficialRow:
    """VideoMMMU; ``part`` is the track.

    Only the adaptation track has open questions: all that are not called ``multiple-choice`` there (one has no type).
    The other tracks have no such column in one of the public layouts.
    """
    track = part.lower()
    is_open = track == "adaptation" and row.get("question_type") != "multiple-choice"
    return OfficialRow(
        media=f"{require(row, 'id', where)}.mp4",
        question=require_text(row, "question", where),
        solution=str(require(row, "answer", where)),
        kind=f"{track} open" if is_open else track,
        problem_type="free-form" if is_open else "multiple choice",
        rule="mmmu-open" if is_open else "letter",
        options=texts(row, "options", where),
        groups={"track": track, "form": "open" if is_open else "choice"},
    )


def read_mmvu(row: Row, part: str, where: str) -> OfficialRow:
    """MMVU; choice and open questions are reported apart."""
    is_open = require(row, "question_type", where) == "open-ended"
    choices = row.get("choices") or {}
    return OfficialRow(
        media=str(row.get("video_path") or require(row, "video", where)).split("/videos/")[-1],
        question=require_text(row, "question", where),
        solution=str(require(row, "answer", where)),
        kind="open" if is_open else "multiple choice",
        problem_type="free-form" if is_open else "multiple choice",
        rule="mmvu-open" if is_open else "letter-or-text",
        options=() if is_open else tuple(str(choices[letter]) for letter in sorted(choices)),
        groups={"form": "open" if is_open else "choice"},
    )


MVBENCH_FOLDERS = {
    "object_interaction": "star/Charades_segment",
    "action_sequence": "star/Charades_segment",
    "action_prediction": "star/Charades_segment",
    "action_localization": "sta/sta_video_segment",
    "moving_count": "clevrer/video_validation",
    "fine_grained_pose": "nturgbd_convert",
    "character_order": "perception/videos",
    "object_shuffle": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "moving_direction": "clevrer/video_validation",
    "episodic_reasoning": "tvqa/video_fps3_hq_segment",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "moving_attribute": "clevrer/video_validation",
    "action_antonym": "ssv2_video_mp4",
    "unexpected_action": "FunQA_test/test",
    "counterfactual_inference": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "action_count": "perception/videos",
}


MVBENCH_REVISIONS = {
    "video": ("ssv2_video_mp4", "nturgbd_convert", "tvqa/video_fps3_hq_segment", "star/Charades_segment"),
    "main": ("ssv2_video", "nturgbd", "tvqa/frames_fps3_hq", "star/Charades_v1_480"),
}
"""Folders of videos that only this revision of OpenGVLab/MVBench has."""


def read_mvbench(row: Row, part: str, where: str) -> OfficialRow:
    """MVBench; ``part`` is the task, and the answer is one of the candidates."""
    if part not in MVBENCH_FOLDERS:
        raise ValueError(f"{where}: {part!r} is none of MVBench's 20 tasks ({', '.join(sorted(MVBENCH_FOLDERS))})")
    candidates, answer = texts(row, "candidates", where), require_text(row, "answer", where)
    if answer not in candidates:
        raise ValueError(f"{where}: the answer {answer!r} is none of the candidates {list(candidates)}")
    return OfficialRow(
        media=f"{MVBENCH_FOLDERS[part]}/{require(row, 'video', where)}",
        question=require_text(row, "question", where),
        solution="ABCDEFGHIJ"[candidates.index(answer)],
        kind="multiple choice",
        options=candidates,
        groups={"task": part},
    )


TEMPCOMPASS_RULES = {"multi-choice": "letter", "yes_no": "yes-no", "caption_matching": "caption"}


def read_tempcompass(row: Row, part: str, where: str) -> OfficialRow:
    """TempCompass; ``part`` is the task. Captioning needs a language model as judge and is left out."""
    if part not in TEMPCOMPASS_RULES:
        raise ValueError(f"{where}: {part!r} is none of the tasks that need no judge: {', '.join(TEMPCOMPASS_RULES)}")
    question = require_text(row, "question", where)
    return OfficialRow(
        media=f"{require(row, 'video_id', where)}.mp4",
        question=question,
        solution=require_text(row, "answer", where),
        kind=part,
        problem_type="multiple choice" if part == "multi-choice" else "free-form",
        rule=TEMPCOMPASS_RULES[part],
        options=tuple(question.split("\n")[1:]),
        groups={"task": part, "aspect": str(row.get("dim", "unknown"))},
    )


def read_videomme(row: Row, part: str, where: str) -> OfficialRow:
    """VideoMME, without subtitles."""
    return OfficialRow(
        media=f"{require(row, 'videoID', where)}.mp4",
        question=require_text(row, "question", where),
        solution=require_text(row, "answer", where),
        kind="multiple choice",
        options=texts(row, "options", where),
        groups={"duration": str(require(row, "duration", where)), "task": str(row.get("task_type", "unknown"))},
    )


# --- rules -----------------------------------------------------------------------------------------------------------


def score_official(output: str, sample: Sample, *, strict: bool = True) -> float:
    """Score of an output by the sample's own rule; lenient reading replaces only two rules (`LENIENT_RULES`).

    Returns:
        A score in ``[0, 1]``.
    """
    if sample.rule == "grade":
        return grade(output, sample.solution, sample.problem_type, protocol="official", strict=strict)
    rule = RULES[sample.rule] if strict else LENIENT_RULES.get(sample.rule, RULES[sample.rule])
    return rule(extract_answer(output, protocol="official"), gold_answer(sample.solution), sample.options)


Rule = Callable[[str, str, Sequence[str]], float]


def score_letter(answer: str, gold: str, options: Sequence[str] = ()) -> float:
    """The option letter that the answer names."""
    return grade(answer, gold, "multiple choice", protocol="official")


def score_letter_or_text(answer: str, gold: str, options: Sequence[str] = ()) -> float:
    """MMVU: the option letter that the answer names, or the option's own text."""
    said = [
        letter for letter, option in zip("ABCDEFGHIJ", options, strict=False) if _plain(option) == _plain(answer) != ""
    ]
    return score_letter(said[0], gold) if len(said) == 1 else score_letter(answer, gold)


def score_first_token(answer: str, gold: str, options: Sequence[str] = ()) -> float:
    """VSI-Bench: what stands before the first space, without its full stop, whatever its case."""
    return float(answer.split(" ")[0].rstrip(".").strip().lower() == gold.strip().lower() != "")


def score_mra(answer: str, gold: str, options: Sequence[str] = ()) -> float:
    """VSI-Bench: mean relative accuracy with ``<=`` of the first number or number word."""
    return grade(answer, gold, "regression", protocol="official")


def score_yes_no(answer: str, gold: str, options: Sequence[str] = ()) -> float:
    """TempCompass: the answer begins with yes or no."""
    return float(yes_or_no(answer) == gold.strip().lower())


def score_caption(answer: str, gold: str, options: Sequence[str] = ()) -> float:
    """TempCompass's caption matching: an option's line, sentence, label ("Caption A") or the label's last word."""
    said = answer.strip().rstrip(".")
    for option in options:
        label, _, sentence = option.partition(": ")
        names = (option, sentence, label, label.split()[-1] if label else "")
        if said and said in {name.strip().rstrip(".") for name in names}:
            return float(gold.strip() in (option, label, sentence))
    return 0.0


def score_named_caption(answer: str, gold: str, options: Sequence[str] = ()) -> float:
    """TempCompass's caption matching, or the label's letter or digit however the answer names it ("(b)")."""
    if score_caption(answer, gold, options):
        return 1.0
    said, wanted = (_CAPTION_WORD.sub("", text) for text in (answer, gold))
    if re.match(r"[1-9]\b", wanted):
        said, wanted = said.translate(_DIGITS_AS_LETTERS), wanted.translate(_DIGITS_AS_LETTERS)
    return float(read_choice(said) == read_choice(wanted) != "")


_CAPTION_WORD = re.compile(r"\b(?:caption|option|sentence) (?=[a-j1-9]\b)", re.IGNORECASE)
_DIGITS_AS_LETTERS = str.maketrans("123456789", "ABCDEFGHI")


def score_mmmu_open(answer: str, gold: str, options: Sequence[str] = ()) -> float:
    """VideoMMMU's open questions, as MMMU parses them: what follows a concluding word, and the numbers in it."""
    clauses = [_conclusion(line) for line in answer.lower().strip().rstrip(".").split("\n") if line.strip()]
    found = [number for clause in clauses for number in _MMMU_NUMBER.findall(clause)]
    numbers = {round(float(number.replace(",", "")), 2) for number in found}
    wanted = gold.strip().lower()
    number = _plain_number(wanted)
    if number is not None:
        return float(round(number, 2) in numbers)
    if len(wanted) == 1:  # a letter must stand apart
        return float(any(f" {wanted}" in clause or f"{wanted} " in clause or clause == wanted for clause in clauses))
    return float(bool(wanted) and any(wanted in clause for clause in clauses))


_MMMU_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?|-?\.\d+")
_CONCLUDING = (
    "could be|so|is|thus|therefore|final|answer|result|are|in total|total|identify|recognize|calculated as|counted as"
    "|measured as|observed as|concluded as|found to be|equals|determined to be|number of|value is|adds up to|have|has"
)
_CONCLUDING_WORD = re.compile(rf".*\b(?:{_CONCLUDING})\b:? |.*=")


def _conclusion(line: str) -> str:
    said = _CONCLUDING_WORD.match(line)
    rest = line[said.end() :].strip() if said else ""
    return rest if rest.strip(":,.!?;'") else line.strip()


_STOP_WORDS = """a an the this that these those it its is are was were be been of in on at to by for from with as and
or but if than then there"""


def score_mmvu_open(answer: str, gold: str, options: Sequence[str] = ()) -> float:
    """MMVU's open questions by rules: equal, one within the other at word boundaries, or the same number.

    Words such as "the" and signs alone are within nothing.
    """
    said, wanted = _plain(answer), _plain(gold)
    if not said or not wanted:
        return 0.0
    says_something = any(re.search(r"\w", word) and word not in _STOP_WORDS.split() for word in said.split())
    if f" {wanted} " in f" {said} " or (says_something and f" {said} " in f" {wanted} "):
        return 1.0
    number, target = read_number(answer), _plain_number(gold)
    return float(target is not None and number is not None and abs(number - target) < 0.01)


def score_exact(answer: str, gold: str, options: Sequence[str] = ()) -> float:
    """The same words, whatever their case and punctuation."""
    return float(_plain(answer) == _plain(gold) != "")


def _plain(text: str) -> str:
    text = text.lower().translate(SUPERSCRIPTS)
    return " ".join(re.sub(r"[^\w^+\-*/=%.()]|\.(?!\d)", " ", text).split())


def _plain_number(text: str) -> float | None:
    return read_number(text) if re.fullmatch(r"[-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?", text.strip(), re.IGNORECASE) else None


RULES: dict[str, Rule] = {
    "letter": score_letter,
    "letter-or-text": score_letter_or_text,
    "first-token": score_first_token,
    "mra": score_mra,
    "yes-no": score_yes_no,
    "caption": score_caption,
    "mmmu-open": score_mmmu_open,
    "mmvu-open": score_mmvu_open,
    "exact": score_exact,
}

LENIENT_RULES: dict[str, Rule] = {"first-token": score_letter, "caption": score_named_caption}
"""What replaces a rule where only the answer's form is at stake."""
