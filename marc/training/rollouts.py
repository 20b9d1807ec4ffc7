"""Answers to learn from by vLLM in the trainer's process (``use_vllm``), from prompts that show compressed videos.

TRL's own engine with three differences: it runs our plugin (`marc.serving.vllm`) and is handed videos as they are
planned for the step's budget; weights come to it in one pass, because vLLM prepares some of them for its kernels, and
everything that followed from older ones is dropped, features of videos too; and tokens of vision are never drawn.

TRL compares the engine's log-probabilities with those of the training pass in each step, logs their differences
(``sampling/sampling_logp_difference``), and corrects for them by importance weights that are bounded
(``vllm_importance_sampling_clip_max``).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from trl.generation.vllm_generation import VLLMGeneration, extract_logprobs

from marc.extras import extra
from marc.inference.prompts import Prompt
from marc.inference.vllm_backend import VllmBackend, load_engine
from marc.model.family import vision_token_ids
from marc.training.video_trainer import base_model


class VideoVLLM(VLLMGeneration):
    """TRL's engine for rows that may show videos.

    Attributes:
        prompts: Of the rows that are answered next; assign before `generate`.
        seeds: Of their answers.
    """

    prompts: Sequence[Prompt] = ()
    seeds: Sequence[int] = ()

    def _init_vllm(self) -> None:
        """Starts the engine in this process, from a copy of the policy's configuration and weights."""
        policy = base_model(self.model)
        several = self.accelerator.num_processes > 1
        with tempfile.TemporaryDirectory() as folder:
            policy.config.save_pretrained(folder)
            self.processing_class.save_pretrained(folder)
            policy.generation_config.save_pretrained(folder)
            self.llm = load_engine(
                folder,
                policy.config,
                dtype=policy.dtype,
                load_format="dummy",  # the first step brings the weights
                gpu_memory_utilization=self.gpu_memory_utilization,
                max_num_seqs=self.max_num_seqs,
                **({"max_model_len": self.max_model_length} if self.max_model_length else {}),
                **({"distributed_executor_backend": "external_launcher"} if several else {}),
                seed=self.accelerator.process_index,
                # Tempered as the training pass is; where nothing is, whatever may not be drawn.
                logprobs_mode="raw_logprobs" if self.temperature == 1 else "processed_logprobs",
            )
        self._backend = VllmBackend(self.llm, self.processing_class, policy.config, str(policy.name_or_path))
        self._has_tied_head = policy.get_output_embeddings().weight is policy.get_input_embeddings().weight
        self._never = vision_token_ids(self.processing_class.tokenizer)
        self._llm_weights_sleeping = False
        self.accelerator.wait_for_everyone()

    def sync_weights(self) -> None:
        """Gives the engine the policy's weights, and has it forget what it knows from older ones."""
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": self._iter_named_params()})
        if self._has_tied_head:
            self.llm.apply_model(_tie_head)
        self.llm.reset_prefix_cache()
        self.llm.reset_mm_cache()
        self.llm.llm_engine.reset_encoder_cache()

    def generate(
        self, prompts: list[list[int]], images: Any, num_generations: int, profiler: Any = None
    ) -> tuple[list[list[int]], list[list[int]], Any, Any]:
        """Answers `prompts` of this object, one answer each.

        Args:
            prompts: As TRL has tokenized them, for comparison.
            images: Must be None: what prompts show is part of them.
            num_generations: Not used: the answers to a prompt stand side by side.
            profiler: Times it.

        Returns:
            As TRL's: prompts, completions, log-probabilities of their tokens ``[rows][tokens][1]``, and the tokens.
        """
        with extra("vllm"):
            from vllm import SamplingParams
        assert images is None and len(self.prompts) == len(self.seeds) == len(prompts)
        options = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p or 0.0,
            "repetition_penalty": self.repetition_penalty,
            "max_tokens": self.max_completion_length,
            "logprobs": 0,
            "logit_bias": dict.fromkeys(self._never, -math.inf),
            "detokenize": False,
            **self.generation_kwargs,
        }
        with profiler or nullcontext():
            outputs = self.llm.generate(
                [self._backend.request(prompt) for prompt in self.prompts],
                [SamplingParams(**options, seed=seed) for seed in self.seeds],
                use_tqdm=False,
            )
        logprobs, tokens = extract_logprobs(outputs)
        return prompts, [list(each.outputs[0].token_ids) for each in outputs], logprobs, tokens


def _tie_head(model: torch.nn.Module) -> None:
    """Ties a head to its embedding again: on a CPU vLLM multiplies by a prepared copy, which does not follow it."""
    modules = dict(model.named_modules())
    heads = [name for name in modules if name.rpartition(".")[2] == "lm_head"]
    (embedding,) = (module for name, module in modules.items() if name.endswith("embed_tokens"))
    for name in heads:
        head: Any = modules[name]
        head.tie_weights(embedding)
        head.quant_method.process_weights_after_loading(head)
