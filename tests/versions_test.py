"""What other versions wrote, and what is not installed or too new."""

import json
import pathlib
import re
import shutil
import sys

import jax
import numpy as np
import pytest
from detection_map_test import database

import backtal_jax
from backtal_jax import errors, files, predict, prediction_files, train
from backtal_jax.data import pipeline
from backtal_jax.metrics import detection_map
from backtal_jax.run import checkpoints, sharding
from configs import thumos14

# The workdir of a run of 7 steps with the parameters that `arithmetic` gives,
# written by backtal_jax 0.2.0 with jax 0.10.2, flax 0.12.8 and Orbax 0.12.8.
RUN = pathlib.Path(__file__).parent / 'golden' / 'run'
FEATURE = np.arange(40.0, dtype=np.float32).reshape(10, 4) % 7
_SETUP = pathlib.Path(__file__).parents[1] / 'setup.cfg'


def arithmetic(params):
  """Return small multiples of 1/8 in place of parameters."""
  leaves, tree = jax.tree.flatten(params)
  made = [
    ((np.arange(x.size) * 7 + n) % 13 - 6).astype(np.float32).reshape(x.shape)
    / 8
    for n, x in enumerate(leaves)
  ]
  return jax.tree.unflatten(tree, made)


@pytest.fixture(name='model', scope='module')
def _model():
  return backtal_jax.load(RUN)


def _same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_an_old_checkpoint_loads_for_ever(model, tmp_path):
  assert model.epoch == 2 and model.classes == ('dive', 'jump')
  _same(model.params, arithmetic(model.params))
  # And the training goes on from it.
  workdir = files.path(shutil.copytree(RUN, tmp_path / 'run'))
  # By today's base config, which says what fields that came later were before.
  config = thumos14.get_config()
  config.model.update(predict.config_of(workdir).model)
  program = train.build(config, model.mesh)
  new = program.new_state()
  with checkpoints.manager(workdir) as manager:
    state = checkpoints.initial_state(manager, new)
  assert int(state.step) == 7
  _same(state.params, arithmetic(new.params))
  _same(jax.random.key_data(state.rng), np.array([0, 0]))  # seed 0
  assert jax.tree.structure(state) == jax.tree.structure(new)


def test_what_was_not_standardised_is_read_by_a_config_that_standardises(model):
  config = predict.config_of(files.path(RUN))
  with config.unlocked():
    config.model.standardize = True
  read = backtal_jax.load(RUN, config=config)
  assert 'standard' in read.params and 'standard' not in model.params
  found = read.predict(FEATURE, duration=20)
  assert found == model.predict(FEATURE, duration=20) != []


def test_without_tensorflow_all_but_training_works(
  model, tmp_path, monkeypatch
):
  for name in ('tensorflow', 'tensorflow_datasets', 'tensorboard'):
    monkeypatch.setitem(sys.modules, name, None)
  np.save(tmp_path / 'v.npy', FEATURE)
  output = tmp_path / 'p.json'
  prediction_files.write(None, RUN, tmp_path / 'v.npy', output, duration=20)
  found = json.loads(output.read_text())['results']['v']
  assert found == model.predict(FEATURE, duration=20)
  truth = database({'v': [('dive', 1, 5), ('jump', 7, 9)]})
  (tmp_path / 'g.json').write_text(json.dumps(truth))
  detection_map.main([
    '--ground_truth', str(tmp_path / 'g.json'), '--predictions', str(output),
    '--subset', 'test', '--output', str(tmp_path / 'm.json'),
  ])  # fmt: skip
  assert 'mAP' in json.loads((tmp_path / 'm.json').read_text())
  with pytest.raises(
    errors.InputError,
    match=r"needs tensorflow: pip install 'backtal-jax\[train\]'",
  ):
    next(pipeline.batches(None, np.zeros((1, 1, 2), int)))


def test_tensorflow_is_imported_late_or_not_at_all():
  package = _SETUP.parent / 'backtal_jax'
  early = [
    str(path.relative_to(package))
    for path in package.rglob('*.py')
    if re.search(
      r'^(import|from) (tensorflow|tensorboard)', path.read_text(), re.M
    )
  ]
  # Which opening.py and `prepare tfds` import late, saying what is missing.
  assert early == ['data/builder.py']


@pytest.mark.parametrize('version', ['0.10.1', '0.13.0', '1.0', '0.13.0.dev2'])
def test_a_jax_that_was_not_tried_is_named(monkeypatch, version):
  monkeypatch.setattr(jax, '__version__', version)
  with pytest.raises(
    errors.InputError,
    match=rf'jax {version} is installed, expected 0.10.2 or newer and below',
  ):
    sharding.make_mesh()


def test_setup_admits_the_versions_of_jax_that_run(monkeypatch):
  (low, high), = re.findall(r'^ +jax>=([\d.]+),<([\d.]+)$', _SETUP.read_text(),
                            re.M)  # fmt: skip
  assert (low, high) == sharding._JAX
  for version in (low, '0.11.2', '0.12.0.1'):
    monkeypatch.setattr(jax, '__version__', version)
    sharding.make_mesh()
