"""A split held against its annotations: labels and clicks that must agree."""

import json
import shutil

import numpy as np
import pytest

from backtal_jax import errors, files
from backtal_jax.data import annotations, npz, pipeline, sources, splits

HEAD = 'video_id,time,label,annotator\n'


@pytest.fixture
def root(demo_root, tmp_path):
  """Link four training and two test videos of the embedded set."""
  for split, count in (('train', 4), ('test', 2)):
    (tmp_path / split).mkdir()
    for i in range(count):
      name = f'{split}/{split}_{i:03d}.npz'
      (tmp_path / name).symlink_to(demo_root / name)
  shutil.copy(demo_root / 'ground_truth.json', tmp_path)
  return tmp_path


def open_split(root, split='train'):
  return sources.NpzSource(root / split, (100, 32, 5))


def truth(root):
  return annotations.read_ground_truth(root / 'ground_truth.json')


def make_clicks(root, paths, annotator='all', seed=0, **more):
  source = open_split(root)
  return splits.make_clicks(
    source, splits.labelled(source, root), files.find_all(paths, root),
    truth(root), annotator=annotator, seed=seed, num_snippets=100, **more,
  )  # fmt: skip


def rewrite(path, **changes):
  """Change arrays of an npz; None leaves one out."""
  arrays = npz.read(path) | changes
  path.unlink()
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


def test_click_files_replace_the_files_labels(root, tmp_path_factory):
  first = tmp_path_factory.mktemp('elsewhere') / 'first.csv'
  first.write_text(HEAD + 'train_000,3.5,background,a\n')
  (root / 'second.csv').write_text(HEAD + 'train_001,99.9,jump,b\n')
  # One by its full path, one inside the root.
  paths = f'{first}, second.csv'
  label, line, *_ = make_clicks(root, paths)
  assert line == '2 clicks on 2 of 4 training videos (annotators a, b)'
  source, plan = open_split(root), np.array([[[0, 0], [0, 1], [0, 2]]])
  (batch,) = pipeline.batches(source, plan, label)
  expected = np.full((3, 100), -100)
  expected[0, 3], expected[1, 99] = 5, 1
  np.testing.assert_array_equal(batch['click'], expected)
  label, line, *_ = make_clicks(root, paths, 'b')
  assert line == (
    'warning: only 1 clicks on 1 of 4 training videos (annotators b)'
  )
  (batch,) = pipeline.batches(source, plan, label)
  expected[0] = -100
  np.testing.assert_array_equal(batch['click'], expected)


@pytest.mark.parametrize(('rows', 'annotator', 'match'), [
  ('test_000,1,background,a\ntest_001,1,jump,a\n', 'all', 'none of the 2'),
  ('', 'all', 'none of the 0 clicks is on one of the 4 training videos'),
  ('train_000,1,background,a\ntest_000,1,jump,b\n', 'b', 'none of the 1'),
  ('train_000,1,background,a\n', 'b', "annotator 'b' has no clicks"),
  ('clip_train_000,1,jump,a\n', 'all', "nearest name is 'train_000'"),
])  # fmt: skip
def test_clicks_that_reach_nobody_are_refused(root, rows, annotator, match):
  (root / 'clicks.csv').write_text(HEAD + rows)
  with pytest.raises(errors.InputError, match=match):
    make_clicks(root, 'clicks.csv', annotator)


@pytest.mark.parametrize(
  'name', ['v_train_000', 'train_000.mp4', 'Train_000', 'a/V_train_000.MKV']
)
def test_clicks_reach_videos_of_other_spellings(root, name):
  (root / 'clicks.csv').write_text(HEAD + f'{name},3.5,background,a\n')
  label, line, *_ = make_clicks(root, 'clicks.csv')
  assert '1 clicks on 1 of 4' in line
  assert label(open_split(root)[0], 0)[3] == 5


def test_clicks_on_other_videos_are_counted(root):
  (root / 'clicks.csv').write_text(
    HEAD + 'train_000,1,background,x\ntrain_001,1,background,y\n'
    'test_001,1,background,z\n'
  )
  assert make_clicks(root, 'clicks.csv').line == (
    '2 clicks on 2 of 4 training videos (annotators x, y); 1 more are on other '
    'videos'
  )


