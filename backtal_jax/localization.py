"""From one video's class activation sequence (CAS) to scored segments.

Section 4 of the method: normalise, upsample to frames, threshold, score each
run of frames by its contrast to what surrounds it, drop overlapping ones. It
runs in NumPy, video by video, with all thresholds of a class handled at once.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

# How many segments are compared with each other at once; bounds the memory.
_BLOCK = 256


class Found(NamedTuple):
  """The segments of a video, by class, then by descending score."""

  label: np.ndarray  # [N] int
  segment: np.ndarray  # [N, 2] seconds
  score: np.ndarray  # [N]


class Detection(TypedDict):
  """One of them, as ActivityNet's files list it."""

  label: str
  segment: list[float]  # start and end, seconds
  score: float


def localize(
  cas: np.ndarray,
  score: np.ndarray,
  magnitude: np.ndarray | None,
  *,
  frame_num: int,
  duration: float,
  class_threshold: float,
  cas_thresholds: Sequence[float],
  magnitude_thresholds: Sequence[float],
  outer_ratio: float,
  confidence_weight: float,
  nms_tiou: float,
  trim: float,
  whole_video_score: float,
  read: str = 'logits',
) -> Found:
  """Find the segments of one video (method.md, section 4).

  Args:
    cas: [T, C] or [T, C+1] logits, background last, which only logits can lack.
    score: [C+1] softmax of the video scores, background last.
    magnitude: [T] norms of the features; unused without magnitude_thresholds.
    frame_num: Length of the video in frames.
    duration: Length of the video in seconds.
    class_threshold: Classes with a lower score are not looked for.
    cas_thresholds: (start, stop, step) ≥ 0 on the normalised CAS; () is none.
    magnitude_thresholds: (start, stop, step) on the normalised magnitude.
    outer_ratio: Reach of a run's surroundings, in lengths of the run.
    confidence_weight: Weight of the class's score in a segment's score.
    nms_tiou: Overlap from which the lower scored of two segments is dropped.
    trim: Part of its length that a segment loses at each end.
    whole_video_score: Score of [0, duration] beside CAS segments; 0 is none.
    read: What is localised, see `activation`.
  """
  score = np.asarray(score, np.float32)
  labels = np.flatnonzero(score[:-1] >= np.float32(class_threshold))
  signals = normalize(activation(cas, read)[:, labels])
  signals = upsample(signals, frame_num)
  levels = _levels(cas_thresholds)
  strong = _strong_runs(magnitude, magnitude_thresholds, frame_num)
  found = [(labels[:0], np.zeros((0, 2)), np.zeros(0))]
  for label, signal in zip(labels, signals, strict=True):
    runs, contrast, num_cas = _propose(signal, levels, strong, outer_ratio)
    scores = contrast + confidence_weight * float(score[label])
    whole = whole_video_score if num_cas else 0
    ranked = _rank(runs / frame_num, scores, duration, trim, whole, nms_tiou)
    found.append((np.full(len(ranked[1]), label), *ranked))
  label, rows, value = zip(*found, strict=True)
  return Found(*map(np.concatenate, (label, rows, value)))


def activation(cas: np.ndarray, read: str) -> np.ndarray:
  """Return what is localised of a CAS [T, C+1], background last.

  That is its `read`: 'logits', as they are; 'probabilities', their softmax,
  which a class shares with the background and the other classes; or 'product',
  each probability times its logit on a scale of 0, the column's least, to 1.
  """
  cas = np.asarray(cas)
  if read == 'logits':
    return cas
  power = np.exp(cas - cas.max(axis=1, keepdims=True))
  share = power / power.sum(axis=1, keepdims=True)
  if read == 'product':
    low, span = cas.min(axis=0), np.ptp(cas, axis=0)
    share *= (cas - low) / np.where(span > 0, span, 1)
  return share


def normalize(values: np.ndarray) -> np.ndarray:
  """Scale the positive part of each column of [T, N] to [0, 1].

  Negative values stay negative; a column without a range is not divided.
  """
  values = np.asarray(values, np.float32)
  low = np.maximum(values.min(0), 0)
  span = np.maximum(values.max(0), 0) - low
  return (values - low) / np.where(span > 0, span, np.float32(1))


def upsample(values: np.ndarray, frame_num: int) -> np.ndarray:
  """Resize [T, N] to [N, frame_num] as OpenCV's INTER_LINEAR does in float32.

  Half-pixel centres, the ends repeated, also with fewer frames than snippets.
  """
  last = len(values) - 1
  scale = 1 / (frame_num / len(values))
  place = ((np.arange(frame_num) + 0.5) * scale - 0.5).astype(np.float32)
  place = place.clip(0, last)
  left = place.astype(np.intp)
  weight = place - left.astype(np.float32)
  rows = np.ascontiguousarray(values.T)
  near, far = rows[:, left], rows[:, np.minimum(left + 1, last)]
  return near * (1 - weight) + far * weight


