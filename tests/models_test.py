"""The network against the official program's outputs, and its own rules."""

import full_size
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import KINDS, Case

from backtal_jax import layers, models


@pytest.mark.as_users
@pytest.mark.parametrize('kind', KINDS)
def test_evaluation_outputs_equal_the_official_ones(kind):
  case = Case(kind)
  apply = jax.jit(case.model.apply, static_argnames='train')
  out = apply({'params': case.params}, case.batch['feature'], train=False)
  close = lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5)
  close(jax.nn.softmax(out.score_supp), case.arrays['eval/score_supp'])
  close(out.cas_supp.swapaxes(1, 2), case.arrays['eval/cas_supp'])
  close(out.feature_supp.swapaxes(1, 2), case.arrays['eval/feature_supp_1'])
  assert out.cas_base is None and out.score_base is None


@pytest.mark.as_users
@pytest.mark.parametrize('kind', KINDS)
def test_training_outputs_equal_the_official_ones(kind):
  case = Case(kind)
  apply = jax.jit(case.model.apply, static_argnames='train')
  out = apply({'params': case.params}, case.batch['feature'], train=True)
  close = lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5)
  for branch in ('base', 'supp'):
    score = getattr(out, f'score_{branch}')
    close(score, case.arrays[f'train/score_{branch}'])
    cas = getattr(out, f'cas_{branch}')
    close(cas.swapaxes(1, 2), case.arrays[f'train/cas_{branch}'])
  close(out.embedding.swapaxes(1, 2), case.arrays['train/embedding'])
  close(out.foreground[:, None], case.arrays['train/fore_weights'])


@pytest.mark.as_users
@pytest.mark.parametrize('kind', ['official', 'paper'])
@pytest.mark.parametrize('channels', [3, 4, 5, 8])
def test_both_forms_of_the_affinity_convolution_equal_its_definition(
  kind, channels
):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1, 6, channels)).astype(np.float32)
  similarity = [rng.normal(size=(1, 6)).astype(np.float32) for _ in range(3)]
  gate = rng.uniform(size=(1, 6)).astype(np.float32)
  layer = layers.AffinityConv(channels, 2, kind)
  variables = jax.jit(layer.init)(jax.random.key(0), [x], similarity)
  apply = jax.jit(layer.apply, static_argnames='method')
  plain = lambda x: full_size.affinity_conv(
    x, np.stack(similarity, -1)[0], np.transpose(variables['params']['kernel']),
    kind,
  )  # fmt: skip
  expected, gated = plain(x[0]), plain(x[0] * gate[0][:, None])
  close = lambda a, b: np.testing.assert_allclose(a[0], b, 1e-5, 1e-5)
  close(apply(variables, [x], similarity)[0], expected)
  gates = [np.ones_like(gate), gate]
  one, other = apply(variables, x, similarity, gates, method='gated')
  close(one, expected)
  close(other, gated)


@pytest.mark.as_users
def test_topk_mask_marks_exactly_k_also_where_values_tie():
  cas = np.array([[3.0, 1, 2, 2, 2, 0]], np.float32)[..., None]
  mask = jax.jit(models.topk_mask, static_argnums=1)(cas, 3)[0, :, 0]
  np.testing.assert_array_equal(mask, [1, 0, 1, 1, 0, 0])


@pytest.mark.as_users
def test_video_score_is_the_mean_of_the_largest_and_so_is_its_gradient():
  rng = np.random.default_rng(0)
  cas = rng.normal(size=(2, 16, 3)).astype(np.float32)
  expected = np.sort(cas, axis=1)[:, -4:].mean(axis=1)
  score = jax.jit(lambda c: models.video_score(c, 0.25))
  np.testing.assert_allclose(score(cas), expected, 1e-6)
  gradient = jax.jit(jax.grad(lambda c: score(c).sum()))(cas)
  largest = cas >= np.sort(cas, axis=1)[:, -4:-3]
  np.testing.assert_array_equal(gradient, largest / 4)


def test_probabilities_choose_snippets_that_the_background_does_not_claim():
  # Classes jump and dive, and the background, at four snippets.
  cas = np.array([[[6.0, 0, 6], [5, 5, 0], [4, 0, 0], [0, 1, 0]]], np.float32)
  choose = jax.jit(models.choose, static_argnums=1, static_argnames='by')
  chosen = lambda **how: [
    sorted(np.flatnonzero(column).tolist())
    for column in np.asarray(choose(cas, 0.5, **how))[0].T
  ]
  assert chosen() == [[0, 1], [1, 3], [0, 1]]
  # p(jump) 0.50, 0.50 less what the background has, 0.96 and 0.21.
  p = np.exp(cas[0]) / np.exp(cas[0]).sum(1, keepdims=True)
  largest = [sorted(np.argsort(-p[:, c])[:2].tolist()) for c in (0, 1)]
  assert chosen(by='probabilities') == [*largest, [0, 1]]
  assert largest[0] != [0, 1]


