#!/usr/bin/env bash
# transformers shows a streamer the prompt and nothing else where generate() runs a decoding loop of one's own.
#
# generate(custom_generate=function, streamer=streamer) calls streamer.put with the prompt. Before it calls the function,
# it sets the arguments aside that belong to the way of decoding, the streamer among them; for a function it then replaces
# them by those that only the function knows. Whoever takes a parameter "streamer", as transformers' own loop has one,
# gets None: no token is put, end() is never called, and a TextIteratorStreamer's reader waits for ever or until its
# timeout. Nothing is said. A streamer that is bound to the function beforehand, by functools.partial, arrives.
#
# Seen with transformers 4.57.6 and 5.23.0, torch 2.13.0, Python 3.11, CPU:
#   own loop, streamer=: 1 put, 0 ends; own loop, bound: 3 puts, 1 end; stock loop, streamer=: 4 puts, 1 end
#
# Needs uv; installs into folders of its own and removes them.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/streamer.py" <<'PYTHON'
from functools import partial

import torch
from transformers import LlamaConfig, LlamaForCausalLM


class Counter:
    def __init__(self):
        self.puts = self.ends = 0

    def put(self, value):
        self.puts += 1

    def end(self):
        self.ends += 1

    def __str__(self):
        return f"{self.puts} put{'s' * (self.puts != 1)}, {self.ends} end{'s' * (self.ends != 1)}"


def own_loop(model, input_ids, logits_processor, stopping_criteria, generation_config, streamer=None, **kwargs):
    for _ in range(3):
        token = model(input_ids).logits[:, -1:].argmax(-1)
        input_ids = torch.cat((input_ids, token), dim=1)
        if streamer is not None:
            streamer.put(token[0].cpu())
    if streamer is not None:
        streamer.end()
    return input_ids


torch.manual_seed(0)
sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=16, num_hidden_layers=1, pad_token_id=0, bos_token_id=None, eos_token_id=None, **sizes)
)
prompt = {"input_ids": torch.tensor([[1, 2, 3]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
passed, bound, stock = Counter(), Counter(), Counter()
model.generate(**prompt, max_new_tokens=3, custom_generate=own_loop, streamer=passed)
model.generate(**prompt, max_new_tokens=3, custom_generate=partial(own_loop, streamer=bound))
model.generate(**prompt, max_new_tokens=3, do_sample=False, streamer=stock)
print(f"own loop, streamer=: {passed}; own loop, bound: {bound}; stock loop, streamer=: {stock}")
PYTHON
for version in 4.57.6 5.23.0; do
  uv venv --quiet --python 3.11 "$folder/$version"
  uv pip install --quiet --python "$folder/$version/bin/python" "transformers==$version" torch==2.13.0
  (cd "$folder" && HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES='' "$version/bin/python" streamer.py) | tee "$folder/$version.txt"
done

fail() {
  echo "$1: this finding is out of date" >&2
  exit 1
}
for version in 4.57.6 5.23.0; do
  grep -q '^own loop, streamer=: 1 put, 0 ends;' "$folder/$version.txt" || fail "transformers $version hands the streamer on"
  grep -q 'own loop, bound: 3 puts, 1 end; stock loop, streamer=: 4 puts, 1 end$' "$folder/$version.txt" ||
    fail "transformers $version drives other streamers otherwise"
done
