"""Localisation and mAP on drawn sets of the benchmarks' sizes."""

import numpy as np

from backtal_jax import localization
from backtal_jax.metrics import detection_map
from benchmarks import measure, plain
from configs import activitynet12, hacs, thumos14

# Config, videos, actions a video, their and the video's mean seconds, and
# the logit of a labelled class.
SETS = {
  'thumos14': (thumos14, 210, 15, 4.5, 210, 3.0),
  'activitynet12': (activitynet12, 2383, 1.5, 50, 120, 6.0),
  'hacs': (hacs, 800, 2.5, 40, 150, 6.0),
}


def draw(name, num_videos=None, seed=0):
  """Draw videos: noisy class activations, raised where there are actions.

  Returns:
    options of localization.localize; truth {class: [(video, start, end)]}; and
    a list of cas [T, C+1], score [C+1], magnitude [T], frame_num, duration.
  """
  module, count, per_video, length, duration_mean, logit = SETS[name]
  config, rng = module.get_config(), np.random.default_rng(seed)
  num_snippets = config.data.num_snippets
  num_classes = config.model.num_classes
  truth, videos = {}, []
  for video in range(num_videos or count):
    duration = duration_mean * rng.uniform(0.3, 1.7)
    time = (np.arange(num_snippets) + 0.5) / num_snippets * duration
    noise = rng.normal(size=(num_snippets + 8, num_classes + 1)) * 0.3
    sums = np.cumsum(noise, axis=0)
    cas = (sums[8:] - np.pad(sums, ((1, 0), (0, 0)))[:-9]) / 3 - 1
    magnitude = rng.random(num_snippets)
    logits, label = np.full(num_classes + 1, -2.0), rng.integers(num_classes)
    logits[label] = logit
    for _ in range(max(1, rng.poisson(per_video))):
      start = rng.random() * duration
      end = min(start + length * rng.uniform(0.4, 1.6), duration)
      inside = (time >= start - rng.random()) & (time <= end + rng.random())
      cas[inside, label] += rng.random() * 4
      magnitude[inside] += 1
      truth.setdefault(int(label), []).append((video, start, end))
    score = np.exp(logits) / np.exp(logits).sum()
    arrays = (cas, score, magnitude)
    videos.append(
      ([a.astype(np.float32) for a in arrays], int(duration * 30), duration)
    )
  return dict(config.localization), truth, videos


def _localize(options, videos):
  return [
    localization.localize(*arrays, frame_num=n, duration=d, **options)
    for arrays, n, d in videos
  ]


def _localize_plainly(options, videos):
  # The plain loops of the tests; from the repository's root.
  from tests import localization_oracle

  for arrays, n, d in videos:
    localization_oracle.localize(*arrays, frame_num=n, duration=d, **options)


def run_localization() -> dict:
  """Measure localising a split; the limit copies all thresholded curves."""
  found = {}
  for name in SETS:
    options, _, videos = draw(name)
    some = videos[: max(2, len(videos) // 100)]
    levels = len(np.arange(*options['cas_thresholds']))
    frames = sum(n for _, n, _ in videos)
    copy = measure.make_copy(4 * levels * frames)
    ours, limit, few = measure.interleaved(
      lambda v=videos, o=options: _localize(o, v),
      copy,
      lambda v=some, o=options: _localize_plainly(o, v),
      repeats=3,
    )
    found[name] = measure.result(
      ours,
      limit,
      plain_seconds=few * len(videos) / len(some),
      videos=len(videos),
    )
  return found.pop('thumos14') | {'sets': found}


def as_arrays(truth, predictions):
  """Turn {class: rows} into a segments.Truth and Segments."""
  labels = sorted(truth)
  place = {label: i for i, label in enumerate(labels)}

  def segments(rows_by_class):
    rows = [
      (row[0], place[label], *row[1:3], row[3] if len(row) > 3 else 1.0)
      for label, rows in rows_by_class.items()
      if label in place
      for row in rows
    ]
    rows.sort(key=lambda row: row[0])
    video, label, start, end, score = np.array(rows).T
    return segments.Segments(
      video.astype(int), label.astype(int), start, end, score
    )

  count = 1 + max(
    row[0] for part in (truth, predictions) for r in part.values() for row in r
  )
  names = [f'{i:06}' for i in range(count)]
  return segments.Truth(
    names, [f'{label:04}' for label in labels], segments(truth)
  ), segments(predictions)


def run_detection_map() -> dict:
  """Measure mAP of a split's segments; the limit sorts them a tIoU."""
  found = {}
  for name in SETS:
    options, truth, videos = draw(name)
    predictions = {}
    for video, (labels, segments, scores) in enumerate(
      _localize(options, videos)
    ):
      for label, (start, end), score in zip(
        labels.tolist(), segments.tolist(), scores.tolist(), strict=True
      ):
        predictions.setdefault(label, []).append((video, start, end, score))
    tiou = list(SETS[name][0].get_config().eval.tiou)
    arrays = as_arrays(truth, predictions)
    one = [max(truth, key=lambda c: len(truth[c]))]
    right, guesses = (
      {c: rows.get(c, []) for c in one} for rows in (truth, predictions)
    )
    ours, limit, few = measure.interleaved(
      lambda a=arrays, t=tiou: detection_map.detection_map(*a, t),
      lambda a=arrays, t=tiou: [np.sort(a[1].score) for _ in t],
      lambda g=right, p=guesses, t=tiou: plain.detection_map(g, p, t),
      repeats=3,
    )
    share = len(predictions.get(one[0], [])) / len(arrays[1].score)
    found[name] = measure.result(
      ours, limit, plain_seconds=few / share, predictions=len(arrays[1].score)
    )
  return found.pop('thumos14') | {'sets': found}
