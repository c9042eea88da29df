"""Diagnosis against cases made by hand, slow loops, and invariances."""

import dataclasses
import json
import math

import hypothesis
import numpy as np
import pytest
from detection_map_test import annotate, database, predict
from hypothesis import strategies as st

from backtal_jax import files
from backtal_jax.metrics import (
  average_precision,
  bootstrap,
  detection_map,
  diagnosis,
  matching,
  segments,
)

TIOU = [0.3, 0.5, 0.7]


def make(truth, predictions, durations=()):
  """Make columns of {video: [(label, start, end)]} and {video: [(…, score)]}.

  Every video lasts 100 s but where `durations` says otherwise.
  """
  annotated = annotate(truth)
  for name, video in annotated.videos.items():
    duration = {name: 100.0, **dict(durations)}[name]
    annotated.videos[name] = dataclasses.replace(video, duration=duration)
  made = segments.make_truth(annotated, 'test')
  results = {'results': predict(predictions)}
  return made, segments.parse_predictions(results, made)


def kinds(truth, predictions, theta=0.5):
  """Name the kind of every prediction, in the order of the input."""
  found = diagnosis.error_kinds(truth, predictions, [theta])[0]
  return [diagnosis.KINDS[i] for i in found]


# Sparse: no shift by half a length brings a segment near another one.
SPARSE = {
  f'v{i}': [('a', 10, 20), ('b', 40, 60), ('a', 80, 86)] for i in range(4)
}


def copies(change, times=1):
  """Predict every segment of SPARSE, changed."""
  return {
    video: [
      (label, *change(start, end), 1 - 0.001 * i - 0.1 * n)
      for i, (label, start, end) in enumerate(rows)
      for n in range(times)
    ]
    for video, rows in SPARSE.items()
  }


@pytest.mark.parametrize(
  'change, times, expected',
  [
    (lambda s, e: (s, e), 1, {'true positive': 12}),
    (lambda s, e: ((s + e) / 2, e + (e - s) / 2), 1, {'localisation': 12}),
    (lambda s, e: (s + 200, e + 200), 1, {'background': 12}),
    (lambda s, e: (s, e), 2, {'true positive': 12, 'double detection': 12}),
  ],
)
def test_the_ground_truth_changed(change, times, expected):
  truth, found = make(SPARSE, copies(change, times))
  result = diagnosis.diagnose(truth, found, TIOU)
  counts = {kind: n for kind, n in result['count'].items() if n}
  assert counts == expected
  assert result['missed'] == 12 - expected.get('true positive', 0)
  if expected != {'true positive': 12}:
    return
  # The ground truth itself costs nothing.
  assert set(result['gain'].values()) == {0.0}
  assert result['normalised_mAP'] == 1
  for rows in result['characteristics'].values():
    assert sum(row['count'] for row in rows) == 12
    assert {row['missed_share'] for row in rows} == {0.0}
    assert {row['normalised_mAP'] for row in rows} == {1.0}


def test_every_kind_by_hand():
  truth, found = make(
    {'v': [('a', 0, 10), ('b', 50, 60)], 'w': [('b', 0, 10)]},
    {
      'v': [
        ('a', 0, 10, 0.9),  # the segment itself
        ('a', 0, 9, 0.8),  # tIoU 0.9 again
        ('b', 1, 10, 0.7),  # tIoU 0.9, the other class
        ('a', 5, 15, 0.6),  # tIoU 1/3
        ('b', 5, 15, 0.5),  # tIoU 1/3, the other class
        ('a', 9.5, 19.5, 0.4),  # tIoU 0.5/19.5
        ('a', 30, 40, 0.3),  # nothing there
      ],
      'not in the split': [('a', 0, 10, 0.95)],
    },
  )
  assert kinds(truth, found) == [
    'background',  # Videos are in name order.
    'true positive',
    'double detection',
    'wrong label',
    'localisation',
    'confusion',
    'background',
    'background',
  ]
  # At a lower threshold what was a localisation error is one of doubles.
  assert kinds(truth, found, 0.3)[4:6] == ['double detection', 'wrong label']


