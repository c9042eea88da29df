"""One video: equal to evaluation, any length, and what cannot be used."""

import functools
import json
import shutil

import jax
import numpy as np
import processes
import pytest
from golden import assert_same_segments
from train_test import tiny_config

import backtal_jax
from backtal_jax import (
  IGNORED,
  errors,
  evaluate,
  predict,
  prediction_files,
  train,
)
from backtal_jax.data import demo, npz
from backtal_jax.prepare import hapt
from backtal_jax.report import figures
from backtal_jax.run import checkpoints, sharding
from configs import demo as demo_config
from configs import hapt as hapt_config


@pytest.fixture(scope='module')
def config(demo_root):
  once = {'train.num_epochs': 1, 'train.eval_every': 1}
  return tiny_config(demo_root, **once, mesh=(2,))


@pytest.fixture(scope='module')
def run(config, tmp_path_factory):
  """Train one epoch; return the workdir."""
  workdir = tmp_path_factory.mktemp('runs') / 'run'
  train.train_and_evaluate(config, workdir)
  return workdir


@pytest.fixture(scope='module')
def model(config, run):
  return backtal_jax.load(run, config=config)


@pytest.fixture(scope='module')
def evaluated(run):
  return json.loads((run / 'predictions.json').read_text())['results']


def arrays(root, name):
  """Return an npz of the test split, copied out of the file."""
  found = npz.read(root / 'test' / f'{name}.npz')
  return {key: np.array(value) for key, value in found.items()}


def features(root, name):
  """Return one video's features [D, T]."""
  found = arrays(root, name)
  return np.concatenate([found['feat_spa'], found['feat_tem']])


def link(root, folder, names):
  """Make a folder of some videos of the test split."""
  folder.mkdir()
  for name in names:
    (folder / f'{name}.npz').symlink_to(root / 'test' / f'{name}.npz')
  return folder


@pytest.mark.as_users
def test_some_videos_equal_their_rows_of_the_evaluation(
  config, run, evaluated, demo_root, tmp_path
):
  names = ['test_003', 'test_011', 'test_012']
  folder = link(demo_root, tmp_path / 'some', names)
  output = tmp_path / 'predictions.json'
  prediction_files.write(config, str(run), folder, output)
  found = json.loads(output.read_text())
  assert found['results'] == {name: evaluated[name] for name in names}
  assert list(found) == ['version', 'results', 'external_data']
  assert sum(map(len, found['results'].values())) > 10


@pytest.mark.as_users
def test_one_video_equals_its_rows_of_the_evaluation(
  model, evaluated, demo_root
):
  assert model.classes == demo.CLASSES and model.epoch == 1
  # On the devices of the mesh.
  assert len(jax.tree.leaves(model.params)[0].sharding.device_set) == 2
  for name in ('test_000', 'test_014'):
    feature = features(demo_root, name)
    for either in (feature, feature.T):
      segments = model.predict(either, duration=100, frame_num=1000)
      assert_same_segments(segments, evaluated[name])


@pytest.mark.slow
def test_hapt_clips_equal_their_rows_of_the_evaluation(shared, tmp_path):
  root = tmp_path / 'HAPT'
  hapt.run(shared / 'data' / 'hapt' / 'HAPT Data Set.zip', root)
  clips = sorted(p.stem for p in (root / 'test').iterdir())
  for clip in clips[24:]:  # two of the nine people
    (root / 'test' / f'{clip}.npz').unlink()
  # An untrained network's probabilities nearly tie, so that rounding decides
  # which segment ranks first; its logits do not.
  fields = {'localization.class_threshold': 0.1, 'model.embedding_dim': 32}
  config = tiny_config(root, hapt_config.get_config('published'), **fields)
  _, new_state, _, _ = train.build(config, sharding.make_mesh((1,)))
  with checkpoints.manager(tmp_path / 'run') as manager:
    checkpoints.save(manager, new_state(), epoch=1, value=0)
  evaluate.evaluate(config, tmp_path / 'run', tmp_path / 'out')
  expected = json.loads((tmp_path / 'out/predictions.json').read_text())
  names = ['exp03_user02_00', 'exp08_user04_02']
  output = tmp_path / 'predictions.json'
  folder = link(root, tmp_path / 'some', names)
  prediction_files.write(config, str(tmp_path / 'run'), folder, output)
  found = json.loads(output.read_text())['results']
  assert found == {name: expected['results'][name] for name in names}
  model = predict.load(tmp_path / 'run', config=config)
  for name in names:
    assert len(found[name]) > 3
    told = arrays(root, name)
    segments = model.predict(
      features(root, name),
      duration=float(told['duration']),
      frame_num=int(told['frame_num']),
    )
    assert_same_segments(segments, expected['results'][name])


