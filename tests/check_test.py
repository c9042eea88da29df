"""Tests of `prepare check`: every problem of a folder in one pass."""

import json
import shutil

import matplotlib.image
import numpy as np
import pytest
from splits_test import rewrite

from backtal_jax import errors, evaluate, models
from backtal_jax.data import annotations, feature_files, npz, sources
from backtal_jax.prepare import __main__ as prepare
from backtal_jax.prepare import check, run_config
from backtal_jax.run import sharding
from configs import demo

SHAPE = (100, 32, 5)
SPLITS = ('train', 'test')


@pytest.fixture
def root(demo_root, tmp_path):
  """Copy two videos a split of the embedded set, with their ground truth."""
  truth = json.loads((demo_root / 'ground_truth.json').read_text())
  kept = {}
  for split in SPLITS:
    (tmp_path / split).mkdir()
    for path in sorted((demo_root / split).glob('*.npz'))[:2]:
      shutil.copy(path, tmp_path / split)
      kept[path.stem] = truth['database'][path.stem]
  (tmp_path / 'ground_truth.json').write_text(
    json.dumps(truth | {'database': kept})
  )
  return tmp_path


def run(root, shape=SHAPE, **changed):
  config = run_config.Config('ground_truth.json', '', 'all', SPLITS, shape)
  return check.check(root, config._replace(**changed))


def test_nothing_wrong(root, capsys):
  assert run(root) == []
  lines = capsys.readouterr().out.splitlines()
  rows = [line.split()[:3] for line in lines[1:3]]
  assert rows == [['train', '2', '200'], ['test', '2', '200']]


def test_clicks_of_the_config_are_those_counted(root, capsys):
  head = 'video_id,time,label,annotator\n'
  (root / 'clicks.csv').write_text(
    f'{head}train_000,1,background,a\ntrain_001,2,jump,a\ntrain_001,3,jump,b\n'
  )
  # Of two training videos: background and action clicks a video.
  for annotator, expected in (
    ('all', ['0.50', '1.00']),
    ('b', ['0.00', '0.50']),
  ):
    assert run(root, clicks='clicks.csv', annotator=annotator) == []
    lines = capsys.readouterr().out.splitlines()
    assert f'{root}/clicks.csv: 3 clicks on 2 videos' in lines
    assert lines[3].split()[6:8] == expected
  (root / 'more.csv').write_text(
    f'{head}train_000,1,background,a\ntrain_000,999,background,a\n'
    'train_009,1,background,a\n'
  )
  first, second = run(root, clicks='clicks.csv,more.csv')
  assert first.startswith(f'{root}/more.csv:3: the time is 999 s')
  assert second.startswith(f"{root}/more.csv:4: video 'train_009' is not")


def test_every_problem_in_one_pass(root, capsys):
  train, test = root / 'train', root / 'test'
  rewrite(train / 'train_000.npz', cls_label=np.zeros(4),
          point_label=np.full(100, 7), feat_spa=np.zeros((9, 100)))  # fmt: skip
  (train / 'broken.npz').write_bytes(
    (train / 'train_001.npz').read_bytes()[:1000]
  )
  rewrite(train / 'train_001.npz', frame_num='many')
  shutil.copy(train / 'train_001.npz', train / 'twice.npz')
  rewrite(test / 'test_000.npz', vid_name='stranger', duration=0.0)
  rewrite(test / 'test_001.npz', cls_label=np.ones(5), duration=50.0)
  found = '\n'.join(run(root))
  for text in (
    'train_000.npz: features have 25 channels',
    'train_000.npz: cls_label has shape (4,)',
    'train_000.npz: point_label holds 7',
    'broken.npz: not a whole .npz file',
    'train_001.npz: frame_num is 0',
    'twice.npz: frame_num is 0',
    "twice.npz: video 'train_001' is in",
    "test_000.npz: video 'stranger' is not in the ground truth",
    'test_000.npz: duration is 0',
    'test_001.npz: duration is 50 s, in the ground truth 100 s',
    'test_001.npz: cls_label and the ground truth differ',
    "test: no file of annotated video 'test_000'",
  ):
    assert text in found
  assert len(found.splitlines()) == 12
  assert '12 problems' in capsys.readouterr().out


def test_missing_split_and_other_classes(root):
  shutil.rmtree(root / 'test')
  problems = run(root, (100, 32, 6))
  assert '5 classes, config.model.num_classes is 6' in problems[0]
  assert 'no such folder' in problems[-1]