def test_named_after_the_nearest_whatever_its_class():
  # Both classes overlap the second prediction by 0.1 or more; its own class
  # by 4 of 16 seconds, the other one by 9 of 11.
  truth, found = make(
    {'v': [('a', 0, 10), ('b', 7, 16)]}, {'v': [('a', 6, 16, 0.5)]}
  )
  assert kinds(truth, found) == ['wrong label']
  # Equally near: its own class.
  truth, found = make(
    {'v': [('b', 0, 10), ('a', 0, 10)]},
    {'v': [('a', 0, 10, 0.5), ('a', 0, 10, 0.4)]},
  )
  assert kinds(truth, found) == ['true positive', 'double detection']


def test_zero_length_segments_are_missed_and_background():
  truth, found = make(
    {'v': [('a', 5, 5), ('a', 20, 30)]},
    {'v': [('a', 5, 5, 0.9), ('a', 20, 30, 0.8)]},
  )
  assert kinds(truth, found) == ['background', 'true positive']
  assert diagnosis.diagnose(truth, found, TIOU)['missed'] == 1


def test_only_the_best_ten_times_the_segments_count():
  # One segment; the 11th best prediction of its class is left out.
  rows = [('a', 50 + i, 51 + i, 1 - i / 100) for i in range(30)]
  truth, found = make(
    {'v': [('a', 0, 10), ('b', 0, 10)]}, {'v': [*rows, ('b', 0, 10, 0.1)]}
  )
  result = diagnosis.diagnose(truth, found, TIOU)
  assert result['count']['background'] == 10
  assert result['count']['true positive'] == 1
  assert [p['background'] for p in result['profile']] == [1] * 10
  assert [p['true positive'] for p in result['profile']] == [1] + [0] * 9
  assert result['classes']['a']['background'] == 10
  assert result['classes']['b']['ap'] == 1


def test_gain_by_hand():
  # One class, two segments. By score: background, right, confusion (with b),
  # right. AP is (1/2 + 2/4) / 2, without the background (1 + 2/3) / 2,
  # without the confusion (1/2 → 2/3 by the envelope, 2/3): 2/3.
  truth, found = make(
    {'v': [('a', 0, 10), ('a', 20, 30), ('b', 40, 50)]},
    {'v': [('a', 70, 80, 0.9), ('a', 0, 10, 0.8), ('a', 45, 55, 0.7),
           ('a', 20, 30, 0.6), ('b', 40, 50, 0.9)]},
  )  # fmt: skip
  gain = diagnosis.diagnose(truth, found, [0.5])['gain']
  # The mean over two classes, of which b stays at 1.
  assert gain['background'] == pytest.approx((5 / 6 - 1 / 2) / 2)
  assert gain['confusion'] == pytest.approx((2 / 3 - 1 / 2) / 2)
  assert gain['localisation'] == gain['wrong label'] == 0


def test_characteristics_by_hand():
  # Ten segments of lengths 1…10 in one video of 100 s; the five longest are
  # found, each once, so each group is found whole or not at all.
  segments = [('a', 10 * i, 10 * i + i + 1) for i in range(10)]
  found = [(*segment, 0.5) for segment in segments[5:]]
  truth, predictions = make({'v': segments}, {'v': found})
  result = diagnosis.diagnose(truth, predictions, TIOU)
  groups = result['characteristics']
  length = groups['length (s)']
  assert [row['to'] for row in length] == [2, 4, 6, 8, 10]
  assert [row['from'] for row in length] == [1, 2, 4, 6, 8]
  assert [row['count'] for row in length] == [2] * 5
  assert [row['missed'] for row in length] == [2, 2, 1, 0, 0]
  assert [row['missed_share'] for row in length] == [1, 1, 0.5, 0, 0]
  # No false positive: the normalised AP is the recall.
  normal = [row['normalised_mAP'] for row in length]
  assert normal == pytest.approx([0, 0, 0.5, 1, 1])
  assert [row['to'] for row in groups['coverage']] == pytest.approx(
    [0.02, 0.04, 0.06, 0.08, 0.1]
  )
  (row,) = groups['instances']
  assert (row['from'], row['to'], row['count']) == (10, 10, 10)


