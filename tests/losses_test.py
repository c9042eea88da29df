"""The loss against the official program, by hand, and by invariance."""

import functools

import jax
import numpy as np
import pytest
from golden import KINDS, Case, assert_near

from backtal_jax import IGNORED, losses, models


def _loss(case, params, b):
  out = case.model.apply({'params': params}, b['feature'], train=True)
  return case.loss(out, b['label'], b['click'], b['mask'])


@functools.cache
def _compiled(kind):
  loss = functools.partial(_loss, Case(kind))
  return jax.jit(jax.value_and_grad(loss, has_aux=True))


def _grads(kind, batch):
  return _compiled(kind)(Case(kind).params, batch)


@pytest.mark.parametrize('kind', KINDS)
def test_terms_and_gradients_equal_the_official_ones(kind):
  case = Case(kind)
  (total, terms), grads = _grads(kind, case.batch)
  assert float(total) == pytest.approx(
    float(case.arrays['loss/total']), rel=1e-5
  )
  assert len(terms) == 6
  for name, term in terms.items():
    # Had by subtraction in the two with another top-k ratio.
    loose = name == 'separation' and case.topk_ratio == 0.6
    theirs = 'norm' if name == 'sparsity' else name
    expected = case.arrays[f'loss/{theirs}']
    assert float(term) == pytest.approx(
      float(expected), rel=3e-5 if loose else 1e-5
    ), name
  assert_near(grads, case.tree('grad'), 1e-4)


def _padded(batch, rows):
  """Append videos that only fill the batch, full of misleading values."""
  rng = np.random.default_rng(0)
  size = len(batch['mask'])
  pad = {
    'feature': rng.normal(size=(rows, *batch['feature'].shape[1:])),
    'label': np.ones((rows, *batch['label'].shape[1:])),
    'click': rng.integers(0, 7, size=(rows, *batch['click'].shape[1:])),
    'mask': np.zeros(rows, bool),
  }
  order = rng.permutation(size + rows)
  return {
    k: np.concatenate([v, pad[k].astype(v.dtype)])[order]
    for k, v in batch.items()
  }


@pytest.mark.parametrize('kind', ['thumos14', 'hacs'])
def test_masked_videos_count_nowhere(kind):
  case = Case(kind)
  (total, _), grads = _grads(kind, case.batch)
  (masked, _), masked_grads = _grads(kind, _padded(case.batch, 3))
  np.testing.assert_allclose(total, masked, 1e-6)
  close = lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-6)
  jax.tree.map(close, grads, masked_grads)


def test_the_click_terms_without_clicks_and_without_a_video():
  batch = Case('thumos14').batch
  none = batch | {'click': np.full_like(batch['click'], IGNORED)}
  (_, terms), grads = _grads('thumos14', none)
  assert terms['click'] == terms['separation'] == terms['embedding'] == 0
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
  click = np.where(batch['click'] == 6, 2, batch['click'])  # on actions alone
  (_, terms), _ = _grads('thumos14', batch | {'click': click})
  assert terms['click'] > 0
  assert terms['separation'] == terms['embedding'] == 0
  empty = batch | {'mask': np.zeros(4, bool)}
  (total, _), grads = _grads('thumos14', empty)
  assert total == 0
  assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize('term', ['separation', 'embedding'])
def test_a_video_without_label_is_left_out_of_sum_and_count(term):
  case = Case('thumos14')
  label = np.array(case.batch['label'])
  label[0] = 0
  unlabelled = case.batch | {'label': label}
  (_, with_it), grads = _grads('thumos14', unlabelled)
  without = case.batch | {'mask': np.arange(4) > 0}
  (_, without_it), _ = _grads('thumos14', without)
  np.testing.assert_allclose(with_it[term], without_it[term], 1e-5)
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_a_weight_of_zero_switches_a_term_off():
  weights = dict.fromkeys(losses.TERMS, 0.0) | {'base': 2.0}
  [(total, terms)] = _with({'weights': weights}, 1.0)
  assert list(terms) == ['base']
  np.testing.assert_allclose(total, 2 * terms['base'], 1e-6)


