#!/usr/bin/env bash
# Starts a training script on one process or, with torchrun, on many: bash launch.sh SCRIPT CONFIG [--option value ...]
#
#   NGPU       processes on this machine, one for each GPU (default: 1)
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   as torchrun's (default: one machine, any free port)
#   DEEPSPEED  zero2, zero3 or zero3_offload: that file of configs/deepspeed
#   PYTHON     interpreter (default: the project's .venv, else python3)
set -euo pipefail

project="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
script="$1" config="$2"
shift 2
python="${PYTHON:-$project/.venv/bin/python}"
[[ -n "${PYTHON:-}" || -x "$python" ]] || python=python3
processes="${NGPU:-1}"
nodes="${NNODES:-1}"
((nodes == 1)) || : "${MASTER_ADDR:?set it to the address of the node with NODE_RANK=0}"

command=("$python")
if ((processes * nodes > 1)); then
  command+=(-m torch.distributed.run --nproc_per_node "$processes")
  if ((nodes == 1)) && [[ -z "${MASTER_PORT:-}" ]]; then
    command+=(--standalone)
  else
    command+=(--nnodes "$nodes" --node_rank "${NODE_RANK:-0}"
      --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${MASTER_PORT:-29500}")
  fi
fi
command+=("$project/training_script/$script" --config "$config")
[[ -z "${DEEPSPEED:-}" ]] || command+=(--deepspeed "$project/configs/deepspeed/$DEEPSPEED.json")
command+=("$@")

printf '%q ' "${command[@]}" >&2
printf '\n' >&2
PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}" exec "${command[@]}"
