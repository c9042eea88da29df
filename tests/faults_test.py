"""Whatever dies, the run goes on where it was."""

import os
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from train_test import assert_same, saved, tiny_config

from backtal_jax import errors, fields, train
from backtal_jax.run import checkpoints, ending, sharding, workdirs

# In CI a few; KILLS=20 python -m pytest tests/faults_test.py for the claim.
KILLS = int(os.environ.get('KILLS', '2'))
# Two steps a kill, and so many to end with that a late one still meets a run.
_FIELDS = {'train.checkpoint_every': 1, 'train.num_epochs': 4 + KILLS}
_CODE = """
import sys
import jax
jax.config.update('jax_num_cpu_devices', 8)
sys.path.insert(0, {tests!r})
from train_test import tiny_config
from backtal_jax import errors, fields, train
config = tiny_config({root!r}, **{fields!r})
with errors.one_line():
  train.train_and_evaluate(config, {workdir!r})
"""


def start(root, workdir):
  """Start a run in a process of its own, checkpoints at every step."""
  code = _CODE.format(
    tests=os.path.dirname(__file__),
    root=str(root),
    workdir=str(workdir),
    fields=_FIELDS,
  )
  return subprocess.Popen(
    [sys.executable, '-c', code],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


@pytest.fixture(scope='module')
def whole_run(demo_root, tmp_path_factory):
  """Train without a stop, checkpoints at every step."""
  workdir = tmp_path_factory.mktemp('runs') / 'whole'
  config = tiny_config(demo_root, **_FIELDS)
  train.train_and_evaluate(config, workdir)
  return workdir


def _wait_for(condition, process, seconds=120):
  end = time.time() + seconds
  while not condition():
    assert process.poll() is None, process.stdout.read()
    assert time.time() < end
    time.sleep(0.01)


def _writing(workdir):
  return {p.name for p in (workdir / 'checkpoints').glob('*tmp*')}


def _steps(workdir):
  folder = workdir / 'checkpoints'
  return [p for p in folder.glob('*') if p.name.isdigit()]


def _saved(workdir):
  return {p.name for p in _steps(workdir)}


def _evaluating(workdir):
  """Return the steps done that an evaluation comes after, every two epochs."""
  return {name for name in _saved(workdir) if int(name) % 8 == 7}


# In turn: while a checkpoint is written, in an evaluation, anywhere after a
# checkpoint, and before any: what must have appeared, then seconds at most.
_MOMENTS = (
  (_writing, 0.05),
  (_evaluating, 0.5),
  (_saved, 0.3),
  (lambda _: {time.monotonic()}, 8),
)


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_is_uninterrupted(
  demo_root, tmp_path, whole_run
):
  chance, workdir = random.Random(0), tmp_path / 'w'
  for number in range(KILLS):
    condition, seconds = _MOMENTS[number % len(_MOMENTS)]
    before = condition(workdir)
    process = start(demo_root, workdir)
    met = lambda condition=condition, seen=before: condition(workdir) - seen
    _wait_for(met, process)
    time.sleep(chance.uniform(0, seconds))
    process.kill()
    assert process.wait() == -signal.SIGKILL  # it was not done
    process.stdout.close()
  config = tiny_config(demo_root, **_FIELDS)
  train.train_and_evaluate(config, tmp_path / 'w')
  assert_same(saved(tmp_path / 'w'), saved(whole_run))


@pytest.mark.slow
def test_asked_to_end_a_run_leaves_a_checkpoint_and_says_so(
  demo_root, tmp_path, whole_run
):
  process = start(demo_root, tmp_path / 'w')
  _wait_for(lambda: _steps(tmp_path / 'w'), process)
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=120)
  assert process.returncode == ending.PREEMPTED == 75, output
  assert 'the same command goes on' in output
  config = tiny_config(demo_root, **_FIELDS)
  train.train_and_evaluate(config, tmp_path / 'w')
  assert_same(saved(tmp_path / 'w'), saved(whole_run))


def _damage(folder, keep):
  """Cut every file of the parameters under a folder to `keep` of its size."""
  for path in folder.rglob('*'):
    if path.is_file() and 'params' in str(path):
      path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
  demo_root, tmp_path, capsys
):
  config = tiny_config(demo_root, **{'train.num_epochs': 2})
  train.train_and_evaluate(config, tmp_path / 'w')
  expected = saved(tmp_path / 'w')
  _damage(tmp_path / 'w' / 'checkpoints' / '8', keep=0.5)
  train.train_and_evaluate(config, tmp_path / 'w')
  assert 'checkpoints/8: the checkpoint is damaged' in capsys.readouterr().err
  assert_same(saved(tmp_path / 'w'), expected)
  _damage(tmp_path / 'w' / 'checkpoints', keep=0)
  with pytest.raises(errors.InputError, match='all 2 checkpoints are damaged'):
    train.train_and_evaluate(config, tmp_path / 'w')


@pytest.mark.slow
def test_what_is_damaged_on_another_host_counts_here(
  demo_root, tmp_path, capsys, monkeypatch
):
  config = tiny_config(demo_root, **{'train.num_epochs': 2})
  train.train_and_evaluate(config, tmp_path / 'w')
  expected, told = saved(tmp_path / 'w'), iter(['cut off', ''])
  hosts = lambda value: [value, next(told) if value == '' else value]
  monkeypatch.setattr(checkpoints.hosts, 'gather_objects', hosts)
  train.train_and_evaluate(config, tmp_path / 'w')
  assert 'checkpoints/8: the checkpoint is damaged' in capsys.readouterr().err
  assert_same(saved(tmp_path / 'w'), expected)


def test_a_second_run_in_a_workdir_is_refused(tmp_path):
  folder = epath.Path(tmp_path / 'w')
  with workdirs.lock(folder, fields.plain(tiny_config(tmp_path))):
    refused = pytest.raises(errors.InputError, match='another run is using it')
    with refused, workdirs.lock(folder, fields.plain(tiny_config(tmp_path))):
      pass
  with workdirs.lock(folder, fields.plain(tiny_config(tmp_path))):
    pass


def test_a_workdir_that_cannot_be_made_is_told(demo_root, tmp_path):
  (tmp_path / 'file').write_text('')
  config = tiny_config(demo_root)
  with pytest.raises(SystemExit, match='error: .*file') as e, errors.one_line():
    train.train_and_evaluate(config, tmp_path / 'file' / 'w')
  assert '\n' not in str(e.value)


def test_a_state_survives_a_checkpoint_in_another_layout(demo_root, tmp_path):
  config = tiny_config(demo_root)
  mesh = sharding.make_mesh((2,))  # Orbax compiles for each
  with checkpoints.manager(tmp_path) as manager:
    _, new_state, _, _ = train.build(config, mesh)
    state = checkpoints.initial_state(manager, new_state())
    checkpoints.save(manager, state, epoch=0)
    checkpoints.finish(manager)
    with config.unlocked():
      config.train.shard_state = True
    _, new_state, _, _ = train.build(config, mesh)
    other = checkpoints.initial_state(manager, new_state())
  for a, b in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(other.params), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  kernel = other.params['backbone']['conv_1']['kernel']
  assert not kernel.sharding.is_fully_replicated
  assert jnp.array_equal(
    jax.random.key_data(other.rng), jax.random.key_data(state.rng)
  )
