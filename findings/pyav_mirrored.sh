#!/usr/bin/env bash
# PyAV (av) 18.1.0 with FFmpeg 8.1.2, numpy 2.2.6, Python 3.11.
#
# Guess:  frame.rotation says how a player turns a video: turned by it, frames look
#         as in the player.
# Is:     the display matrix of mp4 and mov may mirror, too, as front cameras write
#         it, and rotation is an angle: a mirrored video counts as turned around
#         (it comes out upside down), one that is upside down as plain, transposed
#         ones as turned. The matrix itself is in frame.side_data, DISPLAYMATRIX.
# Seen:   plain            rotation    0
#         mirrored         rotation -180
#         turned around    rotation -180
#         upside down      rotation    0
#         turned           rotation  -90
#         transposed       rotation  -90
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 numpy==2.2.6
"$folder/venv/bin/python" - "$folder" <<'END'
import pathlib
import struct
import sys

import av
import numpy as np

path = pathlib.Path(sys.argv[1]) / 'a.mp4'
with av.open(str(path), 'w') as container:
  stream = container.add_stream('libx264', rate=25)
  stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
  frame = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), 'rgb24')
  container.mux(stream.encode(frame))
  container.mux(stream.encode())
content = bytearray(path.read_bytes())
at = content.index(b'tkhd') + 44  # ISO 14496-12: a b 0, c d 0, x y 1
# A stored pixel (x, y) is shown at (a·x + c·y, b·x + d·y).
matrices = {
  'plain': (1, 0, 0, 1), 'mirrored': (-1, 0, 0, 1),
  'turned around': (-1, 0, 0, -1), 'upside down': (1, 0, 0, -1),
  'turned': (0, 1, -1, 0), 'transposed': (0, 1, 1, 0),
}
seen = {}
for name, (a, b, c, d) in matrices.items():
  a, b, c, d = (x << 16 for x in (a, b, c, d))
  content[at : at + 36] = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
  path.write_bytes(content)
  with av.open(str(path)) as container:
    seen[name] = next(container.decode(video=0)).rotation
  print(f'{name:16s} rotation {seen[name]:4d}')
assert seen['mirrored'] == seen['turned around'] != seen['plain']
assert seen['upside down'] == seen['plain'] == 0
assert seen['transposed'] == seen['turned'] != 0
END
