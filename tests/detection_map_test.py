"""mAP against the golden files, plain loops, hand computation, real files."""

import json
import logging
import random

import hypothesis
import hypothesis.strategies as st
import numpy as np
import processes
import pytest
from annotations_test import read_real
from golden import FOLDER

from backtal_jax import errors
from backtal_jax.data import annotations
from backtal_jax.metrics import detection_map, matching, segments
from oracles import detection_map as oracle

TIOU = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def evaluate(annotated, results, subset='test', tiou=(0.5,)):
  truth = segments.make_truth(annotated, subset)
  predictions = segments.parse_predictions({'results': results}, truth)
  return detection_map.detection_map(truth, predictions, tiou)


def annotate(videos, subset='test'):
  """Make annotations of {video: [(label, start, end)]}."""
  return annotations.Annotations(
    {
      name: annotations.AnnotatedVideo(
        name, subset, None, None,
        tuple(annotations.Segment(float(s), float(e), c) for c, s, e in rows),
      )
      for name, rows in videos.items()
    },
    (),
  )  # fmt: skip


def database(videos, subset='test'):
  """Make a ground-truth file of {video: [(label, start, end)]}."""
  return {
    'database': {
      name: {
        'subset': subset,
        'annotations': [{'label': c, 'segment': [s, e]} for c, s, e in rows],
      }
      for name, rows in videos.items()
    }
  }


def predict(videos):
  """Make results of {video: [(label, start, end, score)]}."""
  return {
    name: [{'label': c, 'segment': [s, e], 'score': x} for c, s, e, x in rows]
    for name, rows in videos.items()
  }


SECOND = st.integers(0, 6)
LABEL = st.sampled_from('ab')
SPAN = st.tuples(SECOND, SECOND).map(sorted)
NAME = st.sampled_from(['x', 'y', 'z'])
SCORE = st.sampled_from([0.25, 0.5, 0.6])
ROW = st.tuples(LABEL, SPAN).map(lambda t: (t[0], *t[1]))
SCORED = st.tuples(ROW, SCORE).map(lambda t: (*t[0], t[1]))


@hypothesis.settings(max_examples=400)
@hypothesis.given(
  st.dictionaries(NAME, st.lists(ROW, max_size=6)),
  st.dictionaries(NAME, st.lists(SCORED, max_size=12)),
)
def test_small_cases_equal_plain_loops(truth, found):
  hypothesis.assume(any(truth.values()))
  tiou = [0.1, 0.25, 0.5, 1.0]
  expected = oracle.detection_map(truth, found, tiou)
  result = evaluate(annotate(truth), predict(found), tiou=tiou)
  assert list(result['ap_per_class']) == list(expected)
  for label, ap in expected.items():
    np.testing.assert_allclose(result['ap_per_class'][label], ap, 0, 1e-12)
  mean = np.mean(list(expected.values()), axis=0)
  np.testing.assert_allclose(result['mAP'], mean, 0, 1e-12)
  np.testing.assert_allclose(result['average_mAP'], mean.mean(), 0, 1e-12)


def test_many_pairs_equal_plain_loops(monkeypatch):
  # Small chunks, and chains of predictions that displace one another.
  monkeypatch.setattr(matching, '_CHUNK', 7)
  rng = np.random.default_rng(0)
  draw = lambda n: (
    (c, s, s + d)
    for c, s, d in zip(
      rng.choice(['a', 'b'], n).tolist(),
      rng.integers(0, 30, n).tolist(),
      rng.integers(1, 20, n).tolist(),
      strict=True,
    )
  )
  truth = {f'v{i}': list(draw(20)) for i in range(4)}
  found = {f'v{i}': [(*r, rng.random()) for r in draw(80)] for i in range(5)}
  tiou = [0.1, 0.3, 0.5, 0.7]
  result = evaluate(annotate(truth), predict(found), tiou=tiou)
  for label, ap in oracle.detection_map(truth, found, tiou).items():
    np.testing.assert_allclose(result['ap_per_class'][label], ap, 0, 1e-12)


def test_official_program():
  read = lambda name: json.loads(
    (FOLDER / f'detection_{name}.json').read_text()
  )
  expected = read('expected')
  truth = annotations.read_ground_truth(FOLDER / 'detection_ground_truth.json')
  found = read('predictions')['results']
  result = evaluate(truth, found, expected['subset'], expected['tiou'])
  assert set(result) == {'tiou', 'mAP', 'average_mAP', 'ap_per_class'}
  assert result['tiou'] == expected['tiou']
  for key in ('mAP', 'average_mAP'):
    np.testing.assert_allclose(result[key], expected[key], 0, 1e-9)
  assert set(result['ap_per_class']) == set(expected['ap_per_class'])
  for label, ap in expected['ap_per_class'].items():
    np.testing.assert_allclose(result['ap_per_class'][label], ap, 0, 1e-9)