_click = jax.jit(losses.click, static_argnames='trim')


def _clicked(logit, click, trim):
  """Return the click term of one video of two classes and a background."""
  cas = np.zeros((1, len(logit), 3), np.float32)
  cas[0, :, 2] = logit
  return float(_click(cas, np.array([click]), np.ones(1), trim=trim))


def test_the_clicks_with_the_largest_loss_are_left_out():
  # Entropies of background: log(1 + 2 exp(-logit)); the last is no click.
  logit, click = [0.0, -3.0, 1.0, -1.0, 2.0, -9.0], [2, 2, 2, 2, 2, IGNORED]
  entropy = np.log(1 + 2 * np.exp(-np.array(logit)))
  for trim, kept in (
    (0.0, [0, 1, 2, 3, 4]),
    (0.19, [0, 1, 2, 3, 4]),  # 0.95 of a click is none
    (0.2, [0, 2, 3, 4]),
    (0.5, [0, 2, 4]),
  ):
    expected = entropy[kept].mean()
    assert _clicked(logit, click, trim) == pytest.approx(expected, rel=1e-6)
  # Of equal ones at the edge none is left out.
  assert _clicked([-2.0, -2, 0, 0, 0], [2] * 5, 0.2) == pytest.approx(
    (2 * np.log(1 + 2 * np.exp(2)) + 3 * np.log(3)) / 5
  )
  assert _clicked(logit, [IGNORED] * 6, 0.5) == 0


@functools.cache
def _outputs():
  """Return THUMOS14's case, and what its network says in training."""
  case = Case('thumos14')
  run = jax.jit(case.model.apply, static_argnames='train')
  return case, run({'params': case.params}, case.batch['feature'], train=True)


def _with(fields=(), *progresses):
  """Return (loss, terms) of THUMOS14's case at each share of training."""
  case, out = _outputs()

  @jax.jit
  def run(out, b, progress):
    of = b['label'], b['click'], b['mask']
    return case.loss(out, *of, progress=progress, **dict(fields))

  found = [run(out, case.batch, p) for p in progresses]
  return [(float(t), {k: float(v) for k, v in x.items()}) for t, x in found]


def test_the_video_labels_grow_to_their_weight():
  [(whole, terms)] = _with({}, 0.0)
  of_labels = terms['base'] + terms['supp']
  shares = {0.0: 0.0, 0.05: 0.25, 0.2: 1.0, 1.0: 1.0}
  found = _with({'label_warmup': 0.2}, *shares)
  for (total, same), share in zip(found, shares.values(), strict=True):
    assert same == pytest.approx(terms, rel=1e-6)
    expected = whole - (1 - share) * of_labels
    assert total == pytest.approx(expected, rel=1e-5)


def test_clicks_are_trusted_until_the_share_of_training_is_done():
  [(_, terms)] = _with({}, 0.29)
  fields = {'click_trim': 0.4, 'click_trim_from': 0.3}
  (_, before), (_, trimmed) = _with(fields, 0.29, 0.3)
  assert before == pytest.approx(terms, rel=1e-6)
  assert 0 < trimmed['click'] < terms['click']
  del trimmed['click'], terms['click']
  assert trimmed == pytest.approx(terms, rel=1e-6)


