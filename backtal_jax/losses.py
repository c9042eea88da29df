"""The loss of BackTAL, one function a term (method.md, section 3).

Every mean is a sum and a count with one division at the end, over the videos
of the *global* batch that `mask` marks: the code is written as if for one
device, and jit over a sharded batch keeps it exact on many. A term whose
count is zero is 0, never NaN.

Targets: `label` [B, C] multi-hot; `click` [B, T] integers, C where background
was clicked, a class where an action was, IGNORED elsewhere; `mask` [B], 0 for
videos that only fill the batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from backtal_jax import IGNORED, models

TERMS = (
  'base', 'supp', 'sparsity', 'click', 'separation', 'embedding', 'frames'
)  # fmt: skip


def _mean(
  value: Float[Array, '*N'], weight: Float[Array, '*N']
) -> Float[Array, '']:
  """Average over weight, 0 where there is none."""
  count = weight.sum()
  return (value * weight).sum() / jnp.where(count > 0, count, 1)


def _entropy(
  cas: Float[Array, 'B T C1'], label: Int[Array, 'B T']
) -> Float[Array, 'B T']:
  """Compute every snippet's cross-entropy, 0 where its label is IGNORED."""
  chosen = jax.nn.one_hot(label, cas.shape[-1], dtype=cas.dtype)
  return -(chosen * jax.nn.log_softmax(cas)).sum(axis=-1)


def classification(
  score: Float[Array, 'B C1'],
  label: Float[Array, 'B C'],
  mask: Float[Array, 'B'],
  *,
  background: float,
) -> Float[Array, '']:
  """Cross-entropy of the video score (logits) with the normalised video label.

  `background` is the background's own label: 1 for the base branch, 0 for supp.
  """
  target = jnp.pad(label, ((0, 0), (0, 1)), constant_values=background)
  target /= target.sum(axis=1, keepdims=True) + 1e-10
  return _mean(-(target * jax.nn.log_softmax(score)).sum(axis=1), mask)


def sparsity(
  foreground: Float[Array, 'B T'], mask: Float[Array, 'B']
) -> Float[Array, '']:
  """Sum the foreground weight over T (a sum, as the official program)."""
  return _mean(jnp.abs(foreground).sum(axis=1), mask)


def click(
  cas: Float[Array, 'B T C1'],
  click: Int[Array, 'B T'],
  mask: Float[Array, 'B'],
  *,
  trim: Float[Array, ''] | float | None = None,
) -> Float[Array, '']:
  """Cross-entropy of the base CAS at the annotated snippets of a whole batch.

  `trim` is the share of the clicks, those with the largest entropy, that are
  left out; they are likely wrong.
  """
  annotated = (click != IGNORED) * mask[:, None]
  entropy = _entropy(cas, click)
  if trim is not None:
    worst = -jnp.sort(-jnp.where(annotated > 0, entropy, -1).ravel())
    rank = jnp.floor(trim * annotated.sum()).astype(int)
    annotated *= entropy <= jax.lax.stop_gradient(worst[rank])
  return _mean(entropy, annotated)


def separation(
  cas: Float[Array, 'B T C1'],
  label: Float[Array, 'B C'],
  click: Int[Array, 'B T'],
  mask: Float[Array, 'B'],
  *,
  topk_ratio: float,
  topk_by: str = 'logits',
  chooser: Float[Array, 'B T C1'] | None = None,
) -> Float[Array, '']:
  """Push a class's top-k mean above its mean at the clicked background.

  Both are of the base CAS; the top-k are `topk_ratio` of the snippets, see
  models.video_score.
  """
  background = click == cas.shape[-1] - 1
  # Of every class and the background, so that the video score's sort serves.
  top = models.video_score(cas, topk_ratio, topk_by, chooser)[:, :-1]
  cas = cas[..., :-1]
  clicks = background.sum(axis=1)[:, None]
  low = (cas * background[..., None]).sum(axis=1) / jnp.maximum(clicks, 1)
  labelled = (label == 1).astype(cas.dtype)
  classes = labelled.sum(axis=1)
  # -log softmax([top, low])[0], averaged over the video's classes.
  loss = (jax.nn.softplus(low - top) * labelled).sum(axis=1)
  valid = mask * (clicks[:, 0] > 0) * (classes > 0)
  return _mean(loss / jnp.maximum(classes, 1), valid)


