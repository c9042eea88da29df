"""Training: Adam as torch's, resume bit for bit, one trace, many devices."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import KINDS, Case, assert_near

from backtal_jax import errors, evaluate, models, predict, train
from backtal_jax.data import npz
from backtal_jax.metrics import scores
from backtal_jax.run import checkpoints, parameters, sharding
from configs import demo as demo_config

# No shares of a training, which are of its length: it may get more epochs.
NO_SHARES = {
  'loss.label_warmup': 0.0,
  'loss.click_doubt_from': 1.0,
  'loss.topk_clean_from': 1.0,
  'train.rate_warmup': 0.0,
}


def tiny_config(root, c=None, **fields):
  """Return a config, the demo's by default, smaller still, on one device."""
  c = c or demo_config.get_config()
  changes = {
    'data.root': str(root),
    'data.placement': 'host',
    'mesh': (1,),
    'model.hidden_dim': 16,
    'model.reduce_dim': 8,
    'model.embedding_dim': 8,
    'train.num_epochs': 4,
    'train.eval_every': 2,
    'train.batch_size': 12,
    'eval.batch_size': 8,
    'localization.class_threshold': 0.05,  # let some through
  }
  with c.unlocked():
    c.update_from_flattened_dict(changes | fields)
  return c


def saved(workdir):
  """Return the latest state and every file of results."""
  with checkpoints.manager(workdir) as manager:
    steps = manager.all_steps()
    state = manager.restore(steps[-1])
  arrays = [
    np.asarray(
      jax.random.key_data(x)
      if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
      else x
    )
    for x in jax.tree.leaves((state['params'], state['training']))
  ]
  texts = {
    name: (workdir / name).read_text()
    for name in ('metrics.json', 'predictions.json', 'metrics.jsonl')
  }
  return steps, arrays, texts


def assert_same(a, b):
  """Compare what two runs left, bit for bit."""
  assert a[0] == b[0]
  assert len(a[1]) == len(b[1]) > 20
  for x, y in zip(a[1], b[1], strict=True):
    np.testing.assert_array_equal(x, y)
  assert a[2] == b[2]


@pytest.mark.parametrize('kind', KINDS)
def test_five_steps_of_adam_equal_the_official_ones(kind):
  case = Case(kind)
  step, state = case.training()
  for expected in case.arrays['history/total']:
    state, metrics = step(state, case.batch)
    assert float(metrics['loss/total']) == pytest.approx(expected, rel=1e-4)
  assert int(state.step) == 5
  assert_near(state.params, case.tree('after5'), 1e-3)


@pytest.fixture(scope='module')
def traced_run(demo_root, tmp_path_factory):
  """Train four epochs without a stop; note (shape, train) of every trace."""
  workdir, traces = tmp_path_factory.mktemp('runs') / 'whole', []
  original = models.BackTAL.__call__

  def noting(self, feature, *, train):
    traces.append((feature.shape, train))
    return original(self, feature, train=train)

  predict.predict_step.clear_cache()  # of other tests
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(models.BackTAL, '__call__', noting)
    train.train_and_evaluate(tiny_config(demo_root), workdir)
  return workdir, traces


@pytest.fixture(scope='module')
def whole_run(traced_run):
  """Return the workdir of a run of four epochs."""
  return traced_run[0]


def test_a_run_leaves_what_it_promises(whole_run):
  assert {p.name[:11] for p in whole_run.iterdir()} >= {
    'config.json', 'metrics.jso', 'checkpoints', 'predictions', 'events.out.',
  }  # fmt: skip
  metrics = json.loads((whole_run / 'metrics.json').read_text())
  assert metrics['epoch'] == 4
  assert len(metrics['mAP']) == len(metrics['tiou']) == 7
  assert np.mean(metrics['mAP']) == pytest.approx(metrics['average_mAP'])
  classes = {'dive', 'jump', 'throw', 'swing', 'serve'}
  assert {*metrics['ap_per_class']} == classes
  predictions = json.loads((whole_run / 'predictions.json').read_text())
  assert any(predictions['results'].values())
  assert set(predictions) == {'version', 'results', 'external_data'}
  assert sorted(predictions['results']) == [f'test_{i:03d}' for i in range(15)]
  lines = [
    json.loads(line)
    for line in (whole_run / 'metrics.jsonl').read_text().splitlines()
  ]
  steps = [line['step'] for line in lines if 'loss/total' in line]
  assert steps == list(range(1, 17))  # 40 videos, 4 batches of 12 an epoch
  terms = ('base', 'supp', 'sparsity', 'click', 'separation', 'embedding')
  for key in (*(f'loss/{t}' for t in terms), 'gradient_norm', 'learning_rate'):
    assert all(key in line for line in lines if 'loss/total' in line), key
  assert [line['epoch'] for line in lines if 'average_mAP' in line] == [2, 4]
  assert 'mAP@0.5' in lines[-1]


