#!/usr/bin/env bash
# opencv-contrib-python-headless 4.12.0.88, Python 3.11.
#
# Guess:  a DualTVL1OpticalFlow object that is used for many images gives each pair the
#         flow that a new object would.
# Is:     a small image, which has room for fewer scales, lowers the object's number of
#         scales for good: larger images after it get other flow, without a word.
# Seen:   scales: 5 at first, 2 after an image of 24 × 24
#         mean change of the flow of a large pair: new object 0.0000, used one 0.0359
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q opencv-contrib-python-headless==4.12.0.88 'numpy<2.3'
"$folder/venv/bin/python" - <<'END'
import cv2
import numpy as np

noise = np.random.default_rng(0).integers(0, 256, (160, 200)).astype(np.uint8)
first = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)
second = np.roll(first, 6, 1)
used = cv2.optflow.DualTVL1OpticalFlow_create()
expected = used.calc(first, second, None)
before = used.getScalesNumber()
used.calc(first[:24, :24].copy(), second[:24, :24].copy(), None)
after = used.getScalesNumber()
print(f'scales: {before} at first, {after} after an image of 24 × 24')
new = cv2.optflow.DualTVL1OpticalFlow_create()
change = [
  np.abs(method.calc(first, second, None) - expected).mean() for method in (new, used)
]
print(
  'mean change of the flow of a large pair: '
  f'new object {change[0]:.4f}, used one {change[1]:.4f}'
)
assert (before, after) == (5, 2)
assert change[0] == 0 and change[1] > 0.01
END
