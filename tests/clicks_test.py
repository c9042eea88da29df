"""Tests for backtal_jax.data.clicks and simulate_clicks."""

import collections
import functools
import itertools
import json
import types

import hypothesis
import numpy as np
import processes
import pytest
from annotations_test import make_truth, make_video, read_real
from hypothesis import strategies as st

from backtal_jax import errors, files
from backtal_jax.data import annotations, clicks
from backtal_jax.data.annotations import Annotations, Click
from backtal_jax.prepare import click_stats, simulate_clicks

CLASSES = ('Run', 'Jump')


def click(time, label='background', annotator='a', video='x'):
  return Click(video, float(time), label, annotator)


def video(name='x', *segments, duration=100.0, subset='val'):
  segments = [(float(start), float(end), 'Run') for start, end in segments]
  return make_video(name, subset, duration, 30.0, *segments)


def background(ground_truth, seed=0, **how):
  return simulate_clicks.simulate_background(
    ground_truth, 'val', seed=seed, **how
  )


def counted(*numbers):
  keys = 'clicks', 'videos', 'inside_action', 'gaps', 'gaps_hit'
  return dict(zip(keys, numbers, strict=True))


# Times to snippets.


def test_snippet_labels_by_hand():
  found = [click(0), click(9.99), click(10, 'Jump'), click(100), click(55)]
  labels = clicks.snippet_labels(found, 100, 10, CLASSES)
  # A click at the very end belongs to the last snippet.
  expected = [2, 1, -100, -100, -100, 2, -100, -100, -100, 2]
  assert labels.dtype == np.int32
  assert labels.tolist() == expected


def test_no_click_no_label_even_without_a_duration():
  assert clicks.snippet_labels([], None, 3, CLASSES).tolist() == [-100] * 3


@pytest.mark.parametrize('order', [1, -1])
def test_several_clicks_in_a_snippet(order):
  found = [click(1, 'Jump'), click(2), click(11, 'Run'), click(12, 'Jump'),
           click(21), click(22)][::order]  # fmt: skip
  labels = clicks.snippet_labels(found, 30, 3, CLASSES)
  # An action goes before background, a later action before an earlier one.
  assert labels.tolist() == [1, 1, 2]


@hypothesis.given(
  st.floats(0.1, 1e5),
  st.integers(1, 800),
  st.lists(st.floats(0, 1), max_size=10),
)
def test_snippet_is_the_one_whose_span_holds_the_time(duration, t, shares):
  found = [click(min(share * duration, duration)) for share in shares]
  labels = clicks.snippet_labels(found, duration, t, CLASSES)
  hit = set(np.flatnonzero(labels == 2).tolist())
  assert set(labels.tolist()) <= {2, -100}
  width, slack = duration / t, 1e-9 * duration
  holds = lambda i, time: i * width - slack <= time <= (i + 1) * width + slack
  assert all(any(holds(i, c.time) for i in hit) for c in found)
  assert all(any(holds(i, c.time) for c in found) for i in hit)


@pytest.mark.parametrize(('bad', 'duration', 'match'), [
  (click(11), 10, r"'x' is at 11 s, its duration is 10"),
  (click(-1), 10, '-1 s'),
  (click(1), None, 'None'),
  (click(1), float('nan'), 'nan'),
  (click(0), 0, '0'),
  (click(1, 'Swim'), 10, "'Swim'"),
])  # fmt: skip
def test_clicks_that_have_no_snippet(bad, duration, match):
  with pytest.raises(errors.InputError, match=match):
    clicks.snippet_labels([bad], duration, 5, CLASSES)


# Annotators.

MANY = [
  click(1, annotator=annotator, video=name)
  for name in ('u', 'v', 'w')
  for annotator in ('A1', 'A2', 'A3')
  if (name, annotator) != ('w', 'A2')
]