def test_any_number_of_snippets_is_resampled(model, demo_root):
  feature = features(demo_root, 'test_004')
  short = feature[:, ::3]
  at = (np.arange(100) + 0.5) / 100 * short.shape[1] - 0.5
  stretched = [np.interp(at, np.arange(len(row)), row) for row in short]
  assert_same_segments(
    model.predict(short, duration=50),
    model.predict(np.array(stretched), duration=50),
  )
  # Every snippet four times is the same video.
  feature = np.tile(feature[:, :1], 100)
  assert_same_segments(
    model.predict(feature, duration=50),
    model.predict(np.repeat(feature, 4, axis=1), duration=50),
  )


def test_frames_are_counted_where_no_one_tells(model, demo_root):
  feature = features(demo_root, 'test_001')
  assert_same_segments(
    model.predict(feature, duration=20),
    model.predict(feature, duration=20, frame_num=600),
  )
  # A thousand hours, as somebody gives milliseconds, take no gigabytes.
  segments = model.predict(feature, duration=3.6e6)
  assert max(s['segment'][1] for s in segments) <= 3.6e6


def _holding(value):
  feature = np.zeros((100, 32))
  feature[3, 4:6] = value
  return feature


@pytest.mark.parametrize(
  ('feature', 'message'),
  [
    (np.zeros((31, 100)), r'features: features have shape \(31, 100\), config.'
     'model.feature_dim is 32: neither way round there are 32 channels'),
    (np.zeros((2, 100, 32)),
     r'shape \(2, 100, 32\) of float64, expected numbers in two'),
    (np.zeros((32, 32)),
     r'shape \(32, 32\).*cannot tell snippets from channels, '
     r'\(channels, snippets\) and \(snippets, channels\) both fit'),
    (np.zeros((0, 32)), 'features: 0 snippets, expected 2 or more'),
    (np.zeros((1, 32)), 'features: 1 snippets, expected 2 or more'),
    (_holding(np.nan), '2 NaN or Inf values'),
    (_holding(np.inf), '2 NaN or Inf values'),
  ],
)  # fmt: skip
def test_features_that_cannot_be_used_are_refused(model, feature, message):
  with pytest.raises(errors.InputError, match=message):
    model.predict(feature, duration=10)


@pytest.mark.parametrize('duration', [0, -1, float('nan'), float('inf')])
def test_no_duration_is_refused(model, duration):
  with pytest.raises(errors.InputError, match=r'duration is .*, expected sec'):
    model.predict(np.zeros((100, 32)), duration=duration)


def read(model, path, duration=None):
  return predict.feature_files.read_video(path, duration, shape=model.shape)


def save(path, drop=(), **arrays):
  np.savez(path, **{k: v for k, v in arrays.items() if k not in drop})
  return path


