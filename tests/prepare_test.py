"""Tests of `prepare custom`: any features, annotations and clicks."""

import contextlib
import json
import pathlib
import re
import shlex
import shutil

import kills
import numpy as np
import pytest
from etils import epath
from etils.epath import backend, gpath

from backtal_jax import IGNORED, errors, files
from backtal_jax.data import annotations, sources
from backtal_jax.prepare import __main__ as prepare
from backtal_jax.prepare import custom, options, run_config

TRUTH = {
  'database': {
    'v_a': {
      'subset': 'training', 'duration': 10.0, 'fps': 10.0,
      'annotations': [{'label': 'run', 'segment': [2.0, 4.0]}],
    },
    'b': {
      'subset': 'training', 'duration': 8.0, 'fps': 10.0,
      'annotations': [{'label': 'jump', 'segment': [1.0, 2.0]}],
    },
    'c': {
      'subset': 'validation', 'duration': 6.0, 'fps': 10.0,
      'annotations': [{'label': 'run', 'segment': [0.0, 3.0]}],
    },
  },
  'activity_list': ['run', 'jump'],
}  # fmt: skip
CLICKS = 'video_id,time,label,annotator\na,5.1,background,x\nb,1.5,jump,y\n'


SECONDS = {'a': 10, 'b': 8, 'c': 6}


@pytest.fixture
def given(tmp_path):
  """Write a snippet a second of features that tell their time, and the rest."""
  for name, seconds in SECONDS.items():
    rows = np.arange(seconds, dtype=np.float32)[:, None] + 0.5
    write(tmp_path / f'features/{name}.npy', rows * [1, 2, -1])
  (tmp_path / 'truth.json').write_text(json.dumps(TRUTH))
  (tmp_path / 'clicks.csv').write_text(CLICKS)
  return tmp_path


def write(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  np.save(path, array)


@contextlib.contextmanager
def edited(root):
  """Yield the database of truth.json, and write it."""
  truth = json.loads((root / 'truth.json').read_text())
  yield truth['database']
  (root / 'truth.json').write_text(json.dumps(truth))


def recipe(root, **changed):
  return options.Recipe(
    **{
      'features': (str(root / 'features'),),
      'ground_truth': str(root / 'truth.json'),
      'clicks': (str(root / 'clicks.csv'),),
      'output': str(root / 'out'),
      'num_snippets': 5,
      'fps': 10.0,
      'stride': 10.0,
    }
    | changed
  )


def run(root, **changed):
  return custom.prepare(recipe(root, **changed))


def labelled(rows, header='video_id,subset,label'):
  """Return what writes labels.csv, and names it."""

  def put(root):
    (root / 'labels.csv').write_text(f'{header}\n{rows}\n')
    return {'labels': str(root / 'labels.csv')}

  return put


def source(root, split, number=''):
  return sources.NpzSource(root / f'out{number}' / split, (5, 3, 2))


def assert_same_features(root, number):
  made = source(root, 'training'), source(root, 'training', number)
  for ours, theirs in zip(*made, strict=True):
    np.testing.assert_array_equal(ours.feature, theirs.feature)


def contents(folder):
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for p in pathlib.Path(folder).rglob('*')
    if p.is_file()
  }