def test_annotators_all_together_or_by_name():
  grouped = clicks.by_video(MANY)
  assert {k: len(v) for k, v in grouped.items()} == {'u': 3, 'v': 3, 'w': 2}
  grouped = clicks.by_video(MANY, 'A2')
  assert grouped == {'u': [MANY[1]], 'v': [MANY[4]]}
  with pytest.raises(errors.InputError, match=r"'A4'.*A1, A2, A3"):
    clicks.by_video(MANY, 'A4')


def drawn(found, seed=0, epochs=30):
  """Return whose clicks are sampled, epoch by epoch."""
  each = [clicks.sample(found, seed=seed, epoch=e) for e in range(epochs)]
  return [c.annotator for of_epoch in each for c in of_epoch]


def test_draw_takes_one_annotator_who_clicked_and_everyone_evenly():
  assert len(drawn(MANY[6:])) == 30
  assert set(drawn(MANY[6:])) == {'A1', 'A3'}
  assert drawn([]) == []
  counts = collections.Counter(drawn(MANY[:3], epochs=900))
  # Five standard deviations of a fair draw: sqrt(900 · 1/3 · 2/3) = 14.
  assert len(counts) == 3 and all(230 < n < 370 for n in counts.values())


def test_draw_depends_on_seed_epoch_and_video_but_on_no_order():
  assert drawn(MANY[:3], 1) == drawn(MANY[2::-1], 1)
  assert drawn(MANY[:3], 1) != drawn(MANY[:3], 2)
  assert drawn(MANY[:3], 1) != drawn(MANY[3:6], 1)


def test_draw_is_the_same_in_another_process():
  code = (
    'from backtal_jax.data import annotations, clicks\n'
    "found = [annotations.Click('u', 1.0, 'Run', f'A{i}') for i in (1, 2, 3)]\n"
    'print(*(clicks.sample(found, seed=7, epoch=e)[0].annotator '
    'for e in range(20)))'
  )
  done = processes.python('-c', code, PYTHONHASHSEED='12345')
  assert done.stdout.split() == drawn(MANY[:3], 7, epochs=20)


def test_labeller_gives_each_video_its_clicks():
  found = [
    click(10, annotator='A1', video='v_u'),
    click(90, 'Jump', annotator='A2', video='v_u'),
    click(30, video='x'),
  ]
  videos = video('v_u'), video('w'), video('x', duration=None)

  def labels(annotator, name, epoch=0, duration=float('nan'), num_snippets=2):
    labeller = clicks.labeller(
      found, make_truth(*videos), annotator, seed=3, num_snippets=num_snippets
    )
    of = types.SimpleNamespace(name=name, duration=duration)
    return labeller(of, epoch).tolist()

  assert labels('all', 'u') == [2, 1]
  assert labels('A1', 'u') == [2, -100]
  assert labels('A2', 'u') == [-100, 1]
  assert labels('all', 'w') == [-100, -100]
  sampled = {tuple(labels('random', 'u', epoch)) for epoch in range(20)}
  assert sampled == {(2, -100), (-100, 1)}
  with pytest.raises(errors.InputError, match='A9'):
    labels('A9', 'u')
  # The ground truth tells no duration of x, but its file does.
  told = labels('all', 'x', duration=40.0, num_snippets=4)
  assert told == [-100, -100, -100, 2]


# Actions and gaps.


def test_actions_merge_and_gaps_are_the_rest():
  v = video('x', (20, 30), (25, 40), (40, 45), (50, 50), (90, 120), (60, 55))
  assert click_stats.actions(v) == [(20, 45), (90, 100)]
  assert click_stats.gaps(v) == [(0, 20), (45, 90)]
  assert click_stats.gaps(video('x', (-5, 10), (200, 300))) == [(10, 100)]
  assert click_stats.gaps(video('x')) == [(0, 100)]
  assert click_stats.gaps(video('x', (0, 100))) == []
  assert click_stats.gaps(video('x', duration=0.0)) == []
  with pytest.raises(errors.InputError, match="'x' has no duration"):
    click_stats.gaps(video('x', duration=None))


