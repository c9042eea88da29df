#!/usr/bin/env bash
# FFmpeg's filter `fps`: 7.0.2 (imageio-ffmpeg 0.6.0), 8.1.2 (PyAV 18.1.0), numpy 2.2.6, Python 3.11.
#
# Guess:  ffmpeg -vf fps=1, which rounds to nearest by default, gives the picture
#         that is nearest to each second.
# Is:     it rounds times of frames to the grid, and of those that meet keeps the
#         last: almost half a step late. With round=up it is what is shown then.
#         Features on a coarse grid, strips and thumbnails speak of later moments.
# Seen:   frames of a video of 25 a second that stand for 0, 1, 2, 3, 4 s:
#         ffmpeg 7.0.2   fps=1: 12, 37, 62, 87, 112  fps=1:round=up: 0, 25, 50, 75, 100
#         PyAV, 8.1.2    fps=1: 12, 37, 62, 87, 112  fps=1:round=up: 0, 25, 50, 75, 100
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 imageio-ffmpeg==0.6.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'END'
import fractions
import subprocess

import av
import imageio_ffmpeg
import numpy as np

# The gray value of a picture is its number.
pictures = [np.full((16, 16), i, np.uint8) for i in range(125)]


def command_line(rule):
  done = subprocess.run(
    [imageio_ffmpeg.get_ffmpeg_exe(), '-v', 'error', '-f', 'rawvideo', '-pix_fmt', 'gray', '-s', '16x16', '-r', '25',
     '-i', '-', '-vf', rule, '-f', 'rawvideo', '-pix_fmt', 'gray', '-'],
    input=b''.join(p.tobytes() for p in pictures), capture_output=True, check=True,
  )
  return np.frombuffer(done.stdout, np.uint8)[::256].tolist()


def library(rule):
  graph = av.filter.Graph()
  unit = fractions.Fraction(1, 25)
  source = graph.add_buffer(width=16, height=16, format='gray', time_base=unit)
  nodes = [source, graph.add('fps', rule.removeprefix('fps=')), graph.add('buffersink')]
  graph.link_nodes(*nodes).configure()
  found = []
  for i, picture in enumerate([*pictures, None]):
    frame = None
    if picture is not None:
      frame = av.VideoFrame.from_ndarray(picture, 'gray')
      frame.pts, frame.time_base = i, unit
    graph.vpush(frame)
    while True:
      try:
        found.append(int(graph.vpull().to_ndarray()[0, 0]))
      except (av.error.BlockingIOError, av.error.EOFError):
        break
  return found


print('frames of a video of 25 a second that stand for 0, 1, 2, 3, 4 s:')
for name, run in (('ffmpeg 7.0.2', command_line), ('PyAV, 8.1.2', library)):
  near, up = run('fps=1')[:5], run('fps=1:round=up')[:5]
  text = lambda x: ', '.join(map(str, x))
  print(f'{name:14s} fps=1: {text(near)}  fps=1:round=up: {text(up)}')
  assert near == [12, 37, 62, 87, 112], 'near is near'
  assert up == [0, 25, 50, 75, 100]
END