def test_normalised_precision_by_hand():
  # Two classes of 1 and 3 segments: N = 2. Of class a: false, then right:
  # R·N / (R·N + F) = 2 / 3. Of class b: right at once, R = 1/3: 1 · 1/3.
  truth, found = make(
    {'v': [('a', 0, 10), *(('b', 30 * i, 30 * i + 5) for i in (1, 2, 3))]},
    {'v': [('a', 50, 60, 0.9), ('a', 0, 10, 0.8), ('b', 30, 35, 0.5)]},
  )
  result = diagnosis.diagnose(truth, found, [0.5])
  assert result['normalised_mAP'] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_average_recall_by_hand():
  # The first segment needs two predictions at tIoU 0.5…0.8 (its second one
  # overlaps it by 8/10), the second one needs three at any tIoU.
  truth, found = make(
    {'v': [('a', 0, 10), ('b', 30, 40)]},
    {'v': [('a', 60, 70, 0.9), ('b', 0, 8, 0.8), ('a', 30, 40, 0.7)]},
  )
  recall = average_precision.average_recall(truth, found)
  at = dict(zip(*recall.values(), strict=True))
  # 7 of the 10 thresholds 0.5:0.05:0.95 are 0.8 or less.
  assert at[1] == 0
  assert at[2] == pytest.approx(0.5 * 0.7)
  assert at[5] == at[100] == pytest.approx(0.5 * 0.7 + 0.5)


def slow_kinds(truth, found, theta):
  """Name every prediction by plain loops, from DETAD's definition."""
  t, p = truth.segments, found
  names = [None] * len(p.label)
  free = [True] * len(t.label)
  overlap = np.zeros((len(p.label), len(t.label)))
  for i, j in np.ndindex(overlap.shape):
    if p.video[i] == t.video[j]:
      inter = min(p.end[i], t.end[j]) - max(p.start[i], t.start[j])
      union = (p.end[i] - p.start[i]) + (t.end[j] - t.start[j]) - max(inter, 0)
      overlap[i, j] = max(inter, 0) / union if union > 0 else 0
  for i in sorted(range(len(names)), key=lambda i: -p.score[i]):
    own = t.label == p.label[i]
    for j in sorted(np.flatnonzero(own), key=lambda j: -overlap[i, j]):
      if overlap[i, j] >= theta and free[j]:
        free[j], names[i] = False, 'true positive'
        break
    if names[i] is None:
      best = overlap[i].max(initial=0)
      same = bool((own & (overlap[i] == best)).any())
      if best >= theta:
        names[i] = 'double detection' if same else 'wrong label'
      elif best >= 0.1:
        names[i] = 'localisation' if same else 'confusion'
      else:
        names[i] = 'background'
  return names


def random_case(seed, num_found=60):
  """Draw a crowded case with segments on whole seconds and distinct scores."""
  rng = np.random.default_rng(seed)

  def draw(count):
    rows = {f'v{i}': [] for i in range(3)}
    for _ in range(count):
      start = int(rng.integers(0, 40))
      end = start + int(rng.integers(0, 12))
      rows[f'v{rng.integers(3)}'].append(('abc'[rng.integers(3)], start, end))
    return rows

  found = draw(num_found)
  scores = iter(rng.permutation(num_found).tolist())
  found = {v: [(*row, next(scores)) for row in r] for v, r in found.items()}
  truth = draw(12)
  truth['v0'] += [(label, 0, 3) for label in 'abc']
  return truth, found


@pytest.mark.parametrize('seed', range(20))
def test_kinds_equal_plain_loops(seed):
  truth, found = make(*random_case(seed))
  for theta in (0.1, 0.3, 0.5, 0.9):
    assert kinds(truth, found, theta) == slow_kinds(truth, found, theta)


