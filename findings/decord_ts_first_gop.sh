#!/usr/bin/env bash
# decord 0.6.0, video made by PyAV 17.0.0 (FFmpeg 8), numpy 2.2.6, Python 3.11.
#
# Guess:  VideoReader gives frame i of an MPEG-TS file as it does of an mp4: the same
#         stream, in another container.
# Is:     where the stream has B-frames, all frames before the second key frame are
#         missing; len() still counts them, and the last frame stands in for as many
#         at the end. Nothing is said. Without B-frames, and in mp4, all are there.
# Seen:   mp4, B-frames   0 1 2 … 47 48 49
#         ts              0 1 2 … 47 48 49
#         ts, B-frames    12 13 14 … 49 49 49
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q decord==0.6.0 av==17.0.0 numpy==2.2.6
"$folder/venv/bin/python" - "$folder" 2> /dev/null <<'END'
import pathlib
import sys

import av
import decord
import numpy as np


def make(path, b_frames):
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width, stream.height, stream.pix_fmt = 128, 96, 'yuv420p'
    stream.options = {'g': '12', 'bf': str(b_frames)}
    for i in range(50):  # a bar that grows by two columns a frame
      image = np.zeros((96, 128, 3), np.uint8)
      image[:, : 2 * i + 2] = 200
      frame = av.VideoFrame.from_ndarray(image, 'rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def read(path):
  reader = decord.VideoReader(str(path))
  rows = [reader[i].asnumpy()[48, :, 1] for i in range(len(reader))]
  return [int((row > 100).sum() / 2) - 1 for row in rows]


folder, seen = pathlib.Path(sys.argv[1]), {}
for name, ending, b_frames in (
  ('mp4, B-frames', 'mp4', 2), ('ts', 'ts', 0), ('ts, B-frames', 'ts', 2)
):
  make(folder / f'{b_frames}.{ending}', b_frames)
  seen[name] = read(folder / f'{b_frames}.{ending}')
  first, last = (' '.join(map(str, x)) for x in (seen[name][:3], seen[name][-3:]))
  print(f'{name:15s} {first} … {last}')
assert seen['mp4, B-frames'] == seen['ts'] == list(range(50))
assert seen['ts, B-frames'] == [min(i, 49) for i in range(12, 62)]
END
