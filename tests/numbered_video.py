"""Videos whose frames carry their number, made with PyAV."""

import struct

import numpy as np
import pytest
import videos

_BITS, _BLOCK = 10, 16
WIDTH, HEIGHT = _BITS * _BLOCK, 96
CODECS = {
  '.webm': 'libvpx', '.mp4': 'libx264', '.mkv': 'libx264', '.avi': 'mpeg4'
}  # fmt: skip

# In the browser: the number of the frame that a video element shows.
READ = f"""(video => {{
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [{WIDTH}, {HEIGHT}];
  const context = canvas.getContext('2d', {{willReadFrequently: true}});
  context.drawImage(video, 0, 0, {WIDTH}, {HEIGHT});
  let number = 0;
  for (let bit = 0; bit < {_BITS}; bit++) {{
    const x = {_BLOCK} * bit + {_BLOCK // 2};
    number += (context.getImageData(x, 8, 1, 1).data[0] > 128) << bit;
  }}
  return number;
}})"""


def frame(number) -> np.ndarray:
  """Return the picture [HEIGHT, WIDTH, 3]: blocks of bits on top."""
  picture = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
  for bit in range(_BITS):
    columns = slice(_BLOCK * bit, _BLOCK * (bit + 1))
    picture[:_BLOCK, columns] = 255 * (number >> bit & 1)
  return picture


def turn(path, a, b, c, d):
  """Let players show a pixel (x, y) of an mp4 at (a·x + c·y, b·x + d·y)."""
  content = bytearray(path.read_bytes())
  # ISO 14496-12: the matrix lies 40 bytes into the track's header.
  at = content.index(b'tkhd') + 4 + 40
  a, b, c, d = (round(65536 * x) for x in (a, b, c, d))
  matrix = struct.pack('>9i', a, b, 0, c, d, 0, 0, 0, 1 << 30)
  content[at : at + 36] = matrix
  path.write_bytes(content)


def make(path, num_frames=300, fps=25, *, numbers=None, coder=(), **muxer):
  """Write a video; the codec goes by the name's ending.

  Args:
    path: Of the file.
    num_frames: How many frames there are.
    fps: Frames a second.
    numbers: Those frames that are shown, each until the next one; default all.
    coder: Options of the encoder.
    muxer: Options of the container.
  """
  pytest.importorskip('av', reason='needs av, of the extra video')
  numbers = numbers or range(num_frames)
  codec = CODECS[path.suffix]
  options = {'b': '1000000'}
  if codec == 'libvpx':
    options |= {'deadline': 'realtime', 'cpu-used': '8', 'g': '25'}
  videos.write(
    path, map(frame, numbers), fps=fps, codec=codec,
    times=[1000 * number // fps for number in numbers], options=muxer,
    encoder=options | dict(coder),
  )  # fmt: skip
