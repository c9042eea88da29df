"""Which prediction finds which ground truth (ActivityNet's protocol)."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from backtal_jax.metrics import segments

# How many pairs of a prediction and a ground truth are compared at once.
_CHUNK = 1 << 20


def match(
  truth: segments.Truth, predictions: segments.Segments, tiou: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
  """Let each prediction, best score first, take the best ground truth left.

  The least overlap of a match is each of `tiou`, in (0, 1].

  Returns:
    order [N]: the predictions by class, then by descending score; and matched
    [len(tiou), N], in that order: an index into truth.segments or -1.
  """
  order = np.lexsort((-predictions.score, predictions.label))
  ranked = segments.Segments(*(x[order] for x in predictions))
  rank, target, overlap = pairs(truth, ranked, min(tiou))
  first = np.searchsorted(rank, np.arange(len(order)))
  matched = np.full((len(tiou), len(order)), -1, np.int32)
  for row, threshold in zip(matched, tiou, strict=True):
    # Each prediction's pairs are sorted: the ones that reach it come first.
    reach = np.bincount(rank[overlap >= threshold], minlength=len(order))
    taker = _assign(first, first + reach, target, len(truth.segments.label))
    taken = np.flatnonzero(taker < len(order))
    row[taker[taken]] = taken
  return order, matched


def by_class(
  truth: segments.Truth, predictions: segments.Segments, tiou: Sequence[float]
) -> Iterator[tuple[np.ndarray, int]]:
  """Match, and yield of each class its hits and how many there are to find.

  The hits are [len(tiou), N] bool, best score first.
  """
  order, matched = match(truth, predictions, tiou)
  cuts = np.arange(1, len(truth.labels))
  cuts = np.searchsorted(predictions.label[order], cuts)
  hits = np.split(matched >= 0, cuts, axis=1)
  return zip(hits, np.bincount(truth.segments.label).tolist(), strict=True)


def pairs(
  truth: segments.Truth,
  predictions: segments.Segments,
  least: float,
  any_class: bool = False,
) -> tuple[np.ndarray, ...]:
  """List pairs in the same video and class that overlap by `least` or more.

  Returns:
    Index into `predictions`, index into truth.segments and tIoU of each pair,
    ordered by prediction, descending tIoU and ground truth.
  """
  key, wanted = (
    x.video if any_class else x.video * len(truth.labels) + x.label
    for x in (truth.segments, predictions)
  )
  by_key = np.argsort(key, kind='stable')
  first = np.searchsorted(key, wanted, sorter=by_key)
  count = np.searchsorted(key, wanted, 'right', sorter=by_key) - first
  begin = np.cumsum(count) - count
  starts = np.arange(0, count.sum(), _CHUNK)
  cuts = np.searchsorted(begin + count, starts, 'right').tolist()
  parts = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
  for low, high in itertools.pairwise([*cuts, len(count)]):
    rank = np.repeat(np.arange(low, high), count[low:high])
    step = np.arange(rank.size) + begin[low] - begin[rank]
    target = by_key[first[rank] + step]
    a, b = predictions.start[rank], predictions.end[rank]
    c, d = truth.segments.start[target], truth.segments.end[target]
    common = np.maximum(np.minimum(b, d) - np.maximum(a, c), 0)
    union = (b - a) + (d - c) - common
    overlap = np.divide(common, union, np.zeros_like(common), where=union > 0)
    near = np.flatnonzero(overlap >= least)
    best = near[np.lexsort((-overlap[near], rank[near]))]
    parts.append((rank[best], target[best], overlap[best]))
  return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _assign(first, last, target, num_truth):
  """Let each of N predictions, best first, take the first target left to it.

  Its own are target[first:last], best first; returned is the prediction that
  takes each of all [num_truth], N for none.
  """
  # Taking turns can't be vectorised. But as all targets prefer the same
  # predictions, deferred acceptance ends alike: all ask at once, every target
  # holds on to the best so far, and those it refuses ask their next one.
  at, taker = first.copy(), np.full(num_truth, len(first))
  asking = np.flatnonzero(at < last)
  while asking.size:
    asked = target[at[asking]]
    before = taker[asked]
    np.minimum.at(taker, asked, asking)
    after = taker[asked]
    lost = before[(before != after) & (before < len(first))]
    refused = np.concatenate([asking[asking != after], np.unique(lost)])
    at[refused] += 1
    asking = refused[at[refused] < last[refused]]
  return taker
