#!/usr/bin/env bash
# transformers 5's Qwen3-VL processor puts a video's frames between an outer pair of marks that transformers 4 does not write.
#
# The chat template writes <|vision_start|><|video_pad|><|vision_end|> for a video. The processor makes of it, for every
# frame, its time and <|vision_start|>, placeholders, <|vision_end|>. transformers 4 replaces the whole triple by that;
# transformers 5 replaces <|video_pad|> alone, so that the pair of the template stays around all frames: the model gets
# two more tokens for every video than the same call gave before.
#
# Seen with transformers 4.57.6 and 5.23.0, torch 2.13.0, torchvision 0.28.0, Python 3.11, CPU (4 placeholders a frame,
# written here as one):
#   4.57.6  hi <0.5 seconds><|vision_start|>...<|vision_end|><2.5 seconds><|vision_start|>...<|vision_end|>yo
#   5.23.0  hi <|vision_start|><0.5 seconds><|vision_start|>...<|vision_end|><2.5 seconds><|vision_start|>...<|vision_end|><|vision_end|>yo
#
# Needs uv; installs into folders of its own and removes them.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/text.py" <<'PYTHON'
import json
import re
from pathlib import Path

import numpy as np
from tokenizers import pre_tokenizers
from transformers import Qwen2TokenizerFast, Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor
from transformers.video_utils import VideoMetadata

folder = Path("tokenizer")
folder.mkdir(exist_ok=True)
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
(folder / "vocab.json").write_text(json.dumps({byte: number for number, byte in enumerate(alphabet)}))
(folder / "merges.txt").write_text("#version: 0.2\n")
(folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
tokenizer = Qwen2TokenizerFast.from_pretrained(folder)
marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
tokenizer.add_special_tokens({"additional_special_tokens": marks})
processor = Qwen3VLProcessor(
    Qwen2VLImageProcessor(patch_size=16),
    tokenizer,
    Qwen3VLVideoProcessor(size={"shortest_edge": 256, "longest_edge": 2**20}),
)
inputs = processor(
    text=["hi <|vision_start|><|video_pad|><|vision_end|>yo"],
    videos=[np.zeros((4, 64, 64, 3), np.uint8)],
    video_metadata=[VideoMetadata(total_num_frames=40, fps=10.0, frames_indices=[0, 10, 20, 30])],
    do_sample_frames=False,
)
print(re.sub(r"(<\|video_pad\|>)+", "...", tokenizer.decode(inputs["input_ids"][0])))
PYTHON
for version in 4.57.6 5.23.0; do
  echo "transformers $version"
  uv venv --quiet --python 3.11 "$folder/$version"
  uv pip install --quiet --python "$folder/$version/bin/python" \
    "transformers==$version" torch==2.13.0 torchvision==0.28.0 pillow==12.3.0
  (cd "$folder" && HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES='' "$version/bin/python" text.py) | tee "$folder/$version.txt"
done

frames='<0.5 seconds><|vision_start|>...<|vision_end|><2.5 seconds><|vision_start|>...<|vision_end|>'
fail() {
  echo "$1: this finding is out of date" >&2
  exit 1
}
grep -Fqx "hi ${frames}yo" "$folder/4.57.6.txt" || fail 'transformers 4.57.6 does not replace the marks'
grep -Fqx "hi <|vision_start|>${frames}<|vision_end|>yo" "$folder/5.23.0.txt" || fail 'transformers 5.23.0 does not nest the marks'
