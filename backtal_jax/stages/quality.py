"""A head that says how well a proposal fits an instance, and moves its ends.

A small network over the means of the features in and around a proposal. It
learns from the named segments of the training videos; a believed background
click inside a proposal that fits none makes it a hard negative.

Shapes: N proposals, D channels, C classes, F = 7 D + C + 1 inputs.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from backtal_jax import errors, files, localization
from backtal_jax.data import npz

# Classes with a video score from this on are proposed for, to be judged.
CLASS_THRESHOLD = 0.02
_FITS = 0.3  # tIoU from which a proposal is an instance's
_LIMIT = 4.0  # of a standardised input
_HIDDEN = 64
_DROPOUT = 0.3
_STEPS, _BATCH = 2000, 512
_RATE, _DECAY = 2e-3, 1e-4
_WEIGHT = 4.0  # of the squared error of tIoU
_MOST_VALUES = 2**28  # of all inputs, 1 GiB
_SHORTEST = 0.1  # of a moved proposal, in lengths of it before


class Head(NamedTuple):
  """What `fit` gives: scales of the inputs and the layers of the network."""

  mean: np.ndarray  # [F]
  std: np.ndarray  # [F]
  w1: np.ndarray  # [F, 64]
  b1: np.ndarray
  w2: np.ndarray  # [64, 64]
  b2: np.ndarray
  w3: np.ndarray  # [64, 3]: tIoU as a logit, offsets of start and end
  b3: np.ndarray


class Examples(NamedTuple):
  """Proposals to learn from."""

  inputs: np.ndarray  # [N, F] float32
  tiou: np.ndarray  # [N] float32
  offset: np.ndarray  # [N, 2] float32, in lengths of the proposal


def pool(
  feature: np.ndarray, segments: np.ndarray, duration: float
) -> np.ndarray:
  """Return the means [N, 7D] of features [T, D] in 7 bins of each proposal.

  With q a quarter of its length, at least a snippet, they are [a-2q, a-q],
  [a-q, a], [a, a+q], [a+q, b-q], [b-q, b], [b, b+q], [b+q, b+2q]: what lies
  between two snippets is shared, and each bin keeps half a snippet of the
  video. Segments [N, 2] and the video's duration are in seconds.
  """
  length = len(feature)
  total = np.zeros((length + 1, feature.shape[1]))
  np.cumsum(feature, axis=0, out=total[1:])

  def until(at):
    whole = np.minimum(at.astype(int), length - 1)
    part = (at - whole)[:, None]
    return total[whole] * (1 - part) + total[whole + 1] * part

  a, b = np.asarray(segments, float).T / duration * length
  q = np.maximum(np.maximum(b - a, 1) / 4, 1)
  edges = a - 2 * q, a - q, a, a + q, b - q, b, b + q, b + 2 * q
  bins = []
  for low, high in itertools.pairwise(edges):
    low = low.clip(0, length - 0.5)
    high = np.maximum(high.clip(0.5, length), low + 0.5)
    bins.append((until(high) - until(low)) / (high - low)[:, None])
  return np.concatenate(bins, axis=1)


def inputs(
  feature: np.ndarray, labels: np.ndarray, segments: np.ndarray,
  duration: float, num_classes: int,
) -> np.ndarray:  # fmt: skip
  """Return what the head sees [N, F] of a video's proposals.

  The feature is [T, D], labels are [N] int, segments [N, 2] and the duration of
  the video seconds; there are C classes.
  """
  bins, classes = pool(feature, segments, duration), np.eye(num_classes)[labels]
  size = np.log(segments[:, 1:] - segments[:, :1])
  return np.concatenate([bins, classes, size], axis=1).astype(np.float32)


def num_inputs(feature_dim: int, num_classes: int) -> int:
  """Return how many values the head sees of a proposal, F."""
  return 7 * feature_dim + num_classes + 1


def widen(options: Mapping[str, Any]) -> dict[str, Any]:
  """Return options of localization.localize that let more classes through."""
  least = min(options['class_threshold'], CLASS_THRESHOLD)
  return {**options, 'class_threshold': least}


def learnable(
  labels: np.ndarray, segments: np.ndarray, named: np.ndarray,
  instances: np.ndarray, clicks: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
  """Return what a video's proposals should be judged: tIoU and offsets.

  Args:
    labels: [N] int, of the proposals.
    segments: [N, 2] seconds.
    named: [M] int, of the video's instances.
    instances: [M, 2] seconds.
    clicks: [K] seconds of believed background clicks.

  Returns:
    [N] tIoU with the best instance of the class, 0 where there is none, or
    where it is small and a click lies inside; [N, 2] what to add to start and
    end, in lengths of the proposal, at most ±1.
  """
  segments = np.asarray(segments, float)
  if not len(named):
    nothing = np.zeros((len(labels), 3), np.float32)
    return nothing[:, 0], nothing[:, 1:]
  inside = segments[:, :1] < clicks
  inside = (inside & (clicks < segments[:, 1:])).any(axis=1)
  tiou = localization.overlap(segments, instances, extra=0)
  tiou = tiou * (labels[:, None] == named)
  best = tiou.argmax(axis=1)
  tiou = tiou.max(axis=1)
  tiou[inside & (tiou < _FITS)] = 0
  length = segments[:, 1:] - segments[:, :1]
  offset = ((instances[best] - segments) / length).clip(-1, 1)
  return tiou.astype(np.float32), offset.astype(np.float32)


def most_of_a_video(num_videos: int, num_inputs: int) -> int:
  """Return how many proposals of a video are learned from, to fit memory."""
  return max(1, _MOST_VALUES // (num_videos * num_inputs))


def fit(examples: Examples, seed: int) -> Head:
  """Fit the head: squared error of tIoU, absolute error of the offsets.

  Half of each batch are proposals that fit an instance, and the offsets are
  theirs alone.
  """
  x, tiou, offset = examples
  mean, std = x.mean(axis=0), x.std(axis=0) + 1e-6
  x = jnp.asarray(((x - mean) / std).clip(-_LIMIT, _LIMIT))
  rng = np.random.default_rng(seed)
  good, bad = np.flatnonzero(tiou >= _FITS), np.flatnonzero(tiou < _FITS)
  good, bad = (a if len(a) else b for a, b in ((good, bad), (bad, good)))
  draw = lambda rows: rows[rng.integers(len(rows), size=(_STEPS, _BATCH // 2))]
  plan = jnp.asarray(np.concatenate([draw(good), draw(bad)], axis=1), jnp.int32)
  weights = lambda a, b: jnp.asarray(
    rng.normal(size=(a, b)) * np.sqrt(2 / a), jnp.float32
  )
  layers = {
    'w1': weights(x.shape[1], _HIDDEN), 'b1': jnp.zeros(_HIDDEN),
    'w2': weights(_HIDDEN, _HIDDEN), 'b2': jnp.zeros(_HIDDEN),
    'w3': weights(_HIDDEN, 3) * 0.1, 'b3': jnp.array([-1.0, 0.0, 0.0]),
  }  # fmt: skip
  key = jax.random.key(seed)
  layers = _learn(layers, x, jnp.asarray(tiou), jnp.asarray(offset), plan, key)
  return Head(mean, std, **{k: np.asarray(v) for k, v in layers.items()})


@jax.jit
def _learn(layers, x, tiou, offset, plan, key):
  """Do as many steps of AdamW as the plan [steps, batch] has rows."""
  schedule = optax.cosine_decay_schedule(_RATE, len(plan))
  optimizer = optax.adamw(schedule, weight_decay=_DECAY)

  def loss(layers, rows, key):
    hidden = jax.nn.relu(x[rows] @ layers['w1'] + layers['b1'])
    kept = jax.random.bernoulli(key, 1 - _DROPOUT, hidden.shape)
    hidden = hidden * kept / (1 - _DROPOUT)
    hidden = jax.nn.relu(hidden @ layers['w2'] + layers['b2'])
    out = hidden @ layers['w3'] + layers['b3']
    square = (jax.nn.sigmoid(out[:, 0]) - tiou[rows]) ** 2
    fits = (tiou[rows] >= _FITS)[:, None]
    apart = fits * jnp.abs(out[:, 1:] - offset[rows])
    return _WEIGHT * square.mean() + apart.mean()

  def step(carry, both):
    (layers, state), (i, rows) = carry, both
    grads = jax.grad(loss)(layers, rows, jax.random.fold_in(key, i))
    updates, state = optimizer.update(grads, state, layers)
    return (optax.apply_updates(layers, updates), state), None

  start = layers, optimizer.init(layers)
  (layers, _), _ = jax.lax.scan(step, start, (jnp.arange(len(plan)), plan))
  return layers


def judge(head: Head, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Return the quality [N] and the offsets [N, 2] of inputs [N, F]."""
  x = ((x - head.mean) / head.std).clip(-_LIMIT, _LIMIT)
  hidden = np.maximum(x @ head.w1 + head.b1, 0)
  hidden = np.maximum(hidden @ head.w2 + head.b2, 0)
  out = hidden @ head.w3 + head.b3
  return 1 / (1 + np.exp(-out[:, 0].astype(float))), out[:, 1:].astype(float)