segment_lists = st.lists(
  st.tuples(st.integers(-3, 23), st.integers(-3, 23)), max_size=6
)


@hypothesis.given(segment_lists)
def test_actions_and_gaps_agree_with_a_grid(segments):
  v = video('x', *segments, duration=20.0)
  for cell in range(20):
    middle = cell + 0.5
    inside = any(s < middle < e for s, e in segments)
    assert inside == any(s < middle < e for s, e in click_stats.actions(v))
    assert inside != any(s < middle < e for s, e in click_stats.gaps(v))
  # Merged: nothing touches its neighbour.
  for spans in (click_stats.actions(v), click_stats.gaps(v)):
    assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))


# Statistics.


def test_statistics_by_hand():
  ground_truth = make_truth(
    video('x', (20, 30), (60, 70)),
    video('y', (0, 50)),
    video('z', (10, 20), subset='test'),
  )
  found = {
    # On a boundary: inside the action and a hit; two in one gap.
    'one': [click(20), click(40), click(45), click(10, video='y')],
    'two': [click(25, 'Run'), click(40, 'Run')],
  }
  assert click_stats.count(ground_truth, found) == {
    'one': counted(4, 2, 2, 4, 2),
    # Only a background click hits a gap.
    'two': counted(2, 1, 1, 4, 0),
  }


def test_write_statistics_prints_a_table_and_writes_json(tmp_path, capsys):
  ground_truth = tmp_path / 'gt.json'
  truth = make_truth(video('x', (20, 30)))
  files.write_json(ground_truth, truth.as_json())
  good, bad = tmp_path / 'good.csv', tmp_path / 'bad.csv'
  annotations.write_clicks(good, [click(25), click(40), click(45)])
  annotations.write_clicks(bad, [click(5), click(101)])
  output = tmp_path / 'stats.json'
  statistics = functools.partial(
    click_stats.run, [good, bad], output, ground_truth=ground_truth,
    video_list=None, fps=None, intervals='',
  )  # fmt: skip
  with pytest.raises(errors.InputError, match=r'bad\.csv:3'):
    statistics(lenient=False)
  assert not output.exists()
  assert f'wrong: {bad}:3' in capsys.readouterr().err
  statistics(lenient=True)
  assert json.loads(output.read_text()) == {
    str(good): counted(3, 1, 1, 2, 1),
    str(bad): counted(1, 1, 0, 2, 1),
  }
  printed = capsys.readouterr()
  row = next(x for x in printed.out.splitlines() if x.startswith(str(good)))
  told = ' '.join(row.removeprefix(str(good)).split())
  assert told == '3 1 3.00 1 (33.3%) 1 of 2 (50.0%)'
  assert printed.err.count('\n') == 1
  assert f'{bad}:3' in printed.err


def test_statistics_of_no_clicks_divide_by_nothing(capsys):
  counts = click_stats.count(make_truth(video('x')), {'none': []})
  click_stats.show(counts)
  assert '0.0%' in capsys.readouterr().out


def test_real_annotators_of_thumos14(shared):
  # method.md, section 8.
  folder = shared / 'data/thumos14'
  ground_truth, found = read_real(folder / 'gt_thumos14.json'), {}
  for name in ('A1', 'A2', 'A3'):
    path = folder / f'THUMOS14_Background-Click-Annotation_{name}.txt'
    found[name], _ = annotations.read_clicks(path, ground_truth)
  counts = click_stats.count(ground_truth, found)
  assert [n['clicks'] for n in counts.values()] == [2264, 2323, 2344]
  assert [n['videos'] for n in counts.values()] == [200, 199, 199]
  assert {n['gaps'] for n in counts.values()} == {2880}
  inside = [100 * n['inside_action'] / n['clicks'] for n in counts.values()]
  assert np.round(inside, 1).tolist() == [7.7, 2.2, 7.5]
  hit = [100 * n['gaps_hit'] / n['gaps'] for n in counts.values()]
  assert np.round(hit, 1).tolist() == [64.3, 78.8, 72.0]


