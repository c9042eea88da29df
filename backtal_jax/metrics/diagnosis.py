"""Where the errors of temporal detections come from.

  python -m backtal_jax.metrics.diagnosis --ground_truth gt.json \\
    --predictions predictions.json --subset test

After DETAD (Alwassel, Caba Heilbron, Escorcia, Ghanem: "Diagnosing Error in
Temporal Action Detectors", ECCV 2018), with the plain AP of detection_map and
with groups of equal size instead of limits made for single data sets.
"""

import itertools
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from backtal_jax import errors, files
from backtal_jax.metrics import (
  average_precision,
  detection_map,
  matching,
  segments,
)

# What a prediction can be, see `error_kinds`.
KINDS = (
  'true positive',
  'double detection',
  'wrong label',
  'localisation',
  'confusion',
  'background',
)
# A prediction that overlaps every ground truth less is a background error.
NEAR = 0.1
# Predictions looked at in a class: this many times its ground truth (G).
TOP = 10
_NUM_GROUPS = 5

# A fifth of the ground truth by some value, with both its ends.
Group = TypedDict('Group', {
  'from': float, 'to': float, 'count': int, 'missed': int,
  'missed_share': float, 'normalised_mAP': float,
})  # fmt: skip


class Diagnosis(TypedDict):
  """Where the errors come from; mAP and recall as fractions of 1."""

  theta: float
  tiou: list[float]
  count: dict[str, int]  # by kind, of every class's best TOP·G
  profile: list[dict[str, int]]  # the same of the best G, the G after it, …
  # By kind: average mAP gained if these errors were removed from the best TOP·G
  # (DETAD section 4.2, without its normalisation).
  gain: dict[str, float]
  missed: int  # ground truths that no prediction was matched with
  normalised_mAP: float  # see `characteristics`
  characteristics: dict[str, list[Group]]
  recall: average_precision.Recall
  # By label: segments, ap at theta, average_ap, and the number of each kind.
  classes: dict[str, dict[str, float]]


def diagnose(
  truth: segments.Truth,
  predictions: segments.Segments,
  tiou: Sequence[float],
  *,
  theta: float = 0.5,
) -> Diagnosis:
  """Split errors into kinds, and count what was missed.

  `gain` and `normalised_mAP` average over `tiou`, all else is at `theta`.
  """
  levels = [*tiou, theta]
  order, matched = matching.match(truth, predictions, levels)
  label = predictions.label[order]
  kinds = error_kinds(truth, predictions, levels, (order, matched))[:, order]
  count = np.bincount(truth.segments.label)
  kept = best(label, count)
  ap = average_precision.average_precisions(
    label, matched >= 0, np.ones((1, len(label))), count
  )
  portion = average_precision.places(label, len(count)) // count[label]
  table = np.zeros((len(count), TOP, len(KINDS)), int)
  np.add.at(table, (label[kept], portion[kept], kinds[-1, kept]), 1)
  found = matched[-1][matched[-1] >= 0]
  missed = np.bincount(found, minlength=len(truth.segments.label)) == 0
  normal, groups = characteristics(truth, label, matched[:-1], missed)
  return {
    'theta': float(theta),
    'tiou': [float(t) for t in tiou],
    'count': _named(table.sum((0, 1))),
    'profile': [_named(row) for row in table.sum(0)],
    'gain': _gain(label[kept], kinds[:-1, kept], count),
    'missed': int(missed.sum()),
    'normalised_mAP': normal,
    'characteristics': groups,
    'recall': average_precision.average_recall(truth, predictions),
    'classes': _by_class(truth.labels, count, ap[0].T, table.sum(1)),
  }


def best(label: np.ndarray, count: np.ndarray) -> np.ndarray:
  """Mark the best TOP·G predictions [N] of every class.

  Args:
    label: [N] classes, ascending, and by descending score within a class.
    count: [C] ground truths (G) of every class.
  """
  return average_precision.places(label, len(count)) < TOP * count[label]


