#!/usr/bin/env bash
# Sets the project up in .venv (about 6.5 GB) and ends by asking the embedded model one question.
#
#   bash setup.sh                              can be run again at any time; then it takes seconds
#   PYTHON=python3.12 bash setup.sh            chooses the interpreter (3.10, 3.11 or 3.12)
#   FLASH_ATTN_TIME_LIMIT=2h bash setup.sh     how long compiling flash-attn may take, on a GPU without a ready-made wheel
#
# The versions are those of requirements.lock. uv installs them: unlike pip it is fast, and it cannot end up with a
# torch that torchvision was not built for. Nothing outside .venv and uv's cache is touched.
set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")"

readonly SUPPORTED='import sys; (3, 10) <= sys.version_info[:2] <= (3, 12) or sys.exit(1)'
readonly FLASH_ATTN_TIME_LIMIT=${FLASH_ATTN_TIME_LIMIT:-45m}
readonly FLASH_ATTN_LOG=.venv/flash-attn-failed.log
readonly UV_INSTALL=(.venv/bin/uv pip install --python .venv/bin/python)
readonly COMPLETE=.venv/.setup-complete # what was last installed, and where; there only while all of it is

say() { printf '\n==> [%3d s] %s\n' "$SECONDS" "$*"; }

find_python() {
  local candidates=(python3 python3.12 python3.11 python3.10 python) candidate
  [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    # The interpreter beneath, as the one found may be that of the .venv to be replaced, when it is activated.
    "$candidate" -c "import ensurepip, venv; $SUPPORTED; print(sys._base_executable)" 2>/dev/null && return
  done
  echo "setup.sh: none of '${candidates[*]}' is a Python 3.10, 3.11 or 3.12 with venv and ensurepip;" \
    "set PYTHON to one (on Debian and Ubuntu: apt-get install python3-venv)" >&2
  return 1
}

# An environment is kept if an earlier run finished it and its Python still finds its packages, which a system
# upgrade or a moved folder can break; one that was interrupted is made anew, mostly from uv's cache.
environment_is_whole() {
  [[ $(head -n 1 "$COMPLETE" 2>/dev/null) == "$PWD" ]] || return 1
  .venv/bin/python -c "import uv; $SUPPORTED" 2>/dev/null || return 1
  [[ -z ${PYTHON:-} || $(.venv/bin/python -V) == $("$PYTHON" -V) ]]
}

create_environment() {
  local python
  python=$(find_python)
  if [[ -e .venv || -L .venv ]]; then
    say "Making .venv anew: it is unfinished, broken, moved from elsewhere or of another Python"
    rm -rf .venv
  fi
  say "Creating .venv with $("$python" -V) ($python)"
  "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock uv
}

# uv reads neither the system's certificates nor pip's settings by itself; behind a company's proxy or mirror it must.
configure_uv() {
  export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300}
  [[ -z $(ls -A /etc/ssl/certs 2>/dev/null) ]] || export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}
  local index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-}}
  [[ -n $index ]] || index=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null) || return 0
  export UV_DEFAULT_INDEX=$index
}

locked_state() { pwd && cksum requirements.lock pyproject.toml; }

install_locked() {
  if [[ -e $COMPLETE && $(<"$COMPLETE") == "$(locked_state)" ]]; then
    say "The packages of requirements.lock are installed"
    return
  fi
  say "Installing the packages of requirements.lock"
  rm -f "$COMPLETE"
  "${UV_INSTALL[@]}" --compile-bytecode --requirement requirements.lock --build-constraint requirements.lock
  "${UV_INSTALL[@]}" --no-deps --no-build-isolation --editable .
  .venv/bin/python -m compileall -q marc
  locked_state >"$COMPLETE"
}

install_for_gpu() {
  local sdpa="attention is PyTorch's sdpa" capability cuda_home
  if ! nvidia-smi --list-gpus 2>/dev/null | grep -q '^GPU'; then
    say "No NVIDIA GPU here: skipped flash-attn and DeepSpeed's CUDA kernels ($sdpa)"
    return
  fi
  capability=$(.venv/bin/python -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())' 2>/dev/null) || {
    say "PyTorch cannot use this GPU, whose driver may be too old: skipped flash-attn and DeepSpeed's CUDA kernels ($sdpa)"
    return
  }
  cuda_home=$(.venv/bin/python -c 'from torch.utils.cpp_extension import CUDA_HOME; print(CUDA_HOME or "")' 2>/dev/null)
  if [[ -x $cuda_home/bin/nvcc ]]; then
    say "DeepSpeed will compile its CUDA kernels with $cuda_home/bin/nvcc when it first needs them"
  else
    cuda_home=
    say "No nvcc (CUDA_HOME says where it is): skipped DeepSpeed's CUDA kernels; use PyTorch's optimisers"
  fi
  if ((capability < 80)); then
    say "This GPU is older than compute capability 8.0: skipped flash-attn ($sdpa)"
  elif .venv/bin/python -c 'import flash_attn' 2>/dev/null; then
    say "flash-attn is installed"
  elif [[ -e $FLASH_ATTN_LOG ]]; then
    say "Skipped flash-attn, which could not be installed before; remove $FLASH_ATTN_LOG to try again ($sdpa)"
  elif say "Installing flash-attn, which may have to be compiled (at most $FLASH_ATTN_TIME_LIMIT; log: $FLASH_ATTN_LOG)" &&
    install_flash_attn "${capability%?}0" "$cuda_home" &>"$FLASH_ATTN_LOG"; then
    rm "$FLASH_ATTN_LOG"
    say "Installed flash-attn"
  else
    .venv/bin/uv pip uninstall --python .venv/bin/python flash-attn &>>"$FLASH_ATTN_LOG"
    say "Skipped flash-attn: no ready-made wheel, and $([[ $cuda_home ]] && echo compiling it failed or took too long || echo no nvcc); see $FLASH_ATTN_LOG ($sdpa)"
  fi
}

# The build fetches its authors' wheel for this torch, CUDA and Python, or else compiles for one architecture (8.6 runs
# what is compiled for 8.0). Told not to compile, as there is no nvcc, it builds an empty wheel: no cache may keep that.
install_flash_attn() {
  local architecture=$1 cuda_home=$2
  local install=("${UV_INSTALL[@]}" --no-build-isolation --constraint requirements.lock --requirement pyproject.toml --extra gpu)
  if [[ $cuda_home ]]; then
    CUDA_HOME=$cuda_home FLASH_ATTN_CUDA_ARCHS=$architecture timeout "$FLASH_ATTN_TIME_LIMIT" "${install[@]}"
  else
    FLASH_ATTENTION_SKIP_CUDA_BUILD=TRUE "${install[@]}" --no-cache
  fi && .venv/bin/python -c 'import flash_attn'
}

ask_the_embedded_model() {
  local video=outputs/sample.mp4
  mkdir -p outputs
  .venv/bin/marc world sample "$video"
  .venv/bin/marc ask "$video" "What happens in the plain scene?"
}

main() {
  environment_is_whole || create_environment
  configure_uv
  install_locked
  install_for_gpu
  say "Asking the embedded model about a generated video"
  ask_the_embedded_model
  say "Done. Next, the tests: .venv/bin/python -m pytest"
}

main "$@"
