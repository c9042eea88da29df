"""Optical flow of pictures that move by known distances."""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import videos

from backtal_jax import errors
from backtal_jax.run import sharding
from backtal_jax.video import flow, i3d


def _moving(steps):
  """Cut 80 × 64 frames whose content moves by (x, y) from one to the next."""
  cv2 = pytest.importorskip('cv2', reason='needs the extra video: cv2')
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (140, 150, 3), np.uint8)
  picture, frames = cv2.GaussianBlur(noise, (0, 0), 2.5), []
  x, y = 40, 40
  for dx, dy in [(0, 0), *steps]:
    x, y = x - dx, y - dy
    frames.append(np.ascontiguousarray(picture[y : y + 64, x : x + 80]))
  return frames


@pytest.mark.parametrize('method', ['opencv', 'dis'])
def test_finds_the_motion(method, monkeypatch):
  monkeypatch.setattr(i3d, 'SIZE', 48)
  steps = [(3, 1), (-2, 0), (0, 4)]
  frames = _moving(steps)
  pairs = list(flow.add_flow(flow.pair(frames), method, None, as_bytes=False))
  assert len(pairs) == 4
  for (frame, found), expected, motion in zip(
    pairs, frames, [*steps, steps[-1]], strict=True
  ):
    np.testing.assert_array_equal(frame, expected)
    assert found.shape == (48, 48, 2) and found.dtype == np.float32
    middle = 20 * np.median(found[8:-8, 8:-8], axis=(0, 1))
    np.testing.assert_allclose(middle, motion, atol=0.3)


@pytest.mark.parametrize(
  'count, expected',
  [(0, []), (1, ['000']), (2, ['001', '101']), (3, ['001', '112', '212'])],
)
def test_pairs(count, expected):
  frames = [np.full((2, 3, 3), i, np.uint8) for i in range(count)]
  found = list(flow.pair(frames))
  assert [''.join(str(x.max()) for x in images) for images in found] == expected
  assert all(gray.shape == (2, 3) for _, *both in found for gray in both)


def test_gray_is_opencvs():
  cv2 = pytest.importorskip('cv2', reason='needs the extra video: cv2')
  colours = np.random.default_rng(0).integers(0, 256, (500, 400, 3), np.uint8)
  expected = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
  np.testing.assert_array_equal(flow.to_gray(colours), expected)


@pytest.mark.parametrize('devices', [1, 4])
def test_batches_on_devices(monkeypatch, devices):
  videos.fake_flow(monkeypatch)
  monkeypatch.setattr(i3d, 'SIZE', 2)
  grays = [0, 2, 6, 7, 17, 42]
  frames = [np.full((4, 5, 3), value, np.uint8) for value in grays]
  mesh = sharding.make_mesh((devices,))
  found = list(flow.add_flow(flow.pair(frames), 'tvl1', mesh, as_bytes=False))
  assert [frame.max() for frame, _ in found] == grays
  for (_, one), step in zip(found, [2, 4, 1, 10, 20, 20], strict=True):
    assert isinstance(one, jax.Array) and len(one.devices()) == devices
    np.testing.assert_array_equal(one, np.full((2, 2, 2), [step / 20, 0], 'f4'))


@pytest.mark.parametrize('cores', [1, 3])
def test_frames_keep_their_order_whichever_pair_is_done_first(
  monkeypatch, cores
):
  running, most = [], []

  def estimate(before, after, **_):
    running.append(before)
    most.append(len(running))
    time.sleep(0.02 if before[0, 0, 0] % 2 else 0.1)
    running.pop()
    return np.stack([before, after], axis=-1).astype('f4'), None

  monkeypatch.setattr(flow.tvl1, 'estimate', estimate)
  monkeypatch.setattr(flow, '_num_cores', lambda: cores)
  frames = [np.full((4, 5, 3), value, np.uint8) for value in range(8)]
  mesh = sharding.make_mesh((1,))
  monkeypatch.setattr(i3d, 'SIZE', 2)
  found = list(flow.add_flow(flow.pair(frames), 'tvl1', mesh, as_bytes=False))
  steps = [(i, i + 1) for i in range(7)] + [(6, 7)]
  for (frame, one), value, step in zip(found, range(8), steps, strict=True):
    assert frame.max() == value
    np.testing.assert_array_equal(one[0, 0], np.array(step, 'f4') / 20)
  assert max(most) == cores


@pytest.mark.parametrize('module', [np, jnp])
def test_scale(module):
  pixels = module.array([-30, -20, 0, 10, 19.99, 25])
  np.testing.assert_allclose(
    flow.scale(pixels, as_bytes=False), [-1, -1, 0, 0.5, 0.9995, 1], rtol=1e-6
  )
  found = flow.scale(pixels, as_bytes=True)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, [0, 0, 128, 191, 255, 255])


@pytest.mark.parametrize(
  'method, version, values, program',
  [
    ('tvl1', '5.0.0', 'tvl1', 'backtal_jax 1'),
    ('opencv', '4.12.0', 'tvl1', 'OpenCV 4.12.0'),
    ('opencv', '5.0.0', 'tvl1 of OpenCV 5', 'OpenCV 5.0.0'),
    ('dis', '5.0.0', 'dis', 'OpenCV 5.0.0'),
  ],
)
def test_a_record_tells_values_and_program(
  monkeypatch, method, version, values, program
):
  cv2 = pytest.importorskip('cv2', reason='needs the extra video: cv2')
  monkeypatch.setattr(cv2, '__version__', version)
  assert flow.describe(method) == {'flow': values, 'flow_by': program}
  # What is recorded is made again, by the program that is quicker.
  assert flow.choose('', values) == ('tvl1' if values == 'tvl1' else method)


def test_the_users_choice():
  assert flow.choose('') == 'tvl1'
  assert flow.choose('opencv', 'dis') == 'opencv'
  with pytest.raises(errors.InputError) as e:
    flow.choose('farneback')
  assert str(e.value) == (
    "--flow_method is 'farneback', expected one of tvl1, opencv, dis"
  )


def test_names_the_extra(monkeypatch):
  cv2 = pytest.importorskip('cv2', reason='needs the extra video: cv2')
  image = np.zeros((8, 8), np.uint8)
  find = lambda method: next(
    flow.add_flow([(image, image, image)], method, None, as_bytes=False)
  )
  monkeypatch.setattr(cv2, 'optflow', None, raising=False)
  monkeypatch.delattr(cv2, 'optflow')
  with pytest.raises(errors.InputError, match='opencv-contrib-python-headless'):
    find('opencv')
  monkeypatch.setitem(sys.modules, 'cv2', None)
  with pytest.raises(errors.InputError, match=r"'backtal-jax\[video\]'"):
    find('dis')
