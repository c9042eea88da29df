"""The results that a run left in its workdir, and its videos drawn."""

import contextlib
import json
from typing import NamedTuple

import numpy as np
from etils import epath

from backtal_jax import errors, files
from backtal_jax.metrics import (
  average_precision,
  diagnosis,
  segments,
)
from backtal_jax.report import figures
from backtal_jax.run import outputs

# The tIoU of everything that shows a single one.
THETA = 0.5


class Run(NamedTuple):
  """What a workdir holds, read."""

  name: str
  config: dict
  metrics: dict  # metrics.json
  log: list  # lines of metrics.jsonl
  truth: segments.Truth
  durations: np.ndarray  # of truth.videos, seconds or NaN
  predictions: segments.Segments
  curves: dict  # outputs.read


def read(workdir, ground_truth='') -> Run:
  """Read the results of a run.

  Args:
    workdir: with config.json, metrics.json and predictions.json.
    ground_truth: path, by default what the config says.

  Raises:
    errors.InputError: a file is missing or wrong.
  """
  workdir = epath.Path(workdir)
  config = files.read_json(workdir / 'config.json')
  metrics = files.read_json(workdir / 'metrics.json')
  try:
    data = config['data']
    path = files.find(ground_truth or data['ground_truth'], data['root'])
    split = data['eval_split']
    _ = metrics['tiou'], metrics['mAP'], metrics['average_mAP']
  except (KeyError, TypeError) as e:
    raise errors.InputError(
      f'{workdir}: its config.json or metrics.json is not of a run: {e!r}'
    ) from e
  annotations = files.read_json(path)
  truth = segments.read_truth(annotations, split, str(path))
  found = workdir / 'predictions.json'
  predictions, _ = segments.read_predictions(
    files.read_json(found), truth, str(found)
  )
  return Run(
    name=workdir.resolve().name,
    config=config,
    metrics=metrics,
    log=_read_lines(workdir / 'metrics.jsonl'),
    truth=truth,
    durations=diagnosis.read_durations(annotations, truth),
    predictions=predictions,
    curves=outputs.read(workdir / 'curves.npz'),
  )


def _read_lines(path):
  """Read JSON lines; the last one may be cut off where a run died."""
  rows = []
  for line in path.read_text().splitlines() if path.exists() else ():
    with contextlib.suppress(ValueError):
      rows.append(json.loads(line))
  return rows


def timelines(truth, durations, predictions, found, *, count=1):
  """Draw the videos that went best, in the middle and worst.

  By the AP, at tIoU 0.5, of all their predictions together.

  Args:
    truth: Truth.
    durations: [videos] seconds or NaN.
    predictions: Segments.
    found: {video: outputs.take}; may lack videos.
    count: of each.

  Returns:
    {'best 1: VIDEO, AP 97.1 %': Figure}, in that order.
  """
  ap = average_precision.video_ap(truth, predictions, THETA)
  order = np.argsort(-ap, kind='stable')
  order = order[: np.isfinite(ap).sum()]
  count = min(count, len(order))
  middle = (len(order) - count) // 2
  kinds = diagnosis.error_kinds(truth, predictions, [THETA])[0]
  chosen = {
    'best': order[:count],
    'median': order[middle : middle + count],
    'worst': order[::-1][:count],
  }
  drawn = {}
  for word, videos in chosen.items():
    for i, video in enumerate(videos, 1):
      name = f'{word} {i}: {truth.videos[video]}, AP {100 * ap[video]:.1f} %'
      drawn[name] = draw(
        truth, durations, predictions, found, video, kinds=kinds, title=name
      )
  return drawn


def draw(truth, durations, predictions, found, video, *, kinds, title):
  """Draw the timeline of one video; the arguments are those of `timelines`.

  Args:
    video: index into truth.videos.
    kinds: [N] of the predictions, from diagnosis.error_kinds.
    title: of the figure.
  """
  name = truth.videos[video]
  segments = _segments(truth, predictions, video, kinds)
  annotated = _segments(truth, truth.segments, video)
  shown = found.get(name, found.get(name.removeprefix('v_')))
  duration = float(np.nan_to_num(durations[video])) or None
  return figures.timeline(
    title,
    duration,
    segments=segments,
    ground_truth=annotated,
    **_curves(shown, annotated, segments, duration),
  )


def _segments(truth, segments, video, kinds=None):
  """List the segments of one video as dictionaries."""
  rows = np.flatnonzero(segments.video == video)
  return [
    {
      'label': truth.labels[segments.label[i]],
      'segment': [float(segments.start[i]), float(segments.end[i])],
      'score': float(segments.score[i]),
    }
    | ({} if kinds is None else {'kind': diagnosis.KINDS[kinds[i]]})
    for i in rows
  ]


def _curves(shown, annotated, segments, duration):
  """Return a timeline's curves: of the annotated and the best found classes."""
  if shown is None or duration is None:
    return {}
  best = sorted(segments, key=lambda s: -s['score'])
  names = [s['label'] for s in annotated] + [s['label'] for s in best]
  names = [n for n in dict.fromkeys(names) if n in shown['labels']][:4]
  at = np.flatnonzero(shown['background'])
  return {
    'cas': {n: shown['cas'][shown['labels'].index(n)] for n in names},
    'foreground': shown['foreground'],
    'magnitude': shown['magnitude'],
    'clicks': (at + 0.5) / len(shown['background']) * duration,
  }