def test_values_by_hand(given):
  assert run(given) == {'training': 2, 'validation': 1}
  b, a = source(given, 'training')
  assert (a.name, b.name) == ('v_a', 'b')
  # Five parts of 10 s are centred at 1, 3 … 9 s, and features are times.
  np.testing.assert_allclose(a.feature[:, 0], [1, 3, 5, 7, 9], rtol=1e-6)
  np.testing.assert_allclose(b.feature[:, 2], [-0.8, -2.4, -4, -5.6, -7.2],
                             rtol=1e-6)  # fmt: skip
  np.testing.assert_array_equal(a.label, [1, 0])
  np.testing.assert_array_equal(b.label, [0, 1])
  np.testing.assert_array_equal(
    a.click, [IGNORED, IGNORED, 2, IGNORED, IGNORED]
  )
  np.testing.assert_array_equal(b.click, [1] + [IGNORED] * 4)
  assert (a.frame_num, a.fps, a.duration) == (100, 10.0, 10.0)
  (c,) = source(given, 'validation')
  assert (c.click == IGNORED).all()
  truth = annotations.read_ground_truth(given / 'out/ground_truth.json')
  assert truth == annotations.read_ground_truth(given / 'truth.json')
  # The config is ready to run.
  config = run_config.read(str(given / 'out/config.py'))
  assert config.splits == ('training', 'validation')
  assert config.shape == (5, 3, 2)


def test_subsets_may_stand_in_the_labels_alone(given):
  # mmaction2's form: no "database", no subsets.
  bare = {
    name: {'annotations': v['annotations'], 'duration_second': v['duration']}
    for name, v in TRUTH['database'].items()
  }
  (given / 'truth.json').write_text(json.dumps(bare))
  match = "truth.json: video 'v_a' tells no"
  with pytest.raises(errors.InputError, match=match):
    run(given)
  rows = 'a,training,run\nb,training,jump\nc,validation,run'
  made = run(given, **labelled(rows)(given))
  assert made == {'training': 2, 'validation': 1}


def test_other_forms_give_the_same(given):
  run(given)
  expected = contents(given / 'out/training')
  arrays = {n: np.load(given / f'features/{n}.npy') for n in 'abc'}
  (given / 'other').mkdir()
  for n, x in arrays.items():
    np.savez(given / f'other/v_{n}.npz', feats=x)
    write(given / f'first/{n}.npy', x.T)
    write(given / f'splits/{_split(n)}/{n}.npy', x)
    write(given / f'rgb/{n}.npy', x[:, :1])
    write(given / f'flow/{n}.npy', x[:, 1:])
  joint = np.empty(3, object)
  joint[:] = [x.astype(object) for x in arrays.values()]
  np.save(given / 'joint.npy', joint, allow_pickle=True)
  np.save(given / 'names.npy', np.array([b'a', b'b', b'c']))
  for i, (paths, changed) in enumerate((
    (['other'], {}),
    (['first'], {'channels_first': True}),
    (['splits'], {}),
    (['joint.npy'], {'allow_pickle': True,
                     'video_names': str(given / 'names.npy')}),
    (['rgb', 'flow'], {}),
  )):  # fmt: skip
    output, paths = given / f'out{i}', tuple(f'{given}/{p}' for p in paths)
    run(given, features=paths, output=str(output), **changed)
    if len(paths) == 1:
      assert contents(output / 'training') == expected
    else:  # The streams lie side by side.
      assert_same_features(given, i)


@pytest.mark.parametrize(('joint', 'match'), [
  (lambda p: np.save(p, {'a': np.ones((10, 3))}), 'one object'),
  (lambda p: p.write_bytes(b'\x80\x02cnowhere\nnothing\n.'), 'unpickled'),
  (lambda p: p.write_bytes(b'no pickle'), 'unpickled'),
])  # fmt: skip
def test_wrong_files_of_all_videos(given, joint, match):
  joint(given / 'joint.npy')
  np.save(given / 'names.npy', np.array(['a']))
  changed = {
    'features': (str(given / 'joint.npy'),),
    'video_names': str(given / 'names.npy'),
  }
  with pytest.raises(errors.InputError, match='--allow-pickle reads them'):
    run(given, **changed)
  with pytest.raises(errors.InputError, match=f'joint.npy: .*{match}'):
    run(given, allow_pickle=True, **changed)


def save_all(root, shape, folder='features'):
  """Write features of a, b and c; `shape` is one, or a function of seconds."""
  for name, seconds in SECONDS.items():
    found = shape(seconds) if callable(shape) else shape
    array = np.random.default_rng(seconds).normal(size=found)
    write(root / folder / f'{name}.npy', array)


