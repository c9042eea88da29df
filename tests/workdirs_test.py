"""What a workdir is, whose, and where: by what lies in it."""

import errno
import fcntl
import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from train_test import NO_SHARES

from backtal_jax import errors, fields, files, loop
from backtal_jax.run import checkpoints, parameters, workdirs
from configs import demo


def _run(workdir, values):
  """Leave checkpoints of these values in a workdir, one an epoch."""
  with checkpoints.manager(workdir) as manager:
    for step, value in enumerate(values, 1):
      params = {'w': jnp.full(3, float(step))}
      state = loop.TrainState(jnp.int32(step), params, {}, jnp.zeros(2))
      checkpoints.save(manager, state, epoch=10 * step, value=value)
  (workdir / 'config.json').write_text('{}')
  return workdir


@pytest.mark.parametrize('name', ['0', '20240611', 'x.pth', 'checkpoints', 'r'])
def test_a_folder_is_a_workdir_if_it_holds_one(tmp_path, name):
  workdir = _run(tmp_path / name, [0.5, 0.2])
  (tmp_path / 'link').symlink_to(workdir)
  moved = tmp_path / 'moved'
  os.rename(workdir / 'checkpoints' / '2', moved)
  # The workdir, its checkpoints, one of them; another one, moved away.
  for path, epoch in (
    (workdir, 10),
    (f'{workdir}/', 10),
    (tmp_path / 'link', 10),
    (workdir / 'checkpoints', 10),
    (workdir / 'checkpoints' / '1', 10),
    (moved, 20),
  ):
    path = files.path(path)
    params, found = parameters.restore(path, None)
    assert found == epoch
    np.testing.assert_array_equal(params['w'], np.full(3, epoch / 10))
    if path.name != 'moved':
      assert os.path.realpath(parameters.workdir_of(path)) == str(workdir)


def test_where_there_is_no_checkpoint_it_is_said(tmp_path):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'new' / 'checkpoints').mkdir(parents=True)
  for path, message in (
    (tmp_path / 'none', 'none: no such file or folder'),
    (tmp_path / 'empty', 'empty: no checkpoint there; expected a workdir'),
    (tmp_path / 'new', 'new: no whole checkpoint in it'),
  ):
    with pytest.raises(errors.InputError, match=message):
      parameters.restore(path, None)


def test_a_damaged_checkpoint_is_named(tmp_path):
  workdir = _run(tmp_path / 'w', [0.5])
  for path in (workdir / 'checkpoints' / '1' / 'params').rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:5])
  with pytest.raises(errors.InputError, match='1: the checkpoint is damaged: '):
    parameters.restore(workdir, None)


