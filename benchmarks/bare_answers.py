"""How well bare answers know that they are right, and what thinking about the others alone would cost.

    python -m benchmarks.bare_answers [--model tiny] [--videos 48] [--style short]

asks a model about test videos of the micro-world, in memory, in four visual tokens: for the bare answer, and to think
first. It prints how each measure of a bare answer's probability ranks right ones above wrong ones (the area under
the ROC curve), and what `--think-below` gives at some thresholds: accuracy, share thought about, tokens generated, as
a share of those of always thinking. The last line is that of who knows which bare answers are wrong, and thinks about
these alone.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from marc.grading import extract_answer
from marc.inference.hf import HFBackend
from marc.inference.prompts import Prompt
from marc.inference.thinking import beginning, probability_of
from marc.model.loading import load_model
from marc.types import GenerationOptions
from marc.world.export import video_questions
from marc.world.levels import sample
from marc.world.measure import VIDEOS_AT_ONCE, show
from marc.world.options import WorldOptions
from marc.world.texts import prompt_ids

THRESHOLDS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 1.01)
MEASURES: dict[str, Callable[[Sequence[float]], float]] = {
    "product": probability_of,
    "geometric mean": lambda logprobs: math.exp(math.fsum(logprobs) / len(logprobs)),
    "least likely token": lambda logprobs: math.exp(min(logprobs)),
}


@dataclass(frozen=True)
class Asked:
    """A question, and its two answers.

    Attributes:
        bare: Whether the bare answer is right.
        thought: Whether the other one is.
        logprobs: Of the bare answer's tokens.
        tokens: Generated in thinking.
    """

    bare: bool
    thought: bool
    logprobs: Sequence[float]
    tokens: int

    def cost(self, least: float) -> int:
        """Tokens that are generated if it must be so probable, as the bare answer is given up where it is not."""
        probable = np.exp(np.cumsum(self.logprobs)) >= least
        return len(probable) if probable.all() else int(probable.argmin()) + 1 + self.tokens


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--style", default="short", help="the one that asks for the bare answer")
    arguments = parser.parse_args()
    backend = HFBackend(*load_model(arguments.model, device="cpu"))
    world = WorldOptions(seed=1, videos=arguments.videos, questions=24)
    asked = list(answers(backend, world, arguments.style))
    bare, thought = np.array([each.bare for each in asked]), np.array([each.thought for each in asked])
    tokens = np.array([each.tokens for each in asked])
    print(f"{len(asked)} questions: {bare.mean():.4f} right in bare words, {thought.mean():.4f} after thinking\n")
    print("| measure | area under the ROC curve |\n|---|---|")
    for name, measure in MEASURES.items():
        print(f"| {name} | {ranking(np.array([measure(each.logprobs) for each in asked]), bare):.3f} |")
    print("\n| think below | right | thought about | tokens | of always thinking |\n|---|---|---|---|---|")
    probabilities = np.array([probability_of(each.logprobs) for each in asked])
    for least in THRESHOLDS:
        unsure, cost = probabilities < least, np.array([each.cost(least) for each in asked])
        print(_line(f"{least:g}", np.where(unsure, thought, bare), unsure, cost, tokens))
    known = np.array([len(each.logprobs) if each.bare else 1 + each.tokens for each in asked])
    print(_line("where it is wrong", bare | thought, ~bare, known, tokens))


def answers(backend: HFBackend, world: WorldOptions, style: str) -> Iterator[Asked]:
    """Asks both ways, some videos at a time."""
    given = beginning(backend.processor.tokenizer)
    for begin in range(0, world.videos, VIDEOS_AT_ONCE):
        indices = range(begin, min(begin + VIDEOS_AT_ONCE, world.videos))
        drawn = [sample(world.level, "test", world.seed, index) for index in indices]
        shown = [show(video, "events", backend) for video in drawn]
        backend.encode(shown)
        pairs = [
            (video, question)
            for video, scenes, index in zip(shown, drawn, indices, strict=True)
            for question in video_questions(scenes, "test", world.seed, index, world.questions)
        ]
        first, second = (
            [Prompt((*prompt_ids(backend.processor, question, how), *begun), (video,)) for video, question in pairs]
            for how, begun in ((style, given), ("video-r1", ()))
        )
        bare, thought = backend.greedy(first, GenerationOptions()), backend.generate(second, GenerationOptions())
        outputs = [*([*given, *each.tokens] for each in bare), *thought]
        texts = backend.processor.batch_decode(outputs, skip_special_tokens=True)
        right = [extract_answer(text) == question.answer for text, (_, question) in zip(texts, pairs * 2, strict=True)]
        for row, (output, tokens) in enumerate(zip(bare, thought, strict=True)):
            yield Asked(right[row], right[len(pairs) + row], output.logprobs, len(tokens))


def ranking(scores: NDArray[np.float64], is_right: NDArray[np.bool_]) -> float:
    """The share of pairs of a right and a wrong answer in which the right one scores higher; ties count half."""
    right, wrong = scores[is_right], scores[~is_right]
    return float(mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong)))


def _line(
    name: str, right: NDArray[np.bool_], unsure: NDArray[np.bool_], cost: NDArray[np.int_], always: NDArray[np.int_]
) -> str:
    shares = f"{right.mean():.4f} | {unsure.mean():.3f} | {cost.mean():.2f} | {cost.sum() / always.sum():.3f}"
    return f"| {name} | {shares} |"


if __name__ == "__main__":
    main()
