"""Whether an answer that does as it is told can be rewarded at all, and what rows say twice or not at all.

Public rows have golds that the strict reward (`marc.grading`, Video-R1's) never pays for: ``b`` or ``A.`` where the
prompt asks for the bare letter, ``12 cm`` where it asks for a number, a regression gold of 0, words of which ROUGE
knows none. A group of answers to such a row teaches nothing. Where a rule mends one safely, `examine` says how.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO
from unicodedata import normalize

from marc.data.row_files import raw_rows
from marc.data.rows import BadRow, TrainingRow, parse_each
from marc.grading import gold_answer, grade, parse_number, read_choice, read_number

PLACEHOLDERS = ("<image>", "<video>")
"""What stands in the question where the model family has marks of its own."""
_NUMBER_WITH_UNIT = re.compile(
    r"[^\d.]*?[-+−]?\s*(?:\d[\d,]*(?:\.\d+)?|\.\d+)\s*(?:[/^]\s*\{?-?\d+\}?)?[^\d]*|\W*\\d?frac\{-?\d+\}\{\d+\}\W*"
)
_PAID = 0.6
"""Reward of the gold answer itself from which on it counts as paid; ROUGE pays two thirds for a single word."""
_ONE_NUMBER = 40
"""Characters of the longest gold that is taken for a number with its unit."""


@dataclass(frozen=True)
class Examined:
    """What was found about a row.

    Attributes:
        row: As it can be used, mended where that is needed; None if it cannot.
        mended: What was changed, by kind.
        problem: Why it cannot be used; empty if it can.
        remarks: What should be known about it, by kind; it is used all the same.
    """

    row: TrainingRow | None
    mended: tuple[str, ...] = ()
    problem: str = ""
    remarks: tuple[str, ...] = ()


def examine(row: TrainingRow) -> Examined:
    """Mends a row by rule where that is safe, and says what cannot be mended.

    Args:
        row: One that can be read.
    """
    found = row
    mended = []
    for kind, rule in _RULES.items():
        better = rule(found)
        if better != found:
            found = better
            mended.append(kind)
    remarks = tuple(kind for kind, holds in _REMARKS.items() if holds(row))
    if problem := _unpayable(found):
        return Examined(None, (), problem, remarks)
    return Examined(found, tuple(mended), "", remarks)


class Selection:
    """The rows of a file that can be used, read anew whenever they are asked for: there may be too many to keep.

    Args:
        file: Of rows.
        folder: Rows whose path leads out of this folder cannot be used; None: they can.
        fix: Whether rows are mended; else those that would have to be cannot be used.

    Attributes:
        bad: Rows that cannot be used, once `reporting` has ended.
    """

    def __init__(self, file: str | Path, folder: str | Path | None = None, *, fix: bool = False) -> None:
        self.bad = 0
        self._file, self._folder, self._fix = file, folder, fix
        self._counts: Counter[str] = Counter()
        self._leave_out: Callable[[BadRow], object] | None = None
        self._told: TextIO | None = None

    @contextmanager
    def reporting(self, file: str | Path | None, leave_out: Callable[[BadRow], object]) -> Iterator[None]:
        """Counts what is found while the rows are read in this block, and tells of it.

        Args:
            file: A line of JSON is written here for each row that is mended; None: nowhere.
            leave_out: Is told of each row that cannot be used.
        """
        self.bad, self._leave_out = 0, leave_out
        self._counts.clear()
        with open(file, "w", encoding="utf-8", errors="backslashreplace") if file else nullcontext() as self._told:
            yield
        self._leave_out = self._told = None

    def rows(self) -> Iterator[TrainingRow]:
        """Those that can be used, mended if that is wanted."""
        seen: set[int] = set()
        for index, row in enumerate(parse_each(raw_rows(self._file), self._folder)):
            if isinstance(row, BadRow):
                self._refuse(row)
                continue
            found = examine(row)
            self._note(row, seen, found.remarks)
            if found.row is not None and found.mended and not self._fix:
                wanted = "; ".join(found.mended)
                self._refuse(BadRow(index, row.problem_id, f"needs {wanted}; --fix mends that"), *found.mended)
            elif found.row is None:
                self._refuse(BadRow(index, row.problem_id, found.problem))
            else:
                if found.mended:
                    self._tell(index, row, found)
                yield found.row

    def summary(self) -> Iterator[str]:
        """A line for each kind of what was found, most frequent first."""
        for kind, count in self._counts.most_common():
            yield f"{count} rows: {kind}"

    def _note(self, row: TrainingRow, seen: set[int], remarks: Sequence[str]) -> None:
        if self._leave_out is None:
            return
        key = hash(row.problem_id)
        self._counts.update([*remarks, *(["a problem_id that another row has"] if key in seen else [])])
        seen.add(key)

    def _refuse(self, row: BadRow, *kinds: str) -> None:
        if self._leave_out is not None:
            self.bad += 1
            self._counts.update(f"need {kind}" for kind in kinds)
            self._leave_out(row)

    def _tell(self, index: int, row: TrainingRow, found: Examined) -> None:
        if self._leave_out is None or found.row is None:
            return
        self._counts.update(f"mended: {kind}" for kind in found.mended)
        before, after = row.to_dict(), found.row.to_dict()
        changed = {key: [before[key], after[key]] for key in before if before[key] != after.get(key)}
        line = {"row": index, "problem_id": row.problem_id, "mended": found.mended, "changed": changed}
        if self._told is not None:
            self._told.write(json.dumps(line, ensure_ascii=False) + "\n")


def _unpayable(row: TrainingRow) -> str:
    """Why no answer that does as the prompt says is paid by the strict reward; empty if one is."""
    gold = gold_answer(row.solution)
    letters = _letters(row)
    if row.problem_type == "multiple choice" and not (re.fullmatch("[A-Z]", gold) and gold in (letters or gold)):
        among = f" among the options {', '.join(letters)}" if letters else ""
        return f"the gold answer {gold[:80]!r} is no option's letter{among}"
    if row.problem_type in ("numerical", "regression") and parse_number(gold) is None:
        return f"the gold answer {gold[:80]!r} is no number"
    if grade(f"<answer>{gold}</answer>", gold, row.problem_type) >= _PAID:
        return ""
    if row.problem_type == "regression":
        return f"the gold answer {gold[:80]} is 0 or next to it, for which the regression reward pays nothing"
    return f"the gold answer {gold[:80]!r} holds no word that ROUGE knows"


def _letters(row: TrainingRow) -> str:
    """The options' letters, where each option begins with one."""
    letters = [read_choice(option.strip()[:3]) for option in row.options]
    return "".join(letters) if all(letters) else ""