def test_average_precision_by_hand():
  # Right, wrong, right of 3: precisions 1, 1/2, 2/3, so 1/3 · (1 + 2/3). In
  # the second row the envelope lifts the first right one from 1/2 to 2/3.
  hit = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 0]], bool)
  ap = detection_map.average_precision(hit, 3)
  np.testing.assert_allclose(ap, [5 / 9, 4 / 9, 0], 1e-12)
  nothing = np.zeros((2, 0), bool)
  assert detection_map.average_precision(nothing, 3).tolist() == [0, 0]


def test_ties_go_by_input_order():
  truth = annotate({'a': [('c', 0, 10)], 'b': [('c', 0, 10)]})
  rows = {'a': [('c', 0, 10, 0.6)], 'b': [('c', 50, 60, 0.6)]}
  # Video a comes first, whatever the order of the keys.
  for names in ('ab', 'ba'):
    found = predict({name: rows[name] for name in names})
    assert evaluate(truth, found)['mAP'] == [0.5]
  rows = {'b': [('c', 0, 10, 0.6)], 'a': [('c', 50, 60, 0.6)]}
  assert evaluate(truth, predict(rows))['mAP'] == [0.25]
  rows = {'a': [('c', 50, 60, 0.6), ('c', 0, 10, 0.6)]}
  assert evaluate(truth, predict(rows))['mAP'] == [0.25]


def test_match_names_the_ground_truth():
  rows = [('d', 0, 1), ('c', 0, 10), ('c', 4, 10), ('c', 0, 10)]
  truth = segments.make_truth(annotate({'a': rows}), 'test')
  # The best prediction takes the first of two equal ones, the next the second,
  # the last the one left, which overlaps by 0.6.
  found = {'a': [('c', 0, 10, 0.7), ('c', 0, 10, 0.8), ('c', 0, 10, 0.9)]}
  predictions = segments.parse_predictions({'results': predict(found)}, truth)
  order, matched = matching.match(truth, predictions, [0.5, 0.7])
  assert order.tolist() == [2, 1, 0]
  assert matched.tolist() == [[1, 3, 2], [1, 3, -1]]


def test_what_nothing_is_matched_with_counts_as_zero():
  truth = annotate({'a': [('c', 5, 5), ('c', 0, 4)]})  # one has no length
  found = predict({'a': [('c', 0, 4, 0.9), ('c', 5, 5, 0.8)]})
  assert evaluate(truth, found)['mAP'] == [0.5]
  truth = annotate({'a': [('c', 0, 4), ('d', 0, 4)]})
  result = evaluate(truth, predict({'a': [('c', 0, 4, 1)]}))
  assert result['ap_per_class'] == {'c': [1], 'd': [0]}
  assert result['average_mAP'] == 0.5
  assert evaluate(truth, {})['average_mAP'] == 0


def test_unknown_classes_and_videos_are_told(caplog):
  truth = annotate({'a': [('c', 0, 4)]})
  found = predict({'a': [('c', 0, 4, 0.5), ('e', 0, 4, 0.9), ('e', 1, 2, 0.8)]})
  with caplog.at_level(logging.WARNING):
    assert evaluate(truth, found)['mAP'] == [1]
  assert 'ignored 2 predictions' in caplog.text
  caplog.clear()
  found = predict({'a': [('c', 0, 4, 0.5)], 'other': [('c', 0, 4, 0.9)]})
  with caplog.at_level(logging.WARNING):
    assert evaluate(truth, found)['mAP'] == [0.5]
  assert '1 predictions are in other videos' in caplog.text
  # So are those of other subsets.
  truth.videos.update(annotate({'other': [('c', 0, 4)]}, 'val').videos)
  assert evaluate(truth, found, 'test')['mAP'] == [0.5]


@pytest.mark.parametrize(
  ('truth', 'found', 'tiou', 'expected'),
  [
    # Nothing over nothing is no overlap, wherever the two lie.
    ([('c', 0, 4), ('c', 5, 5)], [('c', 9, 9, 0.9), ('c', 0, 4, 0.8)], 0.5,
     0.25),
    # Written twice, both are to be found.
    ([('c', 0, 4), ('c', 0, 4)], [('c', 0, 4, 0.9)], 0.5, 0.5),
    # Exactly at the threshold: 3 of 10 s, 7 of 10 s; in float32 one is more
    # and one is less than the decimal.
    ([('c', 0, 10)], [('c', 0, 3, 0.9)], 0.3, 1),
    ([('c', 0, 10)], [('c', 0, 7, 0.9)], 0.7, 1),
    ([('c', 0, 10)], [('c', 0, 3 - 1e-8, 0.9)], 0.3, 0),
    # Not clipped at 0: 10 of 30 s.
    ([('c', 0, 10)], [('c', -20, 10, 0.9)], 0.35, 0),
  ],
)  # fmt: skip
def test_odd_cases_by_hand(truth, found, tiou, expected):
  # Where public evaluators differ: docs/metrics.md.
  result = evaluate(annotate({'a': truth}), predict({'a': found}), tiou=(tiou,))
  assert result['mAP'] == [expected]


