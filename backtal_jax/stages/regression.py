"""A softmax regression that tells the names of segments from features.

Shapes: S segments, D channels, K features of a segment, M negatives, N videos,
C classes, the background last among C + 1.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy  # its parts load where they are used

from backtal_jax.stages import proposals

FOLDS = 3  # of the videos, in `cross_fit`
_AROUND = 3  # snippets before and after a segment, or a click, that count
_LIMIT = 4.0  # of a standardised feature
_MOST_FEATURES = 512  # beyond, their principal directions stand for them
_PENALTY = 10.0  # half of it times the squared weights
_ITERATIONS = 60  # of L-BFGS


class Description(NamedTuple):
  """What segments and background look like, standardised over segments."""

  segment: np.ndarray  # [S, K]
  negative: np.ndarray  # [M, K], around believed background clicks
  negative_video: np.ndarray  # [M] int


def pool(feature: np.ndarray, runs: np.ndarray) -> np.ndarray:
  """Return the means [N, 3D] of features [T, D] in, before and after runs.

  Before and after are 3 snippets, fewer at the ends of the video; where there
  are none, the outermost one.
  """
  last = len(feature) - 1
  mean = lambda a, b: feature[a : max(b, a + 1)].mean(axis=0)

  def row(a, b):
    after = min(b, last)
    before = mean(max(0, a - _AROUND), a)
    return mean(a, b), before, mean(after, after + _AROUND)

  rows = [row(a, b) for a, b in runs]
  return np.array(rows).reshape(len(runs), 3 * feature.shape[1])


def pool_negatives(
  feature: np.ndarray, video: proposals.Observed
) -> np.ndarray:
  """Do what `pool` does around the believed background clicks of a video."""
  at = np.flatnonzero(proposals.believed(video))
  first = np.maximum(at - _AROUND, 0)
  last = np.minimum(at + _AROUND + 1, len(feature))
  return pool(feature, np.stack([first, last], axis=1))


def describe(
  segment: np.ndarray, negative: np.ndarray, negative_video: np.ndarray
) -> Description:
  """Standardise what `pool` and `pool_negatives` give of all videos.

  Standardised values are cut off at ±4. Of more than 512 features their
  principal directions are left: the regression sees no rotation, and what is
  cut off is the least of them.
  """
  mean, std = segment.mean(axis=0), segment.std(axis=0) + 1e-6
  scale = lambda x: ((x - mean) / std).clip(-_LIMIT, _LIMIT)
  segment, negative = scale(segment), scale(negative)
  if segment.shape[1] > _MOST_FEATURES:
    directions = _principal(segment, _MOST_FEATURES)
    segment, negative = segment @ directions, negative @ directions
  return Description(segment, negative, np.asarray(negative_video, int))


def _principal(rows, count):
  """Return about the `count` largest principal directions of rows [S, K]."""
  count = min(count, *rows.shape)
  start = np.random.default_rng(0).normal(size=(rows.shape[1], count))
  basis = np.linalg.qr(start)[0]
  for _ in range(4):
    basis = np.linalg.qr(rows.T @ (rows @ basis))[0]
  return basis


@functools.partial(jax.jit, static_argnames='num_names')
def fit(
  feature: jax.Array, label: jax.Array, weight: jax.Array, num_names: int
) -> jax.Array:
  """Fit a softmax regression with a penalty on its weights, not on the bias.

  Args:
    feature: [S, K].
    label: [S] int, less than `num_names`.
    weight: [S] of the cross-entropies in their sum; 0 leaves a row out.
    num_names: C + 1.

  Returns:
    [K + 1, C + 1] weights, the bias last.
  """
  target = jax.nn.one_hot(label, num_names)

  def loss(weights):
    logits = jnp.dot(feature, weights[:-1], precision='highest') + weights[-1]
    entropy = -(target * jax.nn.log_softmax(logits)).sum(axis=1)
    return weight @ entropy + _PENALTY / 2 * (weights[:-1] ** 2).sum()

  solver = optax.lbfgs()
  value_and_grad = optax.value_and_grad_from_state(loss)

  def step(carry, _):
    weights, state = carry
    value, grad = value_and_grad(weights, state=state)
    update, state = solver.update(
      grad, state, weights, value=value, grad=grad, value_fn=loss
    )
    return (optax.apply_updates(weights, update), state), None

  start = jnp.zeros((feature.shape[1] + 1, num_names))
  carry = start, solver.init(start)
  (weights, _), _ = jax.lax.scan(step, carry, length=_ITERATIONS)
  return weights


def predict(weights: np.ndarray, feature: np.ndarray) -> np.ndarray:
  """Return the probabilities [S, C+1] that a fitted regression gives."""
  return scipy.special.softmax(feature @ weights[:-1] + weights[-1], axis=1)


def cross_fit(
  look: Description, video: np.ndarray, label: np.ndarray, fold: np.ndarray,
  num_names: int,
) -> np.ndarray:  # fmt: skip
  """Return log-probabilities [S, C+1] by models that did not see the video.

  A name's examples weigh 1 / √(their number / the mean of all names').

  Args:
    look: Segments and negatives.
    video: [S] int, of each segment.
    label: [S] int; segments named background, C, teach nothing.
    fold: [N] int, of each video.
    num_names: C + 1.
  """
  background = num_names - 1
  result = np.zeros((len(video), num_names))
  for held in range(FOLDS):
    inside = fold[video] != held
    use = inside & (label != background)
    negative = (fold != held)[look.negative_video]
    if inside.all() or not (use.any() or negative.any()):
      continue
    weights = fit_weighted(look, use, negative, label, background)
    share = predict(weights, look.segment[~inside])
    result[~inside] = np.log(share + 1e-4)
  return result


def fit_weighted(
  look: Description, use: np.ndarray, negative: np.ndarray, label: np.ndarray,
  background: int,
) -> np.ndarray:  # fmt: skip
  """Fit the segments `use` [S] and some negatives [M]; rare names weigh more.

  The others stay with weight 0: every fit has the same shapes. The label [S]
  of a segment is less than `background`, C, where it is used.

  Returns:
    See `fit`.
  """
  labels = np.pad(label, (0, len(negative)), constant_values=background)
  used = np.concatenate([use, negative])
  count = np.maximum(np.bincount(labels[used], minlength=background + 1), 1)
  weights = fit(
    np.concatenate([look.segment, look.negative]).astype(np.float32),
    labels,
    (used / np.sqrt(count[labels] / count.mean())).astype(np.float32),
    background + 1,
  )
  return np.asarray(weights, float)
