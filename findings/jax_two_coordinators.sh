#!/usr/bin/env bash
# jax 0.10.2, Python 3.11, Linux.
#
# Guess:  a second run whose coordinator is started at a port that is taken fails with
#         "address already in use".
# Is:     both start (gRPC sets SO_REUSEPORT), and the kernel gives each further process
#         to one of the two by chance: processes of two runs can join each other. Slurm's
#         steps of one allocation all have the port that jax makes of the job's number.
# Seen:   started
#         started
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2
port=$((20000 + RANDOM % 10000))
for _ in 1 2; do
  JAX_PLATFORMS=cpu "$folder/venv/bin/python" -c "
import os, time
from jax._src.lib import _jax
_jax.get_distributed_runtime_service('[::]:$port', 2)
print('started', flush=True)
time.sleep(10)
os._exit(0)" >> "$folder/seen" 2> /dev/null &
done
wait
cat "$folder/seen"
[[ $(grep -c started "$folder/seen") == 2 ]]
