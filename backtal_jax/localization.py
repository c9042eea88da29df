"""From one video's class activation sequence (CAS) to scored segments.

Section 4 of the method: normalise, upsample to frames, threshold, score each
run of frames by its contrast to what surrounds it, drop overlapping ones. It
runs in NumPy, video by video, with all thresholds of a class handled at once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

# How many segments are compared with each other at once; bounds the memory.
_BLOCK = 256
# Scores that soft NMS makes smaller than this are dropped.
_FLOOR = 1e-3

# (labels [N], segments [N, 2] in seconds) -> what their scores gain [N], and
# segments [N, 2] that stand beside them with the same scores.
Judge = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Found(NamedTuple):
  """The segments of a video, by class, then by descending score."""

  label: np.ndarray  # [N] int
  segment: np.ndarray  # [N, 2] seconds
  score: np.ndarray  # [N]


NOTHING = Found(np.zeros(0, int), np.zeros((0, 2)), np.zeros(0))


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
  probability_power: float = 0.0,
  nms_sigma: float = 0.0,
  judge: Judge | None = None,
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
    probability_power: Scores are times the class's largest probability in the
      run to this power, so that a class that is hardly there scores low.
    nms_sigma: Above 0, overlaps lower scores instead, see `fade`.
    judge: Judges the proposals beside, see quality.Judge.
  """
  found: list[tuple[np.ndarray, ...]] = [NOTHING]
  for label, segments, scores, num_cas in _propose_all(
    cas, score, magnitude, frame_num, duration, class_threshold,
    cas_thresholds, magnitude_thresholds, outer_ratio, confidence_weight, trim,
    read, probability_power,
  ):  # fmt: skip
    if judge is not None and len(scores):
      gain, beside = judge(np.full(len(scores), label), segments)
      segments = np.concatenate([segments, beside])
      scores = np.tile(scores + gain, 2)
    whole = whole_video_score if num_cas else 0
    ranked = _rank(segments, scores, duration, whole, nms_tiou, nms_sigma)
    found.append((np.full(len(ranked[1]), label), *ranked))
  label, rows, value = zip(*found, strict=True)
  return Found(*map(np.concatenate, (label, rows, value)))


