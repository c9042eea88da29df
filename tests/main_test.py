"""The command line as users meet it: one clear line for every mistake."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from etils import epath
from train_test import tiny_config

from backtal_jax import errors, evaluate, opening, train
from backtal_jax.data import npz, sources

_TINY = (
  '--config.mesh=(1,)',
  '--config.model.hidden_dim=16',
  '--config.model.reduce_dim=8',
  '--config.model.embedding_dim=8',
  '--config.train.num_epochs=4',
  '--config.train.eval_every=4',
  '--config.train.batch_size=12',
  '--config.eval.batch_size=8',
  '--config.localization.class_threshold=0.05',
)


def command(*args, before='', **env):
  """Run the command line in a process of its own, after some other code."""
  code = f"""{before}
import runpy, sys
sys.argv[0] = 'main'
runpy.run_module('backtal_jax.main', run_name='__main__')"""
  return subprocess.run(
    [sys.executable, '-c', code, '--config=configs/demo.py', *_TINY, *args],
    # As many as the tests have: they share what is compiled.
    env=os.environ | {'JAX_NUM_CPU_DEVICES': '8'} | env,
    capture_output=True,
    text=True,
    timeout=900,
  )


def last_line(done):
  """Expect exit status 1 and return the last line, which tells the error."""
  assert done.returncode == 1, done.stderr
  line = done.stderr.strip().splitlines()[-1]
  assert line.startswith('error: ')
  return line


def config_of(root, **fields):
  """Return the config of `command` on a data root."""
  return tiny_config(root, **{'train.eval_every': 4} | fields)


def fails(config, workdir):
  """Train, expect a user error, and return its message."""
  with pytest.raises(errors.InputError) as e:
    train.train_and_evaluate(config, epath.Path(workdir))
  return str(e.value)


# Drawing the report's pictures takes half as long as the rest of a short run.
_UNDRAWN = """from backtal_jax.report import style
style.svg = lambda figure, title: '<svg/>'"""


@pytest.fixture(scope='module')
def finished(demo_root, tmp_path_factory):
  """Train two epochs by the command line, from a user's odd places."""
  home = tmp_path_factory.mktemp('cli')
  workdir = home / '20240611'
  (home / 'data').symlink_to(demo_root)
  done = command(
    '--workdir=~/20240611',
    '--config.data.root=~/data',
    before=_UNDRAWN,
    HOME=str(home),
    PYTHONIOENCODING='ascii',
  )
  assert done.returncode == 0, done.stderr
  (workdir / 'stdout').write_text(done.stdout)
  return workdir


def test_a_run_prints_its_table_and_keeps_its_resolved_config(finished):
  out = (finished / 'stdout').read_text()
  metrics = json.loads((finished / 'metrics.json').read_text())
  assert all(f'{100 * v:.1f}' in out for v in metrics['mAP'])
  assert f'{100 * metrics["average_mAP"]:.1f}' in out
  assert str(finished) in out.splitlines()[-1]
  config = json.loads((finished / 'config.json').read_text())
  assert config['model']['hidden_dim'] == 16
  assert config['train']['learning_rate'] == 0.002  # twice the demo's: robust


def test_the_embedded_set_is_made_on_first_use(tmp_path):
  config = tiny_config(tmp_path / 'new')
  assert len(opening.source(config, tmp_path / 'new', 'train')) > 0
  assert (tmp_path / 'new' / 'ground_truth.json').is_file()


def test_what_is_not_there_is_told_before_anything_is_written(
  demo_root, tmp_path
):
  workdir = tmp_path / 'w'
  message = fails(config_of(demo_root, mesh=(9,)), workdir)
  assert 'config.mesh is 9, but there are 8 devices' in message
  config = config_of(tmp_path / 'none', **{'data.generate': False})
  assert 'none/train: no such folder' in fails(config, workdir)
  with pytest.raises(errors.InputError, match='no checkpoint there'):
    evaluate.evaluate(config_of(demo_root), tmp_path, workdir)
  assert not workdir.exists()


def _break(path, **changes):
  sources.write_video(path, **(npz.read(path) | changes))


def _other_classes(root):
  path = root / 'ground_truth.json'
  truth = json.loads(path.read_text())
  truth['activity_list'].append('sleep')
  path.write_text(json.dumps(truth))


_BROKEN = {
  'train_007.npz: features hold 1600 NaN': lambda root: _break(
    root / 'train' / 'train_007.npz', feat_spa=np.full((16, 100), np.nan)
  ),
  "subset 'test' lacks 1 of the 15 videos to evaluate: nobody": lambda root: (
    _break(root / 'test' / 'test_003.npz', vid_name='nobody')
  ),
  'has 6 classes, config.model.num_classes is 5': _other_classes,
  'test_003: frame_num 0': lambda root: _break(
    root / 'test' / 'test_003.npz', frame_num=0
  ),
}


@pytest.mark.parametrize('message', _BROKEN)
def test_broken_data_ends_a_run(demo_root, tmp_path, message):
  root = tmp_path / 'data'
  shutil.copytree(demo_root, root)
  _BROKEN[message](root)
  assert message in fails(config_of(root), tmp_path / 'w')
  assert not (tmp_path / 'w' / 'metrics.json').exists()


def test_a_checkpoint_of_other_widths_is_refused(demo_root, tmp_path, finished):
  config = config_of(demo_root, **{'model.hidden_dim': 12})
  expected = r'backbone.conv_1.kernel is \(3, 32, 16\), expected \(3, 32, 12\)'
  with pytest.raises(errors.InputError, match=expected):
    evaluate.evaluate(config, finished, tmp_path / 'w')
  assert not (tmp_path / 'w').exists()


@pytest.mark.parametrize('mode', ['train', 'evaluate'])
def test_a_workdir_of_another_config_is_refused(demo_root, finished, mode):
  kept = lambda: {
    p: p.stat().st_mtime_ns
    for p in finished.rglob('*')
    if p.is_file() and p.name != '.lock'
  }
  before, config = kept(), config_of(demo_root, **{'loss.click': 0.0})
  expected = 'holds a run of another config: config.loss.click is 1.0 there'
  with pytest.raises(errors.InputError, match=expected):
    if mode == 'train':
      train.train_and_evaluate(config, finished)
    else:
      evaluate.evaluate(config, finished, finished)
  assert kept() == before


def _limit(size):
  """Return code after which no larger file can be written."""
  return f"""import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"""


@pytest.mark.slow
def test_a_disk_full_while_a_checkpoint_is_written(demo_root, tmp_path):
  done = command(
    f'--workdir={tmp_path}/w',
    f'--config.data.root={demo_root}',
    '--config.model.hidden_dim=384',
    '--config.localization.class_threshold=1.0',
    before=_limit(1_000_000),
  )
  assert 'checkpoint could not be written' in last_line(done)
  folder = tmp_path / 'w' / 'checkpoints'
  assert not [p for p in folder.iterdir() if p.name.isdigit()]


def test_a_disk_full_while_predictions_are_written(
  demo_root, tmp_path, finished
):
  config = config_of(demo_root)
  evaluate.evaluate(config, finished, tmp_path / 'whole')  # compiles, too
  size = (finished / 'predictions.json').stat().st_size
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  with pytest.raises(SystemExit) as told, errors.one_line():
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))
    try:
      evaluate.evaluate(config, finished, tmp_path / 'w')
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert re.fullmatch('error: .*: File too large', told.value.code)
  left = {p.name for p in (tmp_path / 'w').iterdir()}
  assert left == {'config.json'}
