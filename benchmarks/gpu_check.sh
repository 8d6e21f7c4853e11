#!/usr/bin/env bash
# Build, test, sanitize and measure on a machine with a GPU, in under 9 minutes:
#
#   bash benchmarks/gpu_check.sh OUT [build] [test] [sanitize] [bench]
#
# No stage named: those in STAGES, or all. It uses the packages that are installed (PYTHON: python3)
# and no network. A stage that fails does not stop the later ones; the exit status is 1 if any failed.
# OUT gets summary.txt, build.log, test.log, junit.xml, sanitizer.log, bench.log and a JSON file
# of results per family.
# PIXELKERNELS_COMMIT names the commit where the tree came without its history.
set -u

if [ $# -lt 1 ]; then
  echo "usage: bash benchmarks/gpu_check.sh OUT [build] [test] [sanitize] [bench]" >&2
  exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd) || exit 2
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

python=${PYTHON:-python3}
seconds=520 # for all the stages together
summary=$out/summary.txt
failures=0
export PATH="$PATH:/usr/local/cuda/bin"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1
: >"$summary"

say() { echo "$*" | tee -a "$summary"; }

# What a stage may take of the time that is left, in proportion to the stages still to come.
weight() {
  case $1 in
    build) echo 3 ;;
    test) echo 4 ;;
    sanitize) echo 2 ;;
    bench) echo 4 ;;
    *) echo "gpu_check.sh: no stage $1; there are build, test, sanitize, bench" >&2 && return 1 ;;
  esac
}

if [ $# -gt 0 ]; then stages=("$@"); else read -ra stages <<<"${STAGES:-build test sanitize bench}"; fi
for stage in "${stages[@]}"; do weight "$stage" >/dev/null || exit 2; done

if ! capability=$("$python" -c '
import torch
assert torch.cuda.is_available(), "torch sees no GPU"
print("{}.{}".format(*torch.cuda.get_device_capability()))' 2>"$out/build.log"); then
  say "FAILED: no GPU to check on: $(tail -n 1 "$out/build.log")"
  exit 1
fi
say "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader), compute $capability"
say "$("$python" -c 'import torch, triton; print("torch", torch.__version__, "triton", triton.__version__)')"
say "commit $(git rev-parse HEAD 2>/dev/null || echo "${PIXELKERNELS_COMMIT:-unknown}")"

build() {
  TORCH_CUDA_ARCH_LIST=$capability PIXELKERNELS_CUDA=1 "$python" setup.py build_ext --inplace &&
    "$python" -m pixelkernels info
}

run_tests() {
  "$python" -m pytest tests --junitxml "$out/junit.xml" -q
}

sanitize() {
  local status=0 tool
  # half of the time for each tool
  for tool in memcheck racecheck; do
    echo "== $tool"
    # without torch's pool an access past a tensor leaves its allocation
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout "$(($1 / 2 - 2))" compute-sanitizer --tool "$tool" \
      --error-exitcode 9 "$python" benchmarks/sanitizer_case.py cuda || status=1
  done
  return "$status"
}

bench() {
  "$python" -m benchmarks.run --full --device cuda --minutes "$1" --out "$out"
}

# stage, log, limit in seconds, and the function with its arguments, for a shell that timeout can stop
stage() {
  local name=$1 log=$2 limit=$3 begin=$SECONDS status
  shift 3
  timeout --kill-after=5 "$limit" bash -uc "$*" >"$log" 2>&1
  status=$?
  if [ "$status" -eq 0 ]; then
    say "$name: ok, $((SECONDS - begin)) s"
  else
    failures=$((failures + 1))
    if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
      say "$name: FAILED, stopped after its $limit s"
    else
      say "$name: FAILED with status $status, $((SECONDS - begin)) s"
    fi
  fi
  grep -E '^(FAILED|ERROR)|^[0-9=].* (passed|failed|error)|ERROR SUMMARY|RACECHECK SUMMARY|not supported|not found|not timed|not measured' \
    "$log" | tail -n 30 | tee -a "$summary"
}

export out python capability
export -f build run_tests sanitize bench
for position in "${!stages[@]}"; do
  name=${stages[$position]}
  total=0
  for later in "${stages[@]:$position}"; do total=$((total + $(weight "$later"))); done
  limit=$(((seconds - SECONDS) * $(weight "$name") / total))
  case $name in
    build) stage "$name" "$out/build.log" "$limit" build ;;
    test) stage "$name" "$out/test.log" "$limit" run_tests ;;
    sanitize) stage "$name" "$out/sanitizer.log" "$limit" sanitize "$limit" ;;
    # the last workload that begins needs time to end
    bench) stage "$name" "$out/bench.log" "$limit" bench "$(awk "BEGIN { print ($limit - 30) / 60 }")" ;;
  esac
done
[ "$failures" -eq 0 ]