@pytest.mark.parametrize(
  'stops, every',
  [((7,), 3), pytest.param((4, 8, 12), 0, marks=pytest.mark.slow)],
)
def test_stopped_after_a_step_and_resumed_is_uninterrupted(
  demo_root, tmp_path, whole_run, stops, every
):
  config = tiny_config(demo_root, **{'train.checkpoint_every': every})
  for last in stops:
    _run_until(config, tmp_path / 'w', last)
  train.train_and_evaluate(config, tmp_path / 'w')
  ours, theirs = saved(tmp_path / 'w'), saved(whole_run)
  assert ours[0][-1] == 16
  # Within epochs, other steps than the last are kept.
  assert_same((theirs[0] if every else ours[0], *ours[1:]), theirs)


def _run_until(config, workdir, last_step):
  """Train, but die when the step after `last_step` begins."""

  class Died(Exception):
    pass

  def build(*args):
    made = original(*args)

    def dying(state, batch):
      if int(state.step) == last_step:
        raise Died
      return made.step(state, batch)

    return made._replace(step=dying)

  original = train.build
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train, 'build', build)
    with pytest.raises(Died):
      train.train_and_evaluate(config, workdir)


@pytest.mark.slow
def test_a_finished_run_may_be_given_more_epochs(demo_root, tmp_path):
  for name, epochs in (('w', 2), ('w', 4), ('whole', 4)):
    config = tiny_config(demo_root, **NO_SHARES, **{'train.num_epochs': epochs})
    train.train_and_evaluate(config, tmp_path / name)
  assert_same(saved(tmp_path / 'w'), saved(tmp_path / 'whole'))


def test_running_again_when_all_is_done_changes_nothing(
  demo_root, tmp_path, whole_run
):
  shutil.copytree(whole_run, tmp_path / 'w')
  before = saved(tmp_path / 'w')
  metrics = train.train_and_evaluate(tiny_config(demo_root), tmp_path / 'w')
  assert_same(saved(tmp_path / 'w'), before)
  assert metrics == json.loads(before[2]['metrics.json'])


def test_evaluating_the_checkpoint_gives_the_runs_own_results(
  demo_root, tmp_path, whole_run
):
  config = tiny_config(demo_root)
  metrics = evaluate.evaluate(config, whole_run, tmp_path)
  assert metrics == json.loads((whole_run / 'metrics.json').read_text())
  assert (tmp_path / 'predictions.json').read_text() == (
    whole_run / 'predictions.json'
  ).read_text()


def test_a_new_best_must_be_strictly_greater(demo_root, tmp_path, monkeypatch):
  values = iter([0.3, 0.5, 0.5, 0.4])

  def ranking_value(metrics, best_metric):
    assert best_metric == 'average_mAP'
    return next(values)

  config = tiny_config(
    demo_root, **{'train.eval_every': 1, 'eval.best_metric': 'average_mAP'}
  )
  monkeypatch.setattr(scores, 'ranking_value', ranking_value)
  metrics = train.train_and_evaluate(config, tmp_path / 'w')
  assert metrics['epoch'] == 2
  with checkpoints.manager(tmp_path / 'w') as manager:
    assert manager.best_step() == 8
    assert sorted(manager.all_steps()) == [8, 12, 16]


def _step_and_batch(mesh, **fields):
  """Return a jitted step, its first state and a padded batch."""
  rng, batch_size = np.random.default_rng(0), 16
  # Clicks are left out from the second step on, of the whole batch and each
  # video.
  fields |= {'loss.click_trim': 0.5, 'loss.click_trim_from': 0.1}
  fields |= {'loss.click_doubt_from': 0.1, 'loss.topk_clean_from': 0.1}
  config = tiny_config('none', **{'model.dropout_rate': 0.5}, **fields)
  _, new_state, layout, step = train.build(config, mesh, num_steps=10)
  batch = {
    'feature': rng.normal(size=(batch_size, 100, 32)).astype(np.float32),
    'label': np.eye(5, dtype=np.float32)[rng.integers(5, size=batch_size)],
    'click': rng.choice(np.int32([-100, 5]), (batch_size, 100), p=(0.95, 0.05)),
    'mask': np.arange(batch_size) < 13,
  }
  return (
    step,
    jax.device_put(new_state(), layout),
    sharding.shard_batch(batch, mesh),
  )


