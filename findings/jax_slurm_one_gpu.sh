#!/usr/bin/env bash
# jax 0.10.2, Python 3.11.
#
# Guess:  jax.distributed.initialize() in a Slurm step of one task a node, which sees
#         the node's eight GPUs, uses the eight.
# Is:     whatever it detects (Slurm, Open MPI) it restricts a process to the GPU of its
#         number on the node, as if each GPU had a task: 2 nodes × 8 GPUs are 2 devices,
#         without a word. So do explicit address, number and id in such a step.
#         local_device_ids=[] leaves all. No GPU is needed to see the setting.
# Seen:   detected: 0
#         explicit: 0
#         local_device_ids=[]: all
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q jax==0.10.2 jaxlib==0.10.2
# As srun sets them for `srun --ntasks-per-node=1 --gpus-per-node=8`.
export SLURM_JOB_ID=7 SLURM_STEP_NODELIST=localhost SLURM_NTASKS=1 SLURM_PROCID=0
export SLURM_LOCALID=0 CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 JAX_PLATFORMS=cpu
try() { # NAME ARGUMENTS
  "$folder/venv/bin/python" -c "
import jax
from jax._src import xla_bridge
jax.distributed.initialize($2)
print('$1:', xla_bridge.CUDA_VISIBLE_DEVICES.value)" 2> /dev/null
}
{
  try detected ''
  try explicit "'localhost:$((20000 + RANDOM % 10000))', 1, 0"
  try 'local_device_ids=[]' 'local_device_ids=[]'
} | tee "$folder/seen"
diff - "$folder/seen" << 'END'
detected: 0
explicit: 0
local_device_ids=[]: all
END
