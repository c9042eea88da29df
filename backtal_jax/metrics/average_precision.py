"""Precision and recall of ranked predictions, seen from several sides."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from backtal_jax.metrics import matching, segments

_PROPOSALS = (1, 2, 5, 10, 20, 50, 100)
_RECALL_TIOU = tuple(np.arange(50, 100, 5) / 100)


class Recall(TypedDict):
  """Average recall, fractions of 1, of so many best predictions a video."""

  proposals: list[int]
  average_recall: list[float]


def average_precisions(
  label: np.ndarray,
  hit: np.ndarray,
  weight: np.ndarray,
  count: np.ndarray,
  normal: float | None = None,
) -> np.ndarray:
  """Compute the AP of every class, often, with weighted predictions.

  Args:
    label: [N] classes, ascending, and by descending score within a class.
    hit: [T, N] which are right.
    weight: [R, N] how often each counts, 0 leaves it out.
    count: [C] or [R, C] how many there are to find.
    normal: N of DETAD's normalised precision R·N / (R·N + false), R the recall
      (section 4.3); without it N is the count, which is plain precision.

  Returns:
    [R, T, C], NaN where the count is 0. Weights of 1 give
    detection_map.average_precision.
  """
  count = np.broadcast_to(count, (len(weight), np.shape(count)[-1]))
  classes = np.arange(count.shape[1])
  seen = _sums(weight)
  ap = np.empty((len(weight), len(hit), len(classes)))
  with np.errstate(invalid='ignore', divide='ignore'):
    scale = np.ones_like(count) if normal is None else normal / count
    for row in range(len(hit)):
      at = np.flatnonzero(hit[row])
      own, mine = label[at], weight[:, at]
      right, start = _sums(mine), np.searchsorted(own, classes)
      end = np.searchsorted(own, classes, 'right')
      first = np.searchsorted(label, own)
      good = right[:, 1:] - right[:, start[own]]
      wrong = seen[:, at + 1] - seen[:, first] - good
      good = good * scale[:, own]
      precision = np.nan_to_num(good / (good + wrong))
      # Lifted by class, so that the maximum from the right ends with a class.
      lift = len(classes) - own
      precision = np.maximum.accumulate((precision + lift)[:, ::-1], 1)
      area = _sums((precision[:, ::-1] - lift) * mine)
      ap[:, row] = (area[:, end] - area[:, start]) / count
  return ap


def average_recall(
  truth: segments.Truth, predictions: segments.Segments
) -> Recall:
  """Compute AR@AN: the recall of the AN best predictions of each video.

  Whatever their class, and one may find several, as in ActivityNet's proposal
  task; averaged over tIoU 0.5:0.05:0.95.
  """
  order = np.lexsort((-predictions.score, predictions.video))
  place = np.empty(len(order), int)
  place[order] = places(predictions.video[order] + 1, len(truth.videos) + 1)
  rank, target, overlap = matching.pairs(
    truth, predictions, min(_RECALL_TIOU), any_class=True
  )
  recall = np.zeros(len(_PROPOSALS))
  for threshold in _RECALL_TIOU:
    near = overlap >= threshold
    needed = np.full(len(truth.segments.label), np.inf)
    np.minimum.at(needed, target[near], place[rank[near]])
    recall += (needed < np.array(_PROPOSALS)[:, None]).mean(1)
  recall /= len(_RECALL_TIOU)
  return {'proposals': list(_PROPOSALS), 'average_recall': recall.tolist()}


def video_ap(
  truth: segments.Truth, predictions: segments.Segments, theta: float
) -> np.ndarray:
  """Compute [videos] the AP of all predictions together, NaN without truth."""
  rank, matched = matching.match(truth, predictions, [theta])
  hit = np.zeros(len(rank), bool)
  hit[rank] = matched[0] >= 0
  order = np.lexsort((-predictions.score, predictions.video))
  order = order[predictions.video[order] >= 0]
  return average_precisions(
    predictions.video[order], hit[None, order], np.ones((1, len(order))),
    np.bincount(truth.segments.video, minlength=len(truth.videos)),
  )[0, 0]  # fmt: skip


def precision_recall(
  truth: segments.Truth,
  predictions: segments.Segments,
  tiou: Sequence[float],
  steps: int = 101,
) -> np.ndarray:
  """Average the precision envelope over classes.

  Returns:
    [len(tiou), steps] at equal steps of recall from 0 to 1.
  """
  total = np.zeros((len(tiou), steps))
  for hits, number in matching.by_class(truth, predictions, tiou):
    needed = np.ceil(np.linspace(0, 1, steps) * number - 1e-9).astype(int)
    for row, hit, precision in zip(total, hits, envelope(hits), strict=True):
      reached = needed <= hit.sum()
      padded = np.append(precision[hit], 0)
      row[reached] += padded[np.maximum(needed[reached] - 1, 0)]
  return total / len(truth.labels)


def envelope(hit: np.ndarray) -> np.ndarray:
  """Return the best precision from each prediction on, [..., N] as the hits."""
  precision = hit.cumsum(-1) / np.arange(1, hit.shape[-1] + 1)
  return np.maximum.accumulate(precision[..., ::-1], -1)[..., ::-1]


def places(key: np.ndarray, size: int) -> np.ndarray:
  """Return the place of each ascending key [N] < size in its run of equals."""
  return np.arange(len(key)) - np.searchsorted(key, np.arange(size))[key]


def _sums(values):
  """Return [R, N + 1] sums of the first 0…N."""
  return np.pad(np.cumsum(values, axis=1, dtype=float), ((0, 0), (1, 0)))