def feature_dim(root):
  return run_config.read(str(root / 'out/config.py')).shape[1]


@pytest.mark.parametrize(('shape', 'changed', 'expected'), [
  # Channels are what all videos have in common.
  (lambda t: (3, t), {}, 3),
  (lambda t: (t, 3), {}, 3),
  (lambda t: (3, t), {'stride': None}, 3),
  # The same length in all: the preset's D, the time grid or T decide.
  ((2048, 30), {'stride': None, 'feature_dim': 2048}, 2048),
  ((30, 2048), {'stride': None, 'feature_dim': 2048}, 2048),
  ((32, 100), {'stride': None, 'num_snippets': 100}, 32),
  ((100, 32), {'stride': None, 'num_snippets': 100}, 32),
  # Said.
  ((32, 7), {'stride': None, 'channels_first': True}, 32),
  ((32, 7), {'stride': None, 'channels_first': False}, 7),
  ((7, 7), {'stride': None, 'channels_first': False}, 7),
])  # fmt: skip
def test_channels_are_told_from_snippets(given, shape, changed, expected):
  save_all(given, shape)
  run(given, **changed)
  assert feature_dim(given) == expected


def test_the_time_grid_tells_channels_from_snippets(given):
  with edited(given) as videos:
    for entry in videos.values():
      entry['duration'] = 10.0
  save_all(given, (24, 10))
  run(given)
  assert feature_dim(given) == 24


def test_streams_of_other_widths_tell_channels_from_snippets(given):
  save_all(given, (8, 7), 'rgb')
  save_all(given, (4, 7), 'flow')
  both = str(given / 'rgb'), str(given / 'flow')
  run(given, features=both, stride=None)
  assert feature_dim(given) == 12


def _split(name):
  return 'test' if name == 'c' else 'train'


@pytest.mark.parametrize('place', [
  lambda name, stream: f'{_split(name)}/{stream}/{name}',
  lambda name, stream: f'{stream.upper()}/{name}',
  lambda name, stream: f'{stream}/{_split(name)}/{name}',
  lambda name, stream: f'{name}_{stream}',
  lambda name, stream: f'{_split(name)}/{name}-{stream}',
])  # fmt: skip
def test_trees_of_known_extractors_are_read(given, place):
  for name in 'abc':
    x = np.load(given / f'features/{name}.npy')
    # Axes of one element, as global pooling and batches leave them.
    write(given / f'tree/{place(name, "rgb")}.npy', x[:, None, None, :1])
    write(given / f'tree/{place(name, "flow")}.npy', x[None, :, 1:])
  run(given)
  run(given, features=(f'{given}/tree',), output=str(given / 'out2'))
  assert_same_features(given, 2)


def test_video_labels_only(given):
  with edited(given) as videos:
    del videos['v_a'], videos['b']
  rows = 'a,training,run\na,training,jump\nb,training,jump'
  run(given, **labelled(rows)(given))
  a, b = source(given, 'training')
  np.testing.assert_array_equal([a.label, b.label], [[1, 1], [0, 1]])
  assert a.duration == 10.0  # of the time grid
  np.testing.assert_array_equal(a.click, [IGNORED] * 2 + [2] + [IGNORED] * 2)


def saved(*args, **kwargs):
  """Return what puts an array in the place of the features of a."""
  return lambda root: np.save(root / 'features/a.npy', *args, **kwargs)


