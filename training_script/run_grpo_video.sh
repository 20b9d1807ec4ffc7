#!/usr/bin/env bash
# C-GRPO on video. Without anything it runs a short micro-world recipe on the embedded model, also without a GPU.
#
#   bash training_script/run_grpo_video.sh [--option value ...]
#
#   CONFIG     recipe (default: configs/grpo_world.yaml; the paper's objective: configs/grpo_3b_full.yaml and its like)
#   NGPU, NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, DEEPSPEED, PYTHON   see launch.sh
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
config="${CONFIG:-$here/../configs/grpo_world.yaml}"
echo "recipe: $config" >&2
exec bash "$here/launch.sh" grpo.py "$config" "$@"
