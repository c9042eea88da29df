"""What the devices say to each other in a step, read off the program."""

import math
import re

import jax
import jax.numpy as jnp
import pytest
from train_test import tiny_config

from backtal_jax import train
from backtal_jax.run import sharding

_BATCH = {
  'feature': ((16, 100, 32), jnp.float32),
  'label': ((16, 5), jnp.float32),
  'click': ((16, 100), jnp.int32),
  'mask': ((16,), bool),
}
_OPERATION = re.compile(
  r'= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|'
  r'collective-permute|collective-broadcast|ragged-all-to-all)(?:-start)?\('
)


def _collectives(shard_state):
  """Compile the step for 8 devices: its [(operation, shapes)], its state."""
  mesh = sharding.make_mesh((8,))
  config = tiny_config(
    'none', **{'mesh': (8,), 'train.shard_state': shard_state}
  )
  _, new_state, layout, step = train.build(config, mesh)
  shapes = jax.eval_shape(new_state)
  place = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
  state = jax.tree.map(place, shapes, layout)
  batch = {
    k: jax.ShapeDtypeStruct(*v, sharding=sharding.split(mesh))
    for k, v in _BATCH.items()
  }
  text = step.lower(state, batch).compile().as_text()
  return _operations(text), shapes.params


def _operations(text):
  """Return [(operation, shapes of its arrays)] of a compiled program."""
  found = []
  for shapes, name in _OPERATION.findall(text):
    dims = re.findall(r'\w+\[([\d,]*)\]', shapes)
    found.append(
      (name, [tuple(map(int, d.split(','))) if d else () for d in dims])
    )
  return found


def _numbers(found, *names):
  """Count the numbers that the operations of these names carry."""
  return sum(
    math.prod(shape)
    for name, shapes in found
    if name in names
    for shape in shapes
  )


@pytest.mark.parametrize('shard_state', [False, True])
def test_only_gradients_parameters_and_scalars_travel(shard_state):
  found, params = _collectives(shard_state)
  names = {name for name, _ in found}
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  # What features are standardised by is given, and has no gradient.
  size, learned = count(params), count(params) - count(params['standard'])
  reduced = _numbers(found, 'all-reduce', 'reduce-scatter')
  if shard_state:
    assert names <= {'all-gather', 'all-reduce', 'reduce-scatter'}
    # Each parameter that is split is gathered once.
    assert 0.95 * size <= _numbers(found, 'all-gather') <= size
  else:
    assert names == {'all-reduce'}
    # Each gradient is summed once, and a few scalars.
    assert learned <= reduced
  assert reduced <= 1.05 * learned
  # 16 videos and 2 a device, 100 snippets: of no array that travels.
  for name, shapes in found:
    for shape in shapes:
      assert 100 not in shape, (name, shape)
      assert math.prod(shape) <= max(x.size for x in jax.tree.leaves(params))
