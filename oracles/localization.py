"""Section 4 of method.md in plain loops: slow, and easy to compare with it."""

import math

import numpy as np


def localize(
  cas,
  score,
  magnitude,
  *,
  frame_num,
  duration,
  class_threshold,
  cas_thresholds,
  magnitude_thresholds,
  outer_ratio,
  confidence_weight,
  nms_tiou,
  trim,
  whole_video_score,
  probability_power=0,
  nms_sigma=0,
):
  """Return [(label, start, end, score)]; the arguments are localization's."""
  found = []
  for label in range(len(score) - 1):
    if score[label] < np.float32(class_threshold):
      continue
    signal = upsample(normalize([row[label] for row in cas]), frame_num)
    proposals = []
    share = []
    for row in cas:
      power = [math.exp(v - max(row)) for v in row]
      share.append(np.float32(power[label] / sum(power)))
    share = upsample(share, frame_num)

    def add(run, values, label=label, proposals=proposals, share=share):
      p, q = run
      start, end = p / frame_num * duration, (q + 1) / frame_num * duration
      cut = trim * (end - start)
      value = contrast(values, p, q, outer_ratio, frame_num)
      value += confidence_weight * float(score[label])
      value *= float(max(share[p : q + 1])) ** probability_power
      value = np.float32(value)  # as the official program's
      proposals.append((start + cut, end - cut, float(value)))

    for threshold in thresholds(cas_thresholds):
      values = [0.0 if v < threshold else float(v) for v in signal]
      for run in runs(values):
        add(run, values)
        if whole_video_score:
          proposals.append((0.0, duration, whole_video_score))
    if magnitude_thresholds:
      strength = [min(max(v, 0), 1) for v in normalize(magnitude)]
      strength = upsample([np.float32(v) for v in strength], frame_num)
      for threshold in thresholds(magnitude_thresholds):
        for run in runs([0.0 if v < threshold else v for v in strength]):
          add(run, [float(v) for v in signal])
    if nms_sigma:
      found += [(label, *row) for row in fade(proposals, nms_sigma)]
    else:
      found += [(label, *row) for row in suppress(proposals, nms_tiou)]
  return found


def thresholds(triple):
  return [np.float32(x) for x in np.arange(*triple)] if triple else []


def normalize(values):
  values = [np.float32(v) for v in values]
  high = max(max(values), np.float32(0))
  low = max(min(values), np.float32(0))
  span = high - low if high > low else np.float32(1)
  return [(v - low) / span for v in values]


def upsample(values, frame_num):
  """Resize with half-pixel centres and clamped ends, as OpenCV in float32."""
  one = np.float32(1)
  last = len(values) - 1
  out = []
  for i in range(frame_num):
    place = np.float32((i + 0.5) * (1 / (frame_num / len(values))) - 0.5)
    left = math.floor(place)
    weight = place - np.float32(left)
    if left < 0:
      left, weight = 0, np.float32(0)
    if left >= last:
      left, weight = last, np.float32(0)
    right = min(left + 1, last)
    out.append(values[left] * (one - weight) + values[right] * weight)
  return out


def runs(values):
  """List the first and last frame of every run of positive values."""
  positive = [i for i, v in enumerate(values) if v > 0]
  if positive == [0]:
    return []
  out = []
  for i in positive:
    if out and out[-1][1] == i - 1:
      out[-1][1] = i
    else:
      out.append([i, i])
  return out


def contrast(values, p, q, outer_ratio, frame_num):
  n = q - p + 1
  inner = sum(values[p : q + 1]) / n
  left = range(max(0, int(p - outer_ratio * n)), p)
  right = range(q + 1, min(frame_num, int(q + outer_ratio * n)))
  around = [values[i] for i in [*left, *right]]
  return inner - (sum(around) / len(around) if around else 0)


def suppress(proposals, tiou):
  kept = []
  for start, end, score in sorted(proposals, key=lambda row: -row[2]):
    for a, b, _ in kept:
      inter = max(0, min(end, b) - max(start, a) + 1)
      union = (end - start + 1) + (b - a + 1) - inter
      if inter / union >= tiou:
        break
    else:
      kept.append((start, end, score))
  return kept


def fade(proposals, sigma):
  """Keep the best, lower the others' scores by their overlap, and so on."""
  kept, rest = [], list(proposals)
  while rest:
    best = max(rest, key=lambda row: row[2])
    rest.remove(best)
    kept.append(best)
    lowered = []
    for start, end, score in rest:
      inter = max(0, min(end, best[1]) - max(start, best[0]))
      tiou = inter / ((end - start) + (best[1] - best[0]) - inter)
      score *= math.exp(-(tiou**2) / sigma)
      if score > 1e-3:
        lowered.append((start, end, score))
    rest = lowered
  return kept
