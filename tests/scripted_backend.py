"""An engine of a few lines."""

import torch

from marc.inference.thinking import GreedyOutput
from marc.model.tiny import build_config, build_processor


class Scripted:
    """Says how many tokens it was shown."""

    cannot: dict[str, str] = {}  # noqa: RUF012
    device = torch.device("cpu")
    dtype = torch.float32
    name = "scripted"

    def __init__(self):
        self.processor = build_processor()
        self.config, self.compression = build_config(self.processor.tokenizer), self.processor.compression

    def encode(self, inputs, clock=None):
        for each in inputs:
            each.features = torch.zeros(each.tokens, 1)

    def generate(self, prompts, options, clock=None, listeners=()):
        texts = [f"<answer>{sum(each.tokens for each in prompt.inputs)}</answer>" for prompt in prompts]
        return [self.processor.tokenizer(text)["input_ids"] for text in texts]

    def greedy(self, prompts, options, clock=None):
        return [GreedyOutput(tokens, [0.0] * len(tokens)) for tokens in self.generate(prompts, options)]

    def sample(self, prompts, options, samples):
        return [[output] * samples for output in self.generate(prompts, options)]

    def converse(self):
        return self

    def fingerprint(self):
        return "0"
