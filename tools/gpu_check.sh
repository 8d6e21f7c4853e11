#!/usr/bin/env bash
# Build, test, sanitize and measure on a machine with a GPU:
#
#   bash tools/gpu_check.sh OUT [build] [smoke] [test] [memcheck] [racecheck] [bench]
#
# Without a stage, all of them run. Each may take LIMIT seconds (540). The script uses the installed
# packages (PYTHON: python3) and no network. A failed stage does not stop the others; the exit status
# is 1 if any failed. OUT gets summary.txt, a log per stage, junit.xml and the benchmark results.
# PIXELKERNELS_COMMIT names the commit of a tree without its history.
set -u

stages=(build smoke test memcheck racecheck bench)
if [ $# -lt 1 ]; then
  echo "usage: bash tools/gpu_check.sh OUT [${stages[*]}]" >&2
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd) || exit 2
shift
for name in "$@"; do
  if [[ " ${stages[*]} " != *" $name "* ]]; then
    echo "gpu_check.sh: no stage $name; there are ${stages[*]}" >&2
    exit 2
  fi
done
[ $# -gt 0 ] && stages=("$@")
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

python=${PYTHON:-python3}
limit=${LIMIT:-540}
summary=$out/summary.txt
export PATH="$PATH:/usr/local/cuda/bin" PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
: >"$summary"

say() { echo "$*" | tee -a "$summary"; }

build() {
  TORCH_CUDA_ARCH_LIST=$capability PIXELKERNELS_CUDA=1 "$python" setup.py build_ext --inplace
}

smoke() {
  "$python" -m pixelkernels info &&
    "$python" -m tools.compute_sanitizer cuda && "$python" -m tools.compute_sanitizer triton
}

run_tests() {
  "$python" -m pytest tests -n 12 -m "not slow" -k "cuda or triton" --junitxml "$out/junit.xml" -q
}

sanitize() {
  local backend status=0
  for backend in cuda triton; do
    echo "== $1, $backend"
    # without torch's caching allocator, an access past the end of a tensor leaves its allocation
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 9 \
      "$python" -m tools.compute_sanitizer "$backend" || status=1
  done
  return "$status"
}

bench() {
  # the last workload needs time to finish
  "$python" -m benchmarks.run --full --device cuda --minutes $((limit / 60 - 1)) --out "$out"
}

if ! capability=$("$python" -c '
import torch
assert torch.cuda.is_available(), "torch sees no GPU"
print("{}.{}".format(*torch.cuda.get_device_capability()))' 2>"$out/device.log"); then
  say "FAILED: no GPU to check on: $(tail -n 1 "$out/device.log")"
  exit 1
fi
say "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader), compute $capability"
say "$("$python" -c 'import torch, triton; print("torch", torch.__version__, "triton", triton.__version__)')"
say "commit $(git rev-parse HEAD 2>/dev/null || echo "${PIXELKERNELS_COMMIT:-unknown}")"

export out python capability limit
export -f build smoke run_tests sanitize bench
failures=0
for name in "${stages[@]}"; do
  case $name in
    test) call=run_tests ;;
    memcheck | racecheck) call="sanitize $name" ;;
    *) call=$name ;;
  esac
  begin=$SECONDS
  timeout --kill-after=5 "$limit" bash -uc "$call" >"$out/$name.log" 2>&1
  status=$?
  if [ "$status" -eq 0 ]; then
    say "$name: ok, $((SECONDS - begin)) s"
  else
    failures=$((failures + 1))
    say "$name: FAILED with status $status, $((SECONDS - begin)) of at most $limit s"
  fi
  grep -E '^(FAILED|ERROR)|^[0-9=].* (passed|failed|error)|ERROR SUMMARY|RACECHECK SUMMARY|not supported|not found|not timed|not measured' \
    "$out/$name.log" | tail -n 30 | tee -a "$summary"
done
[ "$failures" -eq 0 ]
