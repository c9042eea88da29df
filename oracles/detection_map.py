"""Section 5 of method.md in plain loops."""

import itertools


def detection_map(truth, found, tiou):
  """Score detections a prediction and a threshold at a time.

  Args:
    truth: {video: [(label, start, end)]}.
    found: {video: [(label, start, end, score)]}.
    tiou: Thresholds.

  Returns:
    {label: [AP at each threshold]}.
  """
  result = {}
  for label in sorted({c for rows in truth.values() for c, *_ in rows}):
    ranked = [
      (video, s, e, x)
      for video in sorted(found)
      for c, s, e, x in found[video]
      if c == label
    ]
    ranked.sort(key=lambda row: -row[3])
    total = sum(c == label for rows in truth.values() for c, *_ in rows)
    result[label] = []
    for threshold in tiou:
      taken, hits = set(), []
      for video, s, e, _ in ranked:
        rows = [
          (i, a, b)
          for i, (c, a, b) in enumerate(truth.get(video, []))
          if c == label
        ]
        rows = [(i, _overlap(s, e, a, b)) for i, a, b in rows]
        hits.append(False)
        for i, overlap in sorted(rows, key=lambda row: -row[1]):
          if overlap < threshold:
            break
          if (video, i) not in taken:
            taken.add((video, i))
            hits[-1] = True
            break
      right = itertools.accumulate(hits)
      precision = [r / n for n, r in enumerate(right, 1)]
      best_after = list(itertools.accumulate(reversed(precision), max))[::-1]
      result[label].append(sum(itertools.compress(best_after, hits)) / total)
  return result


def _overlap(s, e, a, b):
  inter = max(0, min(e, b) - max(s, a))
  union = (e - s) + (b - a) - inter
  return inter / union if union > 0 else 0
