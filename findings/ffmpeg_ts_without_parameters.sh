#!/usr/bin/env bash
# PyAV (av) 18.1.0 with FFmpeg 8.1.2, numpy 2.2.6, Python 3.11; ffmpeg 7.0.2 does the same
# (`ffmpeg -ss 2.2 -i open.mp4 -c copy cut.ts`).
#
# Guess:  a valid H.264 mp4 that is cut at a key frame and copied into another
#         container, without encoding, can be decoded there.
# Is:     into mp4 and mkv, yes. MPEG-TS has no place for H.264's parameter sets but
#         the stream, and FFmpeg puts them before IDR pictures only: where the GOPs
#         are open, as of broadcasts, cameras and x264's open-gop, the key frames are
#         none, and no picture of the cut can be decoded. Nothing is said.
# Seen:   cut.mp4: 50 pictures
#         cut.mkv: 50 pictures
#         cut.ts: InvalidDataError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q av==18.1.0 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'END'
import av
import numpy as np

ramp = np.tile(np.arange(0, 240, 5, dtype=np.uint8)[None, :, None], (64, 2, 3))
with av.open('open.mp4', 'w') as container:
  stream = container.add_stream('libx264', rate=25)
  stream.width, stream.height, stream.pix_fmt = 96, 64, 'yuv420p'
  stream.options = {'x264-params': 'open-gop=1:keyint=25:bframes=3:scenecut=0'}
  for i in range(100):
    picture = np.roll(ramp, 3 * i, 1)
    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, 'rgb24')))
  container.mux(stream.encode())

seen = {}
for name in ('cut.mp4', 'cut.mkv', 'cut.ts'):
  with av.open('open.mp4') as old, av.open(name, 'w') as new:
    stream = old.streams.video[0]
    copy = new.add_stream_from_template(stream)
    old.seek(round(2.2 / stream.time_base), stream=stream)
    for packet in old.demux(stream):
      if packet.dts is not None:
        packet.stream = copy
        new.mux(packet)
  try:
    with av.open(name) as container:
      seen[name] = sum(1 for _ in container.decode(video=0))
    print(f'{name}: {seen[name]} pictures')
  except av.error.InvalidDataError as e:
    seen[name] = 0
    print(f'{name}: {type(e).__name__}')
assert seen['cut.mp4'] and seen['cut.mkv'] and not seen['cut.ts']
END
