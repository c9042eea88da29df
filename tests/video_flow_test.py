"""Optical flow of pictures that move by known distances."""

import sys

import numpy as np
import pytest

from backtal_jax import errors
from backtal_jax.video import flow

cv2 = pytest.importorskip('cv2', reason='needs the extra video: cv2')


def _texture():
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (140, 150, 3), np.uint8)
  return cv2.GaussianBlur(noise, (0, 0), 2.5)


def _moving(steps):
  """Cut 80 × 64 frames whose content moves by (x, y) from one to the next."""
  picture, frames = _texture(), []
  x, y = 40, 40
  for dx, dy in [(0, 0), *steps]:
    x, y = x - dx, y - dy
    frames.append(np.ascontiguousarray(picture[y : y + 64, x : x + 80]))
  return frames


@pytest.mark.parametrize('kind', flow.KINDS)
def test_finds_the_motion(kind):
  steps = [(3, 1), (-2, 0), (0, 4)]
  frames = _moving(steps)
  pairs = list(flow.add_flow(frames, kind, as_bytes=False))
  assert len(pairs) == 4
  for (frame, found), expected, motion in zip(
    pairs, frames, [*steps, steps[-1]], strict=True
  ):
    np.testing.assert_array_equal(frame, expected)
    assert found.shape == (64, 80, 2) and found.dtype == np.float32
    middle = 20 * np.median(found[16:-16, 16:-16], axis=(0, 1))
    np.testing.assert_allclose(middle, motion, atol=0.3)


def test_one_frame_does_not_move():
  ((_, found),) = flow.add_flow(_moving([]), 'dis', as_bytes=False)
  assert not found.any()
  assert not list(flow.add_flow([], 'dis', as_bytes=False))


def test_scale():
  pixels = np.array([-30, -20, 0, 10, 19.99, 25])
  np.testing.assert_allclose(
    flow.scale(pixels, as_bytes=False), [-1, -1, 0, 0.5, 0.9995, 1], rtol=1e-6
  )
  steps = (flow.scale(pixels, as_bytes=True) + 1) * 127.5
  np.testing.assert_allclose(steps, [0, 0, 128, 191, 255, 255], atol=1e-4)


def test_names_the_extra(monkeypatch):
  monkeypatch.setattr(cv2, 'optflow', None, raising=False)
  monkeypatch.delattr(cv2, 'optflow')
  with pytest.raises(errors.InputError, match='opencv-contrib-python-headless'):
    flow.make('tvl1')
  monkeypatch.setitem(sys.modules, 'cv2', None)
  with pytest.raises(errors.InputError, match=r"'backtal-jax\[video\]'"):
    flow.make('dis')