# Simulated clicks.


def many_videos():
  rng = np.random.default_rng(0)
  return make_truth(
    *(
      video(f'{i:02d}', *np.sort(rng.uniform(0, 100, (3, 2)), 1).tolist())
      for i in range(40)
    ),
    video('empty'),
    video('full', (0, 100)),
    video('other', (10, 20), subset='test'),
  )


def test_one_background_click_in_every_gap_and_none_inside():
  ground_truth = many_videos()
  found = background(ground_truth, seed=1)
  grouped = clicks.by_video(found)
  assert {c.label for c in found} == {'background'}
  assert not {'full', 'other'} & set(grouped)
  for v in ground_truth.subset('val').values():
    mine = grouped.get(v.name, [])
    assert len(mine) == len(click_stats.gaps(v))
    for start, end in click_stats.gaps(v):
      assert sum(start < c.time < end for c in mine) == 1
    for c in mine:
      assert not any(s.start <= c.time <= s.end for s in v.segments)


def test_same_seed_same_clicks_whatever_the_order_of_videos():
  ground_truth = many_videos()
  backwards = Annotations(
    dict(reversed(ground_truth.videos.items())), ground_truth.classes
  )
  for simulate in (
    simulate_clicks.simulate_background,
    simulate_clicks.simulate_actions,
  ):
    found = simulate(ground_truth, 'val', seed=1)
    assert simulate(backwards, 'val', seed=1) == found
    assert simulate(ground_truth, 'val', seed=2) != found


def test_a_share_of_gaps_nested():
  ground_truth = many_videos()
  shares = [
    set(background(ground_truth, seed=3, gap_share=share))
    for share in (0, 0.25, 0.5, 1)
  ]
  total = sum(
    len(click_stats.gaps(v)) for v in ground_truth.subset('val').values()
  )
  numbers = [0, round(total / 4), round(total / 2), total]
  assert [len(s) for s in shares] == numbers
  assert shares[0] < shares[1] < shares[2] < shares[3]


def test_margin_and_shortest_gap():
  # Gaps of 10, 5, 30 and 35 s; the ends of the video are no boundaries.
  v = video('x', (10, 20), (25, 30), (60, 65))
  for seed in range(30):
    found = background(make_truth(v), seed, margin=4)
    bounds = [(0, 6), (34, 56), (69, 100)]
    assert len(found) == 3
    for c, (low, high) in zip(found, bounds, strict=True):
      assert low <= c.time <= high
    found = background(make_truth(v), seed, min_gap=10.5)
    assert [c.time > 30 for c in found] == [True, True]
  spread = [background(make_truth(v), seed, margin=4)[1] for seed in range(200)]
  times = [c.time for c in spread]
  assert min(times) < 36 and max(times) > 54


def test_wrong_clicks_lie_inside_actions_of_their_video():
  ground_truth = many_videos()
  right = background(ground_truth, seed=4)
  found = background(ground_truth, seed=4, wrong_share=0.2)
  actions_of = lambda c: click_stats.actions(ground_truth.videos[c.video])
  inside = [any(s <= c.time <= e for s, e in actions_of(c)) for c in found]
  assert len(found) == len(right)
  assert sum(inside) == round(0.2 * len(right))
  assert len(set(found) & set(right)) == len(right) - sum(inside)
  assert {c.label for c in found} == {'background'}


def test_wrong_clicks_are_spread_over_all_of_the_actions():
  v = video('x', (0, 10), (50, 80))
  found = [
    background(make_truth(v), seed, wrong_share=1) for seed in range(300)
  ]
  times = np.array([c.time for of_seed in found for c in of_seed])
  assert len(times) == 600
  assert np.all((times <= 10) | ((times >= 50) & (times <= 80)))
  # A quarter of the action time; five standard deviations are 0.09.
  assert abs(np.mean(times <= 10) - 0.25) < 0.09


