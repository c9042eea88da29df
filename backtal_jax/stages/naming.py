"""Names for segments of training videos, by expectation maximisation.

What fails in a network that only video labels and background clicks taught is
rarely where a segment lies, it is which of the video's classes it is. In turn,
a softmax regression learns to tell the names from features, and every video's
segments are named anew by models that did not see the video, so that each of
its labels is found at least once. A name that a click gave stays.

Shapes: S segments, N videos, C classes, the background last among C + 1.
"""

from typing import NamedTuple

import numpy as np
import scipy  # its parts load where they are used: half a second

from backtal_jax import IGNORED
from backtal_jax.stages import proposals, regression

_ROUNDS, _SWAP_ROUNDS = 6, 3  # of naming anew
_DROPPED = np.log(0.5)  # as background, from this log-probability
_ALIKE = 0.5  # Jaccard index from which two classes' names may be swapped
_BALANCING = 15  # iterations


class Names(NamedTuple):
  """What `name` finds."""

  label: np.ndarray  # [S] int: a class, or C for a segment that is background
  likelihood: float  # mean log-probability of the names, cross-fitted


def cover(score: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """Choose a column of each row of [S, L], those wanted at least once.

  Else the largest of the row; the columns of `wanted` [L] bool get the rows
  that lose least by it, where there are as many rows as wanted columns.
  """
  best = score.argmax(axis=1)
  columns = np.flatnonzero(wanted)
  if len(score) >= len(columns) > 0:
    cost = score.max(axis=1, keepdims=True) - score[:, columns]
    row, column = scipy.optimize.linear_sum_assignment(cost)
    best[row] = columns[column]
  return best


def balance(score: np.ndarray) -> np.ndarray:
  """Return what added to log-probabilities [S, L] shares out the columns.

  With it, each column's softmax has about the same sum.
  """
  offset = np.zeros(score.shape[1])
  for _ in range(_BALANCING):
    share = scipy.special.softmax(score + offset, axis=1)
    offset -= np.log(share.mean(axis=0) * len(offset) + 1e-6)
  return offset


def assign(
  score: np.ndarray, label: np.ndarray, clicked: np.ndarray, *,
  balanced: float, drop: bool,
) -> np.ndarray:  # fmt: skip
  """Name the segments of one video.

  Args:
    score: [S, C+1] log-probabilities.
    label: [C] of the video, 1 where the class is there.
    clicked: [S] int, names that stay, else IGNORED.
    balanced: How far the labels are shared out, see `balance`: 0 to 1.
    drop: Whether what is background by a half or more is called so; the one
      that is least so stays, where nothing else would.

  Returns:
    [S] int, background C; every label of the video occurs where there are
    enough segments.
  """
  background = len(label)
  names = np.where(clicked == IGNORED, background, clicked)
  rest = np.flatnonzero(clicked == IGNORED)
  if drop and len(rest):
    kept = rest[score[rest, background] < _DROPPED]
    alone = len(rest) == len(names) and not len(kept)
    rest = rest[[score[rest, background].argmin()]] if alone else kept
  labels = np.flatnonzero(label == 1)
  if not len(rest) or not len(labels):
    return names
  score = score[np.ix_(rest, labels)]
  if balanced and min(score.shape) > 1:
    score = score + balanced * balance(score)
  wanted = ~np.isin(labels, clicked)
  names[rest] = labels[cover(score, wanted)]
  return names


def likeliest(segments: proposals.Segments) -> np.ndarray:
  """Return the most probable class [S] of each segment."""
  return segments.score[:, :-1].argmax(axis=1)


def by_probability(segments: proposals.Segments) -> np.ndarray:
  """Return the most probable class [S] of each segment, or the clicked one."""
  clicked = segments.clicked
  return np.where(clicked == IGNORED, likeliest(segments), clicked)


def name(
  segments: proposals.Segments,
  look: regression.Description,
  labels: np.ndarray,
  *,
  seed: int,
) -> Names:
  """Name segments by expectation maximisation.

  From the network's own probabilities, with labels shared out in a video and
  without; then with the names of classes that mostly come together swapped in
  the videos that have both. The likeliest is kept.

  The labels [N, C] of the videos are multi-hot; the seed is of how videos are
  held out.
  """
  background = labels.shape[1]
  video, clicked = segments.video, segments.clicked
  own = [np.flatnonzero(video == i) for i in np.unique(video)]
  rng = np.random.default_rng(seed)
  fold = rng.permutation(len(labels)) % regression.FOLDS

  def assigned(score, balanced, drop):
    names = np.zeros(len(video), int)
    for rows in own:
      names[rows] = assign(
        score[rows], labels[video[rows[0]]], clicked[rows],
        balanced=balanced, drop=drop,
      )  # fmt: skip
    return names

  def fitted(names):
    return regression.cross_fit(look, video, names, fold, background + 1)

  def maximise(names, rounds, balanced):
    for i in range(rounds):
      rest = balanced * max(0.0, 1 - i / max(1, rounds - 2))
      names = assigned(fitted(names), rest, True)
    each = fitted(names)[np.arange(len(names)), names]
    return Names(names, float(each.mean()))

  starts = (0.0, 1.0)
  likely = lambda names: names.likelihood
  first = [
    maximise(assigned(segments.score, balanced, False), _ROUNDS, balanced)
    for balanced in starts
  ]
  best = max(first, key=likely)
  for a, b in together(labels):
    if odds(look, segments, best.label, labels, (a, b)) >= 0:
      continue
    both = (labels[video, a] == 1) & (labels[video, b] == 1)
    both &= clicked == IGNORED
    swapped = best.label.copy()
    swapped[both & (best.label == a)] = b
    swapped[both & (best.label == b)] = a
    for balanced in starts:
      best = max(best, maximise(swapped, _SWAP_ROUNDS, balanced), key=likely)
  return best


def odds(
  look: regression.Description, segments: proposals.Segments, names: np.ndarray,
  labels: np.ndarray, pair: tuple[int, int],
) -> float:  # fmt: skip
  """Return how much likelier two names are as they are than swapped.

  They are learned from the other videos and tried on those that tell which is
  which: where one of the two classes is without the other, and segments of
  them that a click names.

  The names are [S] int, background C, the labels of the videos [N, C]
  multi-hot; the `pair` are the two classes.

  Returns:
    A difference of log-probabilities; 0 where nothing tells.
  """
  background, (a, b) = labels.shape[1], pair
  video, clicked = segments.video, segments.clicked
  alone, given = labels[:, a] != labels[:, b], np.isin(clicked, pair)
  telling = alone.copy()
  telling[video[given]] = True
  use = ~telling[video] & (names != background)
  if not telling.any() or not use.any():
    return 0.0
  negative = ~telling[look.negative_video]
  weights = regression.fit_weighted(look, use, negative, names, background)
  score = np.log(regression.predict(weights, look.segment) + 1e-4)
  swapped = score.copy()
  swapped[:, [a, b]] = score[:, [b, a]]
  rows = np.flatnonzero(given)
  total = (score - swapped)[rows, clicked[rows]].sum()
  for i in np.flatnonzero(alone):
    rows = (video == i) & ~given
    if rows.any():
      total += _explain(score[rows], labels[i])
      total -= _explain(swapped[rows], labels[i])
  return float(total)


def _explain(score, label):
  """Sum the best log-probabilities of a video's segments, labels covered."""
  own = score[:, np.flatnonzero(label == 1)]
  best = np.maximum(own.max(axis=1), score[:, -1])
  cost = best[:, None] - own
  return best.sum() - cost[scipy.optimize.linear_sum_assignment(cost)].sum()


def together(labels: np.ndarray) -> list[tuple[int, int]]:
  """List the pairs of classes that mostly come together, most of all first.

  Their Jaccard index over the videos' labels [N, C] is a half or more.
  """
  present = (labels == 1).astype(float)
  both, each = present.T @ present, present.sum(axis=0)
  index = both / np.maximum(each[:, None] + each - both, 1)
  pairs = [
    (-index[a, b], a, b)
    for a in range(len(each))
    for b in range(a)
    if index[a, b] >= _ALIKE
  ]
  return [(a, b) for _, a, b in sorted(pairs)]