def test_background_clicks_on_foreground_are_doubted():
  # One class. Background is clicked on snippets 0, above the mean weight of
  # 0.5, and 1, below it; the action is on 3, above it.
  cas = np.zeros((1, 4, 2), np.float32)
  cas[0, :, 0] = [5, 1, 0, 2]
  out = models.Outputs(
    score_base=np.zeros((1, 2), np.float32), cas_base=cas,
    score_supp=np.zeros((1, 2), np.float32), cas_supp=cas,
    feature_supp=np.zeros((1, 4, 1), np.float32),
    embedding=np.eye(4, dtype=np.float32)[None],
    foreground=np.array([[0.9, 0.1, 0.2, 0.8]], np.float32),
  )  # fmt: skip
  click = np.array([[1, 1, IGNORED, 0]])
  run = jax.jit(lambda *arrays, progress: losses.total(
    *arrays, weights={'click': 1.0, 'separation': 1.0, 'embedding': 1.0},
    topk_ratio=0.25, separation_topk_ratio=0.25, similar_min=0.5,
    different_max=0.1, progress=progress, click_doubt_from=0.3,
  )[1])  # fmt: skip
  arrays = out, np.ones((1, 1), np.float32), click, np.ones(1, np.float32)
  entropy = np.log1p(np.exp([5, 1, 0, -2]))
  for progress, believed in ((0.29, [0, 1]), (0.3, [1])):
    found = run(*arrays, progress=progress)
    found = {name: float(value) for name, value in found.items()}
    expected = entropy[[*believed, 3]].mean()
    assert found['click'] == pytest.approx(expected, rel=1e-5)
    low = cas[0, believed, 0].mean()
    expected = np.log1p(np.exp(low - 5))
    assert found['separation'] == pytest.approx(expected, rel=1e-5)
    # Unit vectors of their own: two clicks are not alike, and one of them is
    # the top-1 snippet itself; a single one has nothing to be unlike.
    expected = {2: 0.5 + 0.9 + 0.9 / 2, 1: 0}[len(believed)]
    assert found['embedding'] == pytest.approx(expected, rel=1e-5)


def test_dropout_chooses_snippets_until_the_share_of_training_is_done():
  # One class, four snippets: noise favours snippet 0, without it 2 is the
  # largest. The background is clicked on 1.
  rng = np.random.default_rng(0)
  noisy, clean = np.zeros((2, 1, 4, 2), np.float32)
  noisy[0, :, 0], clean[0, :, 0] = [5, 1, 2, 0], [1, 0, 3, 2]
  embedding = rng.normal(size=(1, 4, 3)).astype(np.float32)
  embedding /= np.linalg.norm(embedding, axis=-1, keepdims=True)
  score = np.array([[5, 0]], np.float32)
  out = models.Outputs(
    score_base=score, cas_base=noisy, score_supp=score, cas_supp=noisy,
    feature_supp=np.zeros((1, 4, 1), np.float32), embedding=embedding,
    foreground=np.ones((1, 4), np.float32), clean_base=clean, clean_supp=clean,
  )  # fmt: skip
  names = 'base', 'supp', 'separation', 'embedding'
  run = jax.jit(lambda *arrays, progress: losses.total(
    *arrays, weights=dict.fromkeys(names, 1.0), topk_ratio=0.25,
    separation_topk_ratio=0.25, similar_min=-1.0, different_max=-1.0,
    progress=progress, topk_clean_from=0.5,
  )[1])  # fmt: skip
  click = np.array([[IGNORED, 1, IGNORED, IGNORED]])
  arrays = out, np.ones((1, 1), np.float32), click, np.ones(1, np.float32)
  for progress, best in ((0.49, 0), (0.5, 2)):
    found = run(*arrays, progress=progress)
    top = noisy[0, best, 0]
    assert found['base'] == pytest.approx(
      np.log(1 + np.exp(top)) - top / 2, rel=1e-5
    )
    assert found['supp'] == pytest.approx(np.log1p(np.exp(-top)), rel=1e-5)
    assert found['separation'] == pytest.approx(
      np.log1p(np.exp(1 - top)), rel=1e-5
    )
    cosine = embedding[0, best] @ embedding[0, 1]
    assert found['embedding'] == pytest.approx(2 * (cosine + 1), rel=1e-5)


@pytest.mark.parametrize('weight', [0.1, 0.7, 1.0])
def test_a_weight_that_is_everywhere_the_same_speaks_against_no_click(weight):
  click = np.full((2, 750), 3)
  doubt = jax.jit(losses.doubt, static_argnums=2)
  left = doubt(click, np.full((2, 750), weight, np.float32), 3)
  np.testing.assert_array_equal(left, click)


def test_separation_by_hand():
  # One class, four snippets, the two last clicked: top-1 is 2, background 0.5.
  cas = np.array([[[2.0, 0], [1, 0], [0, 0], [1, 0]]])
  click = np.array([[IGNORED, IGNORED, 1, 1]])
  separation = jax.jit(losses.separation, static_argnames='topk_ratio')
  loss = separation(cas, np.ones((1, 1)), click, np.ones(1), topk_ratio=0.25)
  assert float(loss) == pytest.approx(np.log(1 + np.exp(0.5 - 2)))