@pytest.mark.parametrize(('spoil', 'match'), [
  (lambda r: (r / 'features/b.npy').unlink(), "'b' has no features"),
  (saved(np.ones((0, 3))), 'a.*2 snippets'),
  (saved(np.ones((1, 3))), 'a.*2 snippets'),
  (saved(np.ones(3)), 'a.npy: features have'),
  (saved(np.ones((10, 4))), 'most have 3'),
  (saved(np.full((10, 3), np.nan)), '30 NaN'),
  (saved(np.ones((30, 3))), 'end at 30 s'),
  (saved(np.full((10, 3), -1e39)),
   r"'v_a': features hold 30 values beyond float32, up to 1e\+39"),
  (saved(np.ones((2, 10, 3))), r'shape \(2, 10, 3\)'),
  (lambda r: (r / 'features/a.npy').write_bytes(b''), 'a.npy: not a whole'),
  (saved(np.array([[1, 2]], object), allow_pickle=True), 'allow-pickle'),
])  # fmt: skip
def test_wrong_videos_are_told_and_left_out_if_lenient(given, capsys, spoil,
                                                       match):  # fmt: skip
  spoil(given)
  with pytest.raises(errors.InputError, match=match):
    run(given)
  assert not (given / 'out/config.py').exists()
  capsys.readouterr()
  counts = run(given, lenient=True)
  assert counts == {'training': 1, 'validation': 1}
  assert capsys.readouterr().err.count('left out') == 1


def test_every_video_without_a_rate_is_listed(given, capsys):
  with edited(given) as videos:
    del videos['v_a']['fps'], videos['b']['fps']
  with pytest.raises(errors.InputError, match='1 of 2 problems'):
    run(given, fps=None)
  told = capsys.readouterr().err
  assert "'v_a': no fps" in told and "'b': no fps" in told


@pytest.mark.parametrize(
  ('truth_fps', 'table_fps', 'click_fps'),
  [(25.0, 10.0, None), (None, 25.0, None), (None, None, 25.0)],
)
def test_frames_of_clicks_count_at_the_rate_of_the_video(
  given, truth_fps, table_fps, click_fps
):
  """Not at that of the features, ten a second."""
  with edited(given) as videos:
    for video in videos.values():
      video['fps'] = truth_fps
      if truth_fps is None:
        del video['fps']
  if table_fps:
    record = {'fps': 10.0, 'stride': 10, 'window': 10, 'weights': {}}
    (given / 'features/features.json').write_text(json.dumps(record))
    rows = [f'{name},{s},{table_fps}\n' for name, s in SECONDS.items()]
    table = 'video_id,duration,fps\n' + ''.join(rows)
    (given / 'features/videos.csv').write_text(table)
  (given / 'clicks.csv').write_text(
    'class,start_frame,stop_frame,video_id,point\nrun,1,90,a,80\n'
  )
  run(given, click_fps=click_fps)
  written = (given / 'out/clicks.csv').read_text().splitlines()
  assert written[1].startswith('v_a,3.2,run,')


def test_features_nobody_annotated_are_counted_and_listed(given, capsys):
  with edited(given) as videos:
    videos['d'] = {'subset': 'testing', 'duration': 4.0}
  for name in ('v_d', 'x', 'y'):
    write(given / f'features/{name}.npy', np.ones((4, 3)))
  run(given)
  told = capsys.readouterr()
  assert '2 of 6 videos with features have no annotation: x, y' in told.err
  assert '1 of 6 videos with features are in neither' in told.err
  assert '2 videos of training, 2 clicks' in told.out
  assert '2 clicks on 2 of 2 training videos (annotators x, y)' in told.out


def test_official_files_in_nested_folders(given):
  for path, text in (
    ('anno/val/Run_val.txt', 'a 2 4\nb 1 2\n'),
    ('anno/test/Run_test.txt', 'c 0 3\n'),
  ):
    (given / path).parent.mkdir(parents=True)
    (given / path).write_text(text)
  (given / 'list.csv').write_text('video_id,duration\na,10\nb,8\nc,6\n')
  changed = {
    'ground_truth': str(given / 'anno'), 'train_split': 'val',
    'video_list': str(given / 'list.csv'), 'eval_split': 'test', 'clicks': (),
  }  # fmt: skip
  assert run(given, **changed) == {'val': 2, 'test': 1}
  (given / 'anno/val/Run_val.txt').write_text('a 2 5\nb 1 2\n')
  with pytest.raises(errors.InputError, match='annotations was'):
    run(given, **changed)


