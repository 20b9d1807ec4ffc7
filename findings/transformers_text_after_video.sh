#!/usr/bin/env bash
# transformers 5 has the text behind a video begin inside the video's times.
#
# Qwen2-VL and Qwen2.5-VL were trained with the text behind a video one after the video's largest position on any axis;
# transformers 4 numbers it so. transformers 5 goes on after the larger of the grid's height and width and leaves the
# times out: of a video of 64 frames, 2 a second, in a grid of 4 x 8 behind three tokens of text, the times are positions
# 3 to 65 and the question stands at 11, as if it were asked in the fifth second. rope_deltas still counts generated tokens
# from the largest position, so that they would go on at 66. Qwen3-VL, whose times are text, is numbered alike by both.
#
# Seen with transformers 4.57.6 and 5.23.0, torch 2.13.0, Python 3.11, CPU:
#   4.57.6  Qwen2.5-VL: video 3 to 65, question 66 to 69, by rope_deltas the next token at 70
#   4.57.6  Qwen3-VL: video 3 to 351, question 353 to 356, by rope_deltas the next token at 357
#   5.23.0  Qwen2.5-VL: video 3 to 65, question 11 to 14, by rope_deltas the next token at 66
#   5.23.0  Qwen3-VL: video 3 to 351, question 353 to 356, by rope_deltas the next token at 357
#
# Needs uv; installs into folders of its own and removes them.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/positions.py" <<'PYTHON'
import torch
import transformers
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen3VLConfig, Qwen3VLModel

GRIDS, HEIGHT, WIDTH = 32, 4, 8
TEXT, START, END, IMAGE, VIDEO = range(5)
FRAME = [VIDEO] * (HEIGHT * WIDTH)


def build(model, config, **vision):
    width = {"hidden_size": 16, "intermediate_size": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
    rope = {"rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]}}
    ends = {"bos_token_id": None, "eos_token_id": None}
    return model(
        config(
            text_config={"vocab_size": 8, "num_hidden_layers": 1, **width, **heads, **rope, **ends},
            vision_config={"depth": 1, "num_heads": 2, "out_hidden_size": 16, **width, **vision},
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            vision_start_token_id=START,
            vision_end_token_id=END,
        )
    )


def show(name, model, ids, **more):
    ids = torch.tensor([ids])
    if transformers.__version__ >= "5":
        more["mm_token_type_ids"] = 2 * (ids == VIDEO).int()
    grid = torch.tensor([[GRIDS, 2 * HEIGHT, 2 * WIDTH]])  # in patches, 2 x 2 a token
    positions, offset = model.get_rope_index(ids, video_grid_thw=grid, **more)
    video = positions[:, ids == VIDEO]
    first, last = positions[0, 0, [-4, -1]].tolist()
    print(
        f"{name}: video {int(video.min())} to {int(video.max())}, question {first} to {last}, "
        f"by rope_deltas the next token at {ids.shape[1] + int(offset)}"
    )


show(
    "Qwen2.5-VL",
    build(Qwen2_5_VLModel, Qwen2_5_VLConfig, tokens_per_second=2, fullatt_block_indexes=[0]),
    [TEXT, TEXT, START, *FRAME * GRIDS, END, TEXT, TEXT, TEXT],
    second_per_grid_ts=torch.tensor([1.0]),
)
show(
    "Qwen3-VL",
    build(Qwen3VLModel, Qwen3VLConfig, deepstack_visual_indexes=[0], num_position_embeddings=16),
    [TEXT, *[TEXT, START, *FRAME, END] * GRIDS, TEXT, TEXT, TEXT, TEXT],
)
PYTHON
for version in 4.57.6 5.23.0; do
  echo "transformers $version"
  uv venv --quiet --python 3.11 "$folder/$version"
  uv pip install --quiet --python "$folder/$version/bin/python" "transformers==$version" torch==2.13.0
  (cd "$folder" && HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES='' "$version/bin/python" positions.py) | tee "$folder/$version.txt"
done

fail() {
  echo "$1: this finding is out of date" >&2
  exit 1
}
grep -qx 'Qwen2.5-VL: video 3 to 65, question 66 to 69, by rope_deltas the next token at 70' "$folder/4.57.6.txt" ||
  fail 'transformers 4.57.6 does not go on after the largest position'
grep -qx 'Qwen2.5-VL: video 3 to 65, question 11 to 14, by rope_deltas the next token at 66' "$folder/5.23.0.txt" ||
  fail 'transformers 5.23.0 does not go on after the larger side of the grid'
cmp <(grep Qwen3-VL "$folder/4.57.6.txt") <(grep Qwen3-VL "$folder/5.23.0.txt") ||
  fail 'the two number Qwen3-VL differently'