def test_command_line_and_plot(root, capsys):
  check = ['check', str(root), '--config', 'configs/demo.py']
  prepare.main(check)
  (root / 'train/train_000.npz').unlink()
  with pytest.raises(SystemExit) as e:
    prepare.main(check)
  assert e.value.code == 1
  assert "no file of annotated video 'train_000'" in capsys.readouterr().out
  picture, pixels = root / 'x.png', []
  for name in ('train_001', 'v_train_001'):
    prepare.main([*check, '--plot', name, '--output', str(picture)])
    pixels.append(matplotlib.image.imread(picture))
    rewrite(root / 'train/train_001.npz', point_label=np.full(100, 3))
  assert pixels[0][..., :3].std() > 0.05
  assert (pixels[0] != pixels[1]).any()
  with pytest.raises(SystemExit, match="no file of video 'absent'"):
    prepare.main([*check, '--plot', 'absent'])


def test_what_published_ground_truth_holds_is_a_note(root, capsys):
  path = root / 'ground_truth.json'
  truth = json.loads(path.read_text())
  entry = truth['database']['train_000']
  label = entry['annotations'][0]['label']
  for segment in ([90, 105], [95, 110], [7, 7]):
    entry['annotations'].append({'label': label, 'segment': segment})
  path.write_text(json.dumps(truth))
  assert run(root) == []
  lines = capsys.readouterr().out.splitlines()
  assert lines[:2] == [
    f"note: {path}: 1 of kind 'end <= start': train_000: {label} 7-7 s",
    f"note: {path}: 2 of kind 'beyond duration': train_000: {label} 90-105 s "
    f'of 100 s; train_000: {label} 95-110 s of 100 s',
  ]


def _odd(found):
  """Return {what is odd: changes} of files that somebody else has written."""
  one = {k: np.array([found[k]]) for k in ('frame_num', 'fps', 'duration')}
  spa, tem = found['feat_spa'], found['feat_tem']
  return {
    'one element': one | {'vid_name': np.array(['train_000'])},
    'two axes': {k: v.reshape(1, 1) for k, v in one.items()},
    'bytes': {'vid_name': np.array(b'train_000'), 'fps': np.array(b'10.0')},
    'text numbers': {'duration': np.array('100.0'), 'frame_num': ['1000']},
    'many names': {'vid_name': np.array(['train_000', 'b'])},
    'no UTF-8': {'vid_name': np.array(b'\xff')},
    'singleton axes': {'feat_spa': spa[None], 'feat_tem': tem[..., None, None]},
    'row of labels': {'cls_label': found['cls_label'][None]},
    'column of clicks': {'point_label': found['point_label'][:, None]},
    'labels of two rows': {'cls_label': np.zeros((2, 5))},
    'boolean labels': {'cls_label': found['cls_label'] > 0},
    'half precision': {'feat_spa': spa.astype(np.float16)},
    'integers': {'feat_spa': spa.astype(np.int64)},
    'beyond float32': {'feat_tem': np.full(tem.shape, 1e300)},
    'infinite': {'feat_tem': np.full(tem.shape, np.inf)},
    'complex': {'feat_tem': tem.astype(complex)},
    'ten crops': {'feat_spa': np.stack([spa] * 10)},
    'no duration': {'duration': np.array('long')},
    'endless': {'duration': np.array(np.inf)},
    'more frames than int32 holds': {'frame_num': np.array(1e12)},
    'extra': {'more': np.arange(3)},
  }


@pytest.mark.parametrize('what', _odd(dict.fromkeys(
  ('frame_num', 'fps', 'duration', 'feat_spa', 'feat_tem', 'cls_label',
   'point_label'), np.zeros((1, 1))
)))  # fmt: skip
def test_what_check_passes_main_and_predict_take(root, what):
  path = root / 'train/train_000.npz'
  found = npz.read(path)
  rewrite(path, **_odd(found)[what])
  (root / 'train/train_001.npz').unlink()
  problems = [p for p in run(root) if str(path) in p]
  source = sources.NpzSource(root / 'train', SHAPE)
  refused = {
    'many names', 'no UTF-8', 'labels of two rows', 'beyond float32',
    'infinite', 'complex', 'ten crops', 'no duration', 'endless',
    'more frames than int32 holds',
  }  # fmt: skip
  assert bool(problems) == (what in refused), problems
  if not problems:
    example, (name,) = source[0], source.video_names()
    assert name == example.name == 'train_000'
    assert (example.frame_num, example.duration) == (1000, 100.0)
    assert example.fps == 10.0
    np.testing.assert_array_equal(source.labels()[0], example.label)
    video = feature_files.read_video(path, shape=(100, 32))
    np.testing.assert_array_equal(video.feature, example.feature)
    np.testing.assert_array_equal(video.click, example.click)
    assert (video.name, video.duration) == (name, example.duration)
    assert (video.frame_num, video.fps) == (1000, 10.0)
  elif what not in ('no duration', 'endless', 'more frames than int32 holds'):
    with pytest.raises(errors.InputError) as e:
      source[0]
    assert str(e.value) == problems[0]


