#!/usr/bin/env bash
# Run the equal-budget baselines and our methods on benchmarks, then put them side by side.
#
#   bash inference_script/eval_bench.sh                                  # micro-world, embedded model, nothing needed
#   MODEL=Qwen/Qwen2.5-VL-3B-Instruct DATA=Video-R1-eval BENCHMARKS="vsi mmvu mvbench" NGPU=8 \
#     bash inference_script/eval_bench.sh --batch-size 8
#
# Interrupted runs go on where they stopped. Samples that failed (exit code 1) keep nothing from being reported. Further arguments go to `marc eval` (see `marc eval --help`).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

MODEL=${MODEL:-tiny}
BENCHMARKS=${BENCHMARKS:-world}
METHODS=${METHODS:-full frames2 tiny uniform random marc-frames marc-events} # NAME+memory retrieves first
DATA=${DATA:-data}
OUTPUT=${OUTPUT:-runs/eval/$(basename "$MODEL")}
NGPU=${NGPU:-1}
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}

command=("$PYTHON")
if [ "$NGPU" -gt 1 ]; then command+=(-m torch.distributed.run --standalone --nproc-per-node "$NGPU"); fi
command+=(inference_script/eval_bench.py --model "$MODEL" --data "$DATA" --output "$OUTPUT")
for benchmark in $BENCHMARKS; do command+=(--benchmark "$benchmark"); done
for method in $METHODS; do command+=(--method "$method"); done

echo "${command[*]} $*"
status=0
"${command[@]}" "$@" || status=$?
if [ "$status" -gt 1 ] || [ ! -d "$OUTPUT" ]; then exit "$status"; fi # stopped, or nothing was run: --check, --list
"$PYTHON" -m marc.cli report "$OUTPUT" --markdown "$OUTPUT/report.md" --json "$OUTPUT/report.json"
exit "$status"
