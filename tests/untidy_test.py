"""Tests of names, links, owners and files as they are in the wild."""

import json
import os
import pwd

import jax.numpy as jnp
import numpy as np
import pytest
from annotations_test import make_truth, make_video

from backtal_jax import command_line, errors, files, loop
from backtal_jax.data import (
  annotations,
  builder,
  feature_files,
  npz,
  resampling,
)
from backtal_jax.prepare import feature_folders
from backtal_jax.run import checkpoints, parameters

NAMES = 'lr=[1e-3,1e-4]', 'features [v2]', '[a]', 'a*', 'b?'


@pytest.mark.parametrize('name', NAMES[::2])
def test_what_is_saved_in_a_folder_of_any_name_is_found_again(tmp_path, name):
  workdir = files.path(tmp_path / name)
  workdir.mkdir()
  state = loop.TrainState(
    jnp.array(3), {'w': jnp.arange(4.0)}, {'m': jnp.ones(2)}, jnp.zeros(2)
  )
  with checkpoints.manager(workdir) as manager:
    checkpoints.save(manager, state, epoch=1)
  with checkpoints.manager(workdir) as manager:
    found = checkpoints.initial_state(manager, state)
  np.testing.assert_array_equal(found.params['w'], [0, 1, 2, 3])
  params, epoch = parameters.restore(workdir, state.params)
  np.testing.assert_array_equal(params['w'], [0, 1, 2, 3])
  assert epoch == 1
  assert (workdir / 'checkpoints').is_dir()


@pytest.mark.parametrize('name', NAMES)
def test_files_are_listed_in_folders_of_any_name(tmp_path, name):
  folder = files.path(tmp_path / name)
  (folder / 'val').mkdir(parents=True)
  for file in ('b.npy', 'a.npy', 'c.npz', '.d.npy', '.e.1.ab.tmp'):
    (folder / file).write_bytes(b'')
  assert [p.name for p in files.listed(folder, '.npy')] == ['a.npy', 'b.npy']
  assert {*feature_folders.open_features([folder])} == {'a', 'b', 'c'}
  (folder / 'val/Jump_val.txt').write_text('v 1 2\n')
  assert {*annotations.read_ground_truth(folder).videos} == {'v'}
  files.remove_temporary(folder)
  assert not (folder / '.e.1.ab.tmp').exists()
  with files.no_pattern(folder) as plain:
    assert [*plain.glob('a.npy')] == [plain / 'a.npy']
  assert [*files.listed(files.path(tmp_path / 'none'), '.npy')] == []


@pytest.mark.parametrize(('shapes', 'given', 'expected'), [
  # N frames have N - 1 flows; I3D's streams have 1024 channels.
  ([(40, 1024), (39, 1024)], None, [False]),
  ([(39, 1024), (40, 1024)], None, [False]),
  ([(40, 1024), (38, 1024)], None, [False]),
  ([(3000, 1024), (2999, 1024)], None, [False]),
  ([(1024, 40), (1024, 39)], None, [True]),
  ([(40, 1024), (39, 1024)], False, [False]),
  ([(40, 1024), (39, 1024)], True, [True]),
  # Of other widths nobody knows but the user.
  ([(40, 512), (39, 512)], None, [False, True]),
  ([(40, 512), (39, 512)], False, [False]),
  # Much fewer channels in one stream are no other length.
  ([(128, 32), (128, 20)], None, [False]),
  ([(40, 1024), (40, 512)], None, [False]),
])  # fmt: skip
def test_streams_of_nearly_one_length(shapes, given, expected):
  assert feature_files.ways_round([shapes] * 4, given=given) == expected


def test_streams_of_nearly_one_length_are_predicted_as_they_were_prepared():
  rgb, flow = (
    np.random.default_rng(i).normal(size=(40 - i, 3)).astype(np.float32)
    for i in range(2)
  )
  for streams in ([rgb, flow], [rgb.T, flow.T]):
    video = feature_files.make_video('v', streams, 9.0, shape=(20, 6))
    for i, stream in enumerate((rgb, flow)):
      part = video.feature[:, 3 * i : 3 * i + 3]
      np.testing.assert_array_equal(part, resampling.resample(stream, 20))
    assert np.isnan(video.fps)  # nothing tells it


