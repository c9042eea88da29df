#!/usr/bin/env bash
# jax 0.10.2, Python 3.11.
#
# Guess:  multihost_utils.reached_preemption_sync_point(step) tells every process of a
#         run that it was asked to end (SIGTERM), whatever the steps are counted from.
# Is:     the processes stop at "the largest step called so far, plus one", by ==. Asked
#         before the first call that is step 1: a run that was resumed at step 100 is
#         never told, nor by a second SIGTERM. Counting calls from the start of the
#         process works.
# Seen:   steps from 1: told at 1
#         steps from 101: never told
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2
cat > "$folder/run.py" << 'END'
import os
import signal
import sys
import time

import jax
from jax.experimental import multihost_utils

port, first, index = map(int, sys.argv[1:])
jax.distributed.initialize(f'localhost:{port}', 2, index)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(5)  # restoring, compiling
told = [
  step
  for step in range(first, first + 20)
  if multihost_utils.reached_preemption_sync_point(step)
]
if index == 0:
  print(f'steps from {first}:', f'told at {told[0]}' if told else 'never told')
END
export JAX_PLATFORMS=cpu
for first in 1 101; do
  port=$((20000 + RANDOM % 10000))
  for index in 1 0; do
    "$folder/venv/bin/python" "$folder/run.py" $port $first $index 2> /dev/null &
  done
  wait
done | tee "$folder/seen"
diff - "$folder/seen" << 'END'
steps from 1: told at 1
steps from 101: never told
END