@dataclasses.dataclass
class Judge:
  """A head for the proposals of one video, see localization.localize."""

  head: Head
  feature: np.ndarray  # [T, D]
  duration: float  # seconds
  num_classes: int

  def __call__(
    self, labels: np.ndarray, segments: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Judge proposals: what their scores gain [N], and where they move [N, 2].

    A moved proposal stays in the video and keeps a tenth of its length; one
    that does not is where it was.
    """
    x = inputs(self.feature, labels, segments, self.duration, self.num_classes)
    value, offset = judge(self.head, x)
    length = segments[:, 1:] - segments[:, :1]
    moved = (segments + offset * length).clip(0, self.duration)
    whole = moved[:, 1:] - moved[:, :1] > _SHORTEST * length
    return value, np.where(whole, moved, segments)


def write(path: epath.Path, head: Head) -> None:
  """Write a head atomically."""
  with files.atomic(path) as f:
    np.savez(f, allow_pickle=False, **head._asdict())


def read(path: epath.Path, num_inputs: int) -> Head:
  """Read what `write` wrote.

  Raises:
    errors.InputError: It is another file, or of other features or classes.
  """
  head = npz.read_as(path, Head, 'quality head')
  if head.mean.shape != (num_inputs,):
    raise errors.InputError(
      f'{path}: the quality head sees {head.mean.size} values of a proposal, '
      f'expected {num_inputs} by the features and classes of the config'
    )
  return head