def test_clicks_of_the_files_are_counted(root):
  marked = npz.read(root / 'train/train_000.npz')['point_label'] != -100
  label, line, *_ = make_clicks(root, '')
  assert label is None and ' on 4 of 4 training videos (in their' in line
  for i in range(3):
    rewrite(root / f'train/train_{i:03d}.npz', point_label=None)
  (root / 'train/train_003.npz').unlink()
  shutil.copy(root / 'train/train_002.npz', root / 'train/train_003.npz')
  rewrite(root / 'train/train_003.npz', point_label=np.where(marked, 5, -100))
  assert make_clicks(root, '').line == (
    f'warning: only {marked.sum()} clicks on 1 of 4 training videos (in their '
    'files)'
  )


def test_videos_without_a_label_are_dropped_and_counted(root, capsys):
  rewrite(root / 'train/train_001.npz', cls_label=np.zeros(5))
  assert [*splits.labelled(open_split(root), 'train')] == [0, 2, 3]
  assert '1 videos without a label are dropped' in capsys.readouterr().out


def check(root, split='train'):
  splits.check_labels(open_split(root, split), truth(root))


def reorder(root):
  """Turn the order of the classes in the ground truth, as another file does."""
  path = root / 'ground_truth.json'
  found = json.loads(path.read_text())
  found['activity_list'].reverse()
  for entry in found['database'].values():
    for item in entry['annotations']:
      item['idx'] = found['activity_list'].index(item['label'])
  path.write_text(json.dumps(found))


@pytest.mark.parametrize('split', ['train', 'test'])
def test_labels_of_another_order_are_refused(root, split):
  check(root, split)
  reorder(root)
  with pytest.raises(
    errors.InputError,
    match=rf'of . videos have other labels than in {root}/ground_truth.json, '
    f"say '{split}_000': cls_label says serve, the segments dive; ",
  ):
    check(root, split)


def test_some_other_labels_and_videos_without_any_are_let_pass(root):
  eye = np.eye(5)
  rewrite(root / 'train/train_000.npz', cls_label=eye[3])
  check(root)
  rewrite(root / 'train/train_001.npz', cls_label=eye[1] + eye[3])
  check(root)
  for i in range(3):
    rewrite(root / f'train/train_{i:03d}.npz', cls_label=np.zeros(5))
  check(root)
  rewrite(root / 'train/train_003.npz', cls_label=eye[0])
  with pytest.raises(errors.InputError, match='^1 of 1 videos have other'):
    check(root)
  rewrite(root / 'train/train_003.npz', vid_name=np.array('nobody'))
  check(root)


def test_main_refuses_labels_of_another_order_before_it_trains(root):
  from backtal_jax import evaluate, train
  from configs import demo

  reorder(root)
  config = demo.get_config().unlock()
  config.data.root, config.data.generate = str(root), False
  workdir = root / 'run'
  with pytest.raises(errors.InputError, match='cls_label says'):
    train.train_and_evaluate(config, workdir)
  assert not workdir.exists()
  with pytest.raises(errors.InputError, match='cls_label says'):
    evaluate.Evaluator(
      config, train.models.BackTAL(**config.model), open_split(root, 'test'),
      truth(root), None,
    )  # fmt: skip


def test_clicks_of_somebody_else_are_held(root):
  rows = 'train_000,1,background,a\ntrain_001,50,jump,a\n'
  (root / 'a.csv').write_text(HEAD + rows)
  # The first lies in a snippet that is trained on, the last elsewhere.
  (root / 'b.csv').write_text(
    HEAD + 'train_000,1.5,background,b\ntrain_000,30,background,b\n'
    'test_000,3,background,b\n'
  )
  make = lambda others, paths='a.csv', **more: make_clicks(
    root, paths, others=files.find_all(others, root), **more
  )
  made = make('b.csv')
  assert [c.time for c in made.held] == [30.0]
  assert made.line.endswith('; 1 are kept aside, on 1')
  assert made.reach == {'videos': 4, 'clicked': 2, 'clicks': 2}
  with pytest.raises(errors.InputError, match='the very clicks'):
    make('a.csv')
  (root / 'same.csv').write_text(HEAD + rows.replace(',a\n', ',b\n'))
  with pytest.raises(errors.InputError, match='the very clicks'):
    make('same.csv')
  (root / 'b.csv').write_text(HEAD + 'train_000,1.5,background,b\n')
  with pytest.raises(errors.InputError, match='off the snippets that are'):
    make('b.csv')
  with pytest.raises(errors.InputError, match="config.data.clicks is ''"):
    make('b.csv', paths='')
  # Of one click on each of two videos, one.
  lines = []
  for seed in range(20):
    try:
      lines.append(make('', aside=0.5, seed=seed).line)
    except errors.InputError as e:
      lines.append(str(e))
  assert any('1 of which are left without a click to train on' in line
             for line in lines)  # fmt: skip
  assert any('leaves none of the 2 clicks to train' in line for line in lines)
