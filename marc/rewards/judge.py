"""A language model as judge of free answers, behind any server with OpenAI's interface: a TRL reward function.

    MARC_JUDGE_URL=http://localhost:8001/v1 MARC_JUDGE_MODEL=Qwen/Qwen3-8B MARC_JUDGE_KEY=… \\
        bash training_script/run_grpo_video.sh --rewards accuracy format judge

For captions and other answers of which ROUGE knows too little. Rows of other types than free-form get no reward of it.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

from marc.grading import extract_answer, gold_answer, remove_reasoning
from marc.rewards.accuracy import Completion, completion_text

ADDRESS, MODEL, KEY = "MARC_JUDGE_URL", "MARC_JUDGE_MODEL", "MARC_JUDGE_KEY"
BEST = 10
PROMPT = (
    "You compare an answer about a video with the right answer.\n\nQuestion:\n{question}\n\nRight answer:\n{gold}\n\n"
    "Answer:\n{answer}\n\nHow much of what the right answer says does the answer say, without saying anything that "
    "contradicts it? Reply with one whole number from 0 (nothing) to 10 (all of it), and nothing else."
)
AT_ONCE = 8
PATIENCE = 120.0
"""Seconds for one judgement."""
TRIES = 3
_JUDGEMENT = re.compile(
    r"[\s*_\"'`(\[]*(?:(?:the )?(?:score|rating|judge?ment)(?: is)?[\s:=*_]*)?"
    rf"(\d{{1,2}}(?:\.\d{{1,9}})?)[\s*_]*(?:(?:/|out of)\s*{BEST}\b)?[\s*_\"'`)\].]*",
    re.IGNORECASE | re.ASCII,
)


@dataclass(frozen=True)
class Judge:
    """A model that judges.

    Attributes:
        address: Of the interface, such as ``http://localhost:8001/v1``.
        model: Its name there.
        key: For the server; empty: none.
    """

    address: str
    model: str
    key: str = ""

    @classmethod
    def from_environment(cls) -> Judge:
        """The one that the environment names.

        Raises:
            ValueError: If it names none.
        """
        address, model = os.environ.get(ADDRESS, ""), os.environ.get(MODEL, "")
        if not address.startswith(("http://", "https://")) or not model:
            raise ValueError(
                f"rewards: judge needs {ADDRESS}, such as http://localhost:8001/v1, and {MODEL} to be set"
            )
        return cls(address.rstrip("/"), model, os.environ.get(KEY, ""))

    def score(self, question: str, gold: str, answer: str) -> float:
        """How right an answer is, in ``[0, 1]``; 0 for an empty one, which nobody is asked about.

        Raises:
            OSError: If the server cannot be reached, or replies with something else than a number, several times.
        """
        if not answer:
            return 0.0
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(attempt)
            try:
                reply = self._ask(PROMPT.format(question=question, gold=gold, answer=answer))
            except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
                problem = " ".join(str(error).split())[:200] or type(error).__name__
                continue
            judged = _JUDGEMENT.fullmatch(remove_reasoning(reply))
            if judged and (number := float(judged[1])) <= BEST:
                return number / BEST
            problem = f"it replied {reply[:80]!r} instead of a number from 0 to {BEST}"
        raise OSError(f"the judge {self.model} at {self.address} gave no judgement in {TRIES} tries: {problem}")

    def _ask(self, prompt: str) -> str:
        body = {"model": self.model, "messages": [{"role": "user", "content": prompt}], "temperature": 0}
        headers = {"content-type": "application/json", **({"authorization": f"Bearer {self.key}"} if self.key else {})}
        request = urllib.request.Request(f"{self.address}/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            said = json.load(reply)["choices"][0]["message"]["content"]
        if not isinstance(said, str):
            raise ValueError("the reply holds no text")
        return said


def judge_reward(
    completions: Sequence[Completion],
    prompts: Sequence[Any],
    solution: Sequence[str],
    problem_type: Sequence[str] | None = None,
    **columns: object,
) -> list[float | None]:
    """What the judge makes of each answer, in ``[0, 1]``; None for rows that are not free-form.

    Args:
        completions: Texts, or chats whose last message is the completion.
        prompts: Texts, or chats whose last message asks.
        solution: Gold answers, with or without ``<answer>`` tags.
        problem_type: One of `marc.grading.PROBLEM_TYPES` per row; None: all are free-form.
        columns: The data set's other columns; unused.

    Raises:
        ValueError: If the environment names no judge.
        OSError: If the judge does not judge.
    """
    judge = _judge()
    kinds = problem_type or ["free-form"] * len(completions)

    def score(row: tuple[Any, Completion, str, str]) -> float | None:
        prompt, completion, gold, kind = row
        if kind != "free-form":
            return None
        answer = extract_answer(completion_text(completion), strict=False)
        return judge.score(completion_text(prompt), gold_answer(gold), answer)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(score, zip(prompts, completions, solution, kinds, strict=True)))


@cache
def _judge() -> Judge:
    return Judge.from_environment()
