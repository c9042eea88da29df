"""What stages compute, against plain loops, by hand and on made videos."""

import itertools
import math

import jax
import numpy as np
import pytest

from backtal_jax import IGNORED, errors, localization
from backtal_jax.stages import naming, proposals, quality, regression, targets


def _video(rows, label, clicks=None, foreground=None):
  """Make a video whose probabilities are `rows` [T, C+1]."""
  cas = np.log(np.array(rows, np.float32))
  click = np.full(len(rows), IGNORED, np.int32)
  for t, value in (clicks or {}).items():
    click[t] = value
  score = np.full(len(rows[0]), 1 / len(rows[0]), np.float32)
  foreground = np.full(len(rows), 0.5) if foreground is None else foreground
  label = np.array(label, np.float32)
  return proposals.Observed(
    label, click, cas, score, np.array(foreground, np.float32), 10.0
  )


# Of two classes and the background.
_A, _B, _NONE = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.02, 0.02, 0.96]


# Rows, clicks, weights; start, end and name of the segments that are found.
_RUNS = {
  'runs of foreground': (
    [_NONE, _A, _A, _NONE, _B], {}, None, [(1, 3, IGNORED), (4, 5, IGNORED)],
  ),
  'a believed click splits': (
    [_A, _A, _A, _NONE], {1: 2}, [0.9, 0.1, 0.9, 0.1],
    [(0, 1, IGNORED), (2, 3, IGNORED)],
  ),
  'a doubted one does not': (
    [_A, _A, _A, _NONE], {1: 2}, [0.1, 0.9, 0.1, 0.1], [(0, 3, IGNORED)],
  ),
  'an action click names': ([_A, _A, _NONE, _A], {1: 1}, None,
                            [(0, 2, 1), (3, 4, IGNORED)]),
  'two of a class split nothing': ([_A, _A, _A], {0: 0, 2: 0}, None,
                                   [(0, 3, 0)]),
  'two of two classes are cut where it is best': (
    [_A, _A, _A, _A, _B, _NONE], {0: 0, 4: 1}, None, [(0, 4, 0), (4, 5, 1)],
  ),
  'one where nothing is seeds a run': (
    # Half of 0.3 is reached at snippets 1, 2 and 3, but 3 is barred.
    [_NONE, [0.2, 0.05, 0.75], [0.3, 0, 0.7], [0.25, 0, 0.75], _NONE],
    {2: 0, 3: 2}, None, [(1, 3, 0)],
  ),
  'a seed stays out of other runs': (
    [[0.3, 0, 0.7], [0.3, 0, 0.7], _B], {0: 0}, None,
    [(0, 2, 0), (2, 3, IGNORED)],
  ),
}  # fmt: skip


