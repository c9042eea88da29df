"""Ground truth and predictions of a split, in columns.

What mAP, diagnosis, report and comparison have in common.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from backtal_jax import errors, files, localization
from backtal_jax.data import annotation_formats, annotations, video_names


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
  """Annotations of a split, its video names and the class names in them.

  `durations` [videos] are seconds, NaN where not told.
  """

  videos: list[str]
  labels: list[str]
  segments: Segments
  durations: np.ndarray


def make_truth(ground_truth: annotations.Annotations, subset: str) -> Truth:
  """Return the annotations of one split, whose name is in any letter case.

  Raises:
    errors.InputError: The split has no annotation.
  """
  truth = unannotated(ground_truth, subset)
  rows = [
    (i, s.label, s.start, s.end, 1)
    for i, name in enumerate(truth.videos)
    for s in ground_truth.videos[name].segments
  ]
  if not rows:
    raise errors.InputError(
      f'{ground_truth.path}: no annotation in subset {subset!r}'
    )
  labels = sorted({label for _, label, *_ in rows})
  number = {label: i for i, label in enumerate(labels)}
  rows = [(video, number[label], *times) for video, label, *times in rows]
  video, label, *numbers = np.array(rows, float).T.copy()
  segments = Segments(video.astype(int), label.astype(int), *numbers)
  return truth._replace(labels=labels, segments=segments)


def unannotated(ground_truth: annotations.Annotations, subset: str) -> Truth:
  """Return a split's videos and all classes, without any segment of it."""
  found = sorted(ground_truth.subset(subset).items())
  none = np.zeros(0, int)
  return Truth(
    [name for name, _ in found],
    list(ground_truth.classes),
    Segments(none, none, *np.zeros((3, 0))),
    np.array([video.duration or np.nan for _, video in found], float),
  )


def make_predictions(
  found: dict[str, localization.Found],
  classes: Sequence[str],
  truth: Truth,
  where: object = 'predictions',
) -> Segments:
  """Put predictions in columns; a `v_` before a name makes no difference.

  Those of a class that the split lacks are left out; their number is logged, as
  is that of predictions in other videos, which count as wrong.

  The labels of what is `found` in each video index `classes`; `where` is what
  errors call them.

  Raises:
    errors.InputError: Two names mean one video.
  """
  known, _ = video_names.match(found, truth.videos)
  names = {}
  for name, match in known.items():
    if (other := names.setdefault(match, name)) != name:
      raise errors.InputError(f'{where}: {other} and {name} are the same video')
  place = {video: i for i, video in enumerate(truth.videos)}
  order = sorted(found)
  index = [place.get(known.get(name, name), -1) for name in order]
  parts = [localization.NOTHING, *(found[name] for name in order)]
  label, times, score = map(np.concatenate, zip(*parts, strict=True))
  video = np.repeat([-1, *index], [len(part[0]) for part in parts])
  number = {label: i for i, label in enumerate(truth.labels)}
  number = np.array([number.get(name, -1) for name in classes], int)[label]
  _warn(where, [classes[i] for i in label[number < 0]], video[number >= 0])
  columns = video, number, *times.T, score
  return Segments(*(column[number >= 0] for column in columns))


def _warn(where, absent, video):
  """Log the predictions that are ignored, and those of other videos."""
  if absent:
    text = '%s: ignored %d predictions of classes that the split lacks: %s'
    logging.warning(text, where, len(absent), errors.few(sorted({*absent})))
  if outside := np.count_nonzero(video < 0):
    logging.warning('%s: %d predictions are in other videos', where, outside)


def parse_predictions(
  predictions: object, truth: Truth, where: object = 'predictions'
) -> Segments:
  """Return what a prediction file of ActivityNet's form holds.

  That is {'results': {video: [{'label', 'segment', 'score'}]}}.

  Raises:
    errors.InputError: It has another form, or see `make_predictions`.
  """
  found, classes = {}, {}
  for video, listed in annotation_formats.results(predictions, where).items():
    try:
      rows = [_prediction(item) for item in annotation_formats.listed(listed)]
    except errors.InputError as e:
      raise errors.InputError(f'{where}: video {video!r}: {e}') from e
    labels = [classes.setdefault(label, len(classes)) for *_, label, _ in rows]
    times = np.array([row[:2] for row in rows], float).reshape(-1, 2)
    scores = np.array([score for *_, score in rows], float)
    found[video] = localization.Found(np.array(labels, int), times, scores)
  return make_predictions(found, list(classes), truth, where)


def _prediction(item):
  segment = annotation_formats.read_segment(item)
  return *segment, annotation_formats.number(item.get('score'), 'score')


def read(
  ground_truth: epath.Path, subset: str, predictions: epath.Path
) -> tuple[Truth, Segments]:
  """Read both files of a metric, see `make_truth` and `parse_predictions`.

  The ground truth may be a file or a folder of any format.
  """
  truth = make_truth(annotations.read_ground_truth(ground_truth), subset)
  found = files.read_json(predictions)
  return truth, parse_predictions(found, truth, str(predictions))
