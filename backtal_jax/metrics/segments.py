"""Ground truth and predictions of a split, in columns.

The one reader of both, for mAP, diagnosis, report and comparison.
"""

import collections
import contextlib
import logging
import math
from typing import NamedTuple

import numpy as np

from backtal_jax import errors


class Segments(NamedTuple):
  """Segments of many videos: arrays [N], videos by name, then as in the file.

  `video` and `label` index Truth.videos (-1: not in the split) and
  Truth.labels; `start` and `end` are seconds; `score` is 1 in ground truth.
  """

  video: np.ndarray
  label: np.ndarray
  start: np.ndarray
  end: np.ndarray
  score: np.ndarray


class Truth(NamedTuple):
  """Annotations of a split, its video names and the class names in them."""

  videos: list
  labels: list
  segments: Segments


def read_truth(annotations, subset, where='ground truth'):
  """Read the annotations of one split.

  Args:
    annotations: {'database': {video: {'subset', 'annotations': [{'label',
      'segment'}]}}}, ActivityNet's form; seconds may be strings.
    subset: name of the split, in any letter case.
    where: what error messages call the annotations.

  Returns:
    Truth.

  Raises:
    errors.InputError: it has another form, or no annotation of the split.
  """
  database = _get(annotations, 'database', dict, where)
  place = {video: f'{where}: video {video}' for video in database}
  subsets = {v: _get(database[v], 'subset', str, place[v]) for v in database}
  videos = sorted(v for v in database if subsets[v].lower() == subset.lower())
  rows = [
    (i, *_segment(entry, place[video], (int, float, str)), 1)
    for i, video in enumerate(videos)
    for entry in _get(database[video], 'annotations', list, place[video])
  ]
  if not rows:
    problem = f'{where}: no annotation in subset {subset!r}, found subsets: '
    raise errors.InputError(problem + ', '.join(sorted({*subsets.values()})))
  labels = sorted({label for _, label, *_ in rows})
  number = {label: i for i, label in enumerate(labels)}
  segments = _segments([(i, number[label], *row) for i, label, *row in rows])
  return Truth(videos, labels, segments)


def read_predictions(predictions, truth, where='predictions'):
  """Read predictions; a `v_` before a video's name makes no difference.

  Those of a class that the split lacks are left out; their number is logged, as
  is that of predictions in other videos, which count as wrong.

  Args:
    predictions: {'results': {video: [{'label', 'segment', 'score'}]}}.
    truth: the Truth that they are to be compared with.
    where: what error messages call the predictions.

  Returns:
    Segments, and the number of predictions left out.

  Raises:
    errors.InputError: it has another form, or two names for one video.
  """
  results = _get(predictions, 'results', dict, where)
  index = _match_videos(results, truth.videos, where)
  number = {label: i for i, label in enumerate(truth.labels)}
  rows, absent = [], collections.Counter()
  for video in sorted(results):
    place = f'{where}: video {video}'
    for entry in _get(results, video, list, where):
      label, *times = _segment(entry, place, (int, float))
      score = _number(_get(entry, 'score', object, place), 'score', place)
      if label in number:
        rows.append((index[video], number[label], *times, score))
      else:
        absent[label] += 1
  if absent:
    text = '%s: ignored %d predictions of classes that the split lacks: %s'
    logging.warning(text, where, absent.total(), ', '.join(sorted(absent)))
  if outside := sum(row[0] < 0 for row in rows):
    logging.warning('%s: %d predictions are in other videos', where, outside)
  return _segments(rows), absent.total()


def _match_videos(results, videos, where):
  """Map the names in `results` to indices of `videos`, -1 for unknown ones."""
  number = {video: i for i, video in enumerate(videos)}
  index, names = {}, {}
  for name in results:
    forms = (name, f'v_{name}', name.removeprefix('v_'))
    index[name] = next((number[x] for x in forms if x in number), -1)
    other = names.setdefault(index[name], name)
    if other != name and index[name] >= 0:
      raise errors.InputError(f'{where}: {other} and {name} are the same video')
  return index


def _segments(rows):
  """Turn (video, label, start, end, score) rows into Segments."""
  video, label, *numbers = np.array(rows, float).reshape(-1, 5).T.copy()
  return Segments(video.astype(int), label.astype(int), *numbers)


def _get(entry, key, kind, where):
  """Look up a key of a dictionary that was read from JSON."""
  value = entry.get(key) if isinstance(entry, dict) else None
  _expect(isinstance(value, kind), where, key, value, kind.__name__)
  return value


def _segment(entry, where, kinds):
  """Read label, start and end of an annotation or a prediction."""
  segment = _get(entry, 'segment', list, where)
  _expect(len(segment) == 2, where, 'segment', segment, '[start, end]')
  times = (_number(value, 'segment', where, kinds) for value in segment)
  return _get(entry, 'label', str, where), *times


def _number(value, field, where, kinds=(int, float)):
  """Read a finite number."""
  number = math.nan
  if type(value) in kinds:
    with contextlib.suppress(ValueError, OverflowError):
      number = float(value)
  _expect(math.isfinite(number), where, field, value, 'a finite number')
  return number


def _expect(right, where, field, value, expected):
  if not right:
    found = 'missing' if value is None else f'{value!r:.60}'
    raise errors.InputError(f'{where}: {field} is {found}, expected {expected}')
