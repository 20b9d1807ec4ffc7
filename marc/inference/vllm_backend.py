"""The engine of vLLM behind the assistant and the evaluation: prompts go in as they go into transformers'.

Videos are read and planned here, by the same code; vLLM encodes them with our plugin (`marc.serving.vllm`), and keeps
features and prefixes by what was shown and how, so that further questions about a video cost neither its tower nor
its tokens. vLLM needs an environment of its own (docs/vllm.md).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from huggingface_hub import try_to_load_from_cache
from transformers.utils import CONFIG_NAME

from marc.compression import CompressionConfig
from marc.extras import extra
from marc.inference.listening import Listener
from marc.inference.prompts import Prompt
from marc.inference.stages import StageClock
from marc.inference.thinking import GreedyOutput
from marc.inference.video_input import KINDS, VideoInput
from marc.inference.vllm_items import PLAN, VISUAL_FIELDS, planned_item
from marc.io import sha256_file, sha256_of
from marc.model import CompressedProcessor
from marc.model.family import find_family, vision_token_ids
from marc.model.loading import checkpoint_folder, load_processor
from marc.types import GenerationOptions

PLAIN_ENGINE = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "2",
}
"""VLLM's engine in this process, quietly, and on a CPU with 2 GiB of keys and values; the environment may overrule."""

HOTTEST = 2.0
"""Highest temperature of vLLM's samples."""


