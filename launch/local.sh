#!/usr/bin/env bash
# Train on all GPUs of this host (or its CPU): one process drives them all.
#
#   launch/local.sh --config configs/thumos14.py [main's arguments]
#
# CUDA_VISIBLE_DEVICES=0,1 restricts it; PYTHON is the interpreter. After
# exit status 75 (asked to end) the same command goes on.
set -euo pipefail
python=${PYTHON:-python}
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
# exec: signals reach the run itself, and its exit status is ours.
exec "$python" -m backtal_jax.main "$@"
