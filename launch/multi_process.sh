#!/usr/bin/env bash
# Train with N processes on this host: one GPU each, or all on the CPU.
#
#   launch/multi_process.sh N [main's arguments]
#
# Process 0 is on the screen, process I in $LOG_DIR/process_I.log. Returns the
# first exit status that is not 0. PYTHON is the interpreter, PORT the
# coordinator's (default: a free one); JAX_PLATFORMS=cpu leaves GPUs alone.
set -euo pipefail
if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: $0 N [main's arguments]" >&2
  exit 2
fi
n=$1 python=${PYTHON:-python} logs=${LOG_DIR:-$(mktemp -d)} gpus=0 pids=()
shift
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
port=${PORT:-$("$python" -c 'import socket; s = socket.socket()
s.bind(("localhost", 0)); print(s.getsockname()[1])')}
if [[ ${JAX_PLATFORMS:-} != cpu ]] && command -v nvidia-smi > /dev/null; then
  gpus=$(nvidia-smi -L | grep -c '^GPU' || true)
fi
mkdir -p "$logs"
trap 'asked=1; kill -TERM "${pids[@]}" 2> /dev/null || true' TERM INT
for ((i = 0; i < n; i++)); do
  ((gpus)) && export CUDA_VISIBLE_DEVICES=$((i % gpus))
  out=/dev/stdout err=/dev/stderr
  ((i)) && out=$logs/process_$i.log err=$out
  "$python" -m backtal_jax.main "$@" --coordinator_address="localhost:$port" \
    --num_processes="$n" --process_id="$i" >> "$out" 2>> "$err" &
  pids+=($!)
done
for ((status = 0, left = n; left; )); do
  asked=0 code=0
  wait -n || code=$?
  ((asked)) && continue # the wait was cut short by a signal
  left=$((left - 1)) status=$((status ? status : code))
  # Without one of them the others would wait for ever; what they have saved
  # is whole. 75: all were asked to end, and are about to.
  if ((code && code != 75)); then
    kill -KILL "${pids[@]}" 2> /dev/null || true
  fi
done
((!status || n == 1)) || tail -n 3 "$logs"/process_*.log >&2
exit "$status"