def error_kinds(
  truth: segments.Truth,
  predictions: segments.Segments,
  tiou: Sequence[float],
  match: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
  """Name the kind of every prediction (DETAD section 4.1).

  A prediction matched at the threshold θ, as for mAP, is a true positive. Any
  other is named after the ground truth, of whatever class, that it overlaps
  most (of equal ones after one of its own class):

    * double detection: tIoU ≥ θ and its class; that one is already matched;
    * wrong label: tIoU ≥ θ and another class;
    * localisation: NEAR ≤ tIoU < θ and its class;
    * confusion: NEAR ≤ tIoU < θ and another class;
    * background: less, or nothing at all.

  The thresholds θ are `tiou`; `match` is what matching.match returns, if known.

  Returns:
    [len(tiou), N] indices into KINDS, in the order of `predictions`.
  """
  order, matched = match or matching.match(truth, predictions, tiou)
  hit = np.zeros(matched.shape, bool)
  hit[:, order] = matched >= 0
  rank, target, overlap = matching.pairs(
    truth, predictions, min(NEAR, *tiou), any_class=True
  )
  nearest = np.zeros(len(order))
  np.maximum.at(nearest, rank, overlap)
  own = truth.segments.label[target] == predictions.label[rank]
  same = np.zeros(len(order), bool)
  same[rank[own & (overlap == nearest[rank])]] = True
  reached = nearest >= np.reshape(tiou, (-1, 1))
  near = nearest >= NEAR
  return np.select(
    [hit, reached & same, reached, near & same, near], range(5), 5
  )


def characteristics(
  truth: segments.Truth,
  label: np.ndarray,
  matched: np.ndarray,
  missed: np.ndarray,
) -> tuple[float, dict[str, list[Group]]]:
  """Group the ground truth, and see how well each group is found.

  The groups are fifths by number, not DETAD's limits, which differ from data
  set to data set. Coverage is length / duration of the video, length is in
  seconds, instances are those of the class in the video (section 3).

  Args:
    truth: Annotations of the split.
    label: [N] classes of the predictions in the order of `matched`.
    matched: [T, N] and order as of matching.match.
    missed: [G] bool.

  Returns:
    The normalised mAP of everything (N is the mean number of segments a class,
    averaged over T), and the groups by name, where predictions matched with
    ground truth of other groups are left out.
  """
  segments = truth.segments
  length = segments.end - segments.start
  key = segments.video * len(truth.labels) + segments.label
  values = {'length (s)': length, 'instances': np.bincount(key)[key]}
  if np.isfinite(truth.durations).any():
    coverage = length / truth.durations[segments.video]
    values = {'coverage': coverage} | values

  normalised = lambda member: _normalised_map(truth, label, matched, member)
  groups: dict[str, list[Group]] = {}
  for name, value in values.items():
    edges, member = _groups(value)
    rows = zip(edges, member, normalised(member), strict=True)
    groups[name] = [
      {
        'from': float(low),
        'to': float(high),
        'count': int(m.sum()),
        'missed': int(missed[m].sum()),
        'missed_share': float(missed[m].mean()),
        'normalised_mAP': float(value),
      }
      for (low, high), m, value in rows
    ]
  return float(normalised(np.ones((1, len(length)), bool))[0]), groups


def format_table(result: Diagnosis) -> str:
  """Lay out the kinds: number, share and gain."""
  total = max(sum(result['count'].values()), 1)
  head = f'best {TOP}·G at tIoU {result["theta"]:g}'
  lines = [f'{head:24}{"number":>8}{"share %":>9}{"mAP gain %":>12}']
  for kind, number in result['count'].items():
    gain = result['gain'].get(kind)
    gain = '' if gain is None else f'{100 * gain:12.2f}'
    lines.append(f'{kind:24}{number:8}{100 * number / total:9.1f}{gain}')
  segments = sum(row['segments'] for row in result['classes'].values())
  return '\n'.join([*lines, f'missed: {result["missed"]} of {segments}'])


def main(argv: Sequence[str] | None = None) -> None:
  """Run the command line."""
  parser = detection_map.make_parser(__doc__)
  parser.add_argument('--theta', default='0.5', help='tIoU of the kinds')
  with errors.one_line():
    args = detection_map.parse(parser, argv)
    tiou = detection_map.parse_tiou(args.tiou)
    (theta,) = detection_map.parse_tiou(args.theta, '--theta', most=1)
    truth, found = segments.read(
      args.ground_truth, args.subset, args.predictions
    )
    result = diagnose(truth, found, tiou, theta=theta)
    if args.output:
      files.write_json(args.output, result, indent=1)
    print(format_table(result))


def _gain(label, kinds, count):
  """Average over tIoU and classes what AP gains without each kind."""
  gain = np.zeros(len(KINDS) - 1)
  for row in kinds:
    weight = np.stack([row != kind for kind in (-1, *range(1, len(KINDS)))])
    ap = average_precision.average_precisions(
      label, row[None] == 0, weight.astype(float), count
    )
    ap = ap[:, 0].mean(1)
    gain += (ap[1:] - ap[0]) / len(kinds)
  return dict(zip(KINDS[1:], gain.tolist(), strict=True))


def _groups(value):
  """Cut values into fifths: their limits, and the members [R, N]."""
  known = np.sort(value[np.isfinite(value)])
  last = np.arange(1, _NUM_GROUPS + 1) * len(known) - 1
  upper = np.unique(known[last // _NUM_GROUPS])
  group = np.where(np.isfinite(value), np.searchsorted(upper, value), -1)
  edges = itertools.pairwise([known[0], *upper])
  return list(edges), group == np.arange(len(upper))[:, None]


def _by_class(labels, count, ap, kinds):
  rows = zip(labels, count.tolist(), ap.tolist(), kinds, strict=True)
  return {
    label: {'segments': segments, 'ap': at_theta,
            'average_ap': float(np.mean(others)), **_named(numbers)}
    for label, segments, (*others, at_theta), numbers in rows
  }  # fmt: skip


def _normalised_map(truth, label, matched, member):
  """Return the normalised mAP [R] of the members [R, G] of the ground truth."""
  own, classes = truth.segments.label, len(truth.labels)
  count = np.array([np.bincount(own[m], minlength=classes) for m in member])
  maps = []
  for row in matched:
    weight = ((row < 0) | member[:, row]).astype(float)
    ap = average_precision.average_precisions(
      label, (row >= 0)[None], weight, count, normal=len(own) / classes
    )
    maps.append(np.nanmean(ap[:, 0], axis=1))
  return np.mean(maps, axis=0)


def _named(numbers):
  return dict(zip(KINDS, numbers.tolist(), strict=True))


if __name__ == '__main__':
  main()