@dataclass
class VllmBackend:
    """A `marc.inference.backend.Backend`: vLLM in this process.

    Attributes:
        engine: A ``vllm.LLM`` of one of our architectures.
        processor: The model's.
        config: The model's configuration.
        name: Folder or hub name of its weights.
        compression: The budget at which videos are seen; assign to change it for what follows.
    """

    engine: Any
    processor: CompressedProcessor
    config: Any
    name: str
    compression: CompressionConfig = field(init=False)
    _identities: WeakKeyDictionary[VideoInput, str] = field(default_factory=WeakKeyDictionary, init=False, repr=False)

    def __post_init__(self) -> None:
        self.compression = self.processor.compression

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        **compression: Any,
    ) -> VllmBackend:
        """Loads a model into vLLM.

        Args:
            name: As in `marc.model.loading.load_model`, but no adapters.
            device: Must be of the kind that the installed vLLM is for.
            dtype: As in `marc.model.loading.load_model`.
            attn_implementation: vLLM chooses by itself: must be None.
            **compression: What replaces the checkpoint's, as there.

        Raises:
            ValueError: If there is no such model, or an option is wrong.
        """
        if attn_implementation is not None:
            raise ValueError("attn_implementation: vLLM chooses its attention by itself; leave it out")
        config, processor = load_processor(name, **compression)
        engine = load_engine(checkpoint_folder(name), config, device, dtype)
        return cls(engine, processor, config, checkpoint_folder(name))

    @property
    def cannot(self) -> dict[str, str]:
        """What it cannot do."""
        return {"static": "static keys and values: vLLM keeps them its own way; leave static_cache out"}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.engine.llm_engine.vllm_config.device_config.device_type)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        dtype: torch.dtype = self.engine.llm_engine.model_config.dtype
        return dtype

    def fingerprint(self) -> str:
        """See `marc.inference.backend.Backend`: of the checkpoint's files, as weights are fused in vLLM."""
        folder = Path(self.name)
        if not folder.is_dir():
            folder = Path(str(try_to_load_from_cache(self.name, CONFIG_NAME))).parent
        return sha256_of(*(sha256_file(file) for file in sorted(folder.glob("*.safetensors"))))

    def encode(self, inputs: Sequence[VideoInput], clock: StageClock | None = None) -> None:
        """Leaves pixels where they are: vLLM encodes what a prompt shows when it reads the prompt.

        Which grids merged is known where the plan alone says it.
        """
        for each in inputs:
            plan = each.plan
            if plan is not None and plan.one_grid_per_window:
                windows = enumerate(window.length for window in plan.windows)
                each.members = torch.tensor([number for number, length in windows for _ in range(length)])

    def generate(
        self,
        prompts: Sequence[Prompt],
        options: GenerationOptions,
        clock: StageClock | None = None,
        listeners: Sequence[Listener] = (),
    ) -> list[list[int]]:
        """See `marc.inference.backend.Backend`."""
        with extra("vllm"):
            from vllm.sampling_params import RequestOutputKind

        clock = clock or StageClock(self.device)
        start = clock.now()
        sampling = self.sampling(options, output_kind=RequestOutputKind.DELTA)
        requests = [self.request(prompt) for prompt in prompts]
        outputs = _hear(self.engine, requests, sampling, listeners or [Listener()] * len(prompts))
        clock.seconds["generate"] += clock.now() - start
        return outputs

    def greedy(
        self, prompts: Sequence[Prompt], options: GenerationOptions, clock: StageClock | None = None
    ) -> list[GreedyOutput]:
        """See `marc.inference.backend.Backend`."""
        clock = clock or StageClock(self.device)
        unwarped = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
        sampling = self.sampling(replace(options, temperature=0.0), logprobs=0, detokenize=False, **unwarped)
        with clock.stage("generate"):
            outputs = self.engine.generate([self.request(each) for each in prompts], sampling, use_tqdm=False)
        return [_with_probabilities(output.outputs[0]) for output in outputs]

    def sample(self, prompts: Sequence[Prompt], options: GenerationOptions, samples: int) -> list[list[list[int]]]:
        """See `marc.inference.backend.Backend`."""
        if options.temperature > HOTTEST:
            raise ValueError(f"temperature {options.temperature:g}: vLLM draws at {HOTTEST:g} at most; choose less")
        with extra("vllm"):
            from vllm import SamplingParams
        sampling = SamplingParams(
            n=samples,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=options.seed,
            max_tokens=options.max_new_tokens,
            logit_bias=dict.fromkeys(vision_token_ids(self.processor.tokenizer), -math.inf),
            detokenize=False,
        )
        outputs = self.engine.generate([self.request(prompt) for prompt in prompts], sampling, use_tqdm=False)
        return [[list(each.token_ids) for each in output.outputs] for output in outputs]

    def converse(self) -> VllmTurns:
        """See `marc.inference.backend.Backend`."""
        return VllmTurns(self)

    def sampling(self, options: GenerationOptions, **others: Any) -> Any:
        """Makes vLLM's ``SamplingParams``: the checkpoint's own, and what the options say.

        Args:
            options: How to generate.
            **others: Further fields.

        Raises:
            ValueError: If vLLM cannot do what they ask for.
        """
        if options.static:
            raise ValueError(self.cannot["static"])
        sampling = self.engine.get_default_sampling_params()
        sampling.max_tokens, sampling.seed = options.max_new_tokens, options.seed
        sampling.temperature, sampling.top_p = options.temperature, options.top_p
        if options.repetition_penalty is not None:
            sampling.repetition_penalty = options.repetition_penalty
        for name, value in others.items():
            setattr(sampling, name, value)
        return sampling

    def request(self, prompt: Prompt) -> dict[str, Any]:
        """A prompt as vLLM takes it; what it shows is known to vLLM by its pixels and its plan."""
        request: dict[str, Any] = {"prompt_token_ids": list(prompt.ids)}
        for kind in KINDS:
            if shown := [each for each in prompt.inputs if each.kind == kind]:
                request.setdefault("multi_modal_data", {})[kind] = [planned_item(each) for each in shown]
                request.setdefault("multi_modal_uuids", {})[kind] = [self._identity(each) for each in shown]
        return request

    def _identity(self, shown: VideoInput) -> str:
        if shown not in self._identities:
            self._identities[shown] = item_identity(planned_item(shown))
        return self._identities[shown]