def test_every_form_of_file_is_read_the_same(model, demo_root, tmp_path):
  name = 'train_000'
  lacks = 'cls_label', 'point_label', 'vid_name', 'frame_num', 'fps'
  whole = demo_root / 'train' / f'{name}.npz'
  found = npz.read(whole)
  spa, tem = found['feat_spa'], found['feat_tem']
  expected = np.concatenate([spa, tem]).T
  np.save(tmp_path / 'half.npy', expected.astype(np.float16))
  np.save(tmp_path / 'fortran.npy', np.asfortranarray(expected.T))
  bare = save(tmp_path / 'bare.npz', lacks, **found)
  turned = {'feat_spa': spa.T, 'feat_tem': tem.T}
  for path, told, called, frames, off in (
    (whole, None, name, 1000, 0),
    (bare, None, 'bare', 3000, 0),
    # A file is what its first bytes say.
    (shutil.copy(bare, tmp_path / 'x.dat'), None, 'x', 3000, 0),
    (save(tmp_path / 'o.npz', ('duration',), **found), None, name, 1000, 0),
    (save(tmp_path / 'turned.npz', **turned, duration=100.0, fps=10.0),
     None, 'turned', 1000, 0),
    (tmp_path / 'half.npy', 100, 'half', 3000, 1e-3),
    (tmp_path / 'fortran.npy', 100, 'fortran', 3000, 0),
  ):  # fmt: skip
    video = read(model, path, told)
    assert (video.name, video.frame_num) == (called, frames)
    assert video.duration == 100.0 and video.feature.dtype == np.float32
    np.testing.assert_allclose(video.feature, expected, off, off)
  np.testing.assert_array_equal(read(model, whole).click, found['point_label'])
  assert (read(model, bare).click == IGNORED).all()


def _bad_files(folder, found):
  """Return {path: (what is wrong with it)}."""
  stream = found['feat_spa']
  wide = {'feat_spa': stream[:, :16], 'feat_tem': stream[:, :16],
          'duration': 9.0, 'frame_num': 90}  # fmt: skip
  (folder / 'cut.npz').write_bytes(
    save(folder / 'whole.npz', **found).read_bytes()[:500]
  )
  (folder / 'text.npy').write_text('features')
  np.save(folder / 'object.npy', np.array([{}], object), allow_pickle=True)
  np.save(folder / 'good.npy', np.zeros((100, 32)))
  return {
    folder / 'cut.npz': 'not a whole .npz file',
    folder / 'text.npy': 'not a whole .npy array',
    folder / 'object.npy': 'not a whole .npy array',
    folder / 'good.npy': 'tells no duration; expected one there, or as --dur',
    folder / 'none.npy': 'no such file',
    folder / 'none.npz': 'no such file',
    save(folder / 'a.npz', ('feat_tem',), **found): 'holds cls_label, dur.*'
    'expected feat_spa and feat_tem or feats',
    save(folder / 'b.npz', ('frame_num', 'duration'), **found): 'no duration',
    save(folder / 'd.npz', **wide): r'\(16, 16\) and \(16, 16\).* both fit',
    save(folder / 'e.npz', ('fps',), **found | {'duration': 'long'}):
    'tells no duration',
  }  # fmt: skip


def test_files_that_cannot_be_used_are_named(model, demo_root, tmp_path):
  bad = _bad_files(tmp_path, arrays(demo_root, 'test_000'))
  for path, message in bad.items():
    with pytest.raises(errors.InputError, match=message) as e:
      read(model, path)
    assert str(e.value).startswith(f'{path}: '), message


def test_durations_of_many_files_come_from_a_list(
  config, run, demo_root, tmp_path
):
  output, told = tmp_path / 'predictions.json', tmp_path / 'videos.csv'
  (tmp_path / 'in').mkdir()
  for name, count in (('short', 50), ('long', 100)):
    found = features(demo_root, 'test_003')[:, :count]
    np.save(tmp_path / f'in/{name}.npy', found)
  give = functools.partial(
    prediction_files.write, config, run, tmp_path / 'in', output
  )
  with pytest.raises(errors.InputError, match='expected --video_list'):
    give(duration=50.0)
  told.write_text('video_id,duration\nlong,1000\n')
  with pytest.raises(errors.InputError, match=r'short\.npy: tells no duration'):
    give(video_list=told)
  assert not output.exists()
  told.write_text('video_id,duration\nv_long,1000\nshort.mp4,500\n')
  give(video_list=told)
  results = json.loads(output.read_text())['results']
  ends = {
    name: max(s['segment'][1] for s in rows) for name, rows in results.items()
  }
  assert ends['short'] <= 500 < ends['long'] <= 1000
  with pytest.raises(errors.InputError, match='expected one of them'):
    give(video_list=told, duration=50.0)


