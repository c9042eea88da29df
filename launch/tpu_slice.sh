#!/usr/bin/env bash
# Train on all workers of a Cloud TPU VM slice.
#
#   TPU=my-slice ZONE=us-central1-a launch/tpu_slice.sh \
#     --config configs/thumos14.py --workdir gs://bucket/runs/thumos14 \
#     --config.data.root=/mnt/data/THUMOS14 [main's arguments]
#
# Needs gcloud, and on each worker this repository at $FOLDER (default
# backtal_jax, from the home folder), installed with its extra `tpu`, and the
# data. jax finds the other workers from the slice's own metadata. The workdir
# is one that all workers see: a bucket or a network disk.
set -euo pipefail
if [[ -z ${TPU:-} || -z ${ZONE:-} || $# -eq 0 ]]; then
  echo "usage: TPU=NAME ZONE=ZONE $0 --config FILE [main's arguments]" >&2
  exit 2
fi
# %q: arguments arrive as they were given, through the remote shell.
command="cd ${FOLDER:-backtal_jax} && ${PYTHON:-python3} -m backtal_jax.main"
command+=$(printf ' %q' "$@")
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
  --command="$command"