def _hinge(
  similarity: Float[Array, 'B T T'],
  anchor: Float[Array, 'B T'],
  member: Float[Array, 'B T'],
  *,
  at_least: float | None = None,
  at_most: float = 1.0,
) -> Float[Array, 'B']:
  """Average over the anchors how far their worst pair is off the bound."""
  member = member[:, None, :] > 0
  # Cosines lie in [-1, 1]: ±2 never wins and leaves the gradient finite.
  if at_least is not None:
    worst = jnp.where(member, similarity, 2).min(axis=2)
    loss = jax.nn.relu(at_least - worst)
  else:
    worst = jnp.where(member, similarity, -2).max(axis=2)
    loss = jax.nn.relu(worst - at_most)
  return (loss * anchor).sum(axis=1) / jnp.maximum(anchor.sum(axis=1), 1)


def embedding(
  embedding: Float[Array, 'B T E'],
  cas: Float[Array, 'B T C1'],
  label: Float[Array, 'B C'],
  click: Int[Array, 'B T'],
  mask: Float[Array, 'B'],
  *,
  topk_ratio: float,
  similar_min: float,
  different_max: float,
  topk_by: str = 'logits',
) -> Float[Array, '']:
  """Pull action snippets together, background ones too, and both apart.

  Background are the clicked snippets; action the top-k snippets of every
  labelled class, one chosen by two classes counting twice.

  Args:
    embedding: Unit vectors.
    cas: CAS of the suppressed branch; it only chooses snippets, no gradient.
    topk_ratio: Share of the snippets that make the video score.
    similar_min: The least cosine within a set.
    different_max: The largest cosine between the sets.
    topk_by: See models.choose.
  """
  background = (click == cas.shape[-1] - 1).astype(cas.dtype)
  labelled = (label == 1).astype(cas.dtype)
  # Of every class and the background, so that the video score's sort serves.
  chosen = models.choose(cas, topk_ratio, topk_by)[..., :-1]
  action = (chosen * labelled[:, None, :]).sum(axis=-1)
  similarity = jnp.einsum(
    'bte,bse->bts', embedding, embedding, precision=jax.lax.Precision.HIGHEST
  )
  loss = (
    _hinge(similarity, action, action, at_least=similar_min)
    + _hinge(similarity, background, background, at_least=similar_min)
    + _hinge(similarity, action, background, at_most=different_max)
    + _hinge(similarity, background, action, at_most=different_max)
  )
  valid = mask * (background.sum(axis=1) > 0) * (labelled.sum(axis=1) > 0)
  return _mean(loss, valid)


def frames(
  cas: Float[Array, 'B T C1'],
  label: Int[Array, 'B T'],
  weight: Float[Array, 'B T'],
  mask: Float[Array, 'B'],
) -> Float[Array, '']:
  """Cross-entropy of a CAS with labels of snippets, a weighted mean.

  `label` and `weight` are those of targets.Targets.
  """
  weight = weight * (label != IGNORED) * mask[:, None]
  return _mean(_entropy(cas, label), weight)


def doubt(
  click: Int[Array, 'B T'], foreground: Float[Array, 'B T'], background: int
) -> Int[Array, 'B T']:
  """Leave out clicks on `background` that the foreground weight speaks against.

  It is above its mean over the video there. No term of the clicks has a
  gradient for it: it is a witness of the video labels (docs/recipe.md).
  """
  # A mean of equal weights may be a rounding below them.
  against = foreground > foreground.mean(axis=1, keepdims=True) + 1e-6
  return jnp.where((click == background) & against, IGNORED, click)


