#!/usr/bin/env bash
# mmaction2 1.2.0 (its metric alone, one file of NumPy), NumPy 2.2.6, Python 3.11.
#
# Guess:  a prediction whose tIoU with the truth is exactly the threshold is treated
#         alike at every threshold of the usual list 0.3 … 0.7.
# Is:     overlaps are kept as float32, thresholds (np.linspace, as by default) are
#         float64. 0.3, 0.4 and 0.6 round up and are found, 0.5 is exact and found, 0.7
#         rounds down and is missed; as Python floats in a list all are found.
#         Boundaries on a grid of frames or of 0.1 s make exact overlaps common.
# Seen:   by linspace: 0.3 1, 0.4 1, 0.5 1, 0.6 1, 0.7 0
#         by list: 0.3 1, 0.4 1, 0.5 1, 0.6 1, 0.7 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.2.6
"$folder/venv/bin/pip" download -q --no-deps -d "$folder" mmaction2==1.2.0
"$folder/venv/bin/python" - "$folder" <<'END'
import glob
import runpy
import sys
import zipfile

import numpy as np

wheel = zipfile.ZipFile(*glob.glob(f'{sys.argv[1]}/mmaction2-*.whl'))
metric = wheel.extract('mmaction/evaluation/functional/accuracy.py', sys.argv[1])
score = runpy.run_path(metric)['average_precision_at_temporal_iou']
seen = {}
for name, thresholds in (
  ('linspace', np.linspace(0.3, 0.7, 5)),
  ('list', [0.3, 0.4, 0.5, 0.6, 0.7]),
):
  found = []
  for end, threshold in zip((3.0, 4.0, 5.0, 6.0, 7.0), thresholds, strict=True):
    prediction = [['video', 0, 0.0, end, 0.9]]  # of a truth of ten seconds
    ap = score({'video': np.array([[0.0, 10.0]])}, prediction, [threshold])
    found.append(int(ap[0]))
  seen[name] = found
  print(f'by {name}:', ', '.join(f'0.{i} {ap}' for i, ap in enumerate(found, 3)))
assert seen == {'linspace': [1, 1, 1, 1, 0], 'list': [1, 1, 1, 1, 1]}
END