def _bare_letter(row: TrainingRow) -> TrainingRow:
    """``b``, ``A.``, ``(A)``, full-width: the letter that the prompt asks for."""
    gold = normalize("NFKC", gold_answer(row.solution)).strip()
    if row.problem_type != "multiple choice" or not re.fullmatch(r"\W*[A-Za-z]\W*", gold):
        return row
    letter = re.sub(r"\W", "", gold).upper()
    return _with_gold(row, letter) if letter in (_letters(row) or letter) else row


def _bare_number(row: TrainingRow) -> TrainingRow:
    """``12 cm``, ``30°``, ``5%``, ``3/4``: the number that the prompt asks for."""
    gold = gold_answer(row.solution)
    if row.problem_type not in ("numerical", "regression") or parse_number(gold) is not None:
        return row
    number = read_number(gold) if len(gold) <= _ONE_NUMBER and _NUMBER_WITH_UNIT.fullmatch(gold) else None
    return row if number is None else _with_gold(row, f"{number:.10g}")


def _without_placeholders(row: TrainingRow) -> TrainingRow:
    """The question without marks for the picture, which the prompt has of its own."""
    problem = row.problem
    for mark in PLACEHOLDERS:
        problem = problem.replace(mark, "")
    return replace(row, problem=problem.strip()) if problem != row.problem and problem.strip() else row


def _with_gold(row: TrainingRow, gold: str) -> TrainingRow:
    """The row with another gold answer, tagged as the old one was."""
    return row if gold == gold_answer(row.solution) else replace(row, solution=f"<answer>{gold}</answer>")


def _has_equal_options(row: TrainingRow) -> bool:
    texts = [re.sub(r"^\W*[A-Za-z]\W+", "", option).strip().casefold() for option in row.options]
    return len(set(texts)) < len(texts)


_RULES: dict[str, Callable[[TrainingRow], TrainingRow]] = {
    "the letter alone": _bare_letter,
    "the number alone": _bare_number,
    "no literal <image> or <video>": _without_placeholders,
}
_REMARKS: dict[str, Callable[[TrainingRow], bool]] = {
    "options that repeat": _has_equal_options,
    "no process (supervised training needs one)": lambda row: row.process is None,
}
