"""``marc`` as a model of lmms-eval, through its plugin mechanism: its video tasks run with our model, without a fork.

lmms-eval finds `manifest` by the entry point ``lmms_eval.models`` of this package, so that with both installed

    lmms-eval --model marc --model_args pretrained=FOLDER,method=marc-events+memory --tasks videomme --batch_size 8

works. Prompts, sampling limits and scores are lmms-eval's; frames, compression and retrieval are ours. A request holds
one video (a path) and text; other requests are refused by the task's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NoReturn

from lmms_eval.api.instance import Instance  # type: ignore[import-not-found]
from lmms_eval.api.model import lmms  # type: ignore[import-not-found]
from lmms_eval.models.registry_v2 import ModelManifest  # type: ignore[import-not-found]

from marc.evaluation.engine import Engine
from marc.evaluation.evaluate import load_engine
from marc.evaluation.methods import find_method
from marc.evaluation.options import EngineOptions
from marc.evaluation.samples import Sample
from marc.types import GenerationOptions

MAX_NEW_TOKENS = 1024


def manifest() -> ModelManifest:
    """What the entry point hands to lmms-eval."""
    return ModelManifest("marc", chat_class_path=f"{__name__}.Marc")


class Marc(lmms):
    """Our model behind lmms-eval's chat interface.

    Args:
        pretrained: ``"tiny"``, a folder or a hub name.
        method: One of `marc.evaluation.methods.METHODS` or a budget, with ``+memory`` for the memory.
        batch_size: Requests per generation.
        engine: Answers instead of a loaded model.
        **options: Of models, frames, memory, retrieval and compression, by the names that docs/options.md lists, such
            as ``max_frames=32`` or ``tower_layer=8``.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "tiny",
        method: str = "marc-events",
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        engine: Engine | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.batch_size = int(batch_size)
        self.engine = engine or load_engine(
            find_method(method), EngineOptions.from_names({"model": pretrained, **options})
        )

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Answers requests in order, as many at once as follow each other with equal settings."""
        outputs: list[str] = []
        for settings, run in groupby(requests, key=lambda request: request.args[2]):
            generation = generation_of(settings)
            for batch in _batches([self._sample(request) for request in run], self.batch_size):
                replies = self.engine.answer(batch, generation)
                outputs += [cut(reply.output, settings.get("until")) for reply in replies]
        return outputs

    def loglikelihood(self, requests: Sequence[Instance]) -> NoReturn:
        """Not offered: answers are generated."""
        raise NotImplementedError("marc generates answers; tasks that compare likelihoods are not supported")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> NoReturn:
        """Not offered: one question, one answer."""
        raise NotImplementedError("marc answers single questions; tasks of several rounds are not supported")

    def _sample(self, request: Instance) -> Sample:
        _, messages_of, _, doc_id, task, split = request.args
        name = f"{task}/{split}/{doc_id}"
        parts = [part for message in messages_of(self.task_dict[task][split][doc_id]) for part in message["content"]]
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        media = [part for part in parts if part["type"] != "text"]
        if len(media) != 1 or media[0]["type"] != "video" or not isinstance(media[0]["url"], str):
            kinds = ", ".join(part["type"] for part in media) or "no media"
            raise ValueError(f"{name}: marc answers questions about one video file each, this one has {kinds}")
        return Sample(name, media[0]["url"], question=text, prompt=text, problem_type="free-form", solution="")


def generation_of(settings: dict[str, Any]) -> GenerationOptions:
    """A task's ``generation_kwargs`` in our terms; sampling is off unless it has a positive temperature."""
    sampling = settings.get("do_sample", True)
    temperature = float(settings.get("temperature") or 0.0) if sampling else 0.0
    top_p = float(settings.get("top_p") or 1.0)
    return GenerationOptions(int(settings.get("max_new_tokens", MAX_NEW_TOKENS)), temperature, top_p)


def cut(output: str, until: str | Sequence[str] | None) -> str:
    """An output up to the first of a task's stop strings; empty lines do not stop, because reasoning has some."""
    stops = [until] if isinstance(until, str) else until or []
    for stop in stops:
        if stop.strip():
            output = output.split(stop)[0]
    return output


def _batches(samples: Sequence[Sample], size: int) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