_SURE = [0.9989, 0.0001, 0.001]  # log-odds to the background 6.9
# The same where every clicked instance is one.
_INSTANCES = {
  # Half way from 6.9 to -3.9 is 1.5; the log-odds of 0.6 to 0.3 are 0.7.
  'it ends half way down': (
    [_NONE, _SURE, [0.6, 0.1, 0.3], _NONE, _B], {1: 0, 4: 1}, None,
    [(1, 2, 0), (4, 5, 1)],
  ),
  'where its class is less likely than the background, too': (
    [_A, [0.2, 0.4, 0.4], _NONE, _B], {0: 0, 3: 1}, None,
    [(0, 1, 0), (3, 4, 1)],
  ),
  # Half way from 6.9 to 4.6 would be 5.7, more than 4.6.
  'what is sure is no valley': (
    [_SURE, [0.98, 0.01, 0.0099], _NONE, _B], {0: 0, 3: 1}, [0, 1, 0, 1],
    [(0, 2, 0), (3, 4, 1)],
  ),
  'a run without a click is background': (
    [_A, _NONE, _A, _NONE, _B], {0: 0, 4: 1}, None,
    [(0, 1, 0), (2, 3, 2), (4, 5, 1)],
  ),
  'two of a class lie on both sides of the likeliest background': (
    [_A, _A, [0.5, 0.1, 0.4], _A, _B], {0: 0, 3: 0, 4: 1}, None,
    [(0, 2, 0), (3, 4, 0), (4, 5, 1)],
  ),
  'believed background clicks lie between': (
    [_A, _A, _A, _B, _NONE], {0: 0, 1: 2, 3: 1, 4: 2}, [1, 0, 1, 1, 0],
    [(0, 1, 0), (3, 4, 1)],
  ),
  'a label that is not clicked': (
    [_A, _NONE, _A], {0: 0}, None, [(0, 1, 0), (2, 3, IGNORED)],
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', [*_RUNS, *_INSTANCES])
def test_segments_by_hand(name):
  rows, clicks, foreground, expected = (_RUNS | _INSTANCES)[name]
  rows = [[max(x, 1e-9) for x in row] for row in rows]
  video = _video(rows, [1, 1], clicks, foreground)
  segments = proposals.find([video], every_instance=name in _INSTANCES)
  found = np.column_stack([segments.run, segments.clicked])
  assert found.tolist() == [[*row] for row in expected]


def test_background_between_action_clicks_by_hand():
  rows = [_A, _NONE, [0.1, 0.1, 0.8], _A, _B, _NONE, _A, _NONE]
  video = _video(rows, [1, 1], {0: 0, 3: 0, 4: 1, 5: 2, 6: 0})
  assert proposals.pointed(video)
  click = proposals.separate(video).click
  assert click.tolist() == [0, 2, IGNORED, 0, 1, 2, 0, IGNORED]
  assert not proposals.pointed(_video(rows, [1, 1], {0: 0}))


def test_only_a_videos_own_classes_and_the_background_share_a_snippet():
  video = _video([[0.6, 0.3, 0.1]], [0, 1])
  np.testing.assert_allclose(
    proposals.probabilities(video), [[0, 0.75, 0.25]], 1e-6
  )
  clicked = _video([[0.6, 0.3, 0.1]], [0, 1], {0: 0})
  np.testing.assert_allclose(
    proposals.probabilities(clicked), [[0.6, 0.3, 0.1]], 1e-6
  )
  segments = proposals.find([video])
  np.testing.assert_allclose(
    segments.score, np.log([[1e-6, 0.75 + 1e-6, 0.25 + 1e-6]]), 1e-5
  )
  assert not len(proposals.find([_video([_A], [0, 0])]).video)
  assert proposals.find([]).run.shape == (0, 2)


def test_what_lies_in_before_and_after_a_segment_by_plain_loops():
  feature = np.random.default_rng(0).normal(size=(9, 2))
  runs = np.array([[0, 2], [3, 4], [5, 9], [0, 9]])
  expected = []
  for a, b in runs.tolist():
    around = (
      range(a, b),
      range(max(0, a - 3), a) or [0],
      range(b, min(9, b + 3)) or [8],
    )  # fmt: skip
    expected.append(
      [
        sum(feature[t][d] for t in part) / len(part)
        for part in around
        for d in range(2)
      ]
    )
  np.testing.assert_allclose(regression.pool(feature, runs), expected, 1e-12)
  rows = [_A] * 9
  video = _video(rows, [1, 1], {1: 2, 4: 2, 8: 0}, [0.5] * 4 + [0.9] * 5)
  np.testing.assert_allclose(  # the one at snippet 4 is not believed
    regression.pool_negatives(feature, video),
    regression.pool(feature, np.array([[0, 5]])),
  )


def test_the_regression_is_at_the_least_of_its_loss():
  rng = np.random.default_rng(1)
  feature, label = rng.normal(size=(12, 2)), rng.integers(3, size=12)
  weight = rng.uniform(0.5, 2, size=12)

  def loss(weights):
    total = 0.0
    for x, y, w in zip(feature, label, weight, strict=True):
      logits = [
        sum(x[k] * weights[k][c] for k in range(2)) + weights[2][c]
        for c in range(3)
      ]
      total += w * (math.log(sum(map(math.exp, logits))) - logits[y])
    return total + 5 * (weights[:2] ** 2).sum()

  found = np.asarray(regression.fit(feature, label, weight, 3), float)
  least = loss(found)
  for k, c in itertools.product(range(3), range(3)):
    for step in (1e-2, -1e-2):
      other = found.copy()
      other[k, c] += step
      assert loss(other) > least
  share = regression.predict(found, feature)
  np.testing.assert_allclose(share.sum(axis=1), 1)


@pytest.mark.parametrize('rows, columns', [(4, 3), (3, 3), (2, 3), (5, 1)])
def test_every_label_is_covered_at_the_least_loss(rows, columns):
  rng = np.random.default_rng(rows)
  for wanted in (np.ones(columns, bool), rng.random(columns) < 0.5):
    score = rng.normal(size=(rows, columns))
    found = naming.cover(score, wanted)
    every = [
      choice
      for choice in itertools.product(range(columns), repeat=rows)
      if set(np.flatnonzero(wanted)) <= set(choice) or wanted.sum() > rows
    ]
    value = lambda choice, s=score: sum(s[i, c] for i, c in enumerate(choice))
    assert value(found) == pytest.approx(max(map(value, every)))


def test_names_in_a_video_by_hand():
  score = np.log([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.3, 0.1, 0.6]])
  none = np.full(3, IGNORED)
  name = lambda clicked=none, label=(1, 1), balanced=0.0, drop=True, rows=3: (
    naming.assign(
      score[:rows], np.array(label), np.array(clicked)[:rows],
      balanced=balanced, drop=drop,
    ).tolist()
  )  # fmt: skip
  assert name() == [0, 1, 2]  # the last is background, the second loses least
  assert name(drop=False) == [0, 1, 0]
  assert name(label=(1, 0)) == [0, 0, 2]
  assert name([1, IGNORED, IGNORED]) == [1, 0, 2]  # both labels are there
  assert name([IGNORED, IGNORED, 1]) == [0, 0, 1]
  assert name(rows=1) == [0]  # too few for both
  away = np.log([[0.1, 0.2, 0.7], [0.1, 0.1, 0.8]])
  kept = naming.assign(
    away, np.array([1, 1]), none[:2], balanced=0.0, drop=True
  )
  assert kept.tolist() == [1, 2]  # one always stays


def test_balanced_columns_have_the_same_sum():
  score = np.random.default_rng(0).normal(size=(20, 3)) + np.array([2, 0, -1])
  power = np.exp(score + naming.balance(score))
  share = (power / power.sum(axis=1, keepdims=True)).sum(axis=0)
  np.testing.assert_allclose(share, 20 / 3, 0.05)


def _together(rng, swapped, telling=6):
  """Make 40 videos of two classes that come together but in a few."""
  looks, videos, features, true = np.eye(4)[:3] * 3, [], [], []
  for i in range(40):
    present = [i % 2] if i < telling else [0, 1]
    rows, feature = [], []
    for c in [*present, *present]:
      shown = 1 - c if swapped and len(present) > 1 else c
      rows += [_NONE, [_A, _B][shown], [_A, _B][shown]]
      feature += [looks[2], looks[c], looks[c]]
      true.append(c)
    rows += [_NONE] * (14 - len(rows))
    feature += [looks[2]] * (14 - len(feature))
    feature = np.array(feature) + rng.normal(size=(14, 4)) * 0.3
    videos.append(_video(rows, np.eye(2)[present].sum(0), {0: 2}))
    features.append(feature)
  return videos, features, np.array(true)


def _describe(videos, features, segments):
  negative = [
    regression.pool_negatives(*both)
    for both in zip(features, videos, strict=True)
  ]
  return regression.describe(
    np.concatenate(
      [
        regression.pool(x, segments.run[segments.video == i])
        for i, x in enumerate(features)
      ]
    ),
    np.concatenate(negative),
    np.repeat(np.arange(len(videos)), list(map(len, negative))),
  )


@pytest.mark.parametrize('swapped', [False, True])
def test_a_few_videos_tell_which_name_is_which(swapped):
  videos, features, true = _together(np.random.default_rng(0), swapped)
  segments = proposals.find(videos)
  labels = np.stack([video.label for video in videos])
  look = _describe(videos, features, segments)
  names = naming.name(segments, look, labels, seed=0)
  assert (names.label == true).mean() > 0.95
  right = naming.odds(look, segments, true, labels, (1, 0))
  wrong = np.where(labels.sum(axis=1)[segments.video] > 1, 1 - true, true)
  assert right > 0 > naming.odds(look, segments, wrong, labels, (1, 0))
  again = naming.name(segments, look, labels, seed=0)
  np.testing.assert_array_equal(names.label, again.label)


def test_a_clicked_name_stays_and_teaches():
  videos, features, true = _together(np.random.default_rng(1), True, telling=0)
  clicked = []
  for i, video in enumerate(videos):
    click = video.click.copy()
    if i < 5:  # of each class one
      click[[1, 4]] = 0, 1
    clicked.append(video._replace(click=click))
  segments = proposals.find(clicked)
  labels = np.stack([video.label for video in videos])
  look = _describe(clicked, features, segments)
  names = naming.name(segments, look, labels, seed=0)
  given = segments.clicked != IGNORED
  np.testing.assert_array_equal(names.label[given], segments.clicked[given])
  assert given.sum() == 10
  assert (names.label == true).mean() > 0.95


def test_many_features_are_their_principal_directions():
  rng = np.random.default_rng(0)
  wide = rng.normal(size=(30, 5)) @ rng.normal(size=(5, 600))
  look = regression.describe(wide, wide[:2], np.arange(2))
  assert look.segment.shape[1] <= 30
  whole = ((wide - wide.mean(0)) / (wide.std(0) + 1e-6)).clip(-4, 4)
  np.testing.assert_allclose(
    look.segment @ look.segment.T, whole @ whole.T, atol=1e-6
  )


def test_labels_of_snippets_by_hand():
  rows = [_A, _A, [0.3, 0.3, 0.4], _NONE, _NONE, _B, _NONE, _NONE, _A]
  video = _video(rows, [1, 1], {3: 2}, [0.4] * 9)
  segments = proposals.find([video, _video(rows, [0, 0])])
  assert segments.run.tolist() == [[0, 3], [5, 6], [8, 9]]
  found = targets.make(
    [video, _video(rows, [0, 0])], segments, np.array([0, 2, 1])
  )
  # Snippet 3 is clicked, though it touches a segment; 7 touches one.
  none = IGNORED
  assert found.label[0].tolist() == [0, 0, 0, 2, 2, 2, 2, none, 1]
  third, quarter = 1 / 6, 1 / 4
  np.testing.assert_allclose(
    found.weight[0], [third] * 3 + [quarter] * 4 + [0, 1 / 2]
  )
  assert (found.label[1] == none).all() and not found.weight[1].any()


def test_bins_of_a_proposal_by_fine_steps():
  feature = np.random.default_rng(0).normal(size=(10, 2))
  segments = np.array([[3.0, 7.0], [0.0, 1.3], [0.0, 20.0], [18.9, 19.0]])
  found = quality.pool(feature, segments, 20.0)
  for row, (start, end) in zip(found, segments / 2, strict=True):
    n = max(end - start, 1)
    q = max(n / 4, 1)
    edges = [start - 2 * q, start - q, start, start + q,
             end - q, end, end + q, end + 2 * q]  # fmt: skip
    for k in range(7):
      low = min(max(edges[k], 0), 9.5)
      high = max(min(max(edges[k + 1], 0.5), 10), low + 0.5)
      fine = np.linspace(low, high, 20001)[:-1] + (high - low) / 40000
      expected = feature[np.minimum(fine.astype(int), 9)].mean(axis=0)
      np.testing.assert_allclose(row[2 * k : 2 * k + 2], expected, atol=1e-3)


def test_what_a_proposal_should_be_judged_by_hand():
  labels = np.array([0, 0, 1, 0, 0])
  segments = np.array([[0, 10], [2, 6], [0, 10], [0, 4], [20.0, 30]])
  named, instances = np.array([0, 1]), np.array([[2.0, 6], [20, 24]])
  tiou, offset = quality.learnable(
    labels, segments, named, instances, np.array([1.0, 25.0])
  )
  # 4 of 10; itself; of another class; 2 of 6 (a third, so the click at 1 is
  # of no account); of another class, clicked.
  np.testing.assert_allclose(tiou, [0.4, 1, 0, 1 / 3, 0], 1e-6)
  np.testing.assert_allclose(offset[:2], [[0.2, -0.4], [0, 0]], 1e-6)
  tiou, _ = quality.learnable(
    labels[:1], segments[:1], named, np.array([[2.0, 4], [0, 1]]), np.array([9])
  )
  assert tiou == [0]  # a fifth, with a click inside
  tiou, offset = quality.learnable(
    labels, segments, named[:0], instances[:0], np.zeros(0)
  )
  assert not tiou.any() and offset.shape == (5, 2)


def test_a_head_learns_to_tell_and_to_move(tmp_path, monkeypatch):
  monkeypatch.setattr(quality, '_STEPS', 400)
  rng = np.random.default_rng(0)
  xs, tious, offsets = [], [], []
  for _ in range(60):
    a = rng.uniform(10, 30)
    b = a + rng.uniform(5, 10)
    feature = np.zeros((50, 2))
    feature[int(a) : int(b) + 1, 0] = 1
    feature += rng.normal(size=feature.shape) * 0.1
    start = rng.uniform(0, 40, size=40)
    tried = np.stack([start, start + rng.uniform(4, 10, 40)], axis=1)
    near = np.array([a, b]) + rng.normal(size=(20, 2))
    tried = np.concatenate([tried, near]).clip(0, 50)
    labels = np.zeros(60, int)
    instance = np.array([[int(a), int(b) + 1.0]])
    tiou, offset = quality.learnable(
      labels, tried, np.array([0]), instance, np.zeros(0)
    )
    xs.append(quality.inputs(feature, labels, tried, 50.0, 1))
    tious.append(tiou)
    offsets.append(offset)
  examples = quality.Examples(*map(np.concatenate, (xs, tious, offsets)))
  head = quality.fit(examples, seed=0)
  value, moved = quality.judge(head, examples.inputs)
  assert np.corrcoef(value, examples.tiou)[0, 1] > 0.8
  fits = examples.tiou >= 0.3
  apart = np.abs(moved - examples.offset)[fits].mean()
  assert apart < 0.7 * np.abs(examples.offset[fits]).mean()
  same = quality.fit(examples, seed=0)
  quality.write(tmp_path / 'q.npz', head)
  read = quality.read(tmp_path / 'q.npz', 16)
  jax.tree.map(np.testing.assert_array_equal, head, same)
  jax.tree.map(np.testing.assert_array_equal, head, read)
  with pytest.raises(errors.InputError, match='sees 16 values .* expected 24'):
    quality.read(tmp_path / 'q.npz', 24)
  (tmp_path / 'q.npz').write_bytes(b'nothing')
  with pytest.raises(errors.InputError, match='not a whole .npz file'):
    quality.read(tmp_path / 'q.npz', 16)
  # Proposals of a video, judged: what is moved stays in the video.
  judge = quality.Judge(head, feature, 50.0, 1)
  value, beside = judge(labels, tried)
  assert ((value > 0) & (value < 1)).all()
  assert beside.min() >= 0 and beside.max() <= 50
  assert (beside[:, 1] > beside[:, 0]).all()


def test_a_judge_adds_to_scores_and_puts_segments_beside():
  cas = np.zeros((10, 2), np.float32)
  cas[2:5, 0] = 1
  options = {
    'frame_num': 10, 'duration': 10.0, 'class_threshold': 0.1,
    'cas_thresholds': (0.5, 1, 1), 'magnitude_thresholds': (),
    'outer_ratio': 0, 'confidence_weight': 0, 'nms_tiou': 0.9, 'trim': 0,
    'whole_video_score': 0,
  }  # fmt: skip
  score = np.array([0.9, 0.1])
  labels, rows = localization.propose(cas, score, None, **options)
  assert labels.tolist() == [0] and rows.tolist() == [[2, 5]]
  judge = lambda labels, segments: (
    np.array([0.25]),
    segments + np.array([0, 3]),
  )
  found = localization.localize(cas, score, None, judge=judge, **options)
  assert found[1].tolist() == [[2, 5], [2, 8]]
  assert found[2].tolist() == [1.25, 1.25]