def test_one_batch_on_eight_devices_is_the_same_batch_on_one():
  results = []
  for devices in (1, 8):
    step, state, batch = _step_and_batch(
      sharding.make_mesh((devices,)), **{'train.rate_warmup': 0.5}
    )
    for _ in range(3):
      state, metrics = step(state, batch)
    results.append((jax.device_get(state.params), jax.device_get(metrics)))
  (one, one_metrics), (eight, eight_metrics) = results
  assert_near(eight, one, 1e-5)
  for key in one_metrics:
    np.testing.assert_allclose(one_metrics[key], eight_metrics[key], 1e-5)


def test_the_rate_grows_over_its_share_of_the_training():
  moved, rates = [], []
  for warmup in (0.0, 0.5):  # over 5 of 10 steps
    step, first, batch = _step_and_batch(
      sharding.make_mesh((1,)), **{'train.rate_warmup': warmup}
    )
    before = jax.device_get(first.params)
    state, metrics = step(first, batch)
    moved.append(jax.tree.map(lambda a, b: a - b, state.params, before))
    rates.append(metrics.get('learning_rate'))
  for whole, part in zip(*map(jax.tree.leaves, moved), strict=True):
    np.testing.assert_allclose(part, 0.2 * whole, atol=2e-7)
  rate = tiny_config('none').train.learning_rate
  assert rates[0] is None and rates[1] == pytest.approx(0.2 * rate)
  for expected in (0.4, 0.6, 0.8, 1, 1):
    state, metrics = step(state, batch)
    assert metrics['learning_rate'] == pytest.approx(expected * rate)


def test_what_a_network_standardises_by_is_measured_and_stays(
  demo_root, whole_run
):
  paths = sorted((demo_root / 'train').glob('*.npz'))
  streams = [np.load(path) for path in paths]
  x = np.concatenate(
    [np.concatenate([s['feat_spa'], s['feat_tem']]) for s in streams], axis=1
  )
  params, _ = parameters.restore(whole_run, None)
  found = params['standard']['channels']  # after 16 steps, with decay
  np.testing.assert_allclose(found['mean'], x.mean(axis=1), atol=1e-6)
  np.testing.assert_allclose(found['scale'], 1 / x.std(axis=1), 1e-5)


def test_the_steps_trace_once(traced_run):
  # 40 videos in batches of 12: the last one is padded, not smaller.
  _, traces = traced_run
  assert traces.count(((12, 100, 32), True)) == 1
  assert traces.count(((8, 100, 32), False)) == 1
  # The rest is the initialisation, of one video.
  assert {shape[0] for shape, _ in traces} == {12, 8, 1}
  assert sum(shape[0] > 1 for shape, _ in traces) == 2


def test_a_video_that_vanishes_while_training_is_named(
  demo_root, tmp_path, monkeypatch
):
  shutil.copytree(demo_root, tmp_path / 'd')
  config = tiny_config(tmp_path / 'd')
  original = sharding.prefetch

  def removing(batches, mesh, keys):
    for i, batch in enumerate(original(batches, mesh, keys)):
      if i == 3:
        (tmp_path / 'd' / 'train' / 'train_030.npz').unlink()
      yield batch

  monkeypatch.setattr(sharding, 'prefetch', removing)
  monkeypatch.setattr(npz, '_WAITS', (0.01,))
  with pytest.raises(errors.InputError, match='train_030.npz: no such file'):
    train.train_and_evaluate(config, tmp_path / 'w')
  with checkpoints.manager(tmp_path / 'w') as manager:
    assert manager.latest_step() in (4, 8)


@pytest.mark.parametrize('on_nan', ['stop', 'skip'])
def test_a_loss_that_is_not_finite(
  demo_root, tmp_path, monkeypatch, capsys, on_nan
):
  config = tiny_config(
    demo_root, **{'train.on_nan': on_nan, 'train.num_epochs': 2}
  )
  original = sharding.prefetch

  def poisoned(batches, mesh, keys):
    for i, (on_device, batch) in enumerate(original(batches, mesh, keys)):
      if 'label' in keys and i == 6:
        on_device['feature'] = on_device['feature'].at[0].set(np.nan)
      yield on_device, batch

  monkeypatch.setattr(sharding, 'prefetch', poisoned)
  if on_nan == 'stop':
    with pytest.raises(errors.InputError, match='step 7: the loss') as e:
      train.train_and_evaluate(config, tmp_path / 'w')
    assert 'loss/total nan' in str(e.value)
    assert str(e.value).count('train_') == 12
    expected_step = 4
  else:
    train.train_and_evaluate(config, tmp_path / 'w')
    assert 'step 7: the loss' in capsys.readouterr().out
    expected_step = 8
  with checkpoints.manager(tmp_path / 'w') as manager:
    assert manager.latest_step() == expected_step
    params = manager.restore(expected_step)['params']
  assert all(np.isfinite(p).all() for p in jax.tree.leaves(params))