@pytest.mark.parametrize(('how', 'match'), [
  ({'gap_share': 1.5}, 'gap_share'),
  ({'gap_share': float('nan')}, 'gap_share'),
  ({'wrong_share': -0.1}, 'wrong_share'),
  ({'margin': -1}, 'margin'),
  ({'min_gap': -1}, 'min_gap'),
  # No action to be wrong in.
  ({'wrong_share': 1}, 'wrong_share is 1, 1 clicks'),
])  # fmt: skip
def test_impossible_settings(how, match):
  with pytest.raises(errors.InputError, match=match):
    background(make_truth(video('x')), **how)


def test_gaps_without_a_time_between_their_ends():
  after = float(np.nextafter(50, 51))
  v = video('x', (0, 50), (after, 100))
  assert click_stats.gaps(v) == [(50, after)]
  assert background(make_truth(v)) == []


@hypothesis.given(segment_lists, st.integers(0, 5), st.floats(1e-3, 1e3))
def test_simulated_background_never_touches_an_action(segments, seed, scale):
  segments = [(s * scale, e * scale) for s, e in segments]
  v = video('x', *segments, duration=20 * scale)
  for c in background(make_truth(v), seed):
    assert 0 < c.time < v.duration
    assert not any(s <= c.time <= e for s, e in segments if s < e)


def test_one_action_click_in_every_instance():
  v = video('x', (10, 20), (15, 30), (40, 40), (95, 120), (200, 210), (10, 20))
  found = simulate_clicks.simulate_actions(make_truth(v), 'val', seed=0)
  # Those without length within the video have none.
  assert len(found) == 4
  assert {c.label for c in found} == {'Run'}
  assert sum(10 <= c.time <= 30 for c in found) == 3
  assert sum(95 <= c.time <= 100 for c in found) == 1


def test_action_clicks_carry_their_class():
  run, jump = (1.0, 2.0, 'Run'), (5.0, 6.0, 'Jump')
  v = make_video('x', 'val', None, None, run, jump)
  found = simulate_clicks.simulate_actions(make_truth(v), 'val', seed=0)
  assert [c.label for c in found] == ['Run', 'Jump']
  assert 1 <= found[0].time <= 2
  assert 5 <= found[1].time <= 6


@pytest.mark.parametrize(
  ('file', 'subset'),
  [
    ('thumos14/gt_thumos14.json', 'val'),
    ('thumos14/gt_thumos14.json', 'test'),
    ('activitynet12/activity_net.v1-2.min.json', 'training'),
    ('activitynet12/activity_net.v1-2.min.json', 'validation'),
  ],
)
def test_real_ground_truth_simulated(shared, tmp_path, file, subset):
  ground_truth = read_real(shared / 'data' / file)
  found = simulate_clicks.simulate_background(ground_truth, subset, seed=0)
  # Through a file and back, as a user would.
  annotations.write_clicks(tmp_path / 'clicks.csv', found)
  again, _ = annotations.read_clicks(tmp_path / 'clicks.csv', ground_truth)
  assert again == found
  for c in found:
    v = ground_truth.videos[c.video]
    assert 0 < c.time < v.duration
    assert not any(s.start <= c.time <= s.end for s in v.segments)
  (counts,) = click_stats.count(ground_truth, {'x': found}).values()
  assert counts['gaps_hit'] == counts['gaps'] == counts['clicks'] > 0
  assert counts['inside_action'] == 0
  if subset == 'val':
    assert len(found) == 2880  # method.md, section 8
  wrong = simulate_clicks.simulate_background(
    ground_truth, subset, seed=0, wrong_share=0.2
  )
  (counts,) = click_stats.count(ground_truth, {'x': wrong}).values()
  assert counts['inside_action'] == round(0.2 * len(found))
