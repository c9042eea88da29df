"""What makes it fast changes no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from golden import KINDS, Case

from backtal_jax import errors, models, opening, predict, train
from backtal_jax.data import pipeline
from backtal_jax.run import feeding, resident, sharding
from configs import demo, thumos14
from oracles import network as oracle


def _relative(a, b):
  norm = lambda t: np.sqrt(sum(np.vdot(x, x) for x in t))
  a, b = (list(map(np.asarray, jax.tree.leaves(t))) for t in (a, b))
  return norm([x - y for x, y in zip(a, b, strict=True)]) / norm(b)


@pytest.mark.parametrize('kind', ['official', 'paper'])
def test_network_and_gradient_equal_the_plain_definition(kind):
  with jax.enable_x64(True):
    model = models.BackTAL(
      4, 10, 8, 6, 5, kind, dropout_rate=0.0, dtype=jnp.float64
    )
    params = models.init(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
    x = jnp.asarray(rng.normal(size=(2, 16, 10)))
    a, b = (rng.normal(size=(2, *shape)) for shape in ((2, 5), (2, 16, 5)))

    def differentiate(network):
      def loss(params):
        out = network.apply({'params': params}, x, train=True)
        score = jnp.stack([out.score_base, out.score_supp])
        cas = jnp.stack([out.cas_base, out.cas_supp])
        return (score * a).sum() + (cas * b).sum(), (score, cas)

      # Compiled whole: op by op takes five times as long.
      return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    (_, outputs), gradient = differentiate(model)
    (_, expected), wanted = differentiate(oracle.Network(kind, 0.125))
    for found, right in zip(outputs, expected, strict=True):
      np.testing.assert_allclose(found, right, 1e-10, 1e-12)
    assert _relative(gradient, wanted) < 1e-10
    # One gate alone goes another way through the first layer.
    alone = jax.jit(lambda p: model.apply({'params': p}, x, train=False))
    out = alone(params)
    np.testing.assert_allclose(out.cas_supp, expected[1][1], 1e-10, 1e-12)


def test_the_plain_network_takes_a_step_as_ours_does():
  # The benchmarks hold the one against the other.
  case = Case(KINDS[0])
  case.model = oracle.Network('official', case.topk_ratio)
  step, state = case.training()
  jax.eval_shape(step, state, case.batch)


@pytest.mark.parametrize('kind', KINDS)
def test_bfloat16_is_near_the_official_outputs(kind):
  case = Case(kind)
  model = case.model.clone(dtype='bfloat16')
  apply = jax.jit(model.apply, static_argnames='train')
  out = apply({'params': case.params}, case.batch['feature'], train=False)
  near = lambda found, key: _relative(found, case.arrays[key]) < 2e-2
  assert out.cas_supp.dtype == jnp.float32
  assert near(out.cas_supp.swapaxes(1, 2), 'eval/cas_supp')
  assert near(jax.nn.softmax(out.score_supp), 'eval/score_supp')
  feature = out.feature_supp.astype(jnp.float32)
  assert near(feature.swapaxes(1, 2), 'eval/feature_supp_1')


def _compiled(affinity, batch=1, length=750):
  """Compile the steps of THUMOS14's size without making any array."""
  config = thumos14.get_config().unlock()
  config.model.affinity = affinity
  model, new_state, _, step = train.build(config, sharding.make_mesh((1,)))
  state = jax.eval_shape(new_state)
  shape = jax.ShapeDtypeStruct
  features = shape((batch, length, 2048), jnp.float32)
  arrays = {
    'feature': features,
    'label': shape((batch, 20), jnp.float32),
    'click': shape((batch, length), jnp.int32),
    'mask': shape((batch,), bool),
  }
  infer = predict.predict_step.lower(state.params, features, model=model)
  return step.lower(state, arrays).compile(), infer.compile()


@pytest.mark.parametrize('affinity', ['official', 'paper'])
def test_compiled_arithmetic_is_the_least(affinity):
  step, infer = _compiled(affinity)
  # method.md, section 2: 163 and 44 GFLOP of products a video.
  assert 160e9 < step.cost_analysis()['flops'] < 175e9
  assert 42e9 < infer.cost_analysis()['flops'] < 47e9