def test_names_with_and_without_prefix_and_case_of_subsets():
  rows, found = [('c', 0, 4)], [('c', 0, 4, 1)]
  for here, there in (('a', 'v_a'), ('v_a', 'a'), ('v_a', 'v_v_a')):
    truth = annotate({here: rows}, 'Validation')
    result = evaluate(truth, predict({there: found}), 'validatioN')
    assert result['mAP'] == [1]
  # A name that is there as it stands is preferred (YouTube has names in v_).
  truth = annotate({'a': rows, 'v_a': [('c', 5, 9)]})
  result = evaluate(truth, predict({'v_a': found, 'a': found}))
  assert result['mAP'] == [0.5]


@pytest.mark.parametrize(
  ('text', 'values'),
  [
    ('0.1,0.2,0.3', [0.1, 0.2, 0.3]),
    ('0.5:0.05:0.95', TIOU),
    ('0.1:0.1:0.9', [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
    ('1', [1.0]),
  ],
)
def test_thresholds_are_decimal_literals(text, values):
  assert detection_map.parse_tiou(text) == values


@pytest.mark.parametrize(
  'text', ['', 'x', '0', '1.1', '-0.5', 'nan', '0.1:0.2', '0.1:0:0.2', '0.5,,',
           '0.9:0.1:0.5', '0.1:nan:1', '0.1:inf:1'],
)  # fmt: skip
def test_bad_thresholds_are_refused(text):
  with pytest.raises(errors.InputError, match='--tiou is'):
    detection_map.parse_tiou(text)


def real(shared, path, subset):
  truth = read_real(shared / 'data' / path)
  return truth, {
    name: [(s.label, s.start, s.end) for s in video.segments]
    for name, video in truth.subset(subset).items()
  }


@pytest.mark.parametrize(
  'path', ['thumos14/gt_thumos14.json', 'points/lacp_thumos_gt.json']
)
def test_real_thumos14_ground_truth_is_perfect(shared, path):
  truth, videos = real(shared, path, 'test')
  found = {v: [(*row, 1.0) for row in rows] for v, rows in videos.items()}
  tiou = detection_map.parse_tiou('0.1:0.1:1')
  result = evaluate(truth, predict(found), 'Test', tiou)
  assert result['mAP'] == [1.0] * 10
  assert result['average_mAP'] == 1.0
  assert len(result['ap_per_class']) == 20


def test_real_activitynet_ground_truth_misses_only_empty_segments(shared):
  path = 'activitynet12/activity_net.v1-2.min.json'
  truth, videos = real(shared, path, 'validation')
  # Three annotations have no length: nothing can match them. Scored last, each
  # costs its share of its class.
  found = {
    v: [(c, s, e, float(e > s)) for c, s, e in rows]
    for v, rows in videos.items()
  }
  rows = [row for rows in videos.values() for row in rows]
  empty = [c for c, s, e in rows if s == e]
  labels = [c for c, *_ in rows]
  lost = sum(1 / labels.count(c) for c in empty) / len(set(labels))
  result = evaluate(truth, predict(found), 'validation', TIOU)
  assert len(empty) == 3
  np.testing.assert_allclose(result['mAP'], [1 - lost] * 10, 0, 1e-12)
  truth = annotate(
    {v: [r for r in rows if r[1] < r[2]] for v, rows in videos.items()}
  )
  found = {v: [r for r in rows if r[3]] for v, rows in found.items()}
  result = evaluate(truth, predict(found), 'test', TIOU)
  assert result['mAP'] == [1.0] * 10


def test_shuffled_rows_score_the_same(shared):
  truth, videos = real(shared, 'thumos14/gt_thumos14.json', 'test')
  draw = random.Random(0)
  move = lambda x: x + draw.uniform(-1, 1)
  found = {
    v: [(c, move(s), move(e) + 2, draw.random()) for c, s, e in rows]
    for v, rows in videos.items()
  }
  first = evaluate(truth, predict(found), tiou=TIOU)
  names = list(found)
  draw.shuffle(names)
  shuffled = {v: draw.sample(found[v], len(found[v])) for v in names}
  second = evaluate(truth, predict(shuffled), tiou=TIOU)
  assert first == second
  assert 0.05 < first['average_mAP'] < 0.95


def command(tmp_path, truth, found, *more, subset='test'):
  """Run the command line in this process; return the output file's path."""
  for name, value in (('gt.json', truth), ('found.json', found)):
    text = value if isinstance(value, str) else json.dumps(value)
    (tmp_path / name).write_text(text)
  output = tmp_path / 'out' / 'metrics.json'
  detection_map.main(
    [
      *('--ground_truth', str(tmp_path / 'gt.json'), '--subset', subset),
      *('--predictions', str(tmp_path / 'found.json')),
      *('--output', str(output), *more),
    ]
  )
  return output


GOOD = database({'a': [('jump', 0, 10)], 'b': [('run', 2, 4)]})
FOUND = {
  'version': '1',
  'results': predict({'a': [('jump', 0, 9, 0.5)], 'b': [('run', 9, 9.5, 1)]}),
  'external_data': {},
}


def test_command_line(tmp_path, capsys):
  output = command(tmp_path, GOOD, FOUND, '--tiou', '0.8,0.95')
  assert json.loads(output.read_text()) == {
    'tiou': [0.8, 0.95],
    'mAP': [0.5, 0],
    'average_mAP': 0.25,
    'ap_per_class': {'jump': [1, 0], 'run': [0, 0]},
  }
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  assert lines == [
    ['class', 'segments', '0.8', '0.95'],
    ['jump', '1', '100.00', '0.00'],
    ['run', '1', '0.00', '0.00'],
    ['mAP', '2', '50.00', '0.00'],
    ['average', 'mAP', '25.00'],
  ]
  output = command(tmp_path, GOOD, FOUND)
  assert json.loads(output.read_text())['tiou'] == TIOU


def one(**changes):
  row = {'label': 'jump', 'segment': [0, 1], 'score': 1, **changes}
  row = {key: value for key, value in row.items() if value is not None}
  return {'results': {'a': [row]}}


BAD = {
  'not json': (GOOD, '{', 'found.json: not JSON'),
  'no results': (GOOD, {}, 'found.json: no object "results"'),
  'a list': (GOOD, [], 'found.json: no object "results"'),
  'results a list': (GOOD, {'results': []}, 'no object "results"'),
  'rows a dict': (GOOD, {'results': {'a': {}}}, 'found {}, expected a list'),
  'row a number': (GOOD, {'results': {'a': [3]}}, "'a': annotation 3"),
  'no label': (GOOD, one(label=None), "'a': the label is missing"),
  'label a fraction': (GOOD, one(label=3.5), 'label is 3.5'),
  'no segment': (GOOD, one(segment=None), 'segment of start and end'),
  'short segment': (GOOD, one(segment=[1]), 'segment of start and end'),
  'text segment': (GOOD, one(segment=['0', 'x']), "a bound is 'x'"),
  'no score': (GOOD, one(score=None), "video 'a': score is missing"),
  'NaN score': (GOOD, one(score=float('nan')), 'score is nan'),
  'NaN segment': (GOOD, one(segment=[0, float('nan')]), 'a bound is nan'),
  'infinite score': (GOOD, one(score=float('inf')), 'score is inf'),
  'huge score': (GOOD, one(score=10**400), 'expected a finite number'),
  'true score': (GOOD, one(score=True), 'score is True'),
  'twice': (GOOD, {'results': {'a': [], 'v_a': []}}, 'a and v_a are the same'),
  'no database': ({}, FOUND, 'gt.json: no object "database"'),
  'no subset': ({'database': {'a': {}}}, FOUND, 'subset is missing'),
  'no annotations': (
    {'database': {'a': {'subset': 'test'}}}, FOUND, 'no annotation in subset',
  ),
  'empty split': (database({'a': []}), FOUND, "no annotation in subset 'test'"),
  'word for a time': (
    database({'a': [('c', 'x', 1)]}), FOUND, "video 'a': a bound is 'x'",
  ),
  'other subset': (
    database({'a': [('c', 0, 1)]}, 'Val'), FOUND, "found subsets ['Val']",
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', BAD)
def test_bad_files_end_in_one_line(name, tmp_path):
  truth, found, message = BAD[name]
  with pytest.raises(SystemExit) as e:
    command(tmp_path, truth, found)
  assert message in e.value.code
  assert len(e.value.code.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_missing_file_ends_in_one_line():
  run = processes.python(
    '-m', 'backtal_jax.metrics.detection_map', '--ground_truth=nowhere.json',
    '--predictions=nowhere.json', '--subset=test',
  )  # fmt: skip
  assert run.returncode == 1
  assert run.stderr == 'error: nowhere.json: no such file\n'
  assert run.stdout == ''
