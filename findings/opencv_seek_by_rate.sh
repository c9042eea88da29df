#!/usr/bin/env bash
# OpenCV (opencv-python-headless) 4.12.0, videos made by PyAV 17.0.0, Python 3.11.
#
# Guess:  after set(CAP_PROP_POS_MSEC, 1000) read() gives the picture that is shown
#         at 1.0 s, or the key frame before it.
# Is:     it gives picture number 1000 ms × CAP_PROP_FPS. Where pictures are not
#         evenly spaced, as phones and screen recorders write them, that is another
#         one, and CAP_PROP_FPS is an average in mp4, the header's in Matroska: the
#         same pictures give two answers. CAP_PROP_POS_MSEC tells the true time of
#         what was read, so that whoever looks can see it.
# Seen:   shown at 1000 ms: picture 15, of 1000 ms
#         mp4               picture 13, of 920 ms
#         mkv               picture 25, of 1800 ms
#         shown at 3000 ms: picture 38, of 2960 ms
#         mp4               picture 40, of 3200 ms
#         mkv               nothing, though the last picture is of 3880 ms
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q opencv-python-headless==4.12.0.88 av==17.0.0
"$folder/venv/bin/python" - "$folder" <<'END'
import bisect
import fractions
import pathlib
import sys

import av
import cv2
import numpy as np

MS = fractions.Fraction(1, 1000)
times = np.cumsum([0] + [40 if i % 10 < 5 else 120 for i in range(49)]).tolist()


def make(path):
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width, stream.height, stream.pix_fmt = 128, 96, 'yuv420p'
    stream.codec_context.time_base = MS
    for i, time in enumerate(times):  # a bar that grows by two columns
      image = np.zeros((96, 128, 3), np.uint8)
      image[:, : 2 * i + 2] = 200
      frame = av.VideoFrame.from_ndarray(image, 'rgb24')
      frame.pts, frame.time_base = time, MS
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def seek(path, time):
  capture = cv2.VideoCapture(str(path))
  capture.set(cv2.CAP_PROP_POS_MSEC, time)
  is_read, image = capture.read()
  if not is_read:
    return None
  return int((image[48, :, 1] > 100).sum() / 2) - 1


folder, seen = pathlib.Path(sys.argv[1]), {}
for time in (1000, 3000):
  shown = bisect.bisect(times, time) - 1
  print(f'shown at {time} ms: picture {shown}, of {times[shown]} ms')
  for ending in ('mp4', 'mkv'):
    make(folder / f'a.{ending}')
    found = seen[time, ending] = seek(folder / f'a.{ending}', time)
    told = 'nothing' if found is None else f'picture {found}, of {times[found]} ms'
    print(f'{ending}               {told}')
assert seen[1000, 'mkv'] == 25 and seen[1000, 'mp4'] == 13
assert seen[3000, 'mkv'] is None and seen[3000, 'mp4'] == 40
END
