"""Mean average precision of temporal detections, by ActivityNet's protocol.

  python -m backtal_jax.metrics.detection_map --ground_truth gt.json \\
    --predictions predictions.json --subset test --tiou 0.3:0.1:0.7

Section 5 of method.md. Equal scores keep the order of the input (videos by
name), so that the result never depends on the machine.
"""

import argparse
import collections
import contextlib
import decimal
import itertools
import logging
import math
from typing import NamedTuple

import numpy as np

from backtal_jax import errors, files

# How many pairs of a prediction and a ground truth are compared at once.
_CHUNK = 1 << 20


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


def match(truth, predictions, tiou):
  """Let each prediction, best score first, take the best ground truth left.

  Args:
    truth: Truth, from `read_truth`.
    predictions: Segments, from `read_predictions`.
    tiou: thresholds in (0, 1], the least overlap of a match.

  Returns:
    order [N]: the predictions by class, then by descending score; and matched
    [len(tiou), N], in that order: an index into truth.segments or -1.
  """
  order = np.lexsort((-predictions.score, predictions.label))
  ranked = Segments(*(x[order] for x in predictions))
  rank, target, overlap = pairs(truth, ranked, min(tiou))
  first = np.searchsorted(rank, np.arange(len(order)))
  matched = np.full((len(tiou), len(order)), -1, np.int32)
  for row, threshold in zip(matched, tiou, strict=True):
    # Each prediction's pairs are sorted: the ones that reach it come first.
    reach = np.bincount(rank[overlap >= threshold], minlength=len(order))
    taker = _assign(first, first + reach, target, len(truth.segments.label))
    taken = np.flatnonzero(taker < len(order))
    row[taker[taken]] = taken
  return order, matched


def detection_map(truth, predictions, tiou):
  """Compute the mean average precision over classes, for each tIoU.

  The arguments are those of `match`.

  Returns:
    {'tiou', 'mAP' [tIoU], 'average_mAP', 'ap_per_class': {label: [tIoU]}},
    fractions of 1.
  """
  order, matched = match(truth, predictions, tiou)
  cuts = np.arange(1, len(truth.labels))
  cuts = np.searchsorted(predictions.label[order], cuts)
  hits = np.split(matched >= 0, cuts, axis=1)
  count = np.bincount(truth.segments.label)
  ap = np.stack([*map(average_precision, hits, count)])
  return {
    'tiou': [float(t) for t in tiou],
    'mAP': ap.mean(0).tolist(),
    'average_mAP': float(ap.mean()),
    'ap_per_class': dict(zip(truth.labels, ap.tolist(), strict=True)),
  }


def average_precision(hit, num_truth):
  """Compute the area under the precision envelope (VOC 2011).

  Args:
    hit: [..., N] bool: which predictions are right, best score first.
    num_truth: number of ground-truth segments, at least 1.

  Returns:
    [...] average precision, 0 without predictions.
  """
  precision = hit.cumsum(-1) / np.arange(1, hit.shape[-1] + 1)
  envelope = np.maximum.accumulate(precision[..., ::-1], -1)[..., ::-1]
  return (envelope * hit).sum(-1) / num_truth


def parse_tiou(text):
  """Read '0.3,0.5' or 'start:step:stop' (stop included) as decimal literals.

  Raises:
    errors.InputError: it is neither, or a threshold is not in (0, 1].
  """
  try:
    if ':' in text:
      start, step, stop = map(decimal.Decimal, text.split(':'))
      values = [start + i * step for i in range(int((stop - start) / step) + 1)]
    else:
      values = [decimal.Decimal(part) for part in text.split(',')]
    if values and all(0 < value <= 1 for value in values):
      return [float(value) for value in values]
  except (ValueError, ArithmeticError):
    pass
  raise errors.InputError(
    f'--tiou is {text!r}, expected numbers in (0, 1]: 0.3,0.5 or 0.5:0.05:0.95'
  )