def total(
  outputs: models.Outputs,
  label: Float[Array, 'B C'],
  clicks: Int[Array, 'B T'],
  mask: Shaped[Array, 'B'],
  *,
  weights: dict[str, float],
  topk_ratio: float,
  separation_topk_ratio: float,
  similar_min: float,
  different_max: float,
  progress: Float[Array, ''] | float = 1.0,
  label_warmup: float = 0.0,
  click_trim: float = 0.0,
  click_trim_from: float = 0.0,
  click_doubt_from: float = 1.0,
  topk_by: str = 'logits',
  topk_clean_from: float = 1.0,
  snippets: tuple[Int[Array, 'B T'], Float[Array, 'B T']] | None = None,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
  """Sum the weighted terms; a term of weight 0 is not even computed.

  Args:
    weights: Of each of TERMS.
    topk_ratio: Share of the snippets that make the video score.
    progress: Share of the training that is done.
    label_warmup: Share over which the terms of the video labels, base and
      supp, grow from nothing to their weight; 0 is off.
    click_trim: See `click`; 0 is off.
    click_trim_from: Share of the training before which nothing is trimmed.
    click_doubt_from: Share of the training after which background clicks are
      doubted, see `doubt`; 1 is off.
    topk_by: See models.choose.
    topk_clean_from: Share of the training after which dropout's noise no
      longer chooses snippets; 1 is off.
    snippets: Labels and weights of snippets, see `frames`, which both branches
      learn; without them that term is not computed.

  Returns:
    The sum, and every computed term before its weight.
  """
  mask, trim = mask.astype(jnp.float32), None
  if click_trim:
    trim = jnp.where(progress >= click_trim_from, click_trim, 0.0)
  score_base, cas_base = outputs.score_base, outputs.cas_base
  assert score_base is not None and cas_base is not None, 'not of training'
  if click_doubt_from < 1:
    left = doubt(clicks, outputs.foreground, cas_base.shape[-1] - 1)
    clicks = jnp.where(progress >= click_doubt_from, left, clicks)
  score_supp, cas_supp = outputs.score_supp, outputs.cas_supp
  chooser_base, chooser_supp = cas_base, cas_supp
  if topk_clean_from < 1:
    assert outputs.clean_base is not None and outputs.clean_supp is not None
    is_clean, score = progress >= topk_clean_from, models.video_score
    chooser_base = jnp.where(is_clean, outputs.clean_base, cas_base)
    chooser_supp = jnp.where(is_clean, outputs.clean_supp, cas_supp)
    score_base = score(cas_base, topk_ratio, topk_by, chooser_base)
    score_supp = score(cas_supp, topk_ratio, topk_by, chooser_supp)
  terms = {
    'base': lambda: classification(score_base, label, mask, background=1.0),
    'supp': lambda: classification(score_supp, label, mask, background=0.0),
    'sparsity': lambda: sparsity(outputs.foreground, mask),
    'click': lambda: click(cas_base, clicks, mask, trim=trim),
    'separation': lambda: separation(
      cas_base, label, clicks, mask,
      topk_ratio=separation_topk_ratio, topk_by=topk_by, chooser=chooser_base,
    ),
    'embedding': lambda: embedding(
      outputs.embedding, chooser_supp, label, clicks, mask,
      topk_ratio=topk_ratio, topk_by=topk_by,
      similar_min=similar_min, different_max=different_max,
    ),
  }  # fmt: skip
  if snippets is not None:
    terms['frames'] = lambda: (
      frames(cas_base, *snippets, mask) + frames(cas_supp, *snippets, mask)
    )
  computed = {
    name: terms[name]() for name, w in weights.items() if w and name in terms
  }
  if label_warmup:
    ramp = jnp.minimum(progress / label_warmup, 1.0)
    weights = weights | {k: weights[k] * ramp for k in ('base', 'supp')}
  weighted = (weights[name] * term for name, term in computed.items())
  return sum(weighted, jnp.zeros((), jnp.float32)), computed