def suppress(
  segments: np.ndarray, scores: np.ndarray, tiou: float
) -> np.ndarray:
  """Drop every segment that overlaps one with a higher score too much.

  Lengths are counted as end − start + 1 seconds, as the official program does;
  the earlier of two equal scores goes first.

  Args:
    segments: [N, 2] seconds.
    scores: [N].
    tiou: Overlap from which a segment is dropped.

  Returns:
    Indices of the kept segments, by descending score.
  """
  rest = np.argsort(-scores, kind='stable')
  kept = [rest[:0]]
  while rest.size:
    head, rest = rest[:_BLOCK], rest[_BLOCK:]
    apart = _overlap(segments[head], segments[head]) < tiou
    alive = np.ones(head.size, bool)
    for i in range(head.size):
      if alive[i]:
        alive[i + 1 :] &= apart[i, i + 1 :]
    kept.append(head[alive])
    if rest.size:
      apart = _overlap(segments[rest], segments[kept[-1]]) < tiou
      rest = rest[apart.all(1)]
  return np.concatenate(kept)


def format_video(found: Found, names: Sequence[str]) -> list[Detection]:
  """List what `localize` found, unrounded; the labels index `names`."""
  rows = zip(*(array.tolist() for array in found), strict=True)
  return [
    {'label': names[label], 'segment': segment, 'score': score}
    for label, segment, score in rows
  ]


def format_results(
  videos: Mapping[str, list[Detection]],
) -> dict[str, object]:
  """Wrap the detections of videos as an ActivityNet prediction file."""
  return {'version': 'VERSION 1.3', 'results': videos, 'external_data': {}}


def _levels(thresholds):
  """Expand (start, stop, step) to float32 levels that a frame must reach."""
  levels = np.arange(*thresholds) if len(thresholds) else np.zeros(0)
  # A frame must also be positive: reaching 0 means reaching the next float.
  tiny = np.finfo(np.float32).smallest_subnormal
  return np.maximum(levels.astype(np.float32), tiny)


def _strong_runs(magnitude, thresholds, frame_num):
  """Find the runs [N, 2] of frames whose features are strong."""
  if not len(thresholds):
    return np.zeros((0, 2), int)
  strength = upsample(normalize(np.asarray(magnitude)[:, None]), frame_num)
  return _find_runs(strength >= _levels(thresholds)[:, None])[1]


def _propose(signal, levels, strong, outer_ratio):
  """List a class's runs [N, 2], contrasts [N] and how many are from its CAS."""
  reached = signal >= levels[:, None]
  row, runs = _find_runs(reached)
  num_cas = len(runs)
  contrast = _contrast(np.where(reached, signal, 0), row, runs, outer_ratio)
  if len(strong):
    more = _contrast(signal[None], 0, strong, outer_ratio)
    runs = np.concatenate([runs, strong])
    contrast = np.concatenate([contrast, more])
  return runs, contrast, num_cas


def _rank(runs, scores, duration, trim, whole_video_score, nms_tiou):
  """Turn runs [N, 2], parts of the video, into the segments that are kept."""
  segments = runs * duration
  cut = trim * (segments[:, 1:] - segments[:, :1])
  segments = segments + cut * [1, -1]
  # In float32, as the official program has it, equal proposals do tie.
  scores = scores.astype(np.float32).astype(float)
  if whole_video_score:
    # One after each proposal is meant, but the first suppresses the others.
    segments = np.concatenate([segments[:1], [[0, duration]], segments[1:]])
    scores = np.concatenate([scores[:1], [whole_video_score], scores[1:]])
  kept = suppress(segments, scores, nms_tiou)
  return segments[kept], scores[kept]


def _find_runs(reached):
  """Find rows [N] and runs [N, 2], the ends excluded, of True in [K, F]."""
  rows, frames = reached.shape
  padded = np.zeros(rows * (frames + 1) + 1, bool)
  padded[1:].reshape(rows, frames + 1)[:, :-1] = reached
  edges = np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2)
  row = edges[:, 0] // (frames + 1)
  runs = edges - row[:, None] * (frames + 1)
  # A row that is True in frame 0 alone has none, as the official program.
  alone = (runs[:, 1] == 1) & (np.bincount(row, minlength=rows)[row] == 1)
  return row[~alone], runs[~alone]


def _contrast(values, row, runs, outer_ratio):
  """Compare the mean of `values` [K, F] within runs to that around them."""
  frames = values.shape[1]
  total = np.zeros((len(values), frames + 1))
  np.cumsum(values, axis=1, dtype=float, out=total[:, 1:])
  start, end = runs.T
  reach = outer_ratio * (end - start)
  left = np.maximum((start - reach).astype(int), 0)
  right = (end - 1 + reach).astype(int).clip(end, frames)
  at_left, at_start, at_end, at_right = (
    total[row, at] for at in (left, start, end, right)
  )
  outer = at_start - at_left + at_right - at_end
  count = start - left + right - end
  inner = (at_end - at_start) / (end - start)
  return inner - outer / np.maximum(count, 1)


def _overlap(a, b):
  """Compute the overlap [N, M] of segments a [N, 2] and b [M, 2]."""
  a = a[:, None]
  common = np.minimum(a[..., 1], b[:, 1]) - np.maximum(a[..., 0], b[:, 0]) + 1
  common = np.maximum(common, 0)
  lengths = (a[..., 1] - a[..., 0] + 1) + (b[:, 1] - b[:, 0] + 1)
  return common / (lengths - common)
