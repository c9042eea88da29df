"""Training where nobody drew a boundary: no evaluation split, and no mAP.

In several processes clicks are kept aside in launch_test.py.
"""

import json
import re

import jax
import numpy as np
import pytest
from train_test import _run_until, assert_same, saved, tiny_config

import backtal_jax
from backtal_jax import errors, evaluate, models, opening, train
from backtal_jax.data import annotations, builder, sources, splits
from backtal_jax.prepare import __main__ as prepare
from backtal_jax.report import comparison, pages, timelines
from backtal_jax.run import outputs, sharding
from backtal_jax.stages import quality

_HALF = 25  # training videos: an epoch is a step


@pytest.fixture(scope='module')
def root(demo_root, tmp_path_factory):
  """Prepare training videos with labels and clicks, and nothing else."""
  folder = tmp_path_factory.mktemp('open')
  truth = annotations.read_ground_truth(demo_root / 'ground_truth.json')
  (folder / 'features').mkdir()
  rows, clicks = ['video_id,subset,label,duration'], []
  for i in range(_HALF):
    name = f'train_{i:03d}'
    with np.load(demo_root / 'train' / f'{name}.npz') as video:
      features = np.concatenate([video['feat_spa'], video['feat_tem']])
    np.save(folder / 'features' / name, features.T)
    known = truth.videos[name]
    labels = {segment.label for segment in known.segments}
    rows += [f'{name},training,{x},{known.duration}' for x in sorted(labels)]
    first = known.segments[0]
    middle, before = (first.start + first.end) / 2, first.start / 2
    clicks += [
      annotations.Click(name, before, 'background', 'a'),
      annotations.Click(name, before + 0.4 * first.start, 'background', 'a'),
      annotations.Click(name, middle, first.label, 'a'),
    ]
  (folder / 'labels.csv').write_text('\n'.join(rows) + '\n')
  annotations.write_clicks(folder / 'clicks.csv', clicks)
  prepare.main([
    'custom', '--features', str(folder / 'features'), '--fps', '10',
    '--labels', str(folder / 'labels.csv'),
    '--clicks', str(folder / 'clicks.csv'), '--output', str(folder / 'root'),
  ])  # fmt: skip
  return folder / 'root'


def config_of(root, **fields):
  """Return a small config of the root, an epoch a step."""
  return tiny_config(
    root,
    **{
      'data.generate': False,
      'data.train_split': 'training',
      'data.eval_split': '',
      'data.clicks': 'clicks.csv',
      'train.num_epochs': 2,
      'train.batch_size': _HALF,
      'train.eval_every': 1,
    }
    | fields,
  )


@pytest.fixture(scope='module')
def finished(root, tmp_path_factory):
  """Train with clicks kept aside, by which the best epoch is chosen."""
  workdir = tmp_path_factory.mktemp('open_runs') / 'w'
  train.train_and_evaluate(config_of(root, **_ASIDE), workdir)
  return workdir


_ASIDE = {'data.clicks_aside': 0.4, 'eval.best_metric': 'click_agreement'}


def test_what_prepare_writes_says_so_and_is_whole(root, capsys):
  text = (root / 'config.py').read_text()
  assert "c.data.eval_split = ''" in text
  assert "c.eval.best_metric = 'last'" in text
  assert sorted(p.name for p in root.iterdir() if p.is_dir()) == ['training']
  prepare.main(['check', str(root), '--config', str(root / 'config.py')])
  out = capsys.readouterr().out
  assert 'there will be no mAP' in out and '0 problems' in out


@pytest.mark.usefixtures('undrawn')
def test_no_map_is_invented(root, tmp_path, capsys):
  config = config_of(root)
  metrics = train.train_and_evaluate(config, tmp_path / 'w')
  reach = {'videos': _HALF, 'clicked': _HALF, 'clicks': 3 * _HALF}
  assert metrics == {'epoch': 2, 'reach': reach}
  assert 'no mAP' in capsys.readouterr().out
  assert 'mAP' not in (tmp_path / 'w/metrics.jsonl').read_text()
  found = json.loads((tmp_path / 'w/predictions.json').read_text())['results']
  assert sorted(found) == [f'train_{i:03d}' for i in range(_HALF)]
  page = pages.write(tmp_path / 'w').read_text()
  assert 'No mAP: config.data.eval_split is' in page
  assert f'{3 * _HALF} clicks reach {_HALF} of the {_HALF} training' in page
  assert page.count('<svg') == 1 + 6  # losses, and six videos
  assert 'Mean average precision' not in page
  # What TensorBoard gets.
  run = outputs.read(tmp_path / 'w')
  results = outputs.Results(
    metrics, {}, (), run.predictions, run.curves, run.agreement
  )
  assert [*timelines.images(run.truth, results)] == ['first', 'second', 'third']
  model = backtal_jax.load(tmp_path / 'w')
  assert model.epoch == 2 and len(model.classes) == 5
  (tmp_path / 'e').mkdir()
  assert evaluate.evaluate(config, tmp_path / 'w', tmp_path / 'e') == metrics