class Bucket:
  """A folder as gs://bucket, reached as a bucket is, by TensorFlow's files."""

  def __init__(self, folder):
    self._folder = f'{folder}/'

  def __getattr__(self, name):
    def call(*paths, **options):
      found = getattr(backend.tf_backend, name)(
        *(str(p).replace('gs://bucket/', self._folder) for p in paths),
        **options,
      )
      if name == 'glob':
        return [p.replace(self._folder, 'gs://bucket/') for p in found]
      return found

    return call


def test_everything_in_a_bucket(given, monkeypatch, capsys):
  run(given)
  expected = contents(given / 'out')
  monkeypatch.setattr(
    gpath._GPath,
    '_backend',
    property(
      lambda path: Bucket(given) if path._uri_scheme else backend.os_backend
    ),
  )
  root = epath.Path('gs://bucket')
  run(root, output='gs://bucket/again')
  run(root, output='gs://bucket/again')
  found = contents(given / 'again')
  config = found.pop('config.py').decode()
  assert "c.data.root = 'gs://bucket/again'" in config
  for name in ('config.py', 'prepared.json'):  # both name the folder
    expected.pop(name)
    found.pop(name, None)
  assert found == expected
  prepare.main(
    ['check', 'gs://bucket/again', '--config', str(given / 'again/config.py')]
  )
  assert '0 problems' in capsys.readouterr().out
  again = epath.Path('gs://bucket/again/training')
  source = sources.NpzSource(again, (5, 3, 2))
  assert [video.name for video in source] == ['b', 'v_a']


def test_wrong_clicks_are_told_with_the_wrong_videos(given, capsys):
  (given / 'clicks.csv').write_text(f'{CLICKS}a,11,background,x\nz,1,run,x\n')
  (given / 'features/b.npy').unlink()
  with pytest.raises(errors.InputError, match='1 of 3 problems'):
    run(given)
  first, second, third = capsys.readouterr().err.splitlines()
  assert "'b' has no" in first
  assert 'clicks.csv:4: the time is 11 s, the video ends at 10 s' in second
  assert "clicks.csv:5: video 'z' is not in the ground truth" in third
  run(given, lenient=True)
  clicks, _ = annotations.read_clicks(given / 'out/clicks.csv')
  assert len(clicks) == 2


def shaped(shape, **changed):
  return lambda root: save_all(root, shape) or changed


def placed(place):
  """Return what puts features into a tree; `place` is of a name."""

  def put(root):
    for name in 'abc':
      write(root / f'tree/{place(name)}.npy', np.ones((6, 3)))
    return {'features': (str(root / 'tree'),)}

  return put


def recorded(record):
  def put(root):
    (root / 'features/features.json').write_text(json.dumps(record))

  return put


def renamed(root):
  for path in (root / 'features').iterdir():
    path.rename(path.with_stem(f'other_{path.stem}'))


def clicked_on_c(root):
  head, *_ = CLICKS.splitlines()
  (root / 'clicks.csv').write_text(f'{head}\nc,1,background,x\n')