def load_engine(
    folder: str,
    config: Any,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    **options: Any,
) -> Any:
    """A ``vllm.LLM`` that runs a model by our plugin.

    Args:
        folder: Of the checkpoint.
        config: Its configuration.
        device: Must be of the kind that the installed vLLM is for.
        dtype: Of the weights; None: bfloat16 on a GPU, float32 on a CPU.
        **options: Further ones of ``vllm.LLM``, which take the place of ours.

    Raises:
        ValueError: If the plugin does not know the model's family, or vLLM is for another device.
    """
    for variable, value in PLAIN_ENGINE.items():
        os.environ.setdefault(variable, value)
    with extra("vllm"):
        from vllm import LLM, ModelRegistry
        from vllm.platforms import current_platform
        from vllm.plugins import load_general_plugins
    kind = current_platform.device_type
    if device is not None and torch.device(device).type != kind:
        raise ValueError(f"device {str(device)!r}: the installed vLLM runs on {kind!r}; leave it out")
    family = find_family(config.model_type)
    architecture = family.ours.names["generator"]
    load_general_plugins()
    if architecture not in ModelRegistry.get_supported_archs():
        raise ValueError(f"{folder}: our plugin for vLLM does not know {family.title}; choose the backend hf")
    own = {
        "dtype": str(dtype or ("float32" if kind == "cpu" else "bfloat16")).removeprefix("torch."),
        "hf_overrides": {"architectures": [architecture]},
        "max_model_len": -1,  # what memory allows
        "mm_processor_cache_gb": 0,  # what comes in is processed
        "enforce_eager": kind == "cpu",
        "block_size": 32 if kind == "cpu" else None,  # vLLM's own, 128 tokens, is longer than many of our prompts
    }
    return LLM(model=folder, **{**own, **options})


class VllmTurns:
    """The turns of one conversation, see `marc.inference.backend.Turns`; vLLM's prefix cache keeps what was read.

    Args:
        backend: Answers.
    """

    def __init__(self, backend: VllmBackend) -> None:
        self._backend = backend

    def generate(
        self,
        prompt: Prompt,
        options: GenerationOptions,
        clock: StageClock | None = None,
        tell: Callable[[str], object] | None = None,
    ) -> list[int]:
        """See `marc.inference.backend.Turns`."""
        return self._backend.generate([prompt], options, clock, [Listener(tell)])[0]

    def greedy(self, prompt: Prompt, options: GenerationOptions, clock: StageClock | None = None) -> GreedyOutput:
        """See `marc.inference.backend.Turns`."""
        return self._backend.greedy([prompt], options, clock)[0]


def _with_probabilities(completion: Any) -> GreedyOutput:
    """One of vLLM's outputs with what it says of each of its tokens."""
    tokens = list(completion.token_ids)
    told = zip(tokens, completion.logprobs, strict=True)
    return GreedyOutput(tokens, [float(words[token].logprob) for token, words in told])


def _hear(engine: Any, requests: Sequence[Any], sampling: Any, listeners: Sequence[Listener]) -> list[list[int]]:
    """Has a ``vllm.LLM`` answer requests, and ends the outputs that nobody waits for.

    They are put to the engine inside, as ``LLM.enqueue`` would have each tell its output as a whole.
    """
    inner, outputs = engine.llm_engine, {str(next(engine.request_counter)): list[int]() for _ in requests}
    waiting = dict(zip(outputs, listeners, strict=True))
    read = engine.renderer.render_cmpl(requests, engine.renderer.default_cmpl_tok_params)
    try:
        for number, request in zip(outputs, read, strict=True):
            inner.add_request(number, request, sampling)
        while inner.has_unfinished_requests():
            for output in inner.step():
                (new,) = output.outputs
                outputs[output.request_id] += new.token_ids
                waiting[output.request_id].hear(new.text)
            inner.abort_request([number for number, listener in waiting.items() if listener.is_left])
    finally:
        inner.abort_request(list(outputs))
    return list(outputs.values())


def item_identity(item: Mapping[str, torch.Tensor]) -> str:
    """What vLLM's caches know a video or picture by: the size of its grids, its pixels, and its plan."""
    pixels, grid = VISUAL_FIELDS["video" if PLAN in item else "image"]
    parts = [item[name] for name in (grid, pixels, PLAN) if name in item]
    return sha256_of(*(part.contiguous().view(torch.uint8).numpy().tobytes() for part in parts))