def test_rematerialisation_saves_memory():
  # Counted before XLA, which on CPU undoes the recomputation.
  model = models.BackTAL(20, hidden_dim=512, feature_dim=512, dropout_rate=0.0)
  params = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))

  def kept(transform):
    x = jnp.zeros((1, 100, 512))
    apply = transform(lambda p: model.apply({'params': p}, x, train=True))
    pullback = jax.eval_shape(lambda p: jax.vjp(apply, p)[1], params)
    return sum(a.size for a in jax.tree.leaves(pullback))

  weights = sum(p.size for p in jax.tree.leaves(params))
  without, with_ = kept(lambda f: f), kept(train.rematerialise)
  assert with_ - weights < 0.5 * (without - weights)


def _demo(root):
  config = demo.get_config().unlock()
  config.data.root = str(root)
  config.mesh = (2,)
  return config


def _open(config, split):
  return opening.source(config, epath.Path(config.data.root), split)


def _train(config, steps, placement='host', **changes):
  """Train for some steps; return losses, parameters, the last batch."""
  config.train.update(changes)
  config.data.placement = placement
  mesh = sharding.make_mesh(config.mesh)
  source = _open(config, 'train')
  plan = pipeline.train_plan(
    np.arange(len(source)), config.train.batch_size, seed=0, num_epochs=20
  )
  _, new_state, layout, step = train.build(config, mesh)
  state, found = jax.device_put(new_state(), layout), []
  dtype = config.model.dtype if placement == 'device' else None
  for batch, _ in feeding.batches(source, mesh, None, dtype, plan[:steps]):
    state, metrics = step(state, batch)
    found.append({k: float(v) for k, v in metrics.items()})
  return found, state.params, batch


@pytest.mark.slow
def test_device_placement_trains_the_same_and_traces_once(
  demo_root, monkeypatch
):
  original, traces = train.train_step, []

  def traced(*args, **kwargs):
    traces.append(1)
    return original(*args, **kwargs)

  monkeypatch.setattr(train, 'train_step', traced)
  config = _demo(demo_root)
  config.train.batch_size = 12  # the last batch of 40 videos is padded
  host, params, batch = _train(config, 5)
  assert len(traces) == 1
  device, others, same = _train(config, 5, 'device')
  assert len(traces) == 1  # of the same program
  np.testing.assert_array_equal(batch['feature'], same['feature'])
  assert host == device
  assert _relative(params, others) == 0


@pytest.mark.slow
def test_bfloat16_storage_loses_nothing_for_a_bfloat16_model(demo_root):
  config = _demo(demo_root)
  config.model.dtype = 'bfloat16'
  host, *_ = _train(config, 2)
  device, _, batch = _train(config, 2, 'device')
  assert batch['feature'].dtype == jnp.bfloat16
  assert host == device


def test_a_split_that_does_not_fit_is_refused_with_both_sizes(
  demo_root, monkeypatch
):
  config = _demo(demo_root)
  source = _open(config, 'train')
  mesh = sharding.make_mesh(config.mesh)
  pages = {'SC_AVPHYS_PAGES': 512, 'SC_PAGE_SIZE': 1024}
  monkeypatch.setattr(sharding.os, 'sysconf', pages.get)
  # 40 videos of 100 × 32 float32; 0.5 MiB over 8 devices of a host, 2 used.
  match = r'placement=device.*0\.000477 GiB.*0\.000244 GiB'
  with pytest.raises(errors.InputError, match=match):
    resident.load(source, mesh, 'float32')


@pytest.mark.slow
def test_rematerialisation_changes_no_gradient(demo_root):
  config = _demo(demo_root)
  found, params, *_ = _train(config, 2, remat=False)
  again, others, *_ = _train(config, 2, remat=True)
  assert found[1]['loss/total'] == pytest.approx(again[1]['loss/total'], 1e-5)
  assert found[0]['gradient_norm'] == pytest.approx(
    again[0]['gradient_norm'], 1e-5
  )
  assert _relative(params, others) < 1e-4


def test_prediction_traces_once_for_all_batches(demo_root):
  config = _demo(demo_root)
  model = models.BackTAL(**config.model)
  params = models.init(model, jax.random.key(0))
  source = _open(config, 'test')
  mesh = sharding.make_mesh(config.mesh)
  before = predict.predict_step._cache_size()
  plan = pipeline.eval_plan(len(source), 14)
  loaded = (b | {'name': range(14)} for b in pipeline.batches(source, plan))
  options = dict(config.localization)
  videos = list(predict.predict_batches(model, params, loaded, mesh, options))
  assert len(videos) == len(source) and len(source) % 14
  assert predict.predict_step._cache_size() == before + 1
