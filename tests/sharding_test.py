"""Which devices there are, and where the state lives."""

import jax
import numpy as np
import processes
import pytest
from train_test import tiny_config

from backtal_jax import errors, train
from backtal_jax.run import sharding


def test_a_mesh_that_the_processes_cannot_share_is_refused(monkeypatch):
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  with pytest.raises(errors.InputError, match='mesh is 3, which 2 processes'):
    sharding.make_mesh((3,))


_DEVICES = """
import jax
from backtal_jax import errors
from backtal_jax.run import sharding
for name in 'nowhere', 'cpu,nowhere', 'cuda':  # that may be there
  jax.config.update('jax_platforms', name)
  try:
    sharding.make_mesh()
  except errors.InputError as e:
    print(e)
jax.config.update('jax_platforms', 'cpu')
print(sharding.make_mesh().size)
"""


def test_a_platform_that_is_not_there_is_one_line():
  *said, size = processes.python('-c', _DEVICES).stdout.splitlines()
  names = 'nowhere', 'cpu,nowhere', 'cuda'
  for name, line in zip(names, said, strict=False):
    assert line.startswith(f'JAX_PLATFORMS is {name!r}: ')
  assert len(said) >= 2 and int(size) > 0


def test_a_cache_that_cannot_be_made_is_a_warning(monkeypatch, capsys):
  cache = jax.config.jax_compilation_cache_dir
  monkeypatch.setenv('XDG_CACHE_HOME', '/dev/null')
  jax.config.update('jax_compilation_cache_dir', None)
  try:
    sharding.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
  finally:
    jax.config.update('jax_compilation_cache_dir', cache)
  said = capsys.readouterr().err
  assert said.startswith('/dev/null/backtal_jax/xla: Not a directory; what is')


def test_the_sharded_state_is_an_eighth_on_every_device(demo_root):
  config = tiny_config(demo_root, **{'train.shard_state': True})
  mesh = sharding.make_mesh((8,))
  _, new_state, layout, _ = train.build(config, mesh)
  shapes = jax.eval_shape(new_state)
  held = jax.tree.map(
    lambda x, s: np.prod(s.shard_shape(x.shape)), shapes, layout
  )
  whole = sum(x.size for x in jax.tree.leaves(shapes))
  assert sum(jax.tree.leaves(held)) < whole / 7