@pytest.mark.usefixtures('undrawn')
def test_clicks_aside_choose_and_are_recorded(root, finished):
  metrics = json.loads((finished / 'metrics.json').read_text())
  agreed = metrics['click_agreement']
  aside, _ = annotations.read_clicks(finished / 'clicks_aside.csv')
  assert 0 < agreed['low'] <= agreed['value'] <= agreed['high'] <= 1
  background = [c for c in aside if c.label == 'background']
  assert agreed['clicks'] == len(background)
  assert metrics['reach']['clicks'] == 3 * _HALF - len(aside)
  lines = [
    json.loads(x) for x in (finished / 'metrics.jsonl').read_text().splitlines()
  ]
  values = [x['click_agreement'] for x in lines if 'click_agreement' in x]
  assert len(values) == 2 and max(values) == agreed['value']
  assert values.index(max(values)) + 1 == metrics['epoch']
  page = pages.write(finished).read_text()
  assert f'Click agreement: {100 * agreed["value"]:.1f} %' in page
  compared = comparison.compare(finished, finished).read_text()
  assert re.search(
    r'click agreement</td>(<td>[\d.]+</td>){2}<td>\+0.0', compared
  )
  # Evaluating the checkpoint gives the same, and other clicks other numbers.
  config = config_of(root, **_ASIDE)
  again = evaluate.evaluate(config, finished, finished.parent / 'again')
  assert again == metrics


@pytest.mark.parametrize('fields', [
  _ASIDE,
  pytest.param(
    {'stages.without_clicks_below': 1.0, 'stages.retrain': 0.5,
     'stages.quality': True, 'eval.watch': True, **_ASIDE},
    marks=pytest.mark.slow,
  ),
])  # fmt: skip
def test_resumed_is_uninterrupted(
  root, tmp_path, finished, fields, monkeypatch
):
  monkeypatch.setattr(quality, '_STEPS', 60)
  config, whole = config_of(root, **fields), finished
  if fields is not _ASIDE:
    whole = tmp_path / 'whole'
    train.train_and_evaluate(config, whole)
  _run_until(config, tmp_path / 'w', 1)
  train.train_and_evaluate(config, tmp_path / 'w')
  assert_same(saved(tmp_path / 'w'), saved(whole))


def test_changed_click_files_do_not_go_on(root, tmp_path, finished):
  clicks, _ = annotations.read_clicks(root / 'clicks.csv')
  annotations.write_clicks(tmp_path / 'clicks.csv', clicks[:60])
  config = config_of(
    root, **_ASIDE | {'data.clicks': str(tmp_path / 'clicks.csv')}
  )
  with pytest.raises(errors.InputError, match='other clicks aside'):
    train.train_and_evaluate(config, finished)


def test_tfds_gives_the_same(root, tmp_path, finished):
  shape = 100, 32, 5
  builder.prepare(
    root, {'training': sources.NpzSource(root / 'training', shape)}
  )
  config = config_of(root, **_ASIDE | {'data.source': 'tfds'})
  assert train.train_and_evaluate(config, tmp_path / 'w') == json.loads(
    (finished / 'metrics.json').read_text()
  )


def test_with_an_evaluation_split_there_are_both(demo_root):
  config = tiny_config(demo_root)
  truth = annotations.read_ground_truth(demo_root / 'ground_truth.json')
  source = opening.source(config, demo_root, 'train')
  held = [
    annotations.Click(f'train_{i:03d}', 1.0, 'background', 'b')
    for i in range(40)
  ]
  evaluator = evaluate.Evaluator(
    config,
    model := models.BackTAL(**config.model),
    opening.source(config, demo_root, 'test'),
    truth,
    sharding.make_mesh((1,)),
    (source, splits.Supervision(None, '', {}, held)),
  )
  results = evaluator(models.init(model, jax.random.key(0)), 3)
  assert 0 <= results.metrics['average_mAP'] <= 1
  assert results.metrics['click_agreement']['videos'] == 40
  assert sorted(results.agreement) == [click.video for click in held]
  assert all(name.startswith('test_') for name in results.found)
  assert 'reach' not in results.metrics
  # Without clicks to hold, the ground truth need not know training videos.
  alone = annotations.Annotations(truth.subset('test'), truth.classes)
  evaluate.Evaluator(
    config, model, opening.source(config, demo_root, 'test'), alone,
    sharding.make_mesh((1,)),
    (source, splits.Supervision(None, '', {}, [])),
  )  # fmt: skip


_NONE = 'video_id,subset,label\n'


@pytest.mark.parametrize(('labels', 'message'), [
  (_NONE, 'no video has a label'),
  (_NONE + 'train_000,training,\n', 'no video has a label'),
  (_NONE + 'train_000,training,jump\nabsent,training,jump\n',
   "video 'absent' has no features"),
])  # fmt: skip
def test_labels_that_cannot_be_learned_from(
  root, tmp_path, capsys, labels, message
):
  (tmp_path / 'labels.csv').write_text(labels)
  with pytest.raises(SystemExit) as told:
    prepare.main([
      'custom', '--features', str(root.parent / 'features'), '--fps', '10',
      '--stride', '10', '--labels', str(tmp_path / 'labels.csv'),
      '--output', str(tmp_path / 'out'),
    ])  # fmt: skip
  assert message in told.value.code and '\n' not in told.value.code
  assert not (tmp_path / 'out').exists()
  capsys.readouterr()


def test_a_class_without_a_training_video_is_refused(root, tmp_path, capsys):
  truth = json.loads((root / 'ground_truth.json').read_text())
  truth['activity_list'].append('fly')
  (tmp_path / 'truth.json').write_text(json.dumps(truth))
  with pytest.raises(SystemExit) as told:
    prepare.main([
      'custom', '--features', str(root.parent / 'features'), '--fps', '10',
      '--labels', str(root.parent / 'labels.csv'),
      '--ground_truth', str(tmp_path / 'truth.json'),
      '--output', str(tmp_path / 'out'),
    ])  # fmt: skip
  assert "class 'fly' has no training video" in told.value.code
  assert not (tmp_path / 'out').exists()
  capsys.readouterr()
