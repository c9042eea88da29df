#!/usr/bin/env bash
# opencv-contrib-python-headless 4.12.0.88, 4.14.0.94 and 5.0.0.93, Python 3.11.
#
# Guess:  cv2.remap with INTER_LINEAR interpolates at the position it is given, in
#         every version; a major release leaves optical flow what it was.
# Is:     4.x rounds positions to 1/32 pixel (0.01 becomes 0, 0.1 becomes 3/32), 5.0
#         does not. DualTVL1OpticalFlow warps by remap, so its flow moves, too: a
#         quarter of the 8-bit values of a made pair differ between 4.14 and 5.0,
#         0.02 % between 4.12 and 4.14. Features of 5.0 are not those of 4.x.
# Seen:   4.12.0 remap at +0.01, +0.1: 0.00000 0.09375
#         4.14.0 remap at +0.01, +0.1: 0.00000 0.09375
#         5.0.0 remap at +0.01, +0.1: 0.01000 0.10000
#         8-bit flow values that differ: 4.12 to 4.14 0.0002, 4.14 to 5.0 0.2480
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/flow.py" <<'END'
import sys
import cv2
import numpy as np

ramp = np.tile(np.arange(64, dtype=np.float32), (8, 1))
x, y = np.meshgrid(np.arange(8, 56, dtype=np.float32), np.arange(8, dtype=np.float32))
seen = [
  float(np.mean(cv2.remap(ramp, x + np.float32(by), y, cv2.INTER_LINEAR) - x))
  for by in (0.01, 0.1)
]
print(cv2.__version__, 'remap at +0.01, +0.1:', *(f'{s:.5f}' for s in seen))
noise = np.random.default_rng(0).integers(0, 256, (96, 128)).astype(np.uint8)
first = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
flow = cv2.optflow.DualTVL1OpticalFlow_create().calc(first, np.roll(first, 2, 1), None)
np.savez(sys.argv[1], seen=seen, flow=np.round(np.clip(flow, -20, 20) * 255 / 40 + 127.5))
END
for version in 4.12.0.88 4.14.0.94 5.0.0.93; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install -q "opencv-contrib-python-headless==$version" 'numpy<2.3'
  "$folder/$version/bin/python" "$folder/flow.py" "$folder/$version.npz"
done
"$folder/5.0.0.93/bin/python" - "$folder" <<'END'
import sys
import numpy as np

a, b, c = (np.load(f'{sys.argv[1]}/{v}.npz') for v in ('4.12.0.88', '4.14.0.94', '5.0.0.93'))
small, large = ((x['flow'] != y['flow']).mean() for x, y in ((a, b), (b, c)))
print(f'8-bit flow values that differ: 4.12 to 4.14 {small:.4f}, 4.14 to 5.0 {large:.4f}')
assert np.allclose(b['seen'], [0, 3 / 32], atol=1e-6), 'OpenCV 4 rounds no more'
assert np.allclose(c['seen'], [0.01, 0.1], atol=1e-5), 'OpenCV 5 rounds, too'
assert small < 0.01 < 0.1 < large
END