def test_the_ending_of_the_output_says_its_form(
  config, run, evaluated, demo_root, tmp_path
):
  names, found = ['test_003', 'test_011'], {}
  folder, told = tmp_path / 'some', tmp_path / 'videos.csv'
  link(demo_root, folder, names)
  told.write_text(
    'video_id,duration,fps,first_picture\n'
    'test_003,100,10,2.5\ntest_011,100,10,0\n'
  )
  give = lambda output, **more: prediction_files.write(
    config, run, folder, tmp_path / output, **more
  )
  with pytest.raises(errors.InputError, match=r'2 videos, .* \{video\}\.vtt'):
    give('all.vtt')
  give('{video}.vtt', video_list=told)
  give('frames.csv', frames=True)
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    'frames.csv', 'some', 'test_003.vtt', 'test_011.vtt', 'videos.csv',
  ]  # fmt: skip
  for name, first in zip(names, (2.5, 0.0), strict=True):
    cues = (tmp_path / f'{name}.vtt').read_text().split('\n\n')[1:]
    starts = [float(cue.split()[1].split(':')[2]) for cue in cues]
    expected = sorted(s['segment'][0] + first for s in evaluated[name])
    assert [x % 60 for x in expected] == pytest.approx(starts, abs=6e-4)
  head, *rows = (tmp_path / 'frames.csv').read_text().splitlines()
  assert head == 'video_id,frame,time,dive,jump,throw,swing,serve'
  assert len(rows) == 2 * 1000  # 100 s at 10 frames a second
  for row in rows:
    name, _, time, *values = row.split(',')
    found.setdefault(name, []).append((float(time), *map(float, values)))
  best = max(s['score'] for s in evaluated['test_003'])
  assert max(max(row[1:]) for row in found['test_003']) == best


def test_folders_that_cannot_be_used_are_refused(
  config, run, demo_root, tmp_path
):
  output = tmp_path / 'predictions.json'
  (tmp_path / 'empty').mkdir()
  with pytest.raises(errors.InputError, match=r'no feature file in it'):
    prediction_files.write(config, run, tmp_path / 'empty', output)
  twice = link(demo_root, tmp_path / 'twice', ['test_000'])
  (twice / 'b.npz').symlink_to(demo_root / 'test' / 'test_000.npz')
  with pytest.raises(errors.InputError, match="two files are video 'test_000'"):
    prediction_files.write(config, run, twice, output)
  with pytest.raises(errors.InputError, match='--preset is of videos, but'):
    prediction_files.write(config, run, twice, output, preset='wtal')
  with pytest.raises(errors.InputError, match='--duration is of features, but'):
    prediction_files.write(config, run, 'a.mp4', output, duration=0.0)
  assert not output.exists()


