#!/usr/bin/env bash
# Build, test, sanitize and measure on a machine with a GPU, in stages of at most LIMIT seconds (540):
#
#   bash tools/gpu_check.sh OUT [build] [test] [sanitize] [bench FAMILY]...
#
# Without a stage, all of them and all families. The script uses the installed packages (PYTHON:
# python3), as many processes as there are cores, and no network. A failed stage does not stop the
# others; the exit status is 1 if any failed. OUT gets summary.txt, a log per stage, failures.txt
# of the tests and the benchmark results, all of them as they come: a stage that is killed leaves
# what it has found. One stage leaves at most 8 files. PIXELKERNELS_COMMIT names the commit of a
# tree without its history.
set -u

families=(regions triplet similarity distance)
usage() {
  echo "usage: bash tools/gpu_check.sh OUT [build] [test] [sanitize] [bench FAMILY]..." >&2
  echo "families: ${families[*]}" >&2
  exit 2
}
[ $# -gt 0 ] || usage
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd) || exit 2
shift
[ $# -gt 0 ] || set -- build test sanitize $(printf 'bench %s ' "${families[@]}")
stages=()
while [ $# -gt 0 ]; do
  case $1 in
    build | test | sanitize) stages+=("$1") ;;
    bench)
      [ $# -gt 1 ] && [[ " ${families[*]} " == *" $2 "* ]] || usage
      stages+=("bench-$2")
      shift
      ;;
    *) usage ;;
  esac
  shift
done
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

python=${PYTHON:-python3}
limit=${LIMIT:-540}
summary=$out/summary.txt
export PATH="$PATH:/usr/local/cuda/bin" PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
say() { echo "$*" | tee -a "$summary"; }

# only the architecture of this GPU; ninja uses all cores
build() {
  TORCH_CUDA_ARCH_LIST=$capability PIXELKERNELS_CUDA=1 "$python" setup.py build_ext --inplace &&
    "$python" -m pixelkernels info && "$python" -m tools.gpu_smoke
}

# processes that each break on an error of their own, and share the cache of Triton's compilations
run_tests() {
  GPU_FAILURES=$out/failures.txt "$python" -m pytest -v -p tests.gpu -n "$workers" --dist worksteal \
    --max-worker-restart 1000 -m "not slow" --tb no \
    tests/promises tests/regions tests/triplet tests/similarity tests/distance
}

# All tools at a time, because each runs on one core; they share a log per backend. Without torch's
# caching allocator, an access past the end of a tensor leaves its allocation.
sanitize() {
  local tool backend job log status=0 jobs=()
  "$python" -m tools.compute_sanitizer triton >"$out/warm.log" 2>&1
  for backend in cuda triton; do
    for tool in memcheck racecheck initcheck synccheck; do
      {
        PYTORCH_NO_CUDA_MEMORY_CACHING=1 timeout --kill-after=5 $((limit - 60)) \
          compute-sanitizer --tool "$tool" --error-exitcode 9 \
          "$python" -m tools.compute_sanitizer "$backend" 2>&1 |
          sed -u "s/^/$tool: /" >>"$out/sanitize-$backend.log"
      } &
      jobs+=("$!:$tool:$backend")
    done
  done
  for job in "${jobs[@]}"; do
    IFS=: read -r job tool backend <<<"$job"
    log=$out/sanitize-$backend.log
    wait "$job" && echo "$tool, $backend: ok" && continue
    status=1
    echo "FAILED $tool, $backend, $(grep -c "^$tool: .* calls" "$log") samples done:" \
      "$(grep "^$tool: " "$log" | tail -n 1)"
  done
  return "$status"
}

# the library alone first: its own times are what a killed stage must not lose
bench() {
  "$python" -m benchmarks.run --full --alone --device cuda --family "$1" --out "$out/alone" &&
    "$python" -m benchmarks.run --full --device cuda --family "$1" --out "$out" \
      --minutes $((limit / 60 - 3))
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

workers=$(nproc)
[ "$workers" -gt 12 ] && workers=12
export out python capability limit workers
export -f build run_tests sanitize bench
failures=0
for stage in "${stages[@]}"; do
  case $stage in
    test) call=run_tests ;;
    bench-*) call="bench ${stage#bench-}" ;;
    *) call=$stage ;;
  esac
  begin=$SECONDS
  # SIGINT lets Python finish its report
  timeout --signal=INT --kill-after=10 "$limit" bash -u -o pipefail -c "$call" >"$out/$stage.log" 2>&1
  status=$?
  if [ "$status" -eq 0 ]; then
    say "$stage: ok, $((SECONDS - begin)) s"
  else
    failures=$((failures + 1))
    say "$stage: FAILED with status $status, $((SECONDS - begin)) of at most $limit s"
  fi
  grep -E 'FAILED|^ERROR|^=.* (passed|failed|error)|not supported|not timed|not measured' \
    "$out/$stage.log" | sort -u | tail -n 40 | tee -a "$summary"
done
[ "$failures" -eq 0 ]