@hypothesis.settings(max_examples=40)
@hypothesis.given(st.integers(0, 10**6), st.integers(0, 80), st.randoms())
def test_totals_add_up_and_order_does_not_matter(seed, num_found, random):
  case = random_case(seed, num_found)
  truth, found = make(*case)
  result = diagnosis.diagnose(truth, found, TIOU)
  total = sum(result['count'].values())
  per_class = zip(
    np.bincount(found.label, minlength=3),
    np.bincount(truth.segments.label, minlength=3),
    strict=True,
  )
  assert total == sum(min(n, 10 * g) for n, g in per_class)
  for kind in diagnosis.KINDS:
    number = result['count'][kind]
    assert number == sum(row[kind] for row in result['profile'])
    assert number == sum(row[kind] for row in result['classes'].values())
  segments = len(truth.segments.label)
  all_kinds = kinds(truth, found)
  assert result['missed'] == segments - all_kinds.count('true positive')
  for rows in result['characteristics'].values():
    assert sum(row['count'] for row in rows) == segments
    assert sum(row['missed'] for row in rows) == result['missed']
  assert all(gain >= -1e-12 for gain in result['gain'].values())
  recall = result['recall']['average_recall']
  assert recall == sorted(recall) and recall[0] >= 0 and recall[-1] <= 1
  shuffled = list(case[1].items())
  random.shuffle(shuffled)
  shuffled = {v: random.sample(rows, len(rows)) for v, rows in shuffled}
  again = diagnosis.diagnose(truth, make(case[0], shuffled)[1], TIOU)
  assert json.dumps(again) == json.dumps(result)


@pytest.mark.parametrize('seed', range(5))
def test_weighted_ap_counts_copies(seed):
  # A weight of n is what n copies of the prediction's video would give; with
  # weights of 1 it is detection_map's AP.
  truth, found = make(*random_case(seed))
  order, matched = matching.match(truth, found, TIOU)
  hit, label = matched >= 0, found.label[order]
  count = np.bincount(truth.segments.label)
  ap = average_precision.average_precisions(
    label, hit, np.ones((1, len(label))), count
  )
  expected = detection_map.detection_map(truth, found, TIOU)['ap_per_class']
  np.testing.assert_allclose(ap[0].T, list(expected.values()), atol=1e-12)
  weight = np.random.default_rng(seed).integers(0, 4, size=len(label))
  times = np.array([5, 6, 7])
  ap = average_precision.average_precisions(label, hit, weight[None], times)
  for c in range(3):
    own = label == c
    for row, one in zip(hit, ap[0], strict=True):
      right = wrong = 0
      points = []
      for is_hit, n in zip(row[own], weight[own], strict=True):
        right, wrong = right + n * is_hit, wrong + n * (not is_hit)
        points.append((n * is_hit, right / max(right + wrong, 1)))
      area = sum(
        n * max(p for _, p in points[i:]) for i, (n, _) in enumerate(points)
      )
      assert one[c] == pytest.approx(area / times[c])


def test_precision_recall_has_map_as_area():
  # With as many steps as there are segments the mean of the curve is the mAP.
  truth, found = make(
    {'v': [('a', 10 * i, 10 * i + 5) for i in range(4)]},
    {'v': [('a', 10, 15, 0.9), ('a', 7, 9, 0.8), ('a', 20, 25, 0.7)]},
  )
  curve = average_precision.precision_recall(truth, found, [0.5], steps=5)
  assert curve[0].tolist() == pytest.approx([1, 1, 2 / 3, 0, 0])
  value = detection_map.detection_map(truth, found, [0.5])['mAP'][0]
  assert curve[0, 1:].mean() == pytest.approx(value)


def test_video_ap():
  truth, found = make(
    {'a': [('x', 0, 10), ('y', 20, 30)], 'b': [], 'c': [('x', 0, 5)]},
    {
      'a': [('y', 20, 30, 0.2), ('x', 50, 60, 0.5), ('x', 0, 10, 0.9)],
      'b': [('x', 0, 10, 0.99)],
      'z': [('x', 0, 5, 0.99)],
    },
  )
  ap = average_precision.video_ap(truth, found, 0.5)
  assert ap[0] == pytest.approx((1 + 2 / 3) / 2)
  assert math.isnan(ap[1])  # nothing to find
  assert ap[2] == 0  # nothing predicted