def _embedding(e, cas, click, **options):
  """Return the embedding term of one video that has every class."""
  cas = np.array([cas], float)
  loss = functools.partial(
    losses.embedding, topk_ratio=0.4, different_max=0.1, **options
  )
  arrays = [e], cas, np.ones((1, cas.shape[-1] - 1)), [click], np.ones(1)
  return float(jax.jit(loss)(*map(np.array, arrays)))


def test_embedding_by_hand():
  # The action is snippet 0, chosen by both classes; the click is snippet 1.
  e = [[1.0, 0], [0.6, 0.8], [0, 1]]
  cas = [[5, 5, 0], [0, 0, 0], [1, 1, 0]]
  loss = _embedding(e, cas, [IGNORED, 2, IGNORED], similar_min=0.5)
  # Each set holds one direction (cosine 1); between them 0.6, twice.
  assert loss == pytest.approx(2 * (0.6 - 0.1), abs=1e-6)
  # Two clicks, one of them orthogonal to the action. Clicks: cosine 0.8, no
  # hinge; action to its nearest click 0.6; clicks to the action 0.6 and 0.
  loss = _embedding(e, cas, [IGNORED, 2, 2], similar_min=0.5)
  assert loss == pytest.approx(0.5 + (0.5 + 0) / 2, abs=1e-6)


def test_embedding_counts_a_snippet_that_two_classes_choose_twice():
  # Class 0 chooses snippet 0, classes 1 and 2 snippet 1; the click is 2.
  e = [[1.0, 0], [0.6, 0.8], [0.8, 0.6]]
  cas = [[9, 0, 0, 0], [0, 9, 9, 0], [1, 1, 1, 0]]
  loss = _embedding(e, cas, [IGNORED, IGNORED, 3], similar_min=0.9)
  action = 0.9 - 0.6  # of every anchor, the worst pair has cosine 0.6
  to_background = ((0.8 - 0.1) + 2 * (0.96 - 0.1)) / 3
  from_background = 0.96 - 0.1
  expected = action + to_background + from_background
  assert loss == pytest.approx(expected, abs=1e-6)


def test_the_sort_of_the_video_score_serves_the_embedding_loss():
  case = Case('thumos14')
  loss = jax.jit(lambda p, b: _loss(case, p, b)[0])
  text = loss.lower(case.params, case.batch).compile().as_text()
  # One for each branch: equal ratios on THUMOS14.
  assert text.count(' sort(') == 2


def test_labels_of_snippets_teach_both_branches_by_plain_loops():
  (case, outputs), rng = _outputs(), np.random.default_rng(0)
  label = rng.choice([IGNORED, 0, 3, 6], size=case.batch['click'].shape)
  weight = rng.random(label.shape, np.float32)
  mask = np.array([1, 0, 1, 1])
  of = case.batch['label'], case.batch['click'], mask
  weights = dict.fromkeys(losses.TERMS, 0.0) | {'frames': 0.5}
  run = jax.jit(
    lambda out, of, snippets: case.loss(
      out, *of, snippets=snippets, weights=weights
    )
  )
  total = lambda snippets: run(outputs, of, snippets)
  loss, terms = total((label, weight))
  expected = 0.0
  for cas in (outputs.cas_base, outputs.cas_supp):
    share = np.asarray(jax.nn.log_softmax(cas), float)
    above = below = 0.0
    for b, t in np.ndindex(label.shape):
      if label[b, t] != IGNORED and mask[b]:
        above -= weight[b, t] * share[b, t, label[b, t]]
        below += weight[b, t]
    expected += above / below
  assert list(terms) == ['frames']
  np.testing.assert_allclose(terms['frames'], expected, 1e-5)
  np.testing.assert_allclose(loss, expected / 2, 1e-5)
  loss, terms = total(None)
  assert loss == 0 and not terms
  nothing = np.full(label.shape, IGNORED), np.zeros(label.shape, np.float32)
  assert total(nothing)[0] == 0
