"""Click agreement, held against a count of moments and by hand."""

import numpy as np
import pytest
from annotations_test import make_truth, make_video

from backtal_jax import errors
from backtal_jax.data import annotations, clicks
from backtal_jax.metrics import agreement, segments
from experiments import agreement as study

CLASSES = ['run', 'jump']


def truth(**durations):
  none = np.zeros(0, int)
  return segments.Truth(
    [*durations], CLASSES, segments.Segments(none, none, *np.zeros((3, 0))),
    np.array([*durations.values()], float),
  )  # fmt: skip


def found(*rows):
  """Make columns of (video, label, start, end, score)."""
  video, label, *numbers = np.array(rows, float).reshape(-1, 5).T
  return segments.Segments(video.astype(int), label.astype(int), *numbers)


def click(video, time, label='background'):
  return annotations.Click(video, time, label, 'x')


def test_by_hand():
  # Of 10 s, 2 are at score 0.9, 3 at 0.5, the rest below; ties count half.
  predictions = found((0, 0, 1, 3, 0.9), (0, 1, 2, 6, 0.5))
  of = lambda *own: agreement.by_video(truth(a=10.0), predictions, own)['a']
  # In no segment: 5 s are above, 5 s equal. In the lower one: 2 s, and 3 s.
  assert of(click('a', 8.0)) == [[0.75, 1.0], [0.0, 0.0]]
  assert of(click('a', 5.0))[0] == pytest.approx([0.2 + 0.15, 1.0])
  # A run click at 2 s outranks one background click by segments of run; of
  # the other there is none either, but for the tie.
  pair = of(click('a', 2.0, 'run'), click('a', 2.5), click('a', 8.0))[1]
  assert pair == [0.5 + 1.0, 2.0]
  pair = of(click('a', 9.0, 'jump'), click('a', 5.0), click('a', 8.0))[1]
  assert pair == [0.0 + 0.5, 2.0]
  # Without background clicks nothing is compared.
  assert of(click('a', 2.0, 'run')) == [[0.0, 0.0], [0.0, 0.0]]
  assert agreement.summarize({'a': [[0.0, 0.0], [0.0, 0.0]]}) is None


def test_a_random_moment_is_what_counting_moments_says():
  rng = np.random.default_rng(0)
  for _ in range(20):
    start = rng.uniform(-2, 30, 12)
    rows = [
      (0, rng.integers(2), s, s + rng.uniform(0, 12), rng.choice(5) / 4 - 0.3)
      for s in start
    ]
    predictions = found(*rows)

    def value(time, rows=rows):
      return max((x for _, _, s, e, x in rows if s <= time <= e), default=-9)

    moments = (np.arange(40000) + 0.5) / 40000 * 31.0
    values = np.array([value(t) for t in moments])
    time = float(rng.uniform(0, 31))
    own = value(time)
    expected = (values > own).mean() + (values == own).mean() / 2
    got = agreement.by_video(truth(a=31.0), predictions, [click('a', time)])
    assert got['a'][0][0] == pytest.approx(expected, abs=1e-3)


def test_nothing_found_and_whole_videos_say_nothing():
  own = [click('a', 3.0), click('b', 1.0)]
  videos = truth(a=10.0, b=10.0)
  whole = found((0, 0, 0, 10, 0.7), (1, 0, 0, 10, 0.7))
  for predictions in (found(), whole):
    measured = agreement.summarize(agreement.by_video(videos, predictions, own))
    assert measured['value'] == measured['low'] == measured['high'] == 0.5
    assert (measured['clicks'], measured['videos']) == (2, 2)
  with pytest.raises(errors.InputError, match="'b' has no duration"):
    agreement.by_video(truth(a=10.0, b=np.nan), whole, own)


def test_the_interval_is_that_of_drawing_videos():
  rng = np.random.default_rng(1)
  table = {
    f'v{i:02d}': [[float(rng.uniform(0, n)), float(n)], [0.0, 0.0]]
    for i, n in enumerate(rng.integers(1, 5, 40))
  }
  measured = agreement.summarize(table)
  sums, counts = np.array([row[0] for row in table.values()]).T
  draws = rng.integers(0, 40, (4000, 40))
  values = sums[draws].sum(1) / counts[draws].sum(1)
  assert measured['value'] == pytest.approx(sums.sum() / counts.sum())
  low, high = np.quantile(values, [0.025, 0.975])
  assert measured['low'] == pytest.approx(low, abs=0.015)
  assert measured['high'] == pytest.approx(high, abs=0.015)


def test_a_share_of_each_video_is_kept_aside():
  names = [f'v{i}' for i in range(300)]
  given = [click(n, t) for n in names for t in (1.0, 1.2, 30.0, 60.0, 90.0)]
  known = lambda duration: make_truth(
    *(make_video(n, 'training', duration) for n in names)
  )
  split = lambda seed, duration=100.0: clicks.keep_aside(
    given, known(duration), 0.3, seed=seed, num_snippets=20
  )
  trained, aside = split(0)
  assert sorted([*trained, *aside], key=str) == sorted(given, key=str)
  assert split(0) == (trained, aside) != split(1)
  # Four snippets a video: one of them, or two, and 1.2 on average.
  snippet = lambda c: (c.video, int(c.time / 5))
  places = {snippet(c) for c in aside}
  assert not places & {snippet(c) for c in trained}
  counts = [sum(v == n for v, _ in places) for n in names]
  assert {*counts} == {1, 2}
  assert np.mean(counts) == pytest.approx(1.2, abs=0.07)
  with pytest.raises(errors.InputError, match='has no duration'):
    split(0, None)


def test_the_study_counts_what_a_choice_loses():
  rows = [(1, 0.5, 0.2, 0.1), (2, 0.7, 0.6, 0.2), (3, 0.6, 0.8, 0.3)]
  points = [
    study.Point('demo', 'robust', 0.0, seed, *row)
    for seed in (0, 1)
    for row in rows
  ]
  groups = study._groups(points, 'seed')
  # Chosen is the second, the third is best; at random 0.8 less the mean.
  assert study._lost(groups) == '20.0, at random 26.7 (2 choices)'
  assert study._spearman(points) == pytest.approx(0.5)
  assert study._spearman(points, 'second') == pytest.approx(1)
  assert '| runs | 2 | not run |' in study.table(points)
