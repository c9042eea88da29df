"""The official program's inputs and outputs, in our layout."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from backtal_jax import loop, losses, models, train

FOLDER = pathlib.Path(__file__).parent / 'golden'
KINDS = ('thumos14', 'activitynet12', 'hacs', 'action_clicks')
_NAMES = {
  'embedding': {
    'conv_1': 'embedding_module.conv_1',
    'conv_2': 'embedding_module.conv_2',
  },
  'filter': {
    'conv_1': 'filter_module.conv_1.0',
    'conv_2': 'filter_module.conv_2.0',
  },
  'backbone': {
    'conv_1': 'base_module.conv_1',
    'conv_2': 'base_module.conv_2',
    'classifier': 'classifier_module.conv',
  },
}


def assert_near(ours, theirs, tolerance):
  """Compare trees, every tensor by the length of the difference."""
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


def assert_same_segments(ours, theirs):
  """Compare the segments of a video but for rounding."""
  assert [s['label'] for s in ours] == [s['label'] for s in theirs]
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a['segment'], b['segment'], 0, 1e-4)
    np.testing.assert_allclose(a['score'], b['score'], 0, 1e-5)


class Case:
  """One network case: `arrays` as stored, the rest in our layout."""

  def __init__(self, kind):
    with np.load(FOLDER / f'network_{kind}.npz') as z:
      self.arrays = dict(z)
    self.meta = json.loads(str(self.arrays['meta']))
    self.topk_ratio = 0.125 if self.meta['dataset'] == 'THUMOS14' else 0.6
    self.model = models.BackTAL(
      self.meta['C'],
      self.meta['D'],
      self.meta['hidden'],
      self.meta['reduce'],
      self.meta['embed'],
      topk_ratio=self.topk_ratio,
      dropout_rate=0.0,
    )
    self.params = self.tree('param')
    self.batch = {
      'feature': self.arrays['feature'].swapaxes(1, 2),
      'label': self.arrays['cls_label'],
      'click': self.arrays['point_label'].astype(np.int32),
      'mask': np.ones(self.meta['B'], bool),
    }

  def tree(self, prefix):
    """Return the stored tensors of a prefix as a tree of our parameters."""

    def leaf(name):
      tensors = {}
      for ours, theirs in (('kernel', 'weight'), ('bias', 'bias')):
        key = f'{prefix}/{name}.{theirs}'
        if key in self.arrays:
          # [out, in, k] -> [k, in, out]
          tensors[ours] = self.arrays[key].T
      return tensors

    return jax.tree.map(leaf, _NAMES)

  def loss(self, outputs, label, click, mask, **fields):
    """Return losses.total with the case's weights and more of its fields."""
    w = {k: float(v) for k, v in self.meta['weights'].items()}
    options = {
      'weights': {
        'base': 1.0,
        'supp': 1.0,
        'sparsity': w['norm'],
        'click': 1.0,
        'separation': w['separation'],
        'embedding': w['embedding'],
      },
      'topk_ratio': self.topk_ratio,
      'separation_topk_ratio': self.meta['k_separation'] / 48 + 1e-9,
      'similar_min': 0.5,
      'different_max': 0.1,
    }
    return losses.total(outputs, label, click, mask, **options | fields)

  def training(self):
    """Return a jitted train_step of the case, and its first state."""
    optimizer = train.make_optimizer(
      self.meta['lr'], self.meta['weight_decay'], self.meta['betas']
    )
    step = functools.partial(
      train.train_step, model=self.model, optimizer=optimizer, loss=self.loss
    )
    state = loop.TrainState(
      jnp.zeros((), jnp.int32),
      self.params,
      jax.jit(optimizer.init)(self.params),
      jax.random.key(0),
    )
    return jax.jit(step), state
