"""Two sets of predictions on the same ground truth: what really differs.

Paired bootstrap over videos: the split's videos are sampled with replacement,
both sets are scored on the same sample, and the middle 95 % of the differences
is the interval.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from backtal_jax.metrics import agreement, diagnosis, matching, segments
from backtal_jax.metrics import average_precision as precision

# Weights held at once; bounds the memory.
_CHUNK = 1 << 22


class Interval(TypedDict):
  """A number of both, their difference, and where 95 % of the samples lie."""

  before: float
  after: float
  difference: float
  low: float
  high: float


class Comparison(NamedTuple):
  """What differs, in fractions of 1."""

  metrics: dict[str, Interval]  # average_mAP, and mAP@… of every tIoU
  kinds: dict[str, Interval]  # share of the best TOP·G
  classes: dict[str, Interval]  # AP, by label


def compare(
  truth: segments.Truth,
  before: segments.Segments,
  after: segments.Segments,
  tiou: Sequence[float],
  *,
  theta: float = 0.5,
  resamples: int = 1000,
) -> Comparison:
  """Score two sets of predictions, and their difference with intervals.

  mAP is at `tiou`; the kinds of errors and the classes' AP are at `theta`. A
  sample's mean leaves out the classes that it lacks.
  """
  samples = agreement.draws(len(truth.videos), resamples)
  levels = [*tiou, theta]
  (ap_before, kinds_before), (ap_after, kinds_after) = (
    _resample(truth, predictions, levels, samples)
    for predictions in (before, after)
  )
  with np.errstate(invalid='ignore'):
    maps = [np.nanmean(ap[:, :-1], axis=2) for ap in (ap_before, ap_after)]
  metrics = {'average_mAP': interval(*(m.mean(1) for m in maps))}
  for i, threshold in enumerate(tiou):
    metrics[f'mAP@{threshold:g}'] = interval(*(m[:, i] for m in maps))
  kinds = {
    kind: interval(kinds_before[:, i], kinds_after[:, i])
    for i, kind in enumerate(diagnosis.KINDS)
  }
  classes = {
    label: interval(ap_before[:, -1, i], ap_after[:, -1, i])
    for i, label in enumerate(truth.labels)
  }
  return Comparison(metrics, kinds, classes)


def _resample(truth, predictions, levels, samples):
  """Return AP [R, T, C] and shares of the kinds [R, kinds] of every sample."""
  match = matching.match(truth, predictions, levels)
  order, matched = match
  label, video = predictions.label[order], predictions.video[order]
  by_class = np.zeros((len(truth.videos), len(truth.labels)))
  np.add.at(by_class, (truth.segments.video, truth.segments.label), 1)
  kinds = diagnosis.error_kinds(truth, predictions, levels, match)[-1, order]
  top = diagnosis.best(label, by_class.sum(0))
  # Videos outside the split, index -1, are in every sample once.
  samples = np.pad(samples, ((0, 0), (0, 1)), constant_values=1)
  by_kind = np.zeros((len(truth.videos) + 1, len(diagnosis.KINDS)))
  np.add.at(by_kind, (video[top], kinds[top]), 1)
  shares = samples @ by_kind
  parts = max(1, samples.shape[0] * len(order) // _CHUNK)
  ap = [
    precision.average_precisions(
      label, matched >= 0, part[:, video], part[:, :-1] @ by_class
    )
    for part in np.array_split(samples, parts)
  ]
  return np.concatenate(ap), shares / np.maximum(shares.sum(1)[:, None], 1)


def interval(before: np.ndarray, after: np.ndarray) -> Interval:
  """Take the scores [R], the split's first, then those of the samples.

  Samples without a score, NaN, are left out.
  """
  difference = (after - before)[1:]
  difference = difference[np.isfinite(difference)]
  low, high = np.quantile(difference, [0.025, 0.975]).tolist()
  return {
    'before': float(before[0]),
    'after': float(after[0]),
    'difference': float(after[0] - before[0]),
    'low': low,
    'high': high,
  }