def test_bootstrap_finds_what_differs():
  truth = {f'v{i}': [('a', 10, 20), ('b', 40, 60)] for i in range(30)}
  rng = np.random.default_rng(0)
  good, bad = (
    {
      video: [(c, s, e, rng.uniform()) for c, s, e in rows]
      + [('a', 70, 75, rng.uniform(high=height))]
      for video, rows in truth.items()
    }
    for height in (0.2, 2.0)
  )
  read, a = make(truth, bad)
  _, b = make(truth, good)
  result = bootstrap.compare(read, a, b, TIOU, resamples=300)
  first, second = (detection_map.detection_map(read, x, TIOU) for x in (a, b))
  average = result.metrics['average_mAP']
  assert average['before'] == pytest.approx(first['average_mAP'])
  assert average['after'] == pytest.approx(second['average_mAP'])
  assert 0 < average['low'] < average['difference'] < average['high']
  for i, label in enumerate('ab'):
    one = result.classes[label]
    assert one['before'] == pytest.approx(first['ap_per_class'][label][1])
    assert (one['low'] > 0) == (i == 0)
  shares = result.kinds
  assert shares['background']['before'] == pytest.approx(1 / 3)
  assert sum(row['after'] for row in shares.values()) == pytest.approx(1)
  # The same against itself differs by nothing, in every draw.
  same = bootstrap.compare(read, a, a, TIOU, resamples=50).metrics
  same = same['average_mAP']
  assert same['low'] == same['difference'] == same['high'] == 0


def test_without_predictions():
  truth, found = make(SPARSE, {})
  result = diagnosis.diagnose(truth, found, TIOU)
  assert set(result['count'].values()) == {0}
  assert set(result['gain'].values()) == {0.0}
  assert result['missed'] == 12
  assert set(result['recall']['average_recall']) == {0.0}
  assert diagnosis.format_table(result).endswith('missed: 12 of 12')
  assert not average_precision.precision_recall(truth, found, TIOU).any()
  compared = bootstrap.compare(truth, found, found, TIOU, resamples=20)
  assert compared.metrics['average_mAP']['after'] == 0


def test_unknown_durations_leave_coverage_out():
  rows = {name: [('a', 0, 8)] for name in ('known', 'none', 'zero')}
  durations = {'known': 80.0, 'none': None, 'zero': 0.0}
  truth, found = make(rows, {}, durations)
  assert truth.durations[0] == 80 and np.isnan(truth.durations[1:]).all()
  groups = diagnosis.diagnose(truth, found, TIOU)['characteristics']
  (row,) = groups['coverage']
  assert row['count'] == 1 and row['to'] == pytest.approx(0.1)
  truth, found = make(rows, {}, durations | {'known': None})
  groups = diagnosis.diagnose(truth, found, TIOU)['characteristics']
  assert set(groups) == {'length (s)', 'instances'}


def test_command_line(tmp_path, capsys):
  truth = database({'é': [('跳 <b>', '0', '10')]}, 'Test')
  files.write_json(tmp_path / 'g.json', truth)
  found = predict({'é': [('跳 <b>', 0, 10, 1), ('no such class', 0, 10, 1)]})
  files.write_json(tmp_path / 'p.json', {'results': found})
  arguments = ['--ground_truth', str(tmp_path / 'g.json'), '--subset', 'test',
               '--predictions', str(tmp_path / 'p.json')]  # fmt: skip
  diagnosis.main([*arguments, '--output', str(tmp_path / 'o.json')])
  out = capsys.readouterr().out
  assert 'true positive' in out and 'missed: 0 of 1' in out
  written = json.loads((tmp_path / 'o.json').read_text())
  assert written['count']['true positive'] == 1
  assert written['classes']['跳 <b>']['average_ap'] == 1
  found['é'][0]['score'] = math.nan
  (tmp_path / 'p.json').write_text(json.dumps({'results': found}))
  with pytest.raises(SystemExit) as told:
    diagnosis.main(arguments)
  assert 'expected a finite number' in told.value.code
  with pytest.raises(SystemExit, match='expected one number in'):
    diagnosis.main([*arguments, '--theta', '2'])