MATRIX = np.ones((40, 16), np.float32)


@pytest.mark.parametrize(('arrays', 'count'), [
  ({'arr_0': MATRIX}, 1),
  ({'features': MATRIX, 'fps': 25.0}, 1),
  ({'feature': MATRIX, 'name': np.array('a')}, 1),
  ({'rgb': MATRIX}, 1),
  ({'rgb': MATRIX, 'flow': MATRIX[1:]}, 2),
  ({'feat_spa': MATRIX}, 0),  # half of a pair
  ({'a': MATRIX, 'b': MATRIX}, 0),
  ({'fps': 25.0}, 0),
])  # fmt: skip
def test_an_npz_of_one_matrix_or_of_plain_words(tmp_path, arrays, count):
  path = files.path(tmp_path / 'v.npz')
  np.savez(path, **arrays)
  if count:
    assert len(feature_files.read(path).streams) == count
  else:
    with pytest.raises(errors.InputError, match='v.npz: holds .*one matrix'):
      feature_files.read(path)


@pytest.mark.parametrize(('argv', 'name', 'files_'), [
  (['--name', '-0kV3fG4bXo'], '-0kV3fG4bXo', None),
  (['--name=-0kV3fG4bXo'], '-0kV3fG4bXo', None),
  (['--name=--V3fG4bXo'], '--V3fG4bXo', None),
  (['--files', '-a', 'b', '-1', '--name', '-x'], '-x', ['-a', 'b', '-1']),
])  # fmt: skip
def test_values_may_begin_with_a_dash(argv, name, files_):
  parser = command_line.Parser(prog='x')
  parser.add_argument('--name')
  parser.add_argument('--files', nargs='+')
  found = parser.parse_args(argv)
  assert (found.name, found.files) == (name, files_)
  with pytest.raises(SystemExit, match='--option=VALUE'):
    parser.parse_args(['--name', '--V3fG4bXo'])
  with pytest.raises(SystemExit, match='unrecognized'):
    parser.parse_args(['--nam', 'x'])


@pytest.mark.parametrize('target', ['shared/x', 'absent/x', '{}/shared/x'])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, target):
  (tmp_path / 'shared').mkdir()
  (tmp_path / 'shared/x').write_text('old')
  target = tmp_path / target.format(tmp_path)
  link = files.path(tmp_path / 'link')
  os.symlink(os.path.relpath(target, tmp_path), link)
  files.write_json(link, [1])
  assert os.path.islink(link)
  assert json.loads(target.read_text()) == [1]
  assert not [*tmp_path.glob('.*')] and not [*target.parent.glob('.*')]


@pytest.mark.parametrize('name', ['x' * 250 + '.json', 'é' * 125 + '.json'])
def test_names_may_be_as_long_as_they_can_be(tmp_path, name):
  files.write_json(files.path(tmp_path / name), [1])
  assert json.loads((tmp_path / name).read_text()) == [1]


def test_no_way_to_a_file_is_one_line(tmp_path):
  (tmp_path / 'file').write_text('x')
  os.symlink('nowhere', tmp_path / 'link')
  for name in ('file', 'link'):
    with pytest.raises(errors.InputError, match=f'{name}: .*expected a folder'):
      files.write_json(files.path(tmp_path / name / 'x.json'), 1)
  assert sorted(os.listdir(tmp_path)) == ['file', 'link']


def test_names_that_are_no_text_are_one_line(tmp_path):
  name = os.fsdecode(b'caf\xe9')
  with (
    pytest.raises(SystemExit, match='not UTF-8, expected a name that is'),
    errors.one_line(),
  ):
    files.write_json(files.path(tmp_path / 'x.json'), {'video': name})


