#!/usr/bin/env bash
# TRL's GRPO gives completions an advantage whose rewards are all equal.
#
# Where every completion of a group gets the same reward the advantage (R - mean R) / (std R + 1e-4) should be 0, and the
# group teach nothing. In float32 the mean of eight equal numbers is off by rounding, the standard deviation is rounding,
# too, and the 1e-4 in the denominator does not hide the quotient: with a constant reward of 1.6666667 each of eight
# completions has the advantage -0.001191, of the same sign for all, and the policy is trained on it. Rewards such as 1.0
# or 1.5, whose sums are exact, have 0.
#
# Seen with trl 1.16.0, transformers 5.23.0, torch 2.13.0, Python 3.11, CPU:
#   reward 1.5        largest |advantage| 0.0
#   reward 1.6666667  largest |advantage| 0.00119...
#
# Needs uv; installs into a folder of its own and removes it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv --quiet --python 3.11 "$folder/venv"
uv pip install --quiet --python "$folder/venv/bin/python" \
  trl==1.16.0 transformers==5.23.0 torch==2.13.0 datasets==5.2.0 accelerate==1.15.0 tokenizers==0.23.3
cd "$folder"
HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES='' "$folder/venv/bin/python" - <<'PYTHON'
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

words = {word: number for number, word in enumerate(["<pad>", "<eos>", "a", "b", "c", "d"])}
tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
config = Qwen2Config(
    vocab_size=6, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2
)


def largest_advantage(reward: float) -> float:
    trainer = GRPOTrainer(
        model=Qwen2ForCausalLM(config),
        reward_funcs=lambda completions, **columns: [reward] * len(completions),
        args=GRPOConfig(
            "run", per_device_train_batch_size=8, num_generations=8, max_completion_length=4, report_to="none",
            use_cpu=True, bf16=False,
        ),
        train_dataset=Dataset.from_list([{"prompt": "a b"}]),
        processing_class=tokenizer,
    )
    trainer.model.train()
    batch = trainer._generate_and_score_completions([{"prompt": "a b"}] * 8)
    return batch["advantages"].abs().max().item()


exact, rounded = largest_advantage(1.5), largest_advantage(1.6666667)
print(f"reward 1.5        largest |advantage| {exact}")
print(f"reward 1.6666667  largest |advantage| {rounded:.6f}")
assert exact == 0, "an exact sum has an advantage"
assert 1e-4 < rounded < 1e-2, "equal rewards have no advantage any more: this finding is out of date"
PYTHON
