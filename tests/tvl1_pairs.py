"""Pairs of images for TV-L1, and the golden file of OpenCV's flow between them.

python tests/tvl1_pairs.py   # with opencv-contrib-python-headless 4.12.0.88
                             # and PyAV: writes tests/golden/tvl1.npz
"""

import pathlib

import numpy as np

TESTS = pathlib.Path(__file__).parent
VIDEOS = TESTS.parents[1] / 'shared' / 'data' / 'video'
GOLDEN = TESTS / 'golden' / 'tvl1.npz'
SIZE = 64, 80  # Y, X
MOTIONS = (0.3, -0.2), (2.5, 1.0), (-1.25, 3.5), (6.0, -2.0)  # pixels x, y
_FRAMES = 20, 80, 140, 200


def made():
  """Return [(before, after)] uint8, each moved by one of MOTIONS."""
  rng = np.random.default_rng(0)
  waves = rng.normal(0, 0.25, size=(40, 2))
  phases, heights = rng.uniform(0, 2 * np.pi, 40), rng.uniform(0, 12, 40)
  y, x = np.mgrid[: SIZE[0], : SIZE[1]]

  def picture(dx, dy):
    angle = np.multiply.outer(waves[:, 0], x - dx)
    angle += np.multiply.outer(waves[:, 1], y - dy)
    value = np.tensordot(heights, np.sin(angle + phases[:, None, None]), 1)
    return np.clip(np.round(value + 128), 0, 255).astype(np.uint8)

  return [(picture(0, 0), picture(*motion)) for motion in MOTIONS]


def real():
  """Return [(before, after)] uint8: the middle of frames, brightness alone."""
  import av

  pairs = []
  for name in ('women_long_jump', 'v_GGSY1Qvo990'):
    luma = []
    with av.open(str(VIDEOS / f'{name}.mp4')) as container:
      for frame in container.decode(video=0):
        plane = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        top = (frame.height - SIZE[0]) // 2
        left = (frame.width - SIZE[1]) // 2
        luma.append(rows[top:, left:][: SIZE[0], : SIZE[1]].copy())
        if len(luma) > max(_FRAMES) + 1:
          break
    pairs += [(luma[k], luma[k + 1]) for k in _FRAMES]
  return pairs


if __name__ == '__main__':
  import cv2

  assert cv2.__version__ == '4.12.0', cv2.__version__
  method = cv2.optflow.DualTVL1OpticalFlow_create()
  flows = [method.calc(*pair, None) for pair in (*made(), *real())]
  np.savez_compressed(GOLDEN, made=flows[:4], real=flows[4:])
