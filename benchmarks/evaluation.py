"""Localisation and mAP on random sets of the benchmarks' sizes."""

import functools

import numpy as np

from backtal_jax import localization
from backtal_jax.data import annotations
from backtal_jax.metrics import detection_map, segments
from benchmarks import measure
from configs import activitynet12, hacs, thumos14
from oracles import detection_map as detection_map_oracle
from oracles import localization as localization_oracle

# Config, videos, actions a video, their and the video's mean seconds, and
# the logit of a labelled class.
SETS = {
  'thumos14': (thumos14, 210, 15, 4.5, 210, 3.0),
  'activitynet12': (activitynet12, 2383, 1.5, 50, 120, 6.0),
  'hacs': (hacs, 800, 2.5, 40, 150, 6.0),
}


def sample(name):
  """Sample a split: noisy class activations, raised where there are actions.

  Returns:
    Options of localization.localize; the truth {video: [(label, start, end)]}
    in seconds; and of each video the keyword arguments of localize: cas
    [T, C+1], score [C+1], magnitude [T], frame_num and duration.
  """
  module, num_videos, per_video, length, duration_mean, logit = SETS[name]
  config, rng = module.get_config(), np.random.default_rng(0)
  num_snippets = config.data.num_snippets
  num_classes = config.model.num_classes
  truth, videos = {}, []
  for video in range(num_videos):
    duration = duration_mean * rng.uniform(0.3, 1.7)
    time = (np.arange(num_snippets) + 0.5) / num_snippets * duration
    noise = rng.normal(size=(num_snippets + 8, num_classes + 1)) * 0.3
    sums = np.cumsum(noise, axis=0)
    cas = (sums[8:] - np.pad(sums, ((1, 0), (0, 0)))[:-9]) / 3 - 1
    magnitude = rng.random(num_snippets)
    logits, label = np.full(num_classes + 1, -2.0), rng.integers(num_classes)
    logits[label] = logit
    actions = truth.setdefault(f'{video:06}', [])
    for _ in range(max(1, rng.poisson(per_video))):
      start = rng.random() * duration
      end = min(start + length * rng.uniform(0.4, 1.6), duration)
      inside = (time >= start - rng.random()) & (time <= end + rng.random())
      cas[inside, label] += rng.random() * 4
      magnitude[inside] += 1
      actions.append((f'{label:04}', start, end))
    score = np.exp(logits) / np.exp(logits).sum()
    videos.append(
      {
        'cas': cas.astype(np.float32),
        'score': score.astype(np.float32),
        'magnitude': magnitude.astype(np.float32),
        'frame_num': int(duration * 30),
        'duration': duration,
      }
    )
  options = dict(config.localization)
  del options['read']  # logits, all that the oracle reads
  return options, truth, videos


def _localize(function, options, videos):
  return [function(**video, **options) for video in videos]


def run_localization() -> dict:
  """Measure localising a split; the limit copies all thresholded curves."""

  def measured(name):
    options, _, videos = sample(name)
    some = videos[: max(2, len(videos) // 100)]
    levels = len(np.arange(*options['cas_thresholds']))
    frames = sum(video['frame_num'] for video in videos)
    ours, limit, few = measure.interleaved(
      functools.partial(_localize, localization.localize, options, videos),
      measure.make_copy(4 * levels * frames),
      functools.partial(_localize, localization_oracle.localize, options, some),
      repeats=3,
    )
    plain = few * len(videos) / len(some)
    return measure.result(ours, limit, plain_seconds=plain, videos=len(videos))

  return measure.of_sets(SETS, measured)


def run_detection_map() -> dict:
  """Measure mAP of a split's segments; the limit sorts them a tIoU."""

  def measured(name):
    options, actions, videos = sample(name)
    found = _localize(localization.localize, options, videos)
    found = dict(zip(actions, found, strict=True))
    truth, config = _read(actions), SETS[name][0].get_config()
    classes = [f'{label:04}' for label in range(config.model.num_classes)]
    predictions = segments.make_predictions(found, classes, truth)
    guesses = {
      video: [
        (row['label'], *row['segment'], row['score'])
        for row in localization.format_video(rows, classes)
      ]
      for video, rows in found.items()
    }
    tiou = list(config.eval.tiou)
    most = np.bincount(truth.segments.label).argmax()
    one = [_of_class(rows, truth.labels[most]) for rows in (actions, guesses)]
    ours, limit, few = measure.interleaved(
      functools.partial(detection_map.detection_map, truth, predictions, tiou),
      lambda: [np.sort(predictions.score) for _ in tiou],
      functools.partial(detection_map_oracle.detection_map, *one, tiou),
      repeats=3,
    )
    return measure.result(
      ours,
      limit,
      plain_seconds=few / (predictions.label == most).mean(),
      predictions=len(predictions.score),
    )

  return measure.of_sets(SETS, measured)


def _read(actions):
  """Make a segments.Truth of rows {video: [(label, start, end)]}."""
  videos = {
    name: annotations.AnnotatedVideo(
      name, 'test', None, None,
      tuple(annotations.Segment(start, end, label)
            for label, start, end in rows),
    )
    for name, rows in actions.items()
  }  # fmt: skip
  return segments.make_truth(annotations.Annotations(videos, ()), 'test')


def _of_class(rows, label):
  return {v: [row for row in r if row[0] == label] for v, r in rows.items()}