def test_a_run_is_loaded_where_its_data_is_not(
  run, evaluated, demo_root, tmp_path
):
  copy = shutil.copytree(run, tmp_path / 'run')
  config = json.loads((copy / 'config.json').read_text())
  config['data']['root'] = '/nowhere'
  (copy / 'config.json').write_text(json.dumps(config))
  np.save(tmp_path / 'x.npy', features(demo_root, 'test_005'))
  code = (
    'import sys, json, numpy, backtal_jax\n'
    'model = backtal_jax.load("run")\n'
    'x = numpy.load("x.npy")\n'
    'print(json.dumps(model.predict(x, duration=100.0, frame_num=1000)))\n'
    'slow = {"tensorflow", "matplotlib", "torch"}\n'
    'assert not slow & sys.modules.keys()\n'
    'from backtal_jax import evaluate, train  # they do not draw either\n'
    'slow = {"matplotlib", "jinja2", "scipy.optimize"}\n'
    'assert not slow & sys.modules.keys()\n'
  )
  result = processes.python('-c', code, cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  assert_same_segments(json.loads(result.stdout), evaluated['test_005'])
  (copy / 'classes.json').unlink()
  with pytest.raises(errors.InputError, match=r'ground_truth\.json: no such'):
    backtal_jax.load(copy)
  names = ['a', 'b', 'c', 'd', 'e']
  assert backtal_jax.load(copy, classes=names).classes == tuple(names)
  with pytest.raises(errors.InputError, match=r'4 class names, .* is 5'):
    backtal_jax.load(copy, classes=names[:4])


def test_a_timeline_shows_what_is_known(config, run, demo_root, tmp_path,
                                        monkeypatch):  # fmt: skip
  drawn, draw = {}, figures.timeline

  def timeline(name, duration, **parts):
    drawn[name] = {'duration': duration} | parts
    return draw(name, duration, **parts)

  monkeypatch.setattr(figures, 'timeline', timeline)
  folder = tmp_path / 'some'
  folder.mkdir()
  (folder / 'a.npz').symlink_to(demo_root / 'train' / 'train_002.npz')
  np.save(folder / 'un_known.npy', features(demo_root, 'test_002'))
  c = config.copy_and_resolve_references()
  c.localization.class_threshold = 1.0
  output = tmp_path / 'out' / 'found.json'
  prediction_files.write(c, run, folder, output, duration=50.0, plot=True)
  shown = drawn['train_002']
  annotated = json.loads((demo_root / 'ground_truth.json').read_text())
  annotated = annotated['database']['train_002']['annotations']
  assert shown['ground_truth'] == [
    {'label': a['label'], 'segment': a['segment']} for a in annotated
  ]
  marked = npz.read(demo_root / 'train/train_002.npz')['point_label']
  marked = np.flatnonzero(marked == 5)
  assert len(marked) > 2 and shown['duration'] == 100
  np.testing.assert_allclose(shown['clicks'], marked + 0.5)
  # Nothing is found with this threshold: the likeliest class is shown.
  assert shown['segments'] == []
  assert len(shown['cas']) == 1 and set(shown['cas']) < set(demo.CLASSES)
  assert len(shown['foreground']) == len(shown['magnitude']) == 100
  unknown = drawn['un_known']
  assert len(unknown['ground_truth']) == len(unknown['clicks']) == 0
  pictures = sorted((tmp_path / 'out' / 'found_timelines').iterdir())
  assert [p.name for p in pictures] == ['train_002.png', 'un_known.png']
  for picture in pictures:
    assert picture.read_bytes().startswith(b'\x89PNG')


def test_the_command_prints_the_segments(run, demo_root, tmp_path):
  result = processes.python(
    '-m', 'backtal_jax.main', '--config', demo_config.__file__,
    '--mode', 'predict', '--checkpoint', run,
    '--input', demo_root / 'test' / 'test_000.npz',
    '--output', tmp_path / 'found.json',
    '--config.model.hidden_dim=16', '--config.model.reduce_dim=8',
    '--config.model.embedding_dim=8', f'--config.data.root={demo_root}',
    '--config.localization.class_threshold=0.05', PYTHONIOENCODING='ascii',
  )  # fmt: skip
  assert result.returncode == 0, result.stderr
  found = json.loads((tmp_path / 'found.json').read_text())['results']
  lines = result.stdout.splitlines()
  assert lines[0] == f'test_000  100.0 s  {len(found["test_000"])} segments'
  best = max(found['test_000'], key=lambda s: s['score'])
  start, end = best['segment']
  assert lines[1].split() == [
    best['label'], f'{start:.2f}', '\\u2013', f'{end:.2f}', 's',
    f'{best["score"]:.3f}',
  ]  # fmt: skip