@pytest.mark.parametrize(('spoil', 'match'), [
  # Channels that cannot be told from snippets.
  (shaped((32, 7), stride=None), 'cannot tell snippets.*--channels_first if'),
  (shaped((5, 5), stride=None), 'cannot tell'),
  (shaped((2048, 2048), stride=None, feature_dim=2048), 'cannot tell'),
  (shaped(lambda t: (t, 3), channels_first=True),
   r"only as \[T', D\], but ch"),
  (shaped(lambda t: (3, t), channels_first=False),
   r"only as \[D, T'\], but no-"),
  # Wrong trees.
  (placed(lambda n: f'train/{"rgb/" * (n != "a")}{n}'),
   'in no folder rgb or flow'),
  (placed(lambda n: f'{"rgb" if n != "a" else "flow"}/{n}'),
   'only in the other'),
  (placed(lambda n: f'{n}/a'), "duplicate video 'a'"),
  # Names.
  (lambda r: write(r / 'features/v_a.npy', np.ones((10, 3))),
   'duplicate video'),
  (renamed, 'none of the 3 videos'),
  (lambda r: {'eval_split': 'testing'}, 'has no videos'),
  (clicked_on_c, 'none of the 1 clicks is on one of the 2 training videos'),
  # Labels.
  (labelled('a,run', 'video_id,label'), 'expected video_id,subset,label'),
  (labelled('a,training,swim'), "'swim' is unknown"),
  (labelled('a,t,run\na,t,run'), 'duplicate label'),
  (labelled('a,t,run\na,u,jump'), 'duplicate video'),
  (labelled('a,t,run,x', 'video_id,subset,label,duration'), 'finite number'),
  (labelled(',t,run'), 'no video'),
  (labelled('a,training,run\nA,training,jump'), "'a' and 'A' are one in"),
  # The record of the features.
  (recorded([1]), 'features.json: no record of features'),
  (recorded({'window': 16, 'stride': 'x', 'fps': 25}),
   "features.json: stride is 'x', expected a n"),
  (recorded({'window': 16, 'fps': 25}),
   'features.json: stride is None, expected a number'),
])  # fmt: skip
def test_what_lenient_does_not_forgive(given, spoil, match):
  changed = spoil(given) or {}
  with pytest.raises(errors.InputError, match=match):
    run(given, lenient=True, **changed)
  assert not (given / 'out').exists()


def test_made_otherwise_is_not_mixed_but_made_anew_if_asked(given):
  run(given)
  before = contents(given / 'out')
  with pytest.raises(errors.InputError, match='num_snippets was 5, is 6'):
    run(given, num_snippets=6)
  (given / 'clicks.csv').write_text(CLICKS + 'a,1,run,x\n')
  with pytest.raises(errors.InputError, match='annotations was'):
    run(given)
  assert contents(given / 'out') == before
  run(given, overwrite=True)
  _, a = source(given, 'training')
  assert a.click.tolist() == [0, IGNORED, 2, IGNORED, IGNORED]
  # Nor are files of somebody else.
  (given / 'out/prepared.json').unlink()
  with pytest.raises(errors.InputError, match='made otherwise.*--overwrite'):
    run(given)


def test_a_root_of_any_name_is_made_anew(given):
  (given / 'features').rename(given / 'f [v2]')
  for count in (10, 20):
    run(given, features=(f'{given}/f [v2]',), output=f'{given}/out [v2]',
        num_snippets=count, overwrite=True)  # fmt: skip
    folder = files.path(given / 'out [v2]/training')
    assert len(sources.NpzSource(folder, (count, 3, 2))[0].feature) == count


@pytest.mark.parametrize('name', ['a"""b', 'back\\slash', "it's $HOME"])
def test_any_name_of_a_root_makes_a_config_and_a_command(given, capsys, name):
  run(given, output=str(given / name))
  *_, line = capsys.readouterr().out.splitlines()
  path = given / name / 'config.py'
  assert shlex.split(line)[-2:] == ['--config', str(path)]
  assert run_config.read(str(path)).shape == (5, 3, 2)


def test_what_is_whole_is_not_redone(given):
  run(given)
  path = given / 'out/training/b.npz'
  before, kept = path.stat().st_mtime_ns, contents(given / 'out')
  (given / 'out/training/v_a.npz').unlink()
  (given / 'out/training/.v_a.npz.1.ab.tmp').write_bytes(b'torn')
  run(given)
  assert path.stat().st_mtime_ns == before
  assert contents(given / 'out') == kept