@pytest.mark.parametrize('error', ['ENOLCK', 'ENOSYS', 'EOPNOTSUPP'])
def test_a_file_system_without_locks_is_a_warning(
  tmp_path, monkeypatch, capsys, error
):
  number = getattr(errno, error)

  def flock(*_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(fcntl, 'flock', flock)
  with workdirs.lock(epath.Path(tmp_path / 'w'), _config()):
    pass
  said = capsys.readouterr().err
  assert said.startswith(f'{tmp_path}/w/.lock: this file system has no locks')
  assert 'nothing keeps a second run out' in said and said.count('\n') == 1
  number = errno.EIO  # whatever else it says carries the path
  message = f'^error: {tmp_path}/w/.lock: Input/output error$'
  with (
    pytest.raises(SystemExit, match=message),
    errors.one_line(),
    workdirs.lock(epath.Path(tmp_path / 'w'), _config()),
  ):
    pass


def test_an_error_without_a_path_gets_the_files(tmp_path):
  message = f'^error: {tmp_path}/x: No space left on device$'
  with (
    pytest.raises(SystemExit, match=message),
    errors.one_line(),
    files.atomic(tmp_path / 'x'),
  ):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
  assert not list(tmp_path.iterdir())


def test_a_file_system_that_replaces_nothing_is_a_warning(
  tmp_path, monkeypatch, capsys
):
  (tmp_path / 'x').write_text('old')

  def replace(*_):
    raise OSError(errno.EEXIST, 'File exists')

  monkeypatch.setattr(os, 'replace', replace)
  files.write_json(tmp_path / 'x', 'new')
  assert json.loads((tmp_path / 'x').read_text()) == 'new'
  assert [p.name for p in tmp_path.iterdir()] == ['x']
  assert 'this file system replaces no files' in capsys.readouterr().err


def _config(**changes):
  config = demo.get_config()
  with config.unlocked():
    config.update_from_flattened_dict(changes)
  return fields.plain(config)


# Another value of every field that says where or how.
_OTHER = {
  'data.name': 'x', 'data.root': '/mnt/demo', 'data.generate': False,
  'data.source': 'tfds', 'data.placement': 'host', 'train.eval_every': 3,
  'train.checkpoint_every': 3, 'train.on_nan': 'skip',
  'train.shard_state': True, 'train.remat': True, 'eval.watch': True,
  'eval.batch_size': 3,
  'eval.published': (('average_mAP', 50.0),), 'mesh': (2,),
}  # fmt: skip


def test_where_and_how_are_not_what_a_run_is(tmp_path, capsys):
  workdir = epath.Path(tmp_path)
  workdirs.claim(workdir, _config())
  assert not capsys.readouterr().out
  assert _OTHER.keys() == set(fields.HOW)
  workdirs.claim(workdir, _config(**_OTHER))
  said = capsys.readouterr().out
  assert said.startswith(f'{workdir}: goes on, though config.data.generate is')
  assert said.count('\n') == 1
  assert all(f'config.{name} is' in said for name in _OTHER)
  found = fields.flatten(files.read_json(workdir / 'config.json'))
  assert found['eval.batch_size'] == 3


def test_what_a_run_is_may_not_change(tmp_path):
  workdir, first = epath.Path(tmp_path), _config()
  workdirs.claim(workdir, first)
  others = {
    name: value
    for name, value in fields.flatten(first).items()
    if name not in fields.HOW
  }
  assert len(others) > 30
  for name, value in others.items():
    if name == 'train.num_epochs':
      value = 1
    elif isinstance(value, bool):
      value = not value
    elif isinstance(value, float):
      value = value / 2 or 0.5
    elif isinstance(value, int):
      value += 1
    elif isinstance(value, str):
      value += 'x'
    else:
      value = value[:1] or (0.1, 0.2, 0.1)
    with pytest.raises(errors.InputError, match=f'config: config.{name} is '):
      workdirs.compare(workdir, _config(**{name: value}))
  workdirs.claim(workdir, _config(**{'train.num_epochs': 21}))


@pytest.mark.parametrize(
  'field, value',
  [
    (None, None),
    ('loss.label_warmup', 0.1),
    ('loss.click_trim', 0.2),
    ('loss.click_doubt_from', 0.3),
    ('loss.topk_clean_from', 0.5),
    ('train.rate_warmup', 0.2),
  ],
)
def test_more_epochs_are_said_where_the_loss_depends_on_them(
  tmp_path, field, value
):
  fields = NO_SHARES | ({field: value} if field else {})
  workdir = epath.Path(tmp_path)
  workdirs.claim(workdir, _config(**fields))
  said = workdirs.compare(
    workdir, _config(**fields, **{'train.num_epochs': 21})
  )
  expected = ['config.train.num_epochs is 20 there, 21 here']
  assert said == (expected if field else [])


def test_files_of_a_run_may_move_but_not_change_their_names(tmp_path, capsys):
  workdir = epath.Path(tmp_path)
  clicks = {'data.clicks': 'a.csv, b.csv', 'init_checkpoint': 'x/m.pth'}
  workdirs.claim(workdir, _config(**clicks))
  moved = {'data.clicks': '~/a.csv,/b.csv', 'init_checkpoint': '/y/m.pth'}
  workdirs.claim(workdir, _config(**moved))
  assert 'config.data.clicks is' in capsys.readouterr().out
  for other in ('a.csv', 'a.csv,c.csv', 'b.csv,a.csv', ''):
    with pytest.raises(errors.InputError, match='config.data.clicks is'):
      workdirs.compare(workdir, _config(**moved | {'data.clicks': other}))


def test_a_run_from_before_a_field_was_there_goes_on(tmp_path):
  workdir = epath.Path(tmp_path)
  workdirs.claim(workdir, _config())
  saved = files.read_json(workdir / 'config.json')
  del saved['loss']['similar_min'], saved['data']['features']
  files.write_json(workdir / 'config.json', saved)
  assert workdirs.compare(workdir, _config()) == []
  with pytest.raises(errors.InputError, match='similar_min is 0.5 there, 0.6'):
    workdirs.compare(workdir, _config(**{'loss.similar_min': 0.6}))


def test_a_workdir_whose_config_is_no_config(tmp_path):
  (tmp_path / 'config.json').write_text('[1]')
  with pytest.raises(errors.InputError, match='holds no config of a run'):
    workdirs.compare(epath.Path(tmp_path), _config())