@pytest.mark.parametrize(('name', 'endings', 'right'), [
  ('a.json', ('.json',), True),
  ('a.JSON', ('.json',), True),
  ('a', ('.json',), True),
  ('a.v2', ('.json',), True),
  ('a.csv', ('.json',), False),
  ('a.json', ('.csv',), False),
  ('a.pdf', ('.png',), False),
  ('a.eaf', ('.csv', '.json'), False),
  ('data/HAPT', (), True),
  ('data/root.v2', (), True),
  ('root.npz', (), False),
])  # fmt: skip
def test_an_ending_says_what_is_written(name, endings, right):
  if right:
    files.require_ending(files.path(name), *endings)
  else:
    with pytest.raises(errors.InputError, match=f'{name}: ends in .*expected'):
      files.require_ending(files.path(name), *endings)


@pytest.mark.parametrize(('time', 'expected'), [
  (80.0, 80.0), (80.05, 80.0), (80.1, 80.0), (80.2, None),
])  # fmt: skip
def test_a_click_on_the_last_picture_is_at_the_end(tmp_path, time, expected):
  truth = make_truth(make_video('v', 'train', 80.0, 25.0))
  path = files.path(tmp_path / 'c.csv')
  path.write_text(f'video_id,time,label,annotator\nv,{time},background,a\n')
  if expected is None:
    with pytest.raises(errors.InputError, match='the video ends at 80 s'):
      annotations.read_clicks(path, truth)
  else:
    ((click,), _) = annotations.read_clicks(path, truth)
    assert click.time == expected


@pytest.mark.parametrize('name', ['v.npy', 'v.npz'])
def test_a_header_with_a_nul_is_damage(tmp_path, name, monkeypatch):
  path = files.path(tmp_path / name)
  (np.save if name == 'v.npy' else np.savez)(path, MATRIX)
  damaged = path.read_bytes().replace(b"'descr'", b"'de\0cr'")
  path.write_bytes(damaged)
  with pytest.raises(errors.InputError, match='not a whole'):
    feature_files.read(path)

  def fail(*_, **__):  # as Python from 3.12 on
    raise SystemError('source code string cannot contain null bytes')

  np.save(path.with_suffix('.npy'), MATRIX)
  monkeypatch.setattr(np, 'load', fail)
  with pytest.raises(errors.InputError, match='not a whole'):
    feature_files.read(path.with_suffix('.npy'))
  assert SystemError in npz.DAMAGED


@pytest.fixture
def nameless(monkeypatch):
  """Make all users nameless, as a container does."""

  def absent(number):
    raise KeyError(f'getpwuid(): uid not found: {number}')

  monkeypatch.setattr(pwd, 'getpwuid', absent)


def test_owners_need_no_name(nameless, tmp_path):
  path = files.path(tmp_path / 'x')
  assert files.modified(path) == 0
  path.write_text('x')
  assert files.modified(path) == os.path.getmtime(path)
  with builder._nameless_owners():
    assert path.stat().length == 1
  with pytest.raises(KeyError):
    path.stat()


def test_there_may_be_no_home(nameless, monkeypatch):
  for name in ('HOME', 'XDG_CACHE_HOME'):
    monkeypatch.delenv(name, raising=False)
  assert files.cache('xla') is None
  with pytest.raises(errors.InputError, match='no home folder; set HOME'):
    files.path('~/x')
  monkeypatch.setenv('XDG_CACHE_HOME', '/tmp/cache')
  assert files.cache('xla') == files.path('/tmp/cache/backtal_jax/xla')


def test_one_duration_is_for_files_of_one_length(tmp_path):
  paths = [files.path(tmp_path / f'{name}.npy') for name in 'abc']
  for path, count in zip(paths, (50, 50, 500), strict=True):
    np.save(path, np.ones((count, 16)))
  feature_files.require_one_length(paths[:2], 50.0)
  with pytest.raises(errors.InputError, match='a.npy .*c.npy .*--video_list'):
    feature_files.require_one_length(paths, 50.0)
  # What tells its own has no say.
  own = files.path(tmp_path / 'd.npz')
  np.savez(own, feats=np.ones((9, 16)), duration=3.0)
  feature_files.require_one_length([paths[0], own], 50.0)
