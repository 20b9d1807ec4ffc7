#!/usr/bin/env bash
# C-GRPO on video. Without anything it runs a short micro-world recipe on the embedded model, also without a GPU.
#
#   bash training_script/run_grpo_video.sh [--option value ...]
#
#   CONFIG     recipe (default: configs/grpo_world.yaml)
#   NGPU       processes on this machine (default: 1)
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   as torchrun's (default: one machine)
#   DEEPSPEED  zero2, zero3 or zero3_offload: that file of configs/deepspeed
#   PYTHON     interpreter (default: the project's .venv, else python3)
set -euo pipefail

project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-$project/.venv/bin/python}"
[[ -n "${PYTHON:-}" || -x "$python" ]] || python=python3
processes="${NGPU:-1}"
nodes="${NNODES:-1}"

command=("$python")
if ((processes * nodes > 1)); then
  command+=(-m torch.distributed.run --nproc_per_node "$processes" --nnodes "$nodes"
    --node_rank "${NODE_RANK:-0}" --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${MASTER_PORT:-29500}")
fi
command+=("$project/training_script/grpo.py" --config "${CONFIG:-$project/configs/grpo_world.yaml}")
[[ -z "${DEEPSPEED:-}" ]] || command+=(--deepspeed "$project/configs/deepspeed/$DEEPSPEED.json")
command+=("$@")

printf '%q ' "${command[@]}" >&2
printf '\n' >&2
PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}" exec "${command[@]}"