def format_table(result, truth):
  """Format a result in percent: a line a class, the mean, the average."""
  names = [*truth.labels, 'mAP', 'average mAP']
  width = max(map(len, names))
  rows = [*result['ap_per_class'].values(), result['mAP']]
  rows.append([result['average_mAP']])
  counts = [*np.bincount(truth.segments.label), len(truth.segments.label), '']
  head = ''.join(f'{t:7g}' for t in result['tiou'])
  lines = [f'{"class":{width}} segments{head}']
  for name, count, row in zip(names, counts, rows, strict=True):
    cells = ''.join(f'{100 * x:7.2f}' for x in row)
    lines.append(f'{name:{width}} {count:>8}{cells}')
  return '\n'.join(lines)


def main(argv=None):
  """Run the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--ground_truth', required=True, help='ActivityNet JSON')
  parser.add_argument('--predictions', required=True, help='ActivityNet JSON')
  parser.add_argument('--subset', required=True, help='the split, e.g. test')
  parser.add_argument('--tiou', default='0.5:0.05:0.95', help='(%(default)s)')
  parser.add_argument('--output', help='JSON file for the result')
  args = parser.parse_args(argv)
  with errors.one_line():
    tiou = parse_tiou(args.tiou)
    gt, found = args.ground_truth, args.predictions
    truth = read_truth(files.read_json(gt), args.subset, gt)
    predictions, _ = read_predictions(files.read_json(found), truth, found)
    result = detection_map(truth, predictions, tiou)
    if args.output:
      files.write_json(args.output, result, indent=1)
    print(format_table(result, truth))


def pairs(truth, predictions, least):
  """List pairs in the same video and class that overlap by `least` or more.

  Returns:
    Index into `predictions`, index into truth.segments and tIoU of each pair,
    ordered by prediction, descending tIoU and ground truth.
  """
  key = truth.segments.video * len(truth.labels) + truth.segments.label
  wanted = predictions.video * len(truth.labels) + predictions.label
  by_key = np.argsort(key, kind='stable')
  first = np.searchsorted(key, wanted, sorter=by_key)
  count = np.searchsorted(key, wanted, 'right', sorter=by_key) - first
  begin = np.cumsum(count) - count
  starts = np.arange(0, count.sum(), _CHUNK)
  cuts = np.searchsorted(begin + count, starts, 'right').tolist()
  parts = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
  for low, high in itertools.pairwise([*cuts, len(count)]):
    rank = np.repeat(np.arange(low, high), count[low:high])
    step = np.arange(rank.size) + begin[low] - begin[rank]
    target = by_key[first[rank] + step]
    a, b = predictions.start[rank], predictions.end[rank]
    c, d = truth.segments.start[target], truth.segments.end[target]
    common = np.maximum(np.minimum(b, d) - np.maximum(a, c), 0)
    union = (b - a) + (d - c) - common
    overlap = np.divide(common, union, np.zeros_like(common), where=union > 0)
    near = np.flatnonzero(overlap >= least)
    best = near[np.lexsort((-overlap[near], rank[near]))]
    parts.append((rank[best], target[best], overlap[best]))
  return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _assign(first, last, target, num_truth):
  """Let predictions, best first, each take the first of its targets left.

  Taking turns can't be vectorised. But as all targets prefer the same
  predictions, deferred acceptance ends alike: all ask at once, every target
  holds on to the best so far, and those it refuses ask their next one.

  Args:
    first, last: [N] where the targets of each prediction are in `target`.
    target: indices below num_truth, each prediction's best first.

  Returns:
    [num_truth] the prediction that takes each target, N for none.
  """
  at, taker = first.copy(), np.full(num_truth, len(first))
  asking = np.flatnonzero(at < last)
  while asking.size:
    asked = target[at[asking]]
    before = taker[asked]
    np.minimum.at(taker, asked, asking)
    after = taker[asked]
    lost = before[(before != after) & (before < len(first))]
    refused = np.concatenate([asking[asking != after], np.unique(lost)])
    at[refused] += 1
    asking = refused[at[refused] < last[refused]]
  return taker


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


if __name__ == '__main__':
  main()
