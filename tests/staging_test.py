"""A staged training: its parts, resumed bit for bit, and what uses its head."""

import json
import shutil

import jax
import numpy as np
import pytest
from train_test import _run_until, assert_same, saved, tiny_config

import backtal_jax
from backtal_jax import (
  IGNORED,
  errors,
  evaluate,
  files,
  models,
  opening,
  predict,
  staging,
  train,
  watch,
)
from backtal_jax.data import splits
from backtal_jax.export import official
from backtal_jax.metrics import scores
from backtal_jax.report import pages
from backtal_jax.run import checkpoints, sharding
from backtal_jax.stages import proposals, quality

# 8 steps, 8 more without clicks, since nothing finds every video, and 4 with
# labels of snippets.
_STAGED = {
  'train.num_epochs': 2,
  'stages.without_clicks_below': 1.0,
  'stages.retrain': 0.5,
  'stages.quality': True,
  'eval.watch': True,
  'localization.probability_power': 0.5,
  'localization.nms_sigma': 0.5,
}


def _products(workdir):
  found = {}
  for name in ('names.npz', 'quality.npz'):
    if not (workdir / 'stages' / name).exists():
      continue
    with np.load(workdir / 'stages' / name) as loaded:
      found |= {f'{name}/{key}': loaded[key] for key in loaded}
  return found


class _Died(Exception):
  pass


@pytest.fixture(scope='module', autouse=True)
def few_steps():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(quality, '_STEPS', 60)
    patch.setattr(staging, '_RENAMED', 0.0)  # so few epochs teach no names
    yield


