#!/usr/bin/env bash
# Evaluate an official checkpoint and compare with the published mAP.
#
#   launch/reproduce.sh THUMOS14 DATA_ROOT CHECKPOINT.pth [main's arguments]
#
# The set is THUMOS14, ActivityNet1.2 or HACS. DATA_ROOT holds the split folder
# (test or validation) with one .npz a video and the ground truth
# (data/README.md). Needs the extra torch. Results go to $WORKDIR, by default
# runs/reproduce/SET. Exit status 1 if an mAP is off by more than 0.5.
set -euo pipefail

if [[ $# -lt 3 ]]; then
  echo "usage: $0 THUMOS14|ActivityNet1.2|HACS DATA_ROOT CHECKPOINT.pth" >&2
  exit 2
fi
case "$1" in
  THUMOS14) config=thumos14 ;;
  ActivityNet1.2) config=activitynet12 ;;
  HACS) config=hacs ;;
  *)
    echo "error: $1: no such set, expected THUMOS14, ActivityNet1.2 or HACS" >&2
    exit 2
    ;;
esac
root=$2 checkpoint=$3 workdir=${WORKDIR:-runs/reproduce/$1}
python=${PYTHON:-python}
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}

"$python" -m backtal_jax.main --config "$here/configs/$config.py" \
  --mode evaluate --checkpoint "$checkpoint" --workdir "$workdir" \
  --config.data.root="$root" "${@:4}"

"$python" - "$workdir" <<'END'
import sys
from backtal_jax import errors, files
from backtal_jax.metrics import scores
with errors.one_line():
  workdir = files.path(sys.argv[1])
  metrics = files.read_json(workdir / 'metrics.json')
  config = files.read_json(workdir / 'config.json')
  worst = scores.largest_difference(metrics, config['eval']['published'])
  if worst > 0.5:
    raise errors.InputError(
      f'{worst:.2f} off a published mAP, expected 0.5 at most'
    )
END