def propose(
  cas: np.ndarray, score: np.ndarray, magnitude: np.ndarray | None,
  **options: Any,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
  """Return the proposals of one video before any is dropped.

  Args:
    cas, score, magnitude: See `localize`.
    **options: Those of `localize`; what ranks proposals is not looked at.

  Returns:
    labels [N] int and segments [N, 2] in seconds, by class.
  """
  ranks = 'nms_tiou', 'nms_sigma', 'whole_video_score', 'judge'
  options = {k: v for k, v in options.items() if k not in ranks}
  proposed = _propose_all(cas, score, magnitude, **options)
  found = [(np.full(len(rows), label), rows) for label, rows, _, _ in proposed]
  labels, rows = zip(NOTHING[:2], *found, strict=True)
  return np.concatenate(labels), np.concatenate(rows)


def _propose_all(
  cas, score, magnitude, frame_num, duration, class_threshold, cas_thresholds,
  magnitude_thresholds, outer_ratio, confidence_weight, trim,
  read='logits', probability_power=0.0,
):  # fmt: skip
  """Yield each class, its proposals, their scores, how many are of the CAS."""
  score = np.asarray(score, np.float32)
  labels = np.flatnonzero(score[:-1] >= np.float32(class_threshold))
  signals = normalize(activation(cas, read)[:, labels])
  signals = upsample(signals, frame_num)
  levels = _levels(cas_thresholds)
  strong = _strong_runs(magnitude, magnitude_thresholds, frame_num)
  if probability_power:
    share = upsample(activation(cas, 'probabilities')[:, labels], frame_num)
  for i, (label, signal) in enumerate(zip(labels, signals, strict=True)):
    runs, contrast, num_cas = _propose(signal, levels, strong, outer_ratio)
    scores = contrast + confidence_weight * float(score[label])
    if probability_power:
      # The ends excluded, also where that is the end of the video.
      most = np.maximum.reduceat(np.append(share[i], 0), runs.ravel())[::2]
      scores *= most**probability_power
    segments = runs / frame_num * duration
    cut = trim * (segments[:, 1:] - segments[:, :1])
    # In float32, as the official program has it, equal proposals do tie.
    scores = scores.astype(np.float32).astype(float)
    yield label, segments + cut * [1, -1], scores, num_cas


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

  Segments are [N, 2] seconds, scores [N], tiou is the overlap from which a
  segment is dropped.

  Returns:
    Indices of the kept segments, by descending score.
  """
  rest = np.argsort(-scores, kind='stable')
  kept = [rest[:0]]
  while rest.size:
    head, rest = rest[:_BLOCK], rest[_BLOCK:]
    apart = overlap(segments[head], segments[head], extra=1) < tiou
    alive = np.ones(head.size, bool)
    for i in range(head.size):
      if alive[i]:
        alive[i + 1 :] &= apart[i, i + 1 :]
    kept.append(head[alive])
    if rest.size:
      apart = overlap(segments[rest], segments[kept[-1]], extra=1) < tiou
      rest = rest[apart.all(1)]
  return np.concatenate(kept)


def fade(
  segments: np.ndarray, scores: np.ndarray, sigma: float
) -> tuple[np.ndarray, np.ndarray]:
  """Lower the score of every segment by its overlap with higher ones.

  The segment with the highest score is kept, all others' scores are times
  exp(−tIoU² / sigma), and so on (soft NMS); those below 1e-3 are dropped, and
  the earlier of two equal scores goes first.

  Segments are [N, 2] seconds, scores [N], sigma is more than 0.

  Returns:
    Indices of the kept segments, by descending score, and these scores.
  """
  scores, alive = np.array(scores, float), np.ones(len(scores), bool)
  kept, values = [], []
  while alive.any():
    best = int(np.argmax(np.where(alive, scores, -np.inf)))
    kept.append(best)
    values.append(scores[best])
    alive[best] = False
    tiou = overlap(segments[best : best + 1], segments, extra=0)[0]
    scores = np.where(alive, scores * np.exp(-(tiou**2) / sigma), scores)
    alive &= scores > _FLOOR
  return np.array(kept, int), np.array(values, float)


def format_video(found: Found, names: Sequence[str]) -> list[Detection]:
  """List what `localize` found, unrounded; the labels index `names`."""
  return [
    {'label': names[label], 'segment': segment, 'score': score}
    for label, segment, score in zip(*(x.tolist() for x in found), strict=True)
  ]


def format_results(videos: Mapping[str, list[Detection]]) -> dict[str, object]:
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


def _rank(segments, scores, duration, whole_video_score, nms_tiou, nms_sigma):
  """Return the segments that are kept, with their scores."""
  if whole_video_score:
    # One after each proposal is meant, but the first suppresses the others.
    segments = np.concatenate([segments[:1], [[0, duration]], segments[1:]])
    scores = np.concatenate([scores[:1], [whole_video_score], scores[1:]])
  if nms_sigma:
    kept, scores = fade(segments, scores, nms_sigma)
    return segments[kept], scores
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


def overlap(a: np.ndarray, b: np.ndarray, *, extra: float) -> np.ndarray:
  """Compute the overlap [N, M] of segments a [N, 2] and b [M, 2].

  Every length counts `extra` more than it is: 0 for the temporal IoU, 1 for
  what the official program computes.
  """
  a = a[:, None]
  common = np.minimum(a[..., 1], b[:, 1]) - np.maximum(a[..., 0], b[:, 0])
  common = np.maximum(common + extra, 0)
  lengths = (a[..., 1] - a[..., 0] + extra) + (b[:, 1] - b[:, 0] + extra)
  return common / (lengths - common)
