"""TV-L1 in JAX against OpenCV 4.12's own output and against known motion."""

import jax
import numpy as np
import pytest
import tvl1_pairs

from backtal_jax.run import sharding
from backtal_jax.video import flow, i3d, tvl1


def _estimate(pairs):
  # Eight at a time, so that one program serves all.
  before, after = map(np.stack, zip(*(pairs * 8)[:8], strict=True))
  found = tvl1.estimate(before, after)
  return [np.asarray(x)[: len(pairs)] for x in found]


def _distance(a, b):
  return np.linalg.norm(a - b, axis=-1).mean(axis=(1, 2))


def _as_bytes(flow):
  return np.round(np.clip(flow / 20, -1, 1) * 127.5 + 127.5)


@pytest.mark.optimised
@pytest.mark.parametrize('kind', ['made', 'real'])
def test_equals_opencv(kind, request):
  if kind == 'real':
    request.getfixturevalue('shared')
    pytest.importorskip('av', reason='needs the extra video: av')
  pairs = getattr(tvl1_pairs, kind)()
  expected = np.load(tvl1_pairs.GOLDEN)[kind]
  found, _ = _estimate(pairs)
  assert _distance(found, expected).max() <= 0.005
  equal = _as_bytes(found) == _as_bytes(expected)
  assert equal.mean(axis=(1, 2, 3)).min() >= 0.98


@pytest.mark.optimised
def test_finds_known_motion_as_opencv_does():
  truth = np.array(tvl1_pairs.MOTIONS)[:, None, None]
  inside = np.s_[:, 8:-8, 8:-8]
  found, _ = _estimate(tvl1_pairs.made())
  opencv = np.load(tvl1_pairs.GOLDEN)['made']
  ours, theirs = (_distance(f[inside], truth) for f in (found, opencv))
  assert (ours <= theirs + 0.005).all()
  assert ours[:2].max() < 0.1


@pytest.mark.optimised
def test_a_pair_does_not_know_its_batch():
  pairs = tvl1_pairs.made()
  flow, iterations = _estimate(pairs)
  assert len(set(iterations.sum(axis=1).tolist())) > 1
  for pair, together, count in zip(pairs, flow, iterations, strict=True):
    alone, steps = tvl1.estimate(*(image[None] for image in pair))
    np.testing.assert_array_equal(alone[0], together)
    np.testing.assert_array_equal(steps[0], count)


@pytest.mark.optimised
def test_many_devices_equal_one_and_opencv(monkeypatch):
  monkeypatch.setattr(i3d, 'SIZE', 64)
  middle = np.s_[:, :, 8:-8]
  mesh, pairs = sharding.make_mesh(), tvl1_pairs.made()
  assert mesh.size == 8
  triples = [(np.zeros((64, 80, 3)), *pair) for pair in pairs * 3]
  found = flow.add_flow(triples, 'tvl1', mesh, as_bytes=True)
  many = np.stack([np.asarray(x) for _, x in found])
  scale = jax.jit(flow.scale, static_argnames='as_bytes')
  one = np.asarray(scale(_estimate(pairs)[0], as_bytes=True))[middle]
  np.testing.assert_array_equal(many, np.concatenate([one] * 3))
  opencv = _as_bytes(np.load(tvl1_pairs.GOLDEN)['made'])[middle]
  assert (one == opencv).mean() >= 0.98


def test_the_median_is_one():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 9, (3, 11, 13)).astype('f4')  # with ties
  wide = np.pad(images, ((0, 0), (2, 2), (2, 2)), mode='edge')
  windows = np.lib.stride_tricks.sliding_window_view(wide, (5, 5), (1, 2))
  found = jax.jit(tvl1._median)(images)
  np.testing.assert_array_equal(found, np.median(windows, axis=(3, 4)))


@pytest.mark.parametrize('x, y', [(3e-5, 4e-5), (0.1, 0.7), (0, 0), (0, 2.5)])
def test_length_is_rounded_once(x, y):
  x, y = np.float32(x), np.float32(y)
  expected = np.float32(np.hypot(np.float64(x), np.float64(y)))
  assert jax.jit(tvl1._length)(x, y) == pytest.approx(expected, rel=6e-8)


@pytest.mark.optimised
def test_a_still_picture_does_not_move():
  flat = np.full((64, 80), 7, np.uint8)
  flow, _ = _estimate([(flat, flat)])
  assert not np.any(flow)