def test_killed_at_random_moments_is_the_same(given):
  rng = np.random.default_rng(0)
  shutil.rmtree(given / 'features')
  with edited(given) as videos:
    videos.clear()
    for i in range(60):
      write(given / f'features/k{i}.npy', rng.normal(size=(10, 100)))
      videos[f'k{i}'] = TRUTH['database']['v_a']
    videos['k0'] = TRUTH['database']['c'] | {'duration': 10.0}
  args = recipe(given, clicks=(), num_snippets=200, workers=2)
  code = (
    'import dataclasses, sys\n'
    'from backtal_jax.prepare import custom, options\n'
    f'recipe = options.{args!r}\n'
    'work = lambda output: custom.prepare('
    'dataclasses.replace(recipe, output=output))'
  )
  kills.run(code, given)


def command(name, *flags, **options):
  prepare.main([name, *flags, *(f'--{k}={v}' for k, v in options.items())])


def test_command_line(given, capsys):
  options = {
    'features': given / 'features', 'ground_truth': given / 'truth.json',
    'output': given / 'out',
  }  # fmt: skip
  clicks = given / 'clicks.csv'
  command('custom', **options, clicks=clicks, num_snippets=5, stride=10)
  assert 'config.py' in capsys.readouterr().out
  assert len(source(given, 'training')) == 2
  with pytest.raises(SystemExit, match='holds data made otherwise'):
    command('hacs', **options)


# Which is right.
_CUSTOM = 'custom --features features --ground_truth truth.json --output y'


@pytest.mark.parametrize(('line', 'match'), [
  ('check x --config none.py', '--config: no such file: none.py'),
  ('check x --config a:b/c.py', 'no such file: a; what follows a colon is'),
  ('check x --config bad.py', 'bad.py: no config.*division'),
  ('check x --config int.py', 'int.py: no config file'),
  ('check x --config out/config.py', 'no such file, nor x/ground'),
  ('tfds x --config out/config.py', 'x/training: no such folder'),
  ('demo --output y --seed=-1', '--seed: -1, expected 0'),
  ('custom --features none --ground_truth truth.json --output y',
   'none: no such folder or file'),
  ('custom --features truth.json --ground_truth truth.json --output y',
   'truth.json: no folder; .*--video_names'),
  (f'{_CUSTOM} --workers=0', '--workers is 0'),
  ('custom --features features --output y', 'expected --g'),
  # What would be ignored.
  (f'{_CUSTOM} --window 16', '--window means nothing without --stride'),
  (f'{_CUSTOM} --intervals midpoint', '--intervals means nothing without --cl'),
  (f'{_CUSTOM} --video_names n.npy', 'features: a folder, .*expected no --vid'),
  (f'{_CUSTOM} --clicks clicks.csv clicks.csv', 'clicks.csv: named twice'),
  ('agreement --clicks clicks.csv clicks.csv', 'clicks.csv twice'),
  ('simulate-clicks --ground_truth truth.json --subset training --output '
   'y --actions --margin 1', '--margin is of background'),
  ('convert-clicks --clicks clicks.csv --output y.csv --suffix .mkv',
   'names no files of videos; no --suffix'),
  ('convert-clicks --clicks clicks.csv --output y.json --suffix mkv',
   '--suffix: mkv, expected an ending like .mp4'),
  ('convert-segments --segments truth.json --output y.csv --suffix .mkv',
   'names no files of videos; no --suffix'),
  ('convert-segments --segments truth.json --output y.csv --subset test',
   'will be no ground truth; no --subset'),
])  # fmt: skip
def test_wrong_arguments_are_one_line(given, monkeypatch, line, match):
  run(given)
  monkeypatch.chdir(given)
  pathlib.Path('bad.py').write_text('1/0')
  pathlib.Path('int.py').write_text('def get_config():\n  return 3')
  with pytest.raises(SystemExit, match=match) as e:
    prepare.main(line.split())
  assert '\n' not in str(e.value) and not pathlib.Path('y').exists()


