#!/usr/bin/env bash
# Trains the vision tower to merge early. Without anything it runs a micro-world recipe on the embedded model, also without a GPU.
#
#   bash training_script/run_tower_video.sh [--option value ...]
#
#   CONFIG     recipe (default: configs/tower_world.yaml)
#   NGPU, NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, DEEPSPEED, PYTHON   see launch.sh
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash "$here/launch.sh" tower.py "${CONFIG:-$here/../configs/tower_world.yaml}" "$@"