@pytest.fixture(scope='module')
def staged_run(demo_root, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('staged') / 'w'
  train.train_and_evaluate(tiny_config(demo_root, **_STAGED), workdir)
  return workdir


def test_a_staged_run_has_three_parts(staged_run):
  lines = [
    json.loads(line)
    for line in (staged_run / 'metrics.jsonl').read_text().splitlines()
  ]
  steps = [line for line in lines if 'loss/total' in line]
  assert [line['step'] for line in steps] == list(range(1, 21))
  assert ['loss/click' in line for line in steps] == [True] * 8 + [False] * 12
  assert ['loss/frames' in line for line in steps] == [False] * 16 + [True] * 4
  # Anew is as at first, but for the clicks: the video's terms begin alike.
  assert steps[8]['loss/base'] == pytest.approx(steps[0]['loss/base'], 0.2)
  assert steps[8]['loss/base'] > steps[7]['loss/base']
  evaluated = [line for line in lines if 'average_mAP' in line]
  assert [line['epoch'] for line in evaluated] == [2, 4, 5]
  for line in evaluated:
    assert 0 <= line['training/labels_found'] <= 1
    assert 0 <= line['training/foreground_below_0.1'] <= 1
    assert 0 <= line['training/clicks_background'] <= 1
  metrics = json.loads((staged_run / 'metrics.json').read_text())
  assert metrics['epoch'] == 5
  assert metrics['training'].keys() == {
    'labels_found', 'foreground_below_0.1', 'foreground_above_0.9',
    'clicks_background',
  }  # fmt: skip
  found = json.loads((staged_run / 'stages/clicks.json').read_text())
  assert 0 <= found['labels_found'] < 1


def test_names_are_of_labels_and_reach_the_loss(staged_run, demo_root):
  config = tiny_config(demo_root, **_STAGED)
  source = opening.source(config, files.path(demo_root), 'train')
  found, labels = _products(staged_run), source.labels()
  kept = found['names.npz/label'] != 5
  video = found['names.npz/video'][kept]
  assert len({*video.tolist()}) > 0.9 * len(source)
  assert (labels[video, found['names.npz/label'][kept]] == 1).all()
  assert not len(found['names.npz/believed'])  # trained anew without clicks
  weight = found['names.npz/snippet_weight']
  assert weight.shape == (40, 100)
  np.testing.assert_allclose(weight.sum(axis=1).round(3) % 1, 0)
  label = found['names.npz/snippet_label']
  assert ((label == IGNORED) == (weight == 0)).all()


# Steps at which the run dies: within each part, and at the first step of one.
@pytest.mark.slow
def test_stopped_in_any_part_and_resumed_is_uninterrupted(
  demo_root, tmp_path, staged_run
):
  config = tiny_config(demo_root, **_STAGED)
  for last in (6, 8, 16, 18):
    _run_until(config, tmp_path / 'w', last)
  train.train_and_evaluate(config, tmp_path / 'w')
  _assert_same_run(tmp_path / 'w', staged_run)


@pytest.mark.slow
def test_died_after_any_stage_before_its_checkpoint(
  demo_root, tmp_path, staged_run
):
  config = tiny_config(demo_root, **_STAGED)
  for method in ('judge_clicks', 'name', 'learn_quality'):
    original = getattr(staging.Stages, method)

    def dying(*args, original=original):
      original(*args)
      raise _Died

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(staging.Stages, method, dying)
      with pytest.raises(_Died):
        train.train_and_evaluate(config, tmp_path / 'w')
  train.train_and_evaluate(config, tmp_path / 'w')
  _assert_same_run(tmp_path / 'w', staged_run)


def _assert_same_run(ours, theirs):
  assert_same(saved(ours), saved(theirs))
  ours, theirs = _products(ours), _products(theirs)
  assert ours.keys() == theirs.keys()
  for key, value in ours.items():
    np.testing.assert_array_equal(value, theirs[key], key)


def test_what_a_part_needs_is_missing(demo_root, tmp_path, staged_run):
  shutil.copytree(staged_run, tmp_path / 'w')
  (tmp_path / 'w/stages/names.npz').unlink()
  with pytest.raises(errors.InputError, match='names.npz: missing, though'):
    train.train_and_evaluate(tiny_config(demo_root, **_STAGED), tmp_path / 'w')


# What has begun stays begun: the part that a run has come to is lengthened.
@pytest.mark.slow
@pytest.mark.parametrize(
  'fields, parts, epochs',
  [
    ({}, [2, 4], [2, 4, 5, 6]),  # 4 epochs, so that 2 are with labels
    ({'stages.retrain': 0.0}, [2], [2, 4, 6]),
    # Nothing is ever lost: the first part is the last one.
    ({'stages.without_clicks_below': 1e-9, 'stages.retrain': 0.0},
     None, [2, 4]),
  ],
)  # fmt: skip
def test_more_epochs_lengthen_the_part_that_a_run_has_come_to(
  demo_root, tmp_path, staged_run, fields, parts, epochs
):
  workdir, fields = tmp_path / 'w', _STAGED | fields
  if fields == _STAGED:
    shutil.copytree(staged_run, workdir)
  else:
    train.train_and_evaluate(tiny_config(demo_root, **fields), workdir)
  longer = tiny_config(demo_root, **fields | {'train.num_epochs': 4})
  train.train_and_evaluate(longer, workdir)
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  found = [line['epoch'] for line in map(json.loads, lines) if 'epoch' in line]
  assert sorted({*found}) == epochs
  steps = [json.loads(line)['step'] for line in lines if '"loss/total"' in line]
  assert steps == list(range(1, 4 * epochs[-1] + 1))
  ended = workdir / 'stages/parts.json'
  assert (json.loads(ended.read_text()) if ended.exists() else None) == parts
  assert (
    json.loads((workdir / 'metrics.json').read_text())['epoch'] == epochs[-1]
  )


def test_the_head_is_used_wherever_the_model_is(
  demo_root, tmp_path, staged_run, capsys
):
  config = tiny_config(demo_root, **_STAGED)
  metrics = evaluate.evaluate(config, staged_run, tmp_path / 'e')
  told = json.loads((staged_run / 'metrics.json').read_text())
  assert metrics == {k: v for k, v in told.items() if k != 'training'}
  model = backtal_jax.load(staged_run)
  path = sorted((demo_root / 'test').iterdir())[0]
  found = model.predict(str(path))
  expected = json.loads((staged_run / 'predictions.json').read_text())
  for ours, theirs in zip(found, expected['results']['test_000'], strict=True):
    assert ours['label'] == theirs['label']
    np.testing.assert_allclose(ours['segment'], theirs['segment'], 1e-5)
    assert ours['score'] == pytest.approx(theirs['score'], 1e-4)
  without = backtal_jax.load(
    staged_run, config=tiny_config(demo_root, **_STAGED | {
      'stages.quality': False
    })
  )  # fmt: skip
  assert without.predict(str(path)) != found
  assert not capsys.readouterr().err
  shutil.copytree(staged_run / 'checkpoints', tmp_path / 'alone/checkpoints')
  backtal_jax.load(tmp_path / 'alone', config=config, classes=tuple('abcde'))
  assert 'proposals are not judged' in capsys.readouterr().err
  (staged_run / 'stages/quality.npz').rename(tmp_path / 'kept')
  (staged_run / 'stages/quality.npz').write_text('no head')
  with pytest.raises(errors.InputError, match='not a whole .npz file'):
    predict.load(staged_run)
  (tmp_path / 'kept').rename(staged_run / 'stages/quality.npz')


@pytest.mark.slow
@pytest.mark.parametrize(
  'fields',
  [
    {'stages.quality': True},  # alone, names from the only part
    {'stages.retrain': 0.5, 'stages.names': 'probability'},
    {'stages.without_clicks_below': 0.0, 'eval.watch': True},
    {'stages.quality': True, 'loss.click': 0.0, 'loss.separation': 0.0,
     'loss.embedding': 0.0},
  ],
)  # fmt: skip
def test_each_stage_alone(demo_root, tmp_path, fields):
  config = tiny_config(demo_root, **{'train.num_epochs': 2} | fields)
  metrics = train.train_and_evaluate(config, tmp_path / 'w')
  assert metrics['epoch'] == 2 + ('stages.retrain' in fields)
  made = tmp_path / 'w/stages'
  assert (made / 'quality.npz').exists() == ('stages.quality' in fields)
  named = 'stages.quality' in fields or 'stages.retrain' in fields
  assert (made / 'names.npz').exists() == named
  if named:  # no stage uses clicks that no loss is of
    assert bool(len(_products(tmp_path / 'w')['names.npz/believed'])) == (
      'loss.click' not in fields
    )
  assert not (made / 'clicks.json').exists()


@pytest.mark.slow
@pytest.mark.parametrize('least, epoch', [(0.0, 3), (1.1, 2)])
def test_names_that_the_network_knows_are_not_learned(
  demo_root, tmp_path, monkeypatch, capsys, least, epoch
):
  monkeypatch.setattr(staging, '_RENAMED', least)
  # The last epoch is the best for its head alone.
  monkeypatch.setattr(scores, 'ranking_value', lambda *_: 0.5)
  fields = _STAGED | {'stages.without_clicks_below': 0.0}
  fields |= {'train.eval_every': 1, 'eval.best_metric': 'average_mAP'}
  config = tiny_config(demo_root, **fields)
  metrics = train.train_and_evaluate(config, tmp_path / 'w')
  assert metrics['epoch'] == epoch
  again = 'again with the names' if epoch == 3 else 'no more'
  assert f'by the network: it is trained {again}' in capsys.readouterr().out
  assert (tmp_path / 'w/stages/parts.json').exists() == (epoch == 3)
  assert (tmp_path / 'w/stages/quality.npz').exists()


@pytest.mark.parametrize('devices', [1, 8])
def test_what_is_seen_does_not_depend_on_the_devices(demo_root, devices):
  config = tiny_config(demo_root)
  source = opening.source(config, files.path(demo_root), 'train')
  model = models.BackTAL(**config.model)
  params = models.init(model, jax.random.key(0))
  seen = {}
  for count in {1, devices}:
    mesh = sharding.make_mesh((count,))
    params = jax.device_put(jax.device_get(params), sharding.replicated(mesh))
    trained = watch.Trained(model, source, np.arange(3, 13), None, mesh, 4)
    seen[count] = [*watch.look(trained, params, trained.videos, True)]
  for a, b in zip(seen[1], seen[devices], strict=True):
    assert a.video == b.video
    np.testing.assert_allclose(a.seen.cas, b.seen.cas, 1e-4, 1e-5)
    np.testing.assert_array_equal(a.seen.click, source[a.video].click)
  off = next(watch.look(trained, params, trained.videos[:1], False))
  assert (off.seen.click == IGNORED).all()


def test_a_network_that_sees_nothing_names_and_judges_nothing(
  demo_root, tmp_path, monkeypatch
):
  config = tiny_config(demo_root)
  source = opening.source(config, files.path(demo_root), 'train')
  model = models.BackTAL(**config.model)
  params = models.init(model, jax.random.key(0))
  # All background: no run of foreground, and no class to propose for.
  params['backbone']['classifier']['kernel'] *= 0
  mesh = sharding.make_mesh((1,))
  params = jax.device_put(params, sharding.replicated(mesh))
  trained = watch.Trained(model, source, np.arange(4), None, mesh, 4)
  stages = staging.Stages(
    trained, files.path(tmp_path),
    staging.Options(2, True, 0.0, 'em', True, 1, True),
    dict(config.localization), 0,
  )  # fmt: skip
  monkeypatch.setattr(quality, 'CLASS_THRESHOLD', 0.5)
  stages._localize['class_threshold'] = 0.5
  monkeypatch.setattr(staging.proposals, '_FOREGROUND', 0.9)
  told = []
  first = next(stages.parts())
  assert stages.finish(first, params, told.append) == (False, None)
  named = stages.named()
  assert not len(named.label) and named.snippet_label.shape == (40, 100)
  again = staging.Part(2, 2, 3, True, (None, None))
  assert stages.finish(again, params, told.append) == (True, None)
  line = 'no proposal in any training video: proposals are not judged'
  assert told[1:] == [line]


def test_measures_by_hand():
  def video(score, cas, click, foreground):
    return proposals.Observed(
      np.array([1.0, 0]), np.array(click), np.array(cas), np.array(score),
      np.array(foreground), 1.0,
    )  # fmt: skip

  found = video(
    [0.5, 0.3, 0.2], [[0, 0, 1], [1, 0, 0], [0, 0, 1.0]],
    [2, 2, IGNORED], [0.05, 0.95, 0.5],
  )  # fmt: skip
  assert watch._measure(found) == (True, 1 / 3, 1 / 3, 1, 2)
  lost = found._replace(score=np.array([0.2, 0.1, 0.7]))  # background
  other = found._replace(score=np.array([0.2, 0.7, 0.1]))
  assert not watch._measure(lost)[0] and not watch._measure(other)[0]
  fine = {
    'labels_found': 0.9, 'foreground_below_0.1': 0.4,
    'foreground_above_0.9': 0.5,
  }  # fmt: skip
  assert watch.warning(fine) == ''
  assert watch.told(fine) == (
    'training videos without dropout: labels found 90 %, '
    'foreground below 0.1 40 %, foreground above 0.9 50 %'
  )
  assert 'only 30 %' in watch.warning(fine | {'labels_found': 0.3})
  one = fine | {'foreground_above_0.9': 1.0}
  assert 'above 0.9 at nearly every snippet' in watch.warning(one)


@pytest.mark.usefixtures('undrawn')
def test_the_report_shows_the_parts_and_the_export_leaves_the_head(
  staged_run, demo_root, tmp_path, capsys
):
  pytest.importorskip('torch')
  page = files.path(pages.write(staged_run)).read_text()
  assert 'Training videos' in page and 'frames' in page
  official.write(staged_run, tmp_path / 'x.pth')
  assert 'without the quality head' in capsys.readouterr().err


def test_classes_that_come_together_are_named():
  labels = np.zeros((12, 4))
  labels[:9, :2] = 1  # nine of ten
  labels[9, 0] = 1
  labels[10, 2] = labels[11, 3] = 1
  line = splits.inseparable(labels, ('up', 'down', 'walk', 'sit'))
  assert 'up and down (9 of the 10 training videos' in line
  assert '5 action clicks on each' in line
  assert 'walk' not in line
  assert splits.inseparable(labels[:, 1:], ('down', 'walk', 'sit')) == ''


def test_later_parts_are_better(staged_run):
  with checkpoints.manager(staged_run) as manager:
    assert manager.best_step() == 20
    # Epoch 5 of part 2, with a head.
    assert manager.metrics(20)['value'] == 5 + 2 + 1