@pytest.mark.parametrize('ratio, k', [(0.125, 93), (0.6, 450), (1e-4, 1)])
def test_topk_size_truncates_and_is_never_zero(ratio, k):
  assert models.topk_size(750, ratio) == k


def test_parameters_are_drawn_as_pytorch_does():
  model = models.BackTAL(4, 32, 64, 16, 8)
  params = models.init(model, jax.random.key(0))
  fan_in = {
    ('embedding', 'conv_1'): 32 * 3,
    ('embedding', 'conv_2'): 16 * 3,
    ('filter', 'conv_1'): 32,
    ('filter', 'conv_2'): 16,
    ('backbone', 'conv_1'): 32 * 3,
    ('backbone', 'conv_2'): 64 * 3,
    ('backbone', 'classifier'): 64,
  }
  for (module, layer), size in fan_in.items():
    for tensor in map(np.asarray, params[module][layer].values()):
      largest = np.abs(tensor).max() * size**0.5
      assert largest <= 1 + 1e-6
      assert largest > 0.9 or tensor.size < 20
      if tensor.size > 200:  # uniform: variance bound² / 3
        assert np.var(tensor) * size * 3 == pytest.approx(1, rel=0.2)


def test_dropout_masks_of_the_branches_are_independent():
  model = models.BackTAL(4, 6, 64, 4, 4, dropout_rate=0.5)
  params = models.init(model, jax.random.key(0))
  # With a weight of 1 everywhere the branches differ by dropout alone.
  params['filter']['conv_2'] = {
    'kernel': np.zeros((1, 4, 1), np.float32),
    'bias': np.full(1, 100, np.float32),
  }
  x = np.random.default_rng(0).normal(size=(2, 10, 6)).astype(np.float32)
  apply, rngs = jax.jit(model.apply, static_argnames='train'), {}
  rngs['dropout'] = jax.random.key(1)
  out = apply({'params': params}, x, train=True, rngs=rngs)
  assert np.abs(out.cas_base - out.cas_supp).max() > 1e-3
  plain = apply({'params': params}, x, train=False)
  assert np.abs(plain.cas_supp - out.cas_supp).max() > 1e-3


def test_zero_features_have_finite_gradients():
  model = models.BackTAL(4, 6, 8, 4, 4, dropout_rate=0.0)
  shapes = models.shapes(model)
  params = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)

  def total(params):
    out = model.apply({'params': params}, jnp.zeros((1, 10, 6)), train=True)
    return sum(jnp.sum(leaf) for leaf in out)

  gradients = jax.jit(jax.grad(total))(params)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.as_users
def test_a_standardising_network_is_the_plain_one_on_standardised_features():
  rng, options = np.random.default_rng(0), (4, 6, 8, 4, 4)
  mean, deviation = rng.normal(size=6), rng.uniform(0.5, 2, size=6)
  x = rng.normal(size=(2, 10, 6)).astype(np.float32)
  plain = models.BackTAL(*options, dropout_rate=0.0)
  params = models.init(plain, jax.random.key(0))
  apply = jax.jit(
    lambda m, x: m.apply({'params': params}, x, train=True), static_argnums=0
  )
  expected = apply(plain, ((x - mean) / deviation).astype(np.float32))
  model = models.BackTAL(*options, dropout_rate=0.0, standardize=True)
  assert models.shapes(model).keys() == {*params, 'standard'}
  params['standard'] = {'channels': models.standard(mean, deviation)}
  found = apply(model, x)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, 1e-4, 1e-5)


def test_channels_that_hardly_change_are_not_blown_up():
  # The root of the mean square is 5 / sqrt(2): the least is a hundredth.
  found = models.standard(np.array([1, 2]), np.array([5, 0]))
  np.testing.assert_allclose(found['mean'], [1, 2])
  np.testing.assert_allclose(found['scale'], [0.2, 100 * 2**0.5 / 5])
  still = models.standard(np.zeros(2), np.zeros(2))
  np.testing.assert_allclose(still['scale'], 1)
