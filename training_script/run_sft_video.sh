#!/usr/bin/env bash
# Supervised training on video. Without anything it runs a short micro-world recipe on the embedded model, also without a GPU.
#
#   bash training_script/run_sft_video.sh [--option value ...]
#
#   CONFIG     recipe (default: configs/sft_world.yaml)
#   NGPU, NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, DEEPSPEED, PYTHON   see launch.sh
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/launch.sh" sft_video.py "${CONFIG:-$here/../configs/sft_world.yaml}" "$@"