def _of_each(change):
  """Return a change of a whole file that changes every video's entry."""

  def changed(truth):
    videos = {k: change(k, dict(v)) for k, v in truth['database'].items()}
    return truth | {'database': dict(videos.values())}

  return changed


ODD = {  # changes of a ground truth file, and whether it can be used
  'text segments': (
    _of_each(lambda k, v: (k, v | {
      'duration': str(v['duration']),
      'annotations': [
        a | {'segment': list(map(str, a['segment']))} for a in v['annotations']
      ]})), True),
  'other letters': (_of_each(lambda k, v: (k, v | {
    'subset': v['subset'].upper()})), True),
  'a prefix': (_of_each(lambda k, v: (f'v_{k}', v)), True),
  'no annotations of one': (_of_each(lambda k, v: (k, v | {
    'annotations': v['annotations'] if k == 'test_000' else None})), True),
  'no annotation to evaluate': (_of_each(lambda k, v: (k, v | (
    {'annotations': []} if v['subset'] == 'test' else {}))), False),
  'no durations': (_of_each(lambda k, v: (k, {
    x: y for x, y in v.items() if x not in ('duration', 'fps')})), True),
  'no database': (
    lambda t: t['database'] | {'activity_list': t['activity_list']}, True),
  'a list': (lambda t: t | {'database': [
    {'video_id': k} | v for k, v in t['database'].items()]}, True),
  # Of five classes, four videos show four.
  'no class list': (lambda t: {'database': t['database']}, False),
  'no such subset': (_of_each(lambda k, v: (k, v | {'subset': 'x'})), False),
  'one class more': (
    lambda t: t | {'activity_list': [*t['activity_list'], 'x']}, False),
  'an unlisted class': (
    lambda t: t | {'activity_list': [*t['activity_list'][1:], 'x']}, False),
  'an index of another class': (
    lambda t: t | {'activity_list': t['activity_list'][::-1]}, False),
  'a duration in words': (
    _of_each(lambda k, v: (k, v | {'duration': 'long'})), False),
  'an object of segments': (
    _of_each(lambda k, v: (k, v | {'annotations': {}})), False),
  'a number of segments': (
    _of_each(lambda k, v: (k, v | {'annotations': 3})), False),
  'twice': (lambda t: t | {'database': t['database'] | {
    f'v_{k}': v for k, v in t['database'].items()}}, False),
}  # fmt: skip


@pytest.mark.parametrize('name', ODD)
def test_what_check_passes_an_evaluation_takes(root, name):
  change, usable = ODD[name]
  path = root / 'ground_truth.json'
  path.write_text(json.dumps(change(json.loads(path.read_text()))))

  def evaluator():
    return evaluate.Evaluator(
      demo.get_config(),
      models.BackTAL(num_classes=SHAPE[2], feature_dim=SHAPE[1]),
      sources.NpzSource(root / 'test', SHAPE),
      annotations.read_ground_truth(root / 'ground_truth.json'),
      sharding.make_mesh((1,)),
    )

  if usable:
    assert run(root) == []
    assert len(evaluator().truth.videos) >= 2
  else:
    with pytest.raises(errors.InputError):
      evaluator()
    with pytest.raises(errors.InputError):
      raise errors.InputError(run(root)[0])


def test_what_training_and_evaluation_would_refuse_is_a_problem(root):
  (root / 'clicks.csv').write_text(
    'video_id,time,label,annotator\ntest_000,1,background,a\n'
  )
  for path in (root / 'train').iterdir():
    rewrite(path, cls_label=np.zeros(5))
  truth = json.loads((root / 'ground_truth.json').read_text())
  for name, entry in truth['database'].items():
    entry['annotations'] = entry['annotations'] if name[:2] == 'tr' else []
  (root / 'ground_truth.json').write_text(json.dumps(truth))
  found = '\n'.join(run(root, clicks='clicks.csv'))
  for text in (
    'train: no video has a label',
    'clicks.csv: none of the 1 clicks is on one of the 2 training videos',
    "ground_truth.json: no annotation in subset 'test'",
  ):
    assert text in found
