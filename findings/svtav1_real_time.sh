#!/usr/bin/env bash
# PyAV 17.0.0 (FFmpeg 8 with SVT-AV1), numpy 2.2.6, Python 3.11, Linux; as root, or
# whoever may have real-time priority: elsewhere there is nothing to see.
#
# Guess:  encoding a video with libsvtav1 leaves the program as it was, as libx264 does.
# Is:     the thread that calls it has the highest real-time priority (SCHED_FIFO, 99)
#         from then on, when the encoder is long closed; so have the threads and the
#         programs that it starts, beside which others hardly get a processor. Another
#         thread that calls it keeps that to itself.
# Seen:   policy (0: as usual, 1: SCHED_FIFO) and priority of the caller
#         before            0 0
#         after libx264     0 0
#         after libsvtav1   1 99
#         a program started then   1 99
#         after libsvtav1, called in another thread   0 0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==17.0.0 numpy==2.2.6
"$folder/venv/bin/python" - "$folder" 2> /dev/null <<'END'
import os
import subprocess
import sys
import threading

import av
import numpy as np

try:  # may this user?
  os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
except PermissionError:
  sys.exit('needs the right to real-time priority')
os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
TELL = 'import os; print(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)'


def encode(codec):
  with av.open(f'{sys.argv[1]}/{codec}.mp4', 'w') as container:
    stream = container.add_stream(codec, rate=25)
    stream.width, stream.height, stream.pix_fmt = 128, 96, 'yuv420p'
    for _ in range(3):
      picture = np.zeros((96, 128, 3), np.uint8)
      frame = av.VideoFrame.from_ndarray(picture, 'rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def tell(what):
  found = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
  print(what, *found)
  return found


assert tell('before') == (0, 0)
encode('libx264')
assert tell('after libx264') == (0, 0)
thread = threading.Thread(target=encode, args=('libsvtav1',))
thread.start()
thread.join()
assert tell('after libsvtav1, called in another thread') == (0, 0)
encode('libsvtav1')
assert tell('after libsvtav1') == (os.SCHED_FIFO, 99)
started = subprocess.run([sys.executable, '-c', TELL], capture_output=True, text=True)
print('a program started then', started.stdout.strip())
assert started.stdout == '1 99\n'
END
