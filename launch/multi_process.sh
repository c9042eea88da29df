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
asked=0 status=0
shift
ask() {
  asked=1
  ((!${#pids[@]})) || kill -TERM "${pids[@]}" 2> /dev/null || true
}
trap ask TERM INT
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
port=${PORT:-$("$python" -c 'import socket; s = socket.socket()
s.bind(("localhost", 0)); print(s.getsockname()[1])')}
if [[ ${JAX_PLATFORMS:-} != cpu ]] && command -v nvidia-smi > /dev/null; then
  gpus=$(nvidia-smi -L | grep -c '^GPU' || true)
fi
mkdir -p "$logs"
for ((i = 0; i < n && !asked; i++)); do
  ((gpus)) && export CUDA_VISIBLE_DEVICES=$((i % gpus))
  out=/dev/stdout err=/dev/stderr
  ((i)) && out=$logs/process_$i.log err=$out
  "$python" -m backtal_jax.main "$@" --coordinator_address="localhost:$port" \
    --num_processes="$n" --process_id="$i" >> "$out" 2>> "$err" &
  pids+=($!)
done
# Also the one that was just being started, if any was.
if ((asked)); then
  ask
  ((${#pids[@]})) || exit 75
fi
while ((${#pids[@]})); do
  wait -n || true # until one ends, or a signal comes
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2> /dev/null && continue
    code=0
    wait "${pids[i]}" || code=$?
    unset 'pids[i]'
    # Asked before Python listened.
    ((code != 143 || !asked)) || code=75
    status=$((status ? status : code))
    # Without one of them the others would wait for ever; what they have saved
    # is whole. 75: all were asked to end, and are about to.
    if ((code && code != 75 && ${#pids[@]})); then
      kill -KILL "${pids[@]}" 2> /dev/null || true
    fi
  done
done
((!status || n == 1)) || tail -n 3 "$logs"/process_*.log >&2
exit "$status"
