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

# What is in the folder; a video without features costs mAP like a missed one.
"$python" - "$config" "$root" <<'END'
import importlib
import sys
from backtal_jax import errors, files
from backtal_jax.data import annotations, sources
name, root = sys.argv[1:]
data = importlib.import_module(f'configs.{name}').get_config().data
with errors.one_line():
  source = sources.NpzSource(f'{root}/{data.eval_split}',
                             num_snippets=0, feature_dim=0, num_classes=0)
  path = files.find(data.ground_truth, root)
  truth = annotations.read_ground_truth(path).subset(data.eval_split)
  videos = [v for v in truth if truth[v].segments]
  _, absent = annotations.match_names(videos, source.video_names())
print(f'{root}/{data.eval_split}: {len(source)} videos; of the {len(videos)} '
      f'annotated ones {len(absent)} have no features'
      + (f': {", ".join(absent[:5])} …' if absent else ''))
END

"$python" -m backtal_jax.main --config "$here/configs/$config.py" \
  --mode evaluate --checkpoint "$checkpoint" --workdir "$workdir" \
  --config.data.root="$root" "${@:4}"

"$python" - "$config" "$workdir" <<'END'
import importlib
import sys
from backtal_jax import evaluate, files
name, workdir = sys.argv[1:]
config = importlib.import_module(f'configs.{name}').get_config()
metrics = files.read_json(f'{workdir}/metrics.json')
table, worst = evaluate.compare(metrics, config.eval.published)
print(table)
if worst > 0.5:
  sys.exit(f'error: {worst:.2f} off a published mAP, expected 0.5 at most')
END