def test_a_list_of_videos_serves_labels_alone(given):
  (given / 'list.csv').write_text('video_id;duration;fps\na;0:10;10\nb;8;10\n')
  labels = labelled('a,training,run\nb,training,jump')(given)
  run(given, **labels, ground_truth='', stride=None, fps=None,
      video_list=str(given / 'list.csv'))  # fmt: skip
  assert source(given, 'training')[0].duration == 10


def test_what_is_odd_in_the_annotations_is_noted(given, capsys):
  with edited(given) as videos:
    videos['b']['annotations'] += [
      {'label': 'jump', 'segment': [4, 3]}, {'label': 'jump', 'segment': [7, 9]}
    ]  # fmt: skip
  run(given)
  told = capsys.readouterr().out
  assert 'note: ' in told and "1 of kind 'end <= start': b: jump 4-3 s" in told
  assert "1 of kind 'beyond duration': b: jump 7-9 s of 8 s" in told
  truth = annotations.Annotations({}, ('Run', 'jump', 'run'), 'g.json')
  annotations.note(truth)
  told = capsys.readouterr().out
  assert told == (
    "note: g.json: 1 of kind 'classes that differ by case alone': Run and run\n"
  )


def test_evaluating_on_training_videos_is_told(given, capsys):
  run(given, eval_split='Training')
  assert 'will be of videos that are trained on' in capsys.readouterr().err


def test_names_with_folders_become_files_of_their_split(given):
  with edited(given) as videos:
    videos['day1/a'] = videos.pop('v_a')
  run(given)
  assert source(given, 'training').video_names() == ['b', 'day1/a']
  with edited(given) as videos:
    videos['day1_a'] = videos.pop('b')
  write(given / 'features/day1_a.npy', np.ones((8, 3)))
  with pytest.raises(errors.InputError, match="'day1.a' .*would be one file"):
    run(given, clicks=(), output=str(given / 'out2'))


def test_empty_features_are_told(given):
  save_all(given, (0, 3))
  with pytest.raises(errors.InputError, match='has features .*and a channel'):
    run(given, channels_first=False)
  with pytest.raises(errors.InputError):
    run(given, stride=None)


def test_simulated_clicks_and_their_statistics(given, capsys):
  output, stats = given / 'drawn.csv', given / 'stats.json'
  truth = {'ground_truth': given / 'truth.json'}
  drawn = truth | {'subset': 'training', 'output': output}
  command('simulate-clicks', **drawn)
  command('click-stats', **truth, clicks=output, output=stats)
  # v_a and b have an action with background before and after.
  expected = {'clicks': 4, 'videos': 2, 'inside_action': 0, 'gaps': 4,
              'gaps_hit': 4}  # fmt: skip
  assert json.loads(stats.read_text()) == {str(output): expected}
  command('simulate-clicks', '--actions', **drawn)
  assert '2 clicks on 2 videos' in capsys.readouterr().out


@pytest.mark.parametrize(
  'count, batch_size, num_epochs',
  # At least 4 batches an epoch, 400 steps and 40 epochs.
  [(1, 1, 400), (12, 3, 100), (64, 16, 100), (265, 16, 40), (1000, 16, 40)],
)
def test_a_config_fits_the_number_of_training_videos(
  count, batch_size, num_epochs
):
  text = custom._fit(count)
  assert f'# For {count} training videos.' in text
  found = dict(re.findall(r'^  c\.(\S+) = (\S+)$', text, re.MULTILINE))
  assert found == {
    'model.hidden_dim': '256', 'model.reduce_dim': '128',
    'train.learning_rate': '5e-4', 'train.batch_size': str(batch_size),
    'train.num_epochs': str(num_epochs), 'train.eval_every': '10',
  }  # fmt: skip
  steps = -(-count // batch_size)
  assert steps * num_epochs >= 400


def test_a_config_of_more_videos_than_were_tried_says_so():
  text = custom._fit(1001)
  assert 'no set of 1001 training' in text and 'c.' not in text
